#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mount under load for a long time, on storage that fails, is late and reads short: all that is read is
# right or EIO, and right when tried again; memory, threads and descriptors do not grow.
#
#	tests/mount/soak.sh [SECONDS]		10 if not said otherwise; `make soak SECONDS=600`
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2034
. "$(dirname "$0")/lib.sh"
start qemu-img qemu-io python3
[ -x "$(dirname "$vdifs")/vdifs_faults" ] || skip_all "vdifs_faults is not built"
vdifs=$(dirname "$vdifs")/vdifs_faults
mkdir mnt

image base.qcow2 96m "write -q -P 66 0 20m" "write -q -P 67 40m 30m"
qemu-img convert -q -c -O qcow2 base.qcow2 packed.qcow2
image_options=backing_file=packed.qcow2,backing_fmt=qcow2
image disk.qcow2 96m "write -q -P 84 10m 5m" "write -q -z 50m 1m" "write -q -P 85 80m 1111k"
# Bytes that tell where they are, raw in the image and compressed in the one below.
"$python" - >commands <<'END'
for at in range(0, 24 << 20, 192 << 10):
    print('write -q -P %d %d 64k' % (at // 65536 % 251, at))
END
qemu-io -t unsafe -f qcow2 disk.qcow2 <commands >/dev/null
qemu-img convert -O raw disk.qcow2 wanted

python_claims "$vdifs" "${1:-10}" "${VD_SEED-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}" "${sanitized:-no}" <"$here/read_on.py"
finish
