# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pairs of chains for changes.py, written without QEMU: fast, and in places where a file is not what its numbers say.

Places are made by root.  Files of two tmpfs get equal inode numbers and are looked at through one bindfs, so that device,
inode number, size and times are equal and the bytes are not.  A folder is there twice, through a bind mount.  An XFS in
a file has copies that share blocks.
"""
import contextlib
import copy
import fcntl
import os
import shutil
import subprocess
import time

from qcow2_writer import Qcow2
from vhd_writer import Vhd

FICLONE = 0x40049409
SUFFIX = {'qcow2': 'qcow2', 'vhd': 'vhd', 'raw': 'img'}
ANYWHERE = ('copy', 'overlay', 'rebased', 'resized', 'snapshots', 'same')
BEHIND_BINDFS = ('twins', 'twins', 'twins', 'twin chain', 'mounts')


def quiet(*command):
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)


class Places:
    """Folders below `root`: plain, and for root one, two, view (of both), again (one by another mount) and cow."""

    def __init__(self, root, log):
        self.root, self.mounted, self.kinds = root, [], list(ANYWHERE)
        for name in ('plain', 'both', 'both/one', 'both/two', 'view', 'again', 'cow'):
            os.mkdir(self.path(name))
        self.log, self.reasons = log, {}

    def fill(self):
        """Mount what can be mounted here.  Half done is fine for close()."""
        self.attempt(BEHIND_BINDFS, ('bindfs',), self.fill_view)
        self.attempt(('reflink',), ('mkfs.xfs', 'losetup'), self.fill_cow)

    def attempt(self, kinds, tools, fill):
        why = 'this test must be run by root' if os.geteuid() else next(
            ('%s is not installed' % name for name in tools if shutil.which(name) is None), None)
        if not why:
            try:
                fill()
                self.kinds += kinds
                return
            except (OSError, subprocess.CalledProcessError) as error:
                why = 'it cannot be mounted here: %s' % error
        self.log('no pairs of the kinds %s: %s' % (', '.join(sorted(set(kinds))), why))
        self.reasons.update(dict.fromkeys(kinds, why))

    def fill_view(self):
        for name in ('both/one', 'both/two'):
            self.mount(name, 'mount', '-t', 'tmpfs', '-o', 'size=64m', 'vd-changes')
        self.mount('view', 'bindfs', self.path('both'))
        self.mount('again', 'mount', '--bind', self.path('both/one'))

    def fill_cow(self):
        image = self.path('cow.img')
        with open(image, 'wb') as file:
            file.truncate(320 << 20)
        quiet('mkfs.xfs', '-q', '-m', 'reflink=1', image)
        self.mount('cow', 'mount', '-o', 'loop', image)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def mount(self, name, *command):
        quiet(*command, self.path(name))
        self.mounted.append(self.path(name))

    def close(self):
        while self.mounted:
            point = self.mounted.pop()
            for _ in range(50):
                if subprocess.run(('umount', point), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  check=False).returncode == 0:
                    break
                time.sleep(0.1)

    def level(self):
        """The next new file of both tmpfs gets the same inode number."""
        numbers = {'one': 0, 'two': 0}
        while True:
            behind = min(numbers, key=numbers.get)
            probe = self.path('both', behind, 'probe')
            with open(probe, 'wb') as file:
                numbers[behind] = os.fstat(file.fileno()).st_ino
            os.unlink(probe)
            if numbers['one'] == numbers['two']:
                return


# What a chain holds: a list of layers, the top first.

class Layer:
    def __init__(self, kind, size, bits, held):
        self.kind, self.size, self.bits, self.held = kind, size, bits, held

    @property
    def clusters(self):
        return -(-self.size // (1 << self.bits))


def random_held(rng, layer, share=0.6):
    """{cluster: (kind, byte)}"""
    kinds = {'qcow2': ('data', 'data', 'data', 'zero', 'zero_alloc', 'compressed'), 'vhd': ('data', 'data', 'part'),
             'raw': ('data',)}[layer.kind]
    return {c: (rng.choice(kinds), rng.randint(1, 255)) for c in range(layer.clusters) if rng.random() < share}


def random_layer(rng, kind, size):
    bits = {'qcow2': rng.choice((9, 10, 12, 12, 14, 16)), 'vhd': rng.choice((12, 13, 15)), 'raw': 12}[kind]
    bits = max(bits, (size // 64).bit_length())
    layer = Layer(kind, size, bits, {})
    layer.held = random_held(rng, layer, rng.choice((0.2, 0.6, 1)))
    return layer


def random_chain(rng):
    size = rng.randint(1, 600) * 512
    if rng.random() < 0.25:
        kinds = ['vhd'] * rng.randint(1, 3)
    else:
        kinds = ['qcow2'] * rng.randint(1, 3)
        if len(kinds) > 1 and rng.random() < 0.5:
            kinds[-1] = rng.choice(('raw', 'vhd'))
    return [random_layer(rng, kind, size if rng.random() < 0.7 or 'vhd' in kinds else rng.randint(1, 600) * 512)
            for kind in kinds]


def changed(rng, chain):
    """The same layout, other bytes in some clusters of one layer: files of equal sizes."""
    chain = copy.deepcopy(chain)
    layer = rng.choice(chain)
    for cluster in rng.sample(sorted(layer.held), min(len(layer.held), rng.randint(0, 4))):
        kind, byte = layer.held[cluster]
        layer.held[cluster] = (kind, byte % 255 + 1)
    return chain


def written(rng, chain):
    """The top layer again, with more or fewer clusters."""
    chain = copy.deepcopy(chain)
    for cluster in random_held(rng, chain[0], 0.2):
        if rng.random() < 0.3:
            chain[0].held.pop(cluster, None)
        else:
            chain[0].held[cluster] = random_held(rng, Layer(chain[0].kind, 1 << chain[0].bits, chain[0].bits, {}), 1)[0]
    return chain


def write_layer(layer, path, lower, name):
    """`lower`: the writer or the path of the layer below, or None; name: what the image calls it."""
    if layer.kind == 'raw':
        with open(path, 'wb') as file:
            for cluster, (_, byte) in sorted(layer.held.items()):
                file.seek(cluster << layer.bits)
                file.write(bytes([byte]) * min(1 << layer.bits, layer.size - (cluster << layer.bits)))
            file.truncate(layer.size)
        return path
    if layer.kind == 'vhd':
        options = {'kind': 'dynamic'} if lower is None else {
            'kind': 'differencing', 'parent': lower, 'locators': [('W2ru', name.replace('/', '\\'), {})]}
        image = Vhd(path, layer.size, block_size=1 << layer.bits, **options)
        for cluster, (kind, byte) in layer.held.items():
            image.set_block(cluster, byte, bitmap=None if kind == 'data' else [(1, 3), (6, 6)])
    else:
        below = {} if lower is None else {'backing': name, 'backing_format': 'raw' if isinstance(lower, str) else
                                          'vpc' if isinstance(lower, Vhd) else 'qcow2'}
        if layer.bits == 9:             # the header has to leave room for the name
            below['features'] = None
        image = Qcow2(path, layer.size, cluster_bits=layer.bits, **below)
        for cluster, (kind, byte) in layer.held.items():
            image.set(cluster, kind, None if kind == 'zero' else bytes([byte]) * 20 if kind == 'compressed' else byte)
    image.write()
    return image


def write_chain(chain, folder, stem, names=None, below=None):
    """Write the layers that are not in `below`, a (writer, name) pair; returns (path, writer) of the top."""
    lower, name = below or (None, None)
    for number in reversed(range(len(chain))):
        path = os.path.join(folder, '%s%d.%s' % (stem, number, SUFFIX[chain[number].kind]))
        lower = write_layer(chain[number], path, lower, name)
        name = names(os.path.basename(path)) if names else os.path.basename(path)
    return path, lower


def same_times(*paths):
    moment = 1700000000 * 10**9
    for path in paths:
        os.utime(path, ns=(moment, moment))


class Maker:
    """Makes (old, new), each a path and options, and says of what kind it is."""

    def __init__(self, places, rng, number):
        self.places, self.rng = places, rng
        self.stem = 'p%d-' % number
        self.folders = []

    def folder(self, *names):
        path = self.places.path(*names, self.stem + 'd')
        os.makedirs(path, exist_ok=True)
        self.folders.append(path)
        return path

    def make(self):
        kind = self.rng.choice(self.places.kinds)
        old, new, options = getattr(self, kind.replace(' ', '_'))()
        return kind, old, new, options

    def clear(self):
        for path in self.folders:
            shutil.rmtree(path, ignore_errors=True)

    def copy(self):
        """Two files of the same history in one folder."""
        chain, folder = random_chain(self.rng), self.folder('plain')
        old, _ = write_chain(chain, folder, 'old')
        new, _ = write_chain(self.rng.choice((changed, written))(self.rng, chain), folder, 'new')
        return old, new, []

    def same(self):
        path, _ = write_chain(random_chain(self.rng), self.folder('plain'), 'old')
        return path, path, []

    def over(self, chain):
        """A layer for the top of a chain."""
        size = chain[0].size if self.rng.random() < 0.6 or chain[0].kind == 'vhd' else self.rng.randint(1, 600) * 512
        return random_layer(self.rng, 'vhd' if chain[0].kind == 'vhd' and self.rng.random() < 0.7 else 'qcow2', size)

    def overlay(self):
        chain, folder = random_chain(self.rng), self.folder('plain')
        old, lower = write_chain(chain, folder, 'old')
        new, _ = write_chain([self.over(chain)], folder, 'new', below=(lower, os.path.basename(old)))
        return (old, new, []) if self.rng.random() < 0.8 else (new, old, [])

    def rebased(self):
        """The same top layer, on the same base and on a copy of it."""
        chain, folder = random_chain(self.rng), self.folder('plain')
        old, lower = write_chain(chain, folder, 'old')
        other, copied = write_chain(self.rng.choice((changed, lambda _, c: c))(self.rng, chain), folder, 'other')
        top = self.over(chain)
        first, _ = write_chain([top], folder, 'first', below=(lower, os.path.basename(old)))
        new, _ = write_chain([top], folder, 'new', below=(copied, os.path.basename(other)))
        return first, new, []

    def resized(self):
        chain, folder = random_chain(self.rng), self.folder('plain')
        old, _ = write_chain(chain, folder, 'old')
        chain = written(self.rng, chain)
        chain[0].size = max(512, int(chain[0].size * self.rng.choice((0.4, 0.8, 1.3, 2))) // 512 * 512)
        chain[0].held = {c: held for c, held in chain[0].held.items() if c < chain[0].clusters}
        new, _ = write_chain(chain, folder, 'new')
        return (old, new, []) if self.rng.random() < 0.5 else (new, old, [])

    def snapshots(self):
        """One file, whose snapshot shares clusters with the active disk."""
        rng = self.rng
        layer = random_layer(rng, 'qcow2', rng.randint(1, 600) * 512)
        path = os.path.join(self.folder('plain'), 'old.qcow2')
        image = Qcow2(path, layer.size, cluster_bits=layer.bits)
        for cluster, (kind, byte) in layer.held.items():
            image.set(cluster, kind, None if kind == 'zero' else bytes([byte]) * 20 if kind == 'compressed' else byte)
        shared = [c for c, (kind, _) in layer.held.items() if kind == 'data' and rng.random() < 0.5]
        own = {c: ('data', rng.randint(1, 255)) for c in range(layer.clusters) if c not in shared and rng.random() < 0.4}
        image.add_snapshot('1', 'monday', contents=own, share=shared)
        image.write()
        words = ['--old-snapshot=monday'] if rng.random() < 0.7 else ['--snapshot=monday']
        return path, path, words

    def twins(self):
        """Equal numbers, sizes and times; other bytes.  Both are seen through one bindfs."""
        places, chain = self.places, random_chain(self.rng)
        one, two = self.folder('both', 'one'), self.folder('both', 'two')
        new = changed(self.rng, chain) if self.rng.random() < 0.8 else written(self.rng, chain)
        places.level()
        old_path, _ = write_chain(chain, one, 'x')
        places.level()
        new_path, _ = write_chain(new, two, 'x')
        self.align(one, two)
        return [places.path('view', os.path.relpath(path, places.path('both'))) for path in (old_path, new_path)] + [[]]

    def align(self, one, two):
        """Files were written one after the other: give each new one the number of the old one."""
        for name in sorted(os.listdir(one)):
            self.places.level()
            for folder in (one, two):
                shutil.copyfile(os.path.join(folder, name), os.path.join(folder, 'new'))
            for folder in (one, two):
                os.replace(os.path.join(folder, 'new'), os.path.join(folder, name))
            same_times(os.path.join(one, name), os.path.join(two, name))

    def twin_chain(self):
        """An overlay on one tmpfs, its base with the same numbers on the other: no loop."""
        places, chain = self.places, random_chain(self.rng)[:1]
        one, two = self.folder('both', 'one'), self.folder('both', 'two')
        places.level()
        base, lower = write_chain(chain, one, 'x')
        top = self.over(chain)
        view = places.path('view', os.path.relpath(base, places.path('both')))
        if top.kind == 'vhd':
            top = random_layer(self.rng, 'qcow2', top.size)
        new, _ = write_chain([top], two, 'x', below=(lower, view))
        return view, places.path('view', os.path.relpath(new, places.path('both'))), ['--backing=any']

    def mounts(self):
        """One folder at two places: the same files, or an overlay that names the other place."""
        places, chain = self.places, random_chain(self.rng)
        folder = self.folder('both', 'one')
        old, lower = write_chain(chain, folder, 'x')
        again = places.path('again', os.path.relpath(old, places.path('both', 'one')))
        if self.rng.random() < 0.4:
            return old, again, []
        top = random_layer(self.rng, 'qcow2', chain[0].size)
        new, _ = write_chain([top], folder, 'new', below=(lower, self.rng.choice((again, old))))
        return old, new, ['--backing=any']

    def reflink(self):
        """A copy that shares all blocks, and is then written to."""
        chain, folder = random_chain(self.rng), self.folder('cow')
        second = os.path.join(folder, 'second')
        os.mkdir(second)
        old, _ = write_chain(chain, folder, 'x')
        for name in os.listdir(folder):
            if name == 'second':
                continue
            with open(os.path.join(folder, name), 'rb') as source, open(os.path.join(second, name), 'wb') as target:
                fcntl.ioctl(target, FICLONE, source.fileno())
        new, now = os.path.join(second, os.path.basename(old)), changed(self.rng, chain)
        with contextlib.ExitStack() as stack:       # in place, block by block: what is not written stays shared
            scratch = os.path.join(folder, 'scratch')
            os.mkdir(scratch)
            write_chain(now, scratch, 'x')
            for name in os.listdir(scratch):
                fresh = stack.enter_context(open(os.path.join(scratch, name), 'rb')).read()
                file = stack.enter_context(open(os.path.join(second, name), 'r+b'))
                stale = file.read()
                for at in range(0, len(fresh), 512):
                    if fresh[at:at + 512] != stale[at:at + 512]:
                        file.seek(at)
                        file.write(fresh[at:at + 512])
                file.truncate(len(fresh))
        same_times(old, new)
        return old, new, []
