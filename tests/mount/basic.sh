#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The files that appear, what stat says of them, reads, seeks, and that nothing can be written.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 mountpoint findmnt
mkdir mnt

# Data at 64K-128K, 256K-384K and in the last, short cluster.
size=$((1048576 + 1536))
image tail.qcow2 $size "write -q -P 1 64k 64k" "write -q -P 2 256k 128k" "write -q -P 3 1m 1536"
image hole.qcow2 $size "write -q -P 1 0 64k"
qemu-img convert -O raw tail.qcow2 tail.raw
wanted=$(hash_of tail.raw)
chown 1234:4321 tail.qcow2
chmod 2640 tail.qcow2
touch -d '2001-02-03 04:05:06.789 UTC' tail.qcow2

# name_is IMAGE NAME: what a directory shows for an image of that name
name_is() {
	cp --sparse=always tail.qcow2 "./$1"
	mount_image '' "$1" mnt || return
	is "${1:0:40} gives ${2:0:40}.raw and its map" "$(ls -A mnt)" "$2.intervals.json"$'\n'"$2.raw"
	is "${1:0:40} shows the disk" "$(hash_of "mnt/$2.raw")" "$wanted"
	is "${1:0:40} shows the map" "$(cat "mnt/$2.intervals.json")" "$("$vdimap" -- "$1")"
	is "${1:0:40} is named as the source" "$(findmnt -rno SOURCE mnt | sed 's/%/%%/g' | xargs -0 printf)" \
		"$work/$1"
	unmount mnt
	rm -f -- "$1"
}

names() {
	local dots
	name_is plain plain
	name_is two.dots.qcow2 two.dots
	name_is .qcow2 disk
	name_is .hidden.vhd .hidden
	name_is 'a name.qcow2' 'a name'
	name_is 'a,comma,.qcow2' 'a,comma,'
	name_is "it's \"quoted\".qcow2" "it's \"quoted\""
	name_is 'back\slash\040.qcow2' 'back\slash\040'
	name_is $'\303\244\342\202\254\360\237\220\247.qcow2' $'\303\244\342\202\254\360\237\220\247'
	name_is -f.qcow2 -f
	printf -v dots '%0240d' 0
	name_is "$dots" "$dots"
	name_is "$dots.qcow2" "$dots"

	ln -s ../tail.qcow2 mnt.link && mkdir sub && mv mnt.link sub/alias.qcow2
	mount_image '' sub/alias.qcow2 mnt
	is "a symbolic link shows its own name" "$(ls mnt)" "alias.intervals.json"$'\n'"alias.raw"
	unmount mnt
}

# A name too long to carry the suffix is cut, so that both files can be opened.
long_names() {
	local long
	printf -v long '%0250d' 7
	long_name "$long"
	long=$(printf '\303\244%.0s' {1..125})
	long_name "$long"
	long_name "x${long%??}y"
}

long_name() {
	cp --sparse=always tail.qcow2 "./$1"
	mount_image '' "$1" mnt || return
	python_claims "$1" "$wanted" "$in" <<'END'
import hashlib, os, sys
from claims import claim, same
image, wanted, mode = sys.argv[1:]
names = sorted(os.listdir(b'mnt'))
kind = ' of %d bytes, of %d characters' % (len(os.fsencode(image)), len(os.fsencode(image).decode()))
same('a name%s gives two files%s' % (kind, mode), [n[n.index(b'.'):] for n in names], [b'.intervals.json', b'.raw'])
for name in names:
    stem = name[:name.index(b'.')]
    claim('%s%s has a part of the name%s' % (name[-4:].decode(), kind, mode),
          len(name) <= 255 and os.fsencode(image).startswith(stem) and len(stem) > 200, (len(name), stem))
    claim('%s%s is whole characters%s' % (name[-4:].decode(), kind, mode),
          stem.decode(errors='replace').count('\ufffd') == 0, stem)
with open(b'mnt/' + names[-1], 'rb') as disk:
    same('the disk%s can be read%s' % (kind, mode), hashlib.sha256(disk.read()).hexdigest(), wanted)
with open(b'mnt/' + names[0], 'rb') as disk:
    claim('the map%s can be read%s' % (kind, mode), disk.read().startswith(b'{"virtual_size":'))
END
	unmount mnt
	rm -f -- "$1"
}

# What is the same whether the disk is in a directory or is a file: $1 is the disk.
disk_claims() {
	python_claims "$1" "$size" "$2$in" tail.raw <<'END'
import errno, fcntl, mmap, os, stat, sys
from claims import claim, fails, same, walk
disk, size, mode, raw = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
direct = '--direct' in mode
K = 1024
st = os.stat(disk)
same('size' + mode, st.st_size, size)
claim('blocks are those of the data' + mode, st.st_blocks == (192 * K + 1536) // 512, st.st_blocks)
same('blksize is that of other file systems, or that of large requests' + mode, st.st_blksize, 1 << 20 if direct else 4096)
same('mtime' + mode, st.st_mtime_ns, 981173106789000000)
same('owner and group' + mode, (st.st_uid, st.st_gid), (1234, 4321))
same('mode is the image\'s' + mode, oct(st.st_mode), oct(stat.S_IFREG | 0o640))
same('one link' + mode, st.st_nlink, 1)
for flags, name in ((os.O_WRONLY, 'O_WRONLY'), (os.O_RDWR, 'O_RDWR'), (os.O_RDONLY | os.O_TRUNC, 'O_TRUNC')):
    fails('open with %s is EROFS%s' % (name, mode), [errno.EROFS], os.open, disk, flags)
fails('truncate is EROFS' + mode, [errno.EROFS], os.truncate, disk, 0)
fails('chmod is EROFS' + mode, [errno.EROFS], os.chmod, disk, 0o777)
fails('chown is EROFS' + mode, [errno.EROFS], os.chown, disk, 0, 0)
fails('utime is EROFS' + mode, [errno.EROFS], os.utime, disk)
fails('setxattr is EROFS' + mode, [errno.EROFS], os.setxattr, disk, 'user.x', b'1')
fails('removexattr is EROFS' + mode, [errno.EROFS], os.removexattr, disk, 'user.vdifs.info')

with open(raw, 'rb') as file:
    wanted = file.read()
fd = os.open(disk, os.O_RDONLY)
same('bytes' + mode, os.pread(fd, size + 10, 0) == wanted, True)
same('a read across the end is cut' + mode, os.pread(fd, 4096, size - 10), wanted[-10:])
same('a read at the end is empty' + mode, os.pread(fd, 10, size), b'')
same('a read beyond the end is empty' + mode, os.pread(fd, 10, size + 12345), b'')
same('a read far beyond the end is empty' + mode, os.pread(fd, 10, 1 << 62), b'')
odd = [(1, 1), (65535, 3), (131071, 2), (262143, 131074), (0, size - 1)]
same('reads at odd places' + mode, [os.pread(fd, n, at) == wanted[at:at + n] for at, n in odd], [True] * 5)

same('SEEK_DATA and SEEK_HOLE walk the data' + mode, walk(fd), [(64 * K, 128 * K), (256 * K, 384 * K), (1024 * K, size)])
END_OF_DATA, D, H = size, os.SEEK_DATA, os.SEEK_HOLE
for name, at, whence, want in (
        ('SEEK_DATA at 0', 0, D, 64 * K), ('SEEK_HOLE at 0', 0, H, 0),
        ('SEEK_DATA before an edge', 64 * K - 1, D, 64 * K), ('SEEK_HOLE before an edge', 64 * K - 1, H, 64 * K - 1),
        ('SEEK_DATA at an edge', 64 * K, D, 64 * K), ('SEEK_HOLE at an edge', 64 * K, H, 128 * K),
        ('SEEK_DATA inside data', 100001, D, 100001), ('SEEK_HOLE inside data', 100001, H, 128 * K),
        ('SEEK_DATA at the last byte of data', 128 * K - 1, D, 128 * K - 1),
        ('SEEK_HOLE at the last byte of data', 128 * K - 1, H, 128 * K),
        ('SEEK_DATA where a hole begins', 128 * K, D, 256 * K), ('SEEK_HOLE where a hole begins', 128 * K, H, 128 * K),
        ('SEEK_DATA in the middle of a run', 300 * K, D, 300 * K), ('SEEK_HOLE in the middle of a run', 300 * K, H, 384 * K),
        ('SEEK_DATA before the last run', 384 * K, D, 1024 * K), ('SEEK_DATA in the last run', 1024 * K + 1, D, 1024 * K + 1),
        ('SEEK_HOLE in the last run', 1024 * K + 1, H, size), ('SEEK_HOLE at the last byte', size - 1, H, size),
        ('SEEK_DATA at the last byte', size - 1, D, size - 1), ('SEEK_END', -1, os.SEEK_END, size - 1)):
    same(name + mode, os.lseek(fd, at, whence), want)
for whence, name in ((D, 'SEEK_DATA'), (H, 'SEEK_HOLE')):
    for at, where in ((size, 'at the end'), (size + 1, 'beyond the end'), (1 << 62, 'far beyond the end'), ((1 << 63) - 1, 'at 2^63-1')):
        fails('%s %s is ENXIO%s' % (name, where, mode), [errno.ENXIO], os.lseek, fd, at, whence)
    for at in (-1, -size, -(1 << 63)):
        fails('%s at %d fails%s' % (name, at, mode), [errno.ENXIO, errno.EINVAL], os.lseek, fd, at, whence)
fails('another whence is EINVAL' + mode, [errno.EINVAL], os.lseek, fd, 0, 17)
same('seeking still works after all that' + mode, os.lseek(fd, 0, D), 64 * K)

kinds = [('MAP_PRIVATE', mmap.MAP_PRIVATE)] + [('MAP_SHARED', mmap.MAP_SHARED)] * (not direct)
for name, flag in kinds:
    with mmap.mmap(fd, size, flag, mmap.PROT_READ) as view:
        same('mmap with %s%s' % (name, mode), view[:] == wanted, True)
out = os.open('sent', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
sent = 0
while sent < size:
    step = os.sendfile(out, fd, sent, size - sent)
    if step == 0:
        break
    sent += step
same('sendfile' + mode, os.pread(out, size + 1, 0) == wanted, True)
by_itself = os.open(disk, os.O_RDONLY | os.O_DIRECT)
room = mmap.mmap(-1, 2 << 20)
same('O_DIRECT reads' + mode, (os.preadv(by_itself, [room], 0), room[:size] == wanted), (size, True))
same('O_DIRECT reads a tail' + mode, (os.preadv(by_itself, [memoryview(room)[:4096]], 1 << 20), room[:1536] == wanted[-1536:]),
     (1536, True))
same('O_DIRECT seeks' + mode, os.lseek(by_itself, 0, os.SEEK_DATA), 64 * K)
held = os.statvfs(disk)
same('statvfs: full, and read-only' + mode, (held.f_bfree, held.f_bavail, bool(held.f_flag & os.ST_RDONLY),
     held.f_blocks * held.f_frsize >= size), (0, 0, True, True))
END
}

directory() {
	mount_image '-o rw,dev,suid,exec' tail.qcow2 mnt || return
	disk_claims mnt/tail.raw ", in a directory"
	python_claims "$in" <<'END'
import errno, os, stat, sys
from claims import claim, fails, same
mode = sys.argv[1]
names = ['tail.intervals.json', 'tail.raw']
same('readdir' + mode, sorted(os.listdir('mnt')), names)
with os.scandir('mnt') as entries:
    same('readdir knows files and inodes' + mode, sorted((e.name, e.is_file(), e.inode() == os.stat(e.path).st_ino)
         for e in entries), [(n, True, True) for n in names])
st = os.stat('mnt')
same('directory mode' + mode, oct(st.st_mode), oct(stat.S_IFDIR | 0o750))
same('directory owner and mtime' + mode, (st.st_uid, st.st_gid, st.st_mtime_ns, st.st_nlink), (1234, 4321, 981173106789000000, 2))
side = os.stat('mnt/tail.intervals.json')
same('sidecar mode, owner and mtime' + mode, (oct(side.st_mode), side.st_uid, side.st_gid, side.st_mtime_ns),
     (oct(stat.S_IFREG | 0o640), 1234, 4321, 981173106789000000))
for round in 'first', 'cached':
    for name in 'none', 'tail', 'tail.raw.x', 'TAIL.RAW', 'n' * 255:
        fails('%.9s is ENOENT, %s answer%s' % (name, round, mode), [errno.ENOENT], os.stat, 'mnt/' + name)
fails('a name of 256 bytes is not found' + mode, [errno.ENAMETOOLONG, errno.ENOENT], os.stat, 'mnt/' + 'n' * 256)
fails('a disk is no directory' + mode, [errno.ENOTDIR], os.stat, 'mnt/tail.raw/x')
fails('creating is EROFS' + mode, [errno.EROFS], os.open, 'mnt/new', os.O_CREAT | os.O_WRONLY)
fails('mkdir is EROFS' + mode, [errno.EROFS], os.mkdir, 'mnt/new')
fails('mknod is EROFS' + mode, [errno.EROFS], os.mknod, 'mnt/new')
fails('symlink is EROFS' + mode, [errno.EROFS], os.symlink, 'x', 'mnt/new')
fails('link is EROFS' + mode, [errno.EROFS], os.link, 'mnt/tail.raw', 'mnt/new')
fails('unlink is EROFS' + mode, [errno.EROFS], os.unlink, 'mnt/tail.raw')
fails('rename is EROFS' + mode, [errno.EROFS], os.rename, 'mnt/tail.raw', 'mnt/new')
fails('writing to the sidecar is EROFS' + mode, [errno.EROFS], os.open, 'mnt/tail.intervals.json', os.O_WRONLY)
fd = os.open('mnt/tail.intervals.json', os.O_RDONLY)
text = os.pread(fd, 1 << 20, 0)
same('sidecar size' + mode, side.st_size, len(text))
same('sidecar in pieces from the end' + mode, b''.join(os.pread(fd, 7, at) for at in range(0, len(text), 7)), text)
same('a sidecar has no hole' + mode, (os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)), (0, len(text)))
fails('SEEK_DATA at the end of a sidecar is ENXIO' + mode, [errno.ENXIO], os.lseek, fd, len(text), os.SEEK_DATA)
END
	is "type, and ro,nosuid,nodev whatever -o says$in" \
		"$(findmnt -rno FSTYPE mnt) $(findmnt -rno VFS-OPTIONS mnt | tr , '\n' | grep -cxE 'ro|nosuid|nodev')" \
		'fuse.vdifs 3'
	if [ -w "/sys/class/bdi/$(mountpoint -d mnt)/read_ahead_kb" ]; then
		claim "read-ahead is 256 KiB, more than the kernel's$in" test "$(cat "/sys/class/bdi/$(mountpoint -d mnt)/read_ahead_kb")" -eq 256
	else
		skip "read-ahead is 256 KiB, more than the kernel's$in" "the read-ahead of a mount cannot be set here"
	fi
	like "the kernel checks permissions$in" "$(findmnt -rno FS-OPTIONS mnt)" '(.*,)?default_permissions(,.*)?'
	unmount mnt
	is "after the unmount the directory is empty$in" "$(ls -A mnt)" ''
}

file_form() {
	echo "what lay here" >plain
	mount_image '' tail.qcow2 plain || return
	disk_claims plain ", as a file"
	is "a file's type$in" "$(findmnt -rno FSTYPE plain)" fuse.vdifs
	unmount plain
	is "after the unmount the file is what it was$in" "$(cat plain)" "what lay here"
}

own_path() {
	local before
	before=$(hash_of tail.qcow2)
	mount_image '' tail.qcow2 tail.qcow2 || return
	is "over the image's own path: the disk$in" "$(hash_of tail.qcow2)" "$wanted"
	is "over the image's own path: its size$in" "$(stat -c %s tail.qcow2)" "$size"
	is "over the image's own path: its map$in" "$(attribute user.intervals tail.qcow2)" \
		'{"virtual_size":1050112,"cluster_bits":16,"data_clusters":[[1,1],[4,5],[16,16]]}'
	unmount tail.qcow2
	is "over the image's own path: afterwards the image$in" "$(hash_of tail.qcow2)" "$before"
}

# What ends in a hole, and what is nothing but one.
ends_in_a_hole() {
	image empty.qcow2 "$size"
	image full.qcow2 131072 "write -q -P 1 0 128k"
	touch plain2 plain3
	mount_image '' hole.qcow2 plain && mount_image '' empty.qcow2 plain2 && mount_image '' full.qcow2 plain3 || return
	python_claims "$size" "$in" <<'END'
import errno, os, sys
from claims import claim, fails, same, walk
size, mode = int(sys.argv[1]), sys.argv[2]
fd = os.open('plain', os.O_RDONLY)
same('data, then a hole' + mode, walk(fd), [(0, 65536)])
same('SEEK_HOLE in the last hole' + mode, os.lseek(fd, 70001, os.SEEK_HOLE), 70001)
same('SEEK_HOLE at the last byte of a hole' + mode, os.lseek(fd, size - 1, os.SEEK_HOLE), size - 1)
for at in 65536, 70001, size - 1:
    fails('SEEK_DATA at %d in the last hole is ENXIO%s' % (at, mode), [errno.ENXIO], os.lseek, fd, at, os.SEEK_DATA)
fd = os.open('plain2', os.O_RDONLY)
same('an empty disk has no data' + mode, walk(fd), [])
same('an empty disk is a hole from 0 on' + mode, os.lseek(fd, 0, os.SEEK_HOLE), 0)
same('an empty disk has no blocks' + mode, os.stat('plain2').st_blocks, 0)
fd = os.open('plain3', os.O_RDONLY)
same('a full disk is one run' + mode, walk(fd), [(0, 131072)])
same('a full disk has all its blocks' + mode, os.stat('plain3').st_blocks, 256)
same('a full disk has its hole at the end' + mode, os.lseek(fd, 0, os.SEEK_HOLE), 131072)
END
	unmount plain && unmount plain2 && unmount plain3
}

# st_blocks: at least 1 where there is data, and less than the size where there is a hole.
bounds() {
	"$python" - <<'END'
from qcow2_writer import Qcow2
for name, size, clusters in (('small', 600, [0]), ('gap', 1 << 20, [c for c in range(2048) if c != 1000])):
    disk = Qcow2(name + '.qcow2', size, cluster_bits=9)
    for cluster in clusters:
        disk.set(cluster, 'data', 0x61)
    disk.write()
END
	mount_image '' small.qcow2 plain || return
	is "600 bytes, 512 of them data: one block of 512$in" "$(stat -c '%s %b' plain)" "600 1"
	unmount plain
	mount_image '' gap.qcow2 plain || return
	is "a hole of 512 bytes is a block less$in" "$(stat -c '%s %b' plain)" "1048576 2047"
	unmount plain
}

# Not even the end of the file, which a VHD is looked for at, is worth a word then.
no_words() {
	local name
	qemu-img create -q -f vpc quiet.vhd 16M
	for name in quiet.vhd tail.qcow2; do
		begin "$vdifs" -f $mode "$name" mnt 2>log
		wait_for 20 mounted mnt
		ls mnt >/dev/null
		unmount mnt
		end_of "$pid"
		is "a good mount of $name leaves no word in the log$in" "$ended_with, $(cat log)" '0, '
	done
}

names
each_mode no_words
each_mode directory
each_mode file_form
each_mode own_path
each_mode ends_in_a_hole
each_mode bounds
long_names
finish
