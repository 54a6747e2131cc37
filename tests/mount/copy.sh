#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copies made by ordinary programs: every byte right, and no more room taken than the data needs.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 tar cp rsync dd
mkdir mnt out

# The disks. "many" has short runs at odd places, its size is no
# multiple of 4 KiB; "ragged" is cut inside a sector; "chain" is what two layers make together.
make_disks() {
	local n many=() small=() size=$((6 * 1048576 + 3 * 512))
	for ((n = 0; n < 75; n++)); do
		many+=("write -q -P $((n + 1)) $((n * 81920 + n * 7 % 5 * 4096)) $(((n % 3 + 1) * 4096))")
	done
	for ((n = 0; n < 300; n++)); do
		small+=("write -q -P $((n % 255 + 1)) $((n * 20480 + n * 7 % 3 * 4096)) $((n % 4 * 2560 + 512))")
	done
	image many.qcow2 "$size" "${many[@]}" "write -q -P 9 6m 1536"
	image_options=cluster_size=4k
	image small.qcow2 "$size" "${small[@]}"
	image_options=
	image sector.qcow2 16m "write -q -P 1 5001k 512"
	image end.qcow2 "$size" "write -q -P 1 6m 1536"
	image empty.qcow2 "$size"
	image full.qcow2 3m "write -q -P 1 0 3m"
	image zeroed.qcow2 4m "write -q -P 1 0 1m" "write -q -z 1m 1m" "write -q -P 0 2m 1m"
	image_options=backing_file=many.qcow2,backing_fmt=qcow2
	image chain.qcow2 $((size + 1048576)) "write -q -P 77 1000k 100k" "write -q -z 2m 1m"
	image_options=
	qemu-img convert -c -O qcow2 -o compression_type=zstd many.qcow2 compressed.qcow2
	qemu-img convert -O vpc -o force_size=on small.qcow2 many.vhd
	cp --sparse=always many.qcow2 ragged.qcow2
	"$python" - <<'END'
import struct
with open('ragged.qcow2', 'r+b') as image:      # the size, down by an odd number of bytes
    image.seek(24)
    size, = struct.unpack('>Q', image.read(8))
    image.seek(24)
    image.write(struct.pack('>Q', size - 777))
END
}

# One copy each. $1 is the disk, the copy is out/copy. SPARSE ones must not take more than the data.
copy_tar() { tar -C mnt -S -c -f - "${1#mnt/}" | tar -C out -x -f - && mv "out/${1#mnt/}" out/copy; }
copy_cp_auto() { cp --sparse=auto "$1" out/copy; }
copy_cp_always() { cp --sparse=always "$1" out/copy; }
copy_rsync_S() { rsync -S "$1" out/copy; }
copy_cp_never() { cp --sparse=never "$1" out/copy; }
copy_dd() { dd if="$1" of=out/copy bs=64k status=none; }
copy_dd_direct() { dd if="$1" of=out/copy bs=1M iflag=direct status=none; }
copy_cat() { cat "$1" >out/copy; }
sparse='tar cp_auto cp_always rsync_S'
whole='cp_never dd dd_direct cat'

# The data of a disk in bytes, rounded outward to 4 KiB, as SEEK_DATA tells, which must be right: all
# bytes that are not zero, and nothing that qemu-img map calls zero. $1 disk, $2 raw copy, $3 image
data_of() {
	"$python" - "$@" <<'END'
import json, os, subprocess, sys
from claims import walk
disk, raw, image = sys.argv[1:]
fd = os.open(disk, os.O_RDONLY)
runs, size = walk(fd), os.fstat(fd).st_size
told = set()
for start, end in runs:
    told.update(range(start // 512, -(-end // 512)))
with open(raw, 'rb') as file:
    for sector in range(-(-size // 512)):
        if sector not in told and file.seek(sector * 512) is not None and file.read(512).strip(b'\0'):
            sys.exit('sector %d has data and SEEK_DATA skips it' % sector)
said = json.loads(subprocess.run(['qemu-img', 'map', '--output=json', *sys.argv[4:], image],
                                 stdout=subprocess.PIPE, check=True).stdout)
zero = set()
for run in said:
    if run['zero']:
        zero.update(range(run['start'] // 512, (run['start'] + run['length']) // 512))
if told & zero:
    sys.exit('sector %d is zero for qemu-img map and data for us' % min(told & zero))
print(sum(-(-end // 4096) * 4096 - start // 4096 * 4096 for start, end in runs))
END
}

# copies NAME IMAGE [WHOLE]: all copies of one disk; WHOLE is an image that goes on where this ends
copies() {
	local name=$1 image=$2 disk how data got
	mount_image '' "$image" mnt || return
	disk=mnt/$name.raw
	qemu-img convert -O raw "${3:-$image}" wanted
	truncate -s "$(stat -c %s "$disk")" wanted
	if data=$(data_of "$disk" wanted "$image" 2>data.err); then
		ok "$image: SEEK_DATA tells all data and no zeros$in"
	else
		not_ok "$image: SEEK_DATA tells all data and no zeros$in" "$(cat data.err)"
	fi
	for how in $sparse $whole; do
		rm -f out/copy
		if ! copy_"$how" "$disk" 2>copy.err; then
			not_ok "$image: ${how//_/ } copies$in" "$(cat copy.err)"
			continue
		fi
		claim "$image: ${how//_/ } copies every byte$in" cmp out/copy wanted
		[[ " $sparse " == *" $how "* ]] || continue
		got=$(($(stat -c '%b * %B' out/copy)))
		if [ "$got" -le $((data + data / 20)) ]; then
			ok "$image: ${how//_/ } takes no more room than the data$in"
		else
			not_ok "$image: ${how//_/ } takes no more room than the data$in" "$got bytes for $data"
		fi
	done
	unmount mnt
}

# Two programs at once read the same disk, and a copy of the directory is a copy of its files.
together() {
	mount_image '' many.qcow2 mnt || return
	rm -rf out/*
	cp --sparse=always mnt/many.raw out/one &
	tar -C mnt -S -c -f - . | tar -C out -x -f -
	wait $!
	is "two copies at once are alike$in" "$(hash_of out/one)" "$(hash_of out/many.raw)"
	is "tar takes the sidecar whole$in" "$(cat out/many.intervals.json)" "$("$vdimap" many.qcow2)"
	rm -rf out/*
	claim "rsync -aS of the directory$in" rsync -aS mnt/ out/
	is "rsync takes the sidecar whole$in" "$(cat out/many.intervals.json)" "$("$vdimap" many.qcow2)"
	is "rsync takes the disk whole$in" "$(hash_of out/many.raw)" "$(hash_of mnt/many.raw)"
	is "rsync takes the time$in" "$(stat -c %y out/many.raw)" "$(stat -c %y many.qcow2)"
	rm -rf out/*
	unmount mnt
}

all_copies() {
	local name
	for name in many small sector end empty full zeroed chain compressed; do
		copies "$name" "$name.qcow2"
	done
	copies ragged ragged.qcow2 many.qcow2 # QEMU counts whole sectors only
	copies many many.vhd
	together
}

make_disks
# Data is spliced through pipes, of which a user may not have many: as many as 8 threads need, ours and
# libfuse's, however many read.
pipes() {
	local readers=()
	image many.qcow2 64m "write -q -P 7 0 64m"
	mount_image '' many.qcow2 mnt || return
	for at in {0..23}; do
		begin dd if=mnt/many.raw of=/dev/null bs=512k skip="$at" count=80 status=none
		readers+=("$pid")
	done
	for pid in "${readers[@]}"; do
		end_of "$pid"
	done
	ends=$(find "/proc/$(servers)/fd" -lname 'pipe:*' | wc -l)
	claim "24 readers are answered through pipes, at most 32 ends ($ends)$in" [ "$ends" -ge 4 -a "$ends" -le 32 ]
	unmount mnt
}

each_mode all_copies
each_mode pipes
finish
