#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Would the tests notice?  `make mutants` breaks one place of the code at a time and runs the tests until one fails.

    tests/mutants.py [--builddir DIR] [--seed N] [--count N] [--jobs N] [--only K[,K...]] [--list]

A mutant is one small change in a .c file of the floors that read images: a comparison, a sign, a constant, a condition,
a statement.  Which ones, the seed decides, which is printed.  A mutant counts if it compiles, and if the compiler makes
other code of it than of the original: the same code is proof that nothing has changed.

The tests run in the order of their cost: those without FUSE, then SCRIPTS, then some in a build with sanitizers.  A test
that fails is run once more and has to fail again.  All random tests get the seed of the run, with which each of them has
passed on the unchanged code before.

Each test runs in a namespace of processes and mounts of its own, which end with it, whatever a mutant leaves behind.
Loop devices are no part of it: those of files below the work folder are detached.  A test may take twenty times as
long as on the unchanged code and two minutes more: that is for mutants that wait for ever, and no measure of speed.

Mutants that no test notices are printed at the end, as a diff.  tests/RELIABILITY.md says what was found of them.
"""
import argparse
import concurrent.futures
import difflib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

FLOORS = ('source', 'support', 'format', 'disk', 'map')

# Unit tests are the list of Makefile.am, before these.
SCRIPTS = (
    'tests/recipes.py',
    'tests/oracle.py',
    'tests/changes.py',
    'tests/bitmaps.py',
    'tests/cuts.py',
    'tests/vdimap.py',
    'tests/options.py',
    'tests/mount/basic.sh',
    'tests/mount/attr.sh',
    'tests/mount/copy.sh',
    'tests/mount/snapshots.sh',
    'tests/mount/layers.sh',
    'tests/mount/qcow2view.sh',
    'tests/mount/policy.sh',
    'tests/mount/rescue.sh',
    'tests/mount/times.sh',
    'tests/mount/warm.sh',
    'tests/mount/shrink.sh',
    'tests/mount/change.sh',
    'tests/mount/nbd.sh',
    'tests/limits.py',
)
SANITIZED_SCRIPTS = (
    'tests/recipes.py',
    'tests/vdimap.py',
    'tests/mount/basic.sh',
    'tests/mount/snapshots.sh',
    'tests/mount/nbd.sh',
)

# The programs that the scripts use.
PROGRAMS = ('vdifs', 'vdimap', 'vdcat', 'vdprobe', 'mix', 'vdifs_faults', 'vdifs_liar', 'without', 'fuzz_replay')

# --- places that can be broken --------------------------------------------------------------------

# Operators stand between blanks, which tells a product from a pointer.
SWAPS = {
    '<': ('<=', '>='), '<=': ('<', '>'), '>': ('>=', '<='), '>=': ('>', '<'), '==': ('!=',), '!=': ('==',),
    '+': ('-',), '-': ('+',), '*': ('/',), '/': ('*',), '%': ('*',), '<<': ('>>',), '>>': ('<<',),
    '&': ('|',), '|': ('&',), '&&': ('||',), '||': ('&&',), '+=': ('-=', '='), '-=': ('+=', '='), '|=': ('=', '&='),
    '&=': ('=', '|='),
}
OPERATOR = re.compile(r'(?<= )(%s)(?= |$)' % '|'.join(re.escape(word) for word in sorted(SWAPS, key=len, reverse=True)))
NUMBER = re.compile(r'(?<![\w.\'"])(0x[0-9a-fA-F]+|\d+)(?![\w.])')
CONDITION = re.compile(r'\b(?:if|while) \((?=.)')
RETURN = re.compile(r'\breturn ([^;]+);')
STATEMENT = re.compile(r'^\t+(?!return\b|break\b|goto\b|continue\b|else\b|case\b|static\b|const\b|struct\b|enum\b|uint|int\b|'
                       r'size_t\b|bool\b|char\b|unsigned\b|off_t\b|ssize_t\b)[a-zA-Z_*(][^{}]*;$')
JUMP = re.compile(r'^\t+(?:break|continue);$')
NOT = re.compile(r'(?<![\w)])!(?=[\w(*])')


def blank(match):
    return re.sub(r'[^\n]', '\0', match.group(0))


def code_only(text):
    """The text with comments, strings and directives taken out, and every other character where it was."""
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)
    return re.sub(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', blank, text, flags=re.M)


def closing(line, start):
    """Where the bracket that is open at `start` is closed, or -1: on a later line."""
    depth = 1
    for at in range(start, len(line)):
        depth += {'(': 1, ')': -1}.get(line[at], 0)
        if depth == 0:
            return at
    return -1


def changes_of(line, code):
    """(start, end, replacement) for each change of this line; `code` is the line without comments and strings."""
    for match in OPERATOR.finditer(code):
        for other in SWAPS[match.group(1)]:
            yield match.start(1), match.end(1), other
    for match in NUMBER.finditer(code):
        yield match.start(1), match.end(1), str(int(match.group(1), 0) + 1) if match.group(1) != '1' else '0'
    for match in CONDITION.finditer(code):
        end = closing(code, match.end())
        if end > 0:
            inside = line[match.end():end]
            yield match.end(), end, '!(%s)' % inside
            if not code[match.start():].startswith('while'):
                yield match.end(), end, '0 && (%s)' % inside
    for match in RETURN.finditer(code):
        if match.group(1).strip('\0 ') not in ('', '0', 'false', 'NULL'):
            yield match.start(1), match.end(1), '0'
    if STATEMENT.match(code) and code.count('(') == code.count(')'):
        yield len(line) - len(line.lstrip()), len(line), ';'
    if JUMP.match(code):
        yield len(line) - len(line.lstrip()), len(line), ';'
    for match in NOT.finditer(code):
        yield match.start(), match.end(), ''


class Mutant:
    def __init__(self, path, row, old, new):
        self.path, self.row, self.old, self.new = path, row, old, new

    def __str__(self):
        return '%s:%d: %s  =>  %s' % (self.path, self.row + 1, self.old.strip(), self.new.strip())


def mutants_of(tree, path):
    """All mutants of a file, in its order.  Static tables and declarations outside of functions are left alone: a
    number there is often the name of a field's place, which the compiler cannot miss."""
    with open(os.path.join(tree, path), encoding='utf-8') as file:
        text = file.read()
    inside = False
    for row, (line, code) in enumerate(zip(text.split('\n'), code_only(text).split('\n'))):
        inside = (inside or line == '{') and line != '}'
        if not inside or not code.strip('\0\t '):
            continue
        for start, end, other in changes_of(line, code):
            yield Mutant(path, row, line, line[:start] + other + line[end:])


def draw(tree, seed):
    """An endless shuffle without repetition: a file by the number of its places, then a place."""
    everything = []
    for floor in FLOORS:
        for folder, folders, names in os.walk(os.path.join(tree, 'src', floor)):
            folders.sort()
            for name in sorted(names):
                if name.endswith('.c'):
                    everything += mutants_of(tree, os.path.relpath(os.path.join(folder, name), tree))
    random.Random('mutants %d' % seed).shuffle(everything)
    return everything


# --- one copy of the tree, built -------------------------------------------------------------------

class Failed(Exception):
    pass


class Build:
    """A build folder in a tree, and its tests: those of Makefile.am without FUSE, the quickest first, then scripts."""

    def __init__(self, tree, name, seed, arguments, scripts):
        self.tree, self.folder, self.tmp = tree, os.path.join(tree, name), os.path.join(tree, name, 'tmp')
        self.seed, self.times, self.objects, self.scripts = seed, {}, {}, scripts
        os.makedirs(self.folder)
        self.run(['../configure', '-q', '--disable-dependency-tracking', *arguments])
        self.unit_tests = subprocess.run(['make', '-s', 'list-unit-tests'], cwd=self.folder, stdout=subprocess.PIPE, check=True,
                                         text=True).stdout.split()
        self.make('all', *PROGRAMS, *self.unit_tests)

    def run(self, command):
        done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors='replace')
        if done.returncode != 0:
            raise Failed('%s\n%s' % (' '.join(command), done.stdout[-3000:]))

    def make(self, *targets):
        self.run(['make', '-s', *targets])

    def object_of(self, path):
        with open(os.path.join(self.folder, path[:-2] + '.o'), 'rb') as file:
            return file.read()

    def environment(self):
        values = {name: value for name, value in os.environ.items() if not name.startswith(('VD_', 'MAKE', 'MFLAGS'))}
        values.update(VD_BUILDDIR=self.folder, VD_SHORT='1', VD_SEED=str(self.seed), VD_PATIENCE='20', TMPDIR=self.tmp,
                      srcdir=self.tree, top_srcdir=self.tree, PYTHONDONTWRITEBYTECODE='1', MALLOC_PERTURB_='165',
                      CMOCKA_MESSAGE_OUTPUT='TAP', ASAN_OPTIONS='allocator_may_return_null=1')
        return values

    def test(self, name):
        """(whether it failed, its output).  Nothing that it starts or mounts outlives it."""
        command = {'.py': [sys.executable], '.sh': ['bash']}.get(os.path.splitext(name)[1], [])
        command += [os.path.join(self.tree if command else self.folder, name)]
        os.makedirs(self.tmp)
        os.chmod(self.tmp, 0o755)
        # The shell inside is the first process there, and takes the ends of what nobody waits for.
        test = subprocess.Popen(['unshare', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc', '--propagation',
                                 'private', 'bash', '-c', 'ulimit -c 0; "$@"; exit $?', 'mutants', *command],
                                cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output = test.communicate(timeout=120 + 20 * self.times.get(name, 60))[0].decode(errors='replace')
            failed = test.returncode != 0 or re.search('^not ok', output, re.M) is not None
        except subprocess.TimeoutExpired:
            os.kill(test.pid, signal.SIGKILL)  # the kernel ends the first process inside with it, and all others with that
            output, failed = test.communicate()[0].decode(errors='replace') + '\nended: it took too long', True
        self.detach_loops()
        shutil.rmtree(self.tmp, ignore_errors=True)
        return failed, output

    def detach_loops(self):
        listed = subprocess.run(['losetup', '--json', '-O', 'NAME,BACK-FILE'], stdout=subprocess.PIPE, text=True).stdout
        for device in json.loads(listed or '{}').get('loopdevices', []):
            if (device['back-file'] or '').startswith(self.tmp + '/'):
                subprocess.run(['losetup', '-d', device['name']])

    def tests(self):
        return sorted(self.unit_tests, key=lambda name: self.times.get(name, 0)) + list(self.scripts)

    def baseline(self):
        """All tests on the unchanged code: each has to pass, and how long it takes is noted."""
        for name in self.tests():
            began = time.monotonic()
            failed, output = self.test(name)
            self.times[name] = time.monotonic() - began
            if failed:
                raise Failed('%s fails without a mutant:\n%s' % (name, output[-3000:]))

    def is_other_code(self, path):
        """Make the library.  False: it cannot be made, or is what it was."""
        original = self.objects.setdefault(path, self.object_of(path))
        os.utime(os.path.join(self.tree, path))
        try:
            self.make('libvd.a')
        except Failed:
            return False
        return self.object_of(path) != original

    def noticed_by(self):
        """The test that fails twice, or ''."""
        for name in self.tests():
            self.make(*([name] if name in self.unit_tests else PROGRAMS))
            if self.test(name)[0] and self.test(name)[0]:
                return name
        return ''


class Workshop:
    """A copy of the tree, in which one mutant at a time is made and tested.  The sanitizers have the last word: they see
    what is lost or read after its end, and take three times as long."""

    def __init__(self, folder, tree, seed):
        self.tree = os.path.join(folder, 'tree')
        shutil.copytree(tree, self.tree, symlinks=True)
        self.plain = Build(self.tree, 'build', seed, ['CFLAGS=-O2 -g0'], SCRIPTS)
        self.sanitized = Build(self.tree, 'build-asan', seed, ['--enable-sanitizers'], SANITIZED_SCRIPTS)

    def baseline(self):
        self.plain.baseline()
        self.sanitized.baseline()

    def write(self, path, row, line):
        path = os.path.join(self.tree, path)
        with open(path, encoding='utf-8') as file:
            lines = file.read().split('\n')
        lines[row] = line
        with open(path, 'w', encoding='utf-8') as file:
            file.write('\n'.join(lines))

    def judge(self, mutant):
        """None: it does not count.  '': no test notices it.  Otherwise the name of the test that does."""
        self.plain.objects.setdefault(mutant.path, self.plain.object_of(mutant.path))
        self.sanitized.objects.setdefault(mutant.path, self.sanitized.object_of(mutant.path))
        self.write(mutant.path, mutant.row, mutant.new)
        try:
            if not self.plain.is_other_code(mutant.path):
                return None
            name = self.plain.noticed_by()
            if not name and self.sanitized.is_other_code(mutant.path):
                name = self.sanitized.noticed_by()
                name = name and name + ' with sanitizers'
            return name
        finally:
            self.write(mutant.path, mutant.row, mutant.old)
            for build in (self.plain, self.sanitized):
                os.utime(os.path.join(self.tree, mutant.path))
                build.make('libvd.a')


# --- all of it -------------------------------------------------------------------------------------

class Tally:
    def __init__(self, drawn, count):
        self.drawn, self.left, self.lock = iter(drawn), count, threading.Lock()
        self.killed, self.survivors, self.uncounted = {}, [], 0

    def next(self):
        """One more to be judged, or None.  Each that is under way may turn out to count."""
        with self.lock:
            if self.left == 0:
                return None
            self.left -= 1
            return next(self.drawn, (None, None))

    def take(self, number, mutant, name, seconds):
        with self.lock:
            if name is None:
                self.uncounted += 1
                self.left += 1
                return
            if name:
                self.killed[name] = self.killed.get(name, 0) + 1
            else:
                self.survivors.append((number, mutant))
            total = sum(self.killed.values()) + len(self.survivors)
            print('[%3d] %5.0f s  %-28s %d: %s' % (total, seconds, name or 'NOT NOTICED', number, mutant), flush=True)


def work(shop, tally):
    while True:
        taken = tally.next()
        if taken is None or taken[0] is None:
            return
        number, mutant = taken
        began = time.monotonic()
        tally.take(number, mutant, shop.judge(mutant), time.monotonic() - began)


def print_result(tally, seed):
    killed = sum(tally.killed.values())
    total = killed + len(tally.survivors)
    print('\nNoticed by:')
    for name, number in sorted(tally.killed.items(), key=lambda item: -item[1]):
        print('%5d  %s' % (number, name))
    if tally.survivors:
        print('\nNot noticed:')
    for number, mutant in tally.survivors:
        print('\n'.join(difflib.unified_diff([mutant.old], [mutant.new], '%d: %s' % (number, mutant.path),
                                             'line %d' % (mutant.row + 1), lineterm='', n=0)))
    print('\nseed %d: %d mutants, %d noticed (%.1f %%), %d not; besides, %d did not compile or changed no code' % (
        seed, total, killed, 100 * killed / max(total, 1), len(tally.survivors), tally.uncounted))


def prepare(args, seed):
    """The workshops, built and tested.  The tree comes from "make dist", so that nothing half made is in it."""
    folder = os.path.join(args.builddir, 'mutants')
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    subprocess.run(['make', '-s', '-C', args.builddir, 'distdir', 'distdir=mutants/dist'], check=True, stdout=subprocess.DEVNULL)
    tree = os.path.join(folder, 'dist')
    drawn = list(enumerate(draw(tree, seed)))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        shops = list(pool.map(lambda number: Workshop(os.path.join(folder, str(number)), tree, seed), range(args.jobs)))
        list(pool.map(Workshop.baseline, shops))
    return drawn, shops


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--builddir', default=os.environ.get('VD_BUILDDIR', 'build'))
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--count', type=int, default=150)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--only', default='', help='numbers of single mutants of a seed')
    parser.add_argument('--list', action='store_true', help='print the first --count mutants and test nothing')
    args = parser.parse_args()
    args.builddir = os.path.abspath(args.builddir)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 31)
    print('seed %d' % seed, flush=True)
    if args.list:
        for number, mutant in list(enumerate(draw(os.path.join(os.path.dirname(__file__), '..'), seed)))[:args.count]:
            print('%d: %s' % (number, mutant))
        return 0
    if os.getuid() != 0:
        print('only root can make namespaces in which what a mutant leaves behind ends')
        return 2
    try:
        drawn, shops = prepare(args, seed)
        print('the unchanged code passes; its tests take %.0f s' % sum(shops[0].plain.times.values()), flush=True)
        if args.only:
            drawn = [drawn[int(number)] for number in args.only.split(',')]
        tally = Tally(drawn, len(drawn) if args.only else args.count)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for future in [pool.submit(work, shop, tally) for shop in shops]:
                future.result()
    except Failed as failure:
        print(failure)
        return 2
    print_result(tally, seed)
    return 0


if __name__ == '__main__':
    sys.exit(main())
