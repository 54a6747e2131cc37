# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mounts of memory.sh."""
import errno
import os
import random
import subprocess
import sys
import time

from claims import PATIENCE, claim, same, walk
from faults import Faults, processes

SEED = os.environ.get('VD_SEED', '1')


class Mounts:
    def __init__(self, vdifs, name, json):
        self.vdifs, self.name, self.json = vdifs, name, json.encode()
        self.faults = Faults()
        with open(name + '.wanted', 'rb') as file:
            self.wanted = file.read()
        self.data = None
        self.wrong, self.refused, self.hit = [], 0, 0

    def read(self, flags=0, size=1 << 18):
        fd = os.open('mnt/%s.raw' % self.name, os.O_RDONLY | flags)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return b''.join(os.pread(fd, size, at) for at in range(0, len(self.wanted), size))
        finally:
            os.close(fd)

    def sidecar(self):
        with open('mnt/%s.intervals.json' % self.name, 'rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read()

    def seeks(self):
        fd = os.open('mnt/%s.raw' % self.name, os.O_RDONLY)
        try:
            return walk(fd)
        finally:
            os.close(fd)

    def questions(self):
        """(name, how to ask, the answer); the ones of the map last."""
        map_name = self.name + '.intervals.json'
        return (
            ('read', self.read, self.wanted),
            ('small reads', lambda: self.read(size=1 << 16), self.wanted),
            ('seeks', self.seeks, self.data),
            ('readdir', lambda: sorted(os.listdir('mnt')), [map_name, self.name + '.raw']),
            ('size', lambda: os.stat('mnt/%s.raw' % self.name).st_size, len(self.wanted)),
            ('info', lambda: os.getxattr('mnt', 'user.vdifs.info')[:2], b'{"'),
            ('attribute', lambda: os.getxattr('mnt', 'user.intervals'), self.json),
            ('sidecar', self.sidecar, self.json),
        )

    @staticmethod
    def answer(call):
        try:
            return call()
        except OSError as error:
            return error.errno

    def ask(self, once_more):
        """All questions; what is wrong about the answers. The first time ENOMEM is an answer, too."""
        wrong = []
        for name, call, answer in self.questions():
            got = self.answer(call)
            if once_more and name in ('attribute', 'sidecar'):      # the map is begun again after a while
                deadline = time.monotonic() + 10
                while got == errno.ENOMEM and time.monotonic() < deadline:
                    time.sleep(0.02)
                    got = self.answer(call)
            if got == errno.ENOMEM and not once_more:
                self.hit += 1
            elif got != answer:
                wrong.append('%s%s: %.80r' % (name, ', later' if once_more else '', got))
        return wrong

    def mount(self, number):
        """One mount in which the allocation of that number fails. What is wrong."""
        self.faults.allocations, self.faults.failed, self.faults.fail_at = 0, 0, number
        made = subprocess.run([self.vdifs, self.name + '.qcow2', 'mnt'], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode:
            self.refused += 1
            wrong = [] if made.returncode == 1 and made.stderr.count('\n') == 1 and (
                'memory' in made.stderr) else ['refused with status %d: %r' % (made.returncode, made.stderr)]
            return wrong + (['a mount is left'] if os.path.ismount('mnt') else [])
        if self.data is None:
            self.data = self.seeks()
        wrong = self.ask(False)
        self.faults.fail_at = 0
        wrong += self.ask(True)
        for _ in range(100):
            if subprocess.run(['fusermount3', '-u', 'mnt'], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.01)
        else:
            wrong.append('cannot be unmounted')
        return wrong

    def gone(self):
        deadline = time.monotonic() + 5 * PATIENCE
        while processes(self.vdifs, 'mnt'):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def main(vdifs, name, step, json):
    mounts = Mounts(vdifs, name, json)
    same('%s: with all the memory all is right' % name, (mounts.mount(0), mounts.hit), ([], 0))
    count = mounts.faults.allocations
    dice = random.Random(SEED)
    number, tried, missed, wrong = 1 + dice.randrange(int(step)), 0, 0, []
    while missed < 20 and number < 4 * count:
        found = mounts.mount(number)
        if not mounts.gone():
            found.append('processes are left')
        wrong += ['allocation %d: %s' % (number, one) for one in found]
        tried, missed = tried + 1, missed + (mounts.faults.failed == 0)
        number += int(step)
    print('# %s: about %d allocations; %d failed, one in each mount: %d mounts refused, %d answers ENOMEM'
          % (name, count, tried - missed, mounts.refused, mounts.hit))
    for line in wrong:
        print('# ' + line)
    claim('%s: each allocation failing once: refused, or ENOMEM once, and right after' % name, not wrong, wrong)
    claim('%s: some mounts were refused, some answers were ENOMEM' % name, mounts.refused > 0 and mounts.hit > 0)


if __name__ == '__main__':
    main(*sys.argv[1:])
