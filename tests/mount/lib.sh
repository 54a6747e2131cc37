# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2015,SC2034
# Sourced by the mount tests, not one itself: TAP, a private folder, mounts, and leaving nothing
# behind. A test is `start`, claims, `finish`. What it mounts, starts and makes lies below $work,
# and every process it starts carries VD_TEST=$work, so that nothing foreign is ever touched.

set -u -o pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

# Limits on time are for an idle machine. They are multiplied by this number on a busy one: the number
# of processes that share a processor. At most 20: processes of a test that wait for storage count as load.
patience() {
	local load
	read -r load _ </proc/loadavg
	load=$((1 + ${load%.*} / $(nproc)))
	echo $((load < 20 ? load : 20))
}
export VD_PATIENCE="${VD_PATIENCE:-$(patience)}"

effort() { # effort SHORT USUAL NIGHTLY: as in ../lib/tap.py
	if [ -n "${VD_NIGHTLY-}" ]; then echo "$3"; elif [ -n "${VD_SHORT-}" ]; then echo "$1"; else echo "$2"; fi
}

# This is the command of that name with a longer limit.
timeout() {
	local words=()
	while [[ $1 == -[ks] ]]; do words+=("$1" "$2"); shift 2; done
	command timeout "${words[@]}" $(($1 * VD_PATIENCE)) "${@:2}"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 99
count=0 failed=0 work='' mode='' in='' turn=0
loops=()

# --- TAP -----------------------------------------------------------------------------------------

ok() { # ok CLAIM
	count=$((count + 1))
	echo "ok $count - $1"
}

not_ok() { # not_ok CLAIM [WHAT WAS FOUND INSTEAD]
	count=$((count + 1)) failed=$((failed + 1))
	echo "not ok $count - $1"
	[ $# -eq 1 ] || head -c 4000 <<<"$2" | tr -d '\0' | sed 's/^/# /' | grep ''
	return 1
}

skip() { # skip CLAIM REASON
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

is() { # is CLAIM GOT WANTED
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got:    $2"$'\n'"wanted: $3"; fi
}

like() { # like CLAIM GOT REGEX: it matches as a whole
	if [[ $2 =~ ^($3)$ ]]; then ok "$1"; else not_ok "$1" "got:   $2"$'\n'"regex: $3"; fi
}

claim() { # claim CLAIM COMMAND...: it succeeds
	local text=$1 status=0
	shift
	"$@" >"$work/said" 2>&1 </dev/null || status=$? # a file: a daemon must not keep a pipe open
	if [ "$status" -eq 0 ]; then
		ok "$text"
	else
		not_ok "$text" "$*: exit status $status"$'\n'"$(cat "$work/said")"
	fi
}

# refuse CLAIM REGEX COMMAND...: exit status 1, one line on stderr with the regex in it, and
# nothing mounted. Like mount_image it keeps descriptor 9, which a test may need, from the program.
refuse() { refuse_with 1 "$@"; }

# misuse CLAIM REGEX COMMAND...: the same of a wrong command line, with exit status 2
misuse() { refuse_with 2 "$@"; }

refuse_with() { # refuse_with STATUS CLAIM REGEX COMMAND...
	local wanted=$1 text=$2 regex=$3 before status=0
	shift 3
	before=$(mounts_below)
	timeout -k 5 60 "$@" >"$work/out" 2>"$work/err" </dev/null 9>&- || status=$?
	if [ "$status" -eq "$wanted" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] &&
	   grep -qE -e "^vdifs: .*($regex)" "$work/err" && [ "$(mounts_below)" = "$before" ]; then
		ok "$text"
	else
		not_ok "$text" "exit status $status, mounted: $(mounts_below | wc -l), $(cat "$work/out" "$work/err")"
		[ "$(mounts_below)" = "$before" ] || unmount "$(mounts_below | head -n 1)"
		return 1
	fi
}

# python_claims ARGUMENT...: a script on stdin that makes its claims with claims.py
python_claims() {
	local sign text status=0
	"$python" - "$@" >"$work/claims" 2>"$work/claims.err" || status=$?
	while read -r sign text; do
		case $sign in
		ok) ok "$text" ;;
		not) not_ok "$text" ;;
		*) echo "# $text" ;;
		esac
	done <"$work/claims"
	[ "$status" -eq 0 ] || not_ok "the Python part ends well$in" "$(cat "$work/claims.err")"
}

# --- beginning and end ---------------------------------------------------------------------------

# start NEED...: programs, or the word `root`. Without one of them the whole test is skipped.
start() {
	local need dir
	for need; do
		case $need in
		root) [ "$(id -u)" -eq 0 ] || skip_all "this test must be run by root" ;;
		*) command -v "$need" >/dev/null || skip_all "$need is not installed" ;;
		esac
	done
	command -v fusermount3 >/dev/null || skip_all "fusermount3 is not installed"
	[ -c /dev/fuse ] || skip_all "there is no /dev/fuse"
	[ -r /dev/fuse ] && [ -w /dev/fuse ] || skip_all "/dev/fuse may not be opened: chmod 666 /dev/fuse"
	local places=(build .)
	[ -z "${VD_BUILDDIR-}" ] || places=("$VD_BUILDDIR")
	for dir in "${places[@]}"; do
		[ -x "$dir/vdifs" ] && [ -x "$dir/vdimap" ] && break
	done
	# VD_INSTALLED: the folder of the programs to be tested, with the tools of a build
	tools=$(realpath "$dir")
	vdifs=$(realpath "${VD_INSTALLED:-$dir}/vdifs") vdimap=$(realpath "${VD_INSTALLED:-$dir}/vdimap")
	[ -x "$vdifs" ] && [ -x "$vdimap" ] || { echo "Bail out! vdifs is not built"; exit 99; }
	python=$("${PYTHON3:-python3}" -c 'import sys; print(sys.executable)' 2>/dev/null) || python=
	# Asked for by LeakSanitizer and the like: their words would go to the daemon's /dev/null.
	grep -qE '__(asan|tsan)_init' "$vdifs" && sanitized=yes || sanitized=
	work=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/vdifs-mount.XXXXXX")") || exit 99
	trap clean_up EXIT
	trap 'exit 1' HUP INT TERM
	chmod 755 "$work" && mkdir -m 1777 "$work/reports" && mkfifo "$work/.silence" && cd "$work" || exit 99
	export VD_TEST=$work PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here:$here/../lib
	export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$work/reports/report
	export LSAN_OPTIONS=${LSAN_OPTIONS:+$LSAN_OPTIONS:}suppressions=$here/leaks.supp:print_suppressions=0
	export TSAN_OPTIONS=${TSAN_OPTIONS:+$TSAN_OPTIONS:}log_path=$work/reports/report
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$work/reports/report
}

# A new namespace has copies of the mounts of other tests, which would keep their processes alive after
# their unmount.
drop_foreign_mounts() {
	local place
	sed -n 's/^[0-9]* [0-9]* [0-9:]* [^ ]* \([^ ]*\) .* - fuse[ .].*/\1/p' /proc/self/mountinfo |
		while read -r place; do
			printf -v place '%b' "$place"
			umount -l "$place"
		done
}

# own_namespace SCRIPT: run it anew where its mounts are seen by nobody else, so that it may lay
# something over a place in the system. Before `start`.
own_namespace() {
	if [ -n "${VD_NAMESPACE-}" ]; then
		drop_foreign_mounts
		return
	fi
	[ "$(id -u)" -eq 0 ] || skip_all "this test must be run by root"
	unshare --mount --propagation private true 2>/dev/null || skip_all "no mount namespaces here"
	VD_NAMESPACE=1 exec unshare --mount --propagation private bash "$1"
}

# The last claims, which every test makes, and the plan.
finish() {
	local place left
	left=$(mounts_below)
	for place in $left; do # names without blanks by now: tests unmount the others themselves
		unmount "$place" || not_ok "$place can be unmounted"
	done
	wait_for 20 no_processes
	claim "the processes end with their mounts" no_processes
	claim "no sanitizer complains" no_reports
	echo "1..$count"
	exit $((failed > 0))
}

no_reports() {
	cat "$work"/reports/* 2>/dev/null
	! ls "$work"/reports/* >/dev/null 2>&1
}

processes() { grep -lzFx "VD_TEST=$work" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3; }

no_processes() {
	local pid found=0
	for pid in $(processes); do
		[ "$pid" = "$BASHPID" ] && continue
		tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || continue
		found=1
	done
	return "$found"
}

daemons() { # the vdifs processes among them
	local one
	for one in $(processes); do
		[ "$(readlink "/proc/$one/exe")" != "$vdifs" ] || echo "$one"
	done
}

no_daemon() { [ -z "$(daemons)" ]; } # an unmounted one may be on its way out

parent_of() { # parent_of PID
	awk '$1 == "PPid:" { print $2 }' "/proc/$1/status" 2>/dev/null
}

# Each mount has a supervisor and a server below it, and for a moment, when it begins, a process that asks whether
# it answers (vdifs-probe). Without their supervisor servers are nobody's.
servers() {
	local one all
	all=$(daemons)
	for one in $all; do
		! grep -qFx "$(parent_of "$one")" <<<"$all" || grep -qFx vdifs-probe "/proc/$one/comm" 2>/dev/null || echo "$one"
	done
}

supervisors() {
	local one all
	all=$(daemons)
	for one in $all; do
		grep -qFx "$(parent_of "$one")" <<<"$all" || echo "$one"
	done
}

clean_up() {
	local status=$? place loop pid
	trap '' HUP INT TERM
	cd /
	for loop in "${loops[@]-}"; do
		[ -z "$loop" ] || detach "$loop"
	done
	while read -r _ _ _ _ place _; do # also names with line feeds
		printf -v place '%b' "$place"
		[[ $place != "$work"/* ]] || unmount_now "$place" || unmount_now -z "$place" || umount -l "$place"
	done < <(tac /proc/self/mountinfo) >/dev/null 2>&1
	wait_for 2 no_processes >/dev/null
	for pid in $(processes); do
		kill -KILL "$pid" 2>/dev/null
	done
	[ -z "$work" ] || rm -rf --one-file-system "$work"
	exit "$status"
}

# --- mounts --------------------------------------------------------------------------------------

# The mountpoints below $work, the last one first; no names with line feeds, please.
mounts_below() {
	local place all=''
	while read -r _ _ _ _ place _; do
		printf -v place '%b' "$place"
		[[ $place != "$work"/* ]] || all=$place$'\n'$all
	done </proc/self/mountinfo
	printf %s "$all"
}

is_mountpoint() { # is_mountpoint PATH: absolute and without links
	local one
	while read -r _ _ _ _ one _; do
		printf -v one '%b' "$one"
		[ "$one" != "$1" ] || return 0
	done </proc/self/mountinfo
	return 1
}

# This is asked in loops, and of mounts that hang: no program is begun, and no mountpoint looked at.
mounted() {
	local place=$1
	[[ $place = /* ]] || place=$PWD/$place
	is_mountpoint "$place" || { place=$(realpath -- "$1" 2>/dev/null) && is_mountpoint "$place"; }
}

# mount_image OPTIONS IMAGE MOUNTPOINT: in the mode of the day; a failure is a failed claim.
mount_image() {
	local status=0
	# shellcheck disable=SC2086 # options are words
	timeout -k 5 60 env --default-signal=HUP,INT,QUIT "$vdifs" $mode $1 -- "$2" "$3" \
		2>"$work/mount.err" </dev/null 9>&- || status=$?
	[ "$status" -eq 0 ] && [ ! -s "$work/mount.err" ] ||
		not_ok "$2 mounts$in" "exit status $status: $(cat "$work/mount.err")"
}

unmount_now() { # unmount_now [-z] MOUNTPOINT
	if [[ $(stat -f -c %T -- "${!#}" 2>/dev/null) =~ fuse|^$ ]]; then
		fusermount3 -u "$@"
	else
		umount "${@/#-z/-l}"
	fi
}

unmount() { wait_for 10 unmount_now "$1"; } # it may be busy for a moment

# each_mode FUNCTION: call it with reads through the page cache and with direct ones. The short form with sanitizers
# has one of them in turn: they differ in what the kernel does, and each program takes three times as long there.
each_mode() {
	local chosen=('' --direct)
	[ -z "$sanitized" ] || [ -z "${VD_SHORT-}" ] || chosen=("${chosen[turn++ % 2]}")
	for mode in "${chosen[@]}"; do
		in=" (${mode:-page cache})"
		"$1"
	done
	mode='' in=''
}

# --- the rest ------------------------------------------------------------------------------------

wait_for() { # wait_for SECONDS COMMAND...: try it until it succeeds; longer on a busy machine
	local end=$((SECONDS + $1 * VD_PATIENCE + 1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ "$SECONDS" -ge "$end" ]; then
			echo "# waited in vain: $*" >&2
			return 1
		fi
		nap 0.02
	done
}

nap() { read -r -t "$1" <>"$work/.silence" || true; } # as sleep, without a program

# begin COMMAND...: in the background, with the signals as at home (bash ignores SIGINT there, nohup SIGHUP).
# $pid is it.
begin() {
	env --default-signal=HUP,INT,QUIT "$@" &
	pid=$!
}

is_over() { # or a zombie
	local stat
	{ stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
	[[ $stat == *') Z '* ]]
}

# end_of PID: wait for the end of what was begun, 20 s at most. $ended_with is its exit status.
end_of() {
	ended_with=0
	wait_for 20 is_over "$1" || kill -KILL "$1"
	wait "$1" 2>/dev/null || ended_with=$?
}

# attach VARIABLE FILE [LOSETUP OPTION...]: a loop device, detached at the end
attach() {
	local found
	found=$(losetup --find --show "${@:3}" -- "$2") || return
	loops+=("$found")
	printf -v "$1" '%s' "$found"
}

# Detach a loop device, unless it has become another's meanwhile. One in use goes with its last user.
detach() {
	[[ $(losetup -n -O BACK-FILE "$1" 2>/dev/null) != "$work"/* ]] || losetup -d "$1"
}

hash_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

attribute() { getfattr -h --absolute-names --only-values -n "$1" -- "$2"; } # attribute NAME FILE

# image FILE SIZE [QEMU-IO COMMAND...]: a QCOW2 image; options of qemu-img create in $image_options
image() {
	local file=$1 size=$2
	shift 2
	qemu-img create -q -f qcow2 ${image_options:+-o "$image_options"} "$file" "$size" >&2 &&
		{ [ $# -eq 0 ] || printf '%s\n' "$@" | qemu-io -t unsafe -f qcow2 "$file" >/dev/null; }
}
