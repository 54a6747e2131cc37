#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A folder of src is a floor: a file includes its own floor and those below, never one above; and
# each library is known in one place.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

sources=$(find src -name '*.[ch]' | sort)
[ -n "$sources" ] || { echo "Bail out! no sources in $PWD/src"; exit 99; }

# shellcheck disable=SC2086 # a list of file names
climbing() {
	awk '
	BEGIN {
		split("base source support format disk map sandbox vdifs vdimap", name)
		split("0 1 2 3 4 5 6 7 7", level)
		for (i in name)
			floor[name[i]] = level[i]
	}
	FNR == 1 {
		split(FILENAME, path, "/")
		own = path[2]
		if (!(own in floor))
			print FILENAME ": the folder " own " is no floor"
	}
	/^[ \t]*#[ \t]*include[ \t]*"/ {
		split($0, quoted, "\"")
		if (quoted[2] == "config.h")
			next
		split(quoted[2], path, "/")
		to = path[1]
		if (!(to in floor) || floor[to] > floor[own] || (floor[to] == floor[own] && to != own))
			print FILENAME ":" FNR ": " quoted[2]
	}' $sources
}

# outside PLACE REGEX: lines that match outside of src/PLACE, comments left out
# shellcheck disable=SC2086 # a list of file names
outside() {
	awk -v place="src/$1" -v regex="$2" '
	FNR == 1 {
		comment = 0
		is_place = index(FILENAME, place) == 1
	}
	is_place { next }
	{
		line = $0
		if (comment) {
			if (!match(line, /\*\//))
				next
			line = substr(line, RSTART + 2)
			comment = 0
		}
		gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", line)
		if (match(line, /\/\*/)) {
			line = substr(line, 1, RSTART - 1)
			comment = 1
		}
		if (line ~ regex)
			print FILENAME ":" FNR ":" $0
	}' $sources
}

claim "no include climbs to a floor above" climbing
claim "libfuse is known only in src/vdifs" outside vdifs/ '#[ \t]*include[ \t]*[<"]fuse'
claim "jansson is known only in src/map/info.c" outside map/info.c 'include[ \t]*<jansson'
claim "the codecs are known only in src/support/codec.c" \
	outside support/codec.c 'include[ \t]*<(libdeflate|zstd|zlib)'
claim "libnbd is known only in src/source/nbd.c" outside source/nbd.c 'include[ \t]*<libnbd'
claim "libseccomp is known only in src/sandbox/filter.c" outside sandbox/filter.c 'include[ \t]*<seccomp'
claim "files are read only in src/source" \
	outside source/ '(^|[^A-Za-z0-9_])p(read|readv)(64)?[ \t]*\('
claim "nobody calls fdopen(), as tests/mount/leaks.supp relies on" outside none '(^|[^A-Za-z0-9_])fdopen[ \t]*\('
plan
