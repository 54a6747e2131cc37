#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The worst metadata that the formats allow, and what may be spent on it.  Prints TAP.

    tests/limits.py [--builddir DIR] [NAME...]

Each image is opened, read and sought in within SECONDS of processor time and MEMORY, the figures of the section LIMITS
of vdifs(1), or refused with a message that names the limit.  vdprobe measures; vdimap then maps the whole disk within
the same memory and, where the work is bounded by the file, in a time that is generous but could be missed.  The images
are sparse: what they claim takes little room here, as it would from a stranger.
"""
import argparse
import array
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

from qcow2_writer import Qcow2, deflate                                 # noqa: E402
from tap import Tap                                                     # noqa: E402
from vhd_writer import Vhd                                              # noqa: E402

SECONDS = 1.0
MEMORY = 256 << 10              # KiB
MAP_SECONDS = 60
PATIENCE = 120
SLOWER = 10                     # with sanitizers
OPENED = 64 << 10               # KiB, by the end of the opening or at the refusal
LAYERS = 256
L1_MAX = 4 << 20                # entries: 32 MiB
BLOCKS_MAX = 2040 << 11         # of 512 KiB in the largest VHD
COPIED = 1 << 63


def table(values, code):
    """Big-endian numbers."""
    numbers = array.array(code, values)
    numbers.byteswap()
    return numbers.tobytes()


def poke(path, offset, data):
    with open(path, 'r+b') as image:
        image.seek(offset)
        image.write(data)


def large_l1(folder, entry, size_bits=51, cluster_bits=21):
    """A QCOW2 image with an L1 table of 32 MiB whose entries are entry(index); a sparse file for all they point to."""
    path = os.path.join(folder, 'disk.qcow2')
    image = Qcow2(path, 1 << 20, cluster_bits=cluster_bits)
    image.write()
    l1_host = 64 << 20
    values = [entry(index) for index in range(L1_MAX)]
    poke(path, 24, struct.pack('>Q', 1 << size_bits))
    poke(path, 36, struct.pack('>IQ', L1_MAX, l1_host))
    poke(path, l1_host, table(values, 'Q'))
    os.truncate(path, max(l1_host + 8 * L1_MAX, (1 << 43) + (1 << 30)))
    return path


def l1_empty(folder):
    return large_l1(folder, lambda index: 0, 61)


def l1_aliased(folder):
    return large_l1(folder, lambda index: COPIED | 1 << 30, 61)


def l1_unaligned(folder):
    return large_l1(folder, lambda index: COPIED | (index << 9) + 512, 61)


def l1_past_end(folder):
    return large_l1(folder, lambda index: COPIED | 1 << 50 | index % 8 << 21, 61)


def l1_distinct(folder):
    """Four million L2 tables, each at a place of its own, in clusters of 512 bytes."""
    return large_l1(folder, lambda index: COPIED | (1 << 30) + index * 512, 37, 9)


def l1_colliding(folder):
    """As many, in two groups that multiplying by a constant would lay on each other."""
    half = L1_MAX // 2
    return large_l1(folder, lambda index: COPIED | (1 - index // half << 35) + (1 << 30) + index % half * 512, 37, 9)


def l1_too_large(folder):
    path = os.path.join(folder, 'disk.qcow2')
    Qcow2(path, 1 << 20).write()
    poke(path, 36, struct.pack('>I', L1_MAX + 1))
    os.truncate(path, 64 << 20)
    return path


def snapshots(folder, extra=972):
    """As many snapshots as there may be, with the longest extra data that 64 MiB of table leave room for."""
    path = os.path.join(folder, 'disk.qcow2')
    image = Qcow2(path, 1 << 20)
    image.write()
    host = 1 << 20
    entry = struct.pack('>QIHHIIQII', image.where('l1'), 1, 2, 2, 0, 0, 0, 0, extra) + bytes(extra) + b'idna'
    entry += bytes(-len(entry) % 8)
    poke(path, 60, struct.pack('>IQ', 65536, host))
    with open(path, 'r+b') as file:
        file.seek(host)
        for _ in range(64):
            file.write(entry * 1024)
    return path


def snapshots_too_large(folder):
    return snapshots(folder, 984)


def chain(folder):
    below = None
    for layer in range(32):
        path = os.path.join(folder, 'layer%d.qcow2' % layer)
        image = Qcow2(path, 64 << 20, cluster_bits=9, features=None, backing=below, backing_format=below and 'qcow2')
        for cluster in range(layer * 100, 32 << 10, 997):
            image.set(cluster, 'data', layer + 1)
        image.write()
        below = os.path.basename(path)
    return path


def compressed(folder):
    """Clusters of 2 MiB, each of which comes out of 2 KiB."""
    path = os.path.join(folder, 'disk.qcow2')
    image = Qcow2(path, 1 << 30, cluster_bits=21)
    for cluster in range(0, 512):
        image.set(cluster, 'stream', deflate(bytes([cluster % 7]) * (2 << 20)))
    image.write()
    return path


def compressed_readers(folder):
    """The same, as if each came out of 4 MiB, for as many readers as there may be at once."""
    path = compressed(folder)
    poke(path, os.path.getsize(path) + (4 << 20), b'end')
    with open(path, 'r+b') as file:
        l1_host = struct.unpack('>Q', os.pread(file.fileno(), 8, 40))[0]
        l2_host = struct.unpack('>Q', os.pread(file.fileno(), 8, l1_host))[0] & ~COPIED
        entries = array.array('Q', os.pread(file.fileno(), 8 * 512, l2_host))
        entries.byteswap()
        os.pwrite(file.fileno(), table([entry | 0x1fff << 49 for entry in entries], 'Q'), l2_host)
    return path


def vhd(folder, entries, block_bytes, size, values=None):
    """A dynamic VHD whose BAT has so many entries, in a sparse file that holds it."""
    path = os.path.join(folder, 'disk.vhd')
    Vhd(path, 4 << 20, 'dynamic').write()
    bat_change(path, entries, block_bytes, size, values)
    return path


def bat_change(path, entries, block_bytes, size, values=None):
    """Give a VHD another size and BAT."""
    with open(path, 'r+b') as file:
        footer, header = bytearray(file.read(512)), bytearray(file.read(1024))
        struct.pack_into('>QQ', footer, 40, size, size)
        struct.pack_into('>Q', header, 16, 2048)
        struct.pack_into('>II', header, 28, entries, block_bytes)
        for part, at in ((footer, 64), (header, 36)):
            struct.pack_into('>I', part, at, 0)
            struct.pack_into('>I', part, at, ~sum(part) & 0xffffffff)
        file.truncate(0)
        file.seek(0)
        file.write(footer + header)
        if values:
            file.seek(2048)
            file.write(table(values, 'I'))
        end = max(2048 + 4 * entries, 1 << 41 if values else 0)
        file.seek(end + -end % 512)
        file.write(footer)


def bat_4gi(folder):
    """4 Gi entries, all of which the disk has, in blocks of a sector."""
    return vhd(folder, 0xff000000, 512, 2040 << 30)


def bat_claimed(folder):
    """4 Gi entries, of which the disk uses a few."""
    return vhd(folder, 0xffffffff, 2 << 20, 1 << 30)


def bat_missing(folder):
    path = vhd(folder, 0xffffffff, 2 << 20, 1 << 30)
    with open(path, 'r+b') as file:
        footer = file.read(512)
        file.truncate(1 << 20)
        file.seek(1 << 20)
        file.write(footer)
    return path


def bat_backwards(folder):
    """The most entries that a real disk has, in the wrong order: the search for overlaps must keep them all."""
    first = (2048 + 4 * BLOCKS_MAX) // 512 + 1
    return vhd(folder, BLOCKS_MAX, 512 << 10, 2040 << 30,
               [first + (BLOCKS_MAX - index) * 1025 for index in range(BLOCKS_MAX)])


def bat_colliding(folder):
    """Blocks of a sector in two groups, as in l1_colliding()."""
    first, half = (2048 + 4 * L1_MAX) // 512 + 1, L1_MAX // 2
    return vhd(folder, L1_MAX, 512, L1_MAX * 512,
               [first + ((1 - index // half << 27) + index % half * 2) for index in range(L1_MAX)])


def parents_wrong(folder):
    """Nine names of one file, which is not the parent, and whose blocks are in the wrong order."""
    bat_backwards(folder)
    path = os.path.join(folder, 'top.vhd')
    Vhd(path, 4 << 20, 'differencing', parent_uuid=bytes(range(16)), parent_name='disk.vhd',
        locators=[('W2ru', './' * times + 'disk.vhd', {}) for times in range(1, 9)]).write()
    return path


def l1_change(path, values, size, count=None):
    """Give a QCOW2 image another size and L1 table; without values the table is a hole."""
    l1_host = 64 << 20
    poke(path, 24, struct.pack('>Q', size))
    poke(path, 36, struct.pack('>IQ', count or len(values), l1_host))
    poke(path, l1_host, table(values, 'Q') if values else b'')
    os.truncate(path, 1 << 43)


def shuffled(count, cluster_bits):
    """L1 entries whose tables lie in the wrong order."""
    return [COPIED | 1 << 32 | (count - index) << cluster_bits for index in range(count)]


def qcow2_chain(folder, count, values, size, entries=None, cluster_bits=9, bottom=None, **keys):
    """That many layers, each with such an L1 table."""
    below, keys_below = bottom, {'backing_format': 'vpc'}
    for layer in range(count):
        path = os.path.join(folder, 'layer%d.qcow2' % layer)
        Qcow2(path, 1 << 20, cluster_bits=cluster_bits, features=None, backing=below,
              **(keys_below if below else {}), **keys).write()
        l1_change(path, values, size, entries)
        below, keys_below = os.path.basename(path), {'backing_format': 'qcow2'}
    return path


def chain_l1_empty(folder):
    return qcow2_chain(folder, 24, None, L1_MAX << 15, L1_MAX)


def chain_l1_shuffled(folder):
    return qcow2_chain(folder, 6, shuffled(L1_MAX, 9), L1_MAX << 15)


def chain_extensions(folder):
    """As many header extensions as there may be in each layer, the costliest one."""
    name = b'qcow2'
    return qcow2_chain(folder, LAYERS, None, 1 << 20, 8, cluster_bits=21,
                       unknown_exts=[(0xe2792aca, name)] * 1000)


def extensions_too_many(folder):
    return qcow2_chain(folder, 1, None, 1 << 20, 8, cluster_bits=21, unknown_exts=[(0x12345678, b'')] * 1100)


def chain_snapshots(folder):
    """As many small snapshots in each layer as there may be."""
    path, below = None, None
    for layer in range(64):
        path = os.path.join(folder, 'layer%d.qcow2' % layer)
        image = Qcow2(path, 1 << 20, features=None, backing=below, backing_format=below and 'qcow2')
        image.write()
        host = 1 << 20
        poke(path, 60, struct.pack('>IQ', 65536, host))
        if layer % 8 == 0:
            poke(path, host, (struct.pack('>QIHHIIQII', image.where('l1'), 1, 2, 2, 0, 0, 0, 0, 0) + b'idna' + bytes(4)) * 65536)
        os.truncate(path, host + 48 * 65536 + (1 << 20))        # else an entry is 40 bytes of zeros: a hole
        below = os.path.basename(path)
    return path


def snapshots_shuffled(folder):
    """256 snapshots of a disk of 2 TiB, whose L2 tables lie in the wrong order."""
    path = os.path.join(folder, 'disk.qcow2')
    image = Qcow2(path, 1 << 20)
    image.write()
    l1_change(path, shuffled(4096, 16), 2 << 40)
    host = 1 << 25
    entries = b''.join(struct.pack('>QIHHIIQII', 64 << 20, 4096, 3, 3, 0, 0, 0, 0, 16) + struct.pack('>QQ', 0, 2 << 40) +
                       b'%03dn%02x' % (index, index) + bytes(2) for index in range(256))
    poke(path, 60, struct.pack('>IQ', 256, host))
    poke(path, host, entries)
    return path


def vhd_chain(folder, count, entries, block_bytes, size, values=None):
    """That many differencing images, each with such a BAT; without values it is a hole."""
    below = None
    for layer in range(count):
        path = os.path.join(folder, 'layer%d.vhd' % layer)
        parent = {'parent_uuid': below.uuid, 'parent_name': os.path.basename(below.path)} if below else {}
        image = Vhd(path, 4 << 20, 'differencing' if below else 'dynamic', locators=[], **parent)
        image.write()
        bat_change(path, entries, block_bytes, size, values)
        below = image
    return path


def chain_bat_empty(folder):
    return vhd_chain(folder, 48, BLOCKS_MAX, 512 << 10, 2040 << 30)


def bat_values(entries, block_bytes):
    first = (2048 + 4 * entries) // 512 + 1
    return [first + (entries - index) * (block_bytes // 512 + 1) for index in range(entries)]


def chain_bat_shuffled(folder):
    return vhd_chain(folder, 8, BLOCKS_MAX, 512 << 10, 2040 << 30, bat_values(BLOCKS_MAX, 512 << 10))


def chain_mixed(folder):
    """Layers of both formats: QCOW2 files above a chain of VHDs."""
    bottom = chain_bat_shuffled(folder)
    return qcow2_chain(folder, 3, shuffled(L1_MAX, 9), L1_MAX << 15, bottom=os.path.basename(bottom))


def honest_64tib(folder):
    """64 TiB in clusters of 64 KiB, with all L2 tables, in the order in which a guest wrote."""
    return qcow2_chain(folder, 1, shuffled(128 << 10, 16), 64 << 40, cluster_bits=16)


def honest_qcow2_chain(folder):
    return qcow2_chain(folder, 200, shuffled(2048, 16), 1 << 40, cluster_bits=16)


def honest_vhd_chain(folder):
    """200 layers of 1 TiB, of which each holds 8,000 blocks; the base has all of them."""
    return vhd_chain(folder, 200, 512 << 10, 2 << 20, 1 << 40, bat_values(8000, 2 << 20))


def honest_vhd(folder):
    """2040 GiB, all blocks there and in the wrong order."""
    entries = 2040 << 9
    return vhd(folder, entries, 2 << 20, 2040 << 30, bat_values(entries, 2 << 20))


def bat_same(folder):
    """All blocks at one place."""
    return vhd(folder, BLOCKS_MAX, 512 << 10, 2040 << 30, [1 << 20] * BLOCKS_MAX)


BUDGET = 'more than vdifs checks for one chain (the limit is 640 MiB)'

# name, image, refused with what, whole map with vdimap (False: that, and a seek, read millions of tables or bitmaps)
CASES = (
    ('an L1 table of 32 MiB, empty', l1_empty, None, True),
    ('an L1 table of 32 MiB whose entries share one L2 table', l1_aliased, None, True),
    ('an L1 table of 32 MiB with unaligned entries', l1_unaligned, None, True),
    ('an L1 table of 32 MiB with entries past the end', l1_past_end, None, True),
    ('an L1 table of 32 MiB with an L2 table for each entry', l1_distinct, None, False),
    ('an L1 table of 32 MiB with an L2 table for each entry, in two groups', l1_colliding, None, False),
    ('an L1 table of 32 MiB and one entry', l1_too_large, 'l1_size is 4194305 entries; the limit is 4194304', False),
    ('65536 snapshots in 64 MiB', snapshots, None, True),
    ('65536 snapshots in more than 64 MiB', snapshots_too_large, 'QCOW2 snapshot table has more than 64 MiB', False),
    ('a chain of 32 layers', chain, None, True),
    ('compressed clusters of 2 MiB', compressed, None, True),
    ('compressed clusters of 2 MiB with the longest input and 32 readers', compressed_readers, None, True),
    ('a BAT of 4 Gi entries in blocks of a sector', bat_4gi, 'the limit is 4194304', False),
    ('a BAT of 4 Gi entries, most of them unused', bat_claimed, None, True),
    ('a BAT of 4 Gi entries that is not there', bat_missing, '4294967295 entries', False),
    ('a BAT whose blocks are in the wrong order', bat_backwards, None, False),
    ('a BAT whose blocks are in two groups', bat_colliding, None, False),
    ('a BAT whose blocks are all the same', bat_same, None, True),
    ('layers with empty L1 tables of 32 MiB', chain_l1_empty, BUDGET, False),
    ('layers with L1 tables of 32 MiB, in the wrong order', chain_l1_shuffled, BUDGET, False),
    ('256 layers with 1,000 header extensions each', chain_extensions, None, True),
    ('1,100 header extensions', extensions_too_many, 'QCOW2 header has more than 1024 extensions', False),
    ('64 layers with 65536 snapshots each', chain_snapshots, BUDGET, False),
    ('256 snapshots whose L2 tables are in the wrong order', snapshots_shuffled, None, False),
    ('layers with empty BATs of 16 MiB', chain_bat_empty, BUDGET, False),
    ('layers with BATs of 16 MiB whose blocks are in the wrong order', chain_bat_shuffled, BUDGET, False),
    ('layers of both formats with their largest tables, in the wrong order', chain_mixed, BUDGET, False),
    ('an ordinary QCOW2 disk of 64 TiB', honest_64tib, None, False),
    ('200 ordinary QCOW2 layers of 1 TiB', honest_qcow2_chain, None, False),
    ('200 ordinary VHD layers of 1 TiB', honest_vhd_chain, None, False),
    ('an ordinary VHD of 2040 GiB', honest_vhd, None, False),
    ('a parent of nine names and another UUID', parents_wrong, 'has another UUID', False),
)


# Only each night: what others show one by one, together.
NIGHTLY = (chain_l1_empty, chain_mixed)


def warm(folder):
    """Read the tables once: what the kernel spends on bringing a file into memory is no part of the measurement."""
    names = os.listdir(folder)
    most = (33 << 20) if len(names) < 64 else (3 << 20)         # where there are many, their tables are small
    for name in names:
        with open(os.path.join(folder, name), 'rb') as file:
            for start in (0, 64 << 20):
                file.seek(start)
                file.read(most)


class Limits:
    def __init__(self, builddir, tap):
        self.builddir, self.tap = builddir, tap
        with open(os.path.join(builddir, 'vdimap'), 'rb') as program:
            self.sanitized = b'__asan_init' in program.read()
        self.seconds = SECONDS * (SLOWER if self.sanitized else 1)

    def program(self, name):
        return os.path.join(self.builddir, name)

    def probe(self, name, path, refused, seeks):
        warm(os.path.dirname(path))
        argv = [self.program('vdprobe'), '--readers'] + ['--no-seek'] * (not seeks) + [path]
        if refused:
            self.refusal(name, argv, refused)
            return
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        figures = dict(line.split() for line in done.stdout.splitlines())
        if not self.tap.ok(done.returncode == 0 and 'memory' in figures, name + ': is opened and read',
                           done.stdout + done.stderr):
            return
        for answer in ('open', 'read') + ('seek',) * seeks:
            took = float(figures[answer]) / 1000
            self.tap.ok(took <= self.seconds, '%s: %s within %g s' % (name, answer, self.seconds), '%.3f s' % took)
        self.memory(name + ': answers', int(figures['memory']))
        self.memory(name + ': the opening', int(figures['opened']), OPENED)
        self.tap.note('  '.join('%s %s' % pair for pair in figures.items()))

    def refusal(self, name, argv, why):
        """A refusal must be as cheap as an opening."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(argv, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read().decode()
        self.tap.ok(process.returncode == 1 and why in text, name + ': refused with the reason named', text)
        took = usage.ru_utime + usage.ru_stime
        self.tap.ok(took <= self.seconds, '%s: refused within %g s' % (name, self.seconds), '%.3f s' % took)
        self.memory(name + ': the refusal', usage.ru_maxrss, OPENED)
        self.tap.note('refused %.1f  memory %d' % (took * 1000, usage.ru_maxrss))

    def memory(self, claim, kib, limit=MEMORY):
        if not self.sanitized:          # sanitizers take memory of their own
            self.tap.ok(kib <= limit, '%s within %d MiB' % (claim, limit >> 10), '%d KiB' % kib)

    def map(self, name, path):
        process = subprocess.Popen([self.program('vdimap'), path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = usage.ru_utime + usage.ru_stime
        self.tap.ok(process.returncode in (0, 3) and took < MAP_SECONDS * (SLOWER if self.sanitized else 1),
                    name + ': the whole map is printed', 'status %d after %.1f s' % (process.returncode, took))
        self.memory(name + ': the whole map', usage.ru_maxrss)
        self.tap.note('map %.2f s  %d KiB' % (took, usage.ru_maxrss))


def made_apart(name, folder):
    """Make the image in another process: a child begins with the peak of memory of who forks it."""
    return subprocess.run([sys.executable, os.path.abspath(__file__), '--make', folder, name], stdout=subprocess.PIPE,
                          text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--builddir', default=os.environ.get('VD_BUILDDIR', 'build'))
    parser.add_argument('--make', metavar='FOLDER', help='make the named image in FOLDER and print its path')
    parser.add_argument('names', nargs='*')
    options = parser.parse_args()
    if options.make:
        print({case[1].__name__: case[1] for case in CASES}[options.names[0]](options.make))
        return 0
    resource.setrlimit(resource.RLIMIT_CPU, (900, 900))
    tap = Tap()
    limits = Limits(options.builddir, tap)
    for name, make, refused, mapped in CASES:
        if options.names and make.__name__ not in options.names:
            continue
        if make in NIGHTLY and not (options.names or os.environ.get('VD_NIGHTLY')):
            continue
        folder = tempfile.mkdtemp(prefix='vdifs-limits-')
        try:
            path = made_apart(make.__name__, folder)
            limits.probe(name, path, refused, mapped)
            if mapped:
                limits.map(name, path)
        except (OSError, subprocess.SubprocessError) as error:
            tap.ok(False, name, str(error))
        finally:
            shutil.rmtree(folder)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
