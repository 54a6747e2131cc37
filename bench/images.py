# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images that the benchmarks read.

Images with real data are made by qemu-img where it can make them.  What it cannot make, or not in good time, is
written here by hand: chains, VHDs, and disks of up to 64 TiB whose metadata is complete.  Those hold no data to speak
of: in QCOW2 every table entry names the same written host cluster; a VHD's blocks must not overlap, so its file is
sparse.
Reference counts are left out, since no reader looks at them.
"""
import array
import os
import random
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tests', 'lib'))
from vhd_writer import Vhd                                                              # noqa: E402

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
VHD_BLOCK = 2 * MIB
VHD_BITMAP = 512
CHAIN_LAYERS = 8


class Image:
    """A disk image, and what is known of its disk.

    native      a plain sparse file with the same content, or None
    data_bytes  how much of the disk is data
    qemu        what QEMU reads instead, where it cannot read the image itself
    metadata    bytes of tables that a walk over the disk has to read
    last_data   where the last data of the disk begins
    """

    def __init__(self, path, form, size, data_bytes, native=None, qemu=None, metadata=0, last_data=0, files=()):
        self.path, self.form, self.size, self.data_bytes = path, form, size, data_bytes
        self.native, self.qemu = native, qemu or path
        self.metadata, self.last_data = metadata, last_data
        self.files = [path, *files]

    def warm(self):
        """Everything written out, so that nobody else's writing is measured, and in the page cache."""
        for path in {self.native, self.qemu, *self.files} - {None}:
            with open(path, 'rb', buffering=0) as file:
                os.fsync(file.fileno())
                for at, end in data_ranges(file.fileno()):
                    while at < end:
                        at += len(os.pread(file.fileno(), min(MIB, end - at), at))

    def remove(self):
        for path in self.files:
            if os.path.exists(path):
                os.unlink(path)


def align(number, to):
    return (number + to - 1) // to * to


def data_ranges(fd):
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        yield at, end
        at = end


def copy_bytes(out, source, count, at):
    """count bytes at `at` of the file descriptor source, to where `out` stands."""
    while count:
        sent = os.sendfile(out, source, at, count)
        if sent == 0:
            raise OSError('the source ends too soon')
        at, count = at + sent, count - sent


# Disks.

class Disk:
    """A plain sparse file and its pieces of data: (virtual offset, length), ascending."""

    def __init__(self, path, size, pieces):
        self.path, self.size, self.pieces = path, size, pieces
        self.data_bytes = sum(length for _, length in pieces)


def make_disk(path, size, data_bytes, piece):
    """Incompressible data in pieces that lie evenly over the disk."""
    pool = random.Random(1).randbytes(16 * MIB + piece)
    count = data_bytes // piece
    pieces = [(size // count * number // piece * piece, piece) for number in range(count)]
    with open(path, 'wb', buffering=0) as out:
        out.truncate(size)
        for number, (at, _) in enumerate(pieces):
            os.pwrite(out.fileno(), struct.pack('<Q', number) + pool[number * 7919 % (16 * MIB):][:piece - 8], at)
    return Disk(path, size, pieces)


def make_usr_disk(path, size):
    """What a system is made of: the files of /usr, one behind the other."""
    left = size
    with open(path, 'wb') as out:
        for folder in ('/usr/bin', '/usr/lib', '/usr/share', '/usr'):
            for root, folders, names in os.walk(folder):
                folders.sort()
                for name in sorted(names):
                    if left:
                        left -= copy_plain_file(out, os.path.join(root, name), left)
        size -= left
        size -= size % MIB
        out.truncate(size)
    return Disk(path, size, [(0, size)])


def copy_plain_file(out, path, most):
    if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
        return 0
    with open(path, 'rb') as file:
        data = file.read(most)
    out.write(data)
    return len(data)


# QCOW2.

def convert(disk, path, options, *more):
    subprocess.run(['qemu-img', 'convert', '-O', 'qcow2', '-o', options, *more, disk.path, path], check=True,
                   stdin=subprocess.DEVNULL)
    return Image(path, 'qcow2', disk.size, disk.data_bytes, disk.path)


def qcow2_header(size, cluster_bits, l1_entries, backing=None):
    """A version 3 header.  Cluster 1 is the table of reference counts, cluster 2 begins the L1 table."""
    cluster = 1 << cluster_bits
    extension = struct.pack('>II8s', 0xE2792ACA, 5, b'qcow2') if backing else b''
    extension += struct.pack('>II', 0, 0)
    name = (backing or '').encode()
    raw = struct.pack('>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3, 104 + len(extension) if backing else 0, len(name),
                      cluster_bits, size, 0, l1_entries, 2 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    return (raw + extension + name).ljust(3 * cluster, b'\0')


def write_layer(path, disk, pieces, backing):
    """One layer of a chain: these pieces of the disk, in clusters of 64 KiB, a range of the file each."""
    cluster = 64 * KIB
    per_table = cluster // 8
    l1_entries = align(disk.size, cluster * per_table) // (cluster * per_table)
    data_at = (3 + l1_entries) * cluster
    table = array.array('Q', bytes(l1_entries * per_table * 8))
    host = data_at
    for at, length in pieces:
        for number in range(length // cluster):
            table[at // cluster + number] = host + number * cluster | 1 << 63
        host += length
    table.byteswap()
    with open(path, 'wb', buffering=0) as out, open(disk.path, 'rb', buffering=0) as source:
        out.write(qcow2_header(disk.size, 16, l1_entries, backing))
        os.pwrite(out.fileno(), struct.pack('>%dQ' % l1_entries, *((3 + n) * cluster | 1 << 63
                                                                   for n in range(l1_entries))), 2 * cluster)
        out.write(table.tobytes())
        for at, length in pieces:
            copy_bytes(out.fileno(), source.fileno(), length, at)


def make_chain(disk, folder):
    """Each layer holds every eighth piece."""
    names = ['layer%d.qcow2' % number for number in range(CHAIN_LAYERS)]
    for number, name in enumerate(names):
        write_layer(os.path.join(folder, name), disk, disk.pieces[number::CHAIN_LAYERS],
                    names[number - 1] if number else None)
    paths = [os.path.join(folder, name) for name in names]
    return Image(paths[-1], 'qcow2', disk.size, disk.data_bytes, disk.path, files=paths[:-1])


def make_full_qcow2(path, size, cluster_bits, every=1):
    """Every every-th cluster is allocated, and all are the same host cluster."""
    cluster = 1 << cluster_bits
    per_table = cluster // 8
    tables = size // (cluster * per_table)
    l1_bytes = align(tables * 8, cluster)
    data_at = 2 * cluster + l1_bytes
    table = (struct.pack('>Q', data_at) + bytes(8 * (every - 1))) * (per_table // every)
    with open(path, 'wb', buffering=0) as out:
        out.write(qcow2_header(size, cluster_bits, tables))
        l1_table = struct.pack('>%dQ' % tables, *(data_at + (1 + n) * cluster | 1 << 63 for n in range(tables)))
        os.pwrite(out.fileno(), l1_table, 2 * cluster)
        os.pwrite(out.fileno(), random.Random(2).randbytes(cluster), data_at)
        for number in range(tables):
            os.pwrite(out.fileno(), table, data_at + (1 + number) * cluster)
    return Image(path, 'qcow2', size, size // every, metadata=tables * (cluster + 8),
                 last_data=size - every * cluster)


# VHD.

class VhdFile:
    """A VHD that is filled in one pass: structures by the writer of the tests, blocks by us.

    As Windows does it, a block's data is aligned to 4 KiB and its bitmap lies in front of that."""

    def __init__(self, path, size, parent=None):
        kind = 'differencing' if parent else 'dynamic'
        self.frame = Vhd(path, size, kind=kind, parent=parent and parent.frame).write()
        self.path = path
        self.file = open(path, 'r+b', buffering=0)
        self.end = self.frame.where('footer')
        self.footer = os.pread(self.file.fileno(), 512, self.end)
        self.table = array.array('I', b'\xff' * (4 * self.frame.entries))

    def add_block(self, index, bitmap):
        """Returns where its data goes."""
        host = align(self.end + VHD_BITMAP, 4 * KIB) - VHD_BITMAP
        os.pwrite(self.file.fileno(), bitmap, host)
        self.table[index] = host // 512
        self.end = host + VHD_BITMAP + VHD_BLOCK
        return host + VHD_BITMAP

    def finish(self):
        self.table.byteswap()
        os.pwrite(self.file.fileno(), self.table.tobytes(), self.frame.where('bat'))
        os.pwrite(self.file.fileno(), self.footer, self.end)
        self.file.close()


ALL_SECTORS = b'\xff' * VHD_BITMAP
STRIPE = 256                    # sectors of 128 KiB: what the child and its parent have in turns
CHILD_SECTORS = (b'\xff' * (STRIPE // 8) + bytes(STRIPE // 8)) * (VHD_BITMAP * 8 // (2 * STRIPE))


def fill_vhd(vhd, disk, bitmap, indexes, stripes=None):
    """Blocks of the disk; stripes: 0 or 1 for every second one of 128 KiB only, None for all."""
    with open(disk.path, 'rb', buffering=0) as source:
        for index in indexes:
            at = vhd.add_block(index, bitmap)
            step = VHD_BLOCK if stripes is None else STRIPE * 512
            for part in range(stripes or 0, VHD_BLOCK // step, 1 if stripes is None else 2):
                vhd.file.seek(at + part * step)
                copy_bytes(vhd.file.fileno(), source.fileno(), step, index * VHD_BLOCK + part * step)


def make_dynamic_vhd(disk, path):
    """The disk's pieces must be blocks."""
    vhd = VhdFile(path, disk.size)
    fill_vhd(vhd, disk, ALL_SECTORS, [at // VHD_BLOCK for at, _ in disk.pieces])
    vhd.finish()
    return Image(path, 'vhd', disk.size, disk.data_bytes, disk.path)


def make_differencing_vhd(disk, folder, dynamic):
    """Half of the blocks come from the parent alone, in the others the layers take turns within the block."""
    paths = [os.path.join(folder, name) for name in ('parent.vhd', 'child.vhd')]
    blocks = [at // VHD_BLOCK for at, _ in disk.pieces]
    parent = VhdFile(paths[0], disk.size)
    fill_vhd(parent, disk, ALL_SECTORS, blocks[0::2])
    fill_vhd(parent, disk, ALL_SECTORS, blocks[1::2], stripes=1)
    parent.finish()
    child = VhdFile(paths[1], disk.size, parent)
    fill_vhd(child, disk, CHILD_SECTORS, blocks[1::2], stripes=0)
    child.finish()
    return Image(paths[1], 'vhd', disk.size, disk.data_bytes, disk.path, qemu=dynamic.path, files=paths[:1])


FILLED = 4096           # of so many blocks one has data


def full_vhd_host_bytes(size):
    """What make_full_vhd() takes up."""
    blocks = size // VHD_BLOCK
    return blocks * (4 * KIB + 4) + (blocks // FILLED + 2) * VHD_BLOCK


def make_full_vhd(path, size):
    """Every block is there; the first, the last and every FILLED-th have data, the others are holes of the file."""
    vhd = VhdFile(path, size)
    last = vhd.frame.entries - 1
    data = random.Random(3).randbytes(VHD_BLOCK)
    filled = 0
    for index in range(last + 1):
        at = vhd.add_block(index, ALL_SECTORS)
        if index % FILLED == 0 or index == last:
            os.pwrite(vhd.file.fileno(), data, at)
            filled += 1
    vhd.finish()
    return Image(path, 'vhd', size, filled * VHD_BLOCK, metadata=(last + 1) * (4 + VHD_BITMAP),
                 last_data=last * VHD_BLOCK)
