#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Run check.sh on another Debian: other versions of the C library, libfuse, QEMU and the compiler.
# A minimal system of that suite is made with debootstrap, from the mirror that apt uses here, and
# kept in a folder as a cache. The run has namespaces of its own for mounts and processes and enters
# the system with pivot_root: below a chroot the kernel makes no user namespaces. All that it mounts
# or starts ends with it.
# shellcheck source-path=SCRIPTDIR source=deps.sh disable=SC2016,SC2031
set -u
exec </dev/null

top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/scripts/deps.sh"

usage() {
	cat <<-END
	usage: scripts/check-on.sh SUITE [short|whole|prepare]

	short, whole and prepare are for check.sh.

	SUITE is the name of a Debian suite: bookworm, trixie, sid. Its system is made in
	\$VD_SYSTEMS/SUITE (default: /var/cache/vdifs-check/SUITE) if it is not there yet, which needs
	root, debootstrap and about 1 GiB. To remove it: rm -rf --one-file-system FOLDER.
	The exit status is that of check.sh; 99 if the system cannot be made.
	END
}

fail() {
	echo "check-on.sh: $*" >&2
	exit 99
}

mirror() { # the first mirror of Debian's main archive that apt uses
	apt-get indextargets --format '$(ORIGIN) $(LABEL) $(SITE)' 'Created-By: Packages' |
		sed -n 's/^Debian Debian //p' | head -n 1
}

# debootstrap knows the suites that existed when it was made; the script for sid fits newer ones.
# Its keys may be older than the suite, too. What is made here runs this project's tests, no more.
make_system() {
	site=$(mirror)
	[ -n "$site" ] || fail "apt knows no mirror of Debian"
	scripts=/usr/share/debootstrap/scripts
	script=$scripts/$suite
	[ -e "$script" ] || script=$scripts/sid
	check=--no-check-gpg
	[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ] || check=--force-check-gpg
	echo "Making a system of $suite in $dir"
	rm -rf --one-file-system "$dir.new"
	mkdir -p "$dir.new" || exit 99
	quietly debootstrap "$check" --variant=minbase --include=rsync \
		"$suite" "$dir.new" "$site" "$script" || fail "no system of $suite"
	configure_apt || exit 99
	# It is whole: an interrupted one is made again.
	rm -rf --one-file-system "$dir" && mv "$dir.new" "$dir" || exit 99
}

configure_apt() {
	{
		echo 'APT::Install-Recommends "false";'
		echo 'Acquire::Check-Valid-Until "false";' # a mirror may be a snapshot
		apt-config dump | sed -n '/^Acquire::.*proxy/Ip' # if any
	} >"$dir.new/etc/apt/apt.conf.d/90check-on" &&
		echo force-unsafe-io >"$dir.new/etc/dpkg/dpkg.cfg.d/90check-on" # a cache may be lost
}

# The sources as they lie here, without what was built from them. What was built in the cache stays; so a
# file that has changed gets the time of now, since its own may be older than what was built.
copy_sources() {
	rm -rf --one-file-system "$dir/tmp" && mkdir -m 1777 "$dir/tmp" && mkdir -p "$dir/src" &&
		rsync -a --no-times --checksum --delete --exclude=/.git --filter=':- .gitignore' "$top/" "$dir/src/" &&
		cp /etc/resolv.conf /etc/hosts "$dir/etc/" &&
		ln -sf ../proc/self/mounts "$dir/etc/mtab" # for fusermount3 of a user; no package brings it
}

inside='
	set -e
	dir=$1
	shift
	mount --bind "$dir" "$dir"
	cd "$dir"
	mount -t proc proc proc
	mount --rbind /sys sys
	mount --rbind /dev dev
	mount -t tmpfs -o mode=755 tmpfs run
	mkdir -p run/lock run/old
	pivot_root . run/old
	cd /
	umount -l /run/old
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		TERM="${TERM-dumb}" http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" \
		LANG=C.UTF-8 /src/check.sh "$@"
'

case ${1--h} in
-h | --help) usage; exit 0 ;;
*[!a-z]*) usage >&2; exit 2 ;;
esac
suite=$1
shift
dir=${VD_SYSTEMS:-/var/cache/vdifs-check}/$suite
[ "$(id -u)" = 0 ] || fail "only root can make a system of $suite and mount in it"
require "$other_system_needs" || exit 99

mkdir -p "$(dirname "$dir")" || exit 99
exec 9>"$dir.lock"
flock -n 9 || fail "$dir is in use"
[ -e "$dir/etc/debian_version" ] || make_system
copy_sources || fail "the sources cannot be copied to $dir/src"

# A signal ends the shell inside, which is the first process there, and so all others. It is begun
# in the background, because a shell hears signals only while it waits.
trap 'kill -TERM "$run"' INT TERM HUP
unshare --mount --pid --fork --kill-child=TERM --propagation private \
	sh -c "$inside" check-on "$dir" "$@" 9>&- &
run=$!
while :; do
	wait "$run"
	status=$?
	kill -0 "$run" 2>/dev/null || break
done
exit "$status"
