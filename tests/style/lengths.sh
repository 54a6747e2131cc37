#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Functions end at 80 lines, main at 60, files at 700.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

sources=$(find src tests -name '*.[ch]' | sort)
[ -n "$sources" ] || { echo "Bail out! no sources in $PWD/src"; exit 99; }

long_files() {
	# shellcheck disable=SC2086 # a list of file names
	wc -l $sources | awk '$2 != "total" && $1 > 700 { print $2 ": " $1 " lines" }'
}

# long_functions LIMIT [NAME]: those over LIMIT lines, counted from the signature to the brace
long_functions() {
	# shellcheck disable=SC2086 # a list of file names
	awk -v limit="$1" -v only="${2-}" '
	FNR == 1 { start = 0 }
	/^[A-Za-z_].*\(/ && !inside {
		start = FNR
		name = $0
		sub(/\(.*/, "", name)
		sub(/.*[ *]/, "", name)
	}
	/^{/ { inside = start > 0 }
	/^}/ {
		if (inside && FNR - start + 1 > limit && (only == "" || name == only))
			print FILENAME ": " name ": " FNR - start + 1 " lines"
		inside = 0
		start = 0
	}' $sources
}

claim "no file has more than 700 lines" long_files
claim "no function has more than 80 lines" long_functions 80
claim "no main has more than 60 lines" long_functions 60 main
plan
