#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts that end, or are ended, at random moments: the rounds of lifecycle.sh, which sets the stage.

    end_mounts.py VDIFS IMAGE MOUNTPOINT RAW COUNT SEED [UID]

Whoever mounts is UID, or root.  A round is named KIND/ROLE/NUMBER, and all that is random about it follows from the seed
and its name, so that VD_ROUND=NAME VD_SEED=SEED runs it again, alone, or all whose names begin so.

The processes of a mount are found by their program and their command line, which names the mountpoint, and told apart by
their parents: the command that was typed (`starter`, gone when the mount is ready), the `supervisor`, its child the
`server`; or one process, `only`, that does both.  What is expected follows from how many there are.  For a moment, when
a mount begins, the supervisor has a second child, the `probe`, which asks whether the mount answers.
"""
import errno
import os
import random
import signal
import subprocess
import sys
import time

from claims import PATIENCE, claim

LIMIT = 5.0 * PATIENCE # seconds that an end may take
OPEN_MODES = 'none', 'open', 'reading'
TIMEOUT = 255          # result of a look() that never came back


def wait_until(condition, seconds=LIMIT):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.002)


class Holder:
    """A process of the mount's user that has the disk open, and reads it all when told to, or all the time."""

    def __init__(self, life, busy):
        self.down, self.up = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.down[1])
            os.close(self.up[0])
            life.become_user()
            try:
                self.run(life, busy)
            finally:
                os._exit(0)
        os.close(self.down[0])
        os.close(self.up[1])
        self.opened = os.read(self.up[0], 1) == b'\0'

    def run(self, life, busy):
        try:
            fd = os.open(life.disk, os.O_RDONLY)
        except OSError as error:
            os.write(self.up[1], bytes([error.errno]))
            return
        os.write(self.up[1], b'\0')
        if busy:
            os.set_blocking(self.down[0], False)
        while True:
            try:
                if not os.read(self.down[0], 1):
                    return
                os.write(self.up[1], bytes([life.read_all(fd)]))
            except BlockingIOError:
                life.read_all(fd)

    def read_all(self):
        os.write(self.down[1], b'r')
        answer = os.read(self.up[0], 1)
        return answer[0] if answer else TIMEOUT

    def close(self):
        os.close(self.down[1])
        if not wait_until(lambda: os.waitpid(self.pid, os.WNOHANG)[0], 2 * LIMIT):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.up[0])


class Life:
    def __init__(self, vdifs, image, mountpoint, raw, count, seed, uid=None):
        self.vdifs, self.image, self.mountpoint = vdifs, image, os.path.realpath(mountpoint)
        self.disk = '%s/%s.raw' % (self.mountpoint, os.path.basename(image).rsplit('.', 1)[0])
        with open(raw, 'rb') as file:
            self.wanted = file.read()
        self.count, self.seed, self.uid = int(count), seed, int(uid) if uid else None
        self.as_user = [] if uid is None else ['setpriv', '--reuid=' + uid, '--regid=' + uid, '--clear-groups', '--inh-caps=-all']
        self.who = 'root' if uid is None else 'a user'
        self.starter, self.holder, self.notes = None, None, []
        self.start_seconds = 0.05
        self.is_pair = False

    # --- looking ---

    def become_user(self):
        if self.uid is not None:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)

    def read_all(self, fd):
        """0, or the error; 254 for wrong bytes."""
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            at = 0
            while at < len(self.wanted):
                got = os.pread(fd, 1 << 17, at)
                if not got or got != self.wanted[at:at + len(got)]:
                    return 254
                at += len(got)
            return 0
        except OSError as error:
            return error.errno

    def look(self, read=True):
        """What the mount's user finds: 0 is the whole disk (or just a mountpoint that answers), else an error number."""
        pid = os.fork()
        if pid == 0:
            result = 253
            try:
                self.become_user()
                if read:
                    result = self.read_all(os.open(self.disk, os.O_RDONLY))
                else:
                    os.statvfs(self.mountpoint)
                    os.listdir(self.mountpoint)
                    result = 0
            except OSError as error:
                result = error.errno
            finally:
                os._exit(result)
        end = time.monotonic() + 4 * LIMIT
        while time.monotonic() < end:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return TIMEOUT

    def is_mounted(self):
        with open('/proc/self/mountinfo') as mounts:
            return any(line.split(' ')[4] == self.mountpoint for line in mounts)

    def processes(self):
        """{role: pid}"""
        parents, probes = {}, set()
        for name in os.listdir('/proc'):
            if not name.isdigit():
                continue
            try:
                if os.readlink('/proc/%s/exe' % name) != self.vdifs:
                    continue
                with open('/proc/%s/cmdline' % name, 'rb') as file:
                    if self.mountpoint.encode() not in file.read().split(b'\0'):
                        continue
                with open('/proc/%s/stat' % name) as file:
                    comm, rest = file.read().rsplit(')', 1)
                state, parent = rest.split()[:2]
                if state != 'Z':
                    parents[int(name)] = int(parent)
                    if comm.endswith('(vdifs-probe'):
                        probes.add(int(name))
            except OSError:
                pass
        return self.roles(parents, probes)

    def roles(self, parents, probes):
        found = {}
        for pid, parent in parents.items():
            if pid in probes:
                found['probe'] = pid
            elif self.in_background and self.starter and pid == self.starter.pid:
                found['starter'] = pid
            elif self.is_pair and (pid in self.servers or parent in parents and not
                                   (self.in_background and self.starter and parent == self.starter.pid)):
                found['server'] = pid
                self.servers.add(pid)
            else:
                found['supervisor' if self.is_pair else 'only'] = pid
        return found

    def is_over(self):
        """All is; the command may still be on its way to exec(), by another program, and then is not."""
        return (not self.starter or self.starter.poll() is not None) and not self.processes()

    # --- doing ---

    def begin(self, dice, role=None):
        """Start a mount in one of the forms."""
        self.in_background, self.servers = role == 'starter' or dice.random() < 0.7, set()
        options = ([] if self.in_background else ['-f']) + (['--direct'] if dice.random() < 0.5 else [])
        self.notes.append(' '.join(options) or 'background')
        self.starter = subprocess.Popen(self.as_user + [self.vdifs] + options + [self.image, self.mountpoint],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.messages)

    def ready(self):
        """Wait for the mount. True: it is there and shows the disk."""
        if self.in_background:
            try:
                if self.starter.wait(4 * LIMIT) != 0:
                    return False
            except subprocess.TimeoutExpired:
                return False
        else:
            wait_until(lambda: self.is_mounted() or self.starter.poll() is not None, 4 * LIMIT)
        return self.look() == 0

    def hold(self, mode):
        self.notes.append('open file: ' + mode)
        if mode != 'none':
            self.holder = Holder(self, mode == 'reading')

    def release(self):
        if self.holder:
            self.holder.close()
        self.holder = None

    def unmount(self, *options):
        return subprocess.run(self.as_user + ['fusermount3', '-u', *options, self.mountpoint], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def end_mount(self):
        """Unmount as a user would; with an open file, lazily, and served until the last close.  None, or what is wrong."""
        if not self.holder:
            if not wait_until(self.unmount):
                return 'cannot be unmounted'
        else:
            if self.unmount() and self.holder.opened:
                return 'unmounted although a file is open'
            if not self.unmount('-z'):
                return 'cannot be unmounted lazily'
            found = self.holder.read_all()
            if found:
                return 'after the lazy unmount the open file reads as error %d' % found
            if self.is_over():
                return 'ended before the last close'
            self.release()
        return self.all_over()

    def all_over(self):
        """None, or what is left."""
        begun = time.monotonic()
        if not wait_until(self.is_over):
            return 'after %.0f s there are still %s' % (LIMIT, self.processes())
        self.notes.append('over after %.2f s' % (time.monotonic() - begun))
        if not wait_until(lambda: not self.is_mounted(), 0.5):
            return 'all processes are gone and the mount is left: error %d' % self.look(False)
        return None

    def clean(self):
        """After a round that went wrong, leave nothing to the next one."""
        self.release()
        for _ in range(20):
            for pid in self.processes().values():
                os.kill(pid, signal.SIGKILL)
            if not self.is_mounted() and self.is_over():
                break
            self.unmount('-z')
            time.sleep(0.05)

    # --- rounds: each returns None or what is wrong ---

    def round_mount(self, dice, role):
        self.begin(dice)
        if not self.ready():
            return 'does not mount'
        self.hold(dice.choice(OPEN_MODES))
        time.sleep(dice.random() * 0.02)
        return self.end_mount()

    def strike(self, dice, role, sent):
        """Send the signal to the role at a random moment.  False: it had ended before."""
        in_service = role != 'starter' and dice.random() < 0.6
        if in_service:
            if not self.ready():
                return False
            self.hold(dice.choice(OPEN_MODES))
        delay = dice.random() * (0.03 if in_service else 1.3 * self.start_seconds)
        self.notes.append('%s %.4f s after %s' % (sent.name, delay, 'the mount' if in_service else 'the start'))
        time.sleep(delay)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and not self.is_over():
            pid = self.processes().get(role)
            if pid:
                try:
                    os.kill(pid, sent)
                    return True
                except ProcessLookupError:
                    pass
            elif role == 'starter' and self.starter.poll() is not None:
                break
        return False

    def settled(self, role):
        """Wait until all is gone, or the mount stands and answers.  Whose command is ended has it with both processes, or none."""
        def is_settled():
            if self.is_over():
                return True
            if self.processes().get('starter'):
                return False
            if role == 'starter' and self.is_pair and set(self.processes()) - {'probe'} != {'supervisor', 'server'}:
                return False
            return self.is_mounted() and self.look() == 0
        if not wait_until(is_settled):
            return 'neither gone nor served: processes %s, mounted %s, error %d' % (self.processes(), self.is_mounted(),
                                                                                   self.look(False))
        problem = self.all_over() if self.is_over() else self.end_mount()
        if problem and role == 'starter' and not self.is_mounted():     # the supervisor was faster
            problem = self.all_over()
        return problem

    def round_term(self, dice, role):
        self.begin(dice, role)
        if not self.strike(dice, role, signal.SIGTERM):
            self.notes.append('it had ended before')
            return self.settled(role)
        return self.settled(role) if role == 'starter' else self.all_over()

    def round_kill(self, dice, role):
        self.begin(dice, role)
        if not self.strike(dice, role, signal.SIGKILL):
            self.notes.append('it had ended before')
            return self.settled(role)
        if role == 'server':
            return self.all_over()
        if role == 'only':          # nobody is left to unmount
            wait_until(self.is_over)
            return self.stale() if self.is_mounted() else self.all_over()
        return self.settled(role)

    def round_both(self, dice, role):
        self.begin(dice)
        if not self.ready():
            return 'does not mount'
        for pid in self.processes().values():
            os.kill(pid, signal.SIGSTOP)
        for pid in self.processes().values():
            os.kill(pid, signal.SIGKILL)
        wait_until(self.is_over)
        return self.stale() if self.is_mounted() else self.all_over()

    def stale(self):
        """A dead mount: the next mount names it, fusermount3 -u removes it."""
        self.release()
        wait_until(lambda: self.look(False) == errno.ENOTCONN)    # the last thread may be on its way out
        again = subprocess.run(self.as_user + [self.vdifs, self.image, self.mountpoint], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if again.returncode != 1 or 'dead mount' not in again.stderr or 'fusermount3 -u' not in again.stderr:
            return 'the next mount does not name the dead one: exit status %d, %r' % (again.returncode, again.stderr)
        if not wait_until(self.unmount):
            return 'the dead mount cannot be removed'
        return self.all_over()

    # --- all of it ---

    def rounds(self, text, kind, role, count):
        begun, wrong, slowest = time.monotonic(), [], 0
        for number in range(count):
            name = '%s/%s/%s/%d' % (self.who.split()[-1], kind, role, number)
            if not name.startswith(os.environ.get('VD_ROUND', '')):
                continue
            self.notes = []
            dice = random.Random('%s %s' % (self.seed, name))
            problem = getattr(self, 'round_' + kind)(dice, role) or self.holder and self.release()
            if not problem and self.look(False) != 0:
                problem = 'the folder is not usable: error %d' % self.look(False)
            if problem:
                wrong.append('VD_SEED=%s VD_ROUND=%s: %s (%s)' % (self.seed, name, problem, ', '.join(self.notes)))
                self.clean()
            for note in self.notes:
                if note.startswith('over after'):
                    slowest = max(slowest, float(note.split()[2]))
        claim('%s: %s, %d times' % (self.who, text, count), not wrong, wrong)
        for line in wrong:
            print('# ' + line)
        print('# %d rounds, %d wrong, %.1f s, slowest end %.2f s' % (count, len(wrong), time.monotonic() - begun, slowest),
              flush=True)

    def measure(self):
        """How long a start takes, and how many processes there are."""
        dice = random.Random(0)
        while True:
            begun = time.monotonic()
            self.begin(dice)
            if self.in_background:
                break
            self.ready()
            self.end_mount()
        ready = self.ready()
        self.start_seconds = time.monotonic() - begun
        self.is_pair = len(self.processes_raw()) == 2
        if self.is_pair:
            self.servers = set()
        return ready and self.end_mount() is None

    def processes_raw(self):
        found = []
        for name in os.listdir('/proc'):
            try:
                if name.isdigit() and os.readlink('/proc/%s/exe' % name) == self.vdifs:
                    with open('/proc/%s/cmdline' % name, 'rb') as file:
                        if self.mountpoint.encode() in file.read().split(b'\0'):
                            found.append(int(name))
            except OSError:
                pass
        return found

    def run(self):
        self.messages = open('messages', 'ab')
        self.in_background, self.servers = True, set()
        claim('%s: the first mount comes and goes' % self.who, self.measure())
        print('# seed %s, %.3f s to start, %s' % (self.seed, self.start_seconds,
                                                 'a supervisor and a server' if self.is_pair else 'one process'), flush=True)
        roles = ['starter'] + (['supervisor', 'server'] if self.is_pair else ['only'])
        self.rounds('mount and unmount, with and without open files', 'mount', 'all', 2 * self.count)
        for role in roles:
            self.rounds('SIGTERM to the %s ends all' % role if role != 'starter' else
                        'SIGTERM to the command leaves a mount that works, or none', 'term', role, self.count)
        for role in roles:
            self.rounds({'starter': 'SIGKILL of the command leaves a mount that works, or none',
                         'supervisor': 'SIGKILL of the supervisor leaves a mount that works until it is unmounted, or none',
                         'server': 'SIGKILL of the server leaves nothing',
                         'only': 'SIGKILL leaves a dead mount that is named, or none'}[role], 'kill', role, self.count)
        if self.is_pair:
            self.rounds('SIGKILL of both at once leaves a dead mount that is named', 'both', 'all', max(self.count // 10, 3))


if __name__ == '__main__':
    Life(*sys.argv[1:]).run()
