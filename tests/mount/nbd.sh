#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images on NBD servers: nbdkit and qemu-nbd as people run them, delayed, failing, killed and hanging,
# and one server of our own that is hostile. All of it in the sandbox.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io qemu-nbd nbdkit python3 jq
mkdir mnt mnt2 images
"$vdimap" 'nbd+unix:///?socket=none' 2>&1 | grep -q 'without libnbd' && skip_all "built without libnbd"
[ -n "$sanitized" ] && box='' || box=--sandbox=strict

# --- images and servers --------------------------------------------------------------------------

make_images() {
	truncate -s $((48 << 20)) images/disk.raw
	"$python" - <<-'END'
	import random
	dice = random.Random(1)
	with open('images/disk.raw', 'r+b') as disk:
	    for start, size in ((0, 65536), (1 << 20, 8 << 20), (20 << 20, 4096), (30 << 20, 9 << 20), ((48 << 20) - 512, 512)):
	        disk.seek(start)
	        disk.write(dice.randbytes(size))
	END
	qemu-img convert -O qcow2 images/disk.raw images/disk.qcow2
	qemu-img convert -c -O qcow2 images/disk.raw images/small.qcow2
	qemu-img convert -O vpc -o force_size=on images/disk.raw images/disk.vhd
	head -c 4M images/disk.raw >images/part.raw
	qemu-img convert -O vpc -o force_size=on images/part.raw images/part.vhd
	image_options=backing_file=disk.raw,backing_fmt=raw
	image images/top.qcow2 48m "write -q -P 7 2m 1m" "write -q -z 3m 64k"
	image_options=backing_file=nbd://127.0.0.1:1/base,backing_fmt=raw
	image net.qcow2 48m 2>/dev/null || { # QEMU looks for the server
		image_options=
		image net.qcow2 48m
		qemu-img rebase -u -b nbd://127.0.0.1:1/base -F raw net.qcow2
	}
	image_options=
	qemu-img convert -O raw images/top.qcow2 top.raw
	cp images/disk.qcow2 snapshots.qcow2
	qemu-img snapshot -c old snapshots.qcow2
	qemu-io -t unsafe -f qcow2 -c "write -q -P 9 40m 1m" -c "write -q -z 0 64k" snapshots.qcow2
	qemu-img convert -O raw snapshots.qcow2 snapshots.raw
}

# serve SOCKET COMMAND...: start a server that listens there. $pid is it.
serve() {
	rm -f "$1"
	begin "${@:2}" >"$work/server.out" 2>&1 </dev/null
	wait_for 20 test -S "$1" || not_ok "the server starts$in" "$(cat "$work/server.out")"
}

kit() { serve "$work/$1" nbdkit -f -r -U "$work/$1" "${@:2}"; } # kit SOCKET [NBDKIT ARGUMENT...]

qemu() { serve "$work/$1" qemu-nbd -r -t -e 8 -f raw -k "$work/$1" "${@:2}"; } # likewise

hostile() { serve "$work/$1" "$python" "$here/../lib/nbd_server.py" "$work/$1" "${@:2}"; }

stop() {
	kill "$1"
	wait "$1" 2>/dev/null
}

at() { echo "nbd+unix:///${2-}?socket=$work/$1"; } # at SOCKET [EXPORT]

# shows WHAT OPTIONS ADDRESS NAME RAW [LOCAL IMAGE]: the bytes, and the map is that of the file
shows() {
	# shellcheck disable=SC2086 # options are words
	mount_image "$box $2" "$3" mnt || return
	claim "$1: the disk$in" cmp "mnt/$4.raw" "$5"
	# shellcheck disable=SC2086
	[ $# -lt 6 ] || is "$1: the map is that of the file$in" "$(cat "mnt/$4.intervals.json")" "$("$vdimap" $2 "$6")"
	# shellcheck disable=SC2086
	is "$1: vdimap says the same$in" "$("$vdimap" $box $2 "$3" 2>&1)" "$(cat "mnt/$4.intervals.json")"
	claim "$1: unmounts$in" unmount mnt
}

# --- what works ----------------------------------------------------------------------------------

kinds() {
	local format
	for format in raw qcow2 vhd; do
		kit s file "images/disk.$format"
		shows "nbdkit, $format" "--format=$format" "$(at s)" disk images/disk.raw "images/disk.$format"
		stop "$pid"
		qemu s "images/disk.$format"
		shows "qemu-nbd, $format" "--format=$format" "$(at s)" disk images/disk.raw "images/disk.$format"
		stop "$pid"
	done
	kit s file images/small.qcow2
	shows "nbdkit, compressed" '' "$(at s)" disk images/disk.raw images/small.qcow2
	stop "$pid"
}

# A copy of the disk has its holes, over the network as well.
sparse() {
	kit s file images/disk.raw
	mount_image --format=raw "$(at s vm.raw)" mnt
	cp --sparse=auto mnt/vm.raw copy.raw
	claim "cp copies the disk$in" cmp copy.raw images/disk.raw
	like "and its holes$in" "$(du -k copy.raw | cut -f 1)" '17[0-9]{3}|18[0-9]{3}'
	is "the files are the user's alone$in" "$(stat -c %a:%u:%g mnt/vm.raw)" "600:$(id -u):$(id -g)"
	like "and as old as the mount$in" "$(($(date +%s) - $(stat -c %Y mnt/vm.raw)))" '[0-9]|[1-5][0-9]'
	unmount mnt
	stop "$pid"
	kit s --filter=noextents file images/disk.raw
	is "a server that knows no holes: all is data" "$("$vdimap" --format=raw "$(at s)" | jq -c .data_clusters)" '[[0,767]]'
	stop "$pid"
	kit s --filter=blocksize-policy file images/disk.raw blocksize-minimum=4096 blocksize-preferred=65536 \
		blocksize-maximum=131072 blocksize-error-policy=error
	shows "a server that wants whole blocks of 4096" '--format=raw' "$(at s)" disk images/disk.raw images/disk.raw
	stop "$pid"
	kit s --filter=blocksize-policy file images/part.vhd blocksize-minimum=512 blocksize-preferred=512 \
		blocksize-maximum=512 blocksize-error-policy=error
	shows "a server that wants single sectors" '' "$(at s)" disk images/part.raw images/part.vhd
	stop "$pid"
	kit s memory 16M
	is "an empty disk" "$("$vdimap" --format=raw "$(at s)" | jq -c .data_clusters)" '[]'
	stop "$pid"
	kit s null 0
	is "a disk of no bytes" "$("$vdimap" --format=raw "$(at s)" | jq -c .virtual_size)" 0
	stop "$pid"
	kit s partitioning images/disk.raw
	mount_image --format=raw "$(at s)" mnt
	claim "a disk that is made of one" cmp -i $((1 << 20)):0 -n $((48 << 20)) mnt/disk.raw images/disk.raw
	unmount mnt
	stop "$pid"
}

names() {
	mkdir -p exports && cp images/disk.qcow2 'exports/a, "b".qcow2' && cp images/disk.qcow2 exports/plain
	kit s file dir=exports
	shows "an export with a blank, a comma and quotes in its name" '' "$(at s 'a,%20%22b%22.qcow2')" 'a, "b"' images/disk.raw
	shows "an export without an extension" '' "$(at s plain)" plain images/disk.raw
	refuse "an export that is not there" 'server refuses.*no export named' "$vdifs" "$(at s nothing)" mnt
	mount_image '' "$(at s 'a,%20%22b%22.qcow2')" mnt
	is "the address is the mount's source" "$(findmnt -rno SOURCE mnt)" "$(at s 'a,%20%22b%22.qcow2')"
	unmount mnt
	stop "$pid"
	touch over
	kit s file images/disk.qcow2
	mount_image '' "$(at s)" over
	claim "over a file" cmp over images/disk.raw
	unmount over
	mkdir 'a,b' && mv s 'a,b/s' # the socket's path has the comma
	mount_image "--sandbox=auto -o ro,backing-file=\"nbd+unix:///?socket=$work/a,b/s\",backing-format=qcow2" images/top.qcow2 mnt
	claim "an address with a comma, quoted in -o" cmp -n $((1 << 20)) mnt/top.raw images/disk.raw
	unmount mnt
	mount_image "-o ro,backing-file=nbd+unix:///?socket=$work/a\\,b/s,backing-format=qcow2" images/top.qcow2 mnt
	claim "and with a backslash" cmp mnt/top.raw top.raw
	unmount mnt
	stop "$pid"
}

# free_port: one of 127.0.0.1
free_port() {
	"$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

tcp() {
	local port
	port=$(free_port)
	begin nbdkit -f -r -i 127.0.0.1 -p "$port" --filter=exportname file images/disk.qcow2 exportname=x.qcow2 exportname-strict=true
	wait_for 20 bash -c "</dev/tcp/127.0.0.1/$port"
	shows "TCP" '' "nbd://127.0.0.1:$port/x.qcow2" x images/disk.raw images/disk.qcow2
	shows "TCP by name" '' "nbd://localhost:$port/x.qcow2" x images/disk.raw images/disk.qcow2
	stop "$pid"
	refuse "nobody listens" "cannot connect to host '127.0.0.1', port $port: Connection refused" "$vdifs" "nbd://127.0.0.1:$port/" mnt
	refuse "an unknown host" "host 'no.such.host.invalid' is not known" "$vdifs" nbd://no.such.host.invalid/ mnt
}

chains() {
	local top base
	kit s file images/top.qcow2
	top=$pid
	kit s2 file images/disk.raw
	base=$pid
	shows "a top on a server, its base a file" "--backing-file=images/disk.raw" "$(at s top.qcow2)" top top.raw
	shows "a top that is a file, its base on a server" "--backing-file=$(at s2)" images/top.qcow2 top top.raw
	shows "both on servers" "--backing-file=$(at s2)" "$(at s top.qcow2)" top top.raw
	qemu-img create -q -f qcow2 -o "data_file=$work/images/disk.raw,data_file_raw=on" images/data.qcow2 48m
	shows "a data file on a server" "--data-file=$(at s2)" images/data.qcow2 data images/disk.raw
	refuse "names from an image on a server lead to no files" "in no directory.*--backing-file" "$vdifs" "$(at s)" mnt
	refuse "neither with --backing=any, when relative" "in no directory" "$vdifs" --backing=any "$(at s)" mnt
	refuse "a chain that comes back" "comes back to this file" "$vdifs" "--backing-file=$(at s)" \
		--backing-format=qcow2 "$(at s)" mnt
	refuse "a name from an image is never an address" "is an address, not a file name" "$vdifs" net.qcow2 mnt
	refuse "also not with --backing=any" "is an address, not a file name" "$vdifs" --backing=any net.qcow2 mnt
	stop "$top"
	stop "$base"
}

refusals() {
	refuse "TLS is refused by name" 'nbds://.*TLS' "$vdifs" nbds://h/x mnt
	refuse "vsock is refused by name" 'vsock' "$vdifs" nbd+vsock://2/x mnt
	refuse "a socket without a path" 'socket=PATH' "$vdifs" nbd+unix:///x mnt
	refuse "no socket there" 'cannot connect to the socket.*No such file' "$vdifs" "$(at none)" mnt
	refuse "a file is no socket" 'cannot connect to the socket' "$vdifs" "nbd+unix:///?socket=$work/top.raw" mnt
	claim "an address as a file's name, with ./" bash -c "mkdir -p nbd: && cp images/disk.qcow2 nbd:/x &&
		'$vdimap' ./nbd://x"
}

# Read in order and past the kernel's cache, where each request waits for the one before: what is more than
# one was read ahead.
ahead() {
	local server
	hostile h late=20 size=$((8 << 20))
	server=$pid
	mount_image --format=raw "$(at h)" mnt
	claim "8 MiB in order, of a server that is late" dd if=mnt/disk.raw of=copy.raw bs=128k iflag=direct
	is "are the right ones" "$(tr -d A <copy.raw | wc -c):$(stat -c %s copy.raw)" "0:$((8 << 20))"
	like "many requests are under way at once" "$(cat h.most)" '[4-9]|[1-3][0-9]'
	unmount mnt
	stop "$server"
	hostile h late=20 size=$((8 << 20))
	server=$pid
	mount_image --format=raw "$(at h)" mnt
	claim "a place here and a place there" dd if=mnt/disk.raw of=/dev/null bs=4k count=1 skip=300 iflag=direct
	dd if=mnt/disk.raw of=/dev/null bs=4k count=1 skip=1500 iflag=direct 2>/dev/null
	dd if=mnt/disk.raw of=/dev/null bs=4k count=1 skip=900 iflag=direct 2>/dev/null
	is "are not read ahead of" "$(cat h.most)" 1
	unmount mnt
	stop "$server"
}

# What vdimap says of an image on a server is what it says of the file, but for names.
# shellcheck disable=SC2086 # an option, or none
questions() {
	local top base
	kit s file images/top.qcow2
	top=$pid
	kit s2 file images/disk.raw
	base=$pid
	is "--diff: what a layer on a server adds" \
		"$("$vdimap" $box --old-format=raw --backing-file="$(at s2)" --diff="$(at s2)" "$(at s)" 2>&1)" \
		"$("$vdimap" --old-format=raw --diff=images/disk.raw images/top.qcow2)"
	is "--diff and --compare: another source, the same bytes" \
		"$("$vdimap" $box --old-format=raw --format=raw --diff=images/disk.raw --compare "$(at s2)" 2>&1 | jq -c .data_clusters)" '[]'
	stop "$top"
	kit s file snapshots.qcow2
	top=$pid
	is "--info --json" "$("$vdimap" $box --info --json "$(at s)" 2>&1 | known_facts)" \
		"$("$vdimap" --info --json snapshots.qcow2 | known_facts)"
	like "--info names the address" "$("$vdimap" $box --info "$(at s)" 2>&1 | head -n 1)" "image: $(at s | sed 's/[+?]/\\&/g')"
	stop "$top"
	stop "$base"
}

known_facts() { jq -cS '[."virtual-size", .format, ."cluster-size", .snapshots, ."format-specific"]'; }

# Snapshots and layers have their own maps and bytes, from the same connections.
views() {
	local top base
	kit s file snapshots.qcow2
	top=$pid
	mount_image '' "$(at s)" mnt
	is "snapshots/ of an image on a server$in" "$(cd mnt/snapshots && echo ./*)" "./old.intervals.json ./old.raw"
	claim "has the old bytes$in" cmp mnt/snapshots/old.raw images/disk.raw
	is "and the old map$in" "$(cat mnt/snapshots/old.intervals.json)" "$("$vdimap" --snapshot=old snapshots.qcow2)"
	claim "beside the new ones$in" cmp mnt/disk.raw snapshots.raw
	unmount mnt
	stop "$top"
	kit s file images/top.qcow2
	top=$pid
	kit s2 file images/disk.raw
	base=$pid
	mount_image "--layers --backing-file=$(at s2)" "$(at s)" mnt
	claim "layers/ of a chain on servers: the top$in" cmp mnt/layers/0.raw top.raw
	claim "and its base$in" cmp mnt/layers/1.raw images/disk.raw
	is "with its map$in" "$(cat mnt/layers/1.intervals.json)" "$("$vdimap" --format=raw images/disk.raw)"
	unmount mnt
	stop "$top"
	stop "$base"
}

# --- what fails ----------------------------------------------------------------------------------

# reads_fail FILE [SKIP MiB]: reading is EIO, and soon
reads_fail() {
	! timeout 20 dd if="$1" of=/dev/null bs=64k count=1 skip="$((${2-0} * 16))" iflag=direct 2>dd.err || return
	cat dd.err
	grep -q 'Input/output error' dd.err
}

halt() { # halt PID: stop it, with all its threads
	kill -STOP "$1"
	wait_for 5 eval "! grep -L ') T ' /proc/$1/task/*/stat | grep -q ."
}

# in_foreground OPTIONS IMAGE: mount with -f, the log in the file log. $daemon is the supervisor.
in_foreground() {
	# shellcheck disable=SC2086
	begin "$vdifs" -f $box $1 "$2" mnt 2>log
	daemon=$pid
	wait_for 20 mounted mnt
	wait_for 20 stat mnt/disk.raw || not_ok "$2 mounts" "$(cat log)"
}

errors() {
	kit s --filter=error file images/disk.raw error-pread-rate=100% error-file="$work/broken"
	local server=$pid
	in_foreground --format=raw "$(at s)"
	claim "before the error: reads" dd if=mnt/disk.raw of=/dev/null bs=1M count=1 skip=1 iflag=direct
	touch broken
	claim "errors of the server: EIO" reads_fail mnt/disk.raw 30
	rm broken
	claim "when it recovers: reads again" cmp mnt/disk.raw images/disk.raw
	unmount mnt
	end_of "$daemon"
	is "the end is clean" "$ended_with" 0
	claim "the error was logged" grep -q 'cannot read .* Input/output\|input/output error' log
	is "for each place once" "$(sort log | uniq -d)" ''
	stop "$server"
	kit s --filter=error file images/disk.raw error-extents-rate=100%
	is "a server that fails to tell holes: all is data, but the range once" \
		"$("$vdimap" --format=raw "$(at s)" 2>/dev/null | jq -c .data_clusters)" '[[0,767]]'
	stop "$pid"
}

read_all_over() { # read_all_over DISK: at 40 places; that they cannot be read is no matter
	local megabyte
	for megabyte in {1..40}; do
		dd if="$1" of=/dev/null bs=4k count=1 skip=$((megabyte * 256)) 2>/dev/null
	done
}

killed() {
	local server start
	kit s file images/disk.raw
	server=$pid
	in_foreground --format=raw "$(at s)"
	claim "before the end: reads" dd if=mnt/disk.raw of=/dev/null bs=64k count=1
	kill -KILL "$server"
	wait "$server" 2>/dev/null
	claim "a server that was killed: EIO" reads_fail mnt/disk.raw 30
	claim "the mount still answers" stat mnt/disk.raw
	read_all_over mnt/disk.raw
	claim "the log says it" wait_for 5 grep -q 'connection to the server is lost' log
	start=$SECONDS
	claim "it can be unmounted" fusermount3 -u mnt
	end_of "$daemon"
	is "and ends well" "$ended_with" 0
	like "soon" "$((SECONDS - start))" '[0-5]'
	is "in one line, whatever was read" "$(wc -l <log)" 1
	kit s file images/small.qcow2
	server=$pid
	in_foreground '' "$(at s)"
	claim "its map is whole" wait_for 20 eval '[ "$(attribute user.vdifs.info mnt | jq .vdifs.map.complete)" = true ]'
	kill -KILL "$server"
	wait "$server" 2>/dev/null
	read_all_over mnt/disk.raw
	claim "a compressed image whose server was killed: the log says it" \
		wait_for 5 grep -q 'connection to the server is lost' log
	unmount mnt
	end_of "$daemon"
	is "in one line, too" "$(wc -l <log)" 1
}

# With a reader that waits for a server that is stopped.
hanging() {
	local server start reader
	kit s file images/disk.raw
	server=$pid
	in_foreground "--format=raw --nbd-timeout=2" "$(at s)"
	halt "$server"
	start=$SECONDS
	claim "a server that hangs: EIO after --nbd-timeout" reads_fail mnt/disk.raw 30
	like "of 2 seconds" "$((SECONDS - start))" '[1-5]'
	claim "the log says it" wait_for 5 grep -q 'said nothing for 2 seconds' log
	claim "for good" reads_fail mnt/disk.raw 35
	unmount mnt
	end_of "$daemon"
	is "and it ends well" "$ended_with" 0
	is "all that is one line in the log" "$(wc -l <log)" 1
	kill -CONT "$server"
	stop "$server"

	kit s file images/disk.raw
	server=$pid
	in_foreground --format=raw "$(at s)"
	halt "$server"
	begin dd if=mnt/disk.raw of=/dev/null bs=64k count=1 skip=480 iflag=direct 2>/dev/null
	reader=$pid
	sleep 0.5
	start=$SECONDS
	kill -TERM "$daemon"
	end_of "$daemon"
	is "SIGTERM with a reader that waits: it ends well" "$ended_with" 0
	like "within 5 seconds" "$((SECONDS - start))" '[0-5]'
	if mounted mnt; then not_ok "and the mount is gone"; else ok "and the mount is gone"; fi
	end_of "$reader"
	kill -CONT "$server"
	stop "$server"

	kit s file images/disk.raw
	server=$pid
	in_foreground --format=raw "$(at s)"
	halt "$server"
	begin dd if=mnt/disk.raw of=/dev/null bs=64k count=1 skip=480 2>/dev/null
	reader=$pid
	sleep 0.5
	fusermount3 -uz mnt
	start=$SECONDS
	kill -KILL "$reader"
	end_of "$reader"
	end_of "$daemon"
	is "a lazy unmount, and its last reader is killed: it ends well" "$ended_with" 0
	like "within 5 seconds, too" "$((SECONDS - start))" '[0-5]'
	kill -CONT "$server"
	stop "$server"

	kit s --filter=delay --filter=noextents file images/disk.qcow2 rdelay=20
	server=$pid
	start=$SECONDS
	like "a server that does not answer at the start is given up" \
		"$(timeout 30 "$vdifs" --nbd-timeout=1 "$(at s)" mnt 2>&1)" 'vdifs: [^:]*:[^:]*: cannot read what it is: Connection timed out'
	like "soon" "$((SECONDS - start))" '[0-9]'
	stop "$server"

	# It says something all the time, but never enough.
	hostile s trickle=1
	server=$pid
	in_foreground --format=raw "$(at s)"
	begin dd if=mnt/disk.raw of=/dev/null bs=64k count=1 2>/dev/null
	reader=$pid
	sleep 0.5
	start=$SECONDS
	kill -TERM "$daemon"
	end_of "$daemon"
	is "SIGTERM with a server that trickles: it ends well" "$ended_with" 0
	like "within 2 seconds" "$((SECONDS - start))" '[0-2]'
	is "and need not be killed" "$(cat log)" ''
	end_of "$reader"
	stop "$server"
}

# reads_of IMAGE: how many times the server is asked for data until the image is mounted
reads_of() {
	rm -f stats.txt
	kit s --filter=stats file "$1" statsfile=stats.txt
	mount_image "$box" "$(at s)" mnt
	unmount_now mnt
	stop "$pid"
	sed -n 's/^read: \([0-9]*\) ops.*/\1/p' stats.txt
}

# Each question takes as long as the server is far away, so that it counts how many there are.
counted() {
	local bits few many
	for bits in 64k 2M; do
		qemu-img create -q -f qcow2 -o cluster_size=$bits many.qcow2 1G
		qemu-io -t unsafe -f qcow2 -c "write -q 0 1M" many.qcow2
		few=$(reads_of many.qcow2)
		for i in $(seq 40); do qemu-img snapshot -c "s$i" many.qcow2; done
		many=$(reads_of many.qcow2)
		claim "clusters of $bits: 40 snapshots take no more than 2 requests each ($few, then $many)" \
			test "$((many - few))" -le 80
	done
	rm many.qcow2
}

# What the hostile server of tests/lib makes of us: an error that is told, and never a crash.
enemies() {
	local how server map='{"virtual_size":1048576,"cluster_bits":16,"data_clusters":[[0,15]]}'
	hostile h
	server=$pid
	is "our own server, when it behaves: the map" "$("$vdimap" --format=raw "$(at h)")" "$map"
	mount_image --format=raw "$(at h)" mnt
	is "and the bytes" "$(tr -d A <mnt/disk.raw | wc -c)" 0
	unmount mnt
	stop "$server"
	for how in garbage short beyond wrong-cookie close=1 close=2 fail=1 twice; do
		hostile h "$how"
		server=$pid
		in_foreground --format=raw "$(at h)"
		if [ "$how" = twice ]; then # libnbd counts the bytes only; those that did not come are zeros
			is "$how: nothing of our memory is shown" "$(tr -d 'A\0' <mnt/disk.raw 2>/dev/null | wc -c)" 0
		else
			claim "$how: an error" bash -c '! cat mnt/disk.raw >/dev/null'
		fi
		claim "$how: the mount lives" stat mnt/disk.raw
		unmount mnt
		end_of "$daemon"
		is "$how: ends well" "$ended_with" 0
		stop "$server"
	done
	for how in none empty zero-length endless error other; do
		hostile h "holes=$how"
		is "holes are told wrongly ($how): all is data" "$(timeout 20 "$vdimap" --format=raw "$(at h)" 2>/dev/null)" "$map"
		stop "$pid"
	done
	hostile h holes=once size=$((1 << 30))
	"$vdimap" --format=raw "$(at h)" >once.json 2>once.log
	is "one question about holes fails: that place is data" "$(jq -c .data_clusters once.json)" '[[0,1023]]'
	is "and that is said" "$(wc -l <once.log):$(grep -c 'does not say where holes are' once.log)" 1:1
	stop "$pid"
	hostile h holes=fine
	is "holes are told rightly" "$("$vdimap" --format=raw "$(at h)" | jq -c .data_clusters)" '[]'
	stop "$pid"
	for how in size=-1 size=9223372036854775808 'align=4096 size=1000' flood silent=0; do
		# shellcheck disable=SC2086 # words
		hostile h ${how/size=-1/size=18446744073709551615}
		refuse "a server with $how" "nbd\+unix:.*server" "$vdifs" --format=raw --nbd-timeout=2 "$(at h)" mnt
		stop "$pid"
	done
	hostile h size=9223372036854775807
	is "the largest size" "$(timeout 60 "$vdimap" --format=raw "$(at h)" | jq -c .virtual_size | head -c 10)" 9223372036
	stop "$pid"
}

make_images
each_mode kinds
each_mode sparse
names
tcp
ahead
questions
each_mode views
chains
counted
refusals
errors
killed
hanging
enemies
finish
