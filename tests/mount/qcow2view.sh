#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --qcow2 shows the disk as a QCOW2 file that QEMU finds no fault with, that can be decoded from a
# pipe, and that is as sparse as the disk.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr jq
mkdir mnt
touch plain

# One of each: a chain with compression, subclusters, VHD of both kinds, raw of an odd size, empty.
image base.qcow2 8m "write -q -P 1 64k 128k" "write -q -P 2 5m 1m" "write -q -P 0 1m 64k"
image_options=backing_file=base.qcow2,backing_fmt=qcow2,cluster_size=4096
image chain.qcow2 9m "write -q -P 3 5242880 4k" "write -q -z 128k 4k" "write -q -c -P 4 8m 4k" "write -q -P 5 8388608 100"
image_options=extended_l2=on
image subclusters.qcow2 3m "write -q -P 6 100k 2k" "write -q -P 7 2m 64k"
image_options=cluster_size=512
image small.qcow2 300k "write -q -P 8 0 300k"
image_options=cluster_size=2M
image large.qcow2 33m "write -q -P 9 7m 10k" "write -q -P 9 32m 1m"
image_options=
image empty.qcow2 64m
image nothing.qcow2 0
qemu-img convert -O vpc -o force_size=on base.qcow2 dynamic.vhd
qemu-img convert -O vpc -o force_size=on,subformat=fixed base.qcow2 fixed.vhd
head -c 300001 /dev/urandom >odd.raw
truncate -s 500003 odd.raw

view() { # view IMAGE CLUSTER_BITS [OPTION]
	local stem=${1%.*}
	mount_image "--qcow2 ${3-}" "$1" mnt || return
	claim "$1: qemu-img check finds nothing$in" qemu-img check -q "mnt/$stem.qcow2"
	claim "$1: qemu-img compare says identical$in" qemu-img compare -q -f qcow2 -F raw "mnt/$stem.qcow2" "mnt/$stem.raw"
	is "$1: the clusters are those of the map$in" \
		"$(qemu-img info --output=json "mnt/$stem.qcow2" | tr -d ' ,\n' | grep -o '"cluster-size":[0-9]*' | cut -d : -f 2)" $((1 << $2))
	cp --sparse=always "mnt/$stem.qcow2" copy.qcow2
	claim "$1: a sparse copy is a sound image$in" qemu-img check -q copy.qcow2
	claim "$1: with the same disk$in" qemu-img compare -q -f qcow2 -F raw copy.qcow2 "mnt/$stem.raw"
	claim "$1: tar stores it whole$in" cmp <(tar -Sc -C mnt "$stem.qcow2" | tar -xO) "mnt/$stem.qcow2"
	python_claims "$1" "mnt/$stem" "$in" <<'END'
import hashlib, json, os, random, struct, subprocess, sys
from claims import claim, same, walk
image, stem, mode = sys.argv[1:]

# A decoder of a pipe: it sees each byte once, in order.
with subprocess.Popen(['cat', stem + '.qcow2'], stdout=subprocess.PIPE) as cat:
    at = 0
    whole = hashlib.sha256()
    def take(count):
        global at
        data = cat.stdout.read(count)
        if len(data) != count:
            raise EOFError(at)
        at += count
        whole.update(data)
        return data
    head = take(104)
    (magic, version, backing, backing_size, bits, size, crypt, l1_size, l1_at, table_at, table_clusters, snapshots, snapshots_at,
     incompatible, compatible, autoclear, order, length) = struct.unpack('>4sIQIIQIIQQIIQQQQII', head)
    cluster = 1 << bits
    same('%s: a plain version 3 header%s' % (image, mode), (magic, version, backing, crypt, snapshots, incompatible, autoclear, order),
         (b'QFI\xfb', 3, 0, 0, 0, 0, 0, 4))
    take(cluster - 104)
    def entries(raw):
        return [e & 0x00fffffffffffe00 for e in struct.unpack('>%dQ' % (len(raw) // 8), raw)]
    take(l1_at - at)
    l1 = entries(take(-(-l1_size * 8 // cluster) * cluster))
    tables = []
    for number, host in enumerate(l1):
        if host:
            if host != at:
                raise ValueError('table %d at %d, not %d' % (number, host, at))
            tables.append((number, entries(take(cluster))))
    disk = bytearray(size)
    clusters = []
    for number, table in tables:
        for entry, host in enumerate(table):
            if host:
                if host != at:
                    raise ValueError('data at %d, not %d' % (host, at))
                virt = (number * cluster // 8 + entry) * cluster
                clusters.append(virt >> bits)
                data = take(cluster)
                disk[virt:virt + cluster] = data[:max(0, size - virt)]
    same('%s: the pipe ends with the last data%s' % (image, mode), cat.stdout.read(1), b'')
with open(stem + '.raw', 'rb') as file:
    raw = file.read()
same('%s: a reader that cannot seek gets the disk%s' % (image, mode), bytes(disk[:len(raw)]) == raw and not any(disk[len(raw):]), True)
with open(stem + '.intervals.json') as file:
    told = json.load(file)
same('%s: its clusters are those of the map%s' % (image, mode), clusters,
     [c for first, last in told['data_clusters'] for c in range(first, last + 1)])

fd = os.open(stem + '.qcow2', os.O_RDONLY)
st = os.fstat(fd)
same('%s: the size is that of the stream%s' % (image, mode), st.st_size, at)
data = walk(fd)
total = sum(end - start for start, end in data)
with open(stem + '.qcow2', 'rb') as file:
    content = file.read()
same('%s: the same bytes again%s' % (image, mode), hashlib.sha256(content).digest(), whole.digest())
dense = bytearray(len(content))
for start, end in data:
    dense[start:end] = content[start:end]
same('%s: holes are zeros%s' % (image, mode), bytes(dense) == content, True)
most = st.st_size // 512 - (total < st.st_size)
same('%s: blocks are those of the data%s' % (image, mode), st.st_blocks, min(-(-total // 512), most))
raw_fd = os.open(stem + '.raw', os.O_RDONLY)
same('%s: it has the data of the disk and its tables%s' % (image, mode), total, sum(e - s for s, e in walk(raw_fd)) + at - len(clusters) * cluster)
dice = random.Random(1)
places = [(dice.randrange(st.st_size), dice.randrange(1, 300000)) for _ in range(60)]
same('%s: reads at any place%s' % (image, mode), [os.pread(fd, n, p) == content[p:p + n] for p, n in places], [True] * 60)
same('%s: a read across the end is cut%s' % (image, mode), os.pread(fd, 4096, st.st_size - 7), content[-7:])
END
	unmount mnt
}

views() {
	view base.qcow2 16
	view chain.qcow2 12
	view subclusters.qcow2 16
	view small.qcow2 9
	view large.qcow2 21
	view empty.qcow2 16
	view dynamic.vhd 21
	view fixed.vhd 16
	view odd.raw 16 --format=raw
	view base.qcow2 16 --map-memory=0
	mount_image --qcow2 nothing.qcow2 mnt
	claim "a disk of no bytes is a sound image$in" qemu-img check -q mnt/nothing.qcow2
	unmount mnt
}

# 16 TiB, 1,048,576 clusters of data far apart, which all are one cluster of the file.
huge() {
	"$python" "$here/fragmented.py" huge.qcow2 $((1 << 44)) 16 256 2
	mount_image --qcow2 huge.qcow2 mnt || return
	python_claims $((1 << 44)) 16 256 2 <<'END'
import os, random, struct, sys, time
from claims import claim, same
from fragmented import Layout
layout = Layout(*map(int, sys.argv[1:5]))
pairs = list(layout.pairs())
begun = time.monotonic()
size = os.stat('mnt/huge.qcow2').st_size
print('# %.2f s for the size' % (time.monotonic() - begun))
fd = os.open('mnt/huge.qcow2', os.O_RDONLY)
data = size - (len(pairs) << 16)
claim('tables of 256 of 32768 are in the file', 256 << 16 < data < 300 << 16, data)
dice = random.Random(3)
begun = time.monotonic()
wrong = [r for r in (dice.randrange(len(pairs)) for _ in range(200)) if os.pread(fd, 65536, data + (r << 16)) != b'A' * 65536]
same('data far apart is found', wrong, [])
l1_at, = struct.unpack('>Q', os.pread(fd, 8, 40))
def entry(virt):
    table, = struct.unpack('>Q', os.pread(fd, 8, l1_at + virt // layout.reach * 8))
    if not table:
        return None
    host, = struct.unpack('>Q', os.pread(fd, 8, (table & ~(1 << 63)) + virt % layout.reach // 65536 * 8))
    return host & ~(1 << 63) or None
places = dice.sample(range(len(pairs)), 200)
same('entries lead to their data', [entry(pairs[p] << 16) for p in places], [data + (p << 16) for p in places])
same('what is no data has no entry', [entry((pairs[p] + 1) << 16) for p in places], [None] * 200)
same('the last hole is the end', os.lseek(fd, 0, os.SEEK_HOLE), size)
print('# %.2f s for 600 reads' % (time.monotonic() - begun))
END
	claim "qemu-img check finds nothing in 16 TiB" qemu-img check -q mnt/huge.qcow2
	unmount mnt
}

# Blocks that are allocated and not written are holes until their pages are in the page cache. A map that
# is not stored is then another one: what was computed from the first is right or an error.
unwritten() {
	fallocate -l 64M unwritten.raw 2>/dev/null && printf 'one' | dd of=unwritten.raw conv=notrunc status=none &&
		printf 'two' | dd of=unwritten.raw bs=1M seek=32 conv=notrunc status=none && sync unwritten.raw
	"$python" - <<'END' || { skip "holes that come and go" "not with this file system"; return; }
import os, sys
fd = os.open('unwritten.raw', os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
sys.exit(os.lseek(fd, 1 << 20, os.SEEK_DATA) != 32 << 20)
END
	begin "$vdifs" -f --format=raw --qcow2 --map-memory=0 unwritten.raw mnt 2>log </dev/null
	wait_for 20 test -e mnt/unwritten.raw
	is "two clusters are data" "$(jq -c .data_clusters mnt/unwritten.intervals.json)" '[[0,0],[512,512]]'
	cp mnt/unwritten.qcow2 before.qcow2
	claim "before: the copy is the disk" qemu-img compare -q -f qcow2 -F raw before.qcow2 unwritten.raw
	"$python" -c 'import os
for name in "mnt/unwritten.qcow2", "mnt/unwritten.intervals.json":
    os.posix_fadvise(os.open(name, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)'
	cat unwritten.raw >/dev/null
	if cp mnt/unwritten.qcow2 after.qcow2 2>/dev/null; then
		claim "after: the copy is the same" cmp before.qcow2 after.qcow2
	else
		ok "after: it cannot be copied"
	fi
	if cat mnt/unwritten.intervals.json >after.json 2>/dev/null; then
		is "after: the map is the same" "$(jq -c .data_clusters after.json)" '[[0,0],[512,512]]'
	else
		ok "after: the map cannot be read"
	fi
	unmount mnt
	end_of "$pid"
	claim "the log has no more than a line of it" test "$(wc -l <log)" -le 1
}

# One cluster whose place in the file is wrong, and one that cannot be decompressed.
bad() {
	mount_image --qcow2 bad.qcow2 mnt || return
	python_claims bad.raw "$in" <<'END'
import errno, os, sys
from claims import claim, same, fails
CLUSTER, BAD = 65536, (5, 9)
with open(sys.argv[1], 'rb') as file:
    wanted = file.read()
fd = os.open('mnt/bad.qcow2', os.O_RDONLY)
data = os.fstat(fd).st_size - 16 * CLUSTER
good = [n for n in range(16) if n not in BAD]
for n in BAD:
    fails('cluster %d is EIO%s' % (n, sys.argv[2]), [errno.EIO], os.pread, fd, 4096, data + n * CLUSTER + 8192)
same('all around is what it is' + sys.argv[2],
     [n for n in good if os.pread(fd, CLUSTER, data + n * CLUSTER) != wanted[n * CLUSTER:(n + 1) * CLUSTER]], [])
same('also up to the first and from behind the last byte' + sys.argv[2],
     [os.pread(fd, 4096, data + 5 * CLUSTER - 4096), os.pread(fd, 4096, data + 10 * CLUSTER)],
     [wanted[5 * CLUSTER - 4096:5 * CLUSTER], wanted[10 * CLUSTER:10 * CLUSTER + 4096]])
END
	claim "the tables are sound$in" qemu-img check -q mnt/bad.qcow2
	claim "cp fails, and says why$in" bash -c '! cp mnt/bad.qcow2 copy.qcow2 2>cp.err && grep -q "Input/output error" cp.err'
	unmount mnt
}

image bad.qcow2 1m "write -q -P 11 0 576k" "write -q -c -P 12 576k 64k" "write -q -P 13 640k 384k"
qemu-img convert -O raw bad.qcow2 bad.raw
"$python" - <<'END' || not_ok "the image is damaged"
import struct
with open('bad.qcow2', 'r+b') as file:
    def entry(at):
        file.seek(at)
        return struct.unpack('>Q', file.read(8))[0]
    table = entry(entry(40)) & ~(1 << 63)
    packed = entry(table + 9 * 8)
    assert packed >> 62 == 1
    file.seek(packed & (1 << 54) - 1)
    file.write(b'\xff' * 8)
    file.seek(table + 5 * 8)
    file.write(struct.pack('>Q', 1 << 63 | 1 << 50))
END

each_mode views
each_mode bad
huge
unwritten
refuse "--qcow2 needs a directory" 'qcow2.*must be a directory' "$vdifs" --qcow2 base.qcow2 plain
truncate -s $((1 << 62)) endless.raw 2>/dev/null &&
	refuse "a disk that no QCOW2 file can hold is refused" 'leave --qcow2 out' "$vdifs" --qcow2 --format=raw endless.raw mnt
finish
