#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What takes longer than a change should wait for; `make check-nightly` in a build folder. All parts run,
# whatever becomes of the ones before; the end says which failed, and so does the exit status.
# About two hours: FUZZ_SECONDS (600) of fuzzing and SOAK_SECONDS (600) of reading are part of it.
set -u
top=$(cd "$(dirname "$0")/.." && pwd) || exit 99
cd "${VD_BUILDDIR:-$top/build}" || exit 99
VD_BUILDDIR=$PWD
export VD_BUILDDIR VD_NIGHTLY=1 FUZZ_SECONDS="${FUZZ_SECONDS:-600}" PYTHONDONTWRITEBYTECODE=1
failed=()

part() { # part NAME COMMAND...
	local begun=$SECONDS name=$1
	shift
	echo "== $name"
	if "$@" </dev/null; then
		echo "== $name: good after $((SECONDS - begun)) s"
	else
		echo "== $name: FAILED after $((SECONDS - begun)) s"
		failed+=("$name")
	fi
}

# The fuzzer and its sanitizers for 32 bits, where the libraries for that are installed; elsewhere FUZZ32_CFLAGS
# and FUZZ32_LIBS may say where they are (see fuzz/RESULTS.md). All seeds, and a minute of fuzzing.
# shellcheck disable=SC2317 # called by part
seeds_32() (
	FUZZ_CFLAGS="-m32 -D_FILE_OFFSET_BITS=64 ${FUZZ32_CFLAGS-}" FUZZ_LIBS=${FUZZ32_LIBS-}
	export FUZZ_CFLAGS FUZZ_LIBS
	# shellcheck disable=SC2086 # words
	echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang $FUZZ_CFLAGS -x c - -o probe32 -fsanitize=fuzzer,address $FUZZ_LIBS -ljansson -ldeflate -lzstd 2>/dev/null || {
		echo "not done: no clang with the libraries of 32 bits"
		exit 0
	}
	rm -f probe32
	mkdir -p m32 && ln -sf ../config.h ../fuzz_replay ../vdifs m32/ || exit
	VD_BUILDDIR=$PWD/m32 bash "$top/tests/fuzz/fuzz.sh" 60
)

part "all tests in their long form" make -k check
part "10,000 images against QEMU and the resolver" "${PYTHON3:-python3}" "$top/tests/oracle.py" --count 10000
part "seeds and fuzzing on 32 bits" seeds_32
part "ThreadSanitizer" make check-threads
part "soak" bash "$top/tests/mount/soak.sh" "${SOAK_SECONDS:-600}"
for suite in bookworm trixie sid; do
	part "all tests on Debian $suite" "$top/scripts/check-on.sh" "$suite" whole
done
[ ${#failed[@]} -eq 0 ] && echo "All parts are good." && exit
printf 'Failed: %s\n' "${failed[@]}"
exit 1
