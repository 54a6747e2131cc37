#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options that are given twice: both programs use both values, or refuse the second one and name the option.

    tests/options.py [--builddir DIR]

The options are those that --help lists, so that a new one is tested from its first day.  Nothing is opened: the
refusal comes first, and an option that may be given again is tested where its values have an effect.
"""
import argparse
import contextlib
import re
import subprocess
import sys
import os

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))

import oracle                                                                  # noqa: E402
from oracle import Failure, Programs, run                                      # noqa: E402
from tap import Tap                                                            # noqa: E402

# What may be given again, because all values count.
LISTS = {'backing-file', 'backing-format', 'old-backing-file', 'old-backing-format', 'search', 'old-search', 'bitmap'}
# A value that is accepted, by what --help calls the value.
VALUES = {'FORMAT': 'raw', 'POLICY': 'none', 'SECONDS': '5', 'SIZE': '64M', 'N': '16', 'N[,N...]': '1'}
# Or by the option's name.
NAMED = {'sandbox': 'off', 'vhd-footer': 'end'}


def options(program):
    """[(name, what --help calls its value)] of the options with a value."""
    status, text, _ = run(program, '--help')
    found = re.findall(r'--([a-z][a-z-]*)=(\S+)', text)
    if status or len(found) < 8:
        raise Failure('%s --help: exit status %d, %s' % (program, status, text))
    return sorted(set((name, value) for name, value in found if re.search(r'^ +(-\w, )?--%s=' % name, text, re.M)))


def refused(program, name, *words):
    status, text, log = run(program, *words)
    if status == 0 or text or log.count('\n') != 1 or not re.search('(--|-o )%s is given twice' % name, log):
        return '%s: exit status %d, printed %r, said %r' % (' '.join(words), status, text, log)
    return None


def check(program, with_o):
    wrong = []
    for name, metavar in options(program):
        if name in LISTS:
            continue
        value = NAMED.get(name, VALUES.get(metavar, 'x'))
        word = '--%s=%s' % (name, value)
        wrong.append(refused(program, name, word, word, 'nothing'))
        if with_o:
            wrong.append(refused(program, name, word, '-o', word[2:], 'nothing', 'nowhere'))
            wrong.append(refused(program, name, 'nothing', 'nowhere', '-o', 'rw,%s,noatime,%s' % (word[2:], word[2:])))
    return '\n'.join(text for text in wrong if text)


def raw_words(program, *more):
    """Values that would talk to a terminal come back in messages without what it obeys."""
    wrong = []
    for name, _ in options(program):
        status, _, log = run(program, '--%s=\x1b[31m\x7f\x9b\r' % name, 'nothing', *more)
        if status == 0 or re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]', log):
            wrong.append('--%s: exit status %d, said %r' % (name, status, log))
    return '\n'.join(wrong)


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    args = parser.parse_args()
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap', 'vdifs'):
        return tap.bail('not built: vdimap, vdifs')
    for text, program, with_o in (('vdimap refuses the second value of an option that has one', programs.vdimap, False),
                                  ('so does vdifs, also where mount(8) passes it with -o', programs.vdifs, True)):
        try:
            why = check(program, with_o)
        except (Failure, OSError, subprocess.SubprocessError) as error:
            why = str(error)
        tap.ok(not why, text, why)
    tap.ok(not raw_words(programs.vdimap), 'vdimap prints no control characters of an option', raw_words(programs.vdimap))
    tap.ok(not raw_words(programs.vdifs, 'nowhere'), 'nor does vdifs', raw_words(programs.vdifs, 'nowhere'))
    status, _, log = run(programs.vdifs, '-o', 'fsname=a,fsname=b', 'nothing', 'nowhere')
    tap.ok(status and 'fsname= is given twice' in log, 'fsname= of mount(8) is no exception', log)
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
