#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# File systems inside the disk, mounted by the kernel through a loop device on our file.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img mke2fs mkfs.vfat mkfs.xfs mcopy losetup python3
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

# page_commands PAGE WORDS: the commands of a manual page that begin with these words, for the device $device
page_commands() {
	sed -n "s|^\\.Dl \\($2 .*\\)|\\1|p" "$here/../../man/$1" | sed "s|/dev/loop0p1|$device|; s|/mnt/p|inner|"
}

# unclean NAME MKFS...: NAME.raw is the disk of a machine that still runs: its file system is mounted, and what was written
# last is in the journal alone.
unclean() {
	local name=$1 device
	shift
	truncate -s 320M "$name.live"
	"$@" "$name.live" >/dev/null 2>&1 && attach device "$name.live" && mount "$device" inner || return
	cp tree/numbers inner/ && umount inner && mount "$device" inner && echo late >inner/late && "$python" -c '
import os
os.fsync(os.open("inner/late", os.O_RDONLY))' && cp --sparse=always "$name.live" "$name.raw"
	umount inner
	detach "$device"
	qemu-img convert -f raw -O qcow2 "$name.raw" "$name.qcow2"
}

# journal NAME TYPE OPTION: mount(8) cannot replay its journal; the manual has a command that mounts it without.
journal() {
	local device command status=0
	mount_image '' "$1.qcow2" mnt && attach device "mnt/$1.raw" --read-only || return
	mount -t "$2" -o ro "$device" inner 2>/dev/null || status=$?
	is "$2 of a running machine: mount -o ro exits with status 32$in" "$status" 32
	[ "$status" -ne 0 ] || umount inner
	command=$(page_commands vdifs.1 mount | grep -w "$3")
	claim "$2 of a running machine: the manual's command mounts it: $3$in" eval "$command"
	claim "$2 of a running machine: what was written before is there$in" cmp tree/numbers inner/numbers
	umount inner
	detach "$device"
	unmount mnt
}

journals() {
	unclean journal4 mke2fs -q -t ext4 && journal journal4 ext4 noload ||
		not_ok "the disk of a running machine with ext4$in"
	if grep -qw xfs /proc/filesystems || modprobe xfs 2>/dev/null; then
		unclean journalx mkfs.xfs -q && journal journalx xfs norecovery ||
			not_ok "the disk of a running machine with XFS$in"
	fi
}

each_mode all
journals
finish
