#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random images and chains, for tests that compare readers.

Hand-made images hold the cases their author thought of.  These hold the others: each is made from a seed and a number,
by qemu-img and qemu-io where those can, by the writers of the tests where they cannot, with every format feature drawn
by lot.  The same seed and number always give the same image.

    image = make(seed, number, folder)
    image.path, image.options            what to give to a program under test
    image.opening                        the same choices for resolver.open_disk
    image.qemu                           what QEMU gets right: 'map' (bytes and map), 'bytes' or None
    image.recipe                         one line a layer, to print when something fails
"""
import os
import random
import struct
import subprocess

import qcow2_writer
import vhd_writer

CURRENT_SIZE_CREATORS = (b'win ', b'tap\0', b'qem2')      # QEMU believes their current_size
OTHER_CREATORS = (b'd2v\0', b'vs  ', b'vbox', b'caml', b'wa\0\0')
PAGE = 4096
TIME_LIMIT = 60


def run(*command, folder=None):
    """One command of QEMU's.  qemu-io fails when one of its writes does (it cannot compress over a data cluster)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT, check=False,
                          stdin=subprocess.DEVNULL, errors='replace', cwd=folder)
    if done.returncode and (command[0] != 'qemu-io' or 'open' in done.stdout):
        raise RuntimeError('%s: exit status %d: %s' % (' '.join(command), done.returncode, done.stdout))


class Image:
    """What was made and how to open it."""

    def __init__(self, path):
        self.path = path
        self.options = []
        self.opening = {}
        self.qemu = 'map'
        self.qemu_driver = None
        self.snapshot = None
        self.recipe = []

    def describe(self):
        return '; '.join(self.recipe)


class Built:
    """One finished layer."""

    def __init__(self, path, kind, size):
        self.path, self.kind, self.size = path, kind, size
        self.uuid = bytes(16)          # VHD only
        self.qemu_reads = True         # with everything below it
        self.dense_fits = True         # it may be stored without holes
        self.damage = None             # a writer whose tables may be damaged
        self.working_folder = None     # QEMU resolves the name of a data file from where it runs, not from the image
        self.files = [path]


class Maker:
    def __init__(self, seed, number, folder):
        self.rng = random.Random('%d/%d' % (seed, number))
        self.folder = folder
        self.lines = []

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def note(self, text, **values):
        self.lines.append(text + ''.join(' %s=%s' % pair for pair in values.items() if pair[1] not in (None, False, ())))

    # The plan: kinds of layers from the top down, where they lie, how large they are.

    def plan_kinds(self):
        top = self.rng.choices(('qcow2', 'vhd', 'raw'), (56, 40, 4))[0]
        depth = self.rng.choices((0, 1, 2, 3, 4), (40, 30, 15, 10, 5))[0]
        kinds = [top]
        while len(kinds) <= depth and kinds[-1] != 'raw':
            lower = {'qcow2': (55, 30, 15), 'vhd': (0, 82, 18)}[kinds[-1]]
            kinds.append(self.rng.choices(('qcow2', 'vhd', 'raw'), lower)[0])
        out = []
        for number, kind in enumerate(kinds):
            if kind == 'vhd':
                bottom = number == len(kinds) - 1
                kind = self.rng.choices(('fixed', 'dynamic'), (25, 75))[0] if bottom else 'differencing'
            out.append(kind)
        return out

    def plan_bits(self, kind):
        if kind == 'qcow2':
            return self.rng.choices(range(9, 22), (10, 5, 5, 14, 6, 9, 8, 25, 4, 4, 3, 3, 4))[0]
        return self.rng.choices(range(9, 22), (8, 4, 4, 12, 6, 6, 10, 10, 6, 6, 10, 6, 12))[0]

    def plan_size(self, span, bits, kind):
        """A size near span; a third of the QCOW2 sizes are no multiple of anything."""
        size = max(1, int(span * self.rng.choice((0.3, 0.6, 0.9, 1, 1, 1, 1.2, 1.7))))
        unit = 1 << bits
        draw = self.rng.randrange(100)
        if draw < 40:
            size = max(unit, size // unit * unit)
        elif draw < (70 if kind == 'qcow2' else 93):
            size = max(512, size // 512 * 512)
        if kind == 'qcow2' and self.chance(1):
            size = 0
        return size

    def plan(self):
        kinds = self.plan_kinds()
        bits = [self.plan_bits(kind) for kind in kinds]
        span = min(self.rng.randint(1, 40) << bits[0], 10 << 20)
        span = max(span, 700)
        lowest = max(9, (span // 500).bit_length())       # no layer has more than a few hundred clusters
        bits = [max(b, lowest) if b != bits[0] else b for b in bits]
        sizes = [self.plan_size(span, b, kind) for b, kind in zip(bits, kinds)]
        folders, where = [self.folder], []
        for _ in kinds[1:]:
            place = self.rng.choices(('same', 'absolute', 'sub', 'other', 'hand'), (60, 10, 12, 10, 8))[0]
            if where and 'hand' in where:
                place = 'hand'
            elif place == 'hand' and where:
                place = 'same'
            where.append(place)
            folder = {'sub': os.path.join(folders[-1], 'deep'),
                      'other': os.path.join(os.path.dirname(folders[-1]), 'other%d' % len(where))}.get(place, folders[-1])
            folders.append(folder)
        return kinds, bits, sizes, folders, where

    # Contents.

    def payload(self, length, hole=True):
        """Bytes of a cluster or block: an int, bytes, or None for a hole of the host file."""
        draw = self.rng.randrange(100)
        if draw < 25:
            return self.rng.randint(1, 255)
        if draw < 35:
            return bytes(length)                       # a hole if the host file is stored with holes
        if draw < 60 or length < 2 * PAGE:
            return self.rng.randbytes(length)
        if draw < 92 or not hole:
            out = bytearray(length)
            for at in range(0, length, PAGE):
                if self.chance(50):
                    out[at:at + PAGE] = self.rng.randbytes(min(PAGE, length - at))
            return bytes(out)
        return None

    def squeezable(self, length):
        """Bytes that any compressor makes much smaller, even one with a small window."""
        word = self.rng.randbytes(self.rng.randint(1, 24))
        out = bytearray((word * (length // len(word) + 1))[:length])
        for _ in range(min(40, length // 64)):
            out[self.rng.randrange(length)] = self.rng.randrange(256)
        return bytes(out)

    # QCOW2 by the writer.

    def qcow2_options(self, bits, backed):
        rng = self.rng
        version = 2 if self.chance(22) else 3
        options = {'cluster_bits': bits, 'version': version, 'shuffle': rng.randrange(1000) if self.chance(40) else None,
                   'l1_extra': rng.choice((0, 0, 0, 1, 7)), 'compressed_first': self.chance(20),
                   'pad_end': self.chance(50), 'features': qcow2_writer.DEFAULT_FEATURES if bits > 9 and self.chance(50)
                   else None}
        if version == 2:
            options['v2_residue'] = not backed and self.chance(20)
            return options
        options['extended_l2'] = bits >= 14 and self.chance(35)
        options['compression'] = 'zstd' if self.chance(40) else 'zlib'
        options['header_length'] = rng.choice((112, 112, 112, 120)) if options['compression'] == 'zstd' else rng.choice(
            (104, 112, 112, 120, 144))
        options['zstd_frames'] = rng.choice((1, 1, 2, 3))
        options['dirty'], options['corrupt'] = self.chance(10), self.chance(3)
        options['compatible'] = rng.choice((0, 0, 1, 1 << 40))
        options['autoclear'] = rng.choice((0, 0, 1 << 50))
        options['refcount_order'] = rng.choice((3, 4, 4, 4, 5, 6))
        if self.chance(20):
            options['unknown_exts'] = ((0x12345678, rng.randbytes(rng.randint(0, 40))),)
        if self.chance(8):
            options['gap'] = rng.choice((3 << 20, 5 << 30, 70 << 30)) if bits >= 16 else 1 << 20
        return options

    def qcow2_fill(self, image, bits, compress):
        """Kinds and contents of the clusters, with weights that differ from image to image."""
        rng, size = self.rng, 1 << bits
        weights = [rng.choice((0, 1, 3, 6)) for _ in range(5)]
        weights[0] += 1
        if image.version < 3:
            weights[1] = weights[2] = 0
        if not compress:
            weights[3] = 0
        packed = 0
        for cluster in range(image.clusters):
            kind = rng.choices(('data', 'zero', 'zero_alloc', 'compressed', 'unallocated'), weights)[0]
            if kind == 'compressed' and (image.compression == 'zstd' and packed >= 8):
                kind = 'data'
            if kind == 'compressed':
                packed += 1
                image.set(cluster, kind, self.squeezable(size))
            elif kind in ('data', 'zero_alloc'):
                image.set(cluster, kind, self.payload(size))
            elif kind == 'zero':
                image.set(cluster, kind)
        if image.extended_l2:
            for cluster in range(image.clusters):
                entry = image.active.entries.get(cluster)
                if self.chance(50) and (entry is None or entry.kind not in ('compressed',)):
                    self.qcow2_subclusters(image, cluster, size // 32)

    def qcow2_subclusters(self, image, cluster, unit):
        at = 0
        while at < 32:
            run_length = self.rng.randint(1, 12)
            kind = self.rng.choice(('data', 'zero', 'unallocated', None))
            for sub in range(at, min(32, at + run_length)):
                if kind == 'data':
                    image.set_sub(cluster, sub, 'data', self.payload(unit))
                elif kind is not None:
                    image.set_sub(cluster, sub, kind)
            at += run_length

    def qcow2_snapshots(self, image, bits, built):
        rng = self.rng
        for number in range(rng.randint(1, 3)):
            other_size = image.version >= 3 and self.chance(40)
            size = self.plan_size(max(image.size, 512), bits, 'qcow2') if other_size else image.size
            options = {'extra_size': rng.choice((16, 16, 24, 40)), 'l1_extra': rng.choice((0, 0, 2))}
            if image.version < 3 and not other_size:
                options['extra_size'] = rng.choice((0, 8, 16))
            count = (size + (1 << bits) - 1) >> bits
            contents = {c: ('data', self.payload(1 << bits)) for c in range(count) if self.chance(30)}
            share = [c for c, e in image.active.entries.items() if c < count and c not in contents and e.kind == 'data'
                     and self.chance(40)]
            image.add_snapshot(str(number + 1), 'snap %d' % number, size, contents, share, **options)
            built.snapshots = getattr(built, 'snapshots', []) + [(str(number + 1), 'snap %d' % number, size == image.size)]

    def qcow2_by_writer(self, path, bits, size, lower, name):
        options = self.qcow2_options(bits, lower is not None)
        built = Built(path, 'qcow2', size)
        with_data_file = options['version'] == 3 and self.chance(14) and not options.get('gap')
        if with_data_file:
            options.update(data_file=os.path.basename(path) + '.data', data_file_raw=lower is None and self.chance(50))
            options['compression'], options['header_length'] = 'zlib', 112
        if lower is not None:
            options['backing'] = name
            options['backing_format'] = self.backing_format(lower)
        if bits == 9 and lower is not None and len(os.fsencode(name)) > 250:
            options['features'] = None
        self.note('qcow2 writer', file=os.path.basename(path), size=size, **{k: v for k, v in options.items()
                                                                             if k not in ('features',)})
        image = qcow2_writer.Qcow2(path, size, **options)
        self.qcow2_fill(image, bits, not with_data_file)
        if with_data_file and not options['data_file_raw'] and self.chance(60):
            for cluster in range(image.clusters):
                entry = image.active.entries.get(cluster)
                if self.chance(30) and (entry is None or entry.kind != 'data') and not (entry and entry.subs):
                    image.set_stale(cluster, self.payload(1 << bits) or 1)
        if not with_data_file and self.chance(22):
            self.qcow2_snapshots(image, bits, built)
        image.write()
        if with_data_file:
            built.files.append(image.data_file_path)
            built.data_file = image.data_file_path
            built.working_folder = os.path.dirname(path)
        built.damage = image
        built.dense_fits = not options.get('gap')
        built.qemu_reads = self.qemu_reads_below(built, lower, options.get('backing_format'))
        return built

    def backing_format(self, lower):
        """The format to record; a raw file must have one."""
        name = {'qcow2': 'qcow2', 'raw': 'raw'}.get(lower.kind, 'vpc')
        return None if lower.kind != 'raw' and self.chance(20) else name

    @staticmethod
    def qemu_reads_below(built, lower, recorded):
        """Does QEMU read the layers below right?  It rounds sizes down, and takes a fixed VHD for raw."""
        if lower is None:
            return True
        if lower.working_folder not in (None, os.path.dirname(built.path)):
            return False
        built.working_folder = lower.working_folder or built.working_folder
        if lower.kind != 'raw' and lower.size % 512:
            return False
        return lower.qemu_reads and not (lower.kind == 'fixed' and recorded is None)

    # QCOW2 by QEMU.

    def qcow2_by_qemu(self, path, bits, size, lower, name):
        rng, folder = self.rng, os.path.dirname(path)
        built = Built(path, 'qcow2', size)
        old = self.chance(18)
        options = ['cluster_size=%d' % (1 << bits), 'compat=' + ('0.10' if old else '1.1')]
        data_file = raw = False
        if not old:
            if bits >= 14 and self.chance(30):
                options.append('extended_l2=on')
            data_file = self.chance(15)
            if data_file:
                raw = lower is None and self.chance(50)
                built.data_file = path + '.data'
                named = built.data_file
                if self.chance(50):
                    named, built.working_folder = os.path.basename(named), folder
                options += ['data_file=' + named, 'data_file_raw=' + ('on' if raw else 'off')]
                built.files.append(built.data_file)
            else:
                options.append('compression_type=' + rng.choice(('zlib', 'zstd')))
            if lower is None and self.chance(12) and bits >= 12:
                options.append('preallocation=metadata')
        size = built.size = max(512, size // 512 * 512)
        recorded = None
        command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', ','.join(options)]
        if lower is not None:
            recorded = {'qcow2': 'qcow2', 'raw': 'raw'}.get(lower.kind, 'vpc')
            command += ['-b', name, '-F', recorded]
        self.note('qemu-img', file=os.path.basename(path), size=size, options=','.join(options), backing=name)
        run(*command, path, str(size), folder=folder)
        self.qemu_io(path, 'qcow2', bits, size, rng.randint(1, 12), not data_file)
        if not data_file and self.chance(20):
            self.qemu_snapshots(path, bits, size, built)
        built.qemu_reads = self.qemu_reads_below(built, lower, recorded)
        return built

    def qemu_io(self, path, driver, bits, size, count, compress):
        """
        Random writes.  QEMU 7.2 remembers where the next compressed cluster goes even when that host cluster has
        been freed and given to somebody else, and then damages its own image; each series of compressed writes
        therefore has a process of its own.
        """
        rng, unit = self.rng, 1 << bits
        runs, last = [[]], None
        for _ in range(count):
            kind = rng.choice(('plain', 'plain', 'plain', 'zero', 'unmap', 'packed', 'discard'))
            start = rng.randrange(size) // 512 * 512
            length = min(size - start, rng.choice((512, 4096, unit, 3 * unit, 3 * unit + 512, 65536)))
            if driver != 'qcow2' or (kind == 'packed' and not compress):
                kind = 'plain'
            if kind in ('packed', 'discard') or (kind != 'plain' and self.chance(60)):
                start = start // unit * unit
                length = min(unit * (rng.randint(1, 4) if kind != 'packed' else 1), size - start)
            word = {'plain': 'write -P %d' % rng.randint(1, 255), 'zero': 'write -z', 'unmap': 'write -z -u',
                    'packed': 'write -c -P %d' % rng.randint(1, 255), 'discard': 'discard'}[kind]
            if kind == 'packed' and last not in (None, 'packed'):
                runs.append([])
            last = kind
            runs[-1] += ['-c', '%s %d %d' % (word, start, length)]
        self.note('  qemu-io ' + ', then '.join(', '.join(commands[1::2]) for commands in runs))
        for commands in runs:
            run('qemu-io', '-t', 'unsafe', '-f', driver, *commands, path, folder=os.path.dirname(path))

    def qemu_snapshots(self, path, bits, size, built):
        built.snapshots = []
        current = size
        for number in range(self.rng.randint(1, 2)):
            run('qemu-img', 'snapshot', '-q', '-c', 'state%d' % number, path, folder=os.path.dirname(path))
            built.snapshots.append((str(number + 1), 'state%d' % number, current))
            self.qemu_io(path, 'qcow2', bits, current, self.rng.randint(1, 5), True)
        built.snapshots = [(ident, name, at == current) for ident, name, at in built.snapshots]

    def qcow2_converted(self, path, bits, size):
        """qemu-img convert: the layout most images in the world have."""
        source = path + '.source'
        self.make_raw(source, size, quiet=True)
        options = ['cluster_size=%d' % (1 << bits), 'compression_type=' + self.rng.choice(('zlib', 'zstd'))]
        command = ['qemu-img', 'convert', '-q', '-t', 'unsafe', '-f', 'raw', '-O', 'qcow2', '-o', ','.join(options)]
        if self.chance(60):
            command.append('-c')
        self.note('qemu-img convert', file=os.path.basename(path), size=size, options=','.join(options), c='-c' in command)
        run(*command, source, path)
        os.unlink(source)
        return Built(path, 'qcow2', (size + 511) // 512 * 512)

    # VHD.

    def vhd_by_qemu(self, path, kind, size):
        built = Built(path, kind, max(512, size // 512 * 512))
        self.note('qemu-img vpc', file=os.path.basename(path), subformat=kind, size=built.size)
        run('qemu-img', 'create', '-q', '-f', 'vpc', '-o', 'subformat=%s,force_size=on' % kind, path, str(built.size))
        self.qemu_io(path, 'vpc', 16, built.size, self.rng.randint(1, 8), False)
        with open(path, 'rb') as image:
            image.seek(-512, os.SEEK_END)
            built.uuid = image.read(512)[68:84]
        return built

    def vhd_options(self, kind, bits):
        rng = self.rng
        options = {'kind': kind, 'block_size': 1 << bits,
                   'creator': rng.choice(CURRENT_SIZE_CREATORS if self.chance(70) else OTHER_CREATORS),
                   'features': rng.choice((2, 2, 2, 3)), 'footer_bytes': 511 if self.chance(14) else 512,
                   'hidden': int(self.chance(10)), 'uuid': rng.randbytes(16)}
        if kind == 'fixed':
            return options
        options.update(shuffle=rng.randrange(1000) if self.chance(50) else None,
                       extra_entries=rng.choice((0, 0, 0, 1, 200)), bat_pad=rng.choice((0xFF, 0xFF, 0)),
                       data_alignment=rng.choice((512, 4096)))
        draw = rng.randrange(100)
        if draw < 6:
            options['copy'] = False
        elif draw < 12:
            options['footer'] = False
        if self.chance(15):
            options['header_offset'] = rng.choice((1024, 4096, 5120))
        if self.chance(15):
            options['table_offset'] = options.get('header_offset', 512) + rng.choice((1536, 2048, 8192))
        if self.chance(12):
            options['batmap'] = rng.choice(((1, 1), (1, 2)))
            if self.chance(60):
                options['creator'] = b'tap\0'
                options['batmap_full'] = [n for n in range(64) if self.chance(30)]
        if self.chance(3):
            options['copy_uuid'] = rng.randbytes(16)
        if self.chance(2):
            options.update(creator=b'tap\0', creator_version=1)
        return options

    def vhd_fill(self, image, bits):
        """Whole blocks, random bitmaps, single sectors.  True when every bitmap is full, so that QEMU reads it right."""
        rng, sectors = self.rng, image.block_sectors
        if image.kind == 'fixed':
            at, count = 0, -(-image.size // 512)
            while at < count:
                length = min(rng.randint(1, max(2, count // 6)), count - at)
                if self.chance(55):
                    data = self.payload(length * 512, hole=False)
                    image.set_sectors(at, qcow2_writer.fill(data, length * 512))
                at += length
            return True
        full = self.chance(40)
        present = rng.choice((15, 40, 70, 100))
        for block in range(-(-image.size // image.block_size)):
            if not self.chance(present):
                continue
            if full or self.chance(25):
                image.set_block(block, self.payload(image.block_size))
            elif self.chance(60):
                image.set_block(block, self.payload(image.block_size), self.bitmap(sectors))
            else:
                for _ in range(rng.randint(1, 4)):
                    at = rng.randrange(sectors)
                    length = rng.randint(1, min(20, sectors - at))
                    image.set_sectors(block * sectors + at, rng.randbytes(512 * length))
        return full

    def bitmap(self, sectors):
        """Literal bitmap bytes: full of noise, of runs, or empty."""
        length = -(-sectors // 8)
        draw = self.rng.randrange(100)
        if draw < 45:
            return self.rng.randbytes(length)
        if draw < 90:
            out, bit = 0, 1
            at = 0
            while at < length * 8:
                run_length = self.rng.randint(1, max(1, sectors // 3))
                for number in range(at, min(at + run_length, length * 8)):
                    out |= bit << (length * 8 - 1 - number)
                at, bit = at + run_length, bit ^ 1
            return out.to_bytes(length, 'big')
        return bytes(length)

    def vhd_parent(self, lower, name, place, folder):
        """The ways a differencing disk names its parent."""
        rng = self.rng
        base = os.path.basename(lower.path)
        if place == 'hand':
            return {'parent_name': 'gone.vhd', 'locators': [('W2ru', '.\\gone.vhd', {})]}
        windows = '.\\' + name.replace('/', '\\') if place != 'absolute' else name.replace('/', '\\')
        good = [('W2ru', windows, {}), ('W2ku', windows, {'space': 'sectors'}),
                ('MacX', 'file://' + name if place == 'absolute' else 'file://./' + name, {})]
        if place == 'absolute':
            good.append(('MacX', 'file://localhost' + name, {}))
            good.append(('W2ku', 'C:' + windows, {}))
        if place == 'same':
            good.append(('W2ku', 'C:\\somewhere\\else\\' + base, {}))
            good.append(('W2ku', windows, {}))
        bad = [('W2ku', 'D:\\gone\\nothing.vhd', {}), ('Wi2r', base.encode(), {}), ('XyZ0', b'\xff\xfe', {})]
        if lower.kind != 'raw' and self.chance(40):
            decoy = os.path.join(folder, 'decoy.vhd')
            vhd_writer.Vhd(decoy, 1 << 20, kind='fixed').write()
            bad.append(('W2ru', '.\\decoy.vhd', {}))
        locators = rng.sample(good, rng.randint(0 if place == 'same' else 1, len(good)))
        locators += rng.sample(bad, rng.randint(0, len(bad)))
        rng.shuffle(locators)
        told = any(one in good for one in locators)
        return {'parent_name': 'gone.vhd' if told and self.chance(50) else base, 'locators': locators[:8]}

    def vhd_by_writer(self, path, kind, bits, size, lower, name, place):
        options = self.vhd_options(kind, bits)
        if lower is not None:
            options.update(self.vhd_parent(lower, name, place, os.path.dirname(path)))
            options['parent_uuid'] = lower.uuid if lower.kind != 'raw' else bytes(16)
        blocks = -(-size // options['block_size'])
        built = Built(path, kind, size)
        if kind != 'fixed' and self.chance(6) and blocks:
            options['block_at'] = {self.rng.randrange(blocks): self.rng.choice((1 << 22, 1 << 31, (1 << 32) - (1 << 20)))}
            built.dense_fits = False
        self.note('vhd writer', file=os.path.basename(path), size=size, **{
            k: v.hex() if k.endswith('uuid') else v for k, v in options.items()})
        image = vhd_writer.Vhd(path, size, **options)
        full = self.vhd_fill(image, bits)
        image.write()
        built.uuid, built.damage = options['uuid'], image
        built.two_footers = bool(options.get('copy_uuid'))
        built.qemu_reads = (lower is None and full and options['creator'] in CURRENT_SIZE_CREATORS
                            and not built.two_footers and options.get('creator_version') != 1
                            and options.get('copy', True) and (kind != 'fixed' or options['footer_bytes'] == 512))
        if not size or (size % 512 and kind == 'fixed') or bits < 12:
            built.qemu_reads = False       # below 4 KiB a block QEMU computes a bitmap of 0 bytes
        return built

    # Raw.

    def make_raw(self, path, size, quiet=False):
        with open(path, 'wb') as out:
            at = 0
            while at < size:
                length = min(self.rng.randint(1, max(2, size // 5)), size - at)
                if self.chance(60):
                    data = qcow2_writer.fill(self.payload(length), length)
                    if data is not None:
                        out.seek(at)
                        out.write(data)
                at += length
            out.truncate(size)
        if not quiet:
            self.note('raw', file=os.path.basename(path), size=size)
        return Built(path, 'raw', size)

    # Damage.

    def damage(self, built, image):
        """Break one thing in an image.  The reader must call the range unreadable, or refuse the image."""
        writer = built.damage
        if self.chance(40) or writer is None or writer.size == 0:
            self.truncate(built)
        elif built.kind == 'qcow2':
            self.damage_qcow2(writer)
        elif built.kind != 'fixed':
            self.damage_vhd(writer)
        image.qemu = None

    def truncate(self, built):
        path = self.rng.choice(built.files)
        size = os.stat(path).st_size
        cut = min(size - 1, self.rng.choice((1, 100, 511, 512, 513, 4096, 5000, 65536, 100000, size // 4)))
        if cut > 0:
            self.note('  truncated', file=os.path.basename(path), by=cut)
            os.truncate(path, size - cut)

    def poke(self, path, at, data, why):
        self.note('  damage', what=why, at=at, bytes=data[:32].hex() + '...' * (len(data) > 32))
        with open(path, 'r+b') as out:
            out.seek(at)
            out.write(data)

    def damage_qcow2(self, w):
        rng, offsets = self.rng, w.offsets
        end = os.stat(w.path).st_size
        past = (end + w.cluster_size) // w.cluster_size * w.cluster_size
        wild = rng.choice((past, past + 7 * w.cluster_size, 1 << 54))
        choices = []
        if offsets['l2e']:
            cluster = rng.choice(sorted(offsets['l2e']))
            entry = offsets['l2e'][cluster]
            choices.append((entry, struct.pack('>Q', wild), 'cluster past the end'))
            if w.cluster_bits > 9:
                choices.append((entry, struct.pack('>Q', 512 | past), 'unaligned cluster'))
            if w.extended_l2:
                choices.append((entry + 8, bytes([rng.randrange(256)]) * 8, 'alloc and zero bits'))
                choices.append((entry, bytes(8), 'no host cluster'))
            elif w.version == 2:
                choices.append((entry, struct.pack('>Q', 1), 'zero flag in version 2'))
            choices.append((entry, struct.pack('>Q', 1 << 62 | past + 77), 'stream past the end'))
        if offsets['l2']:
            index = rng.choice(sorted(offsets['l2']))
            choices.append((offsets['l1'] + 8 * index, struct.pack('>Q', wild), 'L2 table past the end'))
            if w.cluster_bits > 9:
                choices.append((offsets['l1'] + 8 * index, struct.pack('>Q', offsets['l2'][index] ^ 512), 'unaligned L2'))
            other = struct.pack('>Q', 1 << 63 | offsets['l2'][index])
            for user in {0, len(offsets['l2']) - 1, rng.randrange(len(offsets['l2']))} - {index}:
                choices += [(offsets['l1'] + 8 * user, other, 'L2 table used twice')] * 2
        for cluster in sorted(offsets['compressed'])[:1]:
            length = rng.randint(1, max(1, offsets['compressed_bytes'][cluster] // 2))
            choices.append((offsets['compressed'][cluster], rng.randbytes(length), 'noise in a stream'))
            choices.append((offsets['compressed'][cluster], w.compress(bytes(w.cluster_size // 2)), 'short stream'))
            choices.append((offsets['compressed'][cluster], w.compress(bytes(w.cluster_size * 2)), 'long stream'))
        if choices:
            at, data, why = rng.choice(choices)
            self.poke(w.path, at, data, why)

    def damage_vhd(self, w):
        rng = self.rng
        blocks = -(-w.size // w.block_size)
        at = w.offsets['bat'] + 4 * rng.randrange(blocks)
        end = os.stat(w.path).st_size // 512
        others = sorted(w.block_hosts.values())
        places = {'header copy': 0, 'dynamic header': w.header_offset // 512, 'second sector of it': w.header_offset // 512 + 1,
                  'BAT': w.offsets['bat'] // 512, 'footer': w.offsets['footer'] // 512, 'just past the end': end + 1,
                  'far past the end': 0xFFFFFFFE, 'last sector': end - 1, 'near the end': max(0, end - rng.randint(1, 9))}
        if others:
            places['another block'] = rng.choice(others) // 512 + rng.choice((0, 0, 1, -1, w.block_size // 512))
        why = rng.choice(sorted(places))
        self.poke(w.path, at, struct.pack('>I', places[why]), 'BAT entry in ' + why)

    # Host files.

    def store(self, built_layers, image):
        """Rewrite the host files without holes, or with a hole wherever a page is zero.  QEMU's own files always are
        rewritten: it preallocates, and whether such space counts as data changes when somebody reads it."""
        fits = all(b.dense_fits for b in built_layers)
        dense = fits and self.chance(55)
        self.note('host files', holes='none' if dense else 'all')
        for built in built_layers:
            for path in built.files:
                if os.path.exists(path):
                    rewrite(path, dense)
        if not dense and image.qemu == 'map':
            image.qemu = 'bytes'

    # All together.

    def name_of(self, lower, folder, place):
        if place == 'absolute':
            return lower.path
        if place == 'hand':
            return 'gone.' + lower.kind
        return os.path.relpath(lower.path, folder)

    def layer(self, kind, bits, size, path, lower, place):
        folder = os.path.dirname(path)
        name = self.name_of(lower, folder, place) if lower is not None else None
        if kind == 'raw':
            return self.make_raw(path, size)
        if kind == 'qcow2':
            by_qemu = lower is None or (lower.qemu_reads and lower.dense_fits and place != 'hand'
                                        and lower.working_folder in (None, folder))
            if bits == 9 and name is not None and len(os.fsencode(name)) > 60:
                by_qemu = False
            draw = self.rng.randrange(100)
            if lower is None and draw < 12 and size:
                return self.qcow2_converted(path, bits, size)
            if by_qemu and draw < 45:
                return self.qcow2_by_qemu(path, bits, size, lower, name)
            return self.qcow2_by_writer(path, bits, size, lower, name)
        if kind != 'differencing' and self.chance(20):
            return self.vhd_by_qemu(path, kind, size)
        return self.vhd_by_writer(path, kind, bits, size, lower, name, place)

    def make(self):
        kinds, bits, sizes, folders, where = self.plan()
        built, layers = None, []
        for number in reversed(range(len(kinds))):
            os.makedirs(folders[number], exist_ok=True)
            kind = kinds[number]
            extension = {'qcow2': 'qcow2', 'raw': 'img'}.get(kind, 'vhd')
            path = os.path.join(folders[number], 'layer%d.%s' % (number, extension))
            place = where[number] if number < len(where) else None
            built = self.layer(kind, bits[number], sizes[number], path, built, place)
            layers.insert(0, built)
        image = Image(layers[0].path)
        self.choose_options(image, layers, where)
        if not layers[0].qemu_reads:
            image.qemu = None
        if self.chance(18):
            candidates = [b for b in layers if b.kind not in ('raw', 'fixed')]
            if candidates:
                self.damage(self.rng.choice(candidates), image)
        self.store(layers, image)
        image.recipe = self.lines
        return image

    def choose_options(self, image, layers, where):
        top = layers[0]
        image.qemu_driver = {'qcow2': 'qcow2', 'raw': 'raw'}.get(top.kind, 'vpc')
        if 'other' in where:
            image.options.append('--backing=any')
            image.opening['backing'] = 'any'
        if 'hand' in where:
            image.opening['backing_files'] = [b.path for b in layers[1:]]
            image.options += ['--backing-file=' + b.path for b in layers[1:]]
            image.qemu = None
        if top.kind == 'raw' or self.chance(10):
            name = {'qcow2': 'qcow2', 'raw': 'raw'}.get(top.kind, 'vhd')
            image.options.append('--format=' + name)
            image.opening['format'] = name
        snapshots = getattr(top, 'snapshots', None)
        if snapshots and self.chance(60):
            ident, name, same_size = self.rng.choice(snapshots)
            image.snapshot = self.rng.choice((ident, name))
            image.options.append('--snapshot=' + image.snapshot)
            image.opening['snapshot'] = image.snapshot
            image.qemu = 'bytes' if same_size and image.qemu else None
        if getattr(top, 'data_file', None) and self.chance(25):
            moved = os.path.join(self.folder, 'moved.data')
            os.rename(top.data_file, moved)
            top.files[top.files.index(top.data_file)] = moved
            image.options.append('--data-file=' + moved)
            image.opening['data_file'] = moved
            image.qemu = None
        if any(getattr(built, 'two_footers', False) for built in layers) and self.chance(70):
            image.opening['vhd_footer'] = self.rng.choice(('end', 'start'))
            image.options.append('--vhd-footer=' + image.opening['vhd_footer'])
        if self.chance(5):
            image.options.append('-U')
        self.note('opened with', options=' '.join(image.options) or 'nothing')


def rewrite(path, dense):
    """Store a file anew: every byte written, or only the pages that are not zero."""
    new = path + '.new'
    with open(path, 'rb') as old, open(new, 'wb') as out:
        size = os.fstat(old.fileno()).st_size
        at = 0
        while at < size:
            if not dense:
                try:
                    at = os.lseek(old.fileno(), at, os.SEEK_DATA) // PAGE * PAGE
                except OSError:
                    break
            length = min(size - at, 1 << 20)
            old.seek(at)
            data = old.read(length)
            if dense:
                out.write(data)
            else:
                for page in range(0, length, PAGE):
                    piece = data[page:page + PAGE]
                    if any(piece):
                        out.seek(at + page)
                        out.write(piece)
            at += length
        out.truncate(size)
    os.replace(new, path)


def make(seed, number, folder):
    """Make image `number` of a seed in an empty folder (it may use folders next to it as well)."""
    return Maker(seed, number, os.path.join(os.path.realpath(folder), 'main')).make()
