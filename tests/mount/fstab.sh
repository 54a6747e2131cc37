#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount(8) and lines of /etc/fstab, through mount.fuse3, which finds vdifs in the standard PATH:
# mount(8) hands on no environment. So vdifs is laid over /usr/local/sbin, seen by this test alone.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
own_namespace "$0"
start root qemu-img qemu-io python3 mount umount findmnt mount.fuse
mkdir mnt 'a place' far 'far,away'
touch plain
mount -t tmpfs -o mode=755 none /usr/local/sbin || skip_all "nothing can be laid over /usr/local/sbin"
cat >/usr/local/sbin/vdifs <<END
#!/bin/sh
export VD_TEST='$VD_TEST' ASAN_OPTIONS='$ASAN_OPTIONS' UBSAN_OPTIONS='$UBSAN_OPTIONS'
exec '$vdifs' "\$@"
END
chmod 755 /usr/local/sbin/vdifs

image disk.qcow2 1m "write -q -P 65 64k 64k"
image base.qcow2 1m "write -q -P 66 64k 64k"
mv base.qcow2 far/base.qcow2
image_options=backing_file=far/base.qcow2,backing_fmt=qcow2
image top.qcow2 1m "write -q -P 67 512k 64k"
image_options=
cp far/base.qcow2 'far,away/b,a s.qcow2'
mkdir other && mv top.qcow2 other/ && "$python" - <<'END'
# Let the image name a file outside of its folder, which only --backing=any allows.
with open('other/top.qcow2', 'r+b') as image:
    data = image.read()
    place = data.index(b'far/base.qcow2')
    image.seek(8)
    image.write(place.to_bytes(8, 'big') + (17).to_bytes(4, 'big'))
    image.seek(place)
    image.write(b'../far/base.qcow2')
END
qemu-img convert -O raw disk.qcow2 disk.raw
qemu-img convert -O raw other/top.qcow2 top.raw

# shows WHAT MOUNTPOINT FILE RAW: it is our mount, read-only, and has the right bytes; then it goes
shows() {
	like "$1: is our mount, ro,nosuid,nodev" "$(findmnt -rno FSTYPE,VFS-OPTIONS "$2")" \
		'fuse\.vdifs ro,nosuid,nodev(,.*)?'
	claim "$1: shows the disk" cmp "$3" "$4"
	claim "$1: umount" wait_for 10 umount "$2"
	if mounted "$2"; then not_ok "$1: is gone"; else ok "$1: is gone"; fi
}

by_hand() {
	claim "mount -t fuse.vdifs" mount -t fuse.vdifs disk.qcow2 mnt
	shows "mount -t fuse.vdifs" mnt mnt/disk.raw disk.raw
	claim "mount -t fuse.vdifs over a file" mount -t fuse.vdifs disk.qcow2 plain
	shows "over a file" plain plain disk.raw
	claim "mount -t fuse.vdifs with rw" mount -t fuse.vdifs -o rw,dev,suid,exec disk.qcow2 mnt
	shows "with rw" mnt mnt/disk.raw disk.raw
	claim "mount -t fuse.vdifs with words about times" \
		mount -t fuse.vdifs -o ro,relatime,lazytime,nodiratime disk.qcow2 mnt &&
		shows "with words about times" mnt mnt/disk.raw disk.raw
	claim "mount -t fuse.vdifs with what mount(8) knows" \
		mount -t fuse.vdifs -o defaults,noauto,nofail,_netdev,users,noatime,x-systemd.automount,comment=x disk.qcow2 mnt
	shows "with what mount(8) knows" mnt mnt/disk.raw disk.raw
	claim "mount -t fuse with vdifs#" mount -t fuse "vdifs#$work/disk.qcow2" mnt
	shows "with vdifs#" mnt mnt/disk.raw disk.raw
	claim "mount -t fuse.vdifs with long options" \
		mount -t fuse.vdifs -o ro,direct,map-memory=1M,force-share,format=qcow2,allow_other disk.qcow2 mnt
	like "allow_other is on" "$(findmnt -rno FS-OPTIONS mnt)" '(.*,)?allow_other(,.*)?'
	shows "with long options" mnt mnt/disk.raw disk.raw
}

backing() {
	local said
	if said=$(mount -t fuse.vdifs -o ro other/top.qcow2 mnt 2>&1); then
		not_ok "without backing=any the chain is refused" "$said"
	else
		like "without backing=any the chain is refused, and why" "$said" 'vdifs: .*backing=any.*'
	fi
	is "and nothing is mounted" "$(mounts_below)" ''
	claim "-o ro,backing=any" mount -t fuse.vdifs other/top.qcow2 mnt -o ro,backing=any
	shows "-o ro,backing=any" mnt mnt/top.raw top.raw
	claim "a value with a comma, in quotes" mount -t fuse.vdifs other/top.qcow2 mnt \
		-o "ro,backing-file=\"$work/far,away/b,a s.qcow2\",backing-format=qcow2,nodev"
	shows "a value with a comma, in quotes" mnt mnt/top.raw top.raw
	claim "a value with a comma, with a backslash, without mount(8)" "$vdifs" other/top.qcow2 mnt \
		-o "ro,backing-file=$work/far\\,away/b\\,a s.qcow2,nodev"
	shows "a value with a comma, with a backslash" mnt mnt/top.raw top.raw
}

names() {
	cp disk.qcow2 'a, b.qcow2'
	claim "an image with a comma and a blank" mount -t fuse.vdifs 'a, b.qcow2' 'a place'
	is "mount(8) shows its name" "$(findmnt -no SOURCE 'a place')" "$work/a, b.qcow2"
	shows "an image with a comma and a blank" 'a place' 'a place/a, b.raw' disk.raw
}

lines() {
	local said
	cat >fstab <<-END
		$work/disk.qcow2        $work/mnt       fuse.vdifs ro,nofail,backing=none 0 0
		$work/disk.qcow2        $work/plain     fuse.vdifs ro,noauto,direct,allow_other 0 0
		$work/other/top.qcow2   $work/a\\040place fuse.vdifs ro,backing-file="$work/far,away/b,a\\040s.qcow2" 0 0
		$work/other/none.qcow2  $work/far       fuse.vdifs ro 0 0
	END
	claim "an fstab line" mount -T fstab mnt
	shows "an fstab line" mnt mnt/disk.raw disk.raw
	claim "an fstab line for a file" mount -T fstab "$work/plain"
	shows "an fstab line for a file" plain plain disk.raw
	claim "an fstab line with a blank and a quoted comma" mount -T fstab "$work/a place"
	shows "an fstab line with a blank and a quoted comma" 'a place' 'a place/top.raw' top.raw
	if said=$(mount -T fstab "$work/far" 2>&1); then
		not_ok "an fstab line without an image fails" "$said"
	else
		like "an fstab line without an image fails, and why" "$said" 'vdifs: .*none\.qcow2.*No such file.*'
	fi
	claim "mount -a mounts what is not noauto" eval 'mount -a -T fstab 2>/dev/null; mounted mnt && mounted "a place" && ! mounted plain'
	unmount 'a place'
	unmount mnt
	is "the folders are as before" "$(ls -A mnt 'a place')" "a place:"$'\n\n'"mnt:"
}

# What other programs write into the line, and lines that are mounted already.
words() {
	local line
	claim "words of mount(8), systemd and udisks" mount -t fuse.vdifs \
		-o ro,nosymfollow,user=joe,uhelper=udisks2,x-systemd.requires=x.service,X-mount.mkdir,x-gvfs-show,comment=a.b disk.qcow2 mnt
	shows "words of mount(8), systemd and udisks" mnt mnt/disk.raw disk.raw
	ln -s disk.qcow2 link.qcow2
	for line in "$work/disk.qcow2 $work/mnt fuse.vdifs ro 0 0" "$work/link.qcow2 $work/mnt fuse.vdifs ro,nofail 0 0" \
		"$work/disk.qcow2 $work/mnt fuse.vdifs ro,fsname=odd 0 0" "vdifs#$work/disk.qcow2 $work/mnt fuse ro 0 0"; do
		echo "$line" >fstab
		claim "mount -a of '$line'" mount -a -T fstab
		mount -a -T fstab 2>/dev/null # mount(8) may see it, or we say it
		is "the second time nothing is stacked" "$(mounts_below | wc -l)" 1
		unmount mnt
	done
	echo "$work/disk.qcow2 $work/mnt fuse.vdifs ro,fsname=odd 0 0" >fstab
	mount -a -T fstab
	like "and what is in the way is said" "$(mount -T fstab mnt 2>&1)" 'vdifs: .*/mnt: odd is already mounted here; to unmount it: vdifs --unmount .*/mnt'
	claim "remount: there is nothing to do" mount -t fuse.vdifs -o remount,ro,fsname=odd disk.qcow2 mnt
	is "and it stays as it is" "$(mounts_below | wc -l)" 1
	refuse "without the name of the mount nothing is stacked either" 'odd is already mounted here' "$vdifs" disk.qcow2 mnt
	refuse "nor is another image" 'odd is already mounted here' "$vdifs" other/top.qcow2 mnt
	unmount mnt
}

dropped_privileges() {
	local said
	if said=$(mount -t fuse.vdifs -o ro,drop_privileges disk.qcow2 mnt 2>&1); then
		not_ok "drop_privileges is refused" "$said"
	else
		like "drop_privileges is refused, and named" "$said" 'vdifs: .*drop_privileges.*'
	fi
	unmount mnt # mount.fuse3 mounts by itself before it starts us, and leaves that behind
}

servers() {
	local server address="nbd+unix:///a,b.qcow2?socket=$work/far,away/s"
	if ! command -v nbdkit >/dev/null || "$vdimap" "$address" 2>&1 | grep -q 'without libnbd'; then
		skip "an image on a server" "without nbdkit, or without libnbd"
		return
	fi
	begin nbdkit -f -r -U "$work/far,away/s" file far/base.qcow2 >server.out 2>&1
	server=$pid
	qemu-img convert -O raw far/base.qcow2 base.raw
	wait_for 20 test -S far,away/s
	claim "mount -t fuse.vdifs with an address" mount -t fuse.vdifs "$address" mnt -o ro
	is "findmnt shows the address" "$(findmnt -no SOURCE mnt)" "$address"
	shows "with an address" mnt "mnt/a,b.raw" base.raw
	echo "$address $work/mnt fuse.vdifs ro,_netdev,nbd-timeout=20 0 0" >fstab
	claim "an fstab line with an address" mount -T fstab mnt
	shows "an fstab line with an address" mnt "mnt/a,b.raw" base.raw
	claim "an address with a comma in an option" mount -t fuse.vdifs other/top.qcow2 mnt \
		-o "ro,backing-file=\"$address\",backing-format=qcow2,nodev"
	shows "an address with a comma in an option" mnt mnt/top.raw top.raw
	kill "$server"
	wait "$server"
}

by_hand
backing
names
lines
words
servers
dropped_privileges
finish
