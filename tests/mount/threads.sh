#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Eight threads read, seek, ask for attributes, open and close all at once, while the map is made, with
# the mount taken away or ended in the middle; and the same against the library. Right answers are a
# test in any build; built with --enable-sanitizers=thread, a race is reported.
# 4 mounts of each kind; with VD_NIGHTLY=1 forty; 2 and 10 where TSan makes them slow.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2034,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start qemu-img qemu-io python3
mix=$(dirname "$vdifs")/mix
[ -x "$mix" ] || skip_all "mix is not built"
# TSan wants addresses where it expects them.
grep -q __tsan_init "$vdifs" && tsan="setarch -R" || tsan=
mkdir mnt
[ -n "$tsan" ] && rounds=2 many=10 || rounds=4 many=40
[ "${VD_NIGHTLY-}" != 1 ] || rounds=$many

"$python" "$here/fragmented.py" big.qcow2 $((1 << 40)) 16 512 2
image base.qcow2 64m "write -q -P 66 0 20m" "write -q -P 67 30m 20m"
qemu-img convert -q -c -O qcow2 base.qcow2 packed.qcow2
image_options=backing_file=packed.qcow2,backing_fmt=qcow2
image top.qcow2 64m "write -q -P 84 10m 5m" "write -q -P 85 60m 1m"
image_options=
qemu-img convert -O raw top.qcow2 top.wanted

# One mount with the load on it, ended in the middle in one of three ways.
one_mount() { # one_mount IMAGE WANTED HOW
	local loader status=0
	$tsan "$vdifs" $mode "$1" mnt </dev/null || return
	"$mix" mount mnt "$2" 1200 </dev/null >mix.out 2>&1 &
	loader=$!
	sleep "0.$((RANDOM % 5 + 3))"
	case $3 in
	lazily) kill -USR1 "$loader"; fusermount3 -u -z mnt ;;
	term) kill -USR1 "$loader"; kill -TERM "$(daemons | head -n 1)" ;;
	esac
	wait "$loader" || status=$?
	[ "$3" != after ] || unmount mnt || { echo "cannot be unmounted"; return 1; }
	if [ "$status" -ne 0 ]; then
		cat mix.out
		return 1
	fi
	wait_for 20 no_daemon || {
		echo "still there: $(for i in $(daemons); do head -n 3 /proc/"$i"/task/*/stack; done 2>/dev/null)"
		return 1
	}
}

mounts() {
	local how image i one
	for how in after lazily term; do
		for ((i = 0; i < rounds; i++)); do
			image=big.qcow2 wanted=-
			[ $((i % 2)) -eq 0 ] || image=top.qcow2 wanted=top.wanted
			one_mount "$image" "$wanted" "$how" >said 2>&1 || break
		done
		if [ "$i" -eq "$rounds" ]; then
			ok "$rounds mounts, unmounted $how$in"
		else
			not_ok "$rounds mounts, unmounted $how$in" "number $i: $(cat said)"
			mounted mnt && unmount mnt
		fi
	done
}

library() {
	local i
	for ((i = 0; i < rounds; i++)); do
		$tsan "$mix" library big.qcow2 - $((RANDOM % 400 + 100)) >said 2>&1 </dev/null &&
			$tsan "$mix" library top.qcow2 top.wanted $((RANDOM % 400 + 100)) >said 2>&1 </dev/null || break
	done
	if [ "$i" -eq "$rounds" ]; then ok "$rounds times the library"; else not_ok "$rounds times the library" "$(cat said)"; fi
}

library
each_mode mounts
finish
