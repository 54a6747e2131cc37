#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QCOW2 writer for tests.

qemu-img makes only the images that QEMU likes to make.  A reader meets more than that: subclusters in every state,
several zstd frames in one cluster, compressed clusters that cross host clusters and end with the file, header fields of
unusual length, snapshots of another size.  This writer makes all of them, remembers where each structure went so that
a test can then damage it by name, and knows what the virtual disk must read as.

Regular images are written with correct reference counts: `qemu-img check` must find nothing.

    q = Qcow2('x.qcow2', 1 << 20, cluster_bits=16)
    q.set(0, 'data', 0x41)                # one cluster of 'A'
    q.set(3, 'compressed', b'hello')      # the rest of the cluster is zero
    q.write()
    q.where('l2[0]'), q.where('l2e[3]'), q.where('data[0]')
"""
import functools
import os
import random
import re
import struct
import subprocess
import zlib

COPIED = 1 << 63
COMPRESSED = 1 << 62
INCOMPAT_DIRTY, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE, INCOMPAT_COMPRESSION, INCOMPAT_EXTL2 = 1, 2, 4, 8, 16
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_NAMES = 0x6803F857
EXT_DATA_FILE = 0x44415441
KINDS = ('data', 'zero', 'zero_alloc', 'compressed', 'stream', 'unallocated')

# The table QEMU itself writes, so that "unknown bit" messages can be compared with a named neighbour.
DEFAULT_FEATURES = (
    (0, 0, 'dirty bit'), (0, 1, 'corrupt bit'), (0, 2, 'external data file'), (0, 3, 'compression type'),
    (0, 4, 'extended L2 entries'), (1, 0, 'lazy refcounts'), (2, 0, 'bitmaps'), (2, 1, 'raw external data'))


def align(value, unit):
    return (value + unit - 1) // unit * unit


def fill(data, length):
    """The bytes of one unit: an int repeats, a short string is padded with zeros, None means a hole of the host file."""
    if data is None:
        return None
    if isinstance(data, int):
        return bytes([data]) * length
    if len(data) > length:
        raise ValueError('%d bytes do not fit in %d' % (len(data), length))
    return bytes(data) + bytes(length - len(data))


@functools.lru_cache(maxsize=64)
def deflate(data, window=-12):
    """Raw deflate; QEMU writes windows of 2^12 bytes, others up to 2^15."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, window)
    return encoder.compress(data) + encoder.flush()


@functools.lru_cache(maxsize=64)
def zstd(data, frames=1):
    """One or several zstd frames, made by the zstd program: Python 3.11 has no such module."""
    step = max(1, -(-len(data) // frames))
    out = b''
    for start in range(0, max(1, len(data)), step):
        part = data[start:start + step]
        done = subprocess.run(['zstd', '-q', '-c', '-3', '--single-thread', '--stream-size=%d' % len(part)],
                              input=part, stdout=subprocess.PIPE, check=True)
        out += done.stdout
    return out


class _Entry:
    """What one guest cluster holds."""
    def __init__(self, kind, data=None):
        self.kind, self.data = kind, data
        self.subs = None          # extended L2: {sub: (kind, data)}
        self.shared = False       # a snapshot entry that points at the active layer's host cluster
        self.host = None


class _Table:
    """An L1 table and what hangs below it: the active disk or one snapshot."""
    def __init__(self, size):
        self.size, self.entries, self.l2_host, self.l1_host = size, {}, {}, None
        self.extra_l1 = 0


class _Snapshot(_Table):
    def __init__(self, ident, name, size, **kw):
        super().__init__(size)
        self.ident, self.name, self.options = ident, name, kw
        self.entry_offset = None


class Qcow2:
    """One image.  Every keyword is a choice a QCOW2 writer has; the defaults are those of qemu-img.

    header_length   v3 only; 104, 112 (default) or more
    compression     'zlib' or 'zstd'; zstd_frames and zlib_window vary the streams
    data_file       the name recorded in the image; the bytes go to that file next to the image, or to data_file_path
    features        rows (type, bit, name) of the feature name table; None leaves the table out
    unknown_exts    list of (type, bytes): header extensions that no reader knows
    ext_order       names from: backing_format, data_file, features, ext0, ext1...
    l1_extra        entries beyond those that the size needs
    shuffle         a seed: host clusters come in random order
    gap             bytes skipped in the host file before the last group (data), to get high host offsets
    incompatible, compatible, autoclear   further bits to set
    v2_residue      a version 2 header followed by the version 3 fields, as some real images have
    compressed_first   compressed clusters come before the plain ones instead of at the end of the file
    """

    def __init__(self, path, size, cluster_bits=16, version=3, compression='zlib', extended_l2=False,
                 data_file=None, data_file_raw=False, data_file_path=None, backing=None, backing_format=None,
                 backing_offset=None, features=DEFAULT_FEATURES, unknown_exts=(), ext_order=None, l1_extra=0,
                 shuffle=None, gap=0, dirty=False, corrupt=False, incompatible=0, compatible=0, autoclear=0,
                 header_length=None, refcount_order=4, v2_residue=False, zstd_frames=1, zlib_window=-12,
                 compressed_first=False, pad_end=False, crypt_method=0):
        self.path, self.cluster_bits, self.version = path, cluster_bits, version
        self.cluster_size = 1 << cluster_bits
        self.compression, self.extended_l2 = compression, extended_l2
        self.data_file, self.data_file_raw = data_file, data_file_raw
        self.data_file_path = data_file_path
        if data_file is not None and data_file_path is None:
            self.data_file_path = os.path.join(os.path.dirname(path), data_file)
        self.backing, self.backing_format, self.backing_offset = backing, backing_format, backing_offset
        self.features = features if version >= 3 else None
        self.unknown_exts, self.ext_order = list(unknown_exts), ext_order
        self.shuffle, self.gap = shuffle, gap
        self.refcount_order = 4 if version < 3 else refcount_order
        self.v2_residue, self.zstd_frames, self.zlib_window = v2_residue, zstd_frames, zlib_window
        self.compressed_first, self.pad_end, self.crypt_method = compressed_first, pad_end, crypt_method
        self.header_length = 72 if version < 3 else header_length or 112
        self.incompatible, self.compatible, self.autoclear = incompatible, compatible, autoclear
        self.incompatible |= INCOMPAT_DIRTY * bool(dirty) | INCOMPAT_CORRUPT * bool(corrupt)
        self.incompatible |= INCOMPAT_DATA_FILE * (data_file is not None)
        self.incompatible |= INCOMPAT_COMPRESSION * (compression == 'zstd') | INCOMPAT_EXTL2 * bool(extended_l2)
        self.autoclear |= 2 * bool(data_file_raw)
        self.entry_bytes = 16 if extended_l2 else 8
        self.l2_entries = self.cluster_size // self.entry_bytes
        self.active = _Table(size)
        self.active.extra_l1 = l1_extra
        self.snapshots = []
        self.stale = {}
        self.refcounts = {}
        self.ext_offsets = {}
        self.backing_name_offset = None
        self.offsets = {}

    @property
    def size(self):
        return self.active.size

    @property
    def clusters(self):
        return align(self.size, self.cluster_size) // self.cluster_size

    # What the disk holds.

    def set(self, cluster, kind, data=None, table=None):
        if kind not in KINDS:
            raise ValueError('unknown kind %r' % kind)
        (table or self.active).entries[cluster] = _Entry(kind, data)

    def set_sub(self, cluster, sub, kind, data=None, table=None):
        """One subcluster (of 32): 'data', 'zero' or 'unallocated'.  Needs extended_l2."""
        entries = (table or self.active).entries
        entry = entries.setdefault(cluster, _Entry('unallocated'))
        if entry.subs is None:
            entry.subs = {}
        entry.subs[sub] = (kind, data)

    def set_stale(self, cluster, data):
        """Bytes that lie in the data file where the image says there are none."""
        self.stale[cluster] = data

    def add_snapshot(self, ident, name, disk_size=None, contents=(), share=(), **options):
        """contents: {cluster: (kind, data)}; share: clusters that use the active disk's host cluster.
        Options: extra_size (16), l1_extra (0), vm_state_size, date."""
        snap = _Snapshot(ident, name, self.size if disk_size is None else disk_size, **options)
        snap.extra_l1 = options.get('l1_extra', 0)
        for cluster, (kind, data) in dict(contents).items():
            self.set(cluster, kind, data, snap)
        for cluster in share:
            snap.entries[cluster] = entry = _Entry(self.active.entries[cluster].kind)
            entry.shared = True
        self.snapshots.append(snap)
        return snap

    def compress(self, data):
        if self.compression == 'zstd':
            return zstd(data, self.zstd_frames)
        return deflate(data, self.zlib_window)

    # Layout.

    def _l1_entries(self, table):
        needed = align(table.size, self.cluster_size * self.l2_entries) // (self.cluster_size * self.l2_entries)
        used = max((c // self.l2_entries + 1 for c in table.entries), default=0)
        return max(needed, used) + table.extra_l1

    def _tables(self):
        return [self.active] + self.snapshots

    def _bitmaps(self, entry):
        """Extended L2: (alloc, zero) bitmaps of an entry."""
        alloc, zero = {'data': (0xFFFFFFFF, 0), 'zero': (0, 0xFFFFFFFF), 'zero_alloc': (0, 0xFFFFFFFF)}.get(
            entry.kind, (0, 0))
        for sub, (kind, _) in (entry.subs or {}).items():
            alloc, zero = alloc & ~(1 << sub), zero & ~(1 << sub)
            alloc |= (kind == 'data') << sub
            zero |= (kind == 'zero') << sub
        return alloc, zero

    def _needs_host(self, entry):
        if entry.kind in ('data', 'zero_alloc'):
            return True
        return bool(entry.subs) and bool(self._bitmaps(entry)[0])

    def _host_bytes(self, entry):
        """Pieces (offset in cluster, bytes) to write into an entry's host cluster."""
        if entry.kind == 'data' and entry.data is not None:
            yield 0, fill(entry.data, self.cluster_size)
        unit = self.cluster_size // 32
        for sub, (kind, data) in sorted((entry.subs or {}).items()):
            if kind == 'data' and data is not None:
                yield sub * unit, fill(data, unit)

    def _layout(self):
        """Give every structure its host offset."""
        size = self.cluster_size
        head, body, streams = [], [], []      # (clusters, callback(host))
        for table in self._tables():
            self._queue_table(table, head, body, streams)
        snap_bytes = sum(self._snapshot_bytes(s) for s in self.snapshots)
        self.snap_table_bytes = snap_bytes
        if snap_bytes:
            head.append((align(snap_bytes, size) // size, self._place_snapshots))
        groups = head + body
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(groups)
        stream_bytes = sum(len(s) for _, s in streams)
        stream_clusters = align(stream_bytes, size) // size
        gap = align(self.gap, size) // size
        per_block = size * 8 >> self.refcount_order
        plain = sum(n for n, _ in groups)
        blocks, table_clusters = 1, 1
        while True:                            # the reference counts count their own clusters
            first = 1 + table_clusters + blocks
            last = first + plain + gap + stream_clusters
            used = {c // per_block for c in range(first + plain)}
            if gap:
                used = {c // per_block for c in range(first + (len(head) and sum(n for n, _ in head)))}
                used |= {c // per_block for c in range(first + gap, last)}
            else:
                used |= {c // per_block for c in range(first + plain, last)}
            want = (len(used), max(1, align((last // per_block + 1) * 8, size) // size))
            if want == (blocks, table_clusters):
                break
            blocks, table_clusters = max(blocks, want[0]), max(table_clusters, want[1])
            if want[0] < blocks or want[1] < table_clusters:
                break                          # one spare block is harmless
        self.reftable_host, self.reftable_clusters = size, table_clusters
        self.refblock_hosts = [size * (1 + table_clusters + i) for i in range(blocks)]
        at = (1 + table_clusters + blocks) * size
        if self.compressed_first:
            at = self._place_streams(streams, at)
            at = align(at, size)
        skip_before = len(head) if self.shuffle is None else 0
        for number, (count, place) in enumerate(groups):
            if gap and number == skip_before:
                at += gap * size
            place(at)
            at += count * size
        if gap and skip_before == len(groups):
            at += gap * size
        if not self.compressed_first:
            at = self._place_streams(streams, at)
        self.end = align(at, size) if self.pad_end else at

    def _queue_table(self, table, head, body, streams):
        entries = self._l1_entries(table)
        table.l1_entries = entries

        def place_l1(host):
            table.l1_host = host
        if entries:
            head.append((align(entries * 8, self.cluster_size) // self.cluster_size, place_l1))
        for index in sorted({c // self.l2_entries for c in table.entries}):
            head.append((1, functools.partial(table.l2_host.__setitem__, index)))
        for cluster, entry in sorted(table.entries.items()):
            if entry.shared:
                continue
            if self._needs_host(entry):
                if self.data_file is not None:
                    entry.host = cluster * self.cluster_size
                else:
                    body.append((1, functools.partial(setattr, entry, 'host')))
            elif entry.kind == 'compressed':
                streams.append((entry, self.compress(fill(entry.data, self.cluster_size))))
            elif entry.kind == 'stream':
                streams.append((entry, bytes(entry.data)))

    def _place_streams(self, streams, at):
        for entry, stream in streams:
            entry.host, entry.stream = at, stream
            at += len(stream)
        return at

    def _snapshot_bytes(self, snap):
        extra = snap.options.get('extra_size', 16)
        return align(40 + extra + len(snap.ident.encode()) + len(snap.name.encode()), 8)

    def _place_snapshots(self, host):
        self.snap_host = host
        for snap in self.snapshots:
            snap.entry_offset = host
            host += self._snapshot_bytes(snap)

    # Reference counts.

    def _count(self, host, length):
        for cluster in range(host // self.cluster_size, (host + max(1, length) - 1) // self.cluster_size + 1):
            self.refcounts[cluster] = self.refcounts.get(cluster, 0) + 1

    def _stream_sectors(self, entry):
        return (entry.host + len(entry.stream) - 1) // 512 - entry.host // 512

    def _count_all(self):
        size = self.cluster_size
        self._count(0, size)
        self._count(self.reftable_host, self.reftable_clusters * size)
        for host in self.refblock_hosts:
            self._count(host, size)
        if self.snapshots:
            self._count(self.snap_host, self.snap_table_bytes)
        for table in self._tables():
            if table.l1_entries:
                self._count(table.l1_host, table.l1_entries * 8)
            for host in table.l2_host.values():
                self._count(host, size)
            for cluster, entry in table.entries.items():
                real = self.active.entries[cluster] if entry.shared else entry
                if entry.shared:
                    entry.host, entry.subs, entry.data = real.host, real.subs, real.data
                    entry.stream = getattr(real, 'stream', None)
                if entry.kind in ('compressed', 'stream'):
                    self._count(entry.host, (self._stream_sectors(entry) + 1) * 512 - entry.host % 512)
                elif entry.host is not None and self.data_file is None:
                    self._count(entry.host, size)

    # Writing.

    def write(self):
        self._layout()
        self._count_all()
        with open(self.path, 'wb') as out:
            out.truncate(self.end)
            out.write(self._header())
            self._write_refcounts(out)
            data_out = out
            if self.data_file is not None and self.data_file_path is not None:
                data_out = open(self.data_file_path, 'wb')
                data_out.truncate(self.size)
                for cluster, data in self.stale.items():
                    data_out.seek(cluster * self.cluster_size)
                    data_out.write(fill(data, self.cluster_size))
            for table in self._tables():
                self._write_table(out, data_out, table)
            if data_out is not out:
                data_out.truncate(max(self.size, os.fstat(data_out.fileno()).st_size))
                data_out.close()
            self._write_snapshots(out)
        self._publish()
        return self

    def _flag(self, host):
        return COPIED if self.refcounts.get(host // self.cluster_size) == 1 else 0

    def _l2_entry(self, entry, active):
        """(descriptor, bitmap)"""
        if entry.kind in ('compressed', 'stream'):
            shift = 62 - (self.cluster_bits - 8)
            return COMPRESSED | self._stream_sectors(entry) << shift | entry.host, 0
        word = 0
        if entry.host is not None:
            word = entry.host
            if active and (self.data_file is not None or self._flag(entry.host)):
                word |= COPIED
        if self.extended_l2:
            alloc, zero = self._bitmaps(entry)
            return word, zero << 32 | alloc
        return word | (entry.kind in ('zero', 'zero_alloc')), 0

    def _write_table(self, out, data_out, table):
        active = table is self.active
        for index, host in table.l2_host.items():
            out.seek(table.l1_host + index * 8)
            out.write(struct.pack('>Q', host | (self._flag(host) if active else 0)))
        for cluster, entry in table.entries.items():
            word, bitmap = self._l2_entry(entry, active)
            out.seek(self._l2e_offset(table, cluster))
            out.write(struct.pack('>QQ', word, bitmap) if self.extended_l2 else struct.pack('>Q', word))
            if entry.shared or entry.host is None:
                continue
            if entry.kind in ('compressed', 'stream'):
                out.seek(entry.host)
                out.write(entry.stream)
                continue
            for offset, piece in self._host_bytes(entry):
                target = out if self.data_file is None else data_out
                if target is not None:
                    target.seek(entry.host + offset)
                    target.write(piece)

    def _l2e_offset(self, table, cluster):
        return table.l2_host[cluster // self.l2_entries] + cluster % self.l2_entries * self.entry_bytes

    def _write_refcounts(self, out):
        bits = 1 << self.refcount_order
        per_block = self.cluster_size * 8 // bits
        needed = sorted({c // per_block for c in self.refcounts})
        for number, host in zip(needed, self.refblock_hosts):
            out.seek(self.reftable_host + number * 8)
            out.write(struct.pack('>Q', host))
            block = bytearray(self.cluster_size)
            for cluster, count in self.refcounts.items():
                if cluster // per_block != number:
                    continue
                slot = cluster % per_block
                if bits >= 8:
                    block[slot * bits // 8:(slot + 1) * bits // 8] = count.to_bytes(bits // 8, 'big')
                else:
                    block[slot * bits // 8] |= count << slot * bits % 8
            out.seek(host)
            out.write(block.rstrip(b'\0'))       # the rest is a hole, which keeps 2 MiB clusters cheap

    def _extension(self, name):
        if name == 'backing_format' and self.backing_format is not None:
            return EXT_BACKING_FORMAT, self.backing_format.encode()
        if name == 'data_file' and self.data_file is not None and self.data_file != '':
            return EXT_DATA_FILE, os.fsencode(self.data_file)
        if name == 'features' and self.features is not None:
            return EXT_FEATURE_NAMES, b''.join(
                struct.pack('>BB46s', kind, bit, label.encode()) for kind, bit, label in self.features)
        if name.startswith('ext'):
            return self.unknown_exts[int(name[3:])]
        return None

    def _header(self):
        out = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', self.version, 0, 0, self.cluster_bits, self.size,
                          self.crypt_method, self.active.l1_entries, self.active.l1_host or 0, self.reftable_host,
                          self.reftable_clusters, len(self.snapshots), self.snap_host if self.snapshots else 0)
        if self.version >= 3:
            out += struct.pack('>QQQII', self.incompatible, self.compatible, self.autoclear, self.refcount_order,
                               self.header_length)
            if self.header_length > 104:
                out += bytes([self.compression == 'zstd'])
            out += bytes(self.header_length - len(out))
        elif self.v2_residue:
            out += struct.pack('>QQQII', 0, 0, 0, 4, 104) + bytes(8)
        names = self.ext_order
        if names is None:
            names = ['backing_format', 'data_file', 'features']
            names += ['ext%d' % i for i in range(len(self.unknown_exts))]
        for name in names if not self.v2_residue else ():
            row = self._extension(name)
            if row is not None:
                self.ext_offsets[name] = len(out)
                out += struct.pack('>II', row[0], len(row[1])) + row[1] + bytes(-len(row[1]) % 8)
        self.ext_offsets['end'] = len(out)
        out += bytes(8)
        return self._with_backing(out)

    def _with_backing(self, out):
        if self.backing is not None:
            name = os.fsencode(self.backing) if isinstance(self.backing, str) else self.backing
            at = self.backing_offset or len(out)
            out = out[:8] + struct.pack('>QI', at, len(name)) + out[20:]
            out = out[:at] + bytes(max(0, at - len(out))) + name
            self.backing_name_offset = at
        if len(out) > self.cluster_size:
            raise ValueError('the header needs %d bytes, more than one cluster' % len(out))
        return out

    def _write_snapshots(self, out):
        for snap in self.snapshots:
            ident, name, opt = snap.ident.encode(), snap.name.encode(), snap.options
            extra_size = opt.get('extra_size', 16)
            extra = struct.pack('>QQQ', opt.get('vm_state_size', 0), snap.size, (1 << 64) - 1)
            extra = (extra + bytes(max(0, extra_size - len(extra))))[:extra_size]
            out.seek(snap.entry_offset)
            out.write(struct.pack('>QIHHIIQII', snap.l1_host or 0, snap.l1_entries, len(ident), len(name),
                                  opt.get('date', 1700000000), 0, 0, opt.get('vm_state_size', 0) & 0xFFFFFFFF,
                                  extra_size) + extra + ident + name)

    # Where things are.

    def _publish(self):
        active = self.active
        self.offsets = {
            'header': 0, 'l1': active.l1_host, 'l2': dict(active.l2_host),
            'l2e': {c: self._l2e_offset(active, c) for c in active.entries},
            'data': {c: e.host for c, e in active.entries.items() if self._needs_host(e)},
            'compressed': {c: e.host for c, e in active.entries.items() if e.kind in ('compressed', 'stream')},
            'compressed_bytes': {c: len(e.stream) for c, e in active.entries.items() if hasattr(e, 'stream')},
            'reftable': self.reftable_host, 'refblock': dict(enumerate(self.refblock_hosts)),
            'snapshots': self.snap_host if self.snapshots else None,
            'snap': {i: s.entry_offset for i, s in enumerate(self.snapshots)},
            'snap_l1': {i: s.l1_host for i, s in enumerate(self.snapshots)},
            'snap_l2': {i: dict(s.l2_host) for i, s in enumerate(self.snapshots)},
            'ext': dict(self.ext_offsets), 'backing_name': self.backing_name_offset,
            'end': self.end, 'cluster_size': self.cluster_size}

    def where(self, name):
        """The host offset of a structure: 'l1', 'l1[3]' (an entry), 'l2[0]' (the table below L1 entry 0), 'l2e[7]'
        (the entry of guest cluster 7), 'data[7]', 'compressed[7]', 'snap[0]', 'snap_l2[0][1]', 'ext.data_file', 'end'."""
        return lookup(self.offsets, name, {'l1': 8, 'snap_l1': None})

    # What the disk must read as.

    def virtual_bytes(self, below=b'', snapshot=None):
        """The whole disk as a reader must show it, for small images.  below: the backing disk's bytes."""
        table = self.active if snapshot is None else self.snapshots[snapshot]
        if self.data_file_raw:
            below = b''
        size = align(table.size, self.cluster_size)
        out = bytearray(below[:table.size].ljust(size, b'\0'))
        for cluster, entry in table.entries.items():
            at = cluster * self.cluster_size
            if at >= table.size:
                continue
            real = self.active.entries[cluster] if entry.shared else entry
            if real.kind == 'stream':
                raise ValueError('the contents of a literal stream are not known')
            if real.kind in ('data', 'compressed'):
                out[at:at + self.cluster_size] = fill(real.data, self.cluster_size) or bytes(self.cluster_size)
            elif real.kind in ('zero', 'zero_alloc'):
                out[at:at + self.cluster_size] = bytes(self.cluster_size)
            unit = self.cluster_size // 32
            for sub, (kind, data) in (real.subs or {}).items():
                first = at + sub * unit
                if kind == 'unallocated':
                    out[first:first + unit] = below[first:first + unit].ljust(unit, b'\0')
                else:
                    out[first:first + unit] = (fill(data, unit) if kind == 'data' else None) or bytes(unit)
        return bytes(out[:table.size])


def lookup(offsets, name, entry_bytes):
    """Resolve 'a[1][2]' or 'a.b' in a writer's table of offsets.  entry_bytes: tables whose index means an entry."""
    match = re.fullmatch(r'([a-z0-9_]+)((?:\[\d+\]|\.[a-z0-9_]+)*)', name)
    if not match or match.group(1) not in offsets:
        raise KeyError('no structure is called %r' % name)
    value = offsets[match.group(1)]
    for part in re.findall(r'\[\d+\]|\.[a-z0-9_]+', match.group(2)):
        key = part[1:] if part[0] == '.' else int(part[1:-1])
        if isinstance(value, int):
            step = entry_bytes.get(match.group(1))
            if step is None:
                raise KeyError('%r has no entries' % name)
            value += key * step
        else:
            value = value[key]
    if not isinstance(value, int):
        raise KeyError('%r is not one place' % name)
    return value
