#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdifs IMAGE MOUNTPOINT -- COMMAND..., vdifs --unmount and --pid-file: when a mount begins and when it has
# ended, down to the image's locks, without a race.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2016,SC2046,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3
mkdir mnt 'a place'
touch plain
image disk.qcow2 1m "write -q -P 65 64k 64k"
qemu-img convert -O raw disk.qcow2 wanted

is_free() { # QEMU gets the image for writing
	qemu-io -f qcow2 -c 'write -q -P 65 64k 512' disk.qcow2
}

nothing_left() { # nothing_left CLAIM: at once, without waiting
	if [ -z "$(mounts_below)" ] && [ -z "$(daemons)" ]; then
		ok "$1: nothing is left$in"
	else
		not_ok "$1: nothing is left$in" "$(mounts_below) $(daemons)"
	fi
}

# run STATUS COMMAND...: with the disk at mnt
run() {
	local wanted=$1 status=0
	shift
	timeout -k 5 60 "$vdifs" $mode disk.qcow2 mnt -- "$@" >out 2>err </dev/null || status=$?
	is "$*: exit status$in" "$status" "$wanted"
	nothing_left "$*"
}

statuses() {
	run 0 cmp mnt/disk.raw wanted
	run 1 cmp mnt/disk.raw disk.qcow2
	run 7 sh -c 'exit 7'
	run 137 sh -c 'kill -9 $$'
	run 143 sh -c 'kill $$'
	run 127 ./none
	is "which is said$in" "$(cat err)" 'vdifs: ./none: cannot run the command: No such file or directory'
	run 126 ./wanted
	is "which is said, too$in" "$(cat err)" 'vdifs: ./wanted: cannot run the command: Permission denied'
	refuse "a mount that is refused: the command is not run$in" 'none.*No such file' "$vdifs" $mode none mnt -- touch run
	claim "indeed$in" test ! -e run
	run 0 echo -f --help -- -o x
	is "the command has its own options$in" "$(cat out)" '-f --help -- -o x'
	timeout 20 "$vdifs" $mode -- disk.qcow2 mnt -- echo -- "a  b" >out
	is "also behind dashes$in" "$? $(cat out)" '0 -- a  b'
	timeout 20 "$vdifs" $mode disk.qcow2 -v -- mnt -- cmp mnt/disk.raw wanted 2>err
	is "in any place, and -v is heard$in" "$? $(grep -c ': image ' err)" '0 1'
	claim "as a file$in" timeout 20 "$vdifs" $mode disk.qcow2 plain -- cmp plain wanted
	misuse "a command that is missing$in" 'a command is missing behind --' "$vdifs" $mode disk.qcow2 mnt --
}

# The command gets what vdifs was given.
inherits() {
	is "stdin and stdout$in" "$(echo text | timeout 20 "$vdifs" $mode disk.qcow2 mnt -- cat)" text
	is "stderr$in" "$(timeout 20 "$vdifs" $mode disk.qcow2 mnt -- sh -c 'echo text >&2' 2>&1 >/dev/null)" text
	is "a descriptor$in" "$(timeout 20 "$vdifs" $mode disk.qcow2 mnt -- sh -c 'cat <&5' 5<<<text)" text
	is "the directory and the environment$in" "$(A=b timeout 20 "$vdifs" $mode disk.qcow2 mnt -- sh -c 'echo "$PWD $A"')" "$PWD b"
	signals_of cat /proc/self/status >direct
	signals_of "$vdifs" $mode disk.qcow2 mnt -- cat /proc/self/status >below
	is "signals, blocked and ignored$in" "$(cat below)" "$(cat direct)"
	nothing_left "what is inherited"
}

signals_of() {
	env --ignore-signal=CHLD,HUP,USR2 --block-signal=WINCH,ALRM timeout 20 "$@" | grep -E '^Sig(Blk|Ign|Cgt)'
}

# Signals for vdifs are the command's, once; a terminal sends them to both.
signals() {
	local signal
	for signal in TERM INT HUP QUIT USR1 USR2; do
		begin "$vdifs" $mode disk.qcow2 mnt -- sh -c "trap 'echo $signal; exit 9' $signal; echo on
			while :; do sleep 0.02; done" >out 2>err </dev/null
		wait_for 20 grep -qx on out
		kill -s $signal "$pid"
		end_of "$pid"
		is "SIG$signal is passed on$in" "$ended_with $(paste -s -d ' ' out)" "9 on $signal"
		nothing_left "SIG$signal"
	done
	"$python" - "$vdifs" $mode <<-'END' >out 2>err
		# A terminal of our own: Ctrl-C is one signal for the command, not two.
		import os, pty, sys, time
		pid, terminal = pty.fork()
		if pid == 0:
		    os.execv(sys.argv[1], sys.argv[1:] + ['disk.qcow2', 'mnt', '--', 'python3', '-c', '''
		import signal, sys, time
		hits = []
		signal.signal(signal.SIGINT, lambda *_: hits.append(1))
		print("on", flush=True)
		end = time.monotonic() + 20
		while not hits and time.monotonic() < end:
		    time.sleep(0.02)
		time.sleep(0.3)
		sys.exit(40 + len(hits))
		'''])
		said = b''
		while b'on' not in said:
		    said += os.read(terminal, 100)
		os.write(terminal, b'\x03')
		print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	END
	is "Ctrl-C reaches the command once$in" "$(cat out err)" 41
	nothing_left "Ctrl-C"
	begin "$vdifs" $mode disk.qcow2 mnt -- sh -c 'echo on; sleep 1' >out 2>err </dev/null
	wait_for 20 grep -qx on out
	kill -KILL "$pid"
	end_of "$pid"
	claim "SIGKILL of vdifs: it is unmounted$in" wait_for 10 no_daemon
	if mounted mnt; then not_ok "nothing is mounted then$in"; else ok "nothing is mounted then$in"; fi
	wait_for 10 no_processes
}

# What the command leaves behind, and what is lost under it. The disk is opened before the command can end.
troubles() {
	local began=$SECONDS
	timeout 30 "$vdifs" $mode disk.qcow2 mnt -- sh -c 'exec 5<mnt/disk.raw; sleep 60 <&5 >/dev/null 2>&1 & echo $! >sleeper' >out 2>err </dev/null
	is "a process that keeps the disk open makes it fail$in" "$? $(wc -l <err)" '1 1'
	like "and is told of$in" "$(cat err)" 'vdifs: .*/mnt: .*busy; the command has ended: .*'
	claim "but is not waited for$in" test $((SECONDS - began)) -lt 20
	nothing_left "a process that keeps the disk open"
	claim "the image is free$in" is_free
	kill "$(<sleeper)"
	timeout 20 "$vdifs" $mode disk.qcow2 mnt -- sh -c 'exec 5<mnt/disk.raw; sleep 0.3 <&5 >/dev/null 2>&1 &' 2>err
	is "one that closes it in a moment does not$in" "$? $(cat err)" '0 '
	nothing_left "one that closes it in a moment"

	begin "$vdifs" $mode disk.qcow2 mnt -- sh -c 'echo on; while cmp -s -n 1 mnt/disk.raw wanted; do sleep 0.02; done' \
		>out 2>err </dev/null
	wait_for 20 grep -qx on out
	kill -KILL "$(servers_of_command)"
	end_of "$pid"
	is "without its server the command may end well, but vdifs does not$in" "$ended_with" 1
	like "and says why$in" "$(cat err)" 'vdifs: .*the serving process was ended by signal 9; the mount has been removed'
	nothing_left "without its server"
}

servers_of_command() { # the one whose parent's parent is $pid
	local one
	for one in $(daemons); do
		[ "$(parent_of "$(parent_of "$one")")" = "$pid" ] && echo "$one"
	done
}

# An unmount that waits for what umount(8) does not.
unmounts() {
	local n bad=0 place
	for n in $(seq 15); do
		for place in mnt plain; do
			"$vdifs" $mode disk.qcow2 $place && "$vdifs" --unmount $place && [ -z "$(daemons)" ] && is_free >/dev/null 2>&1 ||
				bad=$((bad + 1))
		done
	done
	is "after --unmount QEMU opens the image for writing, 30 of 30 times$in" "$bad" 0
	bad=0
	for n in $(seq 15); do
		"$vdifs" $mode disk.qcow2 mnt -- cmp mnt/disk.raw wanted && is_free >/dev/null 2>&1 || bad=$((bad + 1))
	done
	is "and after a command, 15 of 15 times$in" "$bad" 0

	refuse "--unmount where nothing is$in" 'mnt: nothing is mounted here' "$vdifs" --unmount mnt
	refuse "--unmount of a place that is missing$in" 'none: .*No such file' "$vdifs" --unmount none
	mkdir -p other && mount -t tmpfs none other
	refuse "--unmount of another mount$in" 'other: this is not a mount of vdifs' "$vdifs" --unmount other
	umount other
	mount_image '' disk.qcow2 mnt || return
	exec 8<mnt/disk.raw
	refuse "--unmount while it is in use$in" 'mnt: cannot unmount: .*busy' "$vdifs" --unmount mnt
	exec 8<&-
	ln -sfn mnt link
	claim "--unmount through a link$in" "$vdifs" --unmount link
	nothing_left "--unmount through a link"

	mount_image '' disk.qcow2 mnt && mount --bind mnt 'a place' || return
	"$vdifs" --unmount mnt 2>err
	is "--unmount does not wait for a second place$in" "$? $(grep -c 'the same mount is at .*/a place$' err)" '1 1'
	claim "which is unmounted then$in" "$vdifs" --unmount 'a place'
	nothing_left "a second place"

	mount_image '' disk.qcow2 mnt || return
	kill -KILL $(supervisors)
	claim "--unmount without a supervisor$in" "$vdifs" --unmount mnt
	nothing_left "--unmount without a supervisor"
	mount_image '' disk.qcow2 mnt || return
	kill -KILL $(daemons)
	wait_for 5 no_daemon
	claim "--unmount of a dead mount$in" "$vdifs" --unmount mnt
	if mounted mnt; then not_ok "takes it away$in"; else ok "takes it away$in"; fi
}

# It waits as long as it takes.
waits() {
	mount_image '' disk.qcow2 mnt || return
	kill -STOP "$(servers)"
	begin "$vdifs" --unmount mnt 2>err </dev/null
	wait_for 10 not_mounted mnt
	sleep 0.3
	claim "--unmount waits for a server that is stopped$in" kill -0 "$pid"
	kill -CONT "$(servers)"
	end_of "$pid"
	is "and ends when that has ended$in" "$ended_with $(cat err)" '0 '
	nothing_left "a server that was stopped"
}

not_mounted() { ! mounted "$1"; }

pid_files() {
	mount_image --pid-file=pid disk.qcow2 mnt || return
	is "the pid file has the supervisor's$in" "$(cat pid)" "$(supervisors)"
	kill "$(<pid)"
	claim "which ends the mount$in" wait_for 10 no_daemon
	claim "and takes the pid file along$in" test ! -e pid
	begin "$vdifs" $mode -f -o pid-file="$PWD/pid" disk.qcow2 mnt </dev/null 2>err
	claim "with -f it says that the mount is ready$in" wait_for 20 test -e pid
	is "and that is so$in" "$(cat pid) $(hash_of mnt/disk.raw)" "$pid $(hash_of wanted)"
	echo other >pid.new && mv pid.new pid
	"$vdifs" --unmount mnt
	end_of "$pid"
	is "one that is another's by now stays$in" "$(cat pid)" other
	rm pid
	refuse "a pid file in no directory$in" 'no/pid: cannot write the file of --pid-file: No such' \
		"$vdifs" $mode --pid-file=no/pid disk.qcow2 mnt
	mkdir -p pids/x
	refuse "a pid file that is a directory$in" 'pids/x: cannot write the file of --pid-file' \
		"$vdifs" $mode --pid-file=pids/x disk.qcow2 mnt
	is "and nothing is left beside it$in" "$(ls pids)" x
}

all() {
	statuses
	inherits
	signals
	troubles
	unmounts
	waits
	pid_files
}

if [ -n "${VD_NIGHTLY-}" ]; then each_mode all; else all; fi
finish
