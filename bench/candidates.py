# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that show an image's disk as a file, and how each is started and ended.

Every measurement has a mount of its own, since a second pass over a page-cached one measures the kernel.  Programs
that go to the background become our children (we are their subreaper), so that whatever was started here is also ended
here, by its process id.
"""
import ctypes
import os
import shutil
import signal
import subprocess
import time

PATIENCE = 60           # seconds for a mount to come
PR_SET_CHILD_SUBREAPER = 36


class Failure(Exception):
    """Why a candidate has no figure."""


def adopt_orphans():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(parent=None):
    """Child processes that still run: ours, or another one's."""
    found = set()
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % name) as file:
                fields = file.read().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and fields[0] != 'Z':
            found.add(int(name))
    return found


def end(pid, patience=5.0):
    """End a child: wait for it to end by itself if patience is not 0, then ask, then kill."""
    for number, wait in ((None, patience), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            if number:
                os.kill(pid, number)
            deadline = time.monotonic() + wait
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.002)
            else:
                return
        except (ProcessLookupError, ChildProcessError):
            return


def reap():
    """Those that have ended by themselves."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def is_mounted(path):
    return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev


def unmount(path):
    """Also if somebody still looks at it; nothing is done if nothing is mounted there."""
    try:
        if not os.path.lexists(path) or not is_mounted(path):
            return
    except OSError:
        pass                    # a mount whose daemon is gone
    for number in range(20):
        if subprocess.run(['fusermount3', '-u', path], stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.05 * number)
    subprocess.run(['fusermount3', '-u', '-z', path])


class Mount:
    """A mounted image, as a context: enter returns the path of the disk.

    argv        the command; the mountpoint is already in it
    point       where it mounts
    prefix      of the files in the mountpoint, one a layer, numbered from the lowest; None: it is the disk itself
    shows       the file in the mountpoint, where it has a name of its own
    returns     the command returns when the mount is there
    kill_first  end it by its process id rather than by unmounting
    """

    def __init__(self, argv, point, prefix, returns, kill_first=False, log=None, shows=None):
        self.argv, self.point, self.prefix, self.shows = argv, point, prefix, shows
        self.returns, self.kill_first, self.log = returns, kill_first, log
        self.pids, self.process = set(), None

    def __enter__(self):
        self.prepare()
        try:
            with open(self.log, 'wb') as log:
                self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._wait()
            self.pids = children() - self.before
            return self._disk()
        except BaseException:
            self.__exit__()
            raise

    def prepare(self):
        """For somebody else to run argv; to be followed by __exit__()."""
        self.before = children()
        if self.prefix or self.shows:
            os.makedirs(self.point, exist_ok=True)
        else:
            with open(self.point, 'wb'):
                pass

    def _wait(self):
        if self.returns:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Failure('no mount came') from None
            if self.process.returncode != 0:
                raise Failure(self.last_words())
        deadline = time.monotonic() + PATIENCE
        while not is_mounted(self.point):
            if not self.returns and self.process.poll() is not None:
                raise Failure(self.last_words())
            if time.monotonic() > deadline:
                raise Failure('no mount came')
            time.sleep(0.001)

    def _disk(self):
        if self.shows:
            return os.path.join(self.point, self.shows)
        if not self.prefix:
            return self.point
        numbers = [int(name[len(self.prefix):]) for name in os.listdir(self.point) if name.startswith(self.prefix)]
        if not numbers:
            raise Failure('no disk in the mount')
        return os.path.join(self.point, '%s%d' % (self.prefix, max(numbers)))

    def last_words(self):
        with open(self.log, errors='replace') as file:
            lines = [line.strip() for line in file if line.strip()]
        words = lines[-1] if lines else 'exit status %s' % self.process.returncode
        return words.replace(os.path.dirname(self.point) + '/', '')

    def __exit__(self, *_):
        self.pids |= children() - self.before
        if self.kill_first:
            for pid in self.pids:
                end(pid, 0)
        unmount(self.point)
        for pid in self.pids:
            end(pid)
        for pid in children() - self.before:    # orphans of those
            end(pid)
        if self.process:
            self.process.wait()
        reap()

    def peak_memory(self):
        """The most memory that the processes and theirs have had at once, in MiB."""
        total = 0
        for pid in self.pids | {child for pid in self.pids for child in children(pid)}:
            with open('/proc/%d/status' % pid) as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith('VmHWM:'))
        return total / 1024


class Candidate:
    """name: the column; needs: its programs; reads_holes: SEEK_DATA and SEEK_HOLE tell the truth."""

    def __init__(self, name, command, needs, formats=('qcow2', 'vhd'), reads_holes=False, returns=True,
                 kill_first=False, prefix=None):
        self.name, self.command, self.needs, self.formats = name, command, needs, formats
        self.reads_holes, self.returns, self.kill_first, self.prefix = reads_holes, returns, kill_first, prefix

    def mount(self, image, work):
        if image.form not in self.formats:
            raise Failure('not its format')
        for program in self.needs:
            if not shutil.which(program):
                raise Failure('%s is not installed' % program)
        point = os.path.join(work, 'mount' if self.prefix else 'disk')
        return Mount(self.command(image, point), point, self.prefix, self.returns, self.kill_first,
                     os.path.join(work, 'log'))


def qsd_command(image, point):
    driver = {'qcow2': 'qcow2', 'vhd': 'vpc'}[image.form]
    return ['qemu-storage-daemon',
            '--blockdev', 'driver=file,node-name=file,filename=%s,read-only=on' % image.qemu,
            '--blockdev', 'driver=%s,node-name=disk,file=file,read-only=on' % driver,
            '--export', 'type=fuse,id=fuse,node-name=disk,mountpoint=%s,writable=off,allow-other=off' % point]


def nbdfuse_command(image, point):
    form = {'qcow2': 'qcow2', 'vhd': 'vpc'}[image.form]
    return ['nbdfuse', point, '[', 'qemu-nbd', '-r', '-f', form, image.qemu, ']']


def vdifs_candidates(program, extra):
    """Both modes of vdifs."""
    return [Candidate('vdifs', lambda image, point: [program, *extra, image.path, point], [program], reads_holes=True),
            Candidate('vdifs --direct', lambda image, point: [program, '--direct', *extra, image.path, point],
                      [program], reads_holes=True)]


PEERS = [
    Candidate('QSD', qsd_command, ['qemu-storage-daemon'], reads_holes=True, returns=False, kill_first=True),
    Candidate('nbdfuse', nbdfuse_command, ['nbdfuse', 'qemu-nbd'], returns=False),
    Candidate('qcowmount', lambda image, point: ['qcowmount', image.path, point], ['qcowmount'], ('qcow2',),
              prefix='qcow'),
    Candidate('vhdimount', lambda image, point: ['vhdimount', image.path, point], ['vhdimount'], ('vhd',),
              prefix='vhdi'),
]
