#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build vdifs, run its tests, and end with one line "N passed, N failed, N skipped"; see usage().
set -u
exec </dev/null

top=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=scripts/deps.sh disable=SC1091
. "$top/scripts/deps.sh"
cd "$top" || exit

usage() {
	cat <<-END
	usage: ./check.sh            install what is missing, build in ./build, and run the tests there
	       ./check.sh short      the tests that depend most on the system's libraries and programs
	       ./check.sh whole      all tests of one build, in their usual length
	       ./check.sh prepare    only install what is missing

	With CI=true in the environment a skipped test is a failed one, and there is more: "whole",
	fuzzing, endurance, sanitizers, ThreadSanitizer, other compilers, the Debian package, another
	Debian.
	A test that fails leaves its output in build/, in a file of its name that ends in .log.
	END
}

case ${1-} in
'' | short | whole | prepare) ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

preparing='' passed=0 failed=0 skipped=0 began=$(date +%s)

# Everything that the tests make lies below one folder, so that what they leave behind is seen.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/vdifs-check.XXXXXX") || exit
export TMPDIR
chmod 755 "$TMPDIR"

finish() {
	trap - EXIT
	[ -z "$preparing" ] || { kill -- "-$preparing" && wait "$preparing"; } 2>/dev/null
	rm -rf --one-file-system "$TMPDIR"
	if [ "${CI-}" = true ] && [ "$skipped" -gt 0 ]; then
		echo "CI: $skipped skipped counted as failed"
		failed=$((failed + skipped)) skipped=0
	fi
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}

give_up() {
	failed=$((failed + 1))
	finish
}
trap give_up EXIT
trap 'exit 1' INT TERM HUP

count() { # count DIR RESULT...: how many tests in DIR ended in one of these
	dir=$1
	shift
	find "$dir" -name '*.trs' -exec cat {} + |
		grep -cE "^:test-result: ($(echo "$*" | tr ' ' '|'))\b"
}

report() { # what went wrong in DIR, and what was skipped and why
	find "$1" -name '*.trs' | sort | while read -r trs; do
		log=${trs%.trs}.log
		grep -qE '^:test-result: (FAIL|XPASS|ERROR|SKIP)\b' "$trs" || continue
		echo "-- ${trs%.trs}"
		grep '# SKIP' "$log"
		grep -qE '^:test-result: (FAIL|XPASS|ERROR)\b' "$trs" || continue
		grep -E -A 9 '^(not ok|Bail out|ERROR)' "$log" | grep -vE '^(ok|PASS:|FAIL:)' |
			head -n 60 | grep . || tail -n 20 "$log"
	done
}

make_build() { # make_build DIR CONFIGURE ARGUMENT...
	headline "$*: building"
	build "$@" || give_up
}

group() { make -s --no-print-directory -C build "list-$1-tests"; } # as in Makefile.am

headline() { echo "== $(elapsed)  $*"; }

elapsed() {
	seconds=$(($(date +%s) - began))
	printf '%2d:%02d' $((seconds / 60)) $((seconds % 60))
}

# In the background: a line for each test that has ended, until the file DIR/check.end is there.
show_progress() { # show_progress DIR TOTAL
	seen=' ' number=0 last=''
	while [ -z "$last" ] && kill -0 $$ 2>/dev/null; do
		[ ! -e "$1/check.end" ] || last=yes
		for trs in $(find "$1" -name '*.trs' | sort); do
			case $seen in *" $trs "*) continue ;; esac
			grep -q '^:global-test-result:' "$trs" || continue
			seen="$seen$trs " number=$((number + 1)) name=${trs%.trs}
			printf '[%3d/%d] %s %5s  %-28s %s\n' "$number" "$2" "$(elapsed)" "$(took "$name")" "${name#"$1/"}" \
				"$(results "$trs")"
		done
		[ -n "$last" ] || sleep 1
	done
}

took() { # took NAME: its time, where the file system knows when its log was made; others run at the same time
	begun=$(stat -c %W "$1.log") && [ "$begun" -gt 0 ] && echo "$(($(stat -c %Y "$1.trs") - begun))s"
}

results() { # results FILE: "7 passed, 1 failed"
	awk '/^:test-result: (PASS|XFAIL)/ { pass++ }
		/^:test-result: (FAIL|XPASS|ERROR)/ { fail++ }
		/^:test-result: SKIP/ { skip++ }
		END { printf "%d passed", pass
			if (fail) printf ", %d FAILED", fail
			if (skip) printf ", %d skipped", skip }' "$1"
}

run_tests() { # run_tests DIR MAKE-ARGUMENT...
	dir=$1
	shift
	# shellcheck disable=SC2046 # a list of words
	set -- "$(make -s --no-print-directory -C "$dir" list-logs "$@" | wc -w)" "$@"
	headline "$dir: testing"
	find "$dir" -name '*.trs' -delete
	rm -f "$dir/check.end"
	show_progress "$dir" "$1" &
	progress=$!
	shift
	make -C "$dir" -k -j4 check "$@" >"$dir/check.log" 2>&1 # of which two often wait for a moment to come
	made=$?
	: >"$dir/check.end"
	wait "$progress"
	bad=$(count "$dir" FAIL XPASS ERROR)
	passed=$((passed + $(count "$dir" PASS XFAIL)))
	skipped=$((skipped + $(count "$dir" SKIP)))
	failed=$((failed + bad))
	report "$dir"
	if { [ "$made" -ne 0 ] && [ "$bad" -eq 0 ]; } || [ "$(count "$dir" '.*')" -eq 0 ]; then
		# Not a test failed, but the making of one.
		{ grep -E -B 2 -A 6 '(: error: |: undefined reference|\*\*\* )' "$dir/check.log" ||
			tail -n 60 "$dir/check.log"; } | head -n 60
		failed=$((failed + 1))
	fi
}

step() { # step NAME COMMAND...: one more test, with its output in build/NAME.log
	log=build/$1.log name=$1
	shift
	headline "$name"
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "not ok - $name: $*"
		tail -n 40 "$log"
		return 1
	fi
}

# shellcheck disable=SC2317 # these are called by step
make_package() { # the tarball is all that a packager has
	rm -rf build/package && mkdir build/package &&
		make -C build dist && tar -xJf build/vdifs-*.tar.xz -C build/package &&
		(cd build/package/vdifs-* && VD_SHORT=1 DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage -us -uc)
}

# shellcheck disable=SC2317
installed_package() {
	apt-get install -y --reinstall "$top"/build/package/vdifs_*.deb "$top"/build/package/vdimap_*.deb
}

# shellcheck disable=SC2317
package_test() { # as autopkgtest runs it
	for name in map mount; do
		AUTOPKGTEST_TMP=$(mktemp -d "$TMPDIR/autopkgtest.XXXXXX") &&
			export AUTOPKGTEST_TMP && "$top/debian/tests/$name" || return
	done
}

# What may be different of installed programs: how they are found and begun, and their sandbox.
installed_tests() {
	for name in basic fstab sandbox systemd; do
		echo "tests/mount/$name.sh"
	done | paste -s -d ' ' -
}

check_package() {
	command -v apt-get >/dev/null || return
	step distcheck make -C build distcheck check_PROGRAMS=test_bytes \
		TESTS="test_bytes tests/style/tree.sh" DISTCHECK_CONFIGURE_FLAGS="CFLAGS=-O0" || return
	step package make_package || return
	step lintian lintian --pedantic --fail-on error,warning,info,pedantic build/package/*.changes
	step install installed_package || return
	step autopkgtest package_test
	VD_INSTALLED=/usr/bin
	export VD_INSTALLED
	run_tests build TESTS="$(installed_tests)"
	unset VD_INSTALLED
	step remove apt-get remove -y vdifs vdimap
}

mounts() { cut -d ' ' -f 2 /proc/mounts | grep -F "$TMPDIR/"; }

leftovers() { # mounts and loop devices below TMPDIR, processes of these builds
	mounts | sed 's/^/mounted: /'
	losetup -n -O NAME,BACK-FILE 2>/dev/null | grep -F " $TMPDIR/"
	for process in /proc/[0-9]*; do
		case $(readlink "$process/exe") in "$top"/build*) ;; *) continue ;; esac
		grep -qzFx "TMPDIR=$TMPDIR" "$process/environ" && echo "running: $process"
	done 2>/dev/null
}

check_leftovers() {
	found=$(leftovers)
	[ -n "$found" ] && sleep 2 && found=$(leftovers) # it may have been on its way out
	[ -z "$found" ] && return
	printf 'The tests left behind:\n%s\n' "$found"
	failed=$((failed + 1))
	mounts | sort -r | while read -r mountpoint; do
		umount -l "$mountpoint" || fusermount3 -u -z "$mountpoint"
	done
}

# The system beside this one: what is stable where this is not.
other_suite() {
	case $(. /etc/os-release && echo "${VERSION_CODENAME-}") in
	bookworm) echo trixie ;;
	*) echo bookworm ;;
	esac
}

check_on() { # check_on SUITE: on another Debian; its counts are added to those here
	log=build/check-on-$1.log
	headline "on Debian $1"
	scripts/check-on.sh "$1" short 2>&1 | tee "$log" | sed 's/^/   /'
	# shellcheck disable=SC2046 # numbers
	set -- $(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log")
	[ $# -eq 3 ] || set -- 0 1 0
	passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# The versions that differences between systems come from.
describe_system() {
	(. /etc/os-release && echo "$PRETTY_NAME, Linux $(uname -r)")
	echo "libfuse $(pkg-config --modversion fuse3), $(qemu-img --version | head -n 1)," \
		"$(gcc --version | head -n 1)"
}

# What depends most on the system: kernel interfaces through its libraries, and its qemu-img.
short_tests() {
	group unit
	echo tests/recipes.py tests/oracle.py tests/vdimap.py tests/changes.py
	for name in basic attr copy snapshots qcow2view sandbox; do
		echo "tests/mount/$name.sh"
	done
}

check_more() { # with CI=true
	# Making a system mostly waits: for servers, and for disks. It is a group of processes, to be ended.
	setsid scripts/check-on.sh "$(other_suite)" prepare >build/check-on-prepare.log 2>&1 &
	preparing=$!
	step threads make -C build -j2 check-threads
	check_package
	for name in clang lto m32 musl; do
		step "$name" scripts/compile-with.sh "$name"
	done
	make_build build-asan --enable-sanitizers --enable-werror
	VD_SHORT=1 run_tests build-asan TESTS="$(group sanitizer)"
	step prepare wait "$preparing" || cat build/check-on-prepare.log
	preparing=''
	check_on "$(other_suite)"
}

needs=''
case ${1-} in '' | whole) needs=$fuzz_needs ;; esac
[ "${CI-}" != true ] || needs="$fuzz_needs $package_needs $compiler_needs $other_system_needs"
require "$build_needs" "$demo_needs" "$test_needs" "$needs" || give_up
[ "${1-}" != prepare ] || finish
describe_system
can_mount || echo "Tests that mount are skipped."
make_build build --enable-werror

if [ "${1-}" = short ]; then
	tests=$(short_tests | paste -s -d ' ' -)
	VD_SHORT=1 VD_ORACLE=200 run_tests build TESTS="$tests"
	step try ./try.sh
elif [ "${CI-}" != true ] && [ "${1-}" != whole ]; then
	VD_SHORT=1 run_tests build TESTS="$(group quick)"
	step try ./try.sh
else
	FUZZ_SECONDS="${FUZZ_SECONDS:-20}" run_tests build
	step try ./try.sh
	[ "${1-}" = whole ] || check_more
fi
check_leftovers
finish
