#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""TAP output, the one thing every test written in Python needs.  The plan comes last: nobody has to count claims."""
import functools
import os
import re
import sys


def patience():
    """Limits on time are for an idle machine; how much longer this one may take."""
    return int(os.environ.get('VD_PATIENCE') or min(20, 1 + os.getloadavg()[0] // os.cpu_count()))


def effort(short, usual, nightly):
    """How much to do: VD_SHORT is for a first look and for builds beside the usual one, VD_NIGHTLY for a whole night."""
    if os.environ.get('VD_NIGHTLY'):
        return nightly
    return short if os.environ.get('VD_SHORT') else usual


@functools.cache
def sanitized(program):
    """Is it built with AddressSanitizer or ThreadSanitizer?"""
    with open(program, 'rb') as file:
        return re.search(rb'__[at]san_init', file.read()) is not None


def spare_leak_searches(environment):
    """For programs that begin by the thousand.  The search for leaks at the end of a process takes AddressSanitizer
    as long as all the rest together; the recipes search on each path, and so does all that begins a program seldom."""
    if not os.environ.get('VD_NIGHTLY'):
        environment['ASAN_OPTIONS'] = ':'.join([environment.get('ASAN_OPTIONS', ''), 'detect_leaks=0']).lstrip(':')


class Tap:
    def __init__(self, out=None):
        self.out, self.count, self.failed, self.skipped = out or sys.stdout, 0, 0, 0

    def _line(self, text):
        print(text.replace('#', '\\#') if '#' in text and ' # SKIP ' not in text else text, file=self.out, flush=True)

    def ok(self, passed, claim, why=''):
        """One claim; `why` says what was found instead, and is printed only on failure."""
        self.count += 1
        self.failed += not passed
        self._line('%sok %d - %s' % ('' if passed else 'not ', self.count, claim))
        if not passed and why:
            self.note(why)
        return passed

    def skip(self, claim, reason):
        self.count += 1
        self.skipped += 1
        print('ok %d - %s # SKIP %s' % (self.count, claim.replace('#', '\\#'), reason), file=self.out, flush=True)

    def note(self, text):
        for line in str(text).splitlines() or ['']:
            print('# ' + line, file=self.out, flush=True)

    def bail(self, reason):
        print('Bail out! ' + reason, file=self.out, flush=True)
        return 99

    def done(self):
        """The plan; returns the exit status."""
        print('1..%d' % self.count, file=self.out, flush=True)
        return 1 if self.failed or not self.count else 0
