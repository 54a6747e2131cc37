#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of README and of the EXAMPLES of the man pages do what they are said to do.

    examples.py [--builddir DIR]

All are run in one folder with the images that they name; /mnt/x, /images and /archive lie in it.  A mount is ended
before the next one, and made again for a command that looks into it.  What needs a loop device, mount(8) or a server
is left to tests/mount.  What README says of QEMU is run with the QEMU that it speaks of, and beside it what vdifs
makes of the same image.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))
sys.path.insert(0, HERE)

import oracle                                                                  # noqa: E402
import tour                                                                    # noqa: E402
from tap import Tap                                                            # noqa: E402

TOP = os.path.join(HERE, '..')
MOST = 20000                        # characters of what a command prints
NEEDS = ('bash', 'qemu-img', 'qemu-io', 'getfattr', 'fusermount3', 'jq')
ELSEWHERE = re.compile(r'\{|losetup |mount |/images/top.qcow2  |nbdkit |.*nbd(\+unix)?:')
OTHERS = re.compile(r'qcowmount|vhdimount|nbdfuse|tar |fusermount|--|stat |qemu-storage-daemon|qemu-img convert -f vpc')
IMAGES = '''
mkdir x
qemu-img create -q -f raw base.img 8M
qemu-io -f raw -c 'write -q -P 1 0 3M' base.img
qemu-img create -q -f qcow2 disk.qcow2 8M
qemu-io -c 'write -q -P 2 1M 2M' disk.qcow2
qemu-img snapshot -c before-upgrade disk.qcow2
qemu-img snapshot -c monday disk.qcow2
qemu-img bitmap --add disk.qcow2 nightly
cp disk.qcow2 old.qcow2
qemu-io -c 'write -q -P 3 4M 1M' disk.qcow2
cp disk.qcow2 new.qcow2
qemu-img convert -O raw old.qcow2 full.raw
qemu-img convert -O vpc -o force_size=on disk.qcow2 disk.vhd
qemu-img create -q -u -f qcow2 -b base.img -F raw top.qcow2 8M
mkdir fresh
cp *.* fresh
'''

# What QEMU does: the beginning of a command of README, and what is to be printed by it.
QEMU = (
    ('qemu-img convert -O raw cut.qcow2', r'0\n196608'),
    ('qemu-img create -q -f vpc -o subformat=fixed', r'(.*\n)*file format: raw\n(.*\n)*virtual size: 8 MiB.*(\n.*)*'),
    ('timeout 5 qemu-img convert', r'124'),
    ('(ulimit', r'(.*\n)*.*(Could not open backing file: ){50}.*(\n.*)*|(.*\n)*.*(memory|[Aa]bort|GLib).*(\n.*)*'),
)
# And what vdimap does with the same image: exit status, and what it says.
OURS = (
    ('vdimap cut.qcow2', 3, r'past the end of the file'),
    ('echo $(($(vdimap f.vhd | jq .virtual_size) - $(stat -c %s f.vhd)))', 0, r'-512'),
    ('vdimap o.qcow2', 1, r'not a regular file'),
    ('vdimap a.qcow2', 1, r'comes back to this file'),
)


def section(text, heading):
    """The lines of a section of README, which ends where the next one is underlined."""
    lines = text.splitlines()
    start = lines.index(heading) + 2
    for end in range(start, len(lines)):
        if re.fullmatch('-{3,}', lines[end]):
            return lines[start:end - 1]
    return lines[start:]


def readme_commands(heading):
    """What is indented; three blanks and more begin a remark, except where a line goes on."""
    with open(os.path.join(TOP, 'README'), encoding='utf-8') as file:
        lines = [line for line in section(file.read(), heading) if line.startswith('    ')]
    return [re.split(r'(?<=\S) {3,}', line.strip())[0] for line in lines]


def man_commands(page):
    """The literal lines of EXAMPLES; one that begins with blanks goes on with the one before.  None between two
    examples."""
    commands, inside, literal = [], False, False
    with open(os.path.join(TOP, 'man', page), encoding='utf-8') as file:
        for line in file.read().splitlines():
            if line.startswith('.Sh'):
                inside = line == '.Sh EXAMPLES'
            elif inside and line == '.Pp':
                commands.append(None)
            elif inside and line.startswith(('.Bd', '.Ed')):
                literal = line.startswith('.Bd')
            elif inside and line.startswith('.Dl '):
                commands.append(line[4:])
            elif inside and literal and line.startswith(' '):
                commands[-1] += '\n' + line
            elif inside and literal:
                commands.append(line)
    return commands


class Bench:
    def __init__(self, tap, shell, folder):
        self.tap, self.shell, self.folder = tap, shell, folder

    def run(self, command):
        """(exit status, text) of a command."""
        lines = self.shell.run('%s\necho "status: $?"' % command)
        return int(lines[-1].split()[1]), '\n'.join(lines[:-1])[:MOST]

    def here(self, command):
        return command.replace('/mnt/x', self.folder + '/x').replace('/images/', '').replace('/archive/', '')

    def is_mounted(self, place):
        with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
            return any(line.split()[4] == os.path.join(self.folder, place) for line in mounts)

    def begin_anew(self):
        for place in ('x', 'disk.vhd'):
            if self.is_mounted(place):
                self.run('fusermount3 -u ' + place)
        self.run('cp fresh/* .')  # an example may have overwritten one

    def make_ready(self, command):
        if command.startswith(('vdifs ', 'vdimap ')) and not command.startswith('vdifs --unmount '):
            self.begin_anew()
        elif '/mnt/x' in command and not self.is_mounted('x'):
            self.run('vdifs disk.qcow2 x')

    def example(self, where, command):
        self.make_ready(command)
        status, text = self.run(self.here(command))
        good = status == 0
        if command.startswith('cmp '):                   # "had and has no more": they differ
            good = status in (0, 1) and text != ''       # cmp -l of diffutils 3.12 ends with 0 all the same
        self.tap.ok(good, '%s: %s' % (where, ' '.join(command.split())), 'status %d\n%s' % (status, text))
        if command.startswith('vdifs --unmount ') or ' -- ' in command.replace('\\-', '-'):
            self.tap.ok(not self.is_mounted('x'), '%s: nothing is mounted afterwards' % where)
        elif command.startswith('vdifs '):
            place = command.split()[-1].replace('/mnt/x', 'x')
            self.tap.ok(self.is_mounted(place), '%s: it is mounted there' % where)


def examples(bench):
    for where, commands in (('README', readme_commands('Use')), ('vdifs(1)', man_commands('vdifs.1')),
                            ('vdimap(1)', man_commands('vdimap.1'))):
        bench.tap.ok(len(commands) > 4, '%s has examples' % where)
        for command in commands:
            if command is None:
                bench.begin_anew()
            elif ELSEWHERE.match(command):
                print('# not run here: ' + command, flush=True)
            else:
                bench.example(where, command)


def other_tools(bench, version):
    """README's block about QEMU, in its order; only the one version of QEMU is spoken of."""
    left = dict(QEMU)
    for command in readme_commands('What other tools get wrong'):
        if OTHERS.match(command):
            continue
        status, text = bench.run(command)
        for start in [s for s in left if command.startswith(s)]:
            bench.tap.ok(re.fullmatch(left.pop(start), text), 'QEMU %s: %s' % (version, command), text)
            break
        else:
            bench.tap.ok(status == 0, 'QEMU %s: %s' % (version, command), text)
    bench.tap.ok(not left, 'all that is known of QEMU is in README', ', '.join(left))
    for command, wanted, words in OURS:
        status, text = bench.run(command)
        bench.tap.ok(status == wanted and re.search(words, text), 'vdifs: ' + command, text)


def qemu_of_readme():
    """The installed version, and whether it is the one that README speaks of."""
    said = subprocess.run(['qemu-img', '--version'], capture_output=True, text=True, check=True).stdout
    version = re.search(r'version (\d+\.\d+\.\d+)', said).group(1)
    with open(os.path.join(TOP, 'README'), encoding='utf-8') as file:
        named = re.search(r'QEMU (\d+\.\d+)', file.read()).group(1)
    return version, version.startswith(named + '.')


def main():
    oracle.end_cleanly()
    signal.signal(signal.SIGALRM, tour.too_long)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir')
    options = parser.parse_args()
    tap, programs = Tap(), oracle.Programs(options.builddir)
    if programs.missing('vdifs', 'vdimap'):
        return tap.bail('not built')
    lacking = [need for need in NEEDS if not shutil.which(need)]
    reason = 'not installed: ' + ', '.join(lacking) if lacking else oracle.mounts_work()
    if reason:
        print('1..0 # SKIP ' + reason)
        return 0
    with tempfile.TemporaryDirectory(prefix='vdifs-examples-') as folder:
        folder = os.path.realpath(folder)
        bin_folder = tempfile.mkdtemp(prefix='vdifs-examples-bin-')
        for name in ('vdifs', 'vdimap'):
            os.symlink(getattr(programs, name), os.path.join(bin_folder, name))
        shell = tour.Shell(folder, '%s:%s:/usr/sbin:/sbin' % (bin_folder, os.environ['PATH']))
        bench = Bench(tap, shell, folder)
        try:
            status, text = bench.run('set -e' + IMAGES + 'set +e')
            tap.ok(status == 0, 'the images that the examples name', text)
            examples(bench)
            version, is_known = qemu_of_readme()
            if is_known:
                bench.run('mkdir tools && cd tools')
                other_tools(bench, version)
            else:
                print('# README speaks of another QEMU than %s' % version)
        finally:
            signal.alarm(0)
            tour.unmount_all(folder)
            shell.process.kill()
            shell.process.wait()
            shutil.rmtree(bin_folder)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
