#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree holds text that is finished, under a licence that is named.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

# What git tracks; from a tarball, what is not built.
if git -c safe.directory="$PWD" ls-files --error-unmatch configure.ac >/dev/null 2>&1; then
	files=$(git -c safe.directory="$PWD" ls-files)
else
	files=$(find src tests man m4/vd_*.m4 scripts README HACKING NEWS ./*.sh configure.ac Makefile.am \
		-type f ! -name '*.pyc')
fi

# Text is UTF-8 without zeros.
binaries() {
	echo "$files" | tr '\n' '\0' | LC_ALL=C.UTF-8 xargs -0 grep -lsaxv '.*' --
	echo "$files" | tr '\n' '\0' | LC_ALL=C.UTF-8 xargs -0 grep -lsaP '\x00' --
}

unfinished() {
	words='TO''DO|FIX''ME|X''XX'
	echo "$files" | grep -E '^(src|tests|man|m4|scripts)/|^[A-Z]+$|\.(sh|ac|am)$' |
		tr '\n' '\0' | xargs -0 grep -nwE "$words" --
}

unlicensed() {
	echo "$files" | grep -E '\.([ch]|sh|py|m4|ac|am)$' | tr '\n' '\0' |
		xargs -0 grep -L 'SPDX-License-Identifier: LGPL-2.1-or-later' --
}

trailing_blanks() {
	echo "$files" | grep -E '\.([ch]|sh|py|m4|ac|am|1)$' | tr '\n' '\0' |
		xargs -0 grep -nE '[[:blank:]]+$' --
}

# Automake takes configure.ac and what it includes by itself; folders go in whole.
undistributed() {
	listed=$(cat Makefile.am)
	for file in $files; do
		case $file in
		Makefile.am | configure.ac | m4/* | scripts/* | tests/lib/* | tests/images/* | tests/fuzz/findings/*) ;;
		*) echo "${file#./}" ;;
		esac
	done | while read -r file; do
		case $listed in *"$file"*) ;; *) echo "$file: not in Makefile.am" ;; esac
	done
}

claim "no file is binary" binaries
claim "no word says that something is unfinished" unfinished
claim "every source names the licence" unlicensed
claim "every file is in the tarball" undistributed
claim "no line ends in blanks" trailing_blanks
plan
