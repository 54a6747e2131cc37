#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build with another compiler, every warning an error, in build-NAME, and run what can be run:
#
#	scripts/compile-with.sh clang    clang; the unit tests
#	scripts/compile-with.sh lto      gcc -O3 -flto; some unit tests, some random images
#	scripts/compile-with.sh m32      gcc -m32; the unit tests, if the libraries are there for 32 bits
#	scripts/compile-with.sh musl     musl's headers; compiled only: a distribution's libraries are glibc's
set -u

top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=deps.sh
. "$top/scripts/deps.sh"
cd "$top" || exit
export VD_SHORT=1 # the usual build has the tests in their usual length

configure() { # configure ARGUMENT...: once, in build-NAME
	[ -x configure ] || ./autogen.sh || return
	mkdir -p "$folder" && cd "$folder" || return
	[ -f Makefile ] || ../configure --enable-werror "$@"
}

run() { # run TESTS [PROGRAMS]: tests, and the programs to be made for them if these are not the tests
	make -j2 -k check TESTS="$1" check_PROGRAMS="${2-$1}" || {
		cat test-suite.log
		return 1
	}
}

unit_tests() { make -s --no-print-directory list-unit-tests; }

# The libraries for the target of the compiler, and a kernel that runs what it makes: without them -m32 is compiled only.
has_libraries() { # has_libraries COMPILER...
	# shellcheck disable=SC2046 # flags are words
	echo 'int main(void) { return 0; }' | "$@" -x c - -o probe \
		$(pkg-config --libs fuse3 jansson libdeflate libzstd libseccomp cmocka) -lgcc_s && ./probe
}

with_m32() {
	# With --host, since a kernel for 64 bits only does not run what configure makes.
	configure --host=i686-linux-gnu CC="gcc -m32" CFLAGS=-O2 || return
	make -j2 objects || return
	has_libraries gcc -m32 || {
		echo "compiled only: the libraries of 32 bits are missing, or this kernel does not run them"
		return 0
	}
	run "$(unit_tests)"
}

# musl-gcc looks at musl's headers alone. Those of the kernel and of the libraries come behind them.
with_musl() {
	behind="-idirafter /usr/include -idirafter /usr/include/$(gcc -print-multiarch)"
	configure CC=musl-gcc CFLAGS="-O2 $behind" && make -j2 objects
}

with_clang() {
	configure CC=clang CFLAGS=-O1 && make -j2 && run "$(unit_tests)"
}

# gcc warns of results as uninitialised that its inlining across files no longer ties to the checked
# return value; the other builds keep this warning.
with_lto() {
	configure CFLAGS="-O3 -flto=2 -Wno-maybe-uninitialized" AR=gcc-ar RANLIB=gcc-ranlib NM=gcc-nm && make -j2 vdifs vdimap &&
		VD_ORACLE=40 run "test_disk test_format test_codec tests/oracle.py" "test_disk test_format test_codec vdcat"
}

name=${1-}
folder=build-$name
case $name in
clang | lto | m32 | musl) "with_$name" ;;
*)
	sed -n 's/^#\t//p' "$0" >&2
	exit 2
	;;
esac
