#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VHD writer for tests.

No tool at hand writes differencing images, sector-exact bitmaps, 511-byte footers, block maps of blktap, or the parent
locators of the five programs that each write them in their own way.  This writer does, remembers where each structure
went so that a test can then damage it by name, and knows what the virtual disk must read as.

    v = Vhd('x.vhd', 8 << 20)
    v.set_sectors(3, b'A' * 512)                    # one sector; only its bit is set
    v.set_block(2, 0x42)                            # a whole block
    v.set_block(3, 0x43, bitmap=[(0, 7), (9, 9)])   # all bytes on disk, but only these sectors count
    v.write()
    v.where('bat[2]'), v.where('block[2]'), v.where('footer')
"""
import hashlib
import os
import random
import struct

from qcow2_writer import align, fill, lookup

SECTOR = 512
ABSENT = 0xFFFFFFFF
TYPES = {'none': 0, 'fixed': 2, 'dynamic': 3, 'differencing': 4}


def checksum(raw, at):
    """One's complement of the byte sum, with the checksum's own four bytes counted as zero."""
    return ~(sum(raw) - sum(raw[at:at + 4])) & 0xFFFFFFFF


def geometry(size):
    """The CHS algorithm of the specification's appendix."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    per_track = 17
    times_heads = sectors // per_track
    heads = max(4, (times_heads + 1023) // 1024)
    if times_heads >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        times_heads = sectors // per_track
    if times_heads >= heads * 1024:
        per_track, heads = 63, 16
        times_heads = sectors // per_track
    return times_heads // heads, heads, per_track


def fix_checksums(path, footers=(), header=None):
    """Make the checksums right again after a poke, so that a test reaches the check behind them."""
    with open(path, 'r+b') as image:
        for at, length, field in [(f, 512, 64) for f in footers] + [(header, 1024, 36)] * (header is not None):
            image.seek(at)
            raw = image.read(length).ljust(length, b'\0')      # a 511-byte footer ends with the file
            image.seek(at + field)
            image.write(struct.pack('>I', checksum(raw, field)))


def utf16(text):
    return text.encode('utf-16-le', 'surrogatepass')


class _Block:
    def __init__(self, sectors):
        self.data = {}                # sector in block -> 512 bytes
        self.present = set()          # sectors whose bit is set
        self.whole = None             # bytes of the whole block, instead of data
        self.sectors = sectors


class Vhd:
    """One image.  Every keyword is a choice a VHD writer has.

    kind            'fixed', 'dynamic' or 'differencing'
    footer_bytes    512, or 511 as Virtual PC wrote before 2004
    copy            False leaves the 512 bytes at offset 0 empty; footer=False leaves out the tail
    header_offset, table_offset    where the dynamic header and the BAT go
    extra_entries   BAT entries beyond those that the size needs
    block_at        {block: sector}: fixed places, anywhere in a sparse host file
    data_alignment  bytes to which a block's data (after its bitmap) is aligned; Windows and blktap use 4096
    copy_uuid       the copy at offset 0 belongs to another disk, with this UUID
    batmap          None, or blktap's version as (1, 1) or (1, 2); keyhash: its key hash cookie (1 = encrypted)
    batmap_full     blocks that the batmap calls complete, besides those whose bitmap says so
    parent          a Vhd: its uuid and name are recorded, and a W2ru locator unless locators are given
    locators        up to 8 of (code, text or bytes, options): code is 4 characters; options: space='bytes'|'sectors',
                    offset, length, data_space
    fixed_bytes     fixed only: length of the data area when it is not the virtual size
    """

    def __init__(self, path, size, kind='dynamic', block_size=2 << 20, uuid=None, timestamp=0x2D000000,
                 creator=b'win ', creator_version=0x000A0000, creator_os=b'Wi2k', original_size=None, chs=None,
                 features=2, saved_state=0, hidden=0, footer_bytes=512, copy=True, footer=True, header_offset=512,
                 table_offset=None, extra_entries=0, bat_pad=0xFF, shuffle=None, block_at=None, data_alignment=512,
                 batmap=None, keyhash=0, batmap_full=(), copy_uuid=None, parent=None, parent_uuid=None, parent_name=None, parent_timestamp=0,
                 locators=None, fixed_bytes=None, type_code=None):
        self.path, self.size, self.kind, self.block_size = path, size, kind, block_size
        name = os.path.basename(path)
        self.uuid = uuid or hashlib.sha256(name.encode()).digest()[:16]
        self.timestamp, self.creator, self.creator_version = timestamp, creator, creator_version
        self.creator_os, self.original_size, self.chs = creator_os, original_size, chs
        self.features, self.saved_state, self.hidden = features, saved_state, hidden
        self.footer_bytes, self.copy, self.footer = footer_bytes, copy, footer
        self.header_offset, self.table_offset = header_offset, table_offset
        self.extra_entries, self.bat_pad, self.shuffle = extra_entries, bat_pad, shuffle
        self.block_at, self.data_alignment = dict(block_at or {}), data_alignment
        self.batmap, self.keyhash, self.batmap_full = batmap, keyhash, set(batmap_full)
        self.copy_uuid = copy_uuid
        self.parent_uuid, self.parent_name, self.parent_timestamp = parent_uuid, parent_name, parent_timestamp
        self.locators = list(locators) if locators is not None else []
        self.fixed_bytes, self.type_code = fixed_bytes, type_code
        if parent is not None:
            self._adopt(parent, locators is None)
        self.block_sectors = block_size // SECTOR
        self.bitmap_bytes = align((self.block_sectors + 7) // 8, SECTOR)
        self.blocks = {}
        self.fixed = {}
        self.offsets = {}

    def _adopt(self, parent, add_locator):
        name = os.path.basename(parent.path)
        self.parent_uuid = self.parent_uuid or parent.uuid
        self.parent_name = name if self.parent_name is None else self.parent_name
        self.parent_timestamp = self.parent_timestamp or parent.timestamp
        if add_locator:
            self.locators = [('W2ru', '.\\' + name, {})]

    @property
    def entries(self):
        return align(self.size, self.block_size) // self.block_size + self.extra_entries

    # What the disk holds.

    def _block(self, index):
        return self.blocks.setdefault(index, _Block(self.block_sectors))

    def set_sectors(self, lba, data):
        """Whole sectors; their bitmap bits are set, and no others."""
        data = bytes(data) + bytes(-len(data) % SECTOR)
        for number in range(len(data) // SECTOR):
            piece = data[number * SECTOR:(number + 1) * SECTOR]
            sector = lba + number
            if self.kind == 'fixed':
                self.fixed[sector] = piece
                continue
            block = self._block(sector // self.block_sectors)
            block.data[sector % self.block_sectors] = piece
            block.present.add(sector % self.block_sectors)

    def set_block(self, index, data, bitmap=None):
        """A whole block.  data: int, bytes, or None (allocated, a hole in the host file).  bitmap: None sets every bit;
        else inclusive pairs of sectors, or the literal bytes of the bitmap."""
        block = self._block(index)
        block.whole = (data,)
        if bitmap is None:
            block.present = set(range(self.block_sectors))
        elif isinstance(bitmap, (bytes, bytearray)):
            block.present = {s for s in range(len(bitmap) * 8) if bitmap[s // 8] >> (7 - s % 8) & 1}
        else:
            block.present = {s for first, last in bitmap for s in range(first, last + 1)}

    # Structures.

    def _footer(self, uuid=None):
        dynamic = self.kind != 'fixed'
        chs = self.chs or geometry(self.size)
        code = TYPES[self.kind] if self.type_code is None else self.type_code
        original = self.size if self.original_size is None else self.original_size
        raw = bytearray(512)
        struct.pack_into('>8sIIQI4sI4sQQHBBI4s16sBB', raw, 0, b'conectix', self.features, 0x00010000,
                         self.header_offset if dynamic else (1 << 64) - 1, self.timestamp, self.creator,
                         self.creator_version, self.creator_os, original, self.size, chs[0], chs[1], chs[2], code,
                         b'', uuid or self.uuid, self.saved_state, self.hidden)
        struct.pack_into('>I', raw, 64, checksum(raw, 64))
        return bytes(raw)

    def _locator_bytes(self, locator):
        code, text, options = (tuple(locator) + ({},))[:3]
        if isinstance(text, bytes):
            return text
        return utf16(text) if code in ('W2ru', 'W2ku') else text.encode()

    def _header(self):
        raw = bytearray(1024)
        struct.pack_into('>8sQQIIII16sI', raw, 0, b'cxsparse', (1 << 64) - 1, self.table_offset, 0x00010000,
                         self.entries, self.block_size, 0, self.parent_uuid or bytes(16), self.parent_timestamp)
        name = (self.parent_name or '').encode('utf-16-be', 'surrogatepass')[:512]
        raw[64:64 + len(name)] = name
        for number, locator in enumerate(self.locators):
            code, _, options = (tuple(locator) + ({},))[:3]
            data = self._locator_bytes(locator)
            space = align(len(data), SECTOR)
            space = options.get('data_space', space // SECTOR if options.get('space') == 'sectors' else space)
            struct.pack_into('>4sIIIQ', raw, 576 + number * 24, code.encode('latin-1'), space,
                             options.get('length', len(data)), 0,
                             options.get('offset', self.locator_hosts[number]))
        struct.pack_into('>I', raw, 36, checksum(raw, 36))
        return bytes(raw)

    def _batmap_bits(self):
        bits = bytearray(align((self.entries + 7) // 8, SECTOR))
        for index, block in self.blocks.items():
            if len(block.present) >= self.block_sectors or index in self.batmap_full:
                bits[index // 8] |= 0x80 >> index % 8
        return bytes(bits)

    def _layout(self):
        at = max(SECTOR, self.header_offset + 1024) if self.header_offset < 1 << 20 else SECTOR
        if self.table_offset is None:
            self.table_offset = at
        self.bat_bytes = align(self.entries * 4, SECTOR)
        at = max(at, self.table_offset + self.bat_bytes)
        self.batmap_host = None
        if self.batmap:
            self.batmap_host = self.table_offset + self.bat_bytes
            at = self.batmap_host + SECTOR + len(self._batmap_bits())
        self.locator_hosts = []
        for locator in self.locators:
            self.locator_hosts.append(at)
            at += align(max(1, len(self._locator_bytes(locator))), SECTOR)
        self.block_hosts = {}
        order = sorted(self.blocks)
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(order)
        for index in order:
            if index in self.block_at:
                self.block_hosts[index] = self.block_at[index] * SECTOR
                continue
            at = align(at + self.bitmap_bytes, self.data_alignment) - self.bitmap_bytes
            self.block_hosts[index] = at
            at += self.bitmap_bytes + self.block_size
        ends = [h + self.bitmap_bytes + self.block_size for h in self.block_hosts.values()]
        if self.header_offset >= 1 << 20:
            ends.append(self.header_offset + 1024)
        self.footer_host = max([align(at, SECTOR)] + ends)

    # Writing.

    def write(self):
        with open(self.path, 'wb') as out:
            if self.kind == 'fixed':
                self._write_fixed(out)
            else:
                self._write_dynamic(out)
            if self.footer:
                out.seek(self.footer_host)
                out.write(self._footer()[:self.footer_bytes])
            else:
                out.truncate(self.footer_host)
        self._publish()
        return self

    def _write_fixed(self, out):
        self.footer_host = self.size if self.fixed_bytes is None else self.fixed_bytes
        for sector, data in self.fixed.items():
            out.seek(sector * SECTOR)
            out.write(data)
        out.truncate(self.footer_host)

    def _write_dynamic(self, out):
        self._layout()
        if self.copy:
            out.write(self._footer(self.copy_uuid))
        out.seek(self.header_offset)
        out.write(self._header())
        bat = [ABSENT] * self.entries
        for index, host in self.block_hosts.items():
            bat[index] = host // SECTOR
        out.seek(self.table_offset)
        out.write(struct.pack('>%dI' % len(bat), *bat).ljust(self.bat_bytes, bytes([self.bat_pad])))
        if self.batmap:
            self._write_batmap(out)
        for host, locator in zip(self.locator_hosts, self.locators):
            out.seek(host)
            out.write(self._locator_bytes(locator))
        for index, host in self.block_hosts.items():
            self._write_block(out, host, self.blocks[index])

    def _write_batmap(self, out):
        bits = self._batmap_bits()
        signed = self.batmap == (1, 1)                  # blktap 1.1 summed signed characters
        total = sum(b - 256 if signed and b > 127 else b for b in bits)
        raw = bytearray(SECTOR)
        struct.pack_into('>8sQIIIBB', raw, 0, b'tdbatmap', self.batmap_host + SECTOR, len(bits) // SECTOR,
                         self.batmap[0] << 16 | self.batmap[1], ~total & 0xFFFFFFFF, 0, self.keyhash)
        out.seek(self.batmap_host)
        out.write(raw + bits)

    def _write_block(self, out, host, block):
        bitmap = bytearray(self.bitmap_bytes)
        for sector in block.present:
            bitmap[sector // 8] |= 0x80 >> sector % 8
        out.seek(host)
        out.write(bitmap)
        out.truncate(max(os.fstat(out.fileno()).st_size, host + self.bitmap_bytes + self.block_size))
        if block.whole is not None and block.whole[0] is not None:
            out.seek(host + self.bitmap_bytes)
            out.write(fill(block.whole[0], self.block_size))
        for sector, data in block.data.items():
            out.seek(host + self.bitmap_bytes + sector * SECTOR)
            out.write(data)

    # Where things are.

    def _publish(self):
        self.offsets = {'footer': self.footer_host, 'end': self.footer_host + self.footer_bytes * bool(self.footer)}
        if self.kind == 'fixed':
            return
        self.offsets.update({
            'copy': 0, 'header': self.header_offset, 'bat': self.table_offset, 'batmap': self.batmap_host,
            'block': dict(self.block_hosts),
            'data': {i: h + self.bitmap_bytes for i, h in self.block_hosts.items()},
            'locator': {i: self.header_offset + 576 + 24 * i for i in range(8)},
            'locator_data': dict(enumerate(self.locator_hosts))})

    def where(self, name):
        """The host offset of a structure: 'footer', 'copy', 'header', 'bat', 'bat[3]', 'block[3]' (its bitmap), 'data[3]',
        'batmap', 'locator[0]' (the entry), 'locator_data[0]', 'end'."""
        return lookup(self.offsets, name, {'bat': 4})

    def fix_checksums(self):
        footers = [self.footer_host] * bool(self.footer) + [0] * (self.kind != 'fixed' and self.copy)
        fix_checksums(self.path, footers, None if self.kind == 'fixed' else self.header_offset)

    # What the disk must read as.

    def virtual_bytes(self, below=b''):
        """The whole disk as a reader must show it, for small images.  below: the parent disk's bytes."""
        out = bytearray(self.size + self.block_size)
        if self.kind == 'differencing':
            out[:min(len(below), self.size)] = below[:self.size]
        for sector, data in self.fixed.items():
            out[sector * SECTOR:(sector + 1) * SECTOR] = data
        for index, block in self.blocks.items():
            whole = None
            if block.whole is not None:
                whole = fill(block.whole[0], self.block_size)
            batmap = self.batmap and index in self.batmap_full
            for sector in range(self.block_sectors) if batmap else block.present:
                if sector >= self.block_sectors:
                    continue
                data = block.data.get(sector)
                if data is None:
                    data = whole[sector * SECTOR:(sector + 1) * SECTOR] if whole else bytes(SECTOR)
                at = index * self.block_size + sector * SECTOR
                out[at:at + SECTOR] = data
        return bytes(out[:self.size])
