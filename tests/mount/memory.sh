#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each allocation of a mount fails once, from the first one of the command to the last one of a reader:
# the mount is refused in one line, or it answers everything, or ENOMEM once and the right answer after.
# libfuse's own are not among them (tests/tools/faults.c). A fifth of them, beginning anywhere; with
# VD_NIGHTLY=1 all, with VD_SHORT=1 one of 25.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2034
. "$(dirname "$0")/lib.sh"
start qemu-img qemu-io python3
[ -x "$(dirname "$vdifs")/vdifs_faults" ] || skip_all "vdifs_faults is not built"
vdifs=$(dirname "$vdifs")/vdifs_faults
mkdir mnt
step=$(effort 25 5 1)

image base.qcow2 4m "write -q -P 66 0 2m"
qemu-img convert -q -c -O qcow2 -o compression_type=zstd base.qcow2 packed.qcow2
image_options=backing_file=packed.qcow2,backing_fmt=qcow2
image top.qcow2 4m "write -q -P 84 1m 256k" "write -q -P 85 3m 64k"
image_options=
qemu-img convert -q -c -O qcow2 base.qcow2 zlib.qcow2
for name in top zlib; do
	qemu-img convert -O raw "$name.qcow2" "$name.wanted"
	python_claims "$vdifs" "$name" "$step" "$("$vdimap" "$name.qcow2")" <"$here/lose_memory.py"
done
finish
