#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages are clean, and name exactly the options that --help names.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

# What mandoc says about a page, but for what depends on the manuals that are installed here.
lint() {
	mandoc -T lint -W style "man/$1.1" 2>&1 |
		grep -v -e 'outdated mandoc.db' -e 'referenced manual not found'
}

documented() { # the long options in the option lists of a page
	sed -n 's/^\.It Fl/ Fl/p' "man/$1.1" | grep -oE ' Fl -[a-z0-9-]+' | sed 's/^ Fl -/--/' | sort -u
}

printed() {
	"$builddir/$1" --help | grep -oE -- '--[a-z][a-z0-9-]+' | sort -u
}

differences() {
	documented "$1" >"$scratch/man"
	printed "$1" >"$scratch/help"
	[ -s "$scratch/help" ] || echo "$1 --help names no options"
	comm -23 "$scratch/man" "$scratch/help" | sed 's/$/: in the man page only/'
	comm -13 "$scratch/man" "$scratch/help" | sed 's/$/: in --help only/'
}

scratch=$(mktemp -d) || exit 99
trap 'rm -rf "$scratch"' EXIT

for program in vdifs vdimap; do
	if command -v mandoc >/dev/null; then
		claim "man/$program.1 is clean mdoc" lint "$program"
	else
		skip "man/$program.1 is clean mdoc" "no mandoc"
	fi
	if [ -x "$builddir/$program" ]; then
		claim "man/$program.1 and $program --help name the same options" differences "$program"
	else
		skip "man/$program.1 and $program --help name the same options" "$program is not built"
	fi
done
plan
