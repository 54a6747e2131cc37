#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Chains through the mount, which files an image may make us open, and QEMU's image locks.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3
mkdir mnt mnt2 images elsewhere

# Three layers that each leave something of the one below to be seen, and each end elsewhere.
make_chain() {
	cd images || exit
	truncate -s $((1048576 + 512)) base.raw
	printf 'base%.0s' {1..16384} | dd of=base.raw bs=4k conv=notrunc status=none
	printf 'tail%.0s' {1..16384} | dd of=base.raw bs=4k seek=240 conv=notrunc status=none
	image_options=backing_file=base.raw,backing_fmt=raw
	image middle.qcow2 2m "write -q -P 77 64k 64k" "write -q -P 78 1500k 64k" "write -q -z 960k 64k"
	image_options=backing_file=middle.qcow2,backing_fmt=qcow2
	image top.qcow2 3m "write -q -P 84 128k 64k" "write -q -z 64k 4k"
	image_options=
	qemu-img convert -O raw top.qcow2 ../top.raw
	cp top.qcow2 other.qcow2
	cd ..
	cp images/base.raw elsewhere/base.raw
	cp images/middle.qcow2 elsewhere/middle.qcow2

	# The same chain, but the top one is elsewhere and names the rest with an absolute path.
	image_options=backing_file=$work/images/middle.qcow2,backing_fmt=qcow2
	image elsewhere/top.qcow2 3m "write -q -P 84 128k 64k" "write -q -z 64k 4k"
	image_options=
	mkdir alone && cp images/top.qcow2 images/middle.qcow2 alone/
}

# mounts_as WHAT OPTIONS IMAGE STEM RAW
mounts_as() {
	local options=$2
	[[ $options != -o* ]] || options=$(tr , '\n' <<<"${options#-o }" | grep -vx ro | sed 's/^/--/')
	mount_image "$2" "$3" mnt || return
	claim "$1: the disk$in" cmp "mnt/$4.raw" "$5"
	# shellcheck disable=SC2086 # options are words
	is "$1: the map is vdimap's$in" "$(cat "mnt/$4.intervals.json")" "$("$vdimap" $options "$3")"
	unmount mnt
}

chains() {
	mounts_as "a chain of three" '' images/top.qcow2 top top.raw
	mounts_as "its middle" '' images/middle.qcow2 middle middle.raw
	mounts_as "a chain with --backing=any" --backing=any elsewhere/top.qcow2 top top.raw
	mounts_as "a chain with -o backing=any" '-o ro,backing=any' elsewhere/top.qcow2 top top.raw
	refuse "an absolute name outside of the folder$in" 'outside.*--backing=any' "$vdifs" elsewhere/top.qcow2 mnt
	refuse "a missing backing file$in" 'base\.raw' "$vdifs" alone/top.qcow2 mnt
	refuse "--backing=none$in" '--backing' "$vdifs" --backing=none images/top.qcow2 mnt
	refuse "-o backing=none$in" '--backing' "$vdifs" -o backing=none images/top.qcow2 mnt
	mounts_as "--backing=none and an image alone" --backing=none alone.qcow2 alone top.raw
}

# Names given by hand replace those in the images, from the top down.
by_hand() {
	mounts_as "one --backing-file" "--backing-file=$work/images/middle.qcow2" alone/top.qcow2 top top.raw
	mounts_as "two, in order" "--backing-file=images/middle.qcow2 --backing-file=images/base.raw --backing-format=qcow2
		--backing-format=raw" alone/top.qcow2 top top.raw
	mounts_as "two, with --backing=none" "--backing=none --backing-file=images/middle.qcow2
		--backing-file=images/base.raw" alone/top.qcow2 top top.raw
	mounts_as "two, through -o" "-o backing-file=images/middle.qcow2,backing-file=images/base.raw" alone/top.qcow2 top top.raw
	refuse "two, in the wrong order$in" 'middle\.qcow2|base\.raw' \
		"$vdifs" --backing-file=images/base.raw --backing-file=images/middle.qcow2 alone/top.qcow2 mnt
	mounts_as "another base below the middle" "--backing-file=images/middle.qcow2 --backing-file=zeros
		--backing-format=qcow2 --backing-format=raw" images/top.qcow2 top zeros.raw
	mounts_as "the base itself as the backing file" "--backing-file=images/base.raw --backing-format=raw" \
		images/top.qcow2 top short.raw
}

# The chain of two that the last case of by_hand makes, in QEMU's reading.
make_wanted() {
	qemu-img convert -O raw images/middle.qcow2 middle.raw
	qemu-img convert -O qcow2 images/top.qcow2 alone.qcow2
	truncate -s $((1048576 + 512)) zeros
	mkdir rebased && cp images/*.qcow2 rebased/ && cp zeros rebased/base.raw
	qemu-img convert -O raw rebased/top.qcow2 zeros.raw
	qemu-img rebase -u -b "$work/images/base.raw" -F raw rebased/top.qcow2
	qemu-img convert -O raw rebased/top.qcow2 short.raw
}

# A qemu-io that keeps an image open; what it is told to do comes through descriptor 9.
hold() { # hold IMAGE OPTION...: the server of the mount before may still have it, but not for long
	local end=$((SECONDS + 20))
	while :; do
		rm -f told && mkfifo told
		qemu-io "${@:2}" -f qcow2 "$1" <told >held 2>&1 &
		holder=$!
		exec 9>told
		(trap '' PIPE && echo length >&9) 2>/dev/null
		wait_for 20 grep -q . held
		grep -q MiB held && return
		let_go
		[ "$SECONDS" -lt "$end" ] || break
	done
	not_ok "qemu-io opens $1$in" "$(cat held)"
}

let_go() {
	exec 9>&-
	wait "$holder"
}

# Whether qemu-io may write to an image, and what it says.
qemu_writes() { qemu-io -f qcow2 -c "write -q -P 1 0 512" "$1" 2>&1; }

written() { # written WHAT IMAGE: QEMU refuses to write to it, because of a lock
	local said
	if said=$(qemu_writes "$2") && [ -z "$said" ]; then
		not_ok "$1$in" "qemu-io writes"
	else
		like "$1$in" "$said" '.*Failed to get "write" lock.*'
	fi
}

locks() {
	local before
	hold images/top.qcow2
	refuse "an image that QEMU writes to$in" 'top\.qcow2.*in use for writing.*-U' "$vdifs" images/top.qcow2 mnt
	refuse "as an fstab line has it$in" 'in use for writing.*-U' "$vdifs" images/top.qcow2 mnt -o rw,dev,suid
	mounts_as "-U reads it nevertheless" -U images/top.qcow2 top top.raw
	mounts_as "--force-share, too" --force-share images/top.qcow2 top top.raw
	mounts_as "-o force-share, too" '-o force-share' images/top.qcow2 top top.raw
	let_go
	mounts_as "when QEMU is gone it mounts" '' images/top.qcow2 top top.raw

	hold images/middle.qcow2
	refuse "a chain whose middle QEMU writes to$in" 'middle\.qcow2.*in use for writing' "$vdifs" images/top.qcow2 mnt
	let_go
	hold images/top.qcow2 -r
	mounts_as "QEMU reads it at the same time" '' images/top.qcow2 top top.raw
	let_go

	before=$(cat images/*.qcow2 | sha256sum)
	mount_image '' images/top.qcow2 mnt || return
	written "QEMU may not write to a mounted image" images/top.qcow2
	written "QEMU may not write to its backing file" images/middle.qcow2
	claim "QEMU may read it$in" qemu-img convert -O raw images/top.qcow2 read.raw
	mount_image '' images/top.qcow2 mnt2 || return
	mount_image '' images/middle.qcow2 elsewhere || return
	claim "two mounts of one image live together$in" cmp mnt/top.raw mnt2/top.raw
	claim "and one of its middle$in" cmp elsewhere/middle.raw middle.raw
	unmount mnt
	written "the other mount keeps the lock" images/top.qcow2
	unmount mnt2
	unmount elsewhere
	is "nothing was written$in" "$(cat images/*.qcow2 | sha256sum)" "$before"

	cp images/other.qcow2 images/free.qcow2
	mount_image '' images/free.qcow2 mnt || return
	written "before the unmount QEMU may not write" images/free.qcow2
	unmount mnt
	claim "after the unmount QEMU may$in" wait_for 20 qemu_writes images/free.qcow2
	mount_image -U images/free.qcow2 mnt || return
	claim "with -U QEMU may at any time$in" qemu_writes images/free.qcow2
	unmount mnt
}

# A link to the image: its names are looked up beside the link, then beside the file, and then a line says so.
mounts_linked() {
	rm elsewhere/middle.qcow2
	# shellcheck disable=SC2086 # options are words
	"$vdifs" $mode elsewhere/link.qcow2 mnt 2>said </dev/null || { not_ok "a link mounts$in" "$(cat said)"; return; }
	like "a link: a line names the file beside the real image$in" "$(cat said)" \
		"vdifs: .*elsewhere/link\.qcow2 is a symbolic link .*images/middle\.qcow2"
	claim "a link: the disk has its name$in" cmp mnt/link.raw top.raw
	unmount mnt
	cp images/middle.qcow2 elsewhere/
}

# Logical volumes: links side by side to devices elsewhere, one named by the other.
volumes() {
	local one other
	rm -rf vg && mkdir vg && truncate -s 8M one other
	attach one one && attach other other || return
	ln -s "$one" vg/base && ln -s "$other" vg/top
	qemu-img create -q -f qcow2 "$work/vg/base" 4M
	qemu-io -f qcow2 -c 'write -q -P 65 0 1M' "$work/vg/base"
	qemu-img create -q -u -f qcow2 -b base -F qcow2 "$work/vg/top" 4M
	qemu-io -f qcow2 -c 'write -q -P 66 2M 64k' "$work/vg/top"
	qemu-img convert -O raw "$work/vg/top" volumes.raw
	mounts_as "a chain of volumes" --backing=any vg/top top volumes.raw
	refuse "a chain of volumes under same-dir$in" 'block device.*--backing=any' "$vdifs" vg/top mnt
	# A guest that writes the header itself would be shown what root has in memory below /dev.
	qemu-img create -q -u -f qcow2 -b shm/secret -F raw "$work/vg/top" 4M
	refuse "a file below /dev that a guest names$in" 'block device' "$vdifs" vg/top mnt
	refuse "the same, without the link$in" 'block device' "$vdifs" "$other" mnt
}

# In a user namespace all owners that it does not know have one number: who may be two is refused.
owners() {
	unshare -Ur true 2>/dev/null || { skip "owners in a user namespace" "no user namespaces here"; return; }
	cp images/base.raw victim.raw
	qemu-img create -q -f qcow2 -b victim.raw -F raw eve.qcow2
	chown 12345 victim.raw && chown 12346 eve.qcow2
	like "owners that cannot be told apart" "$(unshare -Ur "$vdimap" eve.qcow2 2>&1)" '.*same owner.*--backing=any.*'
	claim "--backing=any does not ask for owners" unshare -Ur "$vdimap" --backing=any eve.qcow2
	chown root victim.raw eve.qcow2
	claim "an owner that is known" unshare -Ur "$vdimap" eve.qcow2
}

# Where there is no openat2(2), no /proc, or where few files may be open.
poor_places() {
	local wanted answer
	wanted=$("$vdimap" images/top.qcow2)
	ln -s base.raw images/to-base
	qemu-img create -q -f qcow2 -b to-base -F raw images/linked.qcow2
	for answer in '' --denied; do
		# shellcheck disable=SC2086 # none or one
		set -- "$tools/without" $answer openat2 -- "$vdimap"
		is "without openat2 $answer: a chain" "$("$@" images/top.qcow2 2>&1)" "$wanted"
		like "without openat2 $answer: a link inside is refused, and why" "$("$@" images/linked.qcow2 2>&1)" \
			'vdimap: .*to-base.*openat2.*--backing=any.*'
	done
	claim "with it the link is followed" "$vdimap" images/linked.qcow2
	is "without /proc: a chain" "$(unshare --mount sh -c 'mount -t tmpfs none /proc && exec "$@"' - \
		"$vdimap" images/top.qcow2 2>&1)" "$wanted"
	for answer in $(seq 5 16); do
		(ulimit -n "$answer" && "$vdimap" images/top.qcow2 && echo) 2>&1 | sed 's/.*Too many open files.*/too many/'
	done | uniq >said.all
	is "where few files may be open: that is said, or the map is right" "$(cat said.all)" "too many"$'\n'"$wanted"
}

# A link to the image, and a name that leads back into the mount.
places() {
	ln -sf ../images/top.qcow2 elsewhere/link.qcow2
	mounts_linked
	mkdir -p inside && cp images/* inside/
	mount_image '' inside/top.qcow2 inside || return
	claim "mounted over its own folder$in" cmp inside/top.raw top.raw
	is "only the disk is seen$in" "$(ls inside)" "top.intervals.json"$'\n'"top.raw"
	unmount inside
	claim "and the images are back$in" cmp inside/top.qcow2 images/top.qcow2
}

all() {
	chains
	by_hand
	locks
	places
	volumes
}

make_chain
make_wanted
each_mode all
owners
poor_places
finish
