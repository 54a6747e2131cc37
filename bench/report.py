# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures, ratios, targets, and the text that shows them.

A figure is the median of its rounds; its spread is (greatest - least) / median.  A ratio of two candidates is taken
round by round, since they were measured right after each other, and has a median and a spread in the same way.
"""
import datetime
import os
import re
import shutil
import statistics
import subprocess

DIGITS = {'MB/s': 0, '/s': 0, 's': 3, 'ms': 1, 'MiB': 1, 'x': 2}


def spread(samples):
    middle = statistics.median(samples)
    return (max(samples) - min(samples)) / middle if middle else 0.0


def number(value, unit):
    return '%.*f %s' % (DIGITS[unit], value, unit)


class Target:
    """A promise about `of`: at least or at most (sense '>=' or '<=') `bound` times the figure of `base`, or, without
    a base, that figure itself.  as_fast: of figures that are times, how many times as fast."""

    def __init__(self, of, sense, bound, base=None, as_fast=False):
        self.of, self.sense, self.bound, self.base, self.as_fast = of, sense, bound, base, as_fast

    def words(self, row):
        if self.as_fast:
            return '%s %s %g x as fast as %s' % (self.of, self.sense, self.bound, self.base)
        if self.base:
            what = 'the time of %s' % self.base if row.unit_of(self.of) in ('s', 'ms') else self.base
            return '%s %s %g x %s' % (self.of, self.sense, self.bound, what)
        return '%s %s %g %s' % (self.of, self.sense, self.bound, row.unit_of(self.of))

    def verdict(self, row):
        """(met, words); met is None if it cannot be said."""
        mine, other = row.cells.get(self.of), row.cells.get(self.base) if self.base else [1.0]
        if not isinstance(mine, list) or not isinstance(other, list):
            return None, 'n/a'
        pair = (self.base, self.of) if self.as_fast else (self.of, self.base)
        samples = row.ratios(*pair) if self.base else mine
        value = statistics.median(samples)
        met = value >= self.bound if self.sense == '>=' else value <= self.bound
        miss = 1 - value / self.bound if self.sense == '>=' else value / self.bound - 1
        said = '%.2f x' % value if self.base else number(value, row.unit_of(self.of))
        return met, '%s: %s, spread %.0f %%' % ('met' if met else 'missed by %.0f %%' % (100 * miss), said,
                                               100 * spread(samples))


class Row:
    """One kind of work.  units: one for all columns, or one a column; base: the column to compare with."""

    def __init__(self, name, units, base=None, targets=()):
        self.name, self.units, self.base, self.targets = name, units, base, list(targets)
        self.cells = {}         # column -> list of figures, or a string that says why there is none

    def unit_of(self, column):
        return self.units if isinstance(self.units, str) else self.units[column]

    def ratios(self, one, other):
        a, b = self.cells[one], self.cells[other]
        if len(a) != len(b):    # one of them takes too long for all rounds
            return [statistics.median(a) / statistics.median(b)]
        return [x / y for x, y in zip(a, b)]

    def cell(self, column):
        samples = self.cells.get(column)
        if samples is None:
            return '-'
        if isinstance(samples, str):
            return 'n/a: %s' % samples
        parts = [number(statistics.median(samples), self.unit_of(column))]
        if self.base and column != self.base and isinstance(self.cells.get(self.base), list):
            faster = self.ratios(self.base, column) if self.unit_of(column) in ('s', 'ms') else \
                self.ratios(column, self.base)
            parts.append('%.2f x' % statistics.median(faster))
        parts.append('%.0f %%' % (100 * spread(samples)) if len(samples) > 1 else '1 round')
        return ', '.join(parts)

    def target_words(self):
        return '; '.join(target.words(self) for target in self.targets) or '-'

    def result_words(self):
        return '; '.join(target.verdict(self)[1] for target in self.targets) or '-'


class Group:
    """Rows with the same columns, under one heading with its remarks.  work: the heading of their names."""

    def __init__(self, title, columns, remarks='', work='work'):
        self.title, self.columns, self.remarks, self.work = title, columns, remarks, work
        self.rows = []

    def markdown(self):
        heads = [self.work, *self.columns, 'target', 'result']
        lines = ['## ' + self.title, ''] + ([self.remarks, ''] if self.remarks else [])
        lines += [table_line(heads), table_line(['---'] * len(heads))]
        lines += [table_line([row.name, *map(row.cell, self.columns), row.target_words(), row.result_words()])
                  for row in self.rows]
        return '\n'.join(lines) + '\n'


def table_line(cells):
    return '| %s |' % ' | '.join(cell.replace('|', '\\|') for cell in cells)


# Where and with what it was measured.

def first_line_of(*command):
    if not shutil.which(command[0]):
        return 'not installed'
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            errors='replace')
    lines = result.stdout.strip().splitlines()
    return lines[0].strip() if lines else 'unknown'


def found_in(path, pattern):
    with open(path, errors='replace') as file:
        match = re.search(pattern, file.read(), re.M)
    return match.group(1).strip() if match else 'unknown'


def filesystem_of(path):
    result = subprocess.run(['stat', '-f', '-c', '%T', path], stdout=subprocess.PIPE, text=True)
    return result.stdout.strip() or 'unknown'


def source_version(folder):
    """The commit that is checked out, and whether the files differ from it."""
    git = ['git', '-c', 'safe.directory=*', '-C', folder]
    if not shutil.which('git'):
        return ''
    result = subprocess.run(git + ['describe', '--always', '--dirty', '--tags'], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True)
    return ' (%s)' % result.stdout.strip() if result.returncode == 0 else ''


def machine(work, vdifs):
    memory = int(found_in('/proc/meminfo', r'^MemTotal:\s*(\d+)')) / (1 << 20)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rows = [
        ('date', datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC')),
        ('processor', '%s, %d cores' % (found_in('/proc/cpuinfo', r'^(?:model name|Model)\s*:(.*)'), os.cpu_count())),
        ('memory', '%.1f GiB' % memory),
        ('kernel', ' '.join(os.uname()[i] for i in (0, 2, 4))),
        ('images on', filesystem_of(work)),
        ('load before', '%.1f' % os.getloadavg()[0]),
        ('vdifs', first_line_of(vdifs, '--version') + source_version(root)),
    ]
    for program, *arguments in (['qemu-storage-daemon', '--version'], ['qemu-img', '--version'],
                                ['nbdfuse', '--version'], ['qemu-nbd', '--version'], ['qcowmount', '-V'],
                                ['vhdimount', '-V'], ['fusermount3', '--version'], ['cp', '--version'],
                                ['tar', '--version'], ['dd', '--version'], ['python3', '--version']):
        rows.append((program, first_line_of(program, *arguments)))
    return rows
