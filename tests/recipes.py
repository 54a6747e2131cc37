#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds every recipe of tests/images and holds vdimap, vdcat and vdifs to what it expects.  Prints TAP.

    tests/recipes.py [--builddir DIR] [--mount | --qemu] [NAME...]

NAME is a recipe's name or path, or a shell pattern of names.  Without options, each image is opened by vdimap (which
needs no FUSE) and by vdcat (which copies the disk and says what it saw).  --mount uses vdifs instead: a refused image
must leave nothing mounted, and unreadable ranges must be exactly those through the kernel too.  --qemu asks qemu-img
whether the recipes themselves are right: what their writer means must be what another reader sees.

The language is described in tests/lib/recipe.py.
"""
import argparse
import errno
import filecmp
import fnmatch
import glob
import hashlib
import json
import mmap
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True                                          # a source tree may be read-only
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import qcow2_writer                                                     # noqa: E402
from recipe import Recipe, RecipeError, interval, number, value         # noqa: E402
from tap import Tap, effort, patience, sanitized, spare_leak_searches   # noqa: E402

TIME_LIMIT = 10 * patience()
SANITIZER = re.compile(r'AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error')
PAGE = 4096
ODD_PIECE = 3001
SMALL = 2 << 20
UNREADABLE = 3                  # the exit status of vdcat when parts cannot be read
BAD_IMAGES = 250
STAINED = {'MALLOC_PERTURB_': '165'}   # fresh memory of a program: costs it as much time again


class Outcome:
    """What a program did."""
    def __init__(self, program, status, out, err):
        self.program, self.status, self.out, self.err = program, status, out, err
        self.lines = err.splitlines()

    def broken(self):
        """A reason why no result of this program may be accepted, or None."""
        if self.status is None:
            return 'still running after %d s' % TIME_LIMIT
        if self.status < 0 or self.status >= 128:
            return 'died of signal %d' % (-self.status if self.status < 0 else self.status - 128)
        if SANITIZER.search(self.err):
            return 'a sanitizer spoke'
        return None

    def __str__(self):
        return '%s: status %s\nstdout: %s\nstderr: %s' % (self.program, self.status, self.out[:2000], self.err[:4000])


def find_program(builddir, name):
    for place in (name, 'tests/tools/' + name, 'tests/' + name, 'src/%s/%s' % (name, name)):
        path = os.path.join(builddir, place)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def status_of(process):
    """Wait for its end; None if it must be ended.  Popen.wait with a limit would sleep for up to 50 ms too long."""
    handle = os.pidfd_open(process.pid)
    try:
        in_time = select.select([handle], [], [], TIME_LIMIT)[0]
    finally:
        os.close(handle)
    if not in_time:
        process.kill()
    status = process.wait()
    return status if in_time else None


def run_program(argv, cwd, leaks=True):
    """Output goes through files: a daemon keeps a pipe open for as long as it lives."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        environment = dict(os.environ, LC_ALL='C')
        environment.update(effort({}, STAINED, STAINED))
        if not leaks:
            spare_leak_searches(environment)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment)
        status = status_of(process)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode('utf-8', 'backslashreplace'))
    return Outcome(os.path.basename(argv[0]), status, *texts)


def merge(intervals):
    """Neighbours joined, empty ones dropped: the order and the pieces do not matter, the bytes do."""
    merged = []
    for start, length in sorted(intervals):
        if merged and start <= merged[-1][0] + merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], start + length - merged[-1][0])
        elif length:
            merged.append([start, length])
    return [tuple(pair) for pair in merged]


class Copy:
    """vdcat's answer: the disk as a file, the data intervals, the ranges that could not be read."""
    def __init__(self, outcome, path):
        self.outcome, self.path, self.size, self.data, self.eio = outcome, path, None, [], []
        for line in outcome.out.splitlines():
            words = line.split()
            if words[0] == 'size':
                self.size = int(words[1])
            elif words[0] in ('data', 'eio'):
                getattr(self, words[0]).append((int(words[1]), int(words[2])))
            else:
                raise RecipeError('vdcat printed %r' % line)

    def read(self, offset, length):
        with open(self.path, 'rb') as out:
            out.seek(offset)
            return out.read(length)


class Checker:
    """Holds one run of one recipe to its expectations."""

    def __init__(self, tap, recipe, run, programs):
        self.tap, self.recipe, self.run, self.programs = tap, recipe, run, programs
        options = ' '.join(run.options).replace(recipe.dir, '$DIR').replace(recipe.out, '$OUT')
        self.label = recipe.name + (' (%s)' % options if options else '')
        if len(recipe.runs) > 1 and sum(r.options == run.options for r in recipe.runs) > 1:
            self.label += ' [%s]' % run.image

    def ok(self, passed, claim, why=''):
        return self.tap.ok(bool(passed), '%s: %s' % (self.label, claim), why)

    def unreadable(self):
        return merge([interval(w) for kind in ('eio', 'decode-eio') for words in self.run.wants(kind) for w in words
                      if w != 'any'])

    def refused(self, outcome):
        """Exit 1 (vdcat: the errno), one line that names a file of the recipe and says what the recipe demands."""
        patterns = [p for words in self.run.wants('refused') for p in words]
        names = [os.path.basename(n) for n in self.recipe.files]
        names += [self.recipe.dir + '/', self.recipe.out + '/', '/dev/']
        problems = []
        if outcome.broken():
            problems.append(outcome.broken())
        status = self.run.errno if outcome.program == 'vdcat' else 1
        if outcome.status != status:
            problems.append('the exit status is not %d (%s)' % (status, errno.errorcode[status]))
        if outcome.out:
            problems.append('something was printed')
        if len(outcome.lines) != 1:
            problems.append('%d lines on stderr instead of 1' % len(outcome.lines))
        if not any(name in outcome.err for name in names):
            problems.append('no file is named')
        problems += ['no match for /%s/' % p for p in patterns if not re.search(p, outcome.err)]
        self.ok(not problems, '%s refuses it with one clear line' % outcome.program,
                '\n'.join(problems) + '\n%s' % outcome)

    # vdimap

    def check_map(self, outcome):
        wants = self.run.wants
        fails = [words[0] for words in wants('map-fails')]
        expected = 3 if fails or wants('eio') else 0
        shape = re.fullmatch(r'\{"virtual_size":(\d+),"cluster_bits":(\d+),"data_clusters":(\[[][0-9,]*\])(?:,"unreadable":(\[.*\]))?\}', outcome.out)
        reason = outcome.broken() or (outcome.status != expected and 'the exit status is not %d' % expected) or (
            not shape and 'the output has not the form of an interval map') or (
            expected and not outcome.err and 'nothing was said on stderr') or (
            bool(shape.group(4)) != bool(expected) and 'what cannot be read is not named') or (
            not expected and not wants('log') and outcome.err and 'something was said on stderr')
        claim = 'vdimap lists what is unreadable as data, says so, exits 3' if expected else 'vdimap prints its map'
        if not self.ok(not reason, claim, '%s\n%s' % (reason, outcome)) or not shape:
            return
        for pattern in fails + [w[0] for w in wants('log') if not wants('decode-eio')]:
            self.ok(re.search(pattern, outcome.err), 'vdimap says /%s/' % pattern, outcome)
        for kind, group in (('size', 1), ('cluster_bits', 2)):
            for words in wants(kind):
                self.ok(int(shape.group(group)) == number(words[0]), 'vdimap: %s %s' % (kind, words[0]), outcome)
        for words in wants('map'):
            self.ok(shape.group(3) == words[0], 'data_clusters %s' % words[0], outcome)
        for words in wants('json'):
            self.ok(outcome.out == words[0], 'the JSON text, byte for byte', outcome)
        self.well_formed(outcome, int(shape.group(1)), int(shape.group(2)), shape.group(3))

    def well_formed(self, outcome, size, bits, text):
        pairs = json.loads(text)
        last = -2
        for first, end in pairs:
            if not last + 1 < first <= end:
                return self.ok(False, 'pairs ascend and are maximal', outcome)
            last = end
        if pairs and last > (size - 1) >> bits:
            return self.ok(False, 'the last pair is inside the disk', outcome)
        self.pairs, self.bits = pairs, bits
        return True

    # vdcat

    def check_copy(self, copy):
        wants = self.run.wants
        outcome = copy.outcome
        expected = UNREADABLE if self.unreadable() or ('any',) in wants('eio') else 0
        reason = outcome.broken() or (outcome.status != expected and 'the exit status is not %d' % expected)
        if not self.ok(not reason, 'vdcat reads it' + ', as far as it can' * bool(expected), '%s\n%s' % (reason, outcome)):
            return
        for words in wants('size'):
            self.ok(copy.size == number(words[0]) == os.path.getsize(copy.path), 'size %s' % words[0], outcome)
        for words in wants('data'):
            expected = [] if words == ('none',) else [interval(w) for w in words]
            self.ok(copy.data == merge(expected), 'data is exactly %s' % ' '.join(words), outcome)
        self.check_eio(copy)
        for offset, length, text in wants('bytes'):
            got, want = copy.read(number(offset), number(length)), value(text, number(length), number(offset))
            self.ok(got == want, '%s bytes at %s are %s' % (length, offset, text), self.difference(got, want))
        for words in wants('sha256'):
            got = hashlib.sha256(copy.read(0, copy.size)).hexdigest()
            self.ok(got == words[0], 'SHA-256 of the disk', got)
        for words in wants('contents'):
            self.contents(copy, words)
        logs = wants('log')
        for words in logs:
            self.ok(re.search(words[0], outcome.err), 'the log says /%s/' % words[0], outcome)
        if copy.eio and not logs:
            self.ok(outcome.err, 'the log says why it cannot be read', outcome)
        elif not logs:
            self.ok(not outcome.err, 'nothing to complain about', outcome)
        self.agreement(copy)

    def check_eio(self, copy):
        if ('any',) in self.run.wants('eio'):
            return
        expected = self.unreadable()
        claim = 'unreadable is exactly %s' % ' '.join('%d+%d' % pair for pair in expected) if expected \
            else 'every byte can be read'
        self.ok(copy.eio == expected, claim, copy.outcome)

    def agreement(self, copy):
        """The clusters of vdimap are a superset of the intervals, and what is not listed reads as zeros."""
        if not hasattr(self, 'pairs'):
            return
        listed = merge([(first << self.bits, (end - first + 1) << self.bits) for first, end in self.pairs])
        missing = [d for d in copy.data if not any(s <= d[0] and d[0] + d[1] <= s + n for s, n in listed)]
        self.ok(not missing, 'the listed clusters hold all data', missing)
        at, dirty = 0, None
        for start, length in merge(copy.data) + [(copy.size, 0)]:
            while at < start and dirty is None:
                piece = copy.read(at, min(start - at, 1 << 20))
                if piece.count(0) != len(piece):
                    dirty = at
                at += len(piece) or start - at
            at = max(at, start + length)
        self.ok(dirty is None, 'holes read as zeros', 'bytes near %s are not zero' % dirty)

    def contents(self, copy, words):
        name, keys = self.run.image, {}
        for word in words:
            key, equal, text = word.partition('=')
            if equal:
                keys[key] = int(text) if key == 'snapshot' else text
            else:
                name = word
        want, got = bytearray(self.recipe.model(name, **keys)), bytearray(copy.read(0, copy.size))
        for start, length in copy.eio:
            want[start:start + length] = got[start:start + length] = bytes(length)
        self.ok(want == got, 'all bytes are what was written', self.difference(got, want))

    @staticmethod
    def difference(got, want):
        if len(got) != len(want):
            return '%d bytes instead of %d' % (len(got), len(want))
        for at in range(0, len(want), 512):
            if got[at:at + 512] != want[at:at + 512]:
                return 'first difference in the 512 bytes at %d: %s... instead of %s...' % (
                    at, bytes(got[at:at + 16]).hex(), bytes(want[at:at + 16]).hex())
        return ''

    # The two ways to check.

    def is_brief(self):
        """With sanitizers, which see no more when the same code runs again, the short form spares that."""
        return effort(True, False, False) and sanitized(self.programs['vdcat'])

    def without_mount(self):
        image = self.recipe.place(self.run.image)
        refused = bool(self.run.wants('refused'))
        if not refused or self.run.map_only or not self.is_brief():     # vdcat refuses it by the same code
            outcome = run_program([self.programs['vdimap']] + self.run.options + [image], self.recipe.dir,
                                  leaks=self.run.map_only)      # vdcat opens it in the same way
            if refused:
                self.refused(outcome)
            else:
                self.check_map(outcome)
        if self.run.map_only:
            return
        out = os.path.join(self.recipe.out, 'vdcat.out')
        outcome = run_program([self.programs['vdcat']] + self.run.options + [image, out], self.recipe.dir)
        if refused:
            self.refused(outcome)
        else:
            self.check_copy(Copy(outcome, out))
            self.in_odd_pieces(outcome, image, out)

    def in_odd_pieces(self, whole, image, out):
        """Reads of a length that fits nothing give the same disk: every edge inside of a cluster is met."""
        if self.is_brief() or whole.status not in (0, UNREADABLE) or os.path.getsize(out) > SMALL or any('--chunk' in o for o in self.run.options):
            return
        pieces = out + '.pieces'
        argv = [self.programs['vdcat']] + self.run.options + ['--chunk=%d' % ODD_PIECE, image, pieces]
        outcome = run_program(argv, self.recipe.dir, leaks=False)
        same = not outcome.broken() and outcome.out == whole.out and filecmp.cmp(out, pieces, shallow=False)
        self.ok(same, 'the same in pieces of %d bytes' % ODD_PIECE, outcome)

    def with_mount(self):
        refused, bad = self.run.wants('refused'), self.unreadable()
        if self.run.no_mount or not (refused or bad):
            return
        options = [o for o in self.run.options if not o.startswith('--chunk')]
        mount = os.path.join(self.recipe.out, 'mnt')
        os.makedirs(mount, exist_ok=True)
        image = self.recipe.place(self.run.image)
        try:
            outcome = run_program([self.programs['vdifs']] + options + [image, mount], self.recipe.dir)
            if refused:
                self.refused(outcome)
                self.ok(not is_mounted(mount), 'nothing is mounted', 'a mount was left behind')
            elif self.ok(outcome.status == 0 and not outcome.broken(), 'vdifs mounts it', outcome):
                self.mounted_eio(mount, image, bad)
        finally:
            unmount(mount)

    def mounted_eio(self, mount, image, ranges):
        disk = os.path.join(mount, os.path.basename(os.path.realpath(image)).rsplit('.', 1)[0] + '.raw')
        size = os.stat(disk).st_size
        for direct in (False, True):
            how = 'O_DIRECT' if direct else 'through the page cache'
            bad, good = probes(ranges, size, 512 if direct else PAGE)
            wrong = []
            for offset in bad:
                error = pread_error(disk, offset, direct)
                if error != 'EIO':
                    wrong.append('byte %d: %s instead of EIO' % (offset, error))
            for offset in good:
                error = pread_error(disk, offset, direct)
                if error is not None:
                    wrong.append('byte %d: %s' % (offset, error))
            self.ok(not wrong, 'reads fail in the bad range and nowhere else, %s' % how, '\n'.join(wrong))


def probes(ranges, size, unit):
    """Offsets that must fail and offsets next to them that must not, in whole units of what one read touches."""
    bad, good = set(), set()
    outward = merge([(s // unit * unit, -(-(s + n) // unit) * unit - s // unit * unit) for s, n in ranges])
    for start, length in ranges:
        bad |= {start, start + length // 2 // 512 * 512, start + (length - 1) // 512 * 512}
    for start, length in outward:
        good |= {start - unit, start + length}
    inside = lambda at: any(s <= at < s + n for s, n in outward)        # noqa: E731
    return sorted(bad), sorted(at for at in good if 0 <= at < size and not inside(at))


def pread_error(path, offset, direct):
    """None, or the name of the error that one sector's read gives.  A fresh descriptor: no read-ahead from before."""
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        with mmap.mmap(-1, PAGE) as buffer:                             # O_DIRECT wants aligned memory
            view = memoryview(buffer)[:512]
            try:
                os.preadv(fd, [view], offset)
            finally:
                view.release()
        return None
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    finally:
        os.close(fd)


def is_mounted(path):
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
        return any(line.split(' ')[4] == path for line in table)


def unmount(path):
    """Whatever happened, nothing of ours stays mounted."""
    for options in (['-u'], ['-u', '-z']):
        if not is_mounted(path):
            return
        subprocess.run(['fusermount3'] + options + [path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# The recipes themselves under test.

def qemu_options(recipe, run):
    """How qemu-img is told to open the image of a run, or None where it has no such feature."""
    file = recipe.files.get(run.image)
    if run.options or run.wants('refused') or run.wants('eio') or run.wants('decode-eio') or run.map_only \
            or run.unlike_qemu or not run.wants('contents'):
        return None
    if isinstance(file, qcow2_writer.Qcow2):
        return None if file.size % 512 else 'driver=qcow2,file.filename=' + recipe.place(run.image)
    if getattr(file, 'kind', None) == 'dynamic' and file.copy and file.size % 512 == 0 and file.footer_bytes == 512:
        return 'driver=vpc,force_size_calc=current_size,file.filename=' + recipe.place(run.image)
    return None


def check_with_qemu(tap, recipe):
    for run in recipe.runs:
        options = qemu_options(recipe, run)
        if options is None:
            continue
        raw = os.path.join(recipe.out, 'model.raw')
        with open(raw, 'wb') as out:
            out.write(recipe.model(run.image))
        argv = ['qemu-img', 'compare', '-U', '--image-opts', options, 'driver=raw,file.filename=' + raw]
        done = subprocess.run(argv, cwd=recipe.dir, capture_output=True, text=True, timeout=60)
        tap.ok(done.returncode == 0, '%s: qemu-img reads what was written' % recipe.name, done.stdout + done.stderr)
        if isinstance(recipe.files[run.image], qcow2_writer.Qcow2) and not recipe.is_damaged():
            argv = ['qemu-img', 'check', '-U', recipe.place(run.image)]
            done = subprocess.run(argv, cwd=recipe.dir, capture_output=True, text=True)
            tap.ok(done.returncode == 0, '%s: qemu-img check is clean' % recipe.name, done.stdout + done.stderr)


def check_all(tap, paths):
    """So many images are damaged, and of each it is said how: by an errno or EIO, and in words."""
    silent, count = [], 0
    for path in paths:
        recipe = Recipe(path)
        if not recipe.name.startswith(('bad-', 'unsupported-')):
            continue
        count += 1
        expected = [words[1:] for _, words in recipe.lines if words[0] == 'expect']
        if not any(w[0] in ('log', 'map-fails') or (w[0] == 'refused' and len(w) > 2) for w in expected):
            silent.append(recipe.name)
    tap.ok(count >= BAD_IMAGES, '%d damaged images, at least %d' % (count, BAD_IMAGES))
    tap.ok(not silent, 'each of them has its error and its message', '\n'.join(silent))


def run_recipe(tap, path, programs, mode):
    recipe = Recipe(path)
    if recipe.needs_root and os.geteuid() != 0:
        return tap.skip(recipe.name, 'needs root')
    if any('compression=zstd' in words for _, words in recipe.lines) and not shutil.which('zstd'):
        return tap.skip(recipe.name, 'needs the zstd program')
    try:
        recipe.build()
        if mode == 'qemu':
            return check_with_qemu(tap, recipe)
        for run in recipe.runs:
            checker = Checker(tap, recipe, run, programs)
            checker.with_mount() if mode == 'mount' else checker.without_mount()
    finally:
        if hasattr(recipe, 'out'):
            recipe.close()


def choose(names):
    every = sorted(glob.glob(os.path.join(HERE, 'images', '*.recipe')))
    if not names:
        return every
    chosen = []
    for name in names:
        found = [p for p in every if fnmatch.fnmatch(os.path.basename(p)[:-len('.recipe')], name)]
        chosen += found or [name]
    return chosen


def arguments():
    parser = argparse.ArgumentParser(description='Hold vdifs to the recipes of tests/images.')
    parser.add_argument('--builddir', help='where vdimap, vdcat and vdifs are (default: $VD_BUILDDIR, ./build, .)')
    parser.add_argument('--mount', dest='mode', action='store_const', const='mount', default='read')
    parser.add_argument('--qemu', dest='mode', action='store_const', const='qemu')
    parser.add_argument('names', nargs='*', metavar='NAME')
    return parser.parse_args()


def main():
    options, tap = arguments(), Tap()
    needed = {'read': ('vdimap', 'vdcat'), 'mount': ('vdifs',), 'qemu': ()}[options.mode]
    places = [options.builddir or os.environ.get('VD_BUILDDIR')]
    programs = {}
    for place in places if places[0] else ['build', '.']:
        programs = {name: find_program(os.path.abspath(place), name) for name in needed}
        if all(programs.values()):
            break
    for name in needed:
        if not programs.get(name):
            return tap.bail('no %s in the build directory' % name)
    if options.mode == 'mount' and not (os.path.exists('/dev/fuse') and shutil.which('fusermount3')):
        print('1..0 # SKIP no FUSE here')
        return 0
    if not options.names:
        check_all(tap, choose([]))
    for path in choose(options.names):
        try:
            run_recipe(tap, path, programs, options.mode)
        except RecipeError as error:
            tap.ok(False, '%s: is a recipe' % os.path.basename(path), error)
        except Exception:                                               # one broken recipe must not hide the others
            tap.ok(False, '%s: can be checked' % os.path.basename(path), traceback.format_exc())
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
