#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An ordinary user mounts through fusermount3, sees his mount alone, and is told what he may not do.
# What the machine has at /dev/fuse and /etc/fuse.conf is covered for this test alone, with a
# /dev/fuse that all may use, and each /etc/fuse.conf in turn.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
own_namespace "$0"
start root qemu-img qemu-io python3 setpriv findmnt mknod getfattr jq
[ -u "$(command -v fusermount3)" ] || skip_all "fusermount3 is not setuid root"
id nobody >/dev/null 2>&1 || skip_all "there is no user nobody"
user=$(id -u nobody) group=$(id -g nobody)

mkdir cover && mount -t tmpfs -o mode=755 none cover && mknod -m 666 cover/fuse c 10 229 &&
	mount --bind cover/fuse /dev/fuse || skip_all "nothing can be laid over /dev/fuse"
: >cover/closed && echo user_allow_other >cover/open
[ -e /etc/fuse.conf ] && mount --bind cover/closed /etc/fuse.conf ||
	skip_all "nothing can be laid over /etc/fuse.conf"
mkdir home && chown "$user" home && cd home || exit 99

# A program and not a function, so that others can start it.
mkdir "$work/bin" && PATH=$work/bin:$PATH
printf '#!/bin/sh\nexec setpriv --reuid=%s --regid=%s --clear-groups --inh-caps=-all -- "$@"\n' "$user" "$group" \
	>"$work/bin/as_user" && chmod 755 "$work/bin/as_user"

as_user test -r . -a -x "$work" -a -x "$vdifs" || skip_all "the user nobody cannot reach $work or $vdifs"
as_user mkdir mnt mnt2
as_user touch plain
image disk.qcow2 1m "write -q -P 65 64k 64k"
cp disk.qcow2 'a, b and\c.qcow2'
cp disk.qcow2 secret.qcow2 && chmod 600 secret.qcow2
qemu-img convert -O raw disk.qcow2 wanted
chmod 644 wanted disk.qcow2 a*.qcow2
image_options=backing_file=secret.qcow2,backing_fmt=qcow2
image top.qcow2 1m
image_options=
chmod 644 top.qcow2
cp disk.qcow2 hidden.qcow2
image_options=backing_file=hidden.qcow2,backing_fmt=qcow2
image over.qcow2 1m
image bad.qcow2 1m "write -q -P 66 192k 64k"
image_options=data_file=hidden.raw
image outside.qcow2 1m
image_options=
chmod 644 over.qcow2 outside.qcow2 bad.qcow2
chown "$user:$group" over.qcow2 outside.qcow2 bad.qcow2
"$python" - <<'END' || not_ok "the image is damaged"
import struct
with open('bad.qcow2', 'r+b') as image:        # the cluster at 192 KiB lies past the end of the file
    def number(host):
        image.seek(host)
        return struct.unpack('>Q', image.read(8))[0]
    image.seek((number(number(40)) & 0x00fffffffffffe00) + 8 * 3)
    image.write(struct.pack('>Q', 1 << 63 | 1 << 50))
END

user_mounts() { # user_mounts OPTIONS IMAGE MOUNTPOINT
	local status=0
	as_user timeout -k 5 60 "$vdifs" $mode $1 -- "$2" "$3" 2>"$work/mount.err" </dev/null || status=$?
	[ "$status" -eq 0 ] && [ ! -s "$work/mount.err" ] ||
		not_ok "the user mounts $2$in" "exit status $status: $(cat "$work/mount.err")"
}

leaves() { # leaves MOUNTPOINT: the user himself can unmount it
	claim "the user unmounts $1$in" wait_for 10 as_user fusermount3 -u "$1"
	if mounted "$1"; then not_ok "$1 is gone$in"; else ok "$1 is gone$in"; fi
}

mounts() {
	user_mounts '' disk.qcow2 mnt || return
	claim "in a directory: the user reads$in" as_user cmp mnt/disk.raw wanted
	is "in a directory: he gets the attribute$in" \
		"$(as_user getfattr --only-values -n user.intervals mnt)" "$("$vdimap" disk.qcow2)"
	is "in a directory: he reads the map$in" "$(as_user cat mnt/disk.intervals.json)" "$("$vdimap" disk.qcow2)"
	like "in a directory: ro,nosuid,nodev, and the user's$in" "$(findmnt -rno FSTYPE,OPTIONS mnt)" \
		"fuse\.vdifs ro,nosuid,nodev,.*user_id=$user,group_id=$group,default_permissions.*"
	claim "root does not see it$in" denied cat mnt/disk.raw
	claim "not even its names$in" denied ls mnt
	claim "another user does not see it$in" denied setpriv --reuid=12345 --regid=12345 --clear-groups cat mnt/disk.raw
	leaves mnt

	user_mounts '-o rw,dev,suid' disk.qcow2 plain || return
	claim "as a file: the user reads$in" as_user cmp plain wanted
	is "as a file: SEEK_DATA$in" "$(as_user "$python" -c 'import os
print(os.lseek(os.open("plain", os.O_RDONLY), 0, os.SEEK_DATA))')" 65536
	like "as a file: ro,nosuid,nodev$in" "$(findmnt -rno FSTYPE,VFS-OPTIONS plain)" 'fuse\.vdifs ro,nosuid,nodev(,.*)?'
	claim "as a file: root does not see it$in" denied cat plain
	leaves plain

	user_mounts '' 'a, b and\c.qcow2' mnt || return
	claim "odd names: the user reads$in" as_user cmp 'mnt/a, b and\c.raw' wanted
	is "odd names: the source$in" "$(source_of mnt)" "$PWD/a, b and\\c.qcow2"
	leaves mnt

	claim "with SIGCHLD ignored fusermount3's success is seen$in" \
		as_user timeout -k 5 20 env --ignore-signal=CHLD "$vdifs" $mode disk.qcow2 mnt
	leaves mnt

	user_mounts '' disk.qcow2 mnt && user_mounts '' disk.qcow2 mnt2 || return
	claim "two at once$in" as_user cmp mnt/disk.raw mnt2/disk.raw
	leaves mnt
	leaves mnt2
}

source_of() { # as the kernel has it, between " - TYPE " and the options
	local line
	line=$(grep -F " $PWD/$1 " /proc/self/mountinfo)
	line=${line#* - * }
	printf '%b\n' "${line%% *}"
}

denied() { # denied COMMAND...: it says EACCES
	local said
	said=$("$@" 2>&1) && return 1
	[[ $said == *'Permission denied'* ]] || { echo "$said"; return 1; }
}

foreground() {
	begin as_user "$vdifs" $mode -f disk.qcow2 mnt </dev/null >fg.out 2>&1
	claim "-f: the user reads$in" wait_for 20 as_user cmp mnt/disk.raw wanted
	kill -TERM "$pid"
	end_of "$pid"
	is "-f: SIGTERM ends it with exit status 0$in" "$ended_with" 0
	is "-f: says nothing$in" "$(cat fg.out)" ''
	if mounted mnt; then not_ok "-f: is gone$in"; else ok "-f: is gone$in"; fi
}

# fusermount3 is told where the mount is by now.
moved() {
	local how
	for how in TERM KILL; do
		as_user mkdir -p above/mnt
		user_mounts '' disk.qcow2 above/mnt || return
		as_user mv above below
		[ $how = TERM ] && kill -TERM "$(supervisors)" || kill -KILL "$(servers)"
		claim "SIG$how after a directory above the mountpoint was renamed$in" wait_for 10 no_daemon
		if mounted below/mnt; then not_ok "nothing is mounted then$in"; else ok "nothing is mounted then$in"; fi
		rm -r below
	done
}

refusals() {
	local before
	before=$(mounts_below)
	refuse "an image that he may not read" 'secret\.qcow2.*Permission denied' as_user "$vdifs" secret.qcow2 mnt
	refuse "a backing file that he may not read" 'secret\.qcow2.*Permission denied' as_user "$vdifs" --backing=any top.qcow2 mnt
	refuse "a file as mountpoint that he may not write" '' as_user "$vdifs" disk.qcow2 wanted
	like "says which and what" "$(cat "$work/err")" "vdifs: .*$PWD/wanted.*(ermission denied|no write access).*"
	refuse "the image's own path without write permission" '' as_user "$vdifs" disk.qcow2 disk.qcow2
	like "says which and what, again" "$(cat "$work/err")" "vdifs: .*$PWD/disk\.qcow2.*(ermission denied|no write access).*"
	mkdir foreign
	refuse "a directory as mountpoint that he may not write" '' as_user "$vdifs" disk.qcow2 foreign
	like "says which and what, once more" "$(cat "$work/err")" "vdifs: .*$PWD/foreign.*(ermission denied|no write access).*"
	refuse "allow_other without user_allow_other" 'user_allow_other' as_user "$vdifs" -o allow_other disk.qcow2 mnt
	refuse "allow_root without user_allow_other" 'user_allow_other' as_user "$vdifs" -o allow_root disk.qcow2 mnt
	chmod 600 "$work/cover/fuse"
	refuse "/dev/fuse that he may not use" '/dev/fuse.*Permission denied' as_user "$vdifs" disk.qcow2 mnt
	chmod 666 "$work/cover/fuse"
	refuse "without fusermount3" 'fusermount3 is missing; install' as_user env PATH=/nothing "$vdifs" disk.qcow2 mnt
	# shellcheck disable=SC2016
	refuse "without /dev/fuse" '/dev/fuse: No such file.*modprobe fuse' unshare --mount sh -c \
		'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"' - "$vdifs" disk.qcow2 mnt
	is "all that leaves nothing mounted" "$(mounts_below)" "$before"
}

# An access control list lets the user read the image. The mount has none, but is the user's alone.
listed() {
	command -v setfacl >/dev/null || { skip "an access control list$in" "setfacl is not installed"; return; }
	cp secret.qcow2 listed.qcow2 && chmod 600 listed.qcow2
	setfacl -m "u:$user:r" listed.qcow2 2>/dev/null || { skip "an access control list$in" "the file system has none"; return; }
	chmod g-r listed.qcow2 && setfacl -m "u:$user:r,g::-,m::r" listed.qcow2
	user_mounts --layers listed.qcow2 mnt || return
	claim "an access control list: the user enters the mount$in" as_user ls -l mnt/layers
	claim "and reads the disk$in" as_user cmp mnt/listed.raw wanted
	claim "and the layers$in" as_user cmp mnt/layers/0.raw wanted
	claim "another user does not$in" denied setpriv --reuid=12345 --regid=12345 --clear-groups cat mnt/listed.raw
	leaves mnt
	setfacl -b listed.qcow2 && chmod 40 listed.qcow2 && chown "root:$group" listed.qcow2
	user_mounts '' listed.qcow2 mnt || return
	claim "a right of the group alone$in" as_user cmp mnt/listed.raw wanted
	leaves mnt
}

# With allow_other others see what the image's mode lets them see, and no more.
shared() {
	chmod 640 disk.qcow2 && chown "$user" disk.qcow2
	user_mounts '-o allow_other' disk.qcow2 mnt || return
	claim "allow_other: the user reads$in" as_user cmp mnt/disk.raw wanted
	claim "allow_other: root reads$in" cmp mnt/disk.raw wanted
	claim "allow_other: another user may not read what the image hides from him$in" \
		denied setpriv --reuid=12345 --regid=12345 --clear-groups cat mnt/disk.raw
	leaves mnt
	chmod 644 disk.qcow2
	user_mounts '-o allow_root' disk.qcow2 mnt || return
	claim "allow_root: the user reads$in" as_user cmp mnt/disk.raw wanted
	claim "allow_root: root reads$in" cmp mnt/disk.raw wanted
	claim "allow_root: another user does not$in" \
		denied setpriv --reuid=12345 --regid=12345 --clear-groups cat mnt/disk.raw
	leaves mnt
	user_mounts '-o allow_other' disk.qcow2 mnt || return
	claim "allow_other: another user reads what the image shows him$in" \
		setpriv --reuid=12345 --regid=12345 --clear-groups cmp mnt/disk.raw wanted
	leaves mnt
}

# Who mounted, and root, are told where the files are and what became of a read; others are told the rest.
informed() {
	local who wanted facts='[."virtual-size", .format, .vdifs.schema, (.vdifs.chain | length)]'
	chown "$user" hidden.qcow2 && chmod 644 hidden.qcow2
	user_mounts '-o allow_other' bad.qcow2 mnt || return
	claim "the damaged cluster cannot be read$in" bash -c '! as_user cat mnt/bad.raw >/dev/null 2>&1'
	for who in as_user ''; do
		$who getfattr --only-values -n user.vdifs.info mnt >info
		is "${who:-root}: the names of the files$in" "$(jq -c '[.filename, .vdifs.chain[].filename]' info)" \
			"[\"$PWD/bad.qcow2\",\"$PWD/bad.qcow2\",\"$PWD/hidden.qcow2\"]"
		like "${who:-root}: why a read failed$in" "$(jq -r '.vdifs.messages[].text' info)" ".*bad\.qcow2: .*"
		wanted=$(jq -c "$facts" info)
	done
	setpriv --reuid=12345 --regid=12345 --clear-groups getfattr --only-values -n user.vdifs.info mnt >info
	is "another user: the facts of the disk$in" "$(jq -c "$facts" info)" "$wanted"
	if grep -e "$PWD" -e '\.qcow2' -e hidden info; then not_ok "another user: no name$in"; else ok "another user: no name$in"; fi
	is "another user: no message$in" "$(jq .vdifs.messages info)" null
	leaves mnt
}

# What is shown is made of several files: all of them must be readable for whoever reads it. HOW: one
# of the mode and group of the file below, what the mode of the disk is then, and who may read it.
below() {
	local mode_of group_of wanted readers what
	while read -r mode_of group_of wanted readers what; do
		chown "$user:$group_of" hidden.qcow2 hidden.raw && chmod "$mode_of" hidden.qcow2 hidden.raw
		for image in over outside; do
			user_mounts '-o allow_other --layers' $image.qcow2 mnt || return
			is "$image, $what: the mode$in" "$(as_user stat -c %a mnt/$image.raw)" "$wanted"
			is "$image, $what: who reads$in" "$(who_reads mnt/$image.raw)" "$readers"
			[ $image = outside ] || is "the layer below, $what: who reads$in" "$(who_reads mnt/layers/1.raw)" "$readers"
			leaves mnt
		done
	done <<END
600 $group 600 user the file below is its owner's
640 $group 640 usergroup it is the group's
640 12345 600 user it is another group's
644 12345 644 usergroupother it is everybody's
604 $group 604 userother it is everybody's but the group's
604 12345 600 user it is everybody's but another group's
END
	chown "root:$group" hidden.qcow2 hidden.raw && chmod 640 hidden.qcow2 hidden.raw && chown root over.qcow2
	user_mounts '' over.qcow2 mnt || return
	is "who mounts for himself alone reads what he may read as one of the group$in" "$(who_reads mnt/over.raw)" user
	leaves mnt
	chown "$user" over.qcow2
}

who_reads() {
	as_user head -c 1 "$1" >/dev/null 2>&1 && printf user
	setpriv --reuid=23456 --regid="$group" --clear-groups head -c 1 "$1" >/dev/null 2>&1 && printf group
	setpriv --reuid=23456 --regid=12345 --clear-groups head -c 1 "$1" >/dev/null 2>&1 && printf other
}

refusals
each_mode mounts
each_mode foreground
each_mode moved
listed
mount --bind "$work/cover/open" /etc/fuse.conf
each_mode shared
each_mode informed
each_mode below
cd "$work" || exit 99
umount /etc/fuse.conf /etc/fuse.conf /dev/fuse cover
finish
