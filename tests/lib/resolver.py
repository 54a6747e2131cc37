#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a VHD or QCOW2 image must read as, worked out the slow and obvious way.

The tests need a second opinion on every byte and every interval of an image.  QEMU gives one where it reads an image
right, but it ignores the bitmaps and parents of VHD and serves zeros for a damaged file.  This module gives one for all
images.  It was written from the descriptions of the formats and shares no code with the program under test or with the
image writers of the tests.  It decodes one table entry at a time and keeps nothing clever between two of them.

    disk = open_disk('x.vhd')
    disk.size, disk.cluster_bits, disk.format
    disk.intervals()      [(start, end), ...] of data, maximal, in bytes
    disk.eio()            [(start, end), ...] that cannot be read
    disk.contents()       the bytes, zeros where they cannot be read
    disk.json()           the interval map as text

A byte is data unless it is known to read as zero.  What cannot be read is data.
"""
import errno
import os
import stat
import struct
import subprocess
import sys
import urllib.parse
import zlib

MAX_LAYERS = 32

# The kinds of piece a layer yields.  BELOW exists only inside a layer; a disk shows it as HOLE at the bottom.
BELOW, HOLE, CUT, HOST, CODED, BAD = 'below', 'hole', 'cut', 'host', 'coded', 'bad'
# CUT is a hole because the host file ends inside a cluster or block; it has a name since QEMU calls it data.
HOLES = (HOLE, CUT)


class Refused(Exception):
    """The image cannot be shown at all."""


def ceil_div(value, unit):
    return -(-value // unit)


def be16(data, at):
    return int.from_bytes(data[at:at + 2], 'big')


def be32(data, at):
    return int.from_bytes(data[at:at + 4], 'big')


def be64(data, at):
    return int.from_bytes(data[at:at + 8], 'big')


def merge(ranges):
    """Ascending (start, end) ranges with touching neighbours joined and empty ones dropped."""
    out = []
    for start, end in ranges:
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def round_outward(ranges, unit, size):
    """Whole units that hold any byte of the ranges, cut at size."""
    return merge((start // unit * unit, min(ceil_div(end, unit) * unit, size)) for start, end in ranges)


class HostFile:
    """A file that holds bytes, and its holes."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.stat = os.fstat(self.fd)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.data = self._find_data()

    def __del__(self):
        if getattr(self, 'fd', None) is not None:
            os.close(self.fd)
            self.fd = None

    def _find_data(self):
        # Reserved parts that were never written are holes, but data to ext4 and XFS as long as they have pages.
        if stat.S_ISREG(self.stat.st_mode):
            os.fsync(self.fd)
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        out, at = [], 0
        while at < self.size:
            try:
                start = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    return [(0, self.size)]
                break
            at = os.lseek(self.fd, start, os.SEEK_HOLE)
            out.append((start, min(at, self.size)))
        return out

    def read(self, where, length):
        """As many bytes as the file has there."""
        out = b''
        while len(out) < length:
            part = os.pread(self.fd, length - len(out), where + len(out))
            if not part:
                break
            out += part
        return out

    def split(self, lo, hi):
        """(lo, hi, is_data) pieces of a range of the file."""
        at = lo
        for start, end in self.data:
            if end <= at:
                continue
            if start >= hi:
                break
            if start > at:
                yield at, start, False
                at = start
            yield at, min(end, hi), True
            at = min(end, hi)
        if at < hi:
            yield at, hi, False


class Layer:
    """One image of a chain.  pieces(lo, hi) covers a part of [0, size) with (lo, hi, kind, argument), in order."""
    format = None
    cluster_bits = 16

    def __init__(self, file):
        self.file = file
        self.size = 0
        self.metadata_bad = False

    def bad(self, lo, hi):
        self.metadata_bad = True
        return lo, hi, BAD, None

    def host_pieces(self, lo, hi, file, where, end):
        """Virtual lo to hi lies at `where` in a file whose data stops at `end`."""
        there = min(hi, max(lo, lo + end - where))
        for a, b, is_data in file.split(where, where + there - lo):
            yield lo + a - where, lo + b - where, HOST if is_data else HOLE, (file, a)
        if there < hi:
            yield there, hi, CUT, None


class Raw(Layer):
    """Every byte as it is."""
    format = 'raw'

    def __init__(self, file):
        super().__init__(file)
        self.size = file.size

    def pieces(self, lo, hi):
        return self.host_pieces(lo, hi, self.file, lo, self.file.size)


# VHD

VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING = 2, 3, 4
LOCATORS = (b'W2ru', b'W2ku', b'MacX', b'Wi2r', b'Wi2k')       # in the order in which they are tried


def vhd_sum_right(data, at):
    """The checksum is the complement of the sum of all bytes but its own four."""
    total = sum(data) - sum(data[at:at + 4])
    return ~total & 0xFFFFFFFF == be32(data, at)


def vhd_sum_fits(footer):
    """The checksum is right, or as XenServer's first versions left it, which set `hidden` afterwards."""
    old = footer[28:32] == b'tap\0' and footer[32:36] in (b'\0\0\0\1', b'\0\1\0\1')
    return vhd_sum_right(footer, 64) or (old and vhd_sum_right(footer[:85] + b'\0' + footer[86:], 64))


def vhd_footer(file, believe=None):
    """(footer, where its data must end) or None.  The end is trusted first: a guest can write a magic at 0.

    A whole footer at the end and a whole copy at 0 may be of different disks, which only the user can decide.  Whatever
    the footer at the end is worth, its bytes are not the disk's.
    """
    end, limit = None, file.size
    for length in (512, 511):
        data = file.read(file.size - length, length).ljust(512, b'\0') if file.size >= length else b''
        if data[:8] == b'conectix':
            limit = file.size - length
            if vhd_sum_fits(data):
                end = data
            break
    start = file.read(0, 512)
    if len(start) < 512 or start[:8] != b'conectix' or not vhd_sum_fits(start):
        start = None
    elif be32(start, 60) not in (VHD_DYNAMIC, VHD_DIFFERENCING):
        start = None
    if end and start and end[68:84] != start[68:84] and believe is None:
        raise Refused('%s: two footers' % file.path)
    chosen = start if start and (not end or believe == 'start') else end
    return (chosen, limit) if chosen else None


class Vhd(Layer):
    format = 'vhd'

    def __init__(self, file, believe=None):
        super().__init__(file)
        found = vhd_footer(file, believe)
        if found is None:
            raise Refused('%s: no valid VHD footer' % file.path)
        self.footer, self.end = found
        self.type = be32(self.footer, 60)
        self.size = be64(self.footer, 48)
        self.uuid = self.footer[68:84]
        if self.type not in (VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING):
            raise Refused('%s: VHD type %d' % (file.path, self.type))
        if self.type != VHD_FIXED:
            if self.footer[28:36] == b'tap\0\0\0\0\1':
                raise Refused('%s: the bits of its bitmaps are the other way round' % file.path)
            self._read_header()

    def _read_header(self):
        self.header_at = be64(self.footer, 16)
        head = self.header = self.file.read(self.header_at, 1024)
        if self.header_at + 1024 > self.end or head[:8] != b'cxsparse' or not vhd_sum_right(head, 36):
            raise Refused('%s: no valid dynamic header' % self.file.path)
        self.table_at, self.entries, self.block = be64(head, 16), be32(head, 28), be32(head, 32)
        if self.block < 512 or self.block & (self.block - 1):
            raise Refused('%s: block size %d' % (self.file.path, self.block))
        self.cluster_bits = self.block.bit_length() - 1
        self.bitmap_bytes = ceil_div(ceil_div(self.block, 512 * 8), 512) * 512
        needed = ceil_div(self.size, self.block)
        if self.entries < needed:
            raise Refused('%s: the BAT is too small' % self.file.path)
        if self.table_at + 4 * self.entries > self.end:
            raise Refused('%s: the BAT is not wholly inside the file' % self.file.path)
        self.table = self.file.read(self.table_at, 4 * needed)
        self.overlaps = self._find_overlaps()
        self.full = self._read_batmap(needed)

    def _read_batmap(self, blocks):
        """The blocks that are complete whatever their bitmaps say: a list of bits that XenServer keeps behind the BAT."""
        at = self.table_at + ceil_div(4 * self.entries, 512) * 512
        head = self.file.read(at, 512)
        if self.footer[28:32] != b'tap\0' or be32(self.footer, 32) < 0x10001 or at + 30 > self.end:
            return set()
        if head[:8] != b'tdbatmap':
            return set()
        if head[29] == 1:
            raise Refused('%s: encrypted' % self.file.path)
        where, length, version = be64(head, 8), be32(head, 16) * 512, be32(head, 20)
        bits = self.file.read(where, length) if length <= 1 << 20 and where + length <= self.end else b''
        if len(bits) < length or not bits or not where or where % 512 or version > 0x10002:
            return set()
        signed = 128 if version == 0x10001 else 256
        # Old versions sum the whole list, new ones the part of it that a disk of this size needs.
        for summed in (length, max(512, ceil_div(self.size >> 24, 512) * 512)):
            total = sum(byte if byte < signed else byte - 256 for byte in bits[:summed])
            if 8 * summed >= blocks and summed <= length and ~total & 0xFFFFFFFF == be32(head, 24):
                return {n for n in range(blocks) if bits[n // 8] >> (7 - n % 8) & 1}
        return set()

    def pieces(self, lo, hi):
        if self.type == VHD_FIXED:
            yield from self._data(lo, hi, lo)
            return
        while lo < hi:
            number = lo // self.block
            stop = min(hi, (number + 1) * self.block)
            yield from self._block(number, lo, stop)
            lo = stop

    def _misplaced(self, where):
        """No block can be at this place of the file."""
        length = self.bitmap_bytes + self.block
        areas = ((0, 512), (self.header_at, 1024), (self.table_at, 4 * self.entries))
        return where + self.bitmap_bytes >= self.end or any(
            start < where + length and where < start + size for start, size in areas)

    def _find_overlaps(self):
        """Blocks that share bytes of the file with any other: each may have been written over by the other."""
        length = self.bitmap_bytes + self.block
        entries = [(be32(self.table, 4 * n) * 512, n) for n in range(len(self.table) // 4)]
        placed = sorted((where, n) for where, n in entries if where != 0xFFFFFFFF * 512 and not self._misplaced(where))
        out = set()
        for (where, n), (following, m) in zip(placed, placed[1:]):
            if following < where + length:
                out |= {n, m}
        return out

    def _block(self, number, lo, hi):
        entry = be32(self.table, 4 * number)
        clear = BELOW if self.type == VHD_DIFFERENCING else HOLE
        if entry == 0xFFFFFFFF:
            yield lo, hi, clear, None
            return
        where = entry * 512
        if self._misplaced(where) or number in self.overlaps:
            yield self.bad(lo, hi)
            return
        bitmap = self.file.read(where, self.bitmap_bytes)
        if number in self.full:
            bitmap = b'\xff' * self.bitmap_bytes
        data_at = where + self.bitmap_bytes
        first = number * self.block
        while lo < hi:
            sector = (lo - first) // 512
            stop = min(hi, first + (sector + 1) * 512)
            if not bitmap[sector // 8] >> (7 - sector % 8) & 1:
                yield lo, stop, clear, None
            else:
                yield from self._data(lo, stop, data_at + lo - first)
            lo = stop

    def _data(self, lo, hi, where):
        """Bytes of the file.  It ends with its footer, so that what lies behind that has been lost."""
        for a, b, kind, argument in self.host_pieces(lo, hi, self.file, where, self.end):
            yield self.bad(a, b) if kind == CUT else (a, b, kind, argument)

    def parent_names(self):
        """Names from the locators and the header, in the order they are to be tried."""
        found = []
        for slot in range(8):
            at = 576 + 24 * slot
            code, length, where = self.header[at:at + 4], be32(self.header, at + 8), be64(self.header, at + 16)
            if code in LOCATORS and 0 < length <= 65536 and where + length <= self.end:
                found.append((LOCATORS.index(code), slot, code, self.file.read(where, length)))
        for _, _, code, text in sorted(found):
            if code in (b'Wi2r', b'Wi2k'):
                yield self._plain_path(text.split(b'\0')[0].decode('utf-8', 'surrogateescape'))
            else:
                yield self._mac_name(text) if code == b'MacX' else self._windows_name(text, 'utf-16-le')
        yield self._windows_name(self.header[64:576], 'utf-16-be')

    @staticmethod
    def _windows_name(text, encoding):
        units = struct.unpack(('<' if encoding == 'utf-16-le' else '>') + '%dH' % (len(text) // 2), text[:len(text) // 2 * 2])
        if 0 in units:
            units = units[:units.index(0)]
        return Vhd._plain_path(b''.join(struct.pack('<H', u) for u in units).decode('utf-16-le', 'surrogatepass'))

    @staticmethod
    def _plain_path(name):
        name = name.replace('\\', '/')
        if len(name) > 1 and name[1] == ':' and name[0].isascii() and name[0].isalpha():
            name = name[2:]
        return name

    @staticmethod
    def _mac_name(text):
        name = text.split(b'\0')[0].decode('utf-8', 'surrogateescape')
        if name.startswith('file://'):
            name = name[7:]
            if name.startswith('localhost/'):
                name = name[9:]
        return name


# QCOW2

L_OFFSET = 0x00FFFFFFFFFFFE00
COPIED, COMPRESSED = 1 << 63, 1 << 62
QCOW2_KNOWN_INCOMPATIBLE = 0b11111


class Qcow2(Layer):
    format = 'qcow2'

    def __init__(self, file):
        super().__init__(file)
        self.backing_name = self.backing_format = self.data_file_name = None
        self.data_file = None            # a HostFile, given by whoever opened the chain
        self._read_header()
        self._read_extensions()

    def refuse(self, why):
        raise Refused('%s: %s' % (self.file.path, why))

    def _read_header(self):
        head = self.file.read(0, 112)
        if head[:4] != b'QFI\xfb' or len(head) < 72:
            self.refuse('no QCOW2 header')
        self.version = be32(head, 4)
        if self.version not in (2, 3):
            self.refuse('QCOW version %d' % self.version)
        self.cluster_bits = be32(head, 20)
        if not 9 <= self.cluster_bits <= 21:
            self.refuse('cluster_bits %d' % self.cluster_bits)
        self.cluster = 1 << self.cluster_bits
        self.size = be64(head, 24)
        self.l1_entries, self.l1_at = be32(head, 36), be64(head, 40)
        self.snapshot_count, self.snapshots_at = be32(head, 60), be64(head, 64)
        self.incompatible = self.autoclear = self.compression = 0
        self.header_length = 72
        if self.version == 3:
            if len(head) < 104:
                self.refuse('the header is too short')
            self.incompatible, self.autoclear, self.header_length = be64(head, 72), be64(head, 88), be32(head, 100)
            if not 104 <= self.header_length <= self.cluster:
                self.refuse('header_length %d' % self.header_length)
            if self.header_length > 104:
                self.compression = self.file.read(104, 1)[0]
        if self.incompatible & ~QCOW2_KNOWN_INCOMPATIBLE:
            self.refuse('unknown incompatible features %x' % self.incompatible)
        if (self.compression != 0) != bool(self.incompatible & 8) or self.compression > 1:
            self.refuse('compression type %d' % self.compression)
        if be32(head, 32):
            self.refuse('encrypted')
        self.extended = bool(self.incompatible & 16)
        self.has_data_file = bool(self.incompatible & 4)
        self.raw_data_file = self.has_data_file and bool(self.autoclear & 2)
        if self.extended and self.cluster_bits < 14:
            self.refuse('subclusters are too small')
        self.l2_entries = self.cluster // (16 if self.extended else 8)
        self.backing_at, self.backing_length = be64(head, 8), be32(head, 16)
        self._read_snapshots()

    def use_l1(self):
        """Read the L1 table, once it is known whose: only the one that is shown has to be whole."""
        entries, at = self.l1_entries, self.l1_at
        needed = ceil_div(self.size, self.cluster * self.l2_entries)
        if entries < needed or entries * 8 > 32 << 20:
            self.refuse('an L1 table of %d entries' % entries)
        if at % self.cluster or at + entries * 8 > self.file.size:
            self.refuse('the L1 table is not wholly inside the file')
        self.l1 = self.file.read(at, needed * 8)
        self.users = {}                  # of an L2 table: more than one, and nobody knows whose it is
        for index in range(needed):
            table = be64(self.l1, 8 * index) & L_OFFSET
            self.users[table] = self.users.get(table, 0) + 1

    def _read_extensions(self):
        if self.backing_at:
            if self.backing_length > 1023 or self.backing_at + self.backing_length > self.cluster:
                self.refuse('the backing file name is not in the first cluster')
            self.backing_name = os.fsdecode(self.file.read(self.backing_at, self.backing_length))
        at, stop = self.header_length, self.backing_at or self.cluster
        while at + 8 <= stop:
            kind, length = struct.unpack('>II', self.file.read(at, 8).ljust(8, b'\0'))
            if kind == 0:
                break
            if at + 8 + length > stop:
                self.refuse('a header extension is too large')
            data = self.file.read(at + 8, length)
            if kind == 0xE2792ACA:
                self.backing_format = data.decode('ascii', 'replace')
            elif kind == 0x44415441:
                self.data_file_name = os.fsdecode(data)
            at += 8 + ceil_div(length, 8) * 8

    def _read_snapshots(self):
        rows, at = [], self.snapshots_at
        for _ in range(self.snapshot_count):
            head = self.file.read(at, 40)
            if len(head) < 40:
                self.refuse('the snapshot table is not wholly inside the file')
            extra, ident, name = be32(head, 36), be16(head, 12), be16(head, 14)
            rest = self.file.read(at + 40, extra + ident + name)
            if len(rest) < extra + ident + name:
                self.refuse('the snapshot table is not wholly inside the file')
            rows.append({'l1_at': be64(head, 0), 'l1_entries': be32(head, 8),
                         'size': be64(rest, 8) if extra >= 16 else self.size,
                         'id': rest[extra:extra + ident].decode(), 'name': rest[extra + ident:].decode()})
            at += ceil_div(40 + extra + ident + name, 8) * 8
        self.snapshots = rows

    def use_snapshot(self, wanted):
        """Show an internal snapshot instead of the current disk: an ID wins over a name."""
        rows = self.snapshots
        found = [r for r in rows if r['id'] == wanted] or [r for r in rows if r['name'] == wanted]
        if not found:
            self.refuse('no snapshot %r' % wanted)
        self.size = found[0]['size']
        self.l1_entries, self.l1_at = found[0]['l1_entries'], found[0]['l1_at']

    def pieces(self, lo, hi):
        while lo < hi:
            number = lo // self.cluster
            stop = min(hi, (number + 1) * self.cluster)
            yield from self._cluster(number, lo, stop)
            lo = stop

    def _entry(self, number):
        """(descriptor, subcluster bitmap), 0 where there is no L2 table, None where it cannot be had."""
        index = number // self.l2_entries
        table = be64(self.l1, 8 * index) & L_OFFSET
        if table == 0:
            return 0, 0
        if table % self.cluster or table + self.cluster > self.file.size or self.users[table] > 1:
            return None, None
        width = 16 if self.extended else 8
        raw = self.file.read(table + number % self.l2_entries * width, width)
        return be64(raw, 0), be64(raw, 8) if self.extended else 0

    def _cluster(self, number, lo, hi):
        below = HOLE if self.raw_data_file else BELOW
        entry, bitmap = self._entry(number)
        if entry is None:
            yield self.bad(lo, hi)
        elif entry & COMPRESSED:
            yield self._compressed(number, entry, lo, hi)
        elif self.extended:
            yield from self._subclusters(number, entry & L_OFFSET, entry, bitmap, below, lo, hi)
        elif entry & 1:
            yield self.bad(lo, hi) if self.version == 2 else (lo, hi, HOLE, None)
        elif not self._allocated(entry):
            yield lo, hi, below, None
        else:
            yield from self._plain(number, entry & L_OFFSET, lo, hi)

    def _allocated(self, entry):
        return bool(entry & L_OFFSET) or (self.has_data_file and bool(entry & COPIED))

    def _host(self):
        return self.data_file if self.has_data_file else self.file

    def _misplaced(self, number, where):
        """No cluster can be at this place of the file."""
        return bool(where % self.cluster) or where >= self._host().size or (
            self.has_data_file and where != number * self.cluster)

    def _plain(self, number, where, lo, hi):
        if self._misplaced(number, where):
            yield self.bad(lo, hi)
        else:
            yield from self.host_pieces(lo, hi, self._host(), where + lo - number * self.cluster, self._host().size)

    def _subclusters(self, number, where, entry, bitmap, below, lo, hi):
        alloc, zero = bitmap & 0xFFFFFFFF, bitmap >> 32
        allocated = self._allocated(entry)
        # A place that is used and cannot be right makes the whole entry, and so the whole cluster, unreadable.
        if alloc & zero or (alloc and (not allocated or self._misplaced(number, where))):
            yield self.bad(lo, hi)
            return
        unit = self.cluster // 32
        while lo < hi:
            sub = (lo - number * self.cluster) // unit
            stop = min(hi, number * self.cluster + (sub + 1) * unit)
            if zero >> sub & 1:
                yield lo, stop, HOLE, None
            elif alloc >> sub & 1:
                yield from self._plain(number, where, lo, stop)
            else:
                yield lo, stop, below, None
            lo = stop

    def _compressed(self, number, entry, lo, hi):
        shift = 62 - (self.cluster_bits - 8)
        where = entry & ((1 << shift) - 1)
        sectors = (entry >> shift & ((1 << (self.cluster_bits - 8)) - 1)) + 1
        if self.has_data_file or where >= self.file.size:
            return self.bad(lo, hi)
        return lo, hi, CODED, (self, number, where, sectors * 512 - where % 512)

    def decode(self, where, length):
        """One compressed cluster, or None."""
        data = self.file.read(where, length)             # the file may end before the last sector does
        out = inflate(data, self.cluster) if self.compression == 0 else unzstd(data, self.cluster)
        return out if out is not None and len(out) == self.cluster else None


def inflate(data, size):
    """The output of a raw deflate stream, at most one byte more than wanted.  None: it is damaged, or has no end."""
    stream = zlib.decompressobj(-15)
    try:
        out = stream.decompress(data, size + 1)
    except zlib.error:
        return None
    return out if stream.eof or len(out) > size else None


def zstd_frame_bytes(data):
    """The length of the frame at the start of data, or None: the zstd program would read on into the next."""
    if data[:4] != b'\x28\xb5\x2f\xfd' or len(data) < 5:
        return None
    flags = data[4]
    single = flags >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while at + 3 <= len(data):
        block = int.from_bytes(data[at:at + 3], 'little')
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            at += 4 * (flags >> 2 & 1)
            return at if at <= len(data) else None
    return None


UNZSTD_CACHE = {}


def unzstd_frame(frame):
    if frame not in UNZSTD_CACHE:
        if len(UNZSTD_CACHE) > 256:
            UNZSTD_CACHE.clear()
        done = subprocess.run(['zstd', '-q', '-d', '-c', '--single-thread'], input=frame, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=30, check=False)
        UNZSTD_CACHE[frame] = None if done.returncode else done.stdout
    return UNZSTD_CACHE[frame]


def unzstd(data, size):
    """The output of as many frames as a cluster needs."""
    out = b''
    while len(out) < size:
        length = zstd_frame_bytes(data)
        part = unzstd_frame(data[:length]) if length else None
        if part is None:
            return None
        out, data = out + part, data[length:]
    return out


# Chains

FORMATS = {'raw': Raw, 'vhd': Vhd, 'vpc': Vhd, 'qcow2': Qcow2}


def detect(file, believe=None):
    qcow2 = file.read(0, 4) == b'QFI\xfb'
    vhd = vhd_footer(file, believe) is not None
    if qcow2 and vhd:
        raise Refused('%s: both QCOW2 and VHD' % file.path)
    if not qcow2 and not vhd:
        raise Refused('%s: neither QCOW2 nor VHD' % file.path)
    return 'qcow2' if qcow2 else 'vhd'


class Opener:
    """Opens the files of one chain under the policy for names that come from an image."""

    def __init__(self, policy, believe=None):
        self.policy, self.believe = policy, believe

    def vhd_uuid(self, file):
        """The UUID of a VHD, or None."""
        found = vhd_footer(file, self.believe)
        return found and found[0][68:84]

    def named(self, child, name):
        """The file that `child` calls `name`, or Refused."""
        folder = os.path.dirname(child.path)
        path = os.path.realpath(os.path.join(folder, name))
        if not name or not os.path.isfile(path):
            raise Refused('%s: not found: %r' % (child.path, name))
        if self.policy == 'none':
            raise Refused('%s: no other file may be opened' % child.path)
        if self.policy == 'same-dir':
            if os.path.commonpath((folder, path)) != folder or os.stat(path).st_uid != child.stat.st_uid:
                raise Refused('%s: policy refuses %r' % (child.path, name))
        return HostFile(path)


class Disk:
    """A chain of layers, top first, seen as one disk."""

    def __init__(self, layers):
        self.layers = layers
        self.size = layers[0].size
        self.cluster_bits = layers[0].cluster_bits
        self.format = layers[0].format
        self._eio = self._contents = self._pieces = None

    def _resolve(self, index, lo, hi):
        """Pieces of [lo, hi) as layer `index` and those below it show them."""
        if index == len(self.layers):
            yield lo, hi, HOLE, None
            return
        layer = self.layers[index]
        end = min(hi, layer.size)
        if lo < end:
            for a, b, kind, argument in layer.pieces(lo, end):
                if kind == BELOW:
                    yield from self._resolve(index + 1, a, b)
                else:
                    yield a, b, kind, argument
        if hi > max(lo, end):
            yield max(lo, end), hi, HOLE, None

    def pieces(self):
        """(lo, hi, kind, argument) over the whole disk."""
        if self._pieces is None:
            self._pieces = list(self._resolve(0, 0, self.size))
        return self._pieces

    def intervals(self):
        return merge((lo, hi) for lo, hi, kind, _ in self.pieces() if kind not in HOLES)

    def cut(self):
        """Holes that exist because a file ends too early."""
        return merge((lo, hi) for lo, hi, kind, _ in self.pieces() if kind == CUT)

    def metadata_bad(self):
        """Ranges that cannot be read because of what the tables say (and not because a stream is broken)."""
        return merge((lo, hi) for lo, hi, kind, _ in self.pieces() if kind == BAD)

    def chunks(self):
        """(lo, hi, bytes or None for zeros, readable) over the whole disk, without holding it in memory."""
        last_key, last = None, None
        for lo, hi, kind, argument in self.pieces():
            if kind == HOST:
                file, where = argument
                yield lo, hi, file.read(where, hi - lo), True
            elif kind == CODED:
                layer, number, where, length = argument
                if (id(layer), number) != last_key:
                    last_key, last = (id(layer), number), layer.decode(where, length)
                first = number << layer.cluster_bits
                yield lo, hi, last and last[lo - first:hi - first], last is not None
            else:
                yield lo, hi, None, kind != BAD

    def _work_out(self):
        out, eio = bytearray(self.size), []
        for lo, hi, data, readable in self.chunks():
            if data is not None:
                if len(data) != hi - lo:
                    raise RuntimeError('%d bytes for %d to %d' % (len(data), lo, hi))
                out[lo:hi] = data
            if not readable:
                eio.append((lo, hi))
        self._eio, self._contents = merge(eio), bytes(out)

    def contents(self):
        """The bytes; those that cannot be read are zeros."""
        if self._contents is None:
            self._work_out()
        return self._contents

    def eio(self):
        if self._eio is None:
            self._work_out()
        return self._eio

    def cluster_pairs(self):
        unit = 1 << self.cluster_bits
        return [[lo // unit, ceil_div(hi, unit) - 1] for lo, hi in round_outward(self.intervals(), unit, self.size)]

    def unreadable_pairs(self):
        unit = 1 << self.cluster_bits
        return [[lo // unit, ceil_div(hi, unit) - 1] for lo, hi in round_outward(self.metadata_bad(), unit, self.size)]

    def json(self):
        pairs, bad = (','.join('[%d,%d]' % (a, b) for a, b in rows) for rows in (self.cluster_pairs(), self.unreadable_pairs()))
        return '{"virtual_size":%d,"cluster_bits":%d,"data_clusters":[%s]%s}' % (
            self.size, self.cluster_bits, pairs, bad and ',"unreadable":[%s]' % bad)


def vhd_parent_file(layer, opener, given_format):
    """(file, format) of a differencing disk's parent: the first name whose file has the right UUID."""
    wanted = layer.header[40:56]
    for name in layer.parent_names():
        if not name:
            continue
        relative, base = name.lstrip('/'), name.rsplit('/', 1)[-1]
        for candidate in (relative, name, base):
            try:
                file = opener.named(layer.file, candidate)
                uuid = opener.vhd_uuid(file)
            except Refused:
                continue
            if not any(wanted) and uuid is not None and not given_format:
                raise Refused('%s: no UUID is recorded for a parent that is a VHD' % layer.file.path)
            if not any(wanted):
                return file, given_format or 'raw'
            if uuid == wanted:
                return file, 'vhd'
    raise Refused('%s: no parent found' % layer.file.path)


def lower(layer, opener, given, given_format):
    """(file, format) of what lies below a layer, or None."""
    path = given.pop(0) if given else None
    if layer.format == 'vhd':
        if layer.type != VHD_DIFFERENCING:
            return None
        wanted = layer.header[40:56]
        if path is None:
            return vhd_parent_file(layer, opener, given_format)
        file = HostFile(path)
        uuid = opener.vhd_uuid(file)
        if not any(wanted) and uuid is not None and not given_format:
            raise Refused('%s: no UUID is recorded for a parent that is a VHD' % path)
        if not any(wanted):
            return file, given_format or 'raw'
        if uuid != wanted:
            raise Refused('%s: not the parent' % path)
        return file, 'vhd'
    if layer.format != 'qcow2' or layer.backing_name is None:
        return None
    file = HostFile(path) if path is not None else opener.named(layer.file, layer.backing_name)
    return file, given_format or layer.backing_format or detect(file, opener.believe)


def open_disk(path, format=None, backing='same-dir', backing_files=(), backing_format=None, data_file=None, snapshot=None,
              vhd_footer=None):
    """Open an image and everything below it.  Raises Refused (or OSError) where the image must not be shown."""
    opener, given = Opener(backing, vhd_footer), list(backing_files)
    file, layers, seen = HostFile(path), [], set()
    kind = format or detect(file, vhd_footer)
    while True:
        identity = file.path           # not its numbers: behind bindfs, two files may have the same
        if identity in seen or len(layers) == MAX_LAYERS:
            raise Refused('%s: a loop or too many layers' % file.path)
        seen.add(identity)
        if kind not in FORMATS:
            raise Refused('%s: unknown format %r' % (file.path, kind))
        layer = Vhd(file, vhd_footer) if FORMATS[kind] is Vhd else FORMATS[kind](file)
        layers.append(layer)
        if layer.format == 'qcow2' and layer.has_data_file:
            hand = data_file if len(layers) == 1 else None
            if hand is None and not layer.data_file_name:
                raise Refused('%s: a data file is required' % file.path)
            layer.data_file = HostFile(hand) if hand else opener.named(file, layer.data_file_name)
        if snapshot is not None and len(layers) == 1:
            if layer.format != 'qcow2':
                raise Refused('%s: no snapshots in this format' % file.path)
            layer.use_snapshot(snapshot)
        if layer.format == 'qcow2':
            layer.use_l1()
        below = lower(layer, opener, given, backing_format)
        if below is None:
            return Disk(layers)
        file, kind = below


def main():
    for path in sys.argv[1:]:
        disk = open_disk(path, backing='any')
        print('%s: %s' % (urllib.parse.quote(path, safe='/'), disk.json()))
        for start, end in disk.eio():
            print('eio %d %d' % (start, end - start))


if __name__ == '__main__':
    main()
