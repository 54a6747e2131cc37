#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Fuzzing: hold the readers to the promises of harness.c on inputs made from the recipes.
#
#	tests/fuzz/fuzz.sh [SECONDS]
#
# First, with the compiler of the build, every seed; some with bits of their headers turned over (all: VD_NIGHTLY) and
# cut at all edges; the good ones with each read failing once. Then, where clang has libFuzzer, three
# fuzzers side by side (QCOW2, VHD, chains) for SECONDS each (5; 600 with VD_NIGHTLY), under ASan and UBSan. Prints TAP.
# What is found is kept in $VD_BUILDDIR/fuzz/findings, also as a text for tests/fuzz/findings, the corpora beside it
# for the next run. All that has ever been found is run again first: the texts are seeds, like the recipes.
#
# FUZZ_CFLAGS and FUZZ_LIBS are for another target: what -m32 needs stands in RESULTS.md.
set -u -o pipefail
export LC_ALL=C ASAN_OPTIONS=allocator_may_return_null=1 PYTHONDONTWRITEBYTECODE=1

here=$(cd "$(dirname "$0")" && pwd) || exit 99
top=$(realpath "$here/../..")
build=${VD_BUILDDIR:-$top/build}
long=${VD_NIGHTLY:+600}
seconds=${1:-${FUZZ_SECONDS:-${long:-5}}}
count=0 failed=0

ok() { echo "ok $((++count)) - $1"; }

not_ok() { # not_ok CLAIM FILE: the end of FILE says why
	echo "not ok $((++count)) - $1"
	failed=1
	tail -n 30 "$2" | sed 's/^/# /'
}

skip() { echo "ok $((++count)) - $1 # SKIP $2"; }

claim() { # claim CLAIM LOG COMMAND...
	local text=$1 log=$2
	shift 2
	if "$@" >"$log" 2>&1 </dev/null; then ok "$text"; else not_ok "$text" "$log"; fi
}

finish() {
	echo "1..$count"
	exit "$failed"
}

# Compile the library and the harness with clang: object by object, only what is out of date. Comparisons are not
# traced: in loops over table entries that takes more than half of the time, and the mutator knows the numbers.
# shellcheck disable=SC2317 # called by claim
build_fuzzer() {
	local source object flags objects=()
	flags="-g -O1 -fno-omit-frame-pointer -std=gnu11 -fsanitize=address,undefined -fno-sanitize-recover=undefined
		-I$build -I$top/src -I$here $(pkg-config --cflags jansson libdeflate libzstd) ${FUZZ_CFLAGS-}"
	mkdir -p "$work/objects" || return
	for source in "$top"/src/{base,source,support,format,disk,map}/*.c "$here"/{extras,files,formats,harness,mutate}.c; do
		object=$work/objects/$(basename "$(dirname "$source")")-$(basename "$source" .c).o
		objects+=("$object")
		[ -z "$(find "$top/src" "$here" "$build/config.h" "$(command -v clang)" -newer "$object" 2>&1 | head -n 1)" ] &&
			continue
		# shellcheck disable=SC2086 # flags are words
		clang $flags -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp -c "$source" -o "$object" || return
	done
	# shellcheck disable=SC2046,SC2086
	clang -fsanitize=address,undefined,fuzzer ${FUZZ_CFLAGS-} "${objects[@]}" -o "$work/fuzz" -pthread \
		${FUZZ_LIBS-} $(pkg-config --libs jansson libdeflate libzstd)
}

has_libfuzzer() {
	command -v clang >/dev/null || return
	echo 'int LLVMFuzzerTestOneInput(const char *data, long bytes) { return !data && bytes; }' |
		clang -x c - -fsanitize=fuzzer,address -o "$work/probe" 2>/dev/null
}

fuzz() { # fuzz KIND: in the background, its words in $work/KIND.log
	mkdir -p "$work/corpus/$1"
	nice -n 10 "$work/fuzz" -max_total_time="$seconds" -max_len=32768 -timeout=60 -rss_limit_mb=1024 -close_fd_mask=2 \
		-entropic_scale_per_exec_time=1 -print_final_stats=1 -artifact_prefix="$work/findings/$1-" \
		"$work/corpus/$1" "$work/seeds/$1" >"$work/$1.log" 2>&1 </dev/null &
	pids+=($!)
}

# What is not mended yet; some findings need the fuzzer's sanitizers to be seen.
# shellcheck disable=SC2317 # called by claim
replay_findings() {
	local found
	for found in "$work"/findings/*; do
		case $found in
		*.input) ;;
		*) "$work/fuzz" "$found" || return ;;
		esac
	done
}

keep_texts() { # keep_texts KIND: in the form that the repository keeps
	local found
	for found in "$work/findings/$1"-*; do
		case $found in
		*.input | *'*') ;;
		*) "${PYTHON3:-python3}" "$here/seeds.py" --text "$1" "$found" >"$found.input" && echo "# $found.input" ;;
		esac
	done
}

work=$build/fuzz
pids=()
mkdir -p "$work/findings" || exit 99
trap 'kill "${pids[@]}" 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$work/seeds"
claim "seeds are made from the recipes" "$work/seeds.log" "${PYTHON3:-python3}" "$here/seeds.py" "$work/seeds"
# With the sanitizers of gcc, only what the fuzzer does not do: it runs every seed with those of clang.
is_sanitized=$(grep -q __asan_init "$build/vdifs" && echo yes)
for kind in qcow2 vhd chain; do
	[ -n "$is_sanitized" ] && has_libfuzzer && break
	claim "$kind: every seed keeps the promises" "$work/replay.log" "$build/fuzz_replay" "$work/seeds/$kind"/*
done
small=("$work"/seeds/qcow2/good-qcow2-{zstd-small-clusters,cluster-512,snapshot-vm-state,extended-l2-bit-0,compressed-first}
	"$work"/seeds/vhd/good-vhd-{bitmap-exact,block-size-512} "$work"/seeds/chain/good-vhd-differencing-block-sizes)
claim "bits of the headers turned over" "$work/replay.log" "$build/fuzz_replay" --flips "${small[@]}"
claim "cut at edges and beside them" "$work/replay.log" "$build/fuzz_replay" --cuts "${small[@]}"
claim "each read failing once: EIO, short, end of file" "$work/replay.log" \
	"$build/fuzz_replay" --faults "$work"/seeds/{qcow2,vhd,chain}/good-*
if [ -n "$is_sanitized" ]; then
	finish
elif ! has_libfuzzer; then
	skip "fuzzing" "clang with libFuzzer is not installed"
	finish
fi
claim "the fuzzer is built" "$work/build.log" build_fuzzer
[ -x "$work/fuzz" ] || finish
[ -z "$(ls "$work/findings")" ] || claim "what was found here before is mended" "$work/replay.log" replay_findings
for kind in qcow2 vhd chain; do
	claim "$kind: no sanitizer complains of a seed" "$work/replay.log" "$work/fuzz" "$work/seeds/$kind"/*
done
for kind in qcow2 vhd chain; do
	fuzz "$kind"
done
for kind in qcow2 vhd chain; do
	if wait "${pids[0]}"; then
		ok "$kind: $seconds s of fuzzing find nothing"
	else
		not_ok "$kind: $seconds s of fuzzing find nothing" "$work/$kind.log"
		keep_texts "$kind"
	fi
	pids=("${pids[@]:1}")
	grep -E '^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb|processor_seconds)' "$work/$kind.log" | sed 's/^/# /'
done
finish
