#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What of the source the inputs of the fuzzers reach, after "make fuzz" or tests/fuzz/fuzz.sh.
#
#	VD_BUILDDIR=build tests/fuzz/coverage.sh [--lines]
#
# disk/opener.c and disk/broker.c open real files and are no part of what is fuzzed: tests/unit has them.
#
# Runs seeds and corpora, once as they are and then with reads failing, headers turned over and files cut, under
# clang's source coverage. Prints a table for each; with --lines the lines that neither reaches. The whole report is
# left in $VD_BUILDDIR/fuzz/coverage.
set -eu -o pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
top=$(realpath "$here/../..")
build=${VD_BUILDDIR:-$top/build}
work=$build/fuzz
out=$work/coverage
sources=("$top"/src/{base,source,support,format,disk,map}/*.c)
shown=("$top"/src/{format,disk}/*.c)

[ -d "$work/seeds" ] || { echo "$0: no seeds in $work: run \"make fuzz\" first" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
cp -r "$work/seeds" "$work/corpus" "$out" 2>/dev/null || : # a fuzzer that still runs takes inputs away
read -ra packages <<<"$(pkg-config --cflags --libs jansson libdeflate libzstd)"
clang -g -O1 -std=gnu11 -fprofile-instr-generate -fcoverage-mapping -I"$build" -I"$top/src" -I"$here" \
	"${sources[@]}" "$here"/{extras,faults,files,formats,harness,replay}.c -o "$out/replay" -pthread "${packages[@]}"

collect() { # collect NAME [MODE] DIR...: all inputs of the directories, into one profile
	local name=$1
	shift
	find "${@:2}" -type f -print0 | LLVM_PROFILE_FILE=$out/$name-%p.raw xargs -0 -n 500 "$out/replay" ${1:+"$1"} \
		>"$out/$name.log" 2>&1 || # what is slow under coverage need not be slow
		grep -a 'it took\|broken' "$out/$name.log" >&2
}

table() { # table TITLE FILE...: the profiles as a table of src/format and src/disk
	printf '%s\n' "$1"
	llvm-profdata merge -sparse "${@:2}" -o "$out/profile"
	llvm-cov report "$out/replay" -instr-profile="$out/profile" -show-region-summary=false \
		-show-functions=false "${shown[@]}" | sed -E "s,^.*src/(format|disk)/,\1/," | awk '
		function row(name, lines, missed, branches, lost) {
			printf "%-26s %5d of %5d lines %6.2f %%  %5d of %5d branches %6.2f %%\n", name, lines - missed, lines,
				100 * (1 - missed / lines), branches - lost, branches, 100 * (1 - lost / branches)
		}
		NF > 6 && $1 ~ /^(format|disk)\// {
			name = substr($1, 1, index($1, "/") - 1)
			lines = $5; missed = $6; branches = $8; lost = $9
			row($1, lines, missed, branches, lost)
			if ($1 ~ /(broker|opener)/)
				next
			l[name] += lines; m[name] += missed; b[name] += branches; o[name] += lost
		}
		END {
			row("format/", l["format"], m["format"], b["format"], o["format"])
			row("disk/ without these", l["disk"], m["disk"], b["disk"], o["disk"])
		}'
}

collect inputs "" "$out"/seeds "$out"/corpus
table "Seeds and corpora:" "$out"/inputs-*.raw
find "$out"/seeds -name 'good-*' -size -6k -print0 >"$out/list"
for mode in faults flips cuts; do
	LLVM_PROFILE_FILE=$out/$mode-%p.raw xargs -0 -n 500 "$out/replay" "--$mode" <"$out/list" >"$out/$mode.log" 2>&1 ||
		grep -a 'it took\|broken' "$out/$mode.log" >&2
done
table "With reads failing, bits turned over and files cut:" "$out"/*.raw
rm -rf "$out"/seeds "$out"/corpus
llvm-cov show "$out/replay" -instr-profile="$out/profile" "${shown[@]}" >"$out/lines.txt"
[ "${1:-}" != --lines ] || grep -E '^/|^ *[0-9]+\| +0\|' "$out/lines.txt"
