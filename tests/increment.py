#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recipe of vdimap(1) that brings an old full copy up to date: what it leaves is the new disk, byte by byte.

    tests/increment.py [--builddir DIR]

The commands are taken from the man page.  Only the names of the files are others, and the question that is asked.
"""
import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import examples                                                                # noqa: E402
import oracle                                                                  # noqa: E402
from oracle import Failure, Programs                                           # noqa: E402
from qcow2_writer import Qcow2                                                 # noqa: E402
from tap import Tap                                                            # noqa: E402
from vhd_writer import Vhd                                                     # noqa: E402

MIB = 1 << 20


def tool(*command, folder):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          cwd=folder)
    if done.returncode:
        raise RuntimeError('%s: %s' % (' '.join(command), done.stdout.decode(errors='replace')))


def recipe():
    """The example that ends in a loop over dd."""
    commands, found = [], []
    for command in examples.man_commands('vdimap.1') + [None]:
        if command is None:
            found, commands = found or (commands if any('dd if=' in one for one in commands) else []), []
        else:
            commands.append(command)
    return '\n'.join(found)


def zeros(folder):
    """Data, and then zeros in its place: a zero cluster, a discarded one, and data that is zero."""
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', 'old.qcow2', '16M', folder=folder)
    tool('qemu-io', '-c', 'write -q -P 65 0 6M', 'old.qcow2', folder=folder)
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'old.qcow2', '-F', 'qcow2', 'new.qcow2', folder=folder)
    tool('qemu-io', '-c', 'write -q -z 1M 1M', '-c', 'discard -q 3M 1M', '-c', 'write -q -P 0 5M 64k', '-c', 'write -q -P 66 9M 3k',
         'new.qcow2', folder=folder)
    return 'old.qcow2', 'new.qcow2', '--diff=old.qcow2'


def sizes(folder, old_size, new_size):
    for name, size, byte in (('old.qcow2', old_size, 0x41), ('new.qcow2', new_size, 0x42)):
        image = Qcow2(os.path.join(folder, name), size, cluster_bits=16)
        for cluster in (0, 3, image.clusters // 2, image.clusters - 1):
            image.set(cluster, 'data', byte)
        image.set(4, 'zero' if byte == 0x42 else 'data', None if byte == 0x42 else 0x41)
        image.write()
    return 'old.qcow2', 'new.qcow2', '--diff=old.qcow2'


def larger(folder):
    return sizes(folder, 2 * MIB + 512, 3 * MIB + 1024)


def smaller(folder):
    return sizes(folder, 3 * MIB, MIB + 4608)


def sectors(folder):
    """A VHD and a child of it, in sectors."""
    old = Vhd(os.path.join(folder, 'old.vhd'), 6 * MIB)
    old.set_block(0, 0x41)
    old.set_block(2, 0x42, bitmap=[(7, 90)])
    old.write()
    new = Vhd(os.path.join(folder, 'new.vhd'), 6 * MIB, kind='differencing', parent=old)
    new.set_block(0, 0x43, bitmap=[(1, 1), (4000, 4095)])
    new.set_block(1, 0x44, bitmap=[(0, 0)])
    new.set_block(2, 0, bitmap=[(8, 20)])
    new.write()
    return 'old.vhd', 'new.vhd', '--diff=old.vhd --cluster-bits=9'


def compared(folder):
    return zeros(folder)[:2] + ('--diff=old.qcow2 --compare',)


def bitmap(folder):
    """The old disk is gone; a bitmap knows what has changed since."""
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', 'new.qcow2', '8M', folder=folder)
    tool('qemu-io', '-c', 'write -q -P 65 0 4M', 'new.qcow2', folder=folder)
    shutil.copy(os.path.join(folder, 'new.qcow2'), os.path.join(folder, 'old.qcow2'))
    tool('qemu-img', 'bitmap', '--add', '-g', '1M', 'new.qcow2', 'since', folder=folder)
    tool('qemu-io', '-c', 'write -q -z 1M 2M', '-c', 'write -q -P 66 6M 512', 'new.qcow2', folder=folder)
    tool('qemu-img', 'resize', '-q', 'new.qcow2', '9M', folder=folder)
    return 'old.qcow2', 'new.qcow2', '--bitmap=since'


def check(programs, commands, make, folder):
    old, new, question = make(folder)
    place = os.path.join(folder, 'x')
    os.mkdir(place)
    tool('qemu-img', 'convert', '-f', 'vpc' if old.endswith('.vhd') else 'qcow2', '-O', 'raw', old, 'full.raw', folder=folder)
    if old.endswith('.vhd'):                         # QEMU counts a VHD in cylinders, and reads no sector bitmaps
        tool(programs.vdcat, old, 'full.raw', folder=folder)
    script = 'set -e\n' + commands.replace('--diff=old.qcow2', question).replace('new.qcow2', new).replace('/mnt/x', place)
    environment = dict(os.environ, PATH='%s:%s' % (os.path.dirname(programs.vdimap), os.environ['PATH']))
    try:
        done = subprocess.run(('bash', '-c', script), cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise Failure('status %d: %s' % (done.returncode, done.stdout.decode(errors='replace')))
        with open(os.path.join(place, 'new.raw'), 'rb') as disk, open(os.path.join(folder, 'full.raw'), 'rb') as full:
            oracle.same_bytes('the copy', full.read(), disk.read())
    finally:
        if oracle.mounted(place):
            oracle.unmount(place)


CLAIMS = (('where the new disk has zeros', zeros), ('also those that --compare finds', compared), ('on a larger disk', larger),
          ('on a smaller disk that ends inside of a cluster', smaller), ('sector by sector', sectors), ('with a bitmap', bitmap))


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    args = parser.parse_args()
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap', 'vdifs', 'vdcat'):
        return tap.bail('not built: vdimap, vdifs, vdcat')
    lacking = [name for name in ('qemu-img', 'qemu-io', 'jq', 'bash') if shutil.which(name) is None]
    reason = 'not installed: ' + ', '.join(lacking) if lacking else oracle.mounts_work()
    if reason:
        print('1..0 # SKIP ' + reason)
        return 0
    commands = recipe()
    tap.ok('vdimap --diff=old.qcow2 new.qcow2' in commands and 'vdifs new.qcow2 /mnt/x' in commands, 'vdimap(1) has the recipe', commands)
    for text, make in CLAIMS:
        with tempfile.TemporaryDirectory(prefix='vd-increment-') as folder:
            try:
                check(programs, commands, make, os.path.realpath(folder))
                why = None
            except (Failure, OSError, RuntimeError, subprocess.SubprocessError) as error:
                why = '%s: %s' % (type(error).__name__, error)
        tap.ok(not why, 'the recipe makes the new disk of the old copy, %s' % text, why)
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
