#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build vdifs and show what it does; or build it and mount an image of yours.
set -eu

top=$(cd "$(dirname "$0")" && pwd)
. "$top/scripts/deps.sh"

usage() {
	cat <<-END
	usage: ./try.sh                                    build vdifs and see it work on a small image
	       ./try.sh IMAGE MOUNTPOINT [vdifs option...]  build vdifs and mount an image
	END
}

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*" && "$@"; }

mount_image() {
	image=$1 mountpoint=$2
	shift 2
	echo "Mounting $image on $mountpoint. To unmount it: fusermount3 -u $mountpoint"
	"$top/build/vdifs" "$@" -- "$image" "$mountpoint"
	ls -ls -- "$mountpoint"
}

clean_up() {
	status=$?
	trap '' INT TERM HUP
	cd /
	if grep -q " $work/mnt fuse" /proc/mounts; then
		fusermount3 -u "$work/mnt" || fusermount3 -u -z "$work/mnt" || :
	fi
	rm -rf "$work"
	exit "$status"
}

demo() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/vdifs-try.XXXXXX")
	trap clean_up EXIT
	trap 'exit 1' INT TERM HUP
	cd "$work"
	mkdir mnt

	say "A disk of 256 MiB with 3 MiB of data, as a compressed QCOW2 image"
	truncate -s 256M disk
	seq 400000 | head -c 2097152 | dd of=disk bs=64k conv=notrunc status=none
	seq 200000 | head -c 1048576 | dd of=disk bs=64k seek=1600 conv=notrunc status=none
	show qemu-img convert -c -O qcow2 disk demo.qcow2
	show ls -ls demo.qcow2

	say "The mount: the whole disk, holes included, and its interval map"
	show "$top/build/vdifs" demo.qcow2 mnt
	show ls -ls mnt

	say "A copy takes the data and leaves the holes"
	show cp --sparse=always mnt/demo.raw copy.raw
	show ls -ls copy.raw

	say "Where the data lies: pairs of first and last cluster"
	show getfattr -n user.intervals --only-values mnt
	echo

	say "The copy against QEMU's reading of the image"
	show qemu-img convert -O raw demo.qcow2 qemu.raw
	show cmp copy.raw qemu.raw
	echo "The same, byte for byte."

	say "Unmount"
	show fusermount3 -u mnt
	printf '\nYour own image: ./try.sh IMAGE MOUNTPOINT. Words about it: man %s/man/vdifs.1\n' "$top"
}

case ${1-} in
-h | --help) usage; exit 0 ;;
esac
if [ $# -eq 1 ]; then
	usage >&2
	exit 2
fi

if [ $# -eq 0 ]; then
	require "$build_needs" "$demo_needs"
else
	require "$build_needs"
fi
echo "Building in $top/build"
build build
if ! can_mount; then
	echo "The build is good. To mount, mend this first." >&2
	exit 1
fi

if [ $# -eq 0 ]; then
	demo
else
	mount_image "$@"
fi
