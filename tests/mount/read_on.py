# SPDX-License-Identifier: LGPL-2.1-or-later
"""The load of soak.sh: readers of all kinds beside each other, and an eye on what the processes use."""
import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time

from claims import claim, same, walk
from faults import Faults, processes

READERS = 5
CROWD = 40              # readers at once while it warms up: as many threads as there will ever be
WARM_SHARE = 0.25       # of the time
THREADS_MAX = 63        # of a server: 32 for requests, 8 for long ones, 16 that decode, 4 for a map, and one each that
                        # waits, indexes, serves
TRIES = 60              # of a read that fails; 3 of 100 reads below do
SLACK_KIB = 2048        # what memory may wander by in a long run; four times that in a short one


class Reader:
    def __init__(self, dice, wanted, data):
        self.dice, self.wanted, self.data = dice, wanted, data
        self.done = self.eio = 0

    def retry(self, what, call):
        for _ in range(TRIES):
            try:
                return call()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise AssertionError('%s: %s' % (what, error)) from error
                self.eio += 1
        raise AssertionError('%s: EIO %d times' % (what, TRIES))

    def read(self, fd, at, size):
        got = self.retry('read of %d at %d' % (size, at), lambda: os.pread(fd, size, at))
        wanted = self.wanted[at:at + len(got)]
        if got != wanted or not got and at < len(self.wanted):
            raise AssertionError('read of %d at %d: wrong bytes' % (size, at))
        os.posix_fadvise(fd, at, size, os.POSIX_FADV_DONTNEED)

    def read_direct(self, fd, room):
        at = self.dice.randrange(len(self.wanted)) & -4096
        got = self.retry('direct read at %d' % at, lambda: os.preadv(fd, [room], at))
        if room[:got] != self.wanted[at:at + got]:
            raise AssertionError('direct read at %d: wrong bytes' % at)

    def seek(self, fd):
        at = self.dice.randrange(len(self.wanted))
        for whence in os.SEEK_DATA, os.SEEK_HOLE:
            is_data = whence == os.SEEK_DATA
            wanted = next((max(at, s) if is_data else e if s <= at else at for s, e in self.data if e > at),
                          None if is_data else at)
            try:
                found = os.lseek(fd, at, whence)
            except OSError as error:
                found = None if error.errno == errno.ENXIO else error
            if found != wanted:
                raise AssertionError('seek %d from %d: %r, wanted %r' % (whence, at, found, wanted))

    def turn(self):
        fd = os.open('mnt/disk.raw', os.O_RDONLY)
        direct = os.open('mnt/disk.raw', os.O_RDONLY | os.O_DIRECT)
        room = mmap.mmap(-1, self.dice.choice((4096, 1 << 16, 1 << 20)))
        for _ in range(20):
            self.read(fd, self.dice.randrange(len(self.wanted)), self.dice.choice((1, 512, 5000, 1 << 16, 1 << 19)))
            self.read_direct(direct, room)
            self.seek(fd)
        at = self.dice.randrange(len(self.wanted))
        for _ in range(16):                     # in order, which has clusters decoded ahead
            self.read(fd, at, 100000)
            at = min(at + 100000, len(self.wanted) - 1)
        os.getxattr('mnt/disk.raw', 'user.intervals')
        os.getxattr('mnt/disk.raw', 'user.vdifs.info')
        with open('mnt/disk.intervals.json', 'rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if file.read() != os.getxattr('mnt', 'user.intervals'):
                raise AssertionError('the sidecar is not the attribute')
        if sorted(os.listdir('mnt')) != ['disk.intervals.json', 'disk.raw'] or os.stat('mnt/disk.raw').st_size != len(self.wanted):
            raise AssertionError('the directory is another one')
        os.close(fd)
        os.close(direct)
        room.close()
        self.done += 1


def run_reader(number, seed, end, wanted, data):
    """In a process of its own; what it finds goes to a file."""
    reader = Reader(random.Random('%s %d' % (seed, number)), wanted, data)
    problem = ''
    try:
        while time.monotonic() < end:
            reader.turn()
    except AssertionError as error:
        problem = str(error)
    with open('reader.%d' % number, 'w') as file:
        file.write('%d %d %s' % (reader.done, reader.eio, problem))


def fork_reader(*arguments):
    pid = os.fork()
    if pid == 0:
        try:
            run_reader(*arguments)
        finally:
            os._exit(0)
    return pid


def usage(pid):
    """(anonymous KiB, descriptors, threads)"""
    with open('/proc/%d/status' % pid) as file:
        fields = dict(line.split(':', 1) for line in file)
    return int(fields['RssAnon'].split()[0]), len(os.listdir('/proc/%d/fd' % pid)), int(fields['Threads'])


def main(vdifs, seconds, seed, sanitized):
    seconds = float(seconds)
    faults = Faults()
    subprocess.run([vdifs, '--cache-memory=2M', 'disk.qcow2', 'mnt'], stdin=subprocess.DEVNULL, check=True)
    with open('wanted', 'rb') as file:
        wanted = file.read()
    os.getxattr('mnt', 'user.intervals')        # the map was made of whole reads
    data = walk(os.open('mnt/disk.raw', os.O_RDONLY))
    pids = processes(vdifs, 'mnt')
    print('# seed %s, %.0f s, %d processes' % (seed, seconds, len(pids)))
    begun = time.monotonic()
    warm = begun + seconds * WARM_SHARE
    crowd_end = begun + min(seconds * WARM_SHARE / 2, 20)
    faults.error_ppm, faults.short_ppm, faults.delay_ppm, faults.delay_us = 30000, 30000, 300000, 5000
    crowd = [fork_reader(100 + n, seed, crowd_end, wanted, data) for n in range(CROWD)]
    for pid in crowd:
        os.waitpid(pid, 0)
    faults.delay_ppm, faults.delay_us = 5000, 20000
    readers = [fork_reader(n, seed, begun + seconds, wanted, data) for n in range(READERS)]
    samples = {pid: ([], []) for pid in pids}   # while it warms up, and after
    while time.monotonic() < begun + seconds:
        time.sleep(min(1, seconds / 50))
        for pid in pids:
            try:
                samples[pid][time.monotonic() > warm].append(usage(pid))
            except OSError:
                pass
    for pid in readers:
        os.waitpid(pid, 0)
    turns = eio = 0
    problems = []
    for number in list(range(READERS)) + [100 + n for n in range(CROWD)]:
        with open('reader.%d' % number) as file:
            done, failed, problem = file.read().split(' ', 2)
        turns, eio = turns + int(done), eio + int(failed)
        problems += [problem] if problem else []
    same('all answers are right, or EIO and then right', problems, [])
    print('# %d turns of 136 reads and 40 seeks; %d reads below: %d EIO, %d short, %d late; %d EIO seen and tried again'
          % (turns, faults.reads, faults.errors, faults.shorts, faults.delays, eio))
    claim('there were faults, and readers saw some', faults.errors > 0 and faults.shorts > 0 and eio > 0)
    same('the processes are those of the beginning', processes(vdifs, 'mnt'), pids)
    for name, pid in zip(('supervisor', 'server') if len(pids) == 2 else ('vdifs',) * len(pids), pids):
        settled = samples[pid][1]
        half = len(settled) // 2
        # After an error a thread gives its pipe up, and another one makes one: three descriptors a thread at most.
        # In a short run the busiest moment may come late.
        is_short = settled[0][2] > 1 and seconds < 300
        descriptors = max(0, 3 * settled[0][2] + 30 - settled[0][1]) if is_short else 0
        threads = max(0, THREADS_MAX - max(s[2] for s in settled[:half])) if is_short else 0
        for field, (what, slack) in enumerate((('KiB', SLACK_KIB * (1 if seconds >= 300 else 4)),
                                               ('descriptors', descriptors), ('threads', threads))):
            early, late = ([s[field] for s in part] for part in (settled[:half], settled[half:]))
            print('# %s: %d to %d %s, then %d to %d' % (name, min(early), max(early), what, min(late), max(late)))
            if field > 0 or sanitized == 'no':
                claim('the %s: no more %s in the second half than in the first' % (name, what),
                      max(late) <= max(early) + slack, (max(early), max(late)))
    faults.error_ppm = faults.short_ppm = faults.delay_ppm = 0
    with open('mnt/disk.raw', 'rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        same('on good storage all of it is right again', file.read() == wanted, True)


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main(*sys.argv[1:])
