#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# File handles, which an NFS server gives to its clients: they lead to the same file when the kernel has forgotten it,
# and to nothing when another disk is mounted there.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3
mkdir mnt
image disk.qcow2 2m "write -q -P 65 0 64k"
qemu-img snapshot -c monday disk.qcow2
qemu-io -c "write -q -P 66 0 64k" disk.qcow2
image other.qcow2 2m "write -q -P 67 0 64k"
cp other.qcow2 third.qcow2

cat >handles.py <<'END'
import ctypes, errno, json, os, struct, sys
from claims import claim, fails, same

libc = ctypes.CDLL(None, use_errno=True)

def handle_of(path):
    """(type, bytes) of name_to_handle_at()."""
    room = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128), 136)
    if libc.name_to_handle_at(-100, path.encode(), room, ctypes.byref(ctypes.c_int()), 0) < 0:
        raise OSError(ctypes.get_errno(), path)
    size, kind = struct.unpack_from('Ii', room)
    return kind, room.raw[8:8 + size]

def open_handle(handle):
    kind, text = handle
    place = os.open('mnt', os.O_RDONLY)
    try:
        fd = libc.open_by_handle_at(place, struct.pack('Ii', len(text), kind) + text, os.O_RDONLY)
    finally:
        os.close(place)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'open_by_handle_at')
    return fd

def forget():
    with open('/proc/sys/vm/drop_caches', 'w') as file:
        file.write('2')
END

handles() {
	mount_image '' disk.qcow2 mnt || return
	python_claims "$in" <<'END'
import json
from handles import *
mode = sys.argv[1]
files = ['mnt/disk.raw', 'mnt/disk.intervals.json', 'mnt/snapshots/monday.raw']
wanted = {path: (os.stat(path).st_ino, open(path, 'rb').read(100)) for path in files}
handles = {path: handle_of(path) for path in files + ['mnt', 'mnt/snapshots']}
for when in ('at once', 'after the kernel has forgotten the files'):
    for path in files:
        fd = open_handle(handles[path])
        same('%s is opened by its handle %s%s' % (path, when, mode), (os.fstat(fd).st_ino, os.read(fd, 100)), wanted[path])
        os.close(fd)
    for path in ('mnt', 'mnt/snapshots'):
        fd = open_handle(handles[path])
        same('%s is listed by its handle %s%s' % (path, when, mode), sorted(os.listdir(fd)), sorted(os.listdir(path)))
        same('%s has its parent %s%s' % (path, when, mode), os.stat('..', dir_fd=fd).st_ino, os.stat(path + '/..').st_ino)
        os.close(fd)
    forget()
kind, text = handles['mnt/disk.raw']
for number in (0, 1000, (1 << 32) + 2, (1 << 64) - 1):
    # FILEID_INO64_GEN as FUSE has it: the high half of the node's number, the low one, a generation
    made_up = struct.pack('II', number >> 32, number & 0xffffffff) + text[8:]
    fails('a handle of a file %#x that is not there is stale%s' % (number, mode), [errno.ESTALE, errno.EIO], open_handle, (kind, made_up))
same('and the mount answers' + mode, open('mnt/disk.raw', 'rb').read(1), b'B')
json.dump({path: (kind, text.hex()) for path, (kind, text) in handles.items()}, open('handles.json', 'w'))
END
	unmount mnt
	mount_image '' other.qcow2 mnt || return
	python_claims "$in" <<'END'
from handles import *
mode = sys.argv[1]
old = {path: (kind, bytes.fromhex(text)) for path, (kind, text) in json.load(open('handles.json')).items()}
open('mnt/other.raw', 'rb').read(1)
for path in ('mnt/disk.raw', 'mnt/snapshots/monday.raw'):
    fails('the handle of %s is stale when another disk is mounted%s' % (path, mode), [errno.ESTALE], open_handle, old[path])
    forget()
END
	unmount mnt
	mount_image '' disk.qcow2 mnt || return
	python_claims "$in" <<'END'
from handles import *
mode = sys.argv[1]
old = {path: (kind, bytes.fromhex(text)) for path, (kind, text) in json.load(open('handles.json')).items()}
for path, byte in (('mnt/disk.raw', b'B'), ('mnt/snapshots/monday.raw', b'A')):
    fd = open_handle(old[path])
    same('the handle of %s is good again when the disk is mounted again%s' % (path, mode), os.read(fd, 1), byte)
    os.close(fd)
END
	unmount mnt
}

export PYTHONPATH=$work:$PYTHONPATH
each_mode handles
finish
