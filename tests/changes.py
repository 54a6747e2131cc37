#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vdimap --diff and --compare on random pairs of images, against a comparison byte by byte.

    tests/changes.py [--builddir DIR] [--seed N] [--count N] [--only K --keep DIR]

Every tenth pair is two images that have nothing to do with each other, an image and what it stands on, one and an overlay
of it written by QEMU, or a snapshot and the current disk.  The others are made by lib/twins.py, also behind bindfs, through
two mounts and with shared blocks.  lib/resolver.py says what the disks hold and where: what has the same bytes of the same
file in both, or zeros, must not be listed; everything else must, and with --compare exactly the clusters that differ.

500 pairs; 60 with VD_SHORT=1 in the environment, 5,000 with VD_NIGHTLY=1.
"""
import argparse
import collections
import contextlib
import glob
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import oracle                                                                  # noqa: E402
import random_images                                                           # noqa: E402
import resolver                                                                # noqa: E402
import twins                                                                   # noqa: E402
from oracle import Failure, Programs, run                                      # noqa: E402
from qcow2_writer import Qcow2                                                 # noqa: E402
from tap import Tap, effort, spare_leak_searches                               # noqa: E402

COUNT = effort(60, 500, 5000)
ENOUGH = 500            # pairs in which all kinds come up
BATCH = 100
PER_QEMU = 10                  # every tenth pair is made by QEMU: that takes time


class Side:
    """One image of a pair, open."""

    def __init__(self, path, options=(), opening=None):
        self.path, self.options, self.opening = path, list(options), dict(opening or {})
        self.disk = resolver.open_disk(path, **self.opening)


def identity(kind, argument):
    """Two pieces with the same identity have the same bytes; None: that cannot be said.  A file is its path: numbers lie."""
    if kind in resolver.HOLES:
        return 'zero'
    if kind == resolver.HOST:
        file, where = argument
        return 'host', file.path, where
    if kind == resolver.CODED:
        layer, number, where, length = argument
        return layer.file.path, 'coded', number, where, length, layer.cluster_bits
    return None


def advance(identity_of, by):
    """The identity `by` bytes further on."""
    if isinstance(identity_of, tuple) and identity_of[0] == 'host':
        return identity_of[0], identity_of[1], identity_of[2] + by
    return identity_of


def unproven(old, new):
    """[(start, end)] of the new disk that the tables do not prove equal."""
    out, place, rows = [], 0, old.pieces() + [(old.size, max(old.size, new.size) + 1, resolver.HOLE, None)]
    for lo, hi, kind, argument in new.pieces():
        at = lo
        while at < hi:
            while rows[place][1] <= at:
                place += 1
            a, b, old_kind, old_argument = rows[place]
            end = min(hi, b)
            left = advance(identity(old_kind, old_argument), at - a)
            right = advance(identity(kind, argument), at - lo)
            if left is None or right is None or left != right:
                out.append((at, end))
            at = end
    return resolver.merge(out)


def text_of(ranges, new, bad=()):
    unit = 1 << new.cluster_bits
    pairs, lost = (','.join('[%d,%d]' % (a // unit, (b - 1) // unit) for a, b in resolver.round_outward(rows, unit, new.size))
                   for rows in (ranges, bad))
    return '{"virtual_size":%d,"cluster_bits":%d,"data_clusters":[%s]%s}' % (
        new.size, new.cluster_bits, pairs, lost and ',"unreadable":[%s]' % lost)


def differing(old, new):
    """Clusters of the new disk that differ or cannot be read, as ranges."""
    unit = 1 << new.cluster_bits
    left, right = old.contents()[:new.size].ljust(new.size, b'\0'), new.contents()
    out = [(at, min(at + unit, new.size)) for at in range(0, new.size, unit) if left[at:at + unit] != right[at:at + unit]]
    return out, resolver.merge(sorted((a, min(b, new.size)) for a, b in old.eio() + new.eio() if a < new.size))


def covers(ranges, inner, what):
    left = oracle.subtract(inner, ranges)
    if left:
        raise Failure('%s: %s' % (what, left[:5]))


def check_pair(program, old, new):
    options = list(new.options)
    if old.opening.get('format'):
        options.append('--old-format=' + old.opening['format'])
    if old.opening.get('snapshot'):
        options.append('--old-snapshot=' + old.opening['snapshot'])
    options += ['--old-backing-file=' + name for name in old.opening.get('backing_files', ())]
    if old.opening.get('data_file'):
        options.append('--old-data-file=' + old.opening['data_file'])
    options.append('--diff=' + old.path)
    status, text, log = run(program, *options, new.path)
    ranges = unproven(old.disk, new.disk)
    bad = resolver.merge(sorted((a, min(b, new.disk.size)) for a, b in old.disk.metadata_bad() + new.disk.metadata_bad()
                                if a < new.disk.size))
    if text != text_of(ranges, new.disk, bad):
        raise Failure('--diff: got %s, expected %s; %s' % (text[:1200], text_of(ranges, new.disk, bad)[:1200], log[:300]))
    if status != (3 if bad else 0):
        raise Failure('--diff: exit status %d: %s' % (status, log[:500]))
    real, eio = differing(old.disk, new.disk)
    unit = 1 << new.disk.cluster_bits
    covers(resolver.round_outward(ranges, unit, new.disk.size), real, 'real differences are not listed')
    status, text, log = run(program, *options, '--compare', new.path)
    if not eio:
        if status or text != text_of(real, new.disk):
            raise Failure('--compare: exit status %d, got %s, expected %s; %s' % (
                status, text[:1200], text_of(real, new.disk)[:1200], log[:300]))
        return
    told = [(a * unit, (b + 1) * unit) for a, b in json.loads(text)['data_clusters']]
    covers(told, real, '--compare does not list real differences')
    covers(resolver.merge(sorted(real + resolver.round_outward(eio, max(unit, 1 << 21), new.disk.size))),
           [(a, min(b, new.disk.size)) for a, b in told], '--compare lists what is equal')


def side_of(image):
    return Side(image.path, image.options, image.opening)


def lower_of(image):
    """The layer below an image as an image of its own, where its name says what it is."""
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.dirname(image.path)), '**', 'layer1.*'), recursive=True)):
        kind = {'.qcow2': None, '.vhd': None, '.img': 'raw'}.get(os.path.splitext(path)[1], '')
        if kind != '':
            return Side(path, (), {'format': kind} if kind else {})
    return None


def overlay_of(image, rng):
    """A QCOW2 image on top, with some writes."""
    path = os.path.join(os.path.dirname(image.path), 'overlay.qcow2')
    size = os.stat(image.path).st_size and resolver.open_disk(image.path, **image.opening).size
    name = {'qcow2': 'qcow2', 'raw': 'raw'}.get(image.qemu_driver, 'vpc')
    new_size = max(512, int(size * rng.choice((0.5, 1, 1, 1, 1.5))) // 512 * 512)
    random_images.run('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-b', image.path, '-F', name, '-o',
                      'cluster_size=%d' % (1 << rng.randint(9, 18)), path, str(new_size), folder=os.path.dirname(path))
    commands = []
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(new_size) // 512 * 512
        length = min(new_size - at, rng.choice((512, 4096, 65536, 200 * 1024)))
        commands += ['-c', '%s %d %d' % (rng.choice(('write -P 7', 'write -z', 'write -P 0')), at, length)]
    if commands and image.qemu and name != 'vpc':
        random_images.run('qemu-io', *commands, path, folder=os.path.dirname(path))
    policy = {'backing': image.opening['backing']} if 'backing' in image.opening else {}
    return Side(path, ['--backing=any'] if policy else [], policy)


def history(folder, rng):
    """Two states of one image with internal snapshots: clusters shared, moved, and compressed anew."""
    os.makedirs(folder, exist_ok=True)
    path, size = os.path.join(folder, 'history.qcow2'), rng.randint(1, 3000) * 512
    options = 'cluster_size=%d,compression_type=%s' % (1 << rng.randint(9, 16), rng.choice(('zlib', 'zstd')))
    random_images.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path, str(size))
    for step in range(3):
        commands = []
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(size) // 512 * 512
            length = min(size - at, rng.choice((512, 4096, 65536, 300 * 1024)))
            commands += ['-c', '%s %d %d' % (rng.choice(('write -P %d' % rng.randint(0, 3), 'write -P 9', 'write -z')), at, length)]
        unit = min(size // 65536 * 65536, 4 * 65536)
        if unit:                                     # compressed clusters come whole, and only where there is none yet
            commands += ['-c', 'discard 0 %d' % unit, '-c', 'write -c -P %d 0 %d' % (rng.randint(1, 3), unit)]
        random_images.run('qemu-io', *commands, path)
        random_images.run('qemu-img', 'snapshot', '-c', 'state%d' % step, path)
    sides = [Side(path, ['--snapshot=state%d' % n], {'snapshot': 'state%d' % n}) for n in range(3)] + [Side(path)]
    return tuple(rng.sample(sides, 2))


def make_pair(seed, number, folder):
    """(old, new), or None where one of them is refused."""
    rng = random.Random('pair %d/%d' % (seed, number))
    kind = rng.choice(('lower', 'overlay', 'overlay', 'snapshot', 'history', 'history', 'other', 'same'))
    if kind == 'history':
        return history(folder, rng)
    image = random_images.make(seed, number, folder)
    try:
        new, old = side_of(image), None
        if kind == 'lower':
            old = lower_of(image)
        elif kind == 'overlay' and not image.snapshot and 'data_file' not in image.opening and not image.opening.get(
                'backing_files'):
            old, new = new, overlay_of(image, rng)
        elif kind == 'snapshot' and image.snapshot:
            old, new = new, Side(image.path, [o for o in image.options if 'snapshot' not in o],
                                 {k: v for k, v in image.opening.items() if k != 'snapshot'})
        elif kind == 'same':
            old = new
        if old is None:
            other = random_images.make(seed, number + 100000, os.path.join(folder, 'second'))
            old = side_of(other)
    except (resolver.Refused, OSError):
        return None
    if any(old.opening.get(name) != new.opening.get(name) for name in ('backing', 'vhd_footer')):       # one option for both
        return None
    return old, new


def light_side(path, words, prefix):
    """A Side of a pair of twins.py; the words are options for both, those of the old image with "old-"."""
    opening = {'backing': 'any'} if '--backing=any' in words else {}
    own = [word for word in words if not word.startswith('--old-')] if not prefix else []
    for word in words:
        if word.startswith('--' + prefix + 'snapshot='):
            opening['snapshot'] = word.split('=')[1]
    if path.endswith('.img'):
        opening['format'] = 'raw'
        own.append('--format=raw')
    return Side(path, own, opening)


def light_pair(places, seed, number, tally):
    """A pair that is made without QEMU, and what removes its files."""
    maker = twins.Maker(places, random.Random('light %d/%d' % (seed, number)), number)
    kind, old, new, words = maker.make()
    pair = light_side(old, words, 'old-'), light_side(new, words, '')
    tally[kind] += 1
    one, other = os.stat(old), os.stat(new)
    if old != new and (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (
            other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns):
        tally['equal numbers'] += 1
        tally['equal ctime'] += one.st_ctime_ns == other.st_ctime_ns
    return pair, maker.clear


def one(program, seed, number, keep, places, tally):
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix='vd-changes-'))
        try:
            if number % PER_QEMU:
                pair, clear = light_pair(places, seed, number, tally)
                if not keep:
                    stack.callback(clear)
            else:
                pair = make_pair(seed, number, folder)
            if pair:
                check_pair(program, *pair)
        except Failure as failure:
            return False, 'pair %d (changes.py --seed %d --only %d --keep DIR): %s' % (number, seed, number, failure)
        except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            return False, 'pair %d of seed %d: %s: %s' % (number, seed, type(error).__name__, error)
        return pair is not None, None


def reads_no_data(program, folder):
    """What the tables prove is not read: the file has no bytes where the data would be."""
    base, top = os.path.join(folder, 'base.qcow2'), os.path.join(folder, 'top.qcow2')
    image = Qcow2(base, 1 << 30, cluster_bits=16)
    for cluster in range(64):
        image.set(cluster, 'stream', b'no deflate stream at all')
    image.write()
    over = Qcow2(top, 1 << 30, cluster_bits=12, backing='base.qcow2', backing_format='qcow2')
    over.set(5, 'data', 0x41)
    over.write()
    for words in ((), ('--compare',)):
        status, text, log = run(program, '--diff=' + base, *words, top)
        if status != (3 if words else 0) or json.loads(text)['data_clusters'] != [[5, 5]]:
            return '%s: exit status %d, %s, %s' % (words, status, text, log)
    return None


def sizes(program, folder):
    """The new disk is larger: what is beyond the old one was zeros.  It is smaller: nothing is beyond it."""
    short, long = os.path.join(folder, 'short.qcow2'), os.path.join(folder, 'long.qcow2')
    for path, size in ((short, 1 << 20), (long, 2 << 20)):
        image = Qcow2(path, size, cluster_bits=16)
        image.set(0, 'data', 0x41)
        if path == long:
            image.set(20, 'data', 0x42)
            image.set(22, 'zero')
            image.set(24, 'data', 0)
        image.write()
    for old, new, words, wanted in ((short, long, (), '[[0,0],[20,20],[24,24]]'), (short, long, ('--compare',), '[[20,20]]'),
                                    (long, short, (), '[[0,0]]'), (long, short, ('--compare',), '[]'), (short, short, (), '[]'),
                                    (short, long, ('--cluster-bits=20',), '[[0,1]]')):
        status, text, log = run(program, '--diff=' + old, *words, new)
        if status or not text.endswith('"data_clusters":%s}' % wanted) or \
                ('1048576 bytes more' in log) != ((old, new) == (long, short)):
            return '%s %s %s: %d, %s, %s' % (os.path.basename(old), os.path.basename(new), words, status, text, log)
    return None


def unreadable(program, folder):
    """A unit that cannot be read counts as changed; its neighbours do not."""
    paths = [os.path.join(folder, name) for name in ('a.qcow2', 'b.qcow2')]
    for path in paths:
        image = Qcow2(path, 4 << 20, cluster_bits=12)
        for cluster in range(1024):
            image.set(cluster, 'data', cluster % 255 + 1)
        if path == paths[1]:
            image.set(500, 'stream', b'\xff' * 64)
            image.set(700, 'data', 0)
        image.write()
    status, text, log = run(program, '--diff=' + paths[0], '--compare', paths[1])
    if status != 3 or \
            not text.endswith('"data_clusters":[[500,500],[700,700]],"unreadable":[[500,500]]}') or \
            'bytes 2048000 to 2052095 of the disk cannot be read' not in log:
        return '%d, %s, %s' % (status, text, log)
    return None


def old_files_by_hand(program, folder):
    """Files of the old image are named by options of their own; those of the new one are not for it."""
    for name in ('one', 'other'):
        os.mkdir(os.path.join(folder, name))
    base, data = os.path.join(folder, 'other', 'base.qcow2'), os.path.join(folder, 'other', 'data')
    old, new, outside = (os.path.join(folder, 'one', name) for name in ('old.qcow2', 'new.qcow2', 'outside.qcow2'))
    image = Qcow2(base, 1 << 20, cluster_bits=16)
    image.set(3, 'data', 0x41)
    image.write()
    image = Qcow2(old, 1 << 20, cluster_bits=16, backing='gone.qcow2', backing_format='qcow2')
    image.write()
    image = Qcow2(new, 1 << 20, cluster_bits=16)
    image.set(4, 'data', 0x42)
    image.write()
    random_images.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=%s,cluster_size=65536' % data, outside, '1M')
    random_images.run('qemu-io', '-c', 'write -P 0x43 458752 65536', outside)   # cluster 7
    for words, wanted in ((('--diff=' + old, '--old-backing-file=' + base, new), (0, '[[3,4]]')),
                          (('--diff=' + old, '--old-backing-file=' + base, '--old-backing-format=raw', new), (0, '[[0,')),
                          (('--diff=' + outside, '--old-data-file=' + data, new), (0, '[[4,4],[7,7]]')),
                          (('--diff=' + old, '--backing-file=' + base, new), (1, 'leave --backing-file out')),
                          (('--diff=' + old, new), (1, 'name it with --old-backing-file=PATH')),
                          (('--diff=' + data, new), (1, 'a raw disk needs --old-format=raw')),
                          (('--diff=' + new, '--old-snapshot=x', new), (1, '(--old-snapshot)')),
                          (('--old-data-file=' + data, new), (2, 'need --diff'))):
        status, text, log = run(program, *words)
        if status != wanted[0] or wanted[1] not in text + log:
            return '%s: exit status %d, %s, %s' % (words, status, text, log)
    return None


def compare_all(tap, program, seed, numbers, keep, places, tally):
    for start in range(0, len(numbers), BATCH):
        batch, wrong = numbers[start:start + BATCH], []
        for number in batch:
            compared, message = one(program, seed, number, keep, places, tally)
            tally['compared'] += compared
            wrong += [message] if message else []
        tap.ok(not wrong, 'pairs %d to %d of seed %d differ as a comparison of all bytes says' % (batch[0], batch[-1], seed),
               '\n'.join(wrong))
    tap.note(', '.join('%s: %d' % pair for pair in sorted(tally.items())))


def claims(tap, places, tally, count):
    """The test has tested something."""
    tap.ok(tally['compared'] * 3 >= count * 2, 'most of the pairs could be compared', str(tally))
    tap.ok(all(tally[kind] for kind in places.kinds), 'all kinds of pairs have come up', str(tally))
    for claim, kind, least in (('files with equal numbers, sizes and times were among them', 'twins', count // 20),
                               ('files that share blocks were among them', 'reflink', 1)):
        if kind in places.kinds:
            tap.ok(tally['equal numbers' if kind == 'twins' else kind] >= least, claim, str(tally))
        else:
            tap.skip(claim, places.reasons[kind])


def main():
    oracle.end_cleanly()
    spare_leak_searches(os.environ)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--count', type=int, default=COUNT)
    parser.add_argument('--only', type=int, default=None)
    parser.add_argument('--keep', default=None)
    args = parser.parse_args()
    for name in ('qemu-img', 'qemu-io', 'zstd'):
        if shutil.which(name) is None:
            print('1..0 # SKIP %s is not installed' % name)
            return 0
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap'):
        return tap.bail('not built: vdimap')
    for text, check in (('what the tables prove is not read', reads_no_data), ('disks of different sizes', sizes),
                        ('what cannot be read counts as changed, and no more', unreadable),
                        ('the old image has files by hand of its own', old_files_by_hand)):
        with tempfile.TemporaryDirectory(prefix='vd-changes-') as folder:
            why = check(programs.vdimap, folder)
            tap.ok(not why, text, why)
    seed = args.seed if args.seed is not None else int(os.environ.get('VD_SEED') or random.SystemRandom().randrange(1 << 31))
    tap.note('seed %d, %d pairs' % (seed, args.count))
    numbers = [args.only] if args.only is not None else list(range(args.count))
    tally = collections.Counter()
    with contextlib.ExitStack() as stack:
        root = args.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix='vd-places-'))
        os.makedirs(root, exist_ok=True)
        places = twins.Places(os.path.realpath(root), tap.note)
        stack.callback(places.close)
        places.fill()
        compare_all(tap, programs.vdimap, seed, numbers, args.keep, places, tally)
    if args.only is None and args.count >= ENOUGH:
        claims(tap, places, tally, len(numbers))
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
