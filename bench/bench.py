#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Benchmarks of vdifs against other programs that show disk images, side by side in one run.

It makes its images itself, measures row by row with the candidates in turns, and writes bench/RESULTS.md.  The programs
are taken from the build folder $VD_BUILDDIR (./build).  All that it starts and mounts is ended when it ends.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import candidates
import report
import works
from candidates import Failure

HERE = os.path.dirname(os.path.abspath(__file__))
FREE_GIB, QUICK_FREE_GIB = 7, 1
PATIENCE = 600          # seconds for one measurement
TMPFS_GIB, QUICK_TMPFS_GIB = 1, 0.25

METHOD = """\
Each cell holds the median of its rounds; then, where there is a column to compare with, how many
times as fast as that one it is (QSD, unless said otherwise; more is better); then the spread,
(greatest - least) / median. In a round the candidates take turns, beginning with another one each
time. A ratio is the median of the rounds' ratios. Every figure comes from a mount of its own; the
images are in the host's page cache, which is never dropped; readers read into a buffer.

QSD is qemu-storage-daemon's FUSE export; nbdfuse is in front of qemu-nbd. nbdfuse, qcowmount and
vhdimount show no holes and are told where the data is; they read for one second at most, the
others for two and a half. Before each measurement as much memory as the data takes is written to
and given back: a guest's unused memory may have been taken by its host (free page reporting),
which costs a fault there for each page, and whoever is first to use the page cache would pay for
all. Random reads are of places with data, with O_DIRECT; those of the native file come from the
page cache, since with O_DIRECT they would measure the medium. Before a candidate is measured,
some places are compared with the native file.
"""


class Bench:
    """What a measurement needs: the folders, the programs, how long to take."""

    def __init__(self, options, build, work, tmpfs):
        self.quick, self.rounds, self.work, self.tmpfs = options.quick, options.rounds, work, tmpfs
        self.haste = 5 if options.quick else 1          # divides the seconds of each measurement
        self.vdifs_option = options.vdifs_option
        self.vdifs, self.vdimap = os.path.join(build, 'vdifs'), os.path.join(build, 'vdimap')
        self.reader_path = find_reader(build, work)
        self.candidates = {c.name: c for c in candidates.vdifs_candidates(self.vdifs, options.vdifs_option)}
        self.candidates.update({c.name: c for c in candidates.PEERS})
        self.disk, self.disk_name, self.known = None, None, {}

    def reader(self, *arguments):
        """The numbers that the reader prints."""
        if arguments[0] == 'run' and not shutil.which(arguments[1]):
            raise Failure('%s is not installed' % arguments[1])
        try:
            result = subprocess.run([self.reader_path, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors='replace', timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure('not done in %d minutes' % (PATIENCE // 60)) from None
        if result.returncode != 0:
            words = result.stderr.strip().splitlines() or ['exit status %d' % result.returncode]
            raise Failure(words[0].replace('reader: ', '').replace(self.work + '/', ''))
        return [float(word) for word in result.stdout.split()]

    def touch_memory(self, most):
        """Have the host give us the memory that a measurement may fill with cached pages."""
        with open('/proc/meminfo') as file:
            available = next(int(line.split()[1]) << 10 for line in file if line.startswith('MemAvailable'))
        self.reader('touch', max(1, int(min(most, available * 0.7)) >> 20))

    def once(self, key, ask):
        if key not in self.known:
            self.known[key] = ask()
        return self.known[key]

    def use_disk(self, name):
        """Make this disk, and remove the one before."""
        if name == self.disk_name:
            return
        if self.disk:
            os.unlink(self.disk.path)
        self.disk, self.disk_name = None, name
        if name:
            path = os.path.join(self.work, name + '.raw')
            try:
                self.disk = works.make_disk(name, path, self.quick)
            except BaseException:
                self.disk_name = None
                if os.path.exists(path):
                    os.unlink(path)
                raise

    def fill(self, row, work):
        names = list(work)
        for number in range(self.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                if isinstance(row.cells.get(name), str) or name == 'qemu-img map' and number > 0:
                    continue
                try:
                    row.cells.setdefault(name, []).append(work[name](number))
                except Failure as failure:
                    row.cells[name] = str(failure)
                except OSError as error:
                    row.cells[name] = error.strerror or str(error)


def find_reader(build, work):
    """The reader of the build folder if it is new enough, else one of our own."""
    source = os.path.join(HERE, 'reader.c')
    built = os.path.join(build, 'bench', 'reader')
    if os.path.exists(built) and os.path.getmtime(built) >= os.path.getmtime(source):
        return built
    path = os.path.join(work, 'reader')
    subprocess.run([os.environ.get('CC', 'cc'), '-std=gnu11', '-O2', '-pthread', '-o', path, source], check=True)
    return path


def run_stage(bench, stage, rows):
    image = None
    try:
        say('== %s' % stage.key)
        bench.use_disk(stage.disk)
        image = stage.make(bench)
        image.warm()
        for row, work in stage.works(bench, image):
            if row in rows:
                bench.fill(row, work)
                show(stage, row)
    except (OSError, subprocess.CalledProcessError) as error:
        for row in rows:
            for column in stage.group.columns:
                row.cells.setdefault(column, 'the image cannot be made: %s' % error)
            show(stage, row)
    finally:
        if image:
            image.remove()
    stage.group.rows += rows


def say(text):
    print(text, flush=True)


def show(stage, row):
    say(stage.name(row))
    for column in stage.group.columns:
        if column in row.cells:
            say('    %-18s %s' % (column, row.cell(column)))
    for target in row.targets:
        say('    %s  ->  %s' % (target.words(row), target.verdict(row)[1]))


def summary(groups):
    """Targets that were missed, and how many were not."""
    met, missed, unknown = 0, [], []
    for group in groups:
        for row in group.rows:
            for target in row.targets:
                good, words = target.verdict(row)
                line = '- %s, %s: %s: %s' % (group.title, row.name, target.words(row), words)
                met += good is True
                missed += [line] * (good is False)
                unknown += [line] * (good is None)
    lines = ['## Targets', '', '%d met, %d missed, %d without a figure.' % (met, len(missed), len(unknown)), '']
    return '\n'.join(lines + missed + unknown) + '\n'


def write_results(path, groups, machine, options):
    parts = ['# Benchmarks of vdifs\n\nWritten by bench/bench.py.\n', METHOD,
             '## Machine and versions\n',
             '\n'.join([report.table_line(['what', 'which']), report.table_line(['---', '---'])] +
                       [report.table_line(row) for row in machine + [('options', options)]]) + '\n',
             summary(groups), *[group.markdown() for group in groups]]
    notes = os.path.join(HERE, 'NOTES.md')
    if os.path.exists(notes):
        with open(notes) as file:
            parts.append(file.read())
    with open(path, 'w') as file:
        file.write('\n'.join(parts))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work', metavar='DIR', help='make the images below DIR (7 GiB; $TMPDIR or /var/tmp)')
    parser.add_argument('--tmpfs', metavar='DIR', default='/dev/shm', help='copies go below DIR (/dev/shm)')
    parser.add_argument('--rounds', type=int, metavar='N', help='how often each figure is taken (5; 2 if quick)')
    parser.add_argument('--quick', action='store_true', help='small images, short measurements: to try things out')
    parser.add_argument('--only', metavar='PATTERN', help='rows whose name has this regular expression in it')
    parser.add_argument('--list', action='store_true', help='print the names of the rows')
    parser.add_argument('--out', metavar='FILE', help='write the results here; by default bench/RESULTS.md, or nowhere '
                        'with --quick or --only')
    parser.add_argument('--vdifs-option', metavar='OPTION', action='append', default=[],
                        help='give vdifs this option as well')
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    if not options.out and not options.quick and not options.only:
        options.out = os.path.join(HERE, 'RESULTS.md')
    return options


def option_words(options):
    """Those that change figures; not those that name folders."""
    words = ['--rounds=%d' % options.rounds] + ['--quick'] * options.quick
    words += ['--only=%s' % options.only] if options.only else []
    return ' '.join(words + ['--vdifs-option=%s' % option for option in options.vdifs_option])


def find_build():
    build = os.path.abspath(os.environ.get('VD_BUILDDIR', 'build'))
    vdifs = os.path.join(build, 'vdifs')
    if not os.path.exists(vdifs):
        sys.exit('bench: no vdifs in %s: build it, or set VD_BUILDDIR' % build)
    with open(vdifs, 'rb') as file:
        if b'__asan_init' in file.read():
            sys.exit('bench: %s was built with sanitizers; its figures would mean nothing' % vdifs)
    return build


def make_tmpfs_folder(folder, quick):
    """A folder of our own, or None if there is no tmpfs that is large enough."""
    need = (QUICK_TMPFS_GIB if quick else TMPFS_GIB) * (1 << 30)
    if not os.path.isdir(folder) or report.filesystem_of(folder) != 'tmpfs' or shutil.disk_usage(folder).free < need:
        say('bench: %s is no tmpfs with %g GiB; copies are not measured' % (folder, need / (1 << 30)))
        return None
    return tempfile.mkdtemp(prefix='vdifs-bench.', dir=folder)


def measure(options, stages, build, work, tmpfs):
    need = QUICK_FREE_GIB if options.quick else FREE_GIB
    if shutil.disk_usage(work).free < need << 30:
        sys.exit('bench: %s has less than %d GiB free; see --work' % (work, need))
    machine = report.machine(work, os.path.join(build, 'vdifs'))
    bench = Bench(options, build, work, tmpfs)
    groups = []
    for stage, rows in stages:
        run_stage(bench, stage, rows)
        if stage.group not in groups:
            groups.append(stage.group)
    for group in groups:
        group.rows += group.finish() if hasattr(group, 'finish') else []
    say('\n' + summary(groups))
    if options.out:
        write_results(options.out, groups, machine, option_words(options))
        say('Written: %s' % options.out)


def clean_up(folders):
    """End what was started, unmount what was mounted, remove what was made."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for pid in candidates.children():
        candidates.end(pid, 0)
    candidates.reap()
    for folder in filter(None, folders):
        for name in ('disk', 'mount'):
            candidates.unmount(os.path.join(folder, name))
        shutil.rmtree(folder, ignore_errors=True)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    options = parse_options()
    pattern = re.compile(options.only or '', re.I)
    stages = [(stage, [row for row in stage.rows if pattern.search(stage.name(row))])
              for stage in works.all_stages(options.quick)]
    stages = [(stage, rows) for stage, rows in stages if rows]
    if options.list:
        print('\n'.join(stage.name(row) for stage, rows in stages for row in rows))
        return 0
    build = find_build()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    candidates.adopt_orphans()
    parent = options.work or os.environ.get('TMPDIR') or '/var/tmp'
    folders = [None, None]
    try:
        folders[0] = os.path.realpath(tempfile.mkdtemp(prefix='vdifs-bench.', dir=parent))
        folders[1] = make_tmpfs_folder(options.tmpfs, options.quick)
        measure(options, stages, build, *folders)
    except KeyboardInterrupt:
        say('bench: interrupted')
        return 130
    finally:
        clean_up(folders)
    return 0


if __name__ == '__main__':
    sys.exit(main())
