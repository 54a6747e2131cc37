#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Mounts begin and end, by unmounting, by SIGTERM, by SIGKILL of each process, at random moments, with
# and without open files, as root and as a user: never a dead mount, never a process left, and an end
# within 5 s. 20 mounts and 10 of each signal; with VD_NIGHTLY=1 ten times as many, with VD_SHORT=1 less than half.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015
. "$(dirname "$0")/lib.sh"
own_namespace "$0"
start root qemu-img qemu-io python3 setpriv mknod
# At the end of a process LeakSanitizer has a child of its own, which would be taken for ours and killed; its
# parent then waits for it for ever.
[ -z "$sanitized" ] || export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0
rounds=$(effort 4 10 100)
seed=${VD_SEED-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}

image disk.qcow2 4m "write -q -P 65 64k 64k" "write -q -P 66 1m 600k" "write -q -P 67 4000k 96k"
qemu-img convert -O raw disk.qcow2 disk.wanted
chmod 644 disk.qcow2

lives() { # lives MOUNTPOINT [UID]
	python_claims "$vdifs" "$work/disk.qcow2" "$1" disk.wanted "$rounds" "$seed" "${@:2}" <"$here/end_mounts.py"
}

mkdir mnt
lives mnt

# The user's part: with a /dev/fuse that all may use.
mkdir cover && mount -t tmpfs -o mode=755 none cover && mknod -m 666 cover/fuse c 10 229 &&
	mount --bind cover/fuse /dev/fuse || { skip "the same as a user" "nothing can be laid over /dev/fuse"; finish; }
if ! id nobody >/dev/null 2>&1; then
	skip "the same as a user" "there is no user nobody"
elif [ ! -u "$(command -v fusermount3)" ]; then
	skip "the same as a user" "fusermount3 is not setuid root"
elif ! setpriv --reuid=nobody --clear-groups test -r disk.qcow2 -a -x "$vdifs"; then
	skip "the same as a user" "nobody cannot reach $work or $vdifs"
else
	mkdir user && chown nobody user
	lives user "$(id -u nobody)"
fi
umount /dev/fuse cover
finish
