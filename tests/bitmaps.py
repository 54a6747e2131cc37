#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Incremental backups from dirty bitmaps: random chains made with qemu-img and qemu-io.

    tests/bitmaps.py [--builddir DIR] [--seed N] [--count N] [--only K --keep DIR]

A history has 1 to 6 layers.  Bitmaps are added, disabled, enabled, removed and merged; the disk is written to and
resized; in some, one layer is damaged at the end.  A model, which reads no image, follows it: what the disk holds, what
each bitmap has recorded, and what the disk was when the bitmap was made.  Then `vdimap --bitmap=NAME` must list just what
the model has recorded, or refuse where the model says that a change can be missing, naming the layer.  And a backup is
made: the disk as it was at the checkpoint, with today's bytes of the listed clusters.  It must be today's disk, as QEMU
reads it.

40 histories; 20 with VD_SHORT=1 in the environment, 500 with VD_NIGHTLY=1.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import oracle                                                                  # noqa: E402
import resolver                                                                # noqa: E402
from oracle import Failure, Programs, run                                      # noqa: E402
from tap import Tap, effort                                                    # noqa: E402

COUNT = effort(20, 40, 500)
ENOUGH = 60             # histories in which all kinds of answers come up
BATCH = 20
SECTOR = 512
NAMES = ('monday', 'tuesday', 'nightly')


def tool(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError('%s: %s' % (' '.join(command), done.stdout.decode(errors='replace')))


def outward(ranges, unit, size):
    return resolver.merge([(a // unit * unit, min(-(-b // unit) * unit, size)) for a, b in sorted(ranges) if a < size])


class Bitmap:
    """What a bitmap has recorded; `before` is the disk when it was made, `since` the number of events before."""

    def __init__(self, granularity, recording, before, since):
        self.granularity, self.recording, self.before, self.since = granularity, recording, before, since
        self.dirty, self.in_use = [], False

    def mark(self, ranges):
        self.dirty += ranges


class Layer:
    def __init__(self, path, kind, size):
        self.path, self.kind, self.size = path, kind, size
        self.bitmaps, self.removed, self.invalid = {}, set(), False


class History:
    """The chain, and the model of it.  layers[-1] is the top."""

    def __init__(self, rng, folder):
        self.rng, self.folder = rng, folder
        self.layers, self.disk = [], b''
        self.writes = []            # (number of the event, names that recorded it)
        self.sizes = []             # (number of the event, was it a resize of one layer, size)
        self.events, self.commands = 0, []
        self.new_layer()

    # What the chain goes through.

    def tool(self, *words):
        self.commands.append(' '.join(words))
        tool(*words)

    def new_layer(self):
        rng, number = self.rng, len(self.layers)
        size = rng.randint(1, 4000) * SECTOR
        if self.layers and rng.random() < 0.7:
            size = len(self.disk)
        kind = rng.choice(('qcow2', 'qcow2', 'qcow2', 'raw', 'vpc')) if not self.layers else 'qcow2'
        layer = Layer(os.path.join(self.folder, 'layer%d.%s' % (number, kind)), kind, size)
        words = ['qemu-img', 'create', '-q', '-f', kind]
        if kind == 'qcow2':
            words += ['-o', 'cluster_size=%d' % (1 << rng.randint(12, 16))]
        elif kind == 'vpc':
            words += ['-o', 'force_size=on']
        if self.layers:
            words += ['-b', self.layers[-1].path, '-F', self.layers[-1].kind]
        self.tool(*words, layer.path, str(size))
        inherited = self.layers[-1].bitmaps if self.layers else {}
        self.layers.append(layer)
        self.resized(size, False)
        for name in inherited:
            if rng.random() < 0.93:
                self.add(name)

    def resized(self, size, inside):
        self.disk = self.disk[:size].ljust(size, b'\0')
        self.events += 1
        self.sizes.append((self.events, inside, size))

    def add(self, name=None):
        top, rng = self.layers[-1], self.rng
        free = [n for n in NAMES if n not in top.bitmaps and n not in top.removed] if name is None else [name]
        if not free or top.kind != 'qcow2':
            return
        name, recording = rng.choice(free), rng.random() < 0.95
        granularity = 1 << rng.randint(9, 18)
        self.tool('qemu-img', 'bitmap', '--add', *([] if recording else ['--disable']), '-g', str(granularity), top.path, name)
        self.events += 1
        top.bitmaps[name] = Bitmap(granularity, recording, self.disk, self.events)

    def write(self):
        top, rng = self.layers[-1], self.rng
        commands, recorders = [], {name for name, one in top.bitmaps.items() if one.recording}
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(self.disk)) // SECTOR * SECTOR
            length = min(len(self.disk) - at, rng.choice((512, 512, 4096, 65536, 200 * 1024)))
            pattern = rng.randint(0, 255)
            commands += ['-c', 'write -z %d %d' % (at, length) if pattern == 0 else 'write -P %d %d %d' % (pattern, at, length)]
            self.disk = self.disk[:at] + bytes([pattern]) * length + self.disk[at + length:]
            for name in recorders:
                top.bitmaps[name].mark([(at, at + length)])
        self.tool('qemu-io', '-f', top.kind, *commands, top.path)
        self.events += 1
        self.writes.append((self.events, recorders))

    def switch(self):
        top, rng = self.layers[-1], self.rng
        if not top.bitmaps:
            return
        name = rng.choice(sorted(top.bitmaps))
        on = not top.bitmaps[name].recording
        self.tool('qemu-img', 'bitmap', '--enable' if on else '--disable', top.path, name)
        top.bitmaps[name].recording = on

    def remove(self):
        top, rng = self.layers[-1], self.rng
        if top.bitmaps:
            name = rng.choice(sorted(top.bitmaps))
            self.tool('qemu-img', 'bitmap', '--remove', top.path, name)
            del top.bitmaps[name]
            top.removed.add(name)

    def merge(self):
        top, rng = self.layers[-1], self.rng
        if len(top.bitmaps) > 1:
            source, target = rng.sample(sorted(top.bitmaps), 2)
            self.tool('qemu-img', 'bitmap', '--merge', source, top.path, target)
            one = top.bitmaps[source]
            top.bitmaps[target].mark(outward(one.dirty, one.granularity, top.size))

    def resize(self):
        top, rng = self.layers[-1], self.rng
        size = int(top.size * rng.choice((0.6, 1.4, 1.4, 1.8))) // SECTOR * SECTOR
        if size < top.size:                           # QEMU keeps the rest of a cluster that is cut, and shows it later
            size = size // 65536 * 65536
        if top.kind != 'qcow2' or size == 0:
            return
        self.tool('qemu-img', 'resize', '-q', '-f', 'qcow2', *(['--shrink'] if size < top.size else []), top.path, str(size))
        for one in top.bitmaps.values():              # what is cut off is not dirty when it comes back
            one.dirty = [(a, min(b, size)) for a, b in outward(one.dirty, one.granularity, top.size) if a < size]
        top.size = size
        self.resized(size, True)

    def damage(self):
        """One bitmap is in use, or a program that does not know bitmaps has written to a layer."""
        layers = [layer for layer in self.layers if layer.bitmaps]
        if not layers:
            return
        layer = self.rng.choice(layers)
        with open(layer.path, 'r+b') as file:
            data = file.read()
            if self.rng.random() < 0.4:
                file.seek(88)
                file.write(bytes(8))
                layer.invalid = True
                return
            extension = data.index(struct.pack('>II', 0x23852875, 24), 104) + 8
            count, _, size, at = struct.unpack_from('>IIQQ', data, extension)
            for number in range(count):
                flags, _, _, name_bytes, extra = struct.unpack_from('>IBBHI', data, at + 12)
                name = data[at + 24 + extra:at + 24 + extra + name_bytes].decode()
                if number == count - 1 or self.rng.random() < 0.5:
                    file.seek(at + 12)
                    file.write(struct.pack('>I', flags | 1))
                    layer.bitmaps[name].in_use = True
                    return
                at += -(-(24 + extra + name_bytes) // 8) * 8

    def live(self):
        rng = self.rng
        for _ in range(rng.randint(2, 12)):
            choice = rng.choices((self.write, self.new_layer, self.add, self.switch, self.remove, self.merge, self.resize),
                                 (8, 4 if len(self.layers) < 6 else 0, 5, 0.8, 0.4, 0.7, 1))[0]
            choice()
        if rng.random() < 0.15:
            self.damage()

    # What vdimap must say of it.

    def lowest(self, name):
        """The lowest layer that has the bitmap, as a number from the bottom, or None."""
        return next((n for n, layer in enumerate(self.layers) if name in layer.bitmaps), None)

    def refusal(self, names, stopped):
        """The file that a refusal may be about, as a set, or an empty set: there is no reason for one."""
        top, wrong = self.layers[-1].path, set()
        for layer in self.layers:
            if layer.invalid:
                return {layer.path}
        for name in names:
            if self.lowest(name) is None:
                wrong.add(top)
                continue
            for layer in self.layers[self.lowest(name):]:
                if name not in layer.bitmaps or layer.bitmaps[name].in_use:
                    wrong.add(layer.path)
        for layer in self.layers:
            named = [layer.bitmaps[name] for name in names if name in layer.bitmaps]
            if named and not stopped and not any(one.recording for one in named):
                wrong.add(layer.path)
        return wrong

    def recorded(self, names):
        """What the bitmaps of these names list, and the finest granularity."""
        size, ranges, finest = len(self.disk), [], []
        for layer in self.layers:
            for one in [layer.bitmaps[name] for name in names if name in layer.bitmaps]:
                ranges += outward(one.dirty, one.granularity, layer.size)
                finest.append(one.granularity)
        # What an upper layer has cut off from a lower one has changed, too.
        lowest = max(0, min(self.lowest(name) for name in names))
        cuts, tallest = [], self.layers[lowest].size
        for layer in self.layers[lowest + 1:]:
            if layer.size < tallest:
                cuts.append((layer.size, tallest))
            tallest = max(tallest, layer.size)
        if cuts:
            ranges.append((min(a for a, _ in cuts), max(b for _, b in cuts)))
        return outward([(a, min(b, size)) for a, b in ranges if a < size], min(finest), size), min(finest)

    def is_complete(self, name, names):
        """Can the bitmaps know all that has happened since the first one of this name was made?"""
        since = self.layers[self.lowest(name)].bitmaps[name].since
        if any(not recorders & set(names) for number, recorders in self.writes if number > since):
            return False
        sizes = [(False, len(self.layers[self.lowest(name)].bitmaps[name].before))] + [
            (inside, size) for number, inside, size in self.sizes if number > since]
        least, inside_since = sizes[0][1], False      # a disk that is cut in one layer and grows again
        for (_, before), (inside, size) in zip(sizes, sizes[1:]):
            inside_since = inside_since or inside
            if size > least and least < before and inside_since:
                return False
            least = min(least, size)
        return least >= min(size for _, size in sizes) and not (inside_since and least < len(self.disk) and any(
            size < before for (_, before), (_, size) in zip(sizes, sizes[1:])))


def backup(before, disk, clusters, unit):
    out = bytearray(before[:len(disk)].ljust(len(disk), b'\0'))
    for first, last in clusters:
        a, b = first * unit, min((last + 1) * unit, len(disk))
        out[a:b] = disk[a:b]
    return bytes(out)


def ask(program, history, names, stopped, tally):
    words = ['--bitmap=' + name for name in names] + (['--stopped-bitmaps'] if stopped else [])
    path = history.layers[-1].path
    status, text, log = run(program, '--backing-format=' + history.layers[0].kind, *words, path) if len(
        history.layers) == 2 and history.layers[0].kind == 'vpc' else run(program, *words, path)
    wrong = history.refusal(names, stopped)
    if wrong:
        tally['refused'] += 1
        if status == 0 or text or log.count('\n') != 1 or not any(name in log for name in wrong):
            raise Failure('%s: expected a refusal that names one of %s: exit status %d, %s%s' % (words, wrong, status, text, log))
        return
    if status or log:
        raise Failure('%s: exit status %d without a reason: %s' % (words, status, log))
    answer = json.loads(text)
    ranges, finest = history.recorded(names)
    unit, size = 1 << answer['cluster_bits'], len(history.disk)
    listed = [(a * unit, min((b + 1) * unit, size)) for a, b in answer['data_clusters']]
    if answer['virtual_size'] != size or unit != finest or listed != ranges:
        raise Failure('%s: got %s, expected %s in units of %d' % (words, text, ranges, finest))
    tally['listed'] += 1
    for name in names:
        if not history.is_complete(name, names):
            tally['unknowable'] += 1
            continue
        tally['backups'] += 1
        before = history.layers[history.lowest(name)].bitmaps[name].before
        if backup(before, history.disk, answer['data_clusters'], unit) != history.disk:
            raise Failure('%s: the backup since "%s" is not the disk; listed is %s' % (words, name, text))


def check(program, history, tally):
    raw = os.path.join(history.folder, 'disk.raw')
    tool('qemu-img', 'convert', '-O', 'raw', history.layers[-1].path, raw)
    with open(raw, 'rb') as file:
        if file.read() != history.disk:
            raise Failure('the model of the disk is wrong: QEMU reads something else')
    names = sorted({name for layer in history.layers for name in layer.bitmaps}) or ['nightly']
    for name in names:
        ask(program, history, [name], False, tally)
    ask(program, history, names, False, tally)
    ask(program, history, names, True, tally)


def one(program, seed, number, keep, tally):
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix='vd-bitmaps-'))
        os.makedirs(folder, exist_ok=True)
        history = None
        try:
            history = History(random.Random('bitmaps %d/%d' % (seed, number)), os.path.realpath(folder))
            history.live()
            check(program, history, tally)
        except (Failure, OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            return 'history %d (bitmaps.py --seed %d --only %d --keep DIR): %s: %s\n%s' % (
                number, seed, number, type(error).__name__, error, '\n'.join(history.commands) if history else '')
    return None


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--count', type=int, default=COUNT)
    parser.add_argument('--only', type=int, default=None)
    parser.add_argument('--keep', default=None)
    args = parser.parse_args()
    for name in ('qemu-img', 'qemu-io'):
        if shutil.which(name) is None:
            print('1..0 # SKIP %s is not installed' % name)
            return 0
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap'):
        return tap.bail('not built: vdimap')
    seed = args.seed if args.seed is not None else int(os.environ.get('VD_SEED') or random.SystemRandom().randrange(1 << 31))
    tap.note('seed %d, %d histories' % (seed, args.count))
    numbers = [args.only] if args.only is not None else list(range(args.count))
    tally = dict.fromkeys(('listed', 'refused', 'backups', 'unknowable'), 0)
    for start in range(0, len(numbers), BATCH):
        batch = numbers[start:start + BATCH]
        wrong = [text for text in (one(programs.vdimap, seed, number, args.keep, tally) for number in batch) if text]
        tap.ok(not wrong, 'histories %d to %d of seed %d: what is listed makes a right backup, what may be missing is refused' % (
            batch[0], batch[-1], seed), '\n'.join(wrong))
    tap.note(', '.join('%s: %d' % pair for pair in tally.items()))
    if args.only is None and args.count >= ENOUGH:
        tap.ok(all(tally[name] * 10 > args.count for name in ('listed', 'refused', 'backups')),
               'all kinds of answers have come up', str(tally))
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
