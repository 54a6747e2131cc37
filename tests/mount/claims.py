# SPDX-License-Identifier: LGPL-2.1-or-later
"""The claims of a Python part of a mount test: python_claims of lib.sh turns them into TAP."""
import errno
import os
import time

# Limits on time are for an idle machine; lib.sh says how much longer this one may take.
PATIENCE = int(os.environ.get('VD_PATIENCE', 1))


def claim(text, passed, found=''):
    print('ok' if passed else 'not', text)
    if not passed:
        print('#', repr(found)[:2000])


def same(text, got, wanted):
    claim(text, got == wanted, 'got %r, wanted %r' % (got, wanted))


def fails(text, codes, call, *arguments):
    """The call ends with one of the error numbers."""
    try:
        result = call(*arguments)
    except OSError as error:
        claim(text, error.errno in codes, errno.errorcode.get(error.errno, error.errno))
    else:
        claim(text, False, 'no error, but %r' % (result,))


def walk(fd):
    """The data of a file as SEEK_DATA and SEEK_HOLE tell it: (start, end) pairs."""
    at, out = 0, []
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return out
        at = os.lseek(fd, start, os.SEEK_HOLE)
        if at <= start:
            raise AssertionError('SEEK_HOLE from %d gives %d' % (start, at))
        out.append((start, at))


def over(pids, seconds):
    """Exit statuses of the children of these that have ended by then; all have, or the time is up.  Less than a
    second is for those that shall not end, and is no longer on a busy machine."""
    end, left, codes = time.monotonic() + seconds * (PATIENCE if seconds >= 1 else 1), set(pids), {}
    while left and time.monotonic() < end:
        for pid in list(left):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                left.discard(pid)
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return codes
