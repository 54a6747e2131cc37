#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build vdifs twice, plain and with sanitizers, run all tests in both builds, and end with one line
# "N passed, N failed, N skipped". With CI=true a skipped test is a failed one, ThreadSanitizer has a
# build and a test, and on Debian the package is built from the tarball, installed, and tested as it
# is installed.
set -u
exec </dev/null

top=$(cd "$(dirname "$0")" && pwd)
. "$top/scripts/deps.sh"
cd "$top" || exit

passed=0 failed=0 skipped=0

# Everything that the tests make lies below one folder, so that what they leave behind is seen.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/vdifs-check.XXXXXX") || exit
export TMPDIR
chmod 755 "$TMPDIR"

finish() {
	trap - EXIT
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

check() { # check DIR CONFIGURE ARGUMENT...
	echo "== $*: building"
	build "$@" || give_up
	run_tests "$1"
}

run_tests() { # run_tests DIR MAKE-ARGUMENT...
	dir=$1
	shift
	echo "== $dir: testing $*"
	find "$dir" -name '*.trs' -delete
	make -C "$dir" -k -j3 check "$@" >"$dir/check.log" 2>&1 # of which one often waits for a moment to come
	made=$?
	bad=$(count "$dir" FAIL XPASS ERROR)
	passed=$((passed + $(count "$dir" PASS XFAIL)))
	skipped=$((skipped + $(count "$dir" SKIP)))
	failed=$((failed + bad))
	report "$dir"
	if { [ "$made" -ne 0 ] && [ "$bad" -eq 0 ]; } || [ "$(count "$dir" '.*')" -eq 0 ]; then
		tail -n 60 "$dir/check.log" # not a test failed, but the making of one
		failed=$((failed + 1))
	fi
}

step() { # step NAME COMMAND...: one more test, with its output in build/NAME.log
	log=build/$1.log name=$1
	shift
	echo "== $name"
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
		(cd build/package/vdifs-* && dpkg-buildpackage -us -uc)
}

# shellcheck disable=SC2317
installed_package() {
	apt-get install -y --reinstall "$top"/build/package/vdifs_*.deb
}

# shellcheck disable=SC2317
package_test() { # as autopkgtest runs it
	AUTOPKGTEST_TMP=$(mktemp -d "$TMPDIR/autopkgtest.XXXXXX") &&
		export AUTOPKGTEST_TMP && "$top/debian/tests/mount"
}

# The mount tests, but for those that are about endurance: the program is the same.
installed_tests() {
	for test in tests/mount/*.sh; do
		case $test in
		*/lib.sh | */hang.sh | */lazy.sh | */lifecycle.sh | */memory.sh | */soak.sh | */threads.sh) ;;
		*) echo "$test" ;;
		esac
	done | paste -s -d ' ' -
}

check_package() {
	command -v apt-get >/dev/null || return
	step distcheck make -C build distcheck TESTS="test_bytes tests/style/tree.sh" || return
	step package make_package || return
	step lintian lintian --fail-on error,warning build/package/*.changes
	step install installed_package || return
	step autopkgtest package_test
	VD_INSTALLED=/usr/bin
	export VD_INSTALLED
	run_tests build TESTS="$(installed_tests)"
	unset VD_INSTALLED
	step remove apt-get remove -y vdifs
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

require "$build_needs" "$demo_needs" "$test_needs" || give_up
[ "${CI-}" != true ] || require "$package_needs" || give_up
# The fuzzers bring sanitizers of their own: long once, and short beside those of the build.
[ "${CI-}" != true ] || export FUZZ_SECONDS="${FUZZ_SECONDS:-60}"
check build --enable-werror
unset FUZZ_SECONDS
[ "${CI-}" != true ] || step threads make -C build -j2 check-threads
[ "${CI-}" != true ] || check_package
check build-asan --enable-sanitizers --enable-werror
check_leftovers
finish
