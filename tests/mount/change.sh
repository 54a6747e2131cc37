#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file of the chain that changes under a live mount: noticed when the disk is next opened, logged once
# for each change, and no old page is given to who opens then. Files that are lost or overwritten with
# garbage, tables included, end in errors for what is gone; the rest is read, and nothing dies.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr
mkdir mnt

# A base, a top over it, and a disk whose data lies in a file of its own.
make_images() {
	image base.qcow2 4m "write -q -P 66 0 2m"
	image_options=backing_file=base.qcow2,backing_fmt=qcow2
	image top.qcow2 4m "write -q -P 84 1m 256k"
	image_options=data_file=disk.data
	image data.qcow2 4m "write -q -P 68 0 1m"
	image_options=
	image packed.qcow2 4m "write -q -P 80 -c 0 64k"
	touch -d '2001-02-03 04:05:06' ./*.qcow2 disk.data
}

mount_there() { # mount_there IMAGE: in the foreground, its words in log
	begin "$vdifs" $mode -f "$1" mnt </dev/null >/dev/null 2>log
	wait_for 20 cat "mnt/${1%.qcow2}.raw" || not_ok "$1 mounts$in" "$(cat log)"
}

unmount_there() {
	claim "it is unmounted$in" unmount mnt
	end_of "$pid"
	is "and ends well$in" "$ended_with" 0
}

open_it() { : <mnt/"$1"; }

# Each line of the log must be one of these; prints those that are not, and those that are missing.
log_is() { # log_is CLAIM REGEX...
	local text=$1 line=0 found
	shift
	found=$(sed -n "$((logged + 1)),\$p" log)
	for regex; do
		line=$((line + 1))
		[[ $(sed -n "${line}p" <<<"$found") =~ ^vdifs:\ ($regex)$ ]] || break
		regex=
	done
	if [ "$(grep -c . <<<"$found")" -eq $# ] && [ -z "${regex-}" ]; then ok "$text"; else not_ok "$text" "$found"; fi
	logged=$(wc -l <log)
}

noticed() {
	local rest=' while it is mounted; what is read from now on may be wrong or an error: .*'
	make_images
	logged=0
	mount_there top.qcow2
	open_it top.raw && chmod 600 base.qcow2 && ln base.qcow2 link && rm link
	open_it top.raw
	log_is "no change, a new mode, a new name: nothing is said$in"
	is "the time that a mount shows is the image's$in" "$(stat -c %Y mnt/top.raw)" "$(stat -c %Y top.qcow2)"
	exec 8<mnt/top.raw
	touch -d '2002-01-01 00:00:00 UTC' base.qcow2
	log_is "a change is not seen before somebody opens$in"
	open_it top.raw; open_it top.raw
	log_is "a parent is written to: said once$in" "$PWD/base.qcow2: the file was written to at 2002-01-01 00:00:00 UTC$rest"
	truncate -s +512 base.qcow2; open_it top.raw; open_it top.raw
	touch -d '2002-01-01 00:00:00 UTC' top.qcow2; open_it top.raw
	log_is "it grows, and the image is written to$in" \
		"$PWD/base.qcow2: the file grew from [0-9]+ to [0-9]+ bytes$rest" "$PWD/top.qcow2: the file was written to at 2002.*$rest"
	exec 8<&-
	unmount_there
	rm disk.data && : >disk.data && truncate -s 4m disk.data && touch -d '2001-02-03 04:05:06' disk.data
	logged=0
	mount_there data.qcow2
	truncate -s 2m disk.data; open_it data.raw; :
	log_is "an external data file is cut$in" "$PWD/disk.data: the file was cut from 4194304 to 2097152 bytes$rest"
	unmount_there
}

# What the kernel has kept is not given to who opens after the change; who has it open may get either.
old_pages() {
	make_images
	mount_there top.qcow2
	is "before$in" "$(hash_of mnt/top.raw)" "$(qemu-img convert -O raw top.qcow2 was && hash_of was)"
	qemu-img convert -O raw top.qcow2 was
	printf 'write -q -P 67 0 64k\n' | qemu-io -f qcow2 -U base.qcow2 >/dev/null 2>&1 ||
		"$python" -c '
data = bytearray(open("base.qcow2", "rb").read())
at = data.index(b"B" * 65536)
data[at:at + 65536] = b"C" * 65536
open("base.qcow2", "r+b").write(data)'
	is "what is read by who opens after the change$in" "$(head -c 65536 mnt/top.raw | tr -d C | wc -c)" 0
	claim "what did not change is as it was$in" cmp <(tail -c +65537 was) <(tail -c +65537 mnt/top.raw)
	unmount_there
}

# The first file is spoilt by a Python expression over its bytes, `data`, while the disk is mounted.
spoilt() { # spoilt IMAGE FILE WHAT EXPRESSION
	make_images
	qemu-img convert -O raw "$1" was
	mount_there "$1"
	python_claims "mnt/${1%.qcow2}.raw" "$2" "$4" ", $3$in" <<'END'
import errno, os, sys
from claims import claim, same
disk, path, expression, what = sys.argv[1:]
def reads(size):
    fd = os.open(disk, os.O_RDONLY)
    out = {}
    for at in range(0, len(was), size):
        try:
            out[at] = os.pread(fd, size, at)
        except OSError as error:
            out[at] = errno.errorcode[error.errno]
    os.close(fd)
    return out
was = open('was', 'rb').read()
same('all is read before' + what, b''.join(reads(65536).values()) == was, True)
data = bytearray(open(path, 'rb').read())
exec(expression)
with open(path, 'r+b') as file:
    file.truncate(len(data))
    file.write(data)
for size in 4096, 65536, 1 << 20:
    got = reads(size)
    claim('reads of %d KiB are bytes or EIO%s' % (size >> 10, what), all(v == 'EIO' or isinstance(v, bytes) and v for v in got.values()),
          {v for v in got.values() if isinstance(v, str)})
    if 'lost' in what:
        wrong = [at for at, v in got.items() if v != 'EIO' and v != was[at:at + len(v)]]
        same('reads of %d KiB: what is answered is right%s' % (size >> 10, what), wrong, [])
        lacking = [at for at, v in got.items() if v == 'EIO' or len(v) < min(size, len(was) - at)]
        claim('reads of %d KiB: some are EIO, or end before it%s' % (size >> 10, what), lacking or 'tables' in what)
fd = os.open(disk, os.O_RDONLY)
same('the size is what it was' + what, os.fstat(fd).st_size, len(was))
for whence in os.SEEK_DATA, os.SEEK_HOLE:
    try:
        os.lseek(fd, 0, whence)
    except OSError as error:
        same('a seek is answered' + what, error.errno, errno.ENXIO)
os.getxattr(disk, 'user.vdifs.info')
os.stat(disk)
END
	claim "the change is logged, $3$in" grep -q "$2: the file .* while it is mounted" log
	is "the log stays short, $3$in" $(($(wc -l <log) < 70)) 1
	unmount_there
}

lost() {
	spoilt top.qcow2 top.qcow2 "all of the image lost" 'del data[:]'
	spoilt top.qcow2 base.qcow2 "half of the parent lost" 'del data[len(data) // 2:]'
	spoilt top.qcow2 base.qcow2 "all of the parent lost" 'del data[:]'
	spoilt data.qcow2 disk.data "half of the data file lost" 'del data[len(data) // 8:]'
	spoilt data.qcow2 data.qcow2 "the tables lost" 'del data[512:]'
}

# A compressed cluster is read by another path than plain ones. It has not been read before.
packed() {
	make_images
	logged=0
	begin "$vdifs" $mode -f packed.qcow2 mnt </dev/null >/dev/null 2>log
	wait_for 20 stat mnt/packed.raw || not_ok "packed.qcow2 mounts$in" "$(cat log)"
	exec 8<mnt/packed.raw
	truncate -s 327680 packed.qcow2
	is "a compressed cluster is lost: EIO$in" "$(cat <&8 2>&1 >/dev/null)" "cat: -: Input/output error"
	exec 8<&-
	log_is "and one line says so$in" 		"$PWD/packed.qcow2: cannot read the compressed cluster of [0-9]+ bytes at byte 327680 of the file: .*cut short"
	unmount_there
}

overwritten() {
	local garbage='import random; data[:] = random.Random(5).randbytes(len(data))'
	spoilt top.qcow2 top.qcow2 "garbage over the image" "$garbage"
	spoilt top.qcow2 base.qcow2 "garbage over the parent" "$garbage"
	spoilt top.qcow2 base.qcow2 "zeros over the parent" 'data[:] = bytes(len(data))'
	spoilt top.qcow2 top.qcow2 "ones over the image" 'data[:] = b"\xff" * len(data)'
	spoilt data.qcow2 data.qcow2 "garbage over the tables" "$garbage"
}

each_mode noticed
each_mode old_pages
each_mode lost
each_mode packed
each_mode overwritten
finish
