#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Storage that hangs under a live mount: another vdifs, which shows the image as a raw disk, is stopped by
# SIGSTOP. Whoever needs what is not cached waits, and can be killed (not with --direct: then the kernel
# waits for an answer); all else is answered; a signal ends the mount within 5 s, storage or not; and when
# storage comes back all get what they asked for.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr
mkdir store mnt

"$python" - >commands <<'END'
for mib in range(48):
    print('write -q -P %d %dM %dk' % (mib + 1, mib, 1024 if mib % 2 else 512))
END
qemu-img create -q -f qcow2 disk.qcow2 48m && qemu-io -t unsafe -f qcow2 disk.qcow2 <commands >/dev/null
qemu-img convert -O raw disk.qcow2 wanted
# 16 TiB of tables with nothing in them: a map that takes seconds.
"$python" "$here/fragmented.py" slow.qcow2 $((1 << 44)) 16 32768 2 sparse

# $store is the server that answers for the image, once it is stopped nothing of it does.
storage() { # storage [IMAGE]
	mount_image --format=raw "${1-disk.qcow2}" store || return
	store=$(servers)
	[ -n "$store" ] || store=$(daemons)
	# Whatever goes wrong: nothing that looks at the storage is to wait for ever.
	(trap 'kill "$!"' TERM; sleep $((60 * VD_PATIENCE)) & wait "$!"; kill -CONT "$store") >/dev/null 2>&1 &
	watchdog=$!
}

# The end of the storage.
dismantle() {
	kill -CONT "$store"
	kill -TERM "$watchdog" && wait "$watchdog" 2>/dev/null
	unmount store
}

daemons_of_storage() { printf '%s\n' "$store" "$(parent_of "$store")"; }

is_stopped() { [[ $(<"/proc/$store/stat") == *') T '* ]]; }

stop_storage() {
	kill -STOP "$store" && wait_for 5 is_stopped
}

# What the kernel keeps of the image, so that reads have to go to the storage.
forget() { "$python" -c 'import os, sys
for name in sys.argv[1:]:
    fd = os.open(name, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)' "$@"; }

waits() {
	storage && mount_image '' store/disk.raw mnt || return
	cmp -n $((16 << 20)) mnt/disk.raw wanted
	getfattr -n user.intervals mnt >/dev/null
	forget mnt/disk.raw store/disk.raw
	head -c $((8 << 20)) store/disk.raw >/dev/null # the header, the tables, and the first data
	stop_storage
	python_claims "$store" <<'END'
import os, random, signal, sys, time
from claims import PATIENCE, claim, over, same, walk
wanted = open('wanted', 'rb').read()
fd = os.open('mnt/disk.raw', os.O_RDONLY)      # before they all wait

def timed(what, call, limit=1.0):
    begun = time.monotonic()
    got = call()
    claim('while others wait: %s is answered at once' % what, time.monotonic() - begun < limit * PATIENCE, time.monotonic() - begun)
    return got

def reader(at):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            os._exit(os.pread(fd, 65536, at) != wanted[at:at + 65536])
        except OSError:
            os._exit(2)
    return pid

pids = [reader((41 + n // 4 * 2 << 20) + n % 4 * 256 * 1024) for n in range(16)]
same('16 readers of what is not cached wait', over(pids, 0.3), {})
same('the size', timed('stat', lambda: os.stat('mnt/disk.raw').st_size), len(wanted))
same('the names', timed('readdir', lambda: sorted(os.listdir('mnt'))), ['disk.intervals.json', 'disk.raw'])
timed('statfs', lambda: os.statvfs('mnt'))
timed('the map', lambda: os.getxattr('mnt', 'user.intervals'))
timed('user.vdifs.info', lambda: os.getxattr('mnt', 'user.vdifs.info'))
timed('the sidecar', lambda: open('mnt/disk.intervals.json').read())
same('the first hole', timed('a seek', lambda: os.lseek(fd, 0, os.SEEK_HOLE)), 512 << 10)
same('all intervals', len(timed('a walk', lambda: walk(fd))), 25)
same('what a hole reads as', timed('a read of a hole', lambda: os.pread(fd, 65536, (46 << 20) + (512 << 10))), bytes(65536))
same('what storage has cached', timed('a read that needs no storage', lambda: os.pread(fd, 65536, 1 << 20)), wanted[1 << 20:(1 << 20) + 65536])
sent = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
for number, pid in enumerate(pids[:8]):
    os.kill(pid, sent[number % 4])
ended = over(pids[:8], 3)
same('readers that wait end with the first signal', [ended.get(pid) for pid in pids[:8]], [-int(s) for s in sent * 2])
same('and no other ends with them', over(pids[8:], 0.2), {})
os.kill(int(sys.argv[1]), signal.SIGCONT)
same('the others get their bytes when storage comes back', list(over(pids[8:], 10).values()), [0] * 8)
end = time.monotonic() + 10 * PATIENCE
while True:     # read-ahead of those that were killed
    got = os.pread(fd, 1 << 20, 40 << 20)
    if got == wanted[40 << 20:41 << 20] or time.monotonic() > end:
        break
same('and so does who comes later', got == wanted[40 << 20:41 << 20], True)
END
	claim "all of the disk is right" cmp mnt/disk.raw wanted
	unmount mnt
	dismantle
}

# Storage hangs while the map is being made: who waits for the map can be interrupted, many at a time.
map_waits() {
	storage slow.qcow2 && mode="$mode --format=qcow2" mount_image '' store/slow.raw mnt || return
	stop_storage
	python_claims "$store" "$in" <<'END'
import os, signal, sys, time
from claims import PATIENCE, claim, over, same
store, mode = int(sys.argv[1]), sys.argv[2]

class Enough(Exception):
    pass

def enough(*_):
    raise Enough

def waiter(number):
    """Exit status 0: the right size; 3: a signal that was caught ended the call."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, enough)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            os._exit(0 if os.stat('mnt/slow.intervals.json').st_size == 68 else 1)
        except Enough:
            os._exit(3)
        except OSError:
            os._exit(2)
    return pid

pids = [waiter(n) for n in range(50)]
same('storage hangs: 50 wait for the map' + mode, over(pids, 0.3), {})
begun = time.monotonic()
os.stat('mnt/slow.raw')
sorted(os.listdir('mnt'))
claim('all else is answered' + mode, time.monotonic() - begun < PATIENCE)
for number, pid in enumerate(pids[:40]):
    os.kill(pid, [signal.SIGTERM, signal.SIGINT][number % 2])
ended = over(pids[:40], 3)
same('40 of them are interrupted by their signals' + mode, [ended.get(pid) for pid in pids[:40]], [3, -int(signal.SIGINT)] * 20)
os.kill(store, signal.SIGCONT)
same('when storage comes back the others get the size' + mode, list(over(pids[40:], 100).values()), [0] * 10)
END
	unmount mnt
	dismantle
}

# Ends within 5 s what storage holds up: a start, a mount that is asked, one that was unmounted.
ends() {
	storage || return
	forget store/disk.raw
	stop_storage
	begin "$vdifs" --format=qcow2 -f store/disk.raw mnt </dev/null >/dev/null 2>log
	sleep 0.5
	ends_soon KILL "SIGKILL of a start that waits for storage" "$pid"
	kill -CONT "$store"

	for signal in TERM INT HUP; do
		forget store/disk.raw
		stop_storage
		begin "$vdifs" --format=qcow2 -f store/disk.raw mnt </dev/null >/dev/null 2>log
		sleep 0.5
		ends_soon $signal "SIG$signal to a start that waits for storage" "$pid"
		kill -CONT "$store"
	done

	# The command that was typed, which waits for the two others: who gives it up wants no mount.
	for signal in KILL TERM INT; do
		forget store/disk.raw
		stop_storage
		begin "$vdifs" --format=qcow2 store/disk.raw mnt </dev/null >/dev/null 2>log
		sleep 0.5
		ends_soon $signal "SIG$signal to a command that waits for storage" "$pid"
		kill -CONT "$store"
		sleep 0.3
		if mounted mnt; then not_ok "and nothing is mounted later"; else ok "and nothing is mounted later"; fi
	done

	begin "$vdifs" --format=qcow2 -f store/disk.raw mnt </dev/null >/dev/null 2>log
	wait_for 20 cat mnt/disk.intervals.json
	forget store/disk.raw
	stop_storage
	begin_reader
	ends_soon TERM "SIGTERM to a mount that waits for storage" "$pid"
	claim "SIGTERM to a mount that waits for storage: its reader ends" wait_for 5 is_over "$reader"
	kill -CONT "$store"

	begin "$vdifs" --format=qcow2 -f store/disk.raw mnt </dev/null >/dev/null 2>log
	wait_for 20 cat mnt/disk.intervals.json
	forget store/disk.raw
	stop_storage
	begin_reader
	kill -KILL "$reader"
	claim "a mount that waits for storage can be unmounted when its reader has been killed" unmount mnt
	kill -CONT "$store"
	claim "and its processes end when storage comes back" wait_for 5 is_over "$pid"
	end_of "$pid"
	dismantle
}

begin_reader() {
	local told=$pid
	begin dd if=mnt/disk.raw of=/dev/null bs=64k skip=700 count=1 status=none </dev/null 2>/dev/null
	reader=$pid pid=$told
	sleep 0.3
}

ends_soon() { # ends_soon SIGNAL CLAIM PID
	local began=${EPOCHREALTIME/./} took
	kill -"$1" "$3"
	wait_for 20 is_over "$3"
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	if [ "$took" -le $((5000 * VD_PATIENCE)) ]; then ok "$2: it ends within 5 s"; else not_ok "$2: it ends within 5 s" "$took ms"; fi
	echo "# $took ms; $(tr '\n' ';' <log)"
	if mounted mnt; then not_ok "$2: nothing is mounted"; else ok "$2: nothing is mounted"; fi
	end_of "$3"
	wait_for 1 no_others
	is "$2: no process is left" "$(others)" ''
}

others() { daemons | grep -vFx "$(daemons_of_storage)"; }

no_others() { [ -z "$(others)" ]; }

# An image names a file on the storage, which the rules do not allow: it is refused by its name, and nobody asks
# the storage, where even SIGKILL would wait.
names() {
	local name
	mkdir apart
	storage || return
	forget store/disk.raw
	stop_storage
	for name in "$PWD/store/x/y" ../store/x/y "$PWD/apart/../store/x" "/proc/self/cwd/store/x"; do
		rm -f apart/*
		qemu-img create -q -u -f qcow2 -b "$name" -F raw apart/top.qcow2 1m
		begin "$vdimap" apart/top.qcow2 </dev/null >/dev/null 2>log
		claim "the name $name is refused while the storage hangs" wait_for 5 is_over "$pid"
		kill -CONT "$store" # else the test hangs as well
		end_of "$pid"
		is "$name: exit status" "$ended_with" 1
		like "$name: it says why" "$(cat log)" ".*apart/top\.qcow2: backing file '$name' .*--backing=any.*"
		stop_storage
	done
	dismantle
	rm -r apart
}

waits
names
each_mode map_waits
ends
finish
