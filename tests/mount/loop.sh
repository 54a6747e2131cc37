#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# File systems inside the disk, mounted by the kernel through a loop device on our file.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img mke2fs mkfs.vfat mcopy losetup python3
losetup --find >/dev/null 2>&1 || skip_all "there are no loop devices"
mkdir mnt inner tree

seq 200000 >tree/numbers
head -c 300000 /dev/urandom >tree/noise
mkdir tree/deep && echo "here" >tree/deep/file
truncate -s 1M tree/hole

truncate -s 24M ext4.raw
mke2fs -q -t ext4 -d tree ext4.raw || skip_all "mke2fs cannot fill a file system"
truncate -s 16M vfat.raw
mkfs.vfat vfat.raw >/dev/null && mcopy -s -i vfat.raw tree/* ::

qemu-img convert -O qcow2 ext4.raw ext4.qcow2
qemu-img convert -c -O qcow2 vfat.raw vfat.qcow2
qemu-img convert -O vpc -o force_size=on vfat.raw vfat.vhd

# same_tree WHAT: what the kernel shows at `inner` is what was put in
same_tree() { claim "$1$in" diff -r -x lost+found tree inner; }

# by_mount NAME IMAGE TYPE OPTIONS
by_mount() {
	mount_image '' "$2" mnt || return
	claim "$2: mount -o loop of its $3$in" mount -t "$3" -o "loop,$4" "mnt/$1.raw" inner
	same_tree "$2: every file is there"
	claim "$2: the loop device lets go$in" umount inner
	claim "$2: the disk is not busy afterwards$in" unmount mnt
}

# by_losetup NAME IMAGE TYPE OPTIONS LOSETUP-OPTION...
by_losetup() {
	local name=$1 image=$2 type=$3 options=$4 device
	shift 4
	mount_image '' "$image" mnt || return
	if ! attach device "mnt/$name.raw" --read-only "$@" 2>losetup.err; then
		not_ok "$image: losetup $*$in" "$(cat losetup.err)"
		unmount mnt
		return
	fi
	is "$image: losetup $*: the size$in" "$(blockdev --getsize64 "$device")" "$(stat -c %s "mnt/$name.raw")"
	is "$image: losetup $*: read-only$in" "$(blockdev --getro "$device")" 1
	claim "$image: losetup $*: every byte$in" cmp "$device" "$name.raw"
	claim "$image: losetup $*: mount$in" mount -t "$type" -o "$options" "$device" inner
	same_tree "$image: losetup $*: every file is there"
	umount inner
	if [ "$1" = --direct-io=on ] && [ "$(losetup -n -O DIO "$device" | tr -d ' ')" != 1 ]; then
		skip "$image: direct I/O is really on$in" "the kernel does not offer it here"
	elif [ "$1" = --direct-io=on ]; then
		ok "$image: direct I/O is really on$in"
	fi
	detach "$device"
	claim "$image: losetup $*: the disk is not busy afterwards$in" unmount mnt
}

# A writable loop device cannot be had.
no_writing() {
	local device
	mount_image '' ext4.qcow2 mnt || return
	if attach device mnt/ext4.raw 2>/dev/null; then
		is "a loop device is read-only unasked$in" "$(blockdev --getro "$device")" 1
		detach "$device"
	else
		ok "a loop device is read-only unasked$in"
	fi
	unmount mnt
}

all() {
	by_mount ext4 ext4.qcow2 ext4 ro,noload
	by_losetup ext4 ext4.qcow2 ext4 ro,noload --direct-io=off
	by_losetup ext4 ext4.qcow2 ext4 ro,noload --direct-io=on
	if grep -qw vfat /proc/filesystems || modprobe vfat 2>/dev/null; then
		by_mount vfat vfat.qcow2 vfat ro
		by_losetup vfat vfat.vhd vfat ro --direct-io=on
	else
		vfat_by_mtools vfat.qcow2
		vfat_by_mtools vfat.vhd
	fi
	no_writing
}

# This kernel has no vfat: read the file system in user space, and the loop device in the kernel.
vfat_by_mtools() {
	local device
	mount_image '' "$1" mnt || return
	attach device mnt/vfat.raw --read-only --direct-io=on || return
	claim "$1: every byte through a loop device$in" cmp "$device" vfat.raw
	rm -rf out && mkdir out && mcopy -s -i "$device" '::*' out 2>/dev/null
	claim "$1: every file is there$in" diff -r tree out
	detach "$device"
	unmount mnt
}

each_mode all
finish
