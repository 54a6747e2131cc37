#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk with millions of intervals: it mounts at once, answers before its map is complete, answers
# the same in little memory, and whoever waits for the map can be interrupted.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root python3 getfattr jq qemu-img
mkdir mnt small
touch plain

# 1 TiB, 2,097,152 intervals of 64 KiB in 512 of 2,048 tables: 32 MiB of tables.
big="$((1 << 40)) 16 512 2"
# The tables of 128 TiB are holes of the host file: nothing to store, but 16 GiB of entries to look at.
endless="$((1 << 47)) 16 262144 2"

# milliseconds COMMAND...: how long it took
milliseconds() {
	local from=${EPOCHREALTIME/./}
	"$@" >&2 || echo "failed after "
	echo $(((${EPOCHREALTIME/./} - from) / 1000))
}

soon() { # soon WHAT GOT LIMIT: in milliseconds; sanitizers and other processes make it longer
	local limit=$(($3 * VD_PATIENCE))
	[ -z "$sanitized" ] || limit=$((limit * 5))
	if [ "$2" -lt "$limit" ] 2>/dev/null; then ok "$1"; else not_ok "$1" "$2 ms, limit $limit ms"; fi
}

at_once() {
	local took
	took=$(milliseconds mount_image '' big.qcow2 mnt)
	soon "1 TiB with 2 million intervals mounts at once$in" "$took" 1000
	python_claims $big "$in" <<'END'
import errno, os, random, sys, time
from claims import claim, fails, same
from fragmented import Layout
layout, mode = Layout(*map(int, sys.argv[1:5])), sys.argv[5]
begun = time.monotonic()
fd = os.open('mnt/big.raw', os.O_RDONLY)

def seek(at, whence):
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None

dice = random.Random(7)
edges = [0, layout.size - 1, layout.size - 65536, layout.size // 2]
places = edges + [max(0, table * layout.reach + step) for table in dice.sample(layout.tables, 40) for step in (-1, 0, 65535, 65536)]
places += [dice.randrange(layout.size) for _ in range(300)]
dice.shuffle(places)
wrong = [p for p in places if (seek(p, os.SEEK_DATA), seek(p, os.SEEK_HOLE)) != (layout.seek_data(p), layout.seek_hole(p))]
same('%d seeks right after the mount are right%s' % (2 * len(places), mode), wrong, [])
print('# %.2f s for %d seeks' % (time.monotonic() - begun, 2 * len(places)))
wrong = [p for p in places[:100] if os.pread(fd, 1, p) != (b'A' if layout.is_data(p) else b'\0')]
same('reads there are right%s' % mode, wrong, [])
st = os.stat('mnt/big.raw')
claim('st_blocks is within its bounds from the first moment on%s' % mode, 1 <= st.st_blocks < layout.size // 512, st.st_blocks)
END
	is "the names are listed without waiting$in" "$(ls mnt)" "big.intervals.json"$'\n'"big.raw"
	cat mnt/big.intervals.json >/dev/null
	is "st_blocks is exact when the map is complete$in" "$(stat -c %b mnt/big.raw)" $((2097152 * 128))
	unmount mnt
	same_answers
}

# What a bound of 64 KiB for the map does not change: each answer, and every byte of the sidecar.
same_answers() {
	mount_image '' big.qcow2 mnt && mount_image --map-memory=64K big.qcow2 small || return
	claim "--map-memory=64K: the sidecar is the same$in" cmp mnt/big.intervals.json small/big.intervals.json
	is "--map-memory=64K: and of the same size$in" "$(stat -c '%s %b' small/big.intervals.json small/big.raw)" \
		"$(stat -c '%s %b' mnt/big.intervals.json mnt/big.raw)"
	is "--map-memory=64K: user.intervals is the same$in" "$(attribute user.intervals small | md5sum)" \
		"$(attribute user.intervals mnt | md5sum)"
	python_claims $big "$in" <<'END'
import errno, os, random, sys
from claims import claim, same
from fragmented import Layout
layout, mode = Layout(*map(int, sys.argv[1:5])), sys.argv[5]
large, small = (os.open(d + '/big.raw', os.O_RDONLY) for d in ('mnt', 'small'))

def seek(fd, at, whence):
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        return errno.errorcode[error.errno]

dice = random.Random(8)
places = [0, layout.size - 1] + [dice.randrange(layout.size) for _ in range(400)]
places += [dice.choice(layout.tables) * layout.reach + dice.randrange(layout.reach) for _ in range(200)]
answers = [(seek(large, p, w), seek(small, p, w)) for p in places for w in (os.SEEK_DATA, os.SEEK_HOLE)]
wanted = [answer or 'ENXIO' for p in places for answer in (layout.seek_data(p), layout.seek_hole(p))]
same('--map-memory=64K: %d seeks answer the same%s' % (len(answers), mode), [i for i, (a, b) in enumerate(answers) if a != b], [])
same('and with a complete map, they are right' + mode, [i for i, (a, _) in enumerate(answers) if a != wanted[i] and (a, wanted[i]) != (0, 'ENXIO')], [])
with open('mnt/big.intervals.json', 'rb') as one, open('small/big.intervals.json', 'rb') as two:
    length = os.fstat(one.fileno()).st_size
    same('--map-memory=64K: pieces of the sidecar anywhere' + mode, [at for at in [length - 1, 0] + [dice.randrange(length) for _ in range(60)]
         if os.pread(one.fileno(), 5000, at) != os.pread(two.fileno(), 5000, at)], [])
    text = one.read()
head = b'{"virtual_size":%d,"cluster_bits":16,"data_clusters":[[0,0],[2,2],' % layout.size
last = max(layout.pairs())
same('the sidecar has the right beginning and end' + mode, (text[:len(head)], text.endswith(b',[%d,%d]]}' % (last, last))), (head, True))
same('and as many pairs as there are intervals' + mode, text.count(b'],[') + 1, 512 * 4096)
END
	memory
	claim "vdimap prints the same$in" cmp <("$vdimap" big.qcow2) mnt/big.intervals.json
	unmount small
	unmount mnt
}

# Bounds: 64 MiB or 64 KiB for the map, 32 MiB for tables, the rest for buffers of ten threads.
memory() {
	local one bytes limit what
	[ -z "$sanitized" ] || return 0 # sanitizers keep memory of their own
	for one in $(daemons); do
		bytes=$(awk '/^RssAnon:/ { print $2 }' "/proc/$one/status") limit=163840 what="the map's usual bound"
		if tr '\0' ' ' <"/proc/$one/cmdline" | grep -q map-memory; then limit=98304 what=--map-memory=64K; fi
		echo "# $bytes KiB with $what"
		claim "memory stays within bounds with $what$in" test "$bytes" -lt "$limit"
	done
}

# Waiting for the map of `endless` takes longer than anybody waits; $1 is what waits, a command.
killed() {
	local what=$1 signal took
	shift
	for signal in TERM INT KILL; do
		begin "$@" >waiting.out 2>&1
		claim "$what waits for the map$in" wait_for 20 is_waiting "$pid"
		kill -s "$signal" "$pid"
		wait_for 10 is_over "$pid" && took="" || took=", but not within 10 seconds"
		# shellcheck disable=SC2046 # several
		[ -z "$took" ] || kill -KILL $(daemons) # else nothing ends it
		end_of "$pid"
		is "$what: SIG$signal ends it$in" "$ended_with$took" $((128 + $(kill -l "$signal")))
		[ -z "$took" ] || return
	done
}

is_waiting() { # in the kernel, for an answer of ours
	[[ $(cat "/proc/$1/wchan" 2>/dev/null) =~ fuse|request_wait ]] || [[ $(cat "/proc/$1/stack" 2>/dev/null) =~ fuse ]]
}

has_grown() { [ "$(attribute user.vdifs.info plain | jq '.vdifs.map."mapped-bytes"')" -gt 0 ]; }

interrupted() {
	local took
	mount_image --qcow2 endless.qcow2 mnt && mount_image '' endless.qcow2 plain || return
	is "the names of an endless map are listed$in" "$(ls mnt)" \
		"endless.intervals.json"$'\n'"endless.qcow2"$'\n'"endless.raw"
	took=$(milliseconds head -c 1048576 mnt/endless.raw 2>/dev/null)
	soon "its disk can be read meanwhile$in" "$took" 1000
	others
	killed "stat of the sidecar" stat mnt/endless.intervals.json
	killed "stat of the QCOW2 file" stat mnt/endless.qcow2
	killed "ls -l of the directory" ls -l mnt
	killed "getfattr of user.intervals" getfattr --only-values -n user.intervals plain
	killed "cat of the sidecar" cat mnt/endless.intervals.json
	claim "the map grows, though it has met nothing but holes yet$in" wait_for 20 has_grown
	python_claims "$in" <<'END'
import os, signal, sys, time
from claims import PATIENCE, claim
mode = sys.argv[1]

class Enough(Exception):
    pass

def enough(*_):
    raise Enough

signal.signal(signal.SIGALRM, enough)
for what, call in (('stat of the sidecar', lambda: os.stat('mnt/endless.intervals.json')),
                   ('getxattr', lambda: os.getxattr('plain', 'user.intervals'))):
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        call()
        claim('%s with a signal that is caught ends as well%s' % (what, mode), False, 'it has an answer')
    except Enough:
        claim('%s with a signal that is caught ends as well%s' % (what, mode), time.monotonic() - begun < 10 * PATIENCE)
END
	killed "a seek across the endless hole" "$python" -c 'import os
os.lseek(os.open("plain", os.O_RDONLY), 0, os.SEEK_DATA)'
	is "and the map is still not complete: they did wait$in" \
		"$(attribute user.vdifs.info plain | grep -c '"complete": *false')" 1
	claim "the mounts answer as before$in" cmp -n 1048576 mnt/endless.raw plain
	took=$(milliseconds unmount mnt)
	soon "and go at once$in" "$took" 2000
	unmount plain
	claim "with their processes$in" wait_for 5 no_processes
}

# Who waits does not keep others from looking up names for the first time.
others() {
	local took first
	mount_image --qcow2 endless.qcow2 small || return
	begin stat small/endless.intervals.json >/dev/null 2>&1
	first=$pid
	wait_for 20 is_waiting "$first"
	took=$(milliseconds timeout 20 cmp -n 1 small/endless.raw /dev/zero)
	soon "a name beside that of the sidecar is found while somebody waits$in" "$took" 1000
	kill "$first"
	end_of "$first"
	unmount small
}

# More of them than there are threads: the rest of the file system answers meanwhile, each can be
# interrupted, and those who stay get their answer.
crowd() {
	mount_image --qcow2 "$1.qcow2" "$2" || return
	python_claims "$1" "$2" "$in" <<'END'
import json, os, signal, sys, time
from claims import PATIENCE, claim, over, same
name, place, mode = sys.argv[1:]
text = b'{"virtual_size":%d,"cluster_bits":16,"data_clusters":[]}' % (1 << 44)
disk, sidecar, qcow2 = (os.path.join(place, name + end) for end in ('.raw', '.intervals.json', '.qcow2'))

def size_of_qcow2():
    size = os.stat(qcow2).st_size
    with open(qcow2, 'rb') as file:
        return file.seek(0, 2) == size and file.seek(0) == 0 and file.read(4) == b'QFI\xfb'

kinds = [lambda: os.stat(sidecar).st_size == len(text), lambda: os.getxattr(place, 'user.intervals') == text,
         lambda: open(sidecar, 'rb').read() == text, size_of_qcow2]

def waiter(call):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)    # a shell ignores it for what runs in its background
        try:
            os._exit(0 if call() else 1)
        except BaseException:
            os._exit(2)
    return pid

def at_once(what, call):
    begun = time.monotonic()
    got = call()
    claim('while 80 wait: %s is answered at once%s' % (what, mode), time.monotonic() - begun < 2 * PATIENCE, time.monotonic() - begun)
    return got

pids = [waiter(kinds[n % len(kinds)]) for n in range(80)]
if name == 'slow':
    same('80 wait for the map and get the right answer' + mode, list(over(pids, 100).values()), [0] * 80)
    sys.exit()
same('80 wait for the map' + mode, over(pids, 0.5), {})
same('what a read gets' + mode, at_once('a read', lambda: open(disk, 'rb').read(4096)), bytes(4096))
at_once('stat of the disk', lambda: os.stat(disk))
same('the names' + mode, at_once('readdir', lambda: sorted(os.listdir(place))), [os.path.basename(n) for n in (sidecar, qcow2, disk)])
for number, pid in enumerate(pids):
    os.kill(pid, [signal.SIGTERM, signal.SIGINT, signal.SIGKILL][number % 3])
ended = over(pids, 20)
same('all of them are interrupted' + mode, len(ended), 80)
same('and by their signals%s' % mode, set(ended.values()) <= {-signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL, 2}, True)
info = at_once('user.vdifs.info', lambda: json.loads(os.getxattr(place, 'user.vdifs.info')))
same('the map was not complete then' + mode, info['vdifs']['map']['complete'], False)
END
	unmount "$2"
}

crowds() {
	crowd endless small
	crowd slow mnt
}

# Who makes an attribute of a map that is not stored takes long, and keeps nobody else waiting.
making() {
	local took first second
	mount_image '--qcow2 --map-memory=0' slow.qcow2 mnt || return
	stat mnt/slow.intervals.json >/dev/null
	begin getfattr --only-values -n user.intervals mnt >/dev/null 2>&1
	first=$pid
	sleep 0.2
	begin stat mnt/slow.qcow2 >/dev/null 2>&1
	second=$pid
	sleep 0.2
	took=$(milliseconds timeout 20 ls mnt/slow.raw)
	soon "a name is found while an attribute is made$in" "$took" 1000
	if is_over "$first"; then not_ok "it is being made then$in"; else ok "it is being made then$in"; fi
	kill "$first" "$second"
	claim "and who asked for it can be interrupted$in" wait_for 2 is_over "$first"
	claim "and so can who waits for the size of the QCOW2 file$in" wait_for 2 is_over "$second"
	end_of "$first"
	end_of "$second"
	unmount mnt
}

# A size that was not known at the lookup is known to who reads without asking for it.
unasked() {
	mount_image --qcow2 big.qcow2 small || return
	python_claims "$in" <<'END'
import os, sys
from claims import same
for name, head in (('big.intervals.json', b'{"virtual_size":1'), ('big.qcow2', b'QFI\xfb\0\0\0\3')):
    fd = os.open('small/' + name, os.O_RDONLY)
    same('%s is read by who has not asked for its size%s' % (name, sys.argv[1]), os.pread(fd, len(head), 0), head)
    same('%s has an end for him%s' % (name, sys.argv[1]), os.lseek(fd, 0, os.SEEK_END), os.fstat(fd).st_size)
END
	unmount small
}

# The maps of layers are made one after the other: who waits for his turn can be interrupted, too.
turns() {
	local first
	mount_image --layers top.qcow2 mnt || return
	begin cat mnt/layers/1.intervals.json >/dev/null 2>&1
	first=$pid
	wait_for 20 is_waiting "$first"
	killed "who waits for the map of another layer" cat mnt/layers/2.intervals.json
	is "that layer can be read meanwhile$in" "$(head -c 3 mnt/layers/2.raw | tr '\0' .)" ...
	claim "and sought in$in" cmp -n 100000 mnt/layers/1.raw mnt/layers/2.raw
	begin cat mnt/layers/2.intervals.json >/dev/null 2>&1
	kill -TERM "$(supervisors)"
	claim "SIGTERM ends a daemon that builds one and owes another$in" wait_for 5 no_daemon
	end_of "$pid"
	is "who waited for his turn has an error$in" "$ended_with" 1
	end_of "$first"
}

# Those who wait for the map do not keep a daemon from ending: they get an error.
ended() {
	local pids='' all=''
	mount_image '' endless.qcow2 mnt || return
	for _ in {1..20}; do # more than threads
		begin stat mnt/endless.intervals.json >/dev/null 2>&1
		pids+=" $pid"
		begin getfattr --only-values -n user.intervals mnt/endless.raw >/dev/null 2>&1
		pids+=" $pid"
	done
	sleep 0.5
	kill -TERM "$(supervisors)"
	claim "SIGTERM ends a daemon that others wait for$in" wait_for 5 no_daemon
	for pid in $pids; do
		end_of "$pid"
		all+=$ended_with
	done
	is "who waited has an error$in" "$all" "$(printf '1%.0s' {1..40})"
	claim "nothing stays mounted$in" wait_for 5 eval '! mounted mnt'
}

# A reader that is slow to begin makes vdimap take long; its standard error is a terminal.
progress() {
	python_claims "$vdimap" <<'END'
import os, pty, re, subprocess, sys, time
from claims import claim, same

def run(pause):
    """What vdimap writes to the terminal while its reader sleeps at first; the map; the exit status."""
    terminal, end = pty.openpty()
    process = subprocess.Popen([sys.argv[1], 'big.qcow2'], stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    time.sleep(pause)
    text = process.stdout.read()
    said = b''
    try:
        while part := os.read(terminal, 4096):
            said += part
    except OSError:                         # Linux: the other end is closed
        pass
    os.close(terminal)
    return said.decode(), text, process.wait()

said, text, status = run(1.3)
shares = [int(share) for share in re.findall(r'\rvdimap: \[#* *\] +(\d+) %', said)]
claim('vdimap that takes over a second draws how far it is', len(shares) > 0, said)
same('the bar only grows, within 0 and 100', shares, sorted(share for share in shares if 0 <= share <= 100))
claim('and is wiped off at the end', said.endswith('\r\x1b[K'), said[-20:])
same('the map ends well', (text[-3:], status), (b']]}', 0))
END
	is "no bar without a terminal" "$("$vdimap" big.qcow2 2>&1 >/dev/null | wc -c)" 0
}

"$python" "$here/fragmented.py" big.qcow2 $big
"$python" "$here/fragmented.py" endless.qcow2 $endless sparse
# Some seconds of the same.
"$python" "$here/fragmented.py" slow.qcow2 $((1 << 44)) 16 32768 2 sparse
image_options=backing_file=endless.qcow2,backing_fmt=qcow2
image middle.qcow2 $((1 << 47))
image_options=backing_file=middle.qcow2,backing_fmt=qcow2
image top.qcow2 $((1 << 47))
each_mode at_once
each_mode unasked
each_mode crowds
making
each_mode interrupted
each_mode ended
turns
progress
finish
