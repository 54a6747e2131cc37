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

part "all tests in their long form" make -k check
part "10,000 images against QEMU and the resolver" "${PYTHON3:-python3}" "$top/tests/oracle.py" --count 10000
part "ThreadSanitizer" make check-threads
part "soak" bash "$top/tests/mount/soak.sh" "${SOAK_SECONDS:-600}"
[ ${#failed[@]} -eq 0 ] && echo "All parts are good." && exit
printf 'Failed: %s\n' "${failed[@]}"
exit 1
