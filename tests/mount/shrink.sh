#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image that is cut short under a live mount: what is lost is an error, whatever way a read takes, and never zeros or an early end of the file; what is left stays readable.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3
mkdir mnt

# Data of 8 MiB in one piece, then data in clusters that lie backwards in the file.
make_images() {
	local at commands=("write -q -P 65 0 8m")
	for at in {31..16}; do
		commands+=("write -q -P $at $((at * 512))k 512k")
	done
	image whole.qcow2 16m "${commands[@]}"
	qemu-img convert -O raw whole.qcow2 whole.raw
	half=$(($(stat -c %s whole.qcow2) / 2))
}

shrunken() {
	cp whole.qcow2 it.qcow2
	mount_image '' it.qcow2 mnt || return
	claim "the whole disk, before$in" cmp mnt/it.raw whole.raw
	truncate -s "$half" it.qcow2
	python_claims "$in" <<'END'
import errno, os, sys
from claims import same
mode = sys.argv[1]
whole = open('whole.raw', 'rb').read()
fd = os.open('mnt/it.raw', os.O_RDONLY)
for size in 4096, 1 << 16, 1 << 18, 1 << 19, 1 << 20:
    good = lost = 0
    wrong = []
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what the kernel has kept of the disk
    for at in range(0, len(whole), size):
        try:
            got = os.pread(fd, size, at)
        except OSError as error:
            lost += error.errno == errno.EIO
            continue
        # The kernel gives what comes before an error as a short answer, and the error after it.
        if not got or got != whole[at:at + len(got)]:
            wrong.append(at)
        good += 1
    same('reads of %d KiB: nothing wrong%s' % (size >> 10, mode), wrong, [])
    same('reads of %d KiB: some of both%s' % (size >> 10, mode), (good > 0, lost > 0), (True, True))
END
	unmount mnt
}

make_images
each_mode shrunken
finish
