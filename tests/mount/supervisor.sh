#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Whatever becomes of the server, of the connection or of the place: no dead mount is left and no process,
# and signals are heard. A server that somebody has taken over is played by vdifs_liar (tests/tools/liar.c).
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2046,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3
liar=$tools/vdifs_liar
[ -x "$liar" ] || { echo "Bail out! $liar is not built"; exit 99; }
mkdir mnt
image disk.qcow2 1m "write -q -P 65 64k 64k"
qemu-img convert -O raw disk.qcow2 wanted

# over WHAT [MOUNTPOINT]: of the mount nothing is left
over() {
	claim "$1: the processes end$in" wait_for 10 no_daemon
	if mounted "${2-mnt}"; then not_ok "$1: nothing is mounted$in"; else ok "$1: nothing is mounted$in"; fi
}

# --- the connection is aborted -------------------------------------------------------------------

aborted() {
	mount_image '' disk.qcow2 mnt || return
	exec 8<mnt/disk.raw
	umount -f mnt 2>/dev/null # which aborts the connection, and then finds the disk in use
	over "umount -f while the disk is open"
	exec 8<&-

	mkdir -p control
	mounted control || mount -t fusectl none control 2>/dev/null ||
		{ skip "an aborted connection$in" "there is no fusectl here"; return; }
	mount_image '' disk.qcow2 mnt || return
	exec 8<mnt/disk.raw
	echo 1 >"control/$(device_of mnt)/abort"
	over "an aborted connection while the disk is open"
	exec 8<&-
}

device_of() { # device_of MOUNTPOINT: the minor number
	sed -n "s|^[0-9]* [0-9]* 0:\([0-9]*\) / $PWD/$1 .*|\1|p" /proc/self/mountinfo
}

# --- the place has another name, or more than one ------------------------------------------------

moved() {
	local how
	for how in TERM KILL; do
		mkdir -p above/mnt
		mount_image '' disk.qcow2 above/mnt || return
		mv above below
		[ $how = TERM ] && kill -TERM "$(supervisors)" || kill -KILL "$(servers)"
		over "SIG$how after a directory above the mountpoint was renamed" below/mnt
		rm -r below
	done
	mkdir -p second
	mount_image '' disk.qcow2 mnt && mount --bind mnt second || return
	kill -KILL "$(servers)"
	over "a mount that is bound to a second place"
	if mounted second; then not_ok "nor at the second one$in"; else ok "nor at the second one$in"; fi
}

# What lies over our mount is not ours.
covered() {
	local how victim
	for how in TERM KILL; do
		covered_and $how
	done
}

covered_and() { # of the supervisor, or of the server
	begin "$vdifs" $mode -f disk.qcow2 mnt </dev/null 2>log
	wait_for 20 cmp -s mnt/disk.raw wanted
	mount -t tmpfs none mnt
	victim=$pid
	[ "$1" = TERM ] || victim=$(servers)
	kill -"$1" "$victim"
	end_of "$pid"
	is "SIG$1: what lies over the mount stays$in" "$(stat -f -c %T mnt)" tmpfs
	like "and the supervisor says that it could not unmount$in" "$(head -n 1 log)" \
		"vdifs: .*/mnt: cannot unmount: another mount lies over it; .*fusermount3 -u .*/mnt"
	umount mnt
	claim "as it says it is unmounted then$in" fusermount3 -u mnt
}

# A name is the user's, and yet no second line of the log; what is to be pasted into a shell can be.
names() {
	local odd=$'it\'s\n\\ a $(place)' cure
	mkdir -p "$odd"
	cp disk.qcow2 $'two\nlines.qcow2'
	begin "$vdifs" $mode -f $'two\nlines.qcow2' "$odd" </dev/null 2>log
	claim "a mount of odd names$in" wait_for 20 is_shown_in "$odd"
	kill -KILL "$(servers)"
	end_of "$pid"
	like "odd names make one line$in" "$(cat log)" 'vdifs: .*/two.x0alines.qcow2: the serving process was ended by signal 9; .*'
	over "a mount of odd names" "$odd"
	"$vdifs" $mode disk.qcow2 "$odd" </dev/null 2>log
	kill -KILL $(daemons)
	wait_for 5 no_daemon
	refuse "a dead mount at a place with an odd name$in" "fusermount3 -u .'it.x27s.x0a.x5c a .[(]place[)]'$" \
		"$vdifs" $mode disk.qcow2 "$odd"
	cure=$(sed 's/.*remove it with: //' err)
	claim "the cure can be pasted$in" bash -c "$cure"
	if mounted "$odd"; then not_ok "and helps$in"; else ok "and helps$in"; fi
}

# A function, or the pattern would be expanded before the mount is there.
is_shown_in() { cmp -s "$1"/*.raw wanted; }

# --- signals that whoever started us had ignored -------------------------------------------------

ignored() {
	env --ignore-signal=HUP "$vdifs" $mode -f disk.qcow2 mnt </dev/null 2>log &
	pid=$!
	wait_for 20 cmp -s mnt/disk.raw wanted
	kill -HUP "$pid"
	sleep 0.3
	claim "under nohup a hang-up ends nothing$in" cmp mnt/disk.raw wanted
	kill -TERM "$pid"
	end_of "$pid"
	is "but SIGTERM does$in" "$ended_with" 0
	over "and then"

	begin "$vdifs" $mode -f disk.qcow2 mnt </dev/null 2>log
	wait_for 20 cmp -s mnt/disk.raw wanted
	kill -QUIT $(daemons) # as a terminal does, to all at once
	end_of "$pid"
	is "SIGQUIT to all processes ends them well$in" "$ended_with $(cat log)" '0 '
	over "and after it"
}

# Without SIGCHLD the kernel keeps no exit status.
childless() {
	local status
	echo 'no image' >text
	for program in "$vdimap text" "$vdifs $mode -f text mnt" "$vdifs $mode text mnt"; do
		status=0
		timeout 20 env --ignore-signal=CHLD $program >said 2>&1 </dev/null || status=$?
		is "with SIGCHLD ignored a failure has its exit status: ${program##*/}$in" "$status $(grep -c text said)" '1 1'
	done
	claim "with SIGCHLD ignored an image mounts$in" timeout 20 env --ignore-signal=CHLD "$vdifs" $mode disk.qcow2 mnt
	unmount mnt
	over "and ends" # the next test must not stop a server that is about to
}

# --- a server that does not do its work ----------------------------------------------------------

# The moment of the stop is a matter of luck; whatever it is, the signal is heard.
stopped() {
	local n=0 slow='' server began
	while [ "$n" -lt 8 ]; do
		begin "$vdifs" $mode -f disk.qcow2 mnt </dev/null 2>log
		wait_for 5 has_server
		sleep "0.0$((n * 3 / 2))"
		server=$(servers)
		kill -STOP $server 2>/dev/null
		sleep 0.1
		began=$SECONDS
		kill -TERM "$pid"
		end_of "$pid"
		[ $((SECONDS - began)) -le $((6 * VD_PATIENCE)) ] && [ "$ended_with" -ne 137 ] && ! mounted mnt && wait_for 5 no_daemon ||
			slow+=" $n: $((SECONDS - began)) s, status $ended_with, $(daemons)"
		n=$((n + 1))
	done
	is "SIGTERM ends a mount whose server is stopped, at eight moments$in" "$slow" ''
}

has_server() { [ -n "$(servers)" ]; }

lies() {
	local vdifs=$liar lie
	for lie in 'close early' close leave 'answer twice'; do
		VD_LIE=$lie refuse_quietly "a server whose lie is '$lie'$in" "$vdifs" $mode disk.qcow2 mnt
		over "and after that"
		is "and there is one line about it$in" "$(grep -c . told)" 1
	done
	for lie in answer silence urgent; do
		VD_LIE=$lie begin "$vdifs" $mode -f --sandbox=off disk.qcow2 mnt </dev/null 2>log
		wait_for 20 mounted mnt
		sleep 0.2
		kill -TERM "$pid"
		end_of "$pid"
		is "SIGTERM ends a mount whose server's lie is '$lie'$in" "$ended_with" 0
		over "and then"
	done
}

# A server that says nothing, and does all to outlive the command, ends with it while there is no mount.
outlives() {
	local vdifs=$liar n how=''
	for n in 1 2 3 4; do
		[ $n -lt 3 ] || how=-f
		VD_LIE=outlive begin "$vdifs" $mode --sandbox=off $how disk.qcow2 mnt </dev/null 2>log
		wait_for 20 has_server
		sleep 0.2
		kill -KILL "$pid"
		end_of "$pid"
		over "SIGKILL of the command before the mount ($n)"
	done
}

# Whoever owns a directory above the mountpoint exchanges it for a link to a place of root's between the
# look at it and the mount. The mount must be on what was looked at, or nowhere.
exchanged() {
	local kind what lie vdifs=$liar
	for what in '' "$tools/without fsopen --"; do
		[ -z "$what" ] || grep -q '^#define HAVE_SECCOMP 1' "$tools/config.h" || continue
		for kind in directory file; do
			for lie in exchange 'exchange, leave'; do
				exchanged_one "$kind" "$lie" $what
			done
		done
	done
}

exchanged_one() { # exchanged_one KIND LIE [COMMAND...]
	local kind=$1 lie=$2 text="an exchanged $1, ${2#exchange}${3+ with mount(2)}$in"
	shift 2
	rm -rf home vault && mkdir home vault && ln -s "$PWD/vault/it" home/link
	if [ "$kind" = file ]; then touch home/it vault/it; else mkdir home/it vault/it; fi
	VD_LIE_THIS=$PWD/home/it VD_LIE_THAT=$PWD/home/link VD_LIE=$lie \
		begin "$@" "$vdifs" $mode -f --sandbox=off disk.qcow2 home/it </dev/null 2>log
	if [ "$lie" = exchange ]; then
		wait_for 20 mounted_any || true
		is "$text: the mount is on what was looked at" "$(exchanged_mounts)" "$PWD/home/link"
		kill -TERM "$pid"
	fi
	end_of "$pid"
	is "$text: nothing stays mounted" "$(exchanged_mounts)" ''
	over "$text" home/link
}

exchanged_mounts() { mounts_below | grep -E '/(home|vault)/'; }

mounted_any() { [ -n "$(exchanged_mounts)" ]; }

refuse_quietly() { # refuse_quietly CLAIM COMMAND...: exit status 1, in time
	local text=$1 status=0
	shift
	timeout -k 5 20 "$@" >told 2>&1 </dev/null || status=$?
	is "$text: the command fails, in time" "$status" 1
}

# --- a server far away ---------------------------------------------------------------------------

# A host with three addresses, none of which answers, has the time of one.
addresses() {
	local port began took
	grep -q '^#define HAVE_LIBNBD 1' "$tools/config.h" ||
		{ skip "three addresses have the time of one" "built without libnbd"; return; }
	"$python" -c 'import socket, time
with socket.socket() as deaf:
    deaf.bind(("0.0.0.0", 0))
    deaf.listen(0)
    callers = [socket.socket() for _ in range(4)]
    for caller in callers:
        caller.setblocking(False)
        caller.connect_ex(("127.0.0.1", deaf.getsockname()[1]))
    print(deaf.getsockname()[1], flush=True)
    time.sleep(60)' >port &
	deaf=$!
	wait_for 20 test -s port
	port=$(<port)
	printf '127.0.0.%d vdifs-test\n' 1 2 3 >hosts
	began=${EPOCHREALTIME/./}
	# shellcheck disable=SC2016
	refuse "a host that does not answer" "cannot connect to host 'vdifs-test'.*timed out" unshare --mount sh -c \
		'mount --bind hosts /etc/hosts && exec "$@"' - "$vdifs" --nbd-timeout=2 "nbd://vdifs-test:$port/" mnt
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	claim "three addresses have the time of one: 2 s, here $took ms" test "$took" -ge 1900 -a "$took" -lt $((2000 + 2000 * VD_PATIENCE))
	kill "$deaf"
	wait "$deaf" 2>/dev/null
}

all() {
	aborted
	moved
	covered
	names
	ignored
	childless
	stopped
	lies
	outlives
	exchanged
}

each_mode all
addresses
finish
