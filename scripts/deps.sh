# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh disable=SC2034,SC2154
# Sourced by try.sh and check.sh: what they need, how it is installed, and the build. The caller
# sets top, the absolute path of the source tree.

PATH=$PATH:/usr/sbin:/sbin

# One need a line: how to see that it is there, its Debian package, its Fedora package.
# cmd: a program; pc: a pkg-config module; file: a file; cclib: a library of the compiler;
# fuzzer: clang's libFuzzer; m32: a compiler that also makes programs of 32 bits.
build_needs='
cmd:gcc gcc gcc
file:/usr/include/stdio.h libc6-dev glibc-devel
cmd:make make make
cmd:autoconf autoconf autoconf
cmd:automake automake automake
cmd:libtoolize libtool libtool
cmd:pkg-config pkg-config pkgconf-pkg-config
cmd:fusermount3 fuse3 fuse3
pc:fuse3 libfuse3-dev fuse3-devel
pc:jansson libjansson-dev jansson-devel
pc:libdeflate libdeflate-dev libdeflate-devel
pc:libzstd libzstd-dev libzstd-devel
pc:libseccomp libseccomp-dev libseccomp-devel
pc:libnbd libnbd-dev libnbd-devel
'
demo_needs='
cmd:qemu-img qemu-utils qemu-img
cmd:getfattr attr attr
'
test_needs='
cmd:setfattr attr attr
cmd:setfacl acl acl
cmd:qemu-io qemu-utils qemu-img
cmd:qemu-nbd qemu-utils qemu-img
cmd:nbdkit nbdkit nbdkit
pc:libsystemd libsystemd-dev systemd-devel
pc:cmocka libcmocka-dev libcmocka-devel
cmd:python3 python3 python3
cmd:rsync rsync rsync
cmd:jq jq jq
cmd:xz xz-utils xz
cmd:zstd zstd zstd
cmd:mandoc mandoc mandoc
cmd:mkfs.ext4 e2fsprogs e2fsprogs
cmd:bindfs bindfs bindfs
cmd:mkfs.vfat dosfstools dosfstools
cmd:mkfs.xfs xfsprogs xfsprogs
cmd:ddrescue gddrescue ddrescue
cmd:mcopy mtools mtools
cmd:sfdisk fdisk util-linux
cmd:setpriv util-linux util-linux
cmd:losetup mount util-linux
cmd:zsh zsh zsh
cmd:tar tar tar
'
# What scripts/check-on.sh needs to test on another Debian.
other_system_needs='
cmd:debootstrap debootstrap debootstrap
cmd:rsync rsync rsync
cmd:unshare util-linux util-linux
'
# What only the whole set of tests needs, and check.sh with CI=true.
fuzz_needs='
cclib:libasan.so gcc libasan
cclib:libubsan.so gcc libubsan
cmd:clang clang clang
fuzzer:clang libclang-rt-dev compiler-rt
'
package_needs='
cmd:dh debhelper debhelper
cmd:dpkg-buildpackage dpkg-dev dpkg-dev
cmd:lintian lintian lintian
'
compiler_needs='
cmd:musl-gcc musl-tools musl-gcc
m32:gcc gcc-multilib glibc-devel.i686
'

have() {
	case $1 in
	cmd:*) command -v "${1#cmd:}" ;;
	pc:*) pkg-config --exists "${1#pc:}" ;;
	file:*) test -e "${1#file:}" ;;
	cclib:*) gcc -print-file-name="${1#cclib:}" | grep / ;;
	m32:*) echo 'int main(void) { return 0; }' | gcc -m32 -x c - -o /dev/null ;;
	fuzzer:*) clang -print-file-name="libclang_rt.fuzzer-$(uname -m).a" | grep / ;;
	esac >/dev/null 2>&1
}

# require NEEDS...: install what is missing, or say what is missing and fail.
require() {
	deb='' rpm=''
	while read -r test deb_name rpm_name; do
		[ -z "$test" ] || have "$test" || {
			deb="$deb $deb_name" rpm="$rpm $rpm_name"
		}
	done <<-END
	$*
	END
	[ -n "$deb" ] || return 0
	deb=$(once "$deb") rpm=$(once "$rpm")
	if ! command -v apt-get >/dev/null; then
		echo "Please install what is missing, then run this again:"
		echo "  Debian, Ubuntu:  apt-get install $deb"
		echo "  Fedora:          dnf install $rpm"
		return 1
	fi
	echo "Installing: $deb"
	as_root apt-get update || echo "apt-get update failed; trying with the lists that are here"
	# shellcheck disable=SC2086 # a list of words
	as_root apt-get install -y --no-install-recommends $deb
}

once() { # the words of $1, each once, on one line
	# shellcheck disable=SC2086 # that is the point
	printf '%s\n' $1 | sort -u | paste -s -d ' ' -
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		quietly env DEBIAN_FRONTEND=noninteractive "$@"
	elif command -v sudo >/dev/null; then
		quietly sudo DEBIAN_FRONTEND=noninteractive "$@"
	else
		echo "Not root, and there is no sudo. As root, please run: $*"
		return 1
	fi
}

# Run a command without its output; show the end of that if it fails.
quietly() {
	log=$(mktemp) || return
	"$@" >"$log" 2>&1 </dev/null && {
		rm -f "$log"
		return 0
	}
	tail -n 60 "$log"
	echo "Failed: $*"
	rm -f "$log"
	return 1
}

# can_mount: or say what is missing.
can_mount() {
	if [ ! -c /dev/fuse ]; then
		echo "There is no /dev/fuse here. Load the fuse module (modprobe fuse) or, in a container," \
			"pass the device in."
	elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
		echo "You may not open /dev/fuse (its mode is $(stat -c %a /dev/fuse), its owner" \
			"$(stat -c %U /dev/fuse)). As root: chmod 666 /dev/fuse, or run this as root."
	else
		return 0
	fi >&2
	return 1
}

# build DIR [CONFIGURE ARGUMENT...]: make the programs in $top/DIR. A folder that was configured
# with other arguments is cleaned first, unless none are given: then any build will do.
build() (
	dir=$1
	shift
	cd "$top" || exit
	[ -x configure ] || quietly ./autogen.sh || exit
	mkdir -p "$dir" && cd "$dir" || exit
	if [ -x config.status ] && [ $# -gt 0 ] &&
	   [ "$(./config.status --config | tr -d "'")" != "$*" ]; then
		quietly make clean || exit
		rm -f config.status
	fi
	# libtool and configure are three times as fast in dash, where that is /bin/sh, as in bash.
	[ -x config.status ] && [ -f Makefile ] ||
		quietly env CONFIG_SHELL=/bin/sh /bin/sh ../configure "$@" || exit
	quietly make -j2
)
