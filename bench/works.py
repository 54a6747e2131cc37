# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: groups of rows, each with its image, its columns and its targets.

A stage makes one image and fills some rows of a group.  A measurement is a function of the round's number that returns
a figure, or raises Failure with the reason why there is none.
"""
import contextlib
import json
import os
import random
import shlex
import shutil
import subprocess
import time

import candidates
import images
from candidates import Failure
from images import GIB, KIB, MIB, TIB
from report import Group, Row, Target

MODES = ['vdifs', 'vdifs --direct']
SEQ_LIMIT, SLOW_SEQ_LIMIT = 2.5, 1.0    # seconds; the latter for peers that are here for the record
SHOWN = 0.9                             # of the data; the files of /usr have zeros in them, which are holes
MEMORY_BOUND = 64 + 32 + 16             # MiB: the map, the cache of decompressed clusters, all else
FIRST_BYTE_BOUND = 20                   # ms


class Stage:
    """key: stands before the rows' names for --only.  make(bench) returns the image; works(bench, image) yields
    (row, {column: measurement}).  rows are known before, so that an image that nobody needs is not made."""

    def __init__(self, key, group, rows, make, works, disk=None):
        self.key, self.group, self.rows, self.make, self.works, self.disk = key, group, rows, make, works, disk

    def name(self, row):
        return '%s: %s' % (self.key, row.name)


# Reading a disk through each candidate.

def check_content(bench, candidate, image):
    """Why this candidate cannot be compared here, or None: some places are read and held against the native file."""
    try:
        with candidate.mount(image, bench.work) as disk, open(disk, 'rb', buffering=0) as one, \
                open(image.native, 'rb', buffering=0) as other:
            ranges = list(images.data_ranges(other.fileno()))
            chance = random.Random(4)
            for _ in range(64):
                start, end = chance.choice(ranges)
                at = chance.randrange(start, end - 4096 + 1)
                if os.pread(one.fileno(), 4096, at) != os.pread(other.fileno(), 4096, at):
                    return 'wrong bytes at %d' % at
    except Failure as failure:
        return str(failure)
    except OSError as error:
        return error.strerror
    return None


def opened(bench, candidate, image):
    """A context with the path of the disk; a candidate of None is the native file."""
    if candidate is None:
        return contextlib.nullcontext(image.native)
    reason = bench.once(('content', candidate.name, image.path), lambda: check_content(bench, candidate, image))
    if reason:
        raise Failure(reason)
    bench.touch_memory(image.data_bytes * 5 // 4)
    return candidate.mount(image, bench.work)


def sequential(bench, candidate, image, size):
    with opened(bench, candidate, image) as disk:
        knows = candidate is None or candidate.reads_holes
        limit = (SEQ_LIMIT if knows else SLOW_SEQ_LIMIT) / bench.haste
        rate, total = bench.reader('seq', disk, size, limit, disk if knows else image.native)
    if total < image.data_bytes * SHOWN and total / 1e6 / rate < limit * 0.9:
        raise Failure('shows %d of %d MiB of data' % (total // MIB, image.data_bytes // MIB))
    return rate


def at_random(bench, candidate, image, threads):
    with opened(bench, candidate, image) as disk:
        return bench.reader('rand', disk, 4096, threads, 1.0 / bench.haste, image.native,
                            'direct' if candidate else 'cached')[0]


def reading_rows(targets):
    """(row, kind, number) for each; targets: {name of row: [Target...]}"""
    found = []
    for size in (4 * KIB, 64 * KIB, 256 * KIB, MIB):
        name = 'sequential %s' % ('1 MiB' if size == MIB else '%d KiB' % (size // KIB))
        found.append((Row(name, 'MB/s', 'QSD', targets.get(name, ())), sequential, size))
    for threads in (1, 4):
        name = 'random 4 KiB, %d thread%s' % (threads, 's' if threads > 1 else '')
        found.append((Row(name, '/s', 'QSD', [Target(mode, '>=', 2, 'QSD') for mode in MODES]), at_random, threads))
    return found


def reading_stage(key, title, disk, make, form, targets, remarks='', more=None):
    """Sequential and random reads.  more(bench, image) yields further work whose rows are `more.rows`."""
    columns = [*MODES, 'QSD', 'nbdfuse', 'qcowmount' if form == 'qcow2' else 'vhdimount',
               *(more.columns if more else ()), 'native']
    group = Group(title, columns, remarks)
    rows = reading_rows(targets)

    def works(bench, image):
        for row, measure, number in rows:
            yield row, {name: lambda _, c=bench.candidates.get(name): measure(bench, c, image, number)
                        for name in columns if name == 'native' or name in bench.candidates}
        if more:
            yield from more(bench, image)

    return Stage(key, group, [row for row, _, _ in rows] + (more.rows if more else []), make, works, disk)


def both(sizes, of, bounds, base='QSD'):
    return {'sequential ' + size: [Target(of, '>=', bound, base)] for size, bound in zip(sizes, bounds)}


def merged(*parts):
    result = {}
    for part in parts:
        for name, targets in part.items():
            result.setdefault(name, []).extend(targets)
    return result


# Programs that read a disk.

def timed(bench, row, column, image, candidate, command):
    """Seconds that a shell command takes; $D is the disk, $O a file in the tmpfs, checked the first time."""
    if '$O' in command and not bench.tmpfs:
        raise Failure('no tmpfs')
    out = os.path.join(bench.tmpfs or '', 'out')
    with opened(bench, candidate, image) as disk:
        try:
            text = command.replace('$D', shlex.quote(disk)).replace('$O', shlex.quote(out))
            seconds = bench.reader('run', 'sh', '-c', text)[0]
            if '$O' in command:
                same = bench.once(('copy', row.name, column, image.path), lambda: subprocess.run(
                    ['cmp', '-s', out, image.native]).returncode == 0)
                if not same:
                    raise Failure('the copy differs')
            return seconds
        finally:
            if os.path.exists(out):
                os.unlink(out)


TOOLS = {
    'dd bs=512': 'dd if=$D of=/dev/null bs=512 status=none',
    'tar -S': 'tar -Scf - -C / "$(echo $D | cut -c 2-)" | cat >/dev/null',
    'cp --sparse=always to tmpfs': 'cp --sparse=always $D $O',
    'cp --sparse=auto to tmpfs': 'cp --sparse=auto $D $O',
    'sha256sum': 'sha256sum $D',
    'qemu-img convert -f raw to tmpfs': 'qemu-img convert -f raw -O raw $D $O',
}


def tools_stage():
    columns = [*MODES, 'QSD', 'native']
    group = Group('Programs that read the disk (QCOW2, plain)', columns,
                  'A disk of 400 MiB with 256 MiB of data. Seconds; the factor says how many times as fast as QSD.')
    promised = ('dd bs=512', 'sha256sum', 'tar -S')
    rows = [Row(name, 's', 'QSD', [Target('vdifs', '<=', 1.3, 'native')] if name in promised else ()) for name in TOOLS]

    def works(bench, image):
        for row in rows:
            yield row, {name: lambda _, n=name: timed(bench, row, n, image, bench.candidates.get(n), TOOLS[row.name])
                        for name in columns}

    return Stage('tools', group, rows, plain_image, works, 'tools')


class CompressedCopy:
    """cp out of a mount against qemu-img convert, both into the tmpfs."""

    columns = ['qemu-img convert']

    def __init__(self):
        self.rows = [Row('cp to tmpfs', 's', 'QSD', [Target('vdifs', '<=', 1, 'qemu-img convert')])]

    def __call__(self, bench, image):
        row = self.rows[0]
        work = {name: lambda _, n=name: timed(bench, row, n, image, bench.candidates.get(n), 'cp $D $O')
                for name in (*MODES, 'QSD', 'native')}
        command = 'qemu-img convert -m 16 -W -O raw %s $O' % shlex.quote(image.path)
        work['qemu-img convert'] = lambda _: timed(bench, row, 'qemu-img convert', image, None, command)
        yield row, work


# The map: seeks, the first byte, the whole of it, its memory.

def wait_for_map(disk):
    """Until vdifs knows all of it; the others have nothing to wait for."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if json.loads(os.getxattr(disk, 'user.vdifs.info'))['map']['complete']:
                return
        except OSError:
            return
        time.sleep(0.005)
    raise Failure('the map is not complete after two minutes')


def seeks(bench, candidate, image, order):
    with candidate.mount(image, bench.work) as disk:
        wait_for_map(disk)
        return bench.reader('seek', disk, 2.0 / bench.haste, order)[0]


def round_trips(bench, image):
    with bench.candidates['vdifs'].mount(image, bench.work) as disk:
        wait_for_map(disk)
        return bench.reader('trip', disk, 2.0 / bench.haste)[0]


def first_byte(bench, candidate, image, at):
    mount = candidate.mount(image, bench.work)
    mount.prepare()
    try:
        return bench.reader('first', mount.point, at, 'returns' if mount.returns else 'stays', *mount.argv)[0]
    finally:
        mount.__exit__()


def peak_of_mount(bench, candidate, image):
    mount = candidate.mount(image, bench.work)
    with mount as disk:
        wait_for_map(disk)
        for order in ('up', 'any'):
            bench.reader('seek', disk, 0.5 / bench.haste, order)
        return mount.peak_memory()


class Runs:
    """Runs of a program that several rows look at: seconds, MiB, bytes read."""

    def __init__(self, bench, *command):
        self.bench, self.command, self.done = bench, command, {}

    def __call__(self, number, what):
        if number not in self.done:
            seconds, kib, bytes_read = self.bench.reader('run', *self.command)
            self.done[number] = {'seconds': seconds, 'MiB': kib / 1024, 'bytes': bytes_read}
        return self.done[number][what]


def fragmented_stages():
    """A disk with as many intervals as it can have."""
    columns = ['vdifs', 'QSD', 'FUSE round trip']
    questions = Group('Seeks and the first byte (QCOW2, every other cluster)', columns,
                      'A disk of 1 TiB in clusters of 64 KiB, every other one allocated: 8.4 million intervals, 128 '
                      'MiB of tables. The mode of vdifs does not matter here. A round trip is an fstatfs() on the '
                      'mount of vdifs, whose map is complete. The first byte is timed from the start of the command.')
    promise = [Target('vdifs', '>=', 2, 'QSD'), Target('vdifs', '>=', 0.9, 'FUSE round trip')]
    seek_rows = {order: Row('seeks, ' + words, '/s', 'QSD', promise)
                 for order, words in (('up', 'ascending'), ('any', 'at random'))}
    byte_rows = {name: Row(name, 'ms', 'QSD', [Target('vdifs', '<=', FIRST_BYTE_BOUND)])
                 for name in ('mount to first byte', 'mount to last byte')}
    memory = Row('peak memory, map complete', 'MiB', None, [Target('vdifs', '<=', MEMORY_BOUND)])

    def works(bench, image):
        daemons = {name: bench.candidates[name] for name in ('vdifs', 'QSD')}
        for order, row in seek_rows.items():
            work = {name: lambda _, c=c: seeks(bench, c, image, order) for name, c in daemons.items()}
            yield row, {**work, 'FUSE round trip': lambda _: round_trips(bench, image)}
        for row, at in zip(byte_rows.values(), (0, image.last_data)):
            yield row, {name: lambda _, c=c: first_byte(bench, c, image, at) for name, c in daemons.items()}
        yield memory, {name: lambda _, c=c: peak_of_mount(bench, c, image) for name, c in daemons.items()}

    rows = [*seek_rows.values(), *byte_rows.values(), memory]
    return [Stage('fragmented', questions, rows, fragmented_image, works), whole_map_stage()]


def whole_map_stage():
    group = Group('The whole map (the same disk)', ['vdimap', 'qemu-img map'],
                  'Printed to /dev/null. `qemu-img map --output=json` is run once, since it takes so long; the factor '
                  'says how many times as fast as it is. The bytes read are compared with the size of the tables.')
    rows = [Row('time', 's', 'qemu-img map', [Target('vdimap', '>=', 50, 'qemu-img map', as_fast=True)]),
            Row('bytes read, times the metadata', 'x', None, [Target('vdimap', '<=', 1.05)]),
            Row('peak memory', 'MiB', None)]

    def works(bench, image):
        runs = {'vdimap': Runs(bench, bench.vdimap, image.path),
                'qemu-img map': Runs(bench, 'qemu-img', 'map', '--output=json', image.path)}
        whats = (lambda run, n: run(n, 'seconds'), lambda run, n: run(n, 'bytes') / image.metadata,
                 lambda run, n: run(n, 'MiB'))
        for row, what in zip(rows, whats):
            yield row, {name: lambda n, r=run: what(r, n) for name, run in runs.items()}

    return Stage('map', group, rows, fragmented_image, works)


# What the sandbox costs.

def sandbox_stage():
    """The same work with and without it; both have the two processes."""
    columns = ['sandbox', 'off']
    group = Group('What the sandbox costs (QCOW2, plain)', columns,
                  'vdifs and vdimap as they are, and with --sandbox=off. The disk of the first table.')
    rows = {name: Row(name, unit, 'off') for name, unit in (
        ('sequential 64 KiB', 'MB/s'), ('sequential 1 MiB, --direct', 'MB/s'), ('random 4 KiB, 1 thread', '/s'),
        ('random 4 KiB, 4 threads', '/s'), ('mount to first byte', 'ms'), ('vdimap', 's'), ('peak memory', 'MiB'))}

    def works(bench, image):
        def of(measure, mode=0, *more):
            found = {}
            for column, option in zip(columns, ('--sandbox=auto', '--sandbox=off')):
                candidate = candidates.vdifs_candidates(bench.vdifs, [*bench.vdifs_option, option])[mode]
                candidate.name += option
                found[column] = lambda _, c=candidate: measure(bench, c, image, *more)
            return found

        def run_vdimap(bench, candidate, image):
            option = candidate.name[candidate.name.index('--sandbox'):]
            return bench.reader('run', bench.vdimap, option, image.path)[0]

        yield rows['sequential 64 KiB'], of(sequential, 0, 64 * KIB)
        yield rows['sequential 1 MiB, --direct'], of(sequential, 1, MIB)
        yield rows['random 4 KiB, 1 thread'], of(at_random, 0, 1)
        yield rows['random 4 KiB, 4 threads'], of(at_random, 0, 4)
        yield rows['mount to first byte'], of(first_byte, 0, 0)
        yield rows['vdimap'], of(run_vdimap)
        yield rows['peak memory'], of(peak_of_mount)

    return Stage('sandbox', group, list(rows.values()), plain_image, works, 'plain')


# The disk as a QCOW2 stream.

def view_mount(bench, image, shows, options):
    """A mount with both files; `shows` says which of them is read."""
    point = os.path.join(bench.work, 'views')
    return candidates.Mount([bench.vdifs, '--qcow2', *options, *bench.vdifs_option, image.path, point], point, None,
                            True, log=os.path.join(bench.work, 'log'), shows=shows)


def read_view(bench, image, shows, size, options=()):
    bench.touch_memory(image.data_bytes * 5 // 4)
    with view_mount(bench, image, shows, options) as file:
        os.stat(file)           # waits for the map, which the raw view does not need
        wait_for_map(file)
        return bench.reader('seq', file, size, SEQ_LIMIT / bench.haste, file)[0]


def convert_view(bench, image, shows):
    """Seconds until a QCOW2 image stands in the tmpfs; compared with the disk the first time."""
    if not bench.tmpfs:
        raise Failure('no tmpfs')
    out = os.path.join(bench.tmpfs, 'out')
    bench.touch_memory(image.data_bytes * 9 // 4)
    try:
        if shows:
            with view_mount(bench, image, shows, ()) as file:
                seconds = bench.reader('run', 'cp', '--sparse=always', file, out)[0]
        else:
            seconds = bench.reader('run', 'qemu-img', 'convert', '-O', 'qcow2', image.path, out)[0]
        if not bench.once(('view', shows, image.path), lambda: subprocess.run(
                ['qemu-img', 'compare', '-q', '-f', 'qcow2', '-F', 'raw', out, image.native]).returncode == 0):
            raise Failure('the copy differs')
        return seconds
    finally:
        if os.path.exists(out):
            os.unlink(out)


def view_stage():
    name = 'plain'
    group = Group('The disk as a QCOW2 stream', ['NAME.qcow2', 'NAME.raw', 'qemu-img convert'],
                  'Both files of one mount, with --qcow2. The disk of the first table; of the raw file its data is '
                  'read. The last row makes a QCOW2 image of it in the tmpfs.')
    as_fast = [Target('NAME.qcow2', '>=', 1, 'NAME.raw')]
    rows = [Row('QCOW2 stream, ' + words, 'MB/s', 'NAME.raw', as_fast)
            for words in ('sequential 64 KiB', 'sequential 1 MiB', 'sequential 1 MiB, --direct')]
    conversion = Row('QCOW2 stream, conversion', 's', 'qemu-img convert', [Target('NAME.qcow2', '<=', 1,
                                                                                 'qemu-img convert')])

    def works(bench, image):
        for row, (size, options) in zip(rows, ((64 * KIB, ()), (MIB, ()), (MIB, ('--direct',)))):
            yield row, {'NAME' + end: lambda _, s=name + end: read_view(bench, image, s, size, options)
                        for end in ('.qcow2', '.raw')}
        yield conversion, {'NAME.qcow2': lambda _: convert_view(bench, image, name + '.qcow2'),
                           'qemu-img convert': lambda _: convert_view(bench, image, None)}

    return Stage('view', group, [*rows, conversion], plain_image, works, 'plain')


# How the costs grow with the disk.

SCALE_UNITS = {'first byte': 'ms', 'last byte': 'ms', 'QSD, first byte': 'ms', 'vdimap': 's', 'read / metadata': 'x',
               'vdimap, peak': 'MiB', 'vdifs, peak': 'MiB'}


def scale_row(name):
    return Row(name, SCALE_UNITS, None, [Target('first byte', '<=', FIRST_BYTE_BOUND),
                                         Target('last byte', '<=', FIRST_BYTE_BOUND),
                                         Target('vdifs, peak', '<=', MEMORY_BOUND)])


def scale_works(bench, image, row):
    vdifs, qsd = bench.candidates['vdifs'], bench.candidates['QSD']
    run = Runs(bench, bench.vdimap, image.path)
    yield row, {
        'first byte': lambda _: first_byte(bench, vdifs, image, 0),
        'last byte': lambda _: first_byte(bench, vdifs, image, image.last_data),
        'QSD, first byte': lambda _: first_byte(bench, qsd, image, 0),
        'vdimap': lambda n: run(n, 'seconds'),
        'read / metadata': lambda n: run(n, 'bytes') / image.metadata,
        'vdimap, peak': lambda n: run(n, 'MiB'),
        'vdifs, peak': lambda _: peak_of_mount(bench, vdifs, image),
    }


def growth_row(name, rows):
    """From the first of these rows to the last; filled when both are."""
    row = Row(name, 'x', None, [Target('first byte', '<=', 1.25), Target('last byte', '<=', 1.25)])
    small, large = rows[0].cells, rows[-1].cells
    for column in SCALE_UNITS:
        if isinstance(small.get(column), list) and isinstance(large.get(column), list):
            row.cells[column] = [b / a if a else 1.0 for a, b in zip(small[column], large[column])]
    return row


def scale_stages(quick):
    group = Group('Growth with the size of the disk', list(SCALE_UNITS),
                  'QCOW2 in clusters of 2 MiB with all of its tables, every cluster allocated or every other one; '
                  'dynamic VHD with every block there and its bitmap full, in a tmpfs if that has 5 GiB. From the '
                  'start of the command to a byte of the first and of the last data of the disk. The peaks are of the '
                  'whole process; that of vdifs with the map complete and after seeks. The last lines say by how much '
                  'each cost grows from the smallest disk to the largest.', 'disk')
    stages, families = [], {}
    for every, what in ((1, 'every cluster'), (2, 'every other cluster')):
        for size in ((1, 2) if quick else (1, 4, 16, 64)):
            row = scale_row('QCOW2 %d TiB, %s' % (size, what))
            families.setdefault('QCOW2, %s' % what, []).append((size, row))
            stages.append(scale_stage(group, row, lambda bench, s=size * TIB, e=every: images.make_full_qcow2(
                os.path.join(bench.work, 'scale.qcow2'), s, 21, e)))
    for size in ((8, 16) if quick else (32, 128, 510, 2040)):
        row = scale_row('VHD %d GiB' % size)
        families.setdefault('VHD', []).append((size, row))
        stages.append(scale_stage(group, row, lambda bench, s=size * GIB: full_vhd_image(bench, s)))
    group.finish = lambda: [growth_row('growth of %s, %g times the disk' % (name, rows[-1][0] / rows[0][0]),
                                       [row for _, row in rows])
                            for name, rows in families.items() if all(row.cells for _, row in rows)]
    return stages


def scale_stage(group, row, make):
    return Stage('scale', group, [row], make, lambda bench, image: scale_works(bench, image, row))


# The images, and the order of things.

def plain_image(bench):
    return images.convert(bench.disk, os.path.join(bench.work, 'plain.qcow2'), 'cluster_size=64k')


def fragmented_image(bench):
    size = 128 * GIB if bench.quick else TIB
    return images.make_full_qcow2(os.path.join(bench.work, 'fragmented.qcow2'), size, 16, 2)


def converted(name, options, *more):
    return lambda bench: images.convert(bench.disk, os.path.join(bench.work, name + '.qcow2'), options, *more)


def dynamic_image(bench):
    return images.make_dynamic_vhd(bench.disk, os.path.join(bench.work, 'dynamic.vhd'))


def differencing_image(bench):
    dynamic = dynamic_image(bench)
    image = images.make_differencing_vhd(bench.disk, bench.work, dynamic)
    image.files.append(dynamic.path)
    return image


def full_vhd_image(bench, size):
    """In the tmpfs if it has the room: a million small extents are slow to write and very slow to remove elsewhere."""
    need = images.full_vhd_host_bytes(size) + GIB // 4
    folder = bench.tmpfs if bench.tmpfs and shutil.disk_usage(bench.tmpfs).free > need else bench.work
    return images.make_full_vhd(os.path.join(folder, 'scale.vhd'), size)


def make_disk(name, path, quick):
    part = 8 if quick else 1
    if name == 'usr':
        return images.make_usr_disk(path, 64 * MIB if quick else 700 * MIB)
    size, data, piece = {'plain': (8 * GIB // part, 2 * GIB // part, MIB),
                         'large': (8 * GIB // part, 2 * GIB // part, 32 * MIB),
                         'blocks': (8 * GIB // part, 2 * GIB // part, 2 * MIB),
                         'tools': (400 * MIB // part, 256 * MIB // part, MIB)}[name]
    return images.make_disk(path, size, data, piece)


def all_stages(quick):
    large = ['64 KiB', '256 KiB', '1 MiB']
    plain = merged(both(large, 'vdifs', (2, 2, 2)), both(large[1:], 'vdifs --direct', (4, 4)),
                   both(large[1:], 'vdifs --direct', (0.3, 0.45), 'native'))
    vhd = merged(both(['1 MiB'], 'vdifs', (4,)), both(['1 MiB'], 'vdifs --direct', (8,)))
    every = ['4 KiB', *large]
    return [
        reading_stage('plain', 'QCOW2, plain', 'plain', plain_image, 'qcow2', plain,
                      'A disk of 8 GiB with 2 GiB of data in pieces of 1 MiB, clusters of 64 KiB.'),
        reading_stage('large', 'QCOW2, plain, in large pieces', 'large', plain_image, 'qcow2', plain,
                      'The same, but in pieces of 32 MiB.'),
        reading_stage('extended', 'QCOW2, extended L2 entries', 'plain',
                      converted('extended', 'cluster_size=64k,extended_l2=on'), 'qcow2', {}, 'The same disk.'),
        reading_stage('chain', 'QCOW2, chain of 8 layers', 'plain',
                      lambda bench: images.make_chain(bench.disk, bench.work), 'qcow2', {},
                      'The same disk, each layer with every eighth piece.'),
        sandbox_stage(),
        view_stage(),
        tools_stage(),
        reading_stage('zlib', 'QCOW2, compressed with zlib', 'usr',
                      converted('zlib', 'cluster_size=64k', '-c'), 'qcow2',
                      both(every, 'vdifs', (4,) * 4), 'Files of /usr, about 700 MiB; no holes.', CompressedCopy()),
        reading_stage('zstd', 'QCOW2, compressed with zstd', 'usr',
                      converted('zstd', 'cluster_size=64k,compression_type=zstd', '-c'), 'qcow2',
                      both(every, 'vdifs', (3,) * 4), 'The same disk.', CompressedCopy()),
        reading_stage('dynamic', 'VHD, dynamic', 'blocks', dynamic_image, 'vhd', vhd,
                      'A disk of 8 GiB with 2 GiB of data in pieces of 2 MiB, which are its blocks.'),
        reading_stage('differencing', 'VHD, differencing', 'blocks', differencing_image, 'vhd', vhd,
                      'The same disk. Half of the blocks are in the parent alone; in the others child and parent take '
                      'turns every 128 KiB. QEMU, which reads such images wrongly, reads the dynamic image above.'),
        *fragmented_stages(),
        *scale_stages(quick),
    ]
