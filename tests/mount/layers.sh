#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --layers shows the disk as each layer of the chain saw it.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2012,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr jq
mkdir mnt
touch plain

# A short raw disk, a QCOW2 image and another one on top; and a differencing VHD on a dynamic one.
truncate -s 1m base.raw
printf 'raw' | dd of=base.raw bs=1 seek=300000 conv=notrunc status=none
image_options=backing_file=base.raw,backing_fmt=raw
image middle.qcow2 2m "write -q -P 1 64k 64k"
image_options=backing_file=middle.qcow2,backing_fmt=qcow2
image top.qcow2 3m "write -q -P 2 2m 64k" "write -q -P 3 64k 4k"
image_options=
chmod 644 base.raw
chmod 640 middle.qcow2
chmod 644 top.qcow2
touch -d '2002-02-02 UTC' middle.qcow2
"$python" - <<'END'
from vhd_writer import Vhd
parent = Vhd('parent.vhd', 8 << 20)
parent.set_sectors(0, b'P' * 1024)
parent.write()
child = Vhd('child.vhd', 8 << 20, kind='differencing', parent=parent)
child.set_sectors(1, b'C' * 512)
child.write()
END

# layer STEM NUMBER IMAGE [VDIMAP OPTION...]: that layer is what the image by itself shows
layer() {
	local number=$1 image=$2
	shift 2
	"$vdimap" "$@" "$image" >wanted.json
	is "layer $number: the sidecar is the map of $image$in" "$(cat "mnt/layers/$number.intervals.json")" "$(cat wanted.json)"
	is "layer $number: so is the attribute$in" "$(attribute user.intervals "mnt/layers/$number.raw")" "$(cat wanted.json)"
	if [[ $image == *.vhd ]]; then return; fi # QEMU has no parents of these
	qemu-img convert -U ${1:+-f raw} -O raw "$image" wanted.raw
	claim "layer $number is what qemu-img reads of $image$in" cmp wanted.raw "mnt/layers/$number.raw"
	cp --sparse=always "mnt/layers/$number.raw" copy.raw
	claim "layer $number: a sparse copy is the same$in" cmp copy.raw wanted.raw
}

layers() {
	mount_image --layers top.qcow2 mnt || return
	is "there is a file for each layer$in" "$(ls mnt/layers | tr '\n' ' ')" \
		"0.intervals.json 0.raw 1.intervals.json 1.raw 2.intervals.json 2.raw "
	layer 0 top.qcow2
	layer 1 middle.qcow2
	layer 2 base.raw --format=raw
	claim "layer 0 is the disk$in" cmp mnt/top.raw mnt/layers/0.raw
	is "sizes are those of the layers$in" "$(stat -c %s mnt/layers/{0,1,2}.raw | tr '\n' ' ')" "3145728 2097152 1048576 "
	is "a layer is for no more people than all of its files$in" "$(stat -c %a mnt/layers/{0,1,2}.raw mnt/top.raw | tr '\n' ' ')" \
		"640 640 644 640 "
	is "and so is its map$in" "$(stat -c %a mnt/layers/{0,1,2}.intervals.json mnt/top.intervals.json | tr '\n' ' ')" "640 640 644 640 "
	is "its time is the newest of its files$in" "$(stat -c %Y mnt/layers/1.raw)" \
		"$(stat -c %Y middle.qcow2 base.raw | sort -n | tail -n 1)"
	is "user.vdifs.info is about the layer$in" "$(attribute user.vdifs.info mnt/layers/1.raw | jq -c '[."virtual-size", (.vdifs.chain | length)]')" "[2097152,2]"
	unmount mnt
	chmod 600 top.qcow2
	mount_image --layers top.qcow2 mnt
	is "a layer is for no more people than the image$in" "$(stat -c %a mnt/layers/{0,1,2}.raw | tr '\n' ' ')" "600 600 600 "
	chmod 644 top.qcow2
	unmount mnt
	mount_image --layers child.vhd mnt || return
	layer 0 child.vhd
	layer 1 parent.vhd
	is "a VHD's layers are what they are$in" "$(head -c 1024 mnt/layers/0.raw | tr -s PC)$(head -c 1024 mnt/layers/1.raw | tr -s PC)" PCP
	unmount mnt
	mount_image '' top.qcow2 mnt
	is "without the option there are none$in" "$(ls mnt | tr '\n' ' ')" "top.intervals.json top.raw "
	unmount mnt
	mount_image '-o layers' top.qcow2 mnt
	is "it is an option of -o as well$in" "$(find mnt/layers -name '*.raw' | wc -l)" 3
	unmount mnt
}

each_mode layers
refuse "--layers needs a directory" 'layers.*must be a directory' "$vdifs" --layers top.qcow2 plain
finish
