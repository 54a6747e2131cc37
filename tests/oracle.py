#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every byte and every interval of hundreds of random images, against two independent readers.

The table-driven tests say what vdifs does with the images their authors thought of.  This one draws images by lot
(lib/random_images.py) and asks vdcat, vdimap and, for a part of them, the mounted disk, whether they show what
QEMU shows where QEMU reads the image right, and always what lib/resolver.py works out from the format descriptions.

    oracle.py [--seed N] [--count N] [--builddir DIR] [--jobs N]
    oracle.py --seed N --only K --keep DIR          image K of a seed again, its files left in DIR
    oracle.py --resolver-only                       the two readers against each other, without vdifs

The seed is random unless --seed or VD_SEED gives one; a failure names seed, image and recipe.  200 images if --count
does not say otherwise; 100 with VD_SHORT=1 in the environment, 600 with VD_NIGHTLY=1,
as many as VD_ORACLE says.
"""
import argparse
import concurrent.futures
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import random_images                                                           # noqa: E402
import resolver                                                                # noqa: E402
from tap import Tap, effort, patience, spare_leak_searches                     # noqa: E402

BATCH = 25
MOUNT_EVERY = 12
TIME_LIMIT = 60 * patience()
SECTOR = 512
PAGE = 4096
UNREADABLE = 3                  # the exit status of vdcat when parts cannot be read
REPORTS = ('Sanitizer', 'runtime error:', 'Assertion', 'assertion', 'malloc()', 'free()')


class Failure(Exception):
    """Something is not as it must be."""


# The programs under test

class Programs:
    """Where the built programs are."""

    def __init__(self, builddir=None):
        folders = [builddir] if builddir else [f for f in (os.environ.get('VD_BUILDDIR'), 'build', '.') if f]
        for name in ('vdifs', 'vdimap', 'vdcat'):
            places = [os.path.abspath(os.path.join(folder, place, name)) for folder in folders
                      for place in ('', 'src/' + name, 'src', 'tests', 'tests/tools')]
            found = [p for p in places if os.path.isfile(p) and os.access(p, os.X_OK)]
            setattr(self, name, found[0] if found else None)

    def missing(self, *names):
        return [n for n in names if getattr(self, n) is None]


def run(*command, limit=TIME_LIMIT):
    """(exit status, stdout, stderr) of a program under test, which must neither crash nor hang."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise Failure('%s: no end after %d s' % (' '.join(command), limit)) from None
    log = done.stderr.decode(errors='replace')
    check_log(command, done.returncode, log)
    return done.returncode, done.stdout.decode(errors='replace'), log


def check_log(command, status, log):
    if status < 0:
        raise Failure('%s: killed by %s\n%s' % (' '.join(command), signal.Signals(-status).name, log[-3000:]))
    if any(word in log for word in REPORTS):
        raise Failure('%s: %s' % (' '.join(command), log[:3000]))


class Mount:
    """A mount that goes away, whatever happens.  In the foreground the log is seen, and sanitizers with it."""

    def __init__(self, programs, options, image, point, foreground=False):
        self.command = [programs.vdifs, *(['-f'] if foreground else []), *options, image, point]
        self.point, self.foreground = point, foreground
        self.process, self.log = None, ''

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _start(self):
        if not self.foreground:
            status, _, self.log = run(*self.command)
            if status:
                raise Failure('%s: exit status %d: %s' % (' '.join(self.command), status, self.log))
            if not mounted(self.point):
                raise Failure('%s: exit status 0, but nothing is mounted' % ' '.join(self.command))
            return
        self.messages = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=self.messages)
        end = time.monotonic() + TIME_LIMIT
        while not mounted(self.point):
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure('%s: does not mount: %s' % (' '.join(self.command), self._read_log()))
            time.sleep(0.01)

    def _read_log(self):
        self.messages.seek(0)
        return self.messages.read().decode(errors='replace')

    def __exit__(self, kind, *_):
        left = unmount(self.point)
        if self.process is None:
            if left and kind is None:
                raise Failure('%s: cannot be unmounted' % self.point)
            return
        try:
            status = self.process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = 'none: it runs on after the unmount'
        self.log = self._read_log()
        self.messages.close()
        if kind is None:
            if left:
                raise Failure('%s: cannot be unmounted' % self.point)
            if status != 0:
                raise Failure('%s: exit status %s\n%s' % (' '.join(self.command), status, self.log[-3000:]))
            check_log(self.command, status, self.log)


def mounted(point):
    """Is there a mount at exactly this path?"""
    wanted = os.path.realpath(point)
    with open('/proc/self/mounts', encoding='utf-8', errors='surrogateescape') as table:
        return any(line.split(' ')[1].replace('\\040', ' ') == wanted for line in table)


def unmount(point):
    """True if it is still mounted afterwards."""
    for attempt in range(40):
        if not mounted(point):
            return False
        lazy = ['-z'] if attempt > 35 else []
        subprocess.run(['fusermount3', '-u', *lazy, point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=TIME_LIMIT, check=False)
        if mounted(point):
            time.sleep(0.05)
    return mounted(point)


def mounts_work():
    """Why nothing can be mounted here, or None."""
    if not os.access('/dev/fuse', os.R_OK | os.W_OK):
        return '/dev/fuse is missing'
    return None if shutil.which('fusermount3') else 'fusermount3 is missing'


def end_cleanly():
    """SIGTERM ends a test as Ctrl-C does: mounts and files are cleaned up on the way."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


# Comparing

def first_difference(a, b):
    at, end = 0, min(len(a), len(b))
    while at < end and a[at:at + 65536] == b[at:at + 65536]:
        at += 65536
    while at < end and a[at] == b[at]:
        at += 1
    return min(at, end)


def same_bytes(who, got, want):
    if got == want:
        return
    at = first_difference(got, want)
    raise Failure('%s: byte %d (of %d, expected %d) differs: got %s, expected %s' % (
        who, at, len(got), len(want), got[at:at + 8].hex(), want[at:at + 8].hex()))


def same_ranges(who, got, want):
    if got == want:
        return
    only_got = [r for r in got if r not in want][:4]
    only_want = [r for r in want if r not in got][:4]
    raise Failure('%s: ranges differ: got %s, expected %s' % (who, only_got, only_want))


def subtract(ranges, holes):
    """Ranges without what the holes cover."""
    out = []
    for start, end in ranges:
        for a, b in holes:
            if b <= start or a >= end:
                continue
            out.append((start, max(start, a)))
            start = b
        out.append((start, max(start, end)))
    return resolver.merge(out)


# QEMU

def qemu_img(image, word, *rest):
    if image.qemu_driver == 'vpc':
        source = ['--image-opts', 'driver=vpc,force_size_calc=current_size,file.driver=file,file.filename=' + image.path]
    else:
        source = ['-f', image.qemu_driver, image.path]
    where = [source.pop()]
    done = subprocess.run(['qemu-img', word, *source, *rest[:-1], *where, *rest[-1:]] if word == 'convert' else
                          ['qemu-img', word, *source, *rest, *where], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=TIME_LIMIT, check=False, cwd=os.path.dirname(image.path))
    if done.returncode:
        raise Failure('qemu-img %s: %s' % (word, done.stderr.decode(errors='replace').strip()))
    return done.stdout


def check_qemu_bytes(image, contents, who, folder):
    out = os.path.join(folder, 'qemu.raw')
    options = ['-l', image.snapshot] if image.snapshot else []
    qemu_img(image, 'convert', '-t', 'unsafe', *options, '-O', 'raw', out)
    with open(out, 'rb') as file:
        theirs = file.read()
    os.unlink(out)
    shown = len(theirs)
    if not len(contents) // 512 * 512 <= shown < len(contents) + 512:
        raise Failure('QEMU shows %d bytes, %s %d' % (shown, who, len(contents)))
    same_bytes(who + ' against qemu-img convert', contents[:shown].ljust(shown, b'\0'), theirs)


def check_qemu_map(image, disk, intervals, who):
    """QEMU counts in sectors, and calls the part of a cluster that is past the end of its file data."""
    rows = json.loads(qemu_img(image, 'map', '--output=json'))
    shown = rows[-1]['start'] + rows[-1]['length'] if rows else 0
    theirs = resolver.merge((r['start'], r['start'] + r['length']) for r in rows if r['data'] and not r['zero'])
    cut = resolver.round_outward(disk.cut(), 512, shown)
    ours = resolver.round_outward([(a, min(b, shown)) for a, b in intervals], 512, shown)
    same_ranges(who + ' against qemu-img map', subtract(ours, cut),
                subtract(resolver.round_outward(theirs, 512, shown), cut))


# vdcat and vdimap

def parse_cat(text):
    """(size, data ranges, eio ranges) from vdcat's lines, which must be in order and say nothing twice."""
    size, found = None, {'data': [], 'eio': []}
    for line in text.splitlines():
        words = line.split()
        if words[0] == 'size' and size is None:
            size = int(words[1])
        elif words[0] in found and len(words) == 3:
            start, length = int(words[1]), int(words[2])
            rows = found[words[0]]
            if length <= 0 or (rows and start <= rows[-1][1]):
                raise Failure('vdcat: %r is not ascending, disjoint and maximal' % line)
            rows.append((start, start + length))
        else:
            raise Failure('vdcat: unexpected line %r' % line)
    if size is None:
        raise Failure('vdcat prints no size')
    return size, found['data'], found['eio']


def lost_in_pieces(disk, chunk):
    """What of the disk is lost to vdcat: a sector, or the part of it that is in one chunk, that holds an unreadable byte."""
    def edges(at):
        return at // SECTOR * SECTOR, at // chunk * chunk
    return resolver.merge((max(edges(lo)), min(disk.size, min(e + u for e, u in zip(edges(hi - 1), (SECTOR, chunk)))))
                          for lo, hi in disk.eio())


def check_programs(programs, image, disk, rng, folder):
    """What vdcat and vdimap say, against the resolver."""
    out = os.path.join(folder, 'vdcat.raw')
    chunk = rng.choice((None, None, 512, 4096, 65536, 1 << 20, 513, 1000, 7777, 100003, 1 << 22))
    options = image.options + (['--chunk=%d' % chunk] if chunk else [])
    status, text, log = run(programs.vdcat, *options, image.path, out)
    lost, wanted = lost_in_pieces(disk, chunk or SECTOR), bytearray(disk.contents())
    for lo, hi in lost:
        wanted[lo:hi] = bytes(hi - lo)
    if status != (UNREADABLE if lost else 0) or not text:
        raise Failure('vdcat: exit status %d: %s' % (status, log.strip()[:2000]))
    size, data, eio = parse_cat(text)
    with open(out, 'rb') as file:
        contents = file.read()
    os.unlink(out)
    who = 'vdcat' + (' --chunk=%d' % chunk if chunk else '')
    if size != disk.size or len(contents) != disk.size:
        raise Failure('%s: size %d, wrote %d, expected %d' % (who, size, len(contents), disk.size))
    same_ranges(who + ' unreadable', eio, lost)
    same_bytes(who, contents, wanted)
    same_ranges(who + ' data', data, disk.intervals())
    check_vdimap(programs, image, disk)
    check_qemu_form(programs, image, disk)


def check_vdimap(programs, image, disk):
    status, text, log = run(programs.vdimap, *image.options, image.path)
    if text != disk.json():
        raise Failure('vdimap: got %s, expected %s; %s' % (text[:1500], disk.json()[:1500], log[:500]))
    wanted = 3 if disk.metadata_bad() else 0
    if status != wanted:
        raise Failure('vdimap: exit status %d, expected %d: %s' % (status, wanted, log.strip()[:1000]))


def as_told(entries, theirs):
    """Entries of vdimap --qemu as a qemu-img prints them whose entries are `theirs`: before QEMU 8.2 without "compressed"."""
    return [{k: v for k, v in entry.items() if k in theirs[0] or k != 'compressed'} for entry in entries] if theirs else entries


def check_qemu_form(programs, image, disk):
    """vdimap --qemu, field by field against qemu-img map.  QEMU rounds sizes to sectors, and maps no snapshots."""
    if not image.qemu or image.snapshot or any(layer.size % 512 for layer in disk.layers):
        return
    status, text, log = run(programs.vdimap, *image.options, '--qemu', image.path)
    theirs = json.loads(qemu_img(image, 'map', '--output=json'))
    ours = as_told(json.loads(text or '[]'), theirs)
    if status or ours != theirs:
        different = [pair for pair in zip(ours, theirs) if pair[0] != pair[1]][:2]
        raise Failure('vdimap --qemu: exit status %d, %s; ours and theirs: %s' % (status, log[:500], different or text[-300:]))


def check_refused(programs, image, why, folder):
    """The resolver refuses the image, so the programs must, with a message and nothing else."""
    for name, more in (('vdimap', []), ('vdcat', [os.path.join(folder, 'vdcat.raw')])):
        status, text, log = run(getattr(programs, name), *image.options, image.path, *more)
        if status == 0 or text or not log.strip():
            raise Failure('%s: exit status %d, stdout %r, stderr %r; expected a refusal: %s' % (
                name, status, text[:300], log[:300], why))


# The mounted disk

def walk(fd, size):
    """The data ranges as SEEK_DATA and SEEK_HOLE tell them."""
    out, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        if not at <= start < end <= size:
            raise Failure('a seek from %d finds data at %d, its end at %d' % (at, start, end))
        out.append((start, end))
        at = end
    return out


def seek(fd, at, whence):
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        return -error.errno


def check_seeks(fd, disk, rng):
    intervals, size = disk.intervals(), disk.size
    same_ranges('seeking through the mount', walk(fd, size), intervals)
    edges = [x for pair in intervals for x in pair]
    places = [rng.randrange(size) for _ in range(20)] if size else []
    places += [x + d for x in rng.sample(edges, min(10, len(edges))) for d in (-1, 0, 1)] + [0, size - 1, size, size + 1]
    for at in places:
        if at < 0:
            continue
        inside = [b for a, b in intervals if a <= at < b]
        later = [a for a, b in intervals if a > at]
        data = -errno.ENXIO if at >= size else at if inside else min(later, default=-errno.ENXIO)
        hole = -errno.ENXIO if at >= size else inside[0] if inside else at
        got = seek(fd, at, os.SEEK_DATA), seek(fd, at, os.SEEK_HOLE)
        if got != (data, hole):
            raise Failure('seeks from %d of %d give %s, expected %s' % (at, size, got, (data, hole)))


def check_reads(fd, disk, rng):
    """All bytes.  A page that holds an unreadable sector must fail, since the kernel reads whole pages."""
    want, size = disk.contents(), disk.size
    bad = resolver.round_outward(disk.eio(), PAGE, size)
    if not bad:
        step = rng.choice((4096, 100000, 1 << 20))
        got = b''.join(os.pread(fd, step, at) for at in range(0, size, step))
        return same_bytes('the mount', got, want)
    for at in range(0, size, PAGE):
        end = min(size, at + PAGE)
        try:
            got = os.pread(fd, PAGE, at)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            got = None
        expected = None if any(a < end and b > at for a, b in bad) else want[at:end]
        if got != expected:
            raise Failure('the page at %d of the mount: %s' % (at, 'EIO' if got is None else 'readable' if expected is None
                                                               else 'wrong bytes'))
    return None


def check_stat(path, disk):
    """st_blocks lies between what cp and tar need, and is exact once the map is complete."""
    data = sum(b - a for a, b in disk.intervals())
    lowest = 1 if data else 0
    highest = disk.size // 512 - 1 if data < disk.size else disk.size // 512 + 1
    exact = {min(max(n, lowest), max(highest, lowest)) for n in (data // 512, -(-data // 512))}
    end = time.monotonic() + 10 * patience()
    while True:
        now = os.stat(path)
        if now.st_size != disk.size:
            raise Failure('st_size is %d, expected %d' % (now.st_size, disk.size))
        if now.st_blocks in exact:
            return
        if disk.size >= 2048 and not lowest <= now.st_blocks <= highest:
            raise Failure('st_blocks is %d, not within %d and %d' % (now.st_blocks, lowest, highest))
        if time.monotonic() > end:
            raise Failure('st_blocks stays %d, expected %s' % (now.st_blocks, sorted(exact)))
        time.sleep(0.05)


def check_disk(path, disk, rng):
    fd = os.open(path, os.O_RDONLY)
    try:
        order = [lambda: check_seeks(fd, disk, rng), lambda: check_reads(fd, disk, rng), lambda: check_stat(path, disk)]
        rng.shuffle(order)
        for step in order:
            step()
    finally:
        os.close(fd)
    check_attribute(path, disk)
    if os.listxattr(path):
        raise Failure('listxattr gives %s' % os.listxattr(path))


def check_attribute(path, disk):
    """Exact while it fits in 64 KiB; a map that does not fit is coarser and says so."""
    text = os.getxattr(path, 'user.intervals').decode()
    if len(disk.json()) <= 65536:
        if text != disk.json():
            raise Failure('user.intervals of %s: got %s, expected %s' % (path, text[:1000], disk.json()[:1000]))
        return
    rough = json.loads(text)
    unit = 1 << rough['cluster_bits']
    covered = resolver.merge((a * unit, (b + 1) * unit) for a, b in rough['data_clusters'])
    if len(text) > 65536 or rough.get('exact') is not False or subtract(disk.intervals(), covered):
        raise Failure('user.intervals of %s is not a safe map: %s' % (path, text[:1000]))


def check_mounts(programs, image, disk, rng, folder):
    point = os.path.join(folder, 'directory')
    os.mkdir(point)
    stem = os.path.splitext(os.path.basename(image.path))[0]
    with Mount(programs, image.options, image.path, point, foreground=rng.random() < 0.5):
        names = set(os.listdir(point))
        if names - {'snapshots'} != {stem + '.raw', stem + '.intervals.json'}:
            raise Failure('the mount shows %s' % names)
        if 'snapshots' in names and len(os.listdir(os.path.join(point, 'snapshots'))) < 2:
            raise Failure('the folder of snapshots is empty')
        with open(os.path.join(point, stem + '.intervals.json'), encoding='ascii') as file:
            text = file.read()
        if text != disk.json():
            raise Failure('the sidecar: got %s, expected %s' % (text[:1000], disk.json()[:1000]))
        check_disk(os.path.join(point, stem + '.raw'), disk, rng)
        check_attribute(point, disk)
    point = os.path.join(folder, 'file')
    with open(point, 'wb'):
        pass
    with Mount(programs, image.options, image.path, point, foreground=rng.random() < 0.5):
        if not stat.S_ISREG(os.stat(point).st_mode):
            raise Failure('the mounted file is not a regular file')
        check_disk(point, disk, rng)


# One image

def check_image(programs, seed, number, folder, mount):
    """None, or what is wrong with image `number`.  programs None: only the two oracles."""
    recipe = 'not made'
    try:
        image = random_images.make(seed, number, folder)
        recipe = image.describe()
        rng = random.Random('check %d/%d' % (seed, number))
        try:
            disk = resolver.open_disk(image.path, **image.opening)
        except (resolver.Refused, OSError) as error:
            if image.qemu:
                raise Failure('the resolver refuses an image that QEMU made: %s' % error) from None
            if programs:
                check_refused(programs, image, error, folder)
            return None
        check_both(programs, image, disk, rng, folder, mount)
    except Failure as failure:
        return '%s\nrecipe: %s' % (failure, recipe)
    except Exception as error:                       # a worker must report, whatever happens
        return '%s: %s\nrecipe: %s' % (type(error).__name__, error, recipe)
    return None


def check_both(programs, image, disk, rng, folder, mount):
    who, contents, intervals = 'resolver', disk.contents(), disk.intervals()
    if image.qemu:
        check_qemu_bytes(image, contents, who, folder)
    if image.qemu == 'map':
        check_qemu_map(image, disk, intervals, who)
    if programs is None:
        return
    check_programs(programs, image, disk, rng, folder)
    if mount:
        check_mounts(programs, image, disk, rng, folder)


def one_image(builddir, seed, number, mount, keep):
    """In a worker process."""
    programs = Programs(builddir) if builddir is not None else None
    if keep:
        os.makedirs(keep, exist_ok=True)
        return check_image(programs, seed, number, keep, mount)
    with tempfile.TemporaryDirectory(prefix='vd-oracle-') as folder:
        return check_image(programs, seed, number, folder, mount)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--count', type=int, default=int(os.environ.get('VD_ORACLE') or effort(100, 200, 600)))
    parser.add_argument('--builddir', default=None)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--only', type=int, default=None, help='check this image of the seed alone')
    parser.add_argument('--keep', default=None, help='with --only: an empty folder for the files')
    parser.add_argument('--resolver-only', action='store_true', help='compare the resolver with QEMU; run nothing of vdifs')
    args = parser.parse_args()
    if args.seed is None:
        args.seed = int(os.environ.get('VD_SEED') or random.SystemRandom().randrange(1 << 31))
    return args


def main():
    end_cleanly()
    spare_leak_searches(os.environ)
    args = arguments()
    for tool in ('qemu-img', 'qemu-io', 'zstd'):
        if shutil.which(tool) is None:
            print('1..0 # SKIP %s is not installed' % tool)
            return 0
    tap = Tap()
    builddir = None
    if not args.resolver_only:
        programs = Programs(args.builddir)
        if programs.missing('vdimap', 'vdcat'):
            return tap.bail('not built: ' + ', '.join(programs.missing('vdimap', 'vdcat')))
        builddir = args.builddir or ''
    no_mounts = 'vdifs is not built' if args.resolver_only or programs.vdifs is None else mounts_work()
    tap.note('seed %d, %d images' % (args.seed, args.count))
    if no_mounts:
        tap.note('nothing is mounted: ' + no_mounts)
    numbers = [args.only] if args.only is not None else range(args.count)
    with concurrent.futures.ProcessPoolExecutor(max_workers=max(1, args.jobs)) as pool:
        waiting = [(n, pool.submit(one_image, builddir, args.seed, n, not no_mounts and (
            n % MOUNT_EVERY == 0 or args.only is not None), args.keep)) for n in numbers]
        try:
            report(tap, args, waiting)
        except BaseException:
            pool.shutdown(cancel_futures=True)         # the workers finish, and clean up, what they have begun
            raise
    if no_mounts and not args.resolver_only:
        tap.skip('random images, mounted', no_mounts)
    return tap.done()


def report(tap, args, waiting):
    for start in range(0, len(waiting), BATCH):
        batch = waiting[start:start + BATCH]
        wrong = []
        for number, future in batch:
            message = future.result()
            if message:
                wrong.append('image %d (oracle.py --seed %d --only %d --keep DIR): %s' % (number, args.seed, number, message))
        tap.ok(not wrong, 'images %d to %d of seed %d read as the oracles say' % (batch[0][0], batch[-1][0], args.seed),
               '\n'.join(wrong))


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
