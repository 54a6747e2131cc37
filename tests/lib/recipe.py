#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recipe language: small text files that describe image files, good and damaged, and what vdifs must do with them.

A malformed image kept as a binary says nothing to its reader and rots; a recipe says which byte is wrong and why.  One
statement a line, words as in the shell (quotes, `#` comments).  The first line is a comment: what is special here.

FILES.  Each begins a section; the lines below it belong to it.  NAME may hold directories; $DIR is the directory the
recipe is built in, $OUT another one outside of it.
    qcow2 [NAME] size=N [KEY=VALUE...]          keys are those of qcow2_writer.Qcow2; default name disk.qcow2
    vhd fixed|dynamic|differencing [NAME] size=N [KEY=VALUE...]    keys of vhd_writer.Vhd; default name disk.vhd;
                                                parent=NAME takes another section's uuid and name;
                                                uuid=HEX|NAME|zero
                                                locators=none keeps it from adding the usual parent locator
    raw NAME size=N                             any other file
    chain COUNT KEY=VALUE...                    that many QCOW2 overlays, layer1.qcow2 and so on, over the file above
CONTENTS.  VALUE: 0x41 (that byte again and again), text:WORD (padded with zeros), hex:414243, pattern (each 8 bytes
hold their own virtual offset), random, hole (allocated, but a hole of the host file).
    data|compressed A-B VALUE   zero|zero-alloc|unallocated A-B   stream A PART...     QCOW2 clusters
    (the parts of a literal compressed stream: hex:41, text:WORD, or BYTE*COUNT)
    sub CLUSTER A-B data VALUE | zero | unallocated                                    QCOW2 subclusters
    snapshot ID NAME [size=N] [share=A-B,C] [data=CLUSTER:VALUE] [extra_size=N] [l1_extra=N]
    extension TYPE VALUE        feature TYPE BIT NAME      stale A-B VALUE              QCOW2 header, data file
    block A-B VALUE [none|A-B,C-D]    sectors LBA COUNT VALUE    at BLOCK SECTOR       VHD; ranges: the bits that are set
    locator CODE TEXT [space=sectors] [offset=N] [length=N] [data_space=N]             VHD
    bytes OFFSET LENGTH VALUE                                                          raw
DAMAGE.  PLACE: a sum of numbers and of names that the writer knows, as l2[0]+8, l2e[5], bat[1], footer+60, end-1, block[0]/512.
    field NAME VALUE            qcow2: header field or snap[0].FIELD; vhd: footer. copy. footers. header. locator[0].
    poke PLACE[,PLACE] u8|be16|be32|be64|bytes VALUE...     set-bits / clear-bits PLACE TYPE VALUE
    repeat PLACE COUNT TYPE VALUE       truncate PLACE      append VALUE COUNT      fix-checksums
    move FROM TO LENGTH                 copies bytes inside the file
    append-from NAME OFFSET LENGTH      copies bytes of another file to the end of this one
THE FILE SYSTEM
    dir NAME   symlink NAME TARGET   hardlink NAME TARGET   fifo NAME   chown NAME UID   rename NAME NEW   use NAME
    lock NAME BYTE,BYTE...      shared OFD locks as QEMU takes them, held while the programs run
RUNS.  Without one, the last image of the recipe is opened without options.  Expectations belong to the run above them.
    run [NAME] [OPTION...]      map-only (no vdcat: the disk is too large for a copy)      no-mount (not in --mount mode)
    unlike-qemu (QEMU reads it differently, and is wrong)
    expect refused errno=NAME REGEXP...     exit 1 (vdcat: that errno), nothing on stdout, one line on stderr that names a
                                            file and matches every REGEXP
    expect size N | cluster_bits N | map JSON | json TEXT
    expect data A+N... | none   the exact data intervals
    expect eio A+N... | any     the bytes that cannot be read because of the metadata: vdimap says so too and exits 1
    expect decode-eio A+N...    the same, but only reading (decompressing) finds out
    expect bytes OFFSET LENGTH VALUE        expect sha256 HEX
    expect contents [NAME] [snapshot=I] [below=NAME]    all bytes as the writer of NAME meant them
    expect log REGEXP           text on stderr of both programs; without it (and without eio) stderr must be empty
    expect map-fails REGEXP     vdimap prints the map, a line that matches, and exits 1
"""
import errno
import fcntl
import os
import re
import shlex
import shutil
import struct
import tempfile
from random import Random

import qcow2_writer
import vhd_writer

SUFFIX = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40, 'P': 1 << 50, 'E': 1 << 60}
WIDTH = {'u8': '>B', 'be16': '>H', 'be32': '>I', 'be64': '>Q'}

QCOW2_FIELDS = {
    'magic': (0, 'be32'), 'version': (4, 'be32'), 'backing_offset': (8, 'be64'), 'backing_length': (16, 'be32'),
    'cluster_bits': (20, 'be32'), 'size': (24, 'be64'), 'crypt_method': (32, 'be32'), 'l1_size': (36, 'be32'),
    'l1_offset': (40, 'be64'), 'reftable_offset': (48, 'be64'), 'reftable_clusters': (56, 'be32'),
    'nb_snapshots': (60, 'be32'), 'snapshots_offset': (64, 'be64'), 'incompatible': (72, 'be64'),
    'compatible': (80, 'be64'), 'autoclear': (88, 'be64'), 'refcount_order': (96, 'be32'),
    'header_length': (100, 'be32'), 'compression_type': (104, 'u8')}
SNAP_FIELDS = {
    'l1_offset': (0, 'be64'), 'l1_size': (8, 'be32'), 'id_length': (12, 'be16'), 'name_length': (14, 'be16'),
    'vm_state_size': (32, 'be32'), 'extra_size': (36, 'be32'), 'disk_size': (48, 'be64')}
FOOTER_FIELDS = {
    'cookie': (0, 'be64'), 'features': (8, 'be32'), 'version': (12, 'be32'), 'data_offset': (16, 'be64'),
    'creator': (28, 'be32'), 'original_size': (40, 'be64'), 'current_size': (48, 'be64'), 'cylinders': (56, 'be16'),
    'type': (60, 'be32'), 'checksum': (64, 'be32'), 'saved_state': (84, 'u8'), 'hidden': (85, 'u8')}
HEADER_FIELDS = {
    'cookie': (0, 'be64'), 'data_offset': (8, 'be64'), 'table_offset': (16, 'be64'), 'version': (24, 'be32'),
    'max_table_entries': (28, 'be32'), 'block_size': (32, 'be32'), 'checksum': (36, 'be32'),
    'parent_timestamp': (56, 'be32')}
LOCATOR_FIELDS = {'code': (0, 'be32'), 'space': (4, 'be32'), 'length': (8, 'be32'), 'offset': (16, 'be64')}

DAMAGE = {'field', 'poke', 'set-bits', 'clear-bits', 'repeat', 'truncate', 'append', 'append-from', 'move'}
TEXT_KEYS = {'compression', 'data_file', 'data_file_path', 'backing', 'backing_format', 'parent_name'}
BYTES_KEYS = {'creator', 'creator_os'}
FLAG_KEYS = {'extended_l2', 'data_file_raw', 'dirty', 'corrupt', 'v2_residue', 'compressed_first', 'pad_end', 'copy',
             'footer'}


class RecipeError(Exception):
    pass


def number(text):
    match = re.fullmatch(r'(-?(?:0x[0-9a-fA-F]+|\d+))([KMGTPE]?)', text)
    if not match:
        raise RecipeError('not a number: %r' % text)
    return int(match.group(1), 0) * SUFFIX[match.group(2)]


def span(text):
    """'3' or '3-7' as a range."""
    first, _, last = text.partition('-')
    return range(number(first), number(last or first) + 1)


def interval(text):
    """'64K+512' as (start, length)."""
    start, _, length = text.partition('+')
    return number(start), number(length)


def value(text, length, virt):
    """The bytes a VALUE stands for, `length` of them, at virtual offset `virt`; None for a hole."""
    if text == 'hole':
        return None
    if text == 'pattern':
        words = range(virt // 8, (virt + length) // 8 + 1)
        raw = struct.pack('>%dQ' % len(words), *(0xA5 << 56 | w * 8 for w in words))
        return raw[virt % 8:virt % 8 + length]
    if text == 'random':
        return Random(virt).randbytes(length)
    if text.startswith('text:'):
        return os.fsencode(text[5:])
    if text.startswith('hex:'):
        return bytes.fromhex(text[4:])
    return bytes([number(text)]) * length


class Raw:
    """A file that is no image."""
    def __init__(self, path, size):
        self.path, self.size, self.pieces, self.offsets = path, size, [], {'end': size}

    def write(self):
        with open(self.path, 'wb') as out:
            out.truncate(self.size)
            for offset, data in self.pieces:
                out.seek(offset)
                out.write(data)

    def where(self, name):
        return qcow2_writer.lookup(self.offsets, name, {})

    def virtual_bytes(self, below=b''):
        with open(self.path, 'rb') as image:
            return image.read()


class Run:
    """One use of the programs and what is expected of it."""
    def __init__(self, image, options):
        self.image, self.options, self.expect = image, options, []
        self.map_only = self.no_mount = self.unlike_qemu = False
        self.errno = None

    def wants(self, kind):
        return [words for k, words in self.expect if k == kind]


class Recipe:
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path).rsplit('.', 1)[0]
        self.files, self.written, self.current = {}, set(), None
        self.runs, self.locks, self.lock_fds = [], [], []
        self.needs_root = False
        with open(path, encoding='utf-8') as text:
            lines = text.read().splitlines()
        if not lines or not lines[0].startswith('# '):
            raise RecipeError('%s: the first line must be a comment that says what is special' % path)
        self.title = lines[0][2:]
        self.lines = [(n, shlex.split(line, comments=True)) for n, line in enumerate(lines, 1)]
        self.lines = [(n, words) for n, words in self.lines if words]
        self.needs_root = any(words[0] == 'chown' for _, words in self.lines)

    def is_damaged(self):
        return any(words[0] in DAMAGE for _, words in self.lines)

    # The life of a built recipe.

    def build(self):
        """Make the files in fresh directories; close() removes them."""
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix='vdifs-recipe-'))
        self.out = os.path.realpath(tempfile.mkdtemp(prefix='vdifs-outside-'))
        for line, words in self.lines:
            try:
                self._statement(words)
            except (RecipeError, KeyError, ValueError, IndexError, TypeError, OSError, struct.error) as error:
                raise RecipeError('%s:%d: %s' % (self.path, line, error)) from error
        self._flush()
        if not self.runs:
            raise RecipeError('%s: nothing is expected' % self.path)
        self._take_locks()
        return self

    def close(self):
        for fd in self.lock_fds:
            os.close(fd)
        self.lock_fds = []
        for path in (self.dir, self.out):
            shutil.rmtree(path, ignore_errors=True)

    def _expand(self, text):
        return text.replace('$DIR', self.dir).replace('$OUT', self.out)

    def place(self, name):
        """The path of a NAME."""
        return os.path.join(self.dir, self._expand(name))

    # Statements.

    def _statement(self, words):
        word = words[0]
        handler = getattr(self, '_do_' + word.replace('-', '_'), None)
        if handler is None:
            raise RecipeError('unknown statement %r' % word)
        handler(*words[1:])

    def _keys(self, words):
        """KEY=VALUE words as keyword arguments."""
        keys = {}
        for word in words:
            key, _, text = word.partition('=')
            if key in TEXT_KEYS:
                keys[key] = self._expand(text)
            elif key in BYTES_KEYS:
                keys[key] = text.encode('latin-1').decode('unicode_escape').encode('latin-1').ljust(4, b' ')
            elif key in FLAG_KEYS:
                keys[key] = text not in ('no', '0')
            elif key == 'features' and text == 'none':
                keys[key] = None
            elif key == 'locators' and text == 'none':
                keys[key] = []
            elif key == 'ext_order':
                keys[key] = text.split(',')
            elif key in ('batmap', 'chs'):
                keys[key] = tuple(int(part) for part in re.split(r'[./]', text))
            elif key == 'batmap_full':
                keys[key] = [number(part) for part in text.split(',')]
            elif key in ('uuid', 'parent_uuid', 'copy_uuid'):
                keys[key] = self._uuid(text)
            elif key == 'parent':
                keys[key] = self.files[text]
            else:
                keys[key] = number(text)
        return keys

    def _uuid(self, text):
        if text == 'zero':
            return bytes(16)
        return self.files[text].uuid if text in self.files else bytes.fromhex(text)

    def _section(self, name, make):
        self._flush()
        path = self.place(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.current = name
        self.files[name] = make(path)

    def _head(self, words, default):
        if words and '=' not in words[0]:
            return words[0], words[1:]
        return default, words

    def _do_qcow2(self, *words):
        name, words = self._head(words, 'disk.qcow2')
        keys = self._keys(words)
        self._section(name, lambda path: qcow2_writer.Qcow2(path, keys.pop('size'), **keys))

    def _do_vhd(self, kind, *words):
        name, words = self._head(words, 'disk.vhd')
        keys = self._keys(words)
        if kind not in ('fixed', 'dynamic', 'differencing'):
            raise RecipeError('unknown kind of VHD %r' % kind)
        self._section(name, lambda path: vhd_writer.Vhd(path, keys.pop('size'), kind, **keys))

    def _do_raw(self, name, *words):
        self._section(name, lambda path: Raw(path, self._keys(words)['size']))

    def _do_chain(self, count, *words):
        for layer in range(1, number(count) + 1):
            below = self.current
            kind = 'raw' if isinstance(self.files[below], Raw) else 'qcow2'
            self._do_qcow2('layer%d.qcow2' % layer, 'backing=' + below, 'backing_format=' + kind, *words)

    @property
    def file(self):
        if self.current is None:
            raise RecipeError('no file was begun')
        return self.files[self.current]

    @property
    def draft(self):
        """The current file, as long as contents can be added to it."""
        if self.current in self.written:
            raise RecipeError('contents must come before damage, runs and other files')
        return self.file

    def _flush(self):
        if self.current is not None and self.current not in self.written:
            self.written.add(self.current)
            self.file.write()

    # Contents.

    def _clusters(self, kind, where, text=None):
        size = self.draft.cluster_size
        for cluster in span(where):
            self.draft.set(cluster, kind, None if text is None else value(text, size, cluster * size))

    def _do_data(self, where, text):
        self._clusters('data', where, text)

    def _do_compressed(self, where, text):
        self._clusters('compressed', where, text)

    def _do_stream(self, cluster, *parts):
        stream = b''
        for part in parts:
            byte, star, count = part.partition('*')
            stream += bytes([number(byte)]) * number(count) if star else value(part, 0, 0)
        self.draft.set(number(cluster), 'stream', stream)

    def _do_zero(self, where):
        self._clusters('zero', where)

    def _do_zero_alloc(self, where, text=None):
        self._clusters('zero_alloc', where, text)

    def _do_unallocated(self, where):
        self._clusters('unallocated', where)

    def _do_sub(self, cluster, where, kind, text=None):
        unit = self.draft.cluster_size // 32
        for sub in span(where):
            virt = number(cluster) * self.draft.cluster_size + sub * unit
            self.draft.set_sub(number(cluster), sub, kind, None if text is None else value(text, unit, virt))

    def _do_stale(self, where, text):
        for cluster in span(where):
            self.draft.set_stale(cluster, value(text, self.draft.cluster_size, cluster * self.draft.cluster_size))

    def _do_snapshot(self, ident, name, *words):
        keys, contents, share = {}, {}, []
        for word in words:
            key, _, text = word.partition('=')
            if key == 'share':
                share += [c for part in text.split(',') for c in span(part)]
            elif key in ('data', 'compressed', 'zero'):
                where, _, what = text.partition(':')
                size = self.draft.cluster_size
                for cluster in span(where):
                    contents[cluster] = (key, value(what, size, cluster * size) if what else None)
            else:
                keys['disk_size' if key == 'size' else key] = number(text)
        self.draft.add_snapshot(ident, name, contents=contents, share=share, **keys)

    def _do_extension(self, kind, text):
        self.draft.unknown_exts.append((number(kind), value(text, 0, 0)))

    def _do_feature(self, kind, bit, name):
        self.draft.features = tuple(self.draft.features or ()) + ((number(kind), number(bit), name),)

    def _do_block(self, where, text, bits=None):
        size = self.draft.block_size
        pairs = None
        if bits is not None:
            pairs = [] if bits == 'none' else [(s[0], s[-1]) for s in map(span, bits.split(','))]
        for index in span(where):
            self.draft.set_block(index, value(text, size, index * size), pairs)

    def _do_sectors(self, lba, count, text):
        length = number(count) * 512
        self.draft.set_sectors(number(lba), value(text, length, number(lba) * 512).ljust(length, b'\0'))

    def _do_at(self, block, sector):
        self.draft.block_at[number(block)] = number(sector)

    def _do_locator(self, code, text, *words):
        keys = {}
        for word in words:
            key, _, what = word.partition('=')
            keys[key] = what if key == 'space' else number(what)
        text = self._expand(text)
        self.draft.locators.append((code, bytes.fromhex(text[4:]) if text.startswith('hex:') else text, keys))

    def _do_bytes(self, offset, length, text):
        self.draft.pieces.append((number(offset), value(text, number(length), number(offset))))

    # Damage.

    def at(self, text):
        """A PLACE: numbers and names, added and subtracted."""
        self._flush()
        total = 0
        for sign, term, _, divisor in re.findall(r'([+-]?)([^+/-]+)(/(\d+))?', text):
            part = number(term) if term[0].isdigit() else self.file.where(term)
            part //= int(divisor or 1)
            total += -part if sign == '-' else part
        return total

    def _do_field(self, name, text):
        self._flush()
        base, _, field = name.rpartition('.')
        if isinstance(self.file, qcow2_writer.Qcow2):
            places, table = [base or '0'], SNAP_FIELDS if base else QCOW2_FIELDS
        else:
            places = ['footer', 'copy'] if base == 'footers' else [base]
            table = {'header': HEADER_FIELDS, 'footer': FOOTER_FIELDS, 'copy': FOOTER_FIELDS,
                     'footers': FOOTER_FIELDS}.get(base, LOCATOR_FIELDS)
        offset, kind = table[field]
        for where in places:
            self._do_poke('%s+%d' % (where, offset), kind, text)

    def _write_at(self, offset, data):
        with open(self.file.path, 'r+b') as image:
            image.seek(offset)
            image.write(data)

    def _do_poke(self, where, kind, *texts):
        for place in where.split(','):
            offset = self.at(place)
            for text in texts:
                data = value(text, 0, 0) if kind == 'bytes' else struct.pack(WIDTH[kind], self.at(text))
                self._write_at(offset, data)
                offset += len(data)

    def _bits(self, where, kind, text, change):
        offset, shape = self.at(where), WIDTH[kind]
        with open(self.file.path, 'rb') as image:
            image.seek(offset)
            old, = struct.unpack(shape, image.read(struct.calcsize(shape)))
        self._write_at(offset, struct.pack(shape, change(old, self.at(text))))

    def _do_set_bits(self, where, kind, text):
        self._bits(where, kind, text, lambda old, bits: old | bits)

    def _do_clear_bits(self, where, kind, text):
        self._bits(where, kind, text, lambda old, bits: old & ~bits)

    def _do_repeat(self, where, count, kind, text):
        self._write_at(self.at(where), struct.pack(WIDTH[kind], self.at(text)) * number(count))

    def _do_truncate(self, where):
        os.truncate(self.file.path, self.at(where))

    def _do_append(self, text, count):
        self._flush()
        with open(self.file.path, 'ab') as image:
            image.write(value(text, number(count), 0))

    def _do_move(self, source, target, length):
        self._flush()
        with open(self.file.path, 'rb') as image:
            image.seek(self.at(source))
            data = image.read(number(length))
        self._write_at(self.at(target), data)

    def _do_append_from(self, name, offset, length):
        self._flush()
        with open(self.place(name), 'rb') as source, open(self.file.path, 'ab') as image:
            source.seek(number(offset))
            image.write(source.read(number(length)))

    def _do_fix_checksums(self):
        self._flush()
        self.file.fix_checksums()

    # The file system.

    def _do_dir(self, name):
        os.makedirs(self.place(name), exist_ok=True)

    def _do_symlink(self, name, target):
        self._flush()
        os.makedirs(os.path.dirname(self.place(name)), exist_ok=True)
        os.symlink(self._expand(target), self.place(name))

    def _do_hardlink(self, name, target):
        self._flush()
        os.link(self.place(target), self.place(name))

    def _do_fifo(self, name):
        os.mkfifo(self.place(name))

    def _do_chown(self, name, uid):
        self._flush()
        os.chown(self.place(name), number(uid), -1)

    def _do_rename(self, name, new):
        self._flush()
        os.rename(self.place(name), self.place(new))
        self.files[new] = self.files.pop(name)
        self.files[new].path = self.place(new)
        self.written.add(new)
        if self.current == name:
            self.current = new

    def _do_use(self, name):
        """Go back to a file for more damage."""
        self._flush()
        self.current = name

    def _do_lock(self, name, places):
        self.locks.append((name, [number(p) for p in places.split(',')]))

    def _take_locks(self):
        for name, places in self.locks:
            fd = os.open(self.place(name), os.O_RDWR)
            self.lock_fds.append(fd)
            for byte in places:
                flock = struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, flock)

    # Runs.

    def _do_run(self, *words):
        self._flush()
        image, words = self.current, list(words)
        if words and not words[0].startswith('-'):
            image = words.pop(0)
        self.runs.append(Run(image, [self._expand(w) for w in words]))

    def _run(self):
        if not self.runs:
            self._do_run()
        return self.runs[-1]

    def _do_map_only(self):
        self._run().map_only = True

    def _do_no_mount(self):
        self._run().no_mount = True

    def _do_unlike_qemu(self):
        self._run().unlike_qemu = True

    def _do_expect(self, kind, *words):
        counts = {'refused': (1, 9), 'size': (1, 1), 'cluster_bits': (1, 1), 'map': (1, 1), 'json': (1, 1),
                  'data': (1, 99), 'eio': (1, 99), 'decode-eio': (1, 99), 'bytes': (3, 3), 'sha256': (1, 1), 'contents': (0, 3),
                  'log': (1, 1), 'map-fails': (1, 1)}
        low, high = counts[kind]
        if not low <= len(words) <= high:
            raise RecipeError('expect %s takes %d to %d words' % (kind, low, high))
        if kind == 'refused':
            self._run().errno, words = self._errno(words[0]), words[1:]
        self._run().expect.append((kind, words))

    @staticmethod
    def _errno(word):
        name = word.partition('errno=')[2]
        if not hasattr(errno, name):
            raise RecipeError('expect refused errno=NAME, not %r' % word)
        return getattr(errno, name)

    # What a disk must read as.

    def model(self, name, snapshot=None, below=None):
        """All bytes of the disk NAME as its writer and those of its backing files meant them."""
        file = self.files[name]
        if below is None:
            below = self._below(name, file)
        under = self.model(below) if below else b''
        if snapshot is not None:
            return file.virtual_bytes(under, snapshot)
        return file.virtual_bytes(under)

    def _below(self, name, file):
        target = getattr(file, 'backing', None) or (
            getattr(file, 'kind', None) == 'differencing' and file.parent_name) or None
        if not target:
            return None
        path = os.path.normpath(os.path.join(os.path.dirname(self.place(name)), target))
        for other in self.files:
            if os.path.realpath(self.place(other)) == os.path.realpath(path) and other != name:
                return other
        return None
