# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
# Sourced by the style tests, not one itself: goes to the top of the sources and speaks TAP.

[ -z "${VD_BUILDDIR-}" ] || builddir=$(cd "$VD_BUILDDIR" && pwd) || exit 99
cd "${srcdir:-$(dirname "$0")/../..}" || exit 99
: "${builddir:=$PWD/build}"
export LC_ALL=C

count=0

# claim TEXT COMMAND...: true when the command, which prints what offends, prints nothing.
claim() {
	text=$1
	shift
	count=$((count + 1))
	offences=$("$@" 2>&1)
	if [ -z "$offences" ]; then
		echo "ok $count - $text"
	else
		echo "not ok $count - $text"
		printf '%s\n' "$offences" | sed 's/^/# /'
	fi
}

skip() { # skip TEXT REASON
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

plan() {
	echo "1..$count"
}
