#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Requests that take long, however many there are, leave all others answered and can be interrupted: with one thread
# (-s), with a thousand seeks, with many files open.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root python3 getfattr
mkdir mnt

# 16 GiB of tables without a single entry: no walk over it comes to an end.
"$python" "$here/fragmented.py" endless.qcow2 $((1 << 47)) 16 262144 2 sparse
"$python" "$here/fragmented.py" big.qcow2 $((1 << 40)) 16 64 2
"$python" - <<'END'
from qcow2_writer import Qcow2
q = Qcow2('disk.qcow2', 1 << 47, cluster_bits=21, backing='endless.qcow2', backing_format='qcow2')
for number in range(250):
    q.add_snapshot(str(number + 1), 's%d' % number)
q.write()
END

# seekers OPTION COUNT: so many processes look for data in disks without a map. The kernel has one seek a file at a
# time, and the next one cannot be interrupted before; each is over when all are.
seekers() {
	mount_image "$1" disk.qcow2 mnt || return
	python_claims "$2" "$(supervisors)" "${1:+ with $1}$in" <<'END'
import os, signal, sys, time
from claims import claim, over, same
count, supervisor, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
names = ['mnt/disk.raw'] + ['mnt/snapshots/s%d.raw' % number for number in range(250)]

def seeker(number):
    pid = os.fork()
    if pid == 0:
        try:
            os.lseek(os.open(names[number % len(names)], os.O_RDONLY), 0, os.SEEK_DATA)
            os._exit(0)
        except BaseException:
            os._exit(2)
    return pid

pids = [seeker(number) for number in range(count)]
same('%d seeks are under way%s' % (count, mode), over(pids, 1), {})
for what, call in (('a read of the disk', lambda: os.pread(os.open(names[0], os.O_RDONLY), 4096, 1 << 30)),
                   ('a read of a snapshot', lambda: os.pread(os.open(names[2], os.O_RDONLY), 4096, 1 << 29)),
                   ('user.vdifs.info', lambda: os.getxattr('mnt', 'user.vdifs.info')),
                   ('stat', lambda: os.stat(names[3])), ('a list of names', lambda: os.listdir('mnt/snapshots'))):
    begun = time.monotonic()
    call()
    took = time.monotonic() - begun
    claim('%s is answered meanwhile%s' % (what, mode), took < 10, took)
for number, pid in enumerate(pids):
    os.kill(pid, [signal.SIGTERM, signal.SIGKILL][number % 2])
ended = over(pids, 60)
same('all of them are interrupted' + mode, (len(ended), set(ended.values())), (count, {-signal.SIGTERM, -signal.SIGKILL}))
pids = [seeker(number) for number in range(len(names))]
time.sleep(0.5)
os.kill(supervisor, signal.SIGTERM)
same('others get an error when the mount is ended' + mode, set(over(pids, 20).values()), {2})
END
	claim "and its processes end${1:+ with $1}$in" wait_for 10 no_daemon
}

# With -s a process that waits for a map keeps no other from reading, and can be interrupted.
single() {
	local waiter took
	mount_image -s disk.qcow2 mnt || return
	begin stat mnt/disk.intervals.json >/dev/null 2>&1
	waiter=$pid
	sleep 0.3
	claim "with -s a read is answered while a process waits for the map$in" timeout -s KILL 5 head -c 65536 mnt/disk.raw
	claim "with -s so is an attribute$in" timeout -s KILL 5 getfattr --only-values -n user.vdifs.info mnt
	if is_over "$waiter"; then not_ok "it waits$in"; else ok "it waits$in"; fi
	kill -TERM "$waiter"
	claim "with -s the process that waits is interrupted$in" wait_for 5 is_over "$waiter"
	end_of "$waiter"
	begin "$python" -c 'import os; os.lseek(os.open("mnt/disk.raw", os.O_RDONLY), 0, os.SEEK_DATA)'
	waiter=$pid
	sleep 0.3
	claim "with -s a read is answered during a long seek$in" timeout -s KILL 5 head -c 65536 mnt/snapshots/s1.raw
	kill -TERM "$waiter"
	claim "with -s the seek is interrupted$in" wait_for 5 is_over "$waiter"
	end_of "$waiter"
	unmount mnt
}

# Memory does not grow with the files that are open.
handles() {
	wait_for 20 no_daemon
	mount_image --qcow2 big.qcow2 mnt || return
	cat mnt/big.intervals.json >/dev/null
	python_claims "$(servers)" "$sanitized" "$in" <<'END'
import os, resource, sys
from claims import claim, same
server, sanitized, mode = sys.argv[1:]

def memory():
    with open('/proc/%s/status' % server) as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon'))

count = 4000
resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count + 200, 2 * count + 200))
size = os.stat('mnt/big.intervals.json').st_size
first = [os.open('mnt/big.intervals.json', os.O_RDONLY) for _ in range(100)]
for fd in first:
    text = os.pread(fd, size, 0)
before = memory()
fds = [os.open('mnt/' + name, os.O_RDONLY) for _ in range(count) for name in ('big.intervals.json', 'big.qcow2')]
wrong = [n for n, fd in enumerate(fds[::2]) if os.pread(fd, 50, n * 997 % (size - 50)) != text[n * 997 % (size - 50):][:50]]
same('each of %d open maps reads what it should%s' % (count, mode), wrong, [])
grown = memory() - before
claim('%d open files take no memory of the server%s' % (2 * count, mode), bool(sanitized) or grown < 8192, grown)
for fd in fds:
    os.close(fd)
END
	unmount mnt
}

seekers '' 1000
seekers -s 100
single
handles
finish
