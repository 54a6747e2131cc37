#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What tells programs that make backups that a disk has changed: times and inode numbers. rsync, tar, cp -u and
# the like leave out what has the time, size and number that it had before.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 jq rsync tar losetup
mkdir mnt again out
touch plain

# Two snapshots of one size, with different bytes, made at different times.
image disk.qcow2 2m "write -q -P 1 0 64k"
qemu-img snapshot -c monday disk.qcow2
sleep 1.1
qemu-io -c "write -q -P 2 0 64k" disk.qcow2
qemu-img snapshot -c tuesday disk.qcow2
qemu-io -c "write -q -P 3 0 64k" disk.qcow2

date_of() { # of a snapshot: seconds.nanoseconds
	qemu-img info -U --output=json disk.qcow2 |
		jq -r --arg name "$1" '.snapshots[] | select(.name == $name) | "\(."date-sec") \(."date-nsec")"' |
		{ read -r seconds part; printf '%d.%09d' "$seconds" "$part"; }
}

with_snapshot() { # with_snapshot NAME COMMAND...: while it is mounted on mnt
	local status=0
	mount_image "--snapshot=$1" disk.qcow2 mnt || return
	"${@:2}" || status=$?
	unmount mnt
	return "$status"
}

rsynced() { rsync -a mnt/disk.raw out/rsync.raw && cmp mnt/disk.raw out/rsync.raw; }

updated() { cp -p -u mnt/disk.raw out/cp.raw && cmp mnt/disk.raw out/cp.raw; }

# The disk must be in each archive: the devices that mounts get do not count.
archived() {
	tar --no-check-device -g out/list.snar -cf out/now.tar -C mnt . && tar -xOf out/now.tar ./disk.raw | cmp - mnt/disk.raw
}

backups() {
	local name program
	rm -rf out && mkdir out
	for name in monday tuesday; do
		for program in rsynced updated archived; do
			claim "$name is what $program sees$in" with_snapshot "$name" "$program"
		done
		is "$name: mtime and ctime are the date of the snapshot$in" \
			"$(with_snapshot "$name" stat -c '%.9Y %.9Z' mnt/disk.raw)" "$(date_of "$name") $(date_of "$name")"
	done
	with_snapshot tuesday tar --no-check-device -g out/list.snar -cf out/again.tar -C mnt .
	is "tar leaves out the disk that it has$in" "$(tar -tf out/again.tar | grep -c raw)" 0
	unchanged() { [ -z "$(rsync -ain mnt/disk.raw out/rsync.raw)" ]; }
	claim "rsync leaves out the disk that it has$in" with_snapshot tuesday unchanged
}

# Bytes that are in another file than the image.
other_files() {
	local before
	image_options=data_file=guest.data
	image outside.qcow2 2m "write -q -P 1 0 64k"
	image_options=backing_file=base.qcow2,backing_fmt=qcow2
	qemu-img create -q -f qcow2 base.qcow2 2m
	image above.qcow2 2m
	image_options=
	touch -d '2001-02-03 04:05:06.789 UTC' outside.qcow2 above.qcow2
	touch -d '2002-03-04 05:06:07.123456789 UTC' guest.data base.qcow2
	for name in outside above; do
		mount_image '' "$name.qcow2" mnt || return
		is "$name: mtime is the newest of the files that hold it" "$(stat -c %.9Y "mnt/$name.raw")" 1015218367.123456789
		is "$name: so is ctime" "$(stat -c %.9Z "mnt/$name.raw")" \
			"$(stat -c %.9Z "$name.qcow2" guest.data base.qcow2 | sort -n | tail -n 1)"
		rsync -a "mnt/$name.raw" out/
		unmount mnt
	done
	qemu-io -c "write -q -P 9 0 64k" outside.qcow2 # reaches guest.data alone
	touch -d '2001-02-03 04:05:06.789 UTC' outside.qcow2
	mount_image '' outside.qcow2 mnt || return
	rsync -a mnt/outside.raw out/
	claim "rsync sees what was written to the data file" cmp mnt/outside.raw out/outside.raw
	unmount mnt
	touch -d '2003-03-04 05:06:07 UTC' above.qcow2
	mount_image '--layers' above.qcow2 mnt || return
	is "a layer has the times of the files below it" "$(stat -c %Y mnt/layers/0.raw mnt/layers/1.raw | tr '\n' ' ')" \
		"1046754367 1015218367 "
	unmount mnt
	before=$(date +%s)
	truncate -s 8M device.img
	attach loop device.img || { skip "a block device is as old as the mount" "there are no loop devices"; return; }
	qemu-img create -q -f qcow2 "$loop" 2m
	sync
	touch -d '2001-02-03 UTC' "$loop"
	mount_image '' "$loop" mnt || return
	claim "a block device is as old as the mount" [ "$(stat -c %Y mnt/*.raw)" -ge "$before" ]
	claim "its ctime, too" [ "$(stat -c %Z mnt/*.raw)" -ge "$before" ]
	unmount mnt
}

numbers() {
	mount_image '--layers --qcow2' above.qcow2 mnt && mount_image '' disk.qcow2 again || return
	python_claims mnt again <<'END'
import os, sys
from claims import claim, same

def numbers(top):
    """Inode numbers by path, as stat and as readdir have them."""
    by_stat, by_list = {top: os.stat(top).st_ino}, {top: os.stat(top).st_ino}
    for directory, _, _ in os.walk(top):
        with os.scandir(directory) as entries:
            for entry in entries:
                by_stat[entry.path] = os.stat(entry.path).st_ino
                by_list[entry.path] = entry.inode()
    return by_stat, by_list

everything = {}
for top in sys.argv[1:]:
    stat, listed = numbers(top)
    same('readdir and stat of %s name the same inode numbers' % top, stat, listed)
    everything.update(stat)
claim('all files of two mounts have numbers of their own', len(set(everything.values())) == len(everything), everything)
claim('none is 0 or 1', min(everything.values()) > 1, everything)
END
	find mnt again -printf '%i %p\n' | sort >out/before
	unmount mnt && unmount again
	touch disk.qcow2
	mount_image '--layers --qcow2' above.qcow2 mnt && mount_image '' disk.qcow2 again && mount_image '' disk.qcow2 plain || return
	claim "the same disks mounted again have the same numbers" diff out/before <(find mnt again -printf '%i %p\n' | sort)
	is "so has the disk as a file" "$(stat -c %i plain)" "$(stat -c %i again/disk.raw)"
	unmount mnt && unmount again && unmount plain
	mount_image --snapshot=monday disk.qcow2 mnt && mount_image --snapshot=tuesday disk.qcow2 again || return
	claim "snapshots have different numbers" [ "$(stat -c %i mnt/disk.raw)" != "$(stat -c %i again/disk.raw)" ]
	claim "and so have their directories" [ "$(stat -c %i mnt)" != "$(stat -c %i again)" ]
	unmount mnt && unmount again
}

each_mode backups
other_files
numbers
finish
