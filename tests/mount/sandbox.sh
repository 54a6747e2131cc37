#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The two processes of a mount: what the server has given up, which layers of the sandbox hold and who
# says so, on kernels that lack some, in user namespaces, and where an ordinary user cannot mount.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
own_namespace "$0"
start root qemu-img qemu-io python3 setpriv unshare jq
without=$tools/without
[ -x "$without" ] || { echo "Bail out! $without is not built"; exit 99; }
grep -q '^#define HAVE_SECCOMP 1' "$tools/config.h" && seccomp=yes || seccomp=

image disk.qcow2 1m "write -q -P 65 64k 64k"
image_options=backing_file=disk.qcow2,backing_fmt=qcow2
image top.qcow2 1m "write -q -P 66 128k 64k"
image_options=
qemu-img convert -O raw top.qcow2 wanted
mkdir -p mnt
echo 'no image' >text
all=no_new_privs,capabilities,landlock${seccomp:+,seccomp},limits

layers_of() { getfattr --only-values -n user.vdifs.info "$1" | jq -r .vdifs.sandbox; }

# selftest CLAIM LAYERS COMMAND...: nothing is possible in a sandbox of these layers
selftest() {
	local claim=$1 wanted=$2 status=0
	shift 2
	timeout 20 "$@" --sandbox-selftest >said 2>said.err || status=$?
	is "$claim: the layers" "$(sed -n 's/^layers: //p' said)" "$wanted"
	is "$claim: fifteen things are tried, and none is possible" \
		"$status $(grep -c . said) $(grep -c POSSIBLE said)" "0 16 0"
}

selftests() {
	local program
	for program in "$vdifs" "$vdimap"; do
		selftest "${program##*/}" "$all" "$program"
		selftest "${program##*/}, strict" "$all" "$program" --sandbox=strict
		selftest "${program##*/} as a user" "$all" setpriv --reuid=12345 --regid=12345 --clear-groups "$program"
	done
	timeout 20 "$vdifs" --sandbox=off --sandbox-selftest >said 2>&1 &&
		not_ok "without a sandbox the test fails" "$(cat said)" || ok "without a sandbox the test fails"
}

# What the kernel says of the server, and what is open in it.
server_state() {
	local server status files
	mount_image '--sandbox=strict' top.qcow2 mnt || return
	claim "in a sandbox a chain is read$in" cmp mnt/top.raw wanted
	is "user.vdifs.info names the layers$in" "$(layers_of mnt)" "$all"
	server=$(servers)
	status=$(grep -E '^(NoNewPrivs|Cap[A-Z][a-z]*|Seccomp):' "/proc/$server/status" | tr -d '\t' | tr '\n' ' ')
	is "the server has no rights left$in" "$status" \
		"CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:0000000000000000 CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2 "
	files=$(find "/proc/$server/fd" -type l -printf '%l\n' | grep -v -e '^/dev/fuse$' -e '^/dev/null$' -e '^socket:' -e '^pipe:' | sort)
	is "it has its images open, and no directory$in" "$files" "$PWD/disk.qcow2"$'\n'"$PWD/top.qcow2"
	is "all its threads read from one descriptor, with more of which libfuse loses interrupts$in" \
		"$(find "/proc/$server/fd" -lname /dev/fuse | wc -l)" 1
	is "the supervisor has none of them$in" \
		"$(find "/proc/$(supervisors)/fd" -lname "*.qcow2" | wc -l) $(find "/proc/$(supervisors)/fd" -lname /dev/fuse | wc -l)" "0 0"
	is "its core files and locked memory are off$in" \
		"$(awk '/^Max (core|locked)/ { print $(NF - 1) }' "/proc/$server/limits" | tr '\n' ' ')" "0 0 "
	unmount mnt
	mount_image '--sandbox=off' top.qcow2 mnt || return
	is "--sandbox=off is named$in" "$(layers_of mnt)" off
	is "and off$in" "$(awk '/^Seccomp:/ { print $2 }' "/proc/$(servers)/status")" 0
	unmount mnt
	begin "$vdifs" $mode -d top.qcow2 mnt </dev/null >fg.out 2>fg.err
	claim "-d names the layers$in" wait_for 20 grep -qx "vdifs: sandbox: $all" fg.err
	wait_for 20 mounted mnt
	unmount mnt
	end_of "$pid"
}

# What the caller types, or reads from us, is not the child's: neither while the image is opened, from a server
# that says nothing, nor later.
terminal() {
	local program child user='--reuid=12345 --regid=12345 --clear-groups'
	if grep -q '^#define HAVE_LIBNBD 1' "$tools/config.h"; then
		"$python" -c 'import socket, time
with socket.socket(socket.AF_UNIX) as silent:
    silent.bind("silent")
    silent.listen(8)
    time.sleep(60)' &
		silent=$!
		wait_for 20 test -S silent
		chmod 777 silent
		for program in "$vdifs $mode -f ADDRESS mnt" "$vdifs $mode ADDRESS mnt" "setpriv $user -- $vdimap ADDRESS"; do
			reads_text ${program/ADDRESS/nbd+unix:///?socket=silent}
			wait_for 20 confined_child
			is "while it opens ${program##*/} reads from nobody$in" "$(stdio_of "$child" 0)" /dev/null
			if [[ $program == setpriv* ]]; then
				claim "root alone, not the user, may have its memory or a core file$in" wait_for 5 roots_alone "$child"
			else
				is "and writes only to the log$in" "$(stdio_of "$child" 1)" /dev/null
			fi
			kill "$pid"
			end_of "$pid"
			wait_for 20 no_confined_child # it ends with its parent, a moment later
		done
		kill "$silent"
		wait "$silent" 2>/dev/null
		rm silent
	else
		skip "while it opens it reads from nobody$in" "built without libnbd"
	fi
	reads_text "$vdifs" $mode -f top.qcow2 mnt
	wait_for 20 cmp -s mnt/top.raw wanted
	is "with -f the server reads from nobody and writes only to the log$in" \
		"$(stdio_of "$(servers)" 0) $(stdio_of "$(servers)" 1)" '/dev/null /dev/null'
	unmount mnt
	end_of "$pid"
}

roots_alone() { [ "$(stat -c %u "/proc/$1/environ")" -eq 0 ]; }

# shellcheck disable=SC2016
reads_text() { begin sh -c 'exec "$@" <text >out 2>said' - "$@"; } # to have any other stdin than /dev/null

stdio_of() { readlink "/proc/$1/fd/$2"; }

confined_child() { # $child: the one of $program that is in its sandbox
	local one
	for one in $(processes); do
		[[ " $program " == *" $(readlink "/proc/$one/exe") "* ]] && grep -q '^NoNewPrivs:.*1' "/proc/$one/status" &&
			child=$one && return
	done
	return 1
}

no_confined_child() { ! confined_child; }

# -v says what was opened and how it is confined, before the command is back.
verbose() {
	"$vdifs" $mode -v top.qcow2 mnt >said 2>&1
	is "-v says what was opened$in" "$(cat said)" "vdifs: image $PWD/top.qcow2: qcow2, 1048576 bytes
vdifs: backing file $PWD/disk.qcow2: qcow2, 1048576 bytes
vdifs: sandbox: $(layers_of mnt)"
	unmount mnt
	qemu-img create -q -f vpc fresh.vhd 1M
	"$vdifs" $mode -v fresh.vhd mnt >said 2>&1
	is "and calls a VHD vpc, as QEMU does$in" "$(head -n 1 said | cut -d , -f 1)" "vdifs: image $PWD/fresh.vhd: vpc"
	unmount mnt
}

# A kernel without landlock, or without any of it.
old_kernels() {
	local gone='landlock_create_ruleset landlock_add_rule landlock_restrict_self' rest
	[ -n "$seccomp" ] || { skip "kernels that lack something" "no libseccomp to play one"; return; }
	rest=${all/landlock,/}
	selftest "without landlock" "$rest" "$without" $gone -- "$vdifs"
	"$without" $gone -- "$vdifs" $mode top.qcow2 mnt >said 2>&1
	is "without landlock it mounts, and says what is missing$in" "$(cat said)" "vdifs: the sandbox lacks: landlock"
	is "user.vdifs.info has the others$in" "$(layers_of mnt)" "$rest"
	claim "many read at once$in" parallel_cmp
	unmount mnt
	refuse "--sandbox=strict refuses without landlock$in" 'strict: not available here: landlock;' \
		"$without" $gone -- "$vdifs" --sandbox=strict top.qcow2 mnt
	"$without" $gone -- "$vdimap" --sandbox=strict top.qcow2 >said 2>&1 && not_ok "vdimap as well$in" ||
		is "vdimap as well$in" "$(grep -c 'not available here: landlock' said)" 1

	# The sandbox comes before the first byte of the image: what is wrong with that is not found.
	refuse "nor does it look at the image before$in" 'strict: not available here: landlock;' \
		"$without" $gone -- "$vdifs" --sandbox=strict text mnt
	"$without" $gone -- "$vdimap" --sandbox=strict text >said 2>&1
	is "nor does vdimap$in" "$? $(cut -d , -f 1 said | cut -d : -f 1-3)" "1 vdimap: --sandbox=strict: not available here"
}

parallel_cmp() {
	local n all=()
	for n in 1 2 3 4 5 6 7 8; do
		cmp mnt/top.raw wanted &
		all+=($!)
	done
	for n in "${all[@]}"; do wait "$n" || return; done
}

# An ordinary user becomes root of a namespace of his own, and mounts there without fusermount3.
user_namespace() {
	setpriv --reuid=12345 --regid=12345 --clear-groups unshare -Urm true 2>/dev/null ||
		{ skip "a user namespace" "the system does not let users have any"; return; }
	chmod 755 . && install -d -o 12345 own && cp disk.qcow2 top.qcow2 own && chown 12345 own/*
	mount_fuse_for_all || return
	# shellcheck disable=SC2016
	claim "in a user namespace it mounts, serves and ends$in" setpriv --reuid=12345 --regid=12345 --clear-groups \
		unshare -Urm sh -c 'cd "$1" && mkdir m && "$2" '"$mode"' --sandbox=strict top.qcow2 m && cmp m/top.raw "$3" &&
			umount m && rmdir m' - "$PWD/own" "$vdifs" "$PWD/wanted"
	claim "nothing of it is left$in" wait_for 10 no_daemon
}

# Under no_new_privs fusermount3 is an ordinary program.
no_new_privs() {
	mount_fuse_for_all || return
	install -d -o 12345 own/m2
	refuse "a user with no_new_privs hears what is in the way$in" 'no_new_privs keeps fusermount3.*unshare -Urm' \
		setpriv --reuid=12345 --regid=12345 --clear-groups --no-new-privs "$vdifs" own/top.qcow2 own/m2
	mount_image '' top.qcow2 mnt && unmount mnt
	setpriv --no-new-privs "$vdifs" $mode top.qcow2 mnt >said 2>&1
	is "root with no_new_privs mounts$in" "$(cat said) $(hash_of mnt/top.raw)" " $(hash_of wanted)"
	unmount mnt
}

mount_fuse_for_all() { # what the machine has at /dev/fuse may be root's alone
	[ -e cover/fuse ] && return
	mkdir cover && mount -t tmpfs -o mode=755 none cover && mknod -m 666 cover/fuse c 10 229 &&
		mount --bind cover/fuse /dev/fuse || not_ok "/dev/fuse can be covered"
}

if [ -n "$sanitized" ]; then # their run-time opens files: the sandbox is off there
	mount_image '' top.qcow2 mnt && is "in a build with sanitizers the sandbox is off" "$(layers_of mnt)" off
	unmount mnt
else
	selftests
	each_mode server_state
	each_mode terminal
	each_mode old_kernels
	user_namespace
	no_new_privs
fi
each_mode verbose
misuse "--sandbox= takes three words" '--sandbox=maybe: must be auto, strict or off' "$vdifs" --sandbox=maybe top.qcow2 mnt
finish
