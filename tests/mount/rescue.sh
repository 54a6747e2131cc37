#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk with damaged parts is copied with the commands of the manual's DIAGNOSTICS: the copy is as long as the disk, and
# lacks the damaged parts alone.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 dd ddrescue truncate
mkdir mnt

# damaged NAME CLUSTER_BYTES CLUSTER...: a full disk whose size is no multiple of 4 KiB. The L2 entries of the
# clusters lead past the end of the file. NAME.want is the disk with zeros in place of these clusters.
damaged() {
	local image_options=cluster_size=$2
	image "$1.qcow2" 3000832 "write -q -P 65 0 3000832"
	"$python" - "$@" <<'END'
import struct, sys
name, size, clusters = sys.argv[1], int(sys.argv[2]), [int(arg) for arg in sys.argv[3:]]
want = bytearray(b'A' * 3000832)
with open(name + '.qcow2', 'r+b') as image:
    def number(host):
        image.seek(host)
        return struct.unpack('>Q', image.read(8))[0]
    l1_host = number(40)
    for cluster in clusters:
        l2_host = number(l1_host + 8 * (cluster // (size // 8))) & 0x00fffffffffffe00
        place = l2_host + 8 * (cluster % (size // 8))
        image.seek(place)
        image.write(struct.pack('>Q', 1 << 63 | 1 << 50))
        want[cluster * size:(cluster + 1) * size] = bytes(size)
open(name + '.want', 'wb').write(want)
END
}

# page_command WORD: the lines of the manual's example that begins with it, for the mount and the disk of this test
page_command() {
	sed -n "/^$1 /,/^\.Ed/p" "$here/../../man/vdifs.1" | sed '/^\.Ed/d' |
		sed "s|/mnt/x/disk.raw|mnt/$disk.raw|g"
}

# rescue CLAIM COMMAND: dd and ddrescue say by their exit status that something was lost, or not; the copy counts.
rescue() {
	rm -f copy.raw copy.map
	eval "$2" >rescue.log 2>&1
	is "$1: the copy is as long as the disk$in" "$(stat -c %s copy.raw)" "$(stat -c %s "mnt/$disk.raw")"
	claim "$1: it lacks the damaged clusters alone$in" cmp copy.raw "$disk.want"
}

pages() {
	disk=pages
	mount_image '' pages.qcow2 mnt || return
	like "the manual has the commands$in" "$(page_command ddrescue; page_command dd)" \
		"ddrescue .*"$'\n'"dd .*"$'\n'"truncate .*"
	rescue "ddrescue" "$(page_command ddrescue)"
	claim "ddrescue: what is lost takes no room$in" test "$(stat -c %b copy.raw)" -lt $((3000832 / 512))
	rescue "dd" "$(page_command dd)"
	claim "dd: what is lost takes no room$in" test "$(stat -c %b copy.raw)" -lt $((3000832 / 512))
	unmount mnt
}

damaged pages 4096 37 38 300
each_mode pages

# Clusters of 512 bytes: what the page cache reads in one piece with a damaged one is lost with it, which --direct avoids.
damaged sectors 512 9 10 4001
disk=sectors mode=--direct
mount_image '' sectors.qcow2 mnt
rescue "dd with blocks of 512 bytes, and --direct" "$(page_command dd | sed 's/bs=4k/bs=512/')"
unmount mnt
finish
