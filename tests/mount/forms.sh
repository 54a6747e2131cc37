#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The command itself: foreground and background, its exit status, its one line when it fails, and
# the odd places an image and a mountpoint can be.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2016,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 losetup
mkdir mnt mnt2
touch plain plain2
image disk.qcow2 1m "write -q -P 65 64k 64k"
qemu-img convert -O vpc -o force_size=on disk.qcow2 disk.vhd
qemu-img convert -O raw disk.qcow2 wanted
wanted=$(hash_of wanted)

answers() { [ -e "$1" ] && mounted "$2" && cmp -s "$1" wanted; } # answers DISK MOUNTPOINT

# foreground WHAT HOW-TO-END OPTION...: it serves until it is told, then it ends well
foreground() {
	local what=$1 end=$2 disk=mnt/disk.raw place=mnt
	shift 2
	[ "$end" != file ] || disk=plain place=plain
	# shellcheck disable=SC2086
	begin "$vdifs" $mode "$@" disk.qcow2 "$place" </dev/null >fg.out 2>fg.err
	if wait_for 20 answers "$disk" "$place"; then ok "$what: serves$in"; else not_ok "$what: serves$in" "$(cat fg.err)"; fi
	claim "$what: is the process itself$in" kill -0 "$pid"
	case $end in
	unmount | file) unmount "$place" ;;
	*) kill -s "$end" "$pid" ;;
	esac
	end_of "$pid"
	is "$what: ends with exit status 0$in" "$ended_with" 0
	if mounted "$place"; then not_ok "$what: leaves nothing mounted$in"; else ok "$what: leaves nothing mounted$in"; fi
	[[ " $* " == *" -d "* ]] || is "$what: says nothing$in" "$(cat fg.out fg.err)" ''
}

all_foregrounds() {
	local signal
	for signal in TERM INT HUP QUIT; do
		foreground "-f and SIG$signal" "$signal" -f
		foreground "-f -s and SIG$signal" "$signal" -f -s
	done
	foreground "-f and an unmount" unmount -f
	foreground "-f, as a file, and an unmount" file -f
	foreground "-d" TERM -d
	is "-d prints what happens$in" "$(grep -c -m 1 -i lookup fg.err)" 1
}

# How often we are asked for the same bytes: once with the page cache, also after the file was opened
# anew; each time with --direct, or when a reader wants it so.
page_cache() {
	local first second third
	begin "$vdifs" $mode -d disk.qcow2 mnt </dev/null >fg.out 2>fg.err
	wait_for 20 answers mnt/disk.raw mnt || not_ok "-d serves for counting$in"
	first=$(reads)
	head -c 65536 mnt/disk.raw | tail -c 1 >/dev/null
	second=$(reads)
	dd if=mnt/disk.raw of=/dev/null bs=64k count=1 iflag=direct status=none
	third=$(reads)
	if [ -z "$mode" ]; then
		is "what was read once is not asked for again$in" "$second" "$first"
	else
		claim "what was read once is asked for again$in" test "$second" -gt "$first"
	fi
	claim "O_DIRECT asks in any case$in" test "$third" -gt "$second"
	kill "$pid"
	end_of "$pid"
}

reads() { # asked for so far; an answer that is written after this request comes after those before it
	stat -f mnt >/dev/null
	grep -c 'opcode: READ ' fg.err
}

# A signal to a daemon in the background, also while a file is open.
background_signals() {
	local signal server
	for signal in TERM INT HUP QUIT; do
		wait_for 20 no_daemon
		mount_image '' disk.qcow2 mnt || return
		exec 8<mnt/disk.raw
		server=$(servers)
		is "in the background there are a supervisor and a server$in" "$(parent_of "$server")" "$(supervisors)"
		kill -s "$signal" "$(supervisors)"
		claim "SIG$signal ends them though the disk is open$in" wait_for 20 no_daemon
		exec 8<&-
		if mounted mnt; then not_ok "after SIG$signal nothing is mounted$in"; else ok "after SIG$signal nothing is mounted$in"; fi
	done
}

# The command returns when the mount answers, not before.
at_once() {
	local n=0 wanted
	wanted=$(effort 16 24 50)
	while [ "$n" -lt "$wanted" ]; do
		timeout 20 "$vdifs" $mode disk.qcow2 mnt && [ "$(head -c 65537 mnt/disk.raw | tail -c 1)" = A ] || break
		n=$((n + 1))
		timeout 20 "$vdifs" $mode disk.qcow2 plain && [ "$(head -c 65537 plain | tail -c 1)" = A ] || break
		n=$((n + 1))
		unmount mnt && unmount plain || break
	done
	is "$wanted mounts answer as soon as the command is back$in" "$n" "$wanted"
	is "and do not keep the command's output open$in" \
		"$(timeout 20 bash -c '"$0" "$@" | cat' "$vdifs" $mode disk.qcow2 mnt && cmp mnt/disk.raw wanted && echo alike)" alike
	unmount mnt
}

failures() {
	local before
	before=$(daemons)
	printf 'no image at all, just text\n' >text
	mkfifo pipe 2>/dev/null
	: >empty
	refuse "a missing image" 'none\.qcow2.*No such file' "$vdifs" none.qcow2 mnt
	refuse "a missing image, with -f" 'none\.qcow2.*No such file' "$vdifs" -f none.qcow2 mnt
	refuse "no image" 'text' "$vdifs" text mnt
	refuse "no image, with -f" 'text' "$vdifs" -f text mnt
	refuse "no image, over a file" 'text' "$vdifs" text plain
	refuse "an empty image" 'empty' "$vdifs" empty mnt
	refuse "a directory as image" 'mnt2' "$vdifs" mnt2 mnt
	refuse "a pipe as image" 'pipe' "$vdifs" pipe mnt
	refuse "an image with line feeds in its name" 'no.x0ane' "$vdifs" $'no\nne' mnt
	refuse "a missing mountpoint" 'none.*No such file' "$vdifs" disk.qcow2 none
	refuse "a mountpoint below a file" 'plain/x.*Not a directory' "$vdifs" disk.qcow2 plain/x
	refuse "a device as mountpoint" 'directory or a regular file' "$vdifs" disk.qcow2 /dev/null
	refuse "a pipe as mountpoint" 'directory or a regular file' "$vdifs" disk.qcow2 pipe
	refuse "/dev/fd/N as mountpoint" 'drop_privileges' "$vdifs" disk.qcow2 /dev/fd/5
	refuse "an unknown snapshot" 'none' "$vdifs" --snapshot=none disk.qcow2 mnt
	mount_image '' disk.qcow2 mnt
	refuse "an image that is there already" 'mnt: .*disk.qcow2 is already mounted here; to unmount it: vdifs --unmount .*mnt$' "$vdifs" disk.qcow2 mnt
	refuse "also with -f" 'mnt: .*disk.qcow2 is already mounted here; to unmount it: vdifs --unmount .*mnt$' "$vdifs" -f disk.qcow2 mnt
	claim "remounting it: there is nothing to do" timeout 20 "$vdifs" -o remount,ro disk.qcow2 mnt
	claim "also with -f" timeout 20 "$vdifs" -f -o remount,ro disk.qcow2 mnt
	unmount mnt
	refuse "remounting what is not there" 'mnt: cannot remount: .*disk.qcow2 is not mounted here$' "$vdifs" -o remount disk.qcow2 mnt
	misuse "remounting for a command" 'remount mounts nothing for a command' "$vdifs" -o remount disk.qcow2 mnt -- true
	misuse "an unknown option" 'unknown option --nonsense$' "$vdifs" --nonsense disk.qcow2 mnt
	misuse "one that is nearly right" 'unknown option --fromat; did you mean --format\?$' "$vdifs" --fromat=raw disk.qcow2 mnt
	misuse "one that may be several" 'unknown option --backing-f; it may be --backing-file or --backing-format$' "$vdifs" --backing-f=x disk.qcow2 mnt
	misuse "an unknown letter" 'unknown option -Q$' "$vdifs" -Q disk.qcow2 mnt
	misuse "an unknown letter behind a long option" 'unknown option -Q$' "$vdifs" --direct -vQ disk.qcow2 mnt
	misuse "a file name that begins with a dash" 'unknown option -x; .* is given as \./-x.qcow2$' "$vdifs" -x.qcow2 mnt
	misuse "an option without its value" '--format needs a value$' "$vdifs" disk.qcow2 mnt --format
	misuse "a letter without its value" '-o needs a value$' "$vdifs" disk.qcow2 mnt -o
	misuse "an option with a value too much" '--direct takes no value$' "$vdifs" --direct=yes disk.qcow2 mnt
	misuse "an option twice" 'sandbox is given twice; give it once$' "$vdifs" --sandbox=auto -o sandbox=off disk.qcow2 mnt
	misuse "a size that is none" 'map-memory=x: not a size' "$vdifs" --map-memory=x disk.qcow2 mnt
	misuse "a size with a blank" "map-memory=64 : not a size" "$vdifs" '--map-memory=64 ' disk.qcow2 mnt
	misuse "a negative size" 'map-memory=-1: not a size' "$vdifs" --map-memory=-1 disk.qcow2 mnt
	misuse "a size too large" 'map-memory=99999999999T: not a size' "$vdifs" --map-memory=99999999999T disk.qcow2 mnt
	misuse "an unknown word of -o" 'option: -o nonsense$' "$vdifs" -o nonsense disk.qcow2 mnt
	misuse "an unknown word among known ones" 'option: -o nonsense$' "$vdifs" -o ro,nonsense=1,nodev disk.qcow2 mnt
	misuse "a word of -o that is nearly right" '-o allow_otehr; did you mean allow_other\?$' "$vdifs" -o allow_otehr disk.qcow2 mnt
	misuse "a word of -o without its value" '-o format needs a value' "$vdifs" -o format disk.qcow2 mnt
	misuse "a word of -o that somebody else wants" '-o offset: vdifs shows the whole disk' "$vdifs" -o offset=512 disk.qcow2 mnt
	misuse "to write" '-o rw: vdifs never writes' "$vdifs" -o rw disk.qcow2 mnt
	[ -e /sys/fs/selinux/enforce ] ||
		misuse "a label without SELinux" '-o context: SELinux is not active' "$vdifs" -o 'context="a:b:c,d"' disk.qcow2 mnt
	misuse "an unknown format" 'formats are vpc \(or vhd\), qcow2 and raw' "$vdifs" --format=vmdk disk.qcow2 mnt
	misuse "an unknown policy" 'policies are' "$vdifs" --backing=some disk.qcow2 mnt
	misuse "an image alone" 'image and a mountpoint' "$vdifs" disk.qcow2
	misuse "nothing" 'image and a mountpoint' "$vdifs"
	misuse "several images" 'one image and a mountpoint, not 3 names' "$vdifs" disk.qcow2 disk.vhd mnt
	misuse "several images behind dashes" 'one image and a mountpoint, not 3 names' "$vdifs" -- disk.qcow2 disk.vhd mnt
	misuse "two images" 'disk.vhd is a disk image, too: one image is shown' "$vdifs" disk.qcow2 disk.vhd
	misuse "two images, the second one with a magic at its beginning" 'disk.qcow2 is a disk image, too' "$vdifs" disk.vhd disk.qcow2
	qemu-img convert -O vpc -o force_size=on,subformat=fixed disk.qcow2 fixed.vhd
	misuse "two images, the second one with a magic at its end" 'fixed.vhd is a disk image, too' "$vdifs" disk.qcow2 fixed.vhd
	misuse "mountpoint and image the wrong way round" 'mnt is a directory.*the image comes first' "$vdifs" mnt disk.qcow2
	wait_for 5 no_processes
	is "failures leave no process behind" "$(daemons)" "$before"
}

help_and_version() {
	local option
	for option in --help -h; do
		claim "$option exits 0" "$vdifs" "$option"
		like "$option prints a summary" "$("$vdifs" "$option" 2>&1 | head -n 1)" 'Usage: vdifs .*IMAGE MOUNTPOINT.*'
		is "$option prints to stdout" "$("$vdifs" "$option" 2>&1 >/dev/null)" ''
	done
	for option in --version -V; do
		claim "$option exits 0" "$vdifs" "$option"
		like "$option prints the version" "$("$vdifs" "$option")" 'vdifs [0-9]+\.[0-9.]+'
	done
	claim "--help among other arguments exits 0" "$vdifs" -f --help disk.qcow2
	"$vdifs" --help >/dev/full 2>said
	is "--help that cannot be written is a failure" "$? $(grep -c 'cannot write' said)" "1 1"
}

# All short options in one, and options after the arguments.
options() {
	mount_image -s disk.qcow2 mnt || return
	claim "-s serves$in" cmp mnt/disk.raw wanted
	is "-s answers attributes$in" "$(attribute user.intervals mnt)" "$("$vdimap" disk.qcow2)"
	unmount mnt
	mount_image '-sU -o map-memory=1M -o ro,format=qcow2' disk.qcow2 mnt || return
	claim "options in every form together$in" cmp mnt/disk.raw wanted
	unmount mnt
	claim "options after the arguments$in" "$vdifs" disk.qcow2 mnt -o ro --format=qcow2
	claim "and it is there$in" cmp mnt/disk.raw wanted
	unmount mnt
	cd mnt2 || return
	claim "relative names, from another folder$in" "$vdifs" ../disk.qcow2 ../mnt
	cd ..
	claim "relative names lead there$in" cmp mnt/disk.raw wanted
	unmount mnt
}

two_at_once() {
	mount_image '' disk.qcow2 mnt && mount_image --direct disk.qcow2 mnt2 && mount_image '' disk.qcow2 plain &&
		mount_image '' disk.qcow2 plain2 || return
	cat mnt/disk.raw mnt2/disk.raw plain plain2 >four
	cat wanted wanted wanted wanted >four.wanted
	claim "four mounts of one image$in" cmp four four.wanted
	unmount mnt && unmount plain
	is "the other two go on$in" "$(hash_of mnt2/disk.raw) $(hash_of plain2)" "$wanted $wanted"
	unmount mnt2
	unmount plain2

	# A forgotten mount would be hidden, and its image locked.
	mount_image '' disk.qcow2 mnt || return
	refuse "another image on top of it is refused$in" 'disk.qcow2 is already mounted here; to unmount it: vdifs --unmount .*mnt' \
		"$vdifs" $mode disk.vhd mnt
	claim "the first one goes on$in" cmp mnt/disk.raw wanted
	unmount mnt
	mount_image '' disk.vhd mnt || return
	claim "the other one mounts when it is gone$in" cmp mnt/disk.raw wanted
	unmount mnt
}

# Without stdin, stdout and stderr the image must not become descriptor 2.
closed_descriptors() {
	local before
	before=$(hash_of disk.qcow2)
	timeout 20 "$vdifs" $mode disk.qcow2 mnt <&- >&- 2>&-
	is "with 0 to 2 closed: exit status$in" $? 0
	claim "with 0 to 2 closed: serves$in" cmp mnt/disk.raw wanted
	unmount mnt
	timeout 20 "$vdifs" $mode none.qcow2 mnt <&- >&- 2>&-
	is "with 0 to 2 closed: exit status of a failure$in" $? 1
	timeout 20 "$vdifs" $mode text mnt 2>&-
	is "with 2 closed: exit status of a failure$in" $? 1
	timeout 20 "$vdifs" $mode disk.qcow2 plain <&-
	is "with 0 closed: exit status$in" $? 0
	claim "with 0 closed: serves$in" cmp plain wanted
	unmount plain
	closed_combinations
	is "nothing was written into the image$in" "$(hash_of disk.qcow2)" "$before"
	is "nothing was written into the text$in" "$(cat text)" 'no image at all, just text'
	begin "$vdifs" $mode -f disk.qcow2 mnt <&- >&- 2>&-
	claim "-f with 0 to 2 closed: serves$in" wait_for 20 answers mnt/disk.raw mnt
	unmount mnt
	end_of "$pid"
	is "-f with 0 to 2 closed: exit status$in" "$ended_with" 0
}

# Each set of the three: a mount is a mount, and a map that cannot be written is a failure.
closed_combinations() {
	local set status wanted wrong='' map
	map=$("$vdimap" disk.qcow2)
	for set in '' '<&-' '>&-' '2>&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-'; do
		eval "timeout 20 \"\$vdifs\" $mode disk.qcow2 mnt $set"
		status=$?
		cmp -s mnt/disk.raw wanted || wrong+=" mount[$set]"
		unmount mnt
		[ "$status" -eq 0 ] || wrong+=" mount[$set]=$status"
		wanted=0
		[[ $set != *'>&-'* || $set == '2>&-' || $set == '<&- 2>&-' ]] || wanted=1
		(eval "exec 3>map; timeout 20 \"\$vdimap\" disk.qcow2 >&3 $set 3>&-") 2>/dev/null
		status=$?
		[ "$status" -eq "$wanted" ] || wrong+=" map[$set]=$status"
		[ "$wanted" -eq 1 ] || [ "$(<map)" = "$map" ] || wrong+=" map[$set] is wrong"
	done
	is "with each set of 0 to 2 closed: mounts serve, maps are printed or fail$in" "$wrong" ''
}

# An image on a block device, larger than the image as devices are.
block_devices() {
	local device kind
	losetup --find >/dev/null 2>&1 || { skip "images on block devices$in" "there are no loop devices"; return; }
	for kind in qcow2 vhd; do
		cp disk.$kind volume.$kind
		[ $kind = vhd ] || truncate -s 8M volume.$kind
		attach device volume.$kind --read-only || { not_ok "losetup works$in"; return; }
		mount_image '' "$device" mnt || return
		is "a $kind on a block device: names$in" "$(ls mnt)" "${device#/dev/}.intervals.json"$'\n'"${device#/dev/}.raw"
		claim "a $kind on a block device: the disk$in" cmp "mnt/${device#/dev/}.raw" wanted
		is "a $kind on a block device: the map$in" "$(attribute user.intervals mnt)" "$("$vdimap" disk.$kind)"
		is "a $kind on a block device: a plain file is shown$in" "$(stat -c %F "mnt/${device#/dev/}.raw")" 'regular file'
		unmount mnt
		mount_image '' "$device" plain || return
		claim "a $kind on a block device, as a file$in" cmp plain wanted
		unmount plain
		detach "$device"
	done
	attach device wanted --read-only || { not_ok "losetup works$in"; return; }
	mount_image --format=raw "$device" mnt || return
	claim "a raw disk on a block device$in" cmp "mnt/${device#/dev/}.raw" wanted
	unmount mnt
	detach "$device"
}

# SIGKILL. Of the server: the supervisor takes the mount away. Of the supervisor: the mount goes on until it
# is unmounted. Of both: the mount is dead, and named as such.
killed() {
	local place disk
	for place in mnt plain; do
		disk=$([ $place = plain ] && echo plain || echo mnt/disk.raw)
		claim "the processes of earlier mounts are gone$in" wait_for 20 no_daemon
		mount_image '' disk.qcow2 $place || return
		kill -KILL "$(servers)"
		claim "$place: without its server the mount is taken away$in" wait_for 10 no_daemon
		if mounted $place; then not_ok "$place: completely$in"; else ok "$place: completely$in"; fi

		mount_image '' disk.qcow2 $place || return
		kill -KILL "$(supervisors)"
		is "$place: without its supervisor it is served$in" "$(hash_of $disk)" "$wanted"
		claim "$place: until it is unmounted$in" fusermount3 -u $place
		claim "$place: and then nothing runs$in" wait_for 10 no_daemon

		mount_image '' disk.qcow2 $place || return
		exec 8<$disk
		# shellcheck disable=SC2046
		kill -KILL $(daemons)
		claim "$place: a read says ENOTCONN when both are dead$in" wait_for 10 is_dead
		exec 8<&-
		refuse "$place: the dead mount is named, with the cure$in" "dead mount.*fusermount3 -u.*$place" "$vdifs" disk.qcow2 $place
		[ $place = plain ] ||
			refuse "also below it$in" 'mnt/disk: a dead mount.*fusermount3 -u mnt$' "$vdifs" disk.qcow2 mnt/disk
		claim "$place: the cure works$in" fusermount3 -u $place
		mount_image '' disk.qcow2 $place || return
		ok "$place: and then the image mounts$in"
		unmount $place
	done
}

is_dead() { [[ $(cat <&8 2>&1) =~ (Transport endpoint is not connected|Software caused connection abort) ]]; }

# The unmount while the disk is read: the reader goes on until it closes, the process goes then.
lazy_unmount() {
	wait_for 20 no_daemon
	mount_image '' disk.qcow2 mnt || return
	exec 8<mnt/disk.raw
	if fusermount3 -u mnt 2>/dev/null; then not_ok "a disk in use is not unmounted$in"; else ok "a disk in use is not unmounted$in"; fi
	claim "a lazy unmount is possible$in" fusermount3 -u -z mnt
	is "the reader goes on$in" "$(sha256sum <&8 | cut -d ' ' -f 1)" "$wanted"
	is "both processes are there$in" "$(daemons | wc -l)" 2
	exec 8<&-
	claim "and gone after the last close$in" wait_for 20 no_daemon
}

# A script that holds a lock or a pipe while it mounts must not leave them to the mount.
inherited_descriptors() {
	(
		exec 7>lock
		flock 7
		"$vdifs" $mode disk.qcow2 mnt 9>&-
	)
	claim "it mounts from a script that holds a lock$in" cmp -n 4096 mnt/disk.raw mnt/disk.raw
	claim "the lock is free when the script has ended$in" flock -n lock true
	claim "it is unmounted$in" unmount mnt
}

all() {
	all_foregrounds
	inherited_descriptors
	page_cache
	background_signals
	at_once
	options
	two_at_once
	closed_descriptors
	block_devices
	killed
	lazy_unmount
}

failures
help_and_version
each_mode all
finish
