#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Install what is missing, build vdifs, and measure it against the other programs that show disk
# images: bench/bench.py with the arguments of this script. The results go to bench/RESULTS.md.
set -eu

top=$(cd "$(dirname "$0")" && pwd)
. "$top/scripts/deps.sh"

# On Debian; elsewhere the programs that cannot be had are shown as not installed.
bench_needs='
cmd:python3 python3 python3
cmd:cmp diffutils diffutils
cmd:tar tar tar
cmd:qemu-img qemu-utils qemu-img
cmd:qemu-nbd qemu-utils qemu-img
'
peer_needs='
cmd:qemu-storage-daemon qemu-system-common qemu-img
cmd:nbdfuse libnbd-bin nbdfuse
cmd:qcowmount libqcow-utils libqcow-tools
cmd:vhdimount libvhdi-utils libvhdi-tools
'

usage() {
	cat <<-END
	usage: ./bench.sh             all benchmarks, about an hour; 7 GiB of disk, 8 GiB of memory
	       ./bench.sh --quick     small images and few rounds, a few minutes; prints only
	       ./bench.sh --help      all options
	END
}

case ${1-} in
-h | --help)
	usage
	echo
	command -v python3 >/dev/null && exec python3 "$top/bench/bench.py" --help
	exit 0
	;;
esac

require "$build_needs" "$bench_needs"
require "$peer_needs" || echo "Going on without them."

# A build for tests is left alone: its figures would mean nothing.
dir=build
case $("$top/$dir/config.status" --config 2>/dev/null || :) in
*sanitizers* | *CFLAGS*) dir=build-bench ;;
esac
echo "Building in $top/$dir"
build "$dir"
can_mount || exit 1
VD_BUILDDIR=$top/$dir PYTHONDONTWRITEBYTECODE=1 exec python3 "$top/bench/bench.py" "$@"
