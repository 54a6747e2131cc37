#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interval JSON as xen-api's vhd-tool prints it, and what its consumers get wrong.

`vhd-tool read_headers_interval` prints a format that exporters already read, so vdimap and user.intervals must print
exactly that.  The first part repeats its own conformance test.  The second part takes each fault of the exporters
built on that format - lost clusters, ranges out of order, maps of one layer only - and shows that the map here has
not got it: the map is checked against the bytes, and so is a copy made from nothing but the map.
"""
import argparse
import bisect
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import oracle
from oracle import Failure, Mount, Programs, run
from qcow2_writer import Qcow2
from tap import Tap, patience
from vhd_writer import Vhd

MIB = 1 << 20
TIME_LIMIT = 60 * patience()
CONFORMANCE = (
    # what is in 16 blocks of 2 MiB, and the text
    ('3 and 3 of 16 blocks random', [0, 1, 2, 13, 14, 15], '{"virtual_size":33562624,"cluster_bits":21,"data_clusters":[[0,2],[13,15]]}'),
    ('all random', range(16), '{"virtual_size":33562624,"cluster_bits":21,"data_clusters":[[0,15]]}'),
    ('all zero', [], '{"virtual_size":33562624,"cluster_bits":21,"data_clusters":[]}'),
    ('one block random', [7], '{"virtual_size":33562624,"cluster_bits":21,"data_clusters":[[7,7]]}'),
)


def tool(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=TIME_LIMIT, check=False)
    if done.returncode:
        raise Failure('%s: %s' % (' '.join(command), done.stderr.decode(errors='replace')))
    return done.stdout.decode()


class Bench:
    """A folder, the programs, and the questions that are asked of an image."""

    def __init__(self, programs, folder, no_mounts):
        self.programs, self.folder, self.no_mounts = programs, folder, no_mounts

    def path(self, name):
        return os.path.join(self.folder, name)

    def vdimap(self, image, *options):
        status, text, log = run(self.programs.vdimap, *options, image)
        if status:
            raise Failure('vdimap: exit status %d: %s' % (status, log))
        return text

    def check(self, image, clusters, bits, size, *options):
        """The exact text, and that a copy of the listed clusters alone is the whole disk."""
        wanted = '{"virtual_size":%d,"cluster_bits":%d,"data_clusters":[%s]}' % (
            size, bits, ','.join('[%d,%d]' % pair for pair in clusters))
        text = self.vdimap(image, *options)
        if text != wanted:
            raise Failure('got %s, expected %s' % (text[:800], wanted[:800]))
        self.check_copy(image, json.loads(text), *options)

    def check_copy(self, image, told, *options):
        out = self.path('copy.raw')
        status, text, log = run(self.programs.vdcat, *options, image, out)
        if status:
            raise Failure('vdcat: exit status %d: %s' % (status, log))
        with open(out, 'rb') as file:
            disk = file.read()
        size, unit, last = told['virtual_size'], 1 << told['cluster_bits'], -2
        if len(disk) != size:
            raise Failure('virtual_size is %d, the disk has %d bytes' % (size, len(disk)))
        copy = bytearray(size)
        for first, final in told['data_clusters']:
            if not last + 1 < first <= final <= (size - 1) // unit:
                raise Failure('the pair [%d,%d] is out of order, empty, not maximal or past the end' % (first, final))
            copy[first * unit:min((final + 1) * unit, size)] = disk[first * unit:min((final + 1) * unit, size)]
            last = final
        oracle.same_bytes('a copy of the listed clusters', bytes(copy), disk)
        starts = [first for first, _ in told['data_clusters']]
        for start, end in oracle.parse_cat(text)[1]:
            place = bisect.bisect_right(starts, start // unit) - 1
            if place < 0 or end > (told['data_clusters'][place][1] + 1) * unit:
                raise Failure('SEEK_DATA finds data at %d to %d outside the listed clusters' % (start, end))


# The conformance test of read_headers_interval

def make_conformance(bench, blocks):
    raw, image = bench.path('test.raw'), bench.path('test.vhd')
    noise = random.Random(21)
    with open(raw, 'wb') as out:
        out.truncate(16 * 2 * MIB)
        for block in blocks:
            out.seek(block * 2 * MIB)
            out.write(noise.randbytes(2 * MIB))
    tool('qemu-img', 'convert', '-f', 'raw', '-O', 'vpc', raw, image)
    return image


def conformance_vdimap(bench, blocks, wanted):
    image = make_conformance(bench, blocks)
    text = bench.vdimap(image)
    if text != wanted:
        raise Failure('got %r, expected %r' % (text, wanted))
    legacy = [c for first, last in json.loads(text)['data_clusters'] for c in range(first, last + 1)]
    if legacy != list(blocks):                       # what `vhd-tool read_headers` lists one by one
        raise Failure('the pairs stand for %s, expected %s' % (legacy, list(blocks)))
    bench.check_copy(image, json.loads(text))


def conformance_mount(bench, blocks, wanted):
    """The way a script asks: getfattr on a mounted directory, on the disk in it, and on a mounted file."""
    image = make_conformance(bench, blocks)
    point, file_point = bench.path('directory'), bench.path('file')
    os.makedirs(point, exist_ok=True)
    with open(file_point, 'wb'):
        pass
    with Mount(bench.programs, [], image, point):
        for place in (point, os.path.join(point, 'test.raw')):
            compare_attribute(place, wanted)
    with Mount(bench.programs, [], image, file_point):
        compare_attribute(file_point, wanted)


def compare_attribute(place, wanted):
    if shutil.which('getfattr'):
        text = tool('getfattr', '-n', 'user.intervals', '--only-values', '--absolute-names', place)
    else:
        text = os.getxattr(place, 'user.intervals').decode()
    if text != wanted:
        raise Failure('%s: got %r, expected %r' % (place, text, wanted))


# The faults of the consumers

def partial_last_cluster(bench):
    """100 KiB in clusters of 64 KiB: the second is partial and holds data."""
    image = bench.path('partial.qcow2')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', image, '102400')
    tool('qemu-io', '-f', 'qcow2', '-c', 'write -P 65 0 102400', image)
    bench.check(image, [(0, 1)], 16, 102400)


def partial_last_block(bench):
    """A VHD whose last block is 8 KiB, as QEMU's rounding to cylinders makes them; here it holds data."""
    image = Vhd(bench.path('partial.vhd'), 33562624)
    image.set_sectors((32 * MIB) // 512 + 3, b'x' * 512)
    image.write()
    bench.check(image.path, [(16, 16)], 21, 33562624)


def partial_odd_size(bench):
    """A last cluster of one byte."""
    image = Qcow2(bench.path('odd.qcow2'), 65536 + 1)
    image.set(1, 'data', 0x41)
    image.write()
    bench.check(image.path, [(1, 1)], 16, 65537)


def raw_partial(bench):
    """A raw image smaller than a cluster."""
    with open(bench.path('tiny.img'), 'wb') as out:
        out.write(b'a' * 1000)
    bench.check(out.name, [(0, 0)], 16, 1000, '--format=raw')


def unaligned_extents(bench):
    """A backing file with 4 KiB clusters: its data begins and ends inside the clusters of the top."""
    base, top = bench.path('fine.qcow2'), bench.path('coarse.qcow2')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', base, '1M')
    tool('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 69632 4096', '-c', 'write -P 2 126976 12288', base)
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'fine.qcow2', top, '1M')
    bench.check(top, [(1, 2)], 16, MIB)


def unaligned_subclusters(bench):
    """Extended L2: one subcluster of 2 KiB counts as its whole cluster."""
    image = Qcow2(bench.path('sub.qcow2'), MIB, extended_l2=True)
    image.set_sub(3, 31, 'data', 0x41)
    image.set_sub(4, 0, 'data', 0x42)
    image.set_sub(9, 7, 'zero')
    image.set_sub(12, 5, 'data', 0x43)
    image.write()
    bench.check(image.path, [(3, 4), (12, 12)], 16, MIB)


def other_cluster_sizes(bench):
    """Cluster sizes that are not 64 KiB are told as they are."""
    for bits in (9, 12, 20, 21):
        image = Qcow2(bench.path('size%d.qcow2' % bits), 5 << bits, cluster_bits=bits)
        image.set(1, 'data', 0x41)
        image.set(4, 'data', 0x42)
        image.write()
        bench.check(image.path, [(1, 1), (4, 4)], bits, 5 << bits)
    for bits in (9, 12, 19):
        image = Vhd(bench.path('size%d.vhd' % bits), 5 << bits, block_size=1 << bits)
        image.set_block(1, 0x41)
        image.set_block(4, 0x42)
        image.write()
        bench.check(image.path, [(1, 1), (4, 4)], bits, 5 << bits)


def ascending_maximal(bench):
    """Neighbours merge and order is that of the disk, though the blocks lie anywhere in the file."""
    image = Vhd(bench.path('shuffled.vhd'), 20 << 16, block_size=1 << 16, shuffle=5)
    for block in (2, 3, 4, 9, 11, 12, 19):
        image.set_block(block, block)
    image.write()
    bench.check(image.path, [(2, 4), (9, 9), (11, 12), (19, 19)], 16, 20 << 16)


def virtual_order(bench):
    """QCOW2 written back to front: the file holds the clusters in the opposite order of the disk."""
    image = bench.path('reverse.qcow2')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', image, '2M')
    writes = [word for cluster in (30, 6, 5, 2, 1, 0) for word in ('-c', 'write -P %d %d 65536' % (cluster + 1, cluster << 16))]
    tool('qemu-io', '-f', 'qcow2', *writes, image)
    bench.check(image, [(0, 2), (5, 6), (30, 30)], 16, 2 * MIB)


def no_empty_pair(bench):
    """A write much smaller than a cluster makes a pair [k,k], never [k,k-1]; nothing at all makes no pair."""
    base = bench.path('small.img')
    with open(base, 'wb') as out:
        out.truncate(MIB)
        out.seek(5 * 65536 + 4096)
        out.write(b'x')
    image = Qcow2(bench.path('small.qcow2'), MIB, backing='small.img', backing_format='raw')
    image.write()
    bench.check(image.path, [(5, 5)], 16, MIB)
    image = Qcow2(bench.path('empty.qcow2'), MIB)
    image.write()
    bench.check(image.path, [], 16, MIB)
    image = Qcow2(bench.path('none.qcow2'), 0)
    image.write()
    bench.check(image.path, [], 16, 0)


def mixed_block_sizes(bench):
    """A parent with smaller blocks, and one with larger: indexes of one are not those of the other."""
    for name, below, above in (('fine', 1 << 19, 1 << 21), ('coarse', 1 << 21, 1 << 19)):
        parent = Vhd(bench.path(name + '-parent.vhd'), 16 * MIB, block_size=below)
        parent.set_sectors(5 * MIB // 512 + 1, b'parent'.ljust(512))
        parent.write()
        child = Vhd(bench.path(name + '-child.vhd'), 16 * MIB, kind='differencing', block_size=above, parent=parent)
        child.set_sectors(12 * MIB // 512, b'child'.ljust(512))
        child.write()
        first, second = 5 * MIB // above, 12 * MIB // above
        bench.check(child.path, [(first, first), (second, second)], above.bit_length() - 1, 16 * MIB)


def whole_chain(bench):
    """Data of the backing file counts, and a zero cluster above hides it."""
    base = Qcow2(bench.path('base.qcow2'), MIB)
    for cluster in (1, 2, 3, 8):
        base.set(cluster, 'data', 0x41)
    base.write()
    top = Qcow2(bench.path('top.qcow2'), MIB, backing='base.qcow2', backing_format='qcow2')
    top.set(2, 'zero')
    top.set(5, 'data', 0x42)
    top.write()
    bench.check(top.path, [(1, 1), (3, 3), (5, 5), (8, 8)], 16, MIB)


def compressed_clusters(bench):
    """Compressed clusters are data like any other."""
    image = Qcow2(bench.path('packed.qcow2'), MIB)
    image.set(0, 'compressed', b'first')
    image.set(15, 'compressed', b'last')
    image.write()
    bench.check(image.path, [(0, 0), (15, 15)], 16, MIB)


def zeros_are_not_listed(bench):
    """Zero clusters of both kinds, and blocks whose bitmap is clear."""
    image = Qcow2(bench.path('zeros.qcow2'), MIB)
    image.set(1, 'zero')
    image.set(2, 'zero_alloc', 0x41)
    image.set(3, 'data', 0x42)
    image.write()
    bench.check(image.path, [(3, 3)], 16, MIB)
    image = Vhd(bench.path('clear.vhd'), 8 << 16, block_size=1 << 16)
    image.set_block(2, 0x41, bitmap=[])
    image.set_block(4, 0x42, bitmap=[(127, 127)])
    image.write()
    bench.check(image.path, [(4, 4)], 16, 8 << 16)


def tiny_disk(bench):
    """A disk of less than 1 MiB is one pair, once."""
    image = Vhd(bench.path('tiny.vhd'), 512 * 1024, kind='fixed')
    image.set_sectors(0, b'x' * (512 * 1024))
    image.write()
    bench.check(image.path, [(0, 7)], 16, 512 * 1024)


def fixed_and_windows_children(bench):
    """A fixed parent and a child that names it as Windows does: vhd-tool refuses both."""
    parent = Vhd(bench.path('fixed.vhd'), 4 * MIB, kind='fixed')
    parent.set_sectors(0, b'p' * 4096)
    parent.write()
    child = Vhd(bench.path('windows.vhd'), 4 * MIB, kind='differencing', parent=parent, table_offset=8192, locators=[
        ('W2ku', 'C:\\Users\\somebody\\fixed.vhd', {}), ('W2ru', '.\\fixed.vhd', {})])
    child.set_sectors(3 * MIB // 512, b'c' * 512)
    child.write()
    bench.check(child.path, [(0, 1)], 21, 4 * MIB)


def large_map(bench):
    """More pairs than an attribute holds: vdimap lists all, the attribute lists more and says so."""
    image = Qcow2(bench.path('many.qcow2'), 30000 * 512, cluster_bits=9)
    for cluster in range(0, 30000, 2):
        image.set(cluster, 'data', 0x41)
    image.write()
    bench.check(image.path, [(c, c) for c in range(0, 30000, 2)], 9, 30000 * 512)
    if bench.no_mounts:
        return
    point = bench.path('many')
    os.mkdir(point)
    with Mount(bench.programs, [], image.path, point):
        text = os.getxattr(os.path.join(point, 'many.raw'), 'user.intervals').decode()
        with open(os.path.join(point, 'many.intervals.json'), encoding='ascii') as file:
            sidecar = file.read()
    if sidecar != bench.vdimap(image.path):
        raise Failure('the sidecar and vdimap differ')
    if len(text) > 65536 or not text.endswith(',"exact":false}'):
        raise Failure('%d bytes, ending in %r' % (len(text), text[-40:]))
    rough = json.loads(text)
    bench.check_copy(image.path, rough)


FAULTS = (
    ('a partial last cluster is listed', partial_last_cluster),
    ('a partial last VHD block is listed', partial_last_block),
    ('a last cluster of one byte is listed', partial_odd_size),
    ('a raw image of less than a cluster is listed', raw_partial),
    ('extents of a finer backing file are rounded outward', unaligned_extents),
    ('subclusters are rounded outward', unaligned_subclusters),
    ('cluster and block sizes other than the usual are told as they are', other_cluster_sizes),
    ('pairs are ascending, disjoint and maximal, whatever the order in the file', ascending_maximal),
    ('QCOW2 clusters are ordered by virtual address', virtual_order),
    ('no pair is empty', no_empty_pair),
    ('VHD chains of mixed block sizes map to the right blocks', mixed_block_sizes),
    ('the whole chain counts, and zero clusters hide it', whole_chain),
    ('compressed clusters are listed', compressed_clusters),
    ('zero clusters and clear bitmaps are not listed', zeros_are_not_listed),
    ('a disk below 1 MiB is listed once', tiny_disk),
    ('fixed parents and Windows locators are understood', fixed_and_windows_children),
    ('a map longer than an attribute is exact in vdimap and safe in the attribute', large_map),
)


def claim(tap, text, programs, no_mounts, check, *rest):
    with tempfile.TemporaryDirectory(prefix='vd-xenapi-') as folder:
        try:
            check(Bench(programs, folder, no_mounts), *rest)
        except (Failure, OSError, subprocess.SubprocessError) as error:
            tap.ok(False, text, str(error))
        else:
            tap.ok(True, text)


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    args = parser.parse_args()
    if shutil.which('qemu-img') is None or shutil.which('qemu-io') is None:
        print('1..0 # SKIP qemu-img is not installed')
        return 0
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap', 'vdcat'):
        return tap.bail('not built: ' + ', '.join(programs.missing('vdimap', 'vdcat')))
    no_mounts = 'vdifs is not built' if programs.vdifs is None else oracle.mounts_work()
    for words, blocks, wanted in CONFORMANCE:
        claim(tap, 'vdimap prints what vhd-tool prints: ' + words, programs, no_mounts, conformance_vdimap, blocks, wanted)
        text = 'user.intervals is what vhd-tool prints: ' + words
        if no_mounts:
            tap.skip(text, no_mounts)
        else:
            claim(tap, text, programs, no_mounts, conformance_mount, blocks, wanted)
    for text, check in FAULTS:
        claim(tap, text, programs, no_mounts, check)
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
