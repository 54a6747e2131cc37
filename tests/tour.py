#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tour of doc/ is true: each of its commands is run, and prints what stands below it.

    tour.py [--builddir DIR] [--print]

A block of the page that begins with ```console is a session in a shell: a line with "$ " is a command ("> " goes on
with it), what follows is its output on stdout and stderr.  A line of output that is "..." stands for any lines, or
none; "~" in a line for any characters but blanks.  All blocks of a page are one session in an empty folder.  With --print the page is
printed with what its commands print now, to be looked at and pasted.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, 'lib'))
sys.path.insert(0, HERE)

import oracle                                                                  # noqa: E402
from tap import Tap                                                            # noqa: E402

PAGE = os.path.join(HERE, '..', 'doc', 'tour.md')
NEEDS = ('bash', 'qemu-img', 'qemu-io', 'getfattr', 'fusermount3', 'mkfs.vfat', 'mcopy', 'jq', 'sfdisk')
PATIENCE = 60
MARK = '--tour--'


def blocks(text):
    """(heading, [(command, [line of output...])...]) for each console block."""
    heading, found, inside = '', [], None
    for line in text.splitlines():
        if inside is None:
            if line.startswith('#'):
                heading = line.lstrip('# ')
            elif line == '```console':
                inside = []
        elif line == '```':
            found.append((heading, inside))
            inside = None
        elif line.startswith('$ '):
            inside.append((line[2:], []))
        elif line.startswith('> ') and not inside[-1][1]:
            inside[-1] = (inside[-1][0] + '\n' + line[2:], [])
        else:
            inside[-1][1].append(line)
    return found


def same(wanted, got):
    """Do the lines match, with the two signs that stand for others?"""
    pattern = ''
    for line in wanted:
        pattern += r'(?:.*\n)*?' if line == '...' else r'\S+'.join(map(re.escape, line.split('~'))) + r'\n'
    return re.fullmatch(pattern, ''.join(line + '\n' for line in got)) is not None


class Shell:
    """A bash that runs one command after the other."""

    def __init__(self, folder, path):
        environment = dict(os.environ, PATH=path, LC_ALL='C.UTF-8', COLUMNS='80', TZ='UTC', HOME=folder)
        environment.pop('MALLOC_PERTURB_', None)
        self.process = subprocess.Popen(['bash', '--norc', '--noprofile'], cwd=folder, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, command):
        """The lines that it prints; a line that lacks its end is one, too."""
        self.process.stdin.write('%s\nprintf "\\n%s\\n"\n' % (command, MARK))
        self.process.stdin.flush()
        lines = []
        signal.alarm(PATIENCE)
        for line in self.process.stdout:
            if line.rstrip('\n') == MARK:
                break
            lines.append(line.rstrip('\n'))
        else:
            raise EOFError('the shell ended at: ' + command)
        signal.alarm(0)
        if lines and lines[-1] == '':
            lines.pop()
        return lines


def unmount_all(folder):
    with open('/proc/self/mountinfo') as mounts:
        places = [line.split()[4] for line in mounts]
    for place in reversed(places):
        if place.startswith(folder + '/'):
            subprocess.run(['fusermount3', '-u', '-z', place], check=False)


def walk(tap, session, shell, to_print):
    for heading, block in session:
        for command, wanted in block:
            got = shell.run(command)
            if to_print:
                print('\n'.join(['$ ' + command.replace('\n', '\n> '), *got]))
            else:
                tap.ok(same(wanted, got), '%s: %s' % (heading, ' '.join(command.split())),
                       'printed:\n%s\nthe page has:\n%s' % ('\n'.join(got), '\n'.join(wanted)))


def too_long(*_):
    raise TimeoutError('a command takes longer than %d seconds' % PATIENCE)


def main():
    oracle.end_cleanly()
    signal.signal(signal.SIGALRM, too_long)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir')
    parser.add_argument('--print', action='store_true')
    options = parser.parse_args()
    tap, programs = Tap(), oracle.Programs(options.builddir)
    if programs.missing('vdifs', 'vdimap'):
        return tap.bail('not built')
    lacking = [need for need in NEEDS if not shutil.which(need, path=os.environ['PATH'] + ':/usr/sbin:/sbin')]
    reason = 'not installed: ' + ', '.join(lacking) if lacking else oracle.mounts_work()
    if reason:
        print('1..0 # SKIP ' + reason)
        return 0
    with open(PAGE) as page:
        session = blocks(page.read())
    with tempfile.TemporaryDirectory(prefix='vdifs-tour-') as folder:
        folder = os.path.realpath(folder)
        bin_folder = tempfile.mkdtemp(prefix='vdifs-tour-bin-')
        for name in ('vdifs', 'vdimap'):
            os.symlink(getattr(programs, name), os.path.join(bin_folder, name))
        shell = Shell(folder, '%s:%s:/usr/sbin:/sbin' % (bin_folder, os.environ['PATH']))
        try:
            walk(tap, session, shell, options.print)
        finally:
            signal.alarm(0)
            unmount_all(folder)
            shell.process.kill()
            shell.process.wait()
            shutil.rmtree(bin_folder)
    return 0 if options.print else tap.done()


if __name__ == '__main__':
    sys.exit(main())
