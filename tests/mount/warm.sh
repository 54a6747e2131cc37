#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Space that is reserved in the image's file but was never written is no data, however much of the file is in the
# page cache: the map and sparse copies stay as they are when a program has read the file. What was
# written is data at once, also before the disk has it.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 mkfs.ext4 mkfs.xfs losetup
mkdir mnt

# file_system KIND OPTION...: an empty one, mounted on its name
file_system() {
	mkdir "$1"
	if [ "$1" = tmpfs ]; then
		mount -t tmpfs tmpfs "$1"
	else
		truncate -s 512M "$1.disk" && "mkfs.$1" -q "$1.disk" && attach device "$1.disk" && mount "$device" "$1"
	fi
}

data() { "$vdimap" --format="$1" "$2" | jq -c .data_clusters; }

# The map before and after the file was read, by others and through a mount.
same_map() { # same_map FORMAT FILE MAP
	is "$2: the map$in" "$(data "$1" "$2")" "$3"
	cat "$2" >/dev/null
	is "$2: the map, once the file was read$in" "$(data "$1" "$2")" "$3"
	mount_image "--format=$1" "$2" mnt || return
	cmp mnt/*.raw mnt/*.raw
	is "$2: the map of a mount that was read$in" \
		"$(getfattr -n user.intervals --only-values mnt | jq -c .data_clusters)" "$3"
	cp --sparse=auto mnt/*.raw copy
	is "$2: the size of a sparse copy$in" "$(du -k copy | cut -f 1)" "$(kib_of "$3")"
	claim "$2: the bytes of the copy$in" cmp copy mnt/*.raw
	unmount mnt
}

kib_of() { jq 'map(.[1] - .[0] + 1) | add // 0 | . * 64' <<<"$1"; }

reserved() {
	local fs=$1 file=$1/reserved.raw
	fallocate -l 32M "$file" || return
	same_map raw "$file" '[]'
	head -c 64k /dev/urandom | dd of="$file" bs=64k seek=7 conv=notrunc iflag=fullblock status=none
	same_map raw "$file" '[[7,7]]'
	qemu-img create -q -f qcow2 -o preallocation=falloc "$fs/reserved.qcow2" 32M
	same_map qcow2 "$fs/reserved.qcow2" '[]'
	qemu-io -c 'write -q -P 5 192k 128k' "$fs/reserved.qcow2"
	same_map qcow2 "$fs/reserved.qcow2" '[[3,4]]'
	truncate -s 20M "$file"
	is "$fs: a reserved file that was cut" "$(data raw "$file")" '[[7,7]]'
}

# Writes at random into a file that is reserved in part, each followed by a map at once: no write may
# be missing, and nothing else be there.
written_at_once() {
	python_claims "$vdimap" "$1" "${VD_SEED-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}" <<'END'
import json, os, random, subprocess, sys
from claims import same
vdimap, fs, seed = sys.argv[1:]
dice = random.Random(seed)
CLUSTER, CLUSTERS = 65536, 2048
wrong = []
for turn in range(6):
    path = '%s/%d.raw' % (fs, turn)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, CLUSTER * CLUSTERS)
    for _ in range(200):        # more pieces than one question tells
        os.posix_fallocate(fd, dice.randrange(CLUSTERS - 8) * CLUSTER, dice.randrange(1, 9) * CLUSTER)
    # posix_fallocate() may write zeros where it cannot reserve; then they are data.
    wanted = set()
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        wanted.update(range(start // CLUSTER, (at - 1) // CLUSTER + 1))
    for step in range(12):
        for _ in range(dice.randrange(1, 40)):
            cluster = dice.randrange(CLUSTERS)
            os.pwrite(fd, b'written', cluster * CLUSTER + dice.randrange(CLUSTER - 4096) // 4096 * 4096)
            wanted.add(cluster)
        if dice.randrange(2):
            os.pread(fd, dice.randrange(1 << 24), dice.randrange(CLUSTERS * CLUSTER))
        if dice.randrange(4) == 0:
            os.fsync(fd)
        pairs = json.loads(subprocess.run([vdimap, '--format=raw', path], stdout=subprocess.PIPE, check=True).stdout)
        found = {n for first, last in pairs['data_clusters'] for n in range(first, last + 1)}
        if found != wanted:
            wrong.append('turn %d step %d: missing %s, too much %s'
                         % (turn, step, sorted(wanted - found)[:5], sorted(found - wanted)[:5]))
    os.close(fd)
    os.unlink(path)
same('%s: what was written is in the map at once, and no more (seed %s)' % (fs, seed), wrong, [])
END
}

for fs in ext4 xfs tmpfs; do
	file_system "$fs" || { not_ok "a file system: $fs"; continue; }
	mode='' in=''
	[ "$fs" = tmpfs ] || reserved "$fs"
	written_at_once "$fs"
	umount "$fs"
done
finish
