#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that lost their end: no byte that differs from the whole disk's may be returned without an error.

A copy that was interrupted leaves a shorter file.  Each kind of image is made once and cut at random lengths; VHDs also
get their footer back at the new end, as a program that "repairs" them may do it.  vdcat and vdimap then either refuse
the file with one line, or show the disk.  All that is read must be as in the whole file, all else must be an error, a
line must say so, and the exit status must be 3.  There is one exception: the missing part of the last data cluster of a
QCOW2 file reads as zeros, since programs leave the last zeros of a file out.

    cuts.py [--seed N] [--count N] [--builddir DIR] [--kind NAME] [--jobs N]

The seed is random unless --seed or VD_SEED gives one.  Without --count there are 20 cuts a kind, 15 with VD_SHORT=1,
2,000 with VD_NIGHTLY=1.
"""
import argparse
import concurrent.futures
import contextlib
import os
import random
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import resolver                                                                # noqa: E402
from oracle import Failure, Programs, end_cleanly, parse_cat, run              # noqa: E402
from qcow2_writer import Qcow2                                                 # noqa: E402
from tap import Tap, effort, spare_leak_searches                               # noqa: E402
from vhd_writer import Vhd                                                     # noqa: E402

FAILED, UNREADABLE = 1, 3
FOOTER = 512
KILO = 1024


class Kind:
    """An image, which of its files is cut, and how it is opened."""
    def __init__(self, image, cut=None, options=(), opening=(), cluster=None, coded=False, data_is_whole=False):
        self.image, self.cut = image, cut or image
        self.options, self.opening = list(options), dict(opening)
        self.cluster = cluster               # of a QCOW2 file: its last data cluster may be cut
        self.coded = coded                   # vdimap does not decompress
        self.whole, self.disk, self.times = b'', None, None

    def load(self):
        with open(self.cut, 'rb') as file:
            self.whole = file.read()
        status = os.stat(self.cut)
        self.times = status.st_atime_ns, status.st_mtime_ns
        self.disk = resolver.open_disk(self.image, **self.opening)
        self.bytes = self.disk.contents()
        self.pieces = self.disk.pieces()
        return self

    def spared(self, length):
        """Ranges of the disk that may read as zeros: of the data cluster that the end of the file cuts."""
        if not self.cluster:
            return []
        limit, out = -(-length // self.cluster) * self.cluster, []
        for lo, hi, kind, argument in self.pieces:
            if kind != resolver.HOST or argument[0].path != os.path.realpath(self.cut):
                continue
            where = argument[1]
            start, end = max(where, length), min(where + hi - lo, limit)
            if start < end:
                out.append((lo + start - where, lo + end - where))
        return out


# The kinds.  Every cluster and block holds noise, so that bytes of one place are those of no other.

def fill_vhd(rng, image, sparse):
    for block in range(-(-image.size // image.block_size)):
        if rng.random() < 0.2:
            continue
        pairs = None
        if sparse and rng.random() < 0.7:
            start = rng.randrange(image.block_sectors)
            pairs = [(start, min(image.block_sectors - 1, start + rng.randrange(100)))]
        image.set_block(block, rng.randbytes(image.block_size), pairs)
    return image.write()


def vhd_fixed(rng, folder):
    image = Vhd(folder + '/disk.vhd', 300 * KILO + 512, 'fixed')
    image.set_sectors(0, rng.randbytes(image.size))
    return Kind(image.write().path)


def vhd_dynamic(rng, folder, bits=16, size=700 * KILO, **options):
    image = Vhd(folder + '/disk.vhd', size, block_size=1 << bits, shuffle=rng.randrange(99), **options)
    return Kind(fill_vhd(rng, image, True).path)


def vhd_usual(rng, folder):
    return vhd_dynamic(rng, folder, bits=21, size=5 << 20)


def vhd_small(rng, folder):
    return vhd_dynamic(rng, folder, bits=12, size=200 * KILO)


def vhd_batmap(rng, folder):
    return vhd_dynamic(rng, folder, batmap=(1, 2), creator=b'tap\0', creator_version=0x10003, batmap_full=range(0, 11, 2))


def vhd_chain(rng, folder):
    base = fill_vhd(rng, Vhd(folder + '/base.vhd', 600 * KILO, block_size=64 * KILO), True)
    top = Vhd(folder + '/top.vhd', 600 * KILO, 'differencing', block_size=32 * KILO, parent=base)
    return base, fill_vhd(rng, top, True)


def vhd_child(rng, folder):
    return Kind(vhd_chain(rng, folder)[1].path)


def vhd_parent(rng, folder):
    base, top = vhd_chain(rng, folder)
    return Kind(top.path, base.path)


def fill_qcow2(rng, image, kinds=('data', 'data', 'zero', 'unallocated')):
    size = image.cluster_size
    for cluster in range(-(-image.size // size)):
        kind = rng.choice(kinds)
        if kind in ('data', 'compressed'):
            # Half of it noise: what does not shrink at all would be stored.
            noise = size if kind == 'data' or rng.random() < 0.3 else size // 2
            image.set(cluster, kind, rng.randbytes(noise).ljust(size, bytes([rng.randrange(1, 256)])))
        else:
            image.set(cluster, kind)
    return image


def qcow2_plain(rng, folder, bits=16, size=900 * KILO, kinds=None, **options):
    image = Qcow2(folder + '/disk.qcow2', size, cluster_bits=bits, **options)
    fill_qcow2(rng, image, kinds or ('data', 'data', 'zero', 'unallocated')).write()
    return Kind(image.path, cluster=1 << bits, coded='compressed' in (kinds or ()))


def qcow2_small(rng, folder):
    return qcow2_plain(rng, folder, bits=9, size=100 * KILO, shuffle=5)


def qcow2_zlib(rng, folder):
    return qcow2_plain(rng, folder, bits=14, size=500 * KILO, kinds=('data', 'compressed', 'compressed', 'compressed'))


def qcow2_zlib_only(rng, folder):
    return qcow2_plain(rng, folder, bits=12, size=200 * KILO, kinds=('compressed',))


def qcow2_zstd(rng, folder):
    return qcow2_plain(rng, folder, bits=14, size=500 * KILO, compression='zstd',
                       kinds=('data', 'compressed', 'compressed', 'compressed'))


def qcow2_extended(rng, folder):
    image = fill_qcow2(rng, Qcow2(folder + '/disk.qcow2', 500 * KILO, cluster_bits=14, extended_l2=True))
    for cluster in range(0, 30, 3):
        image.set(cluster, 'unallocated')
        for sub in rng.sample(range(32), 9):
            image.set_sub(cluster, sub, 'data', rng.randbytes(512))
    image.write()
    return Kind(image.path, cluster=1 << 14)


def data_file(rng, folder, name):
    image = Qcow2(folder + '/disk.qcow2', 400 * KILO, cluster_bits=14, data_file='disk.data')
    fill_qcow2(rng, image, ('data', 'zero')).write()
    return Kind(image.path, os.path.join(folder, name), cluster=1 << 14)


def qcow2_data_file_image(rng, folder):
    return data_file(rng, folder, 'disk.qcow2')


def qcow2_data_file(rng, folder):
    return data_file(rng, folder, 'disk.data')


def qcow2_snapshot(rng, folder):
    image = fill_qcow2(rng, Qcow2(folder + '/disk.qcow2', 500 * KILO, cluster_bits=14))
    contents = {cluster: ('data', rng.randbytes(1 << 14)) for cluster in range(0, 30, 2)}
    image.add_snapshot('1', 'first', contents=contents, share=range(1, 30, 4))
    image.write()
    return Kind(image.path, options=['--snapshot=first'], opening={'snapshot': 'first'}, cluster=1 << 14)


def qcow2_backing(rng, folder):
    base = fill_qcow2(rng, Qcow2(folder + '/base.qcow2', 400 * KILO, cluster_bits=13),
                      ('data', 'compressed', 'data', 'zero'))
    base.write()
    top = fill_qcow2(rng, Qcow2(folder + '/top.qcow2', 500 * KILO, cluster_bits=14, backing='base.qcow2',
                                backing_format='qcow2'), ('data', 'unallocated', 'unallocated'))
    top.write()
    return Kind(top.path, base.path, cluster=1 << 13, coded=True)


KINDS = (vhd_fixed, vhd_dynamic, vhd_usual, vhd_small, vhd_batmap, vhd_child, vhd_parent, qcow2_plain, qcow2_small, qcow2_zlib,
         qcow2_zlib_only, qcow2_zstd, qcow2_extended, qcow2_data_file_image, qcow2_data_file, qcow2_snapshot, qcow2_backing)


# One cut

def compare(kind, length, out, eio):
    """Everything that was read is the whole disk's, or zeros where that is allowed.  What may be zero, is it?"""
    wanted = bytearray(kind.bytes)
    for lo, hi in eio:
        wanted[lo:hi] = bytes(hi - lo)
    with open(out, 'rb') as file:
        got = file.read()
    if got == wanted:
        return
    for lo, hi in kind.spared(length):
        wanted[lo:hi] = bytes(hi - lo)
    if got != wanted:
        at = next(i for i, (a, b) in enumerate(zip(got, wanted)) if a != b) if len(got) == len(wanted) else len(got)
        raise Failure('the disk differs from the whole one at byte %d of %d (%d)' % (at, len(wanted), len(got)))


def check_refused(status, text, log, failed):
    if status != failed or text or len(log.splitlines()) != 1:
        raise Failure('refused with status %d, stdout %r, stderr %r' % (status, text[:200], log[:600]))


def check_cut(programs, kind, image, length, has_footer, out):
    """0: the disk is whole; UNREADABLE; FAILED: it is refused."""
    status, text, log = run(programs.vdcat, *kind.options, image, out)
    map_status, map_text, map_log = run(programs.vdimap, *kind.options, image)
    if status not in (0, UNREADABLE):
        check_refused(status, text, log, status)
        check_refused(map_status, map_text, map_log, FAILED)
        return FAILED
    size, _, eio = parse_cat(text)
    if size != len(kind.bytes):
        raise Failure('the size is %d instead of %d' % (size, len(kind.bytes)))
    compare(kind, length, out, eio)
    if bool(eio) != (status == UNREADABLE):
        raise Failure('status %d with %s' % (status, eio[:3]))
    if map_status != status and not (kind.coded and map_status == 0):
        raise Failure('vdcat ends with status %d, vdimap with %d: %s' % (status, map_status, map_log))
    # The last byte of a footer is not used: without it the footer is one of 511 bytes.
    lost_footer = kind.cut.endswith('.vhd') and not has_footer and length < len(kind.whole) - 1
    for who, lines, bad in (('vdcat', log, status), ('vdimap', map_log, map_status)):
        if (bad or lost_footer) and not lines:
            raise Failure('%s says nothing' % who)
        # What a lower file lacks is worth a line even where the image above hides it.
        if not bad and not lost_footer and lines and kind.cut == kind.image:
            raise Failure('%s complains: %s' % (who, lines[:600]))
    return status


def some_cuts(make, seed, numbers, builddir):
    """The results of a few cuts, with and without the footer, and what was wrong."""
    programs = Programs(builddir)
    counts, wrong = {0: 0, UNREADABLE: 0, FAILED: 0}, []
    with tempfile.TemporaryDirectory(prefix='vd-cuts-') as folder:
        kind = make(random.Random('%d/%s' % (seed, make.__name__)), folder).load()
        edges = [0, 1, 511, 512, len(kind.whole) - 1, len(kind.whole) - 511, len(kind.whole) - 512, len(kind.whole) - 513]
        for number in numbers:
            length = random.Random('%d/%s/%d' % (seed, make.__name__, number)).randrange(len(kind.whole))
            length = edges[number] if number < len(edges) else length
            for has_footer in (False, True) if kind.cut.endswith('.vhd') else (False,):
                if has_footer and length > len(kind.whole) - FOOTER:
                    continue
                with open(kind.cut, 'wb') as file:
                    file.write(kind.whole[:length] + kind.whole[-FOOTER:] * has_footer)
                os.utime(kind.cut, ns=kind.times)       # a parent that was written to after its child is worth a line
                try:
                    counts[check_cut(programs, kind, kind.image, length, has_footer, folder + '/out')] += 1
                except (Failure, OSError) as failure:
                    wrong.append('cut %d at byte %d of %d%s: %s' % (
                        number, length, len(kind.whole), ', with its footer' * has_footer, failure))
    return counts, wrong


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--count', type=int, default=effort(15, 20, 2000))
    parser.add_argument('--builddir', default=None)
    parser.add_argument('--kind', default=None, help='only this kind')
    parser.add_argument('--jobs', type=int, default=2)
    args = parser.parse_args()
    if args.seed is None:
        args.seed = int(os.environ.get('VD_SEED') or random.SystemRandom().randrange(1 << 31))
    return args


def main():
    end_cleanly()
    spare_leak_searches(os.environ)
    args, tap = arguments(), Tap()
    programs = Programs(args.builddir)
    if programs.missing('vdimap', 'vdcat'):
        return tap.bail('not built: ' + ', '.join(programs.missing('vdimap', 'vdcat')))
    tap.note('seed %d, %d cuts of each kind' % (args.seed, args.count))
    with concurrent.futures.ProcessPoolExecutor(max_workers=max(1, args.jobs)) as pool:
        for make in KINDS:
            if args.kind not in (None, make.__name__):
                continue
            if make is qcow2_zstd and not shutil.which('zstd'):
                tap.skip(make.__name__, 'needs the zstd program')
                continue
            parts = [pool.submit(some_cuts, make, args.seed, range(start, args.count, args.jobs), args.builddir)
                     for start in range(args.jobs)]
            counts, wrong = {0: 0, UNREADABLE: 0, FAILED: 0}, []
            for part in parts:
                for status, count in part.result()[0].items():
                    counts[status] += count
                wrong += part.result()[1]
            tap.ok(not wrong, '%s, cut: no byte is wrong without an error' % make.__name__, '\n'.join(wrong[:20]))
            tap.note('%s: %d whole, %d with errors, %d refused' % (
                make.__name__, counts[0], counts[UNREADABLE], counts[FAILED]))
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
