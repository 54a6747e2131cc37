#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the seeds of the fuzzers out of the recipes of tests/images: one input each, in the form of files.h.

    tests/fuzz/seeds.py OUT                     makes OUT/qcow2, OUT/vhd and OUT/chain
    tests/fuzz/seeds.py --text KIND INPUT       prints an input as text

What a fuzzer has found and a recipe cannot say stands as such a text in tests/fuzz/findings, and is a seed, too:
comments; `kind KIND`; for each file `file NAME SIZE` (the name as in a URL) and its records, `OFFSET BYTES` (hex, or
text:WORD), where a line that begins with a blank goes on with the bytes of the one before.

A recipe with one image is a seed of its format, one with several files a seed of the chains; each of its runs is a
seed.  What is too large to be fuzzed at some speed is left out.  The usual cluster of 64 KiB makes a fuzzer slow, since
each look-up goes through a page of that size: recipes that do not care for the size are used with clusters of 512
bytes as well.
"""
import glob
import os
import re
import struct
import sys
import tempfile
from urllib.parse import quote, unquote_to_bytes

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))

from recipe import Recipe, RecipeError, number                          # noqa: E402

SEED_MAX = 16 << 10
READ_MAX = 4 << 20
CUTS = (16 << 10, 4 << 10, 1 << 10, 512)       # the longest record; what is behind is zeros then
FILES_MAX, RECORDS_MAX, NAME_MAX = 40, 256, 32
SHRUNK_MAX = 1 << 30
GAP = 64                # zeros between two records
LINE = 96               # digits on a line
SOMETHING = re.compile(b'[^\\0]')


def data_of(fd, size):
    """(start, bytes) of all that the file system does not call a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        if at - start > READ_MAX:
            raise ValueError('too large')
        yield start, os.pread(fd, at - start, start)


def records_of(start, data):
    """The parts of data that are not zero, with short gaps left in."""
    at = 0
    while True:
        found = SOMETHING.search(data, at)
        if not found:
            return
        at = found.start() - found.start() % GAP
        end = data.find(bytes(GAP), at)
        end = len(data) if end < 0 else end
        end += -end % GAP
        yield start + at, data[at:end]
        at = max(end, at + GAP)


def print_file(name, size, records):
    if len(records) > RECORDS_MAX or len(name) > NAME_MAX:
        raise ValueError('too much')
    out = struct.pack('<B%dsQH' % len(name), len(name), name, size, len(records))
    return out + b''.join(struct.pack('<QI', start, len(data)) + data for start, data in records)


def print_paths(paths):
    """The files with all that is in them, if that is short enough; else guest data is what suffers most."""
    files = []
    for path in paths:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            records = [record for start, data in data_of(file.fileno(), size) for record in records_of(start, data)]
        files.append((os.path.basename(path).encode(), size, records))
    for cut in CUTS:
        parts = [print_file(name, size, [(start, data[:cut]) for start, data in records])
                 for name, size, records in files]
        if sum(map(len, parts)) <= SEED_MAX:
            return parts
    raise ValueError('too large')


def print_options(options):
    text = '\n'.join('force-share' if option == '-U' else option[2:] for option in options).encode()
    return [print_file(b'options', len(text), [(0, text)])] if text else []


def seed_of(recipe, run):
    """(kind, input) of a run of a built recipe."""
    if not os.path.isfile(recipe.place(run.image)):
        raise ValueError('no plain file')
    paths = [recipe.place(run.image)]
    paths += [recipe.place(name) for name in recipe.files
              if recipe.place(name) != paths[0] and os.path.isfile(recipe.place(name))]
    if len(paths) > FILES_MAX:
        raise ValueError('too many files')
    parts = print_paths(paths)
    with open(paths[0], 'rb') as file:
        kind = 'qcow2' if file.read(4) == b'QFI\xfb' else 'vhd'
    return 'chain' if len(paths) > 1 else kind, b''.join(parts + print_options(run.options))


def shrunk(text):
    """The same recipe with clusters of 512 bytes and a disk that is smaller by as much, or None."""
    lines, changed = [], False
    if any(number(size) > SHRUNK_MAX for size in re.findall(r'\b(?:size|gap)=(\S+)', text)):
        return None                     # the tables would become too large
    for line in text.splitlines():
        if re.match(r'(qcow2|chain) ', line) and 'cluster_bits=' not in line and 'extended_l2' not in line:
            line = re.sub(r'\bsize=(\S+)', lambda size: 'size=%d' % max(512, number(size[1]) // 128), line)
            line += ' cluster_bits=9'
            changed = True
        lines.append(line)
    return '\n'.join(lines) + '\n' if changed else None


def make_seeds(path, suffix, out):
    """Write the seeds of one recipe; returns how many."""
    made = 0
    recipe = Recipe(path)
    try:
        recipe.build()
        for index, run in enumerate(recipe.runs):
            try:
                kind, data = seed_of(recipe, run)
            except (ValueError, OSError):
                continue
            name = recipe.name + suffix + ('.%d' % (index + 1) if index else '')
            with open(os.path.join(out, kind, name), 'wb') as seed:
                seed.write(data)
            made += 1
    except (RecipeError, ValueError, OSError):
        pass
    finally:
        if hasattr(recipe, 'out'):
            recipe.close()
    return made


def finding_of(path):
    """(kind, input) of a text."""
    kind, files = None, []
    with open(path, encoding='utf-8') as text:
        for line in text:
            words = line.split()
            if not words or words[0].startswith('#'):
                continue
            if words[0] == 'kind':
                kind = words[1]
            elif words[0] == 'file':
                files.append((unquote_to_bytes(words[1]), int(words[2], 0), []))
            elif line[0] == ' ':
                start, data = files[-1][2].pop()
                files[-1][2].append((start, data + bytes.fromhex(words[0])))
            else:
                data = words[1][5:].encode() if words[1].startswith('text:') else bytes.fromhex(words[1])
                files[-1][2].append((int(words[0], 0), data))
    return kind, b''.join(print_file(*file) for file in files)


def print_text(kind, data):
    """As far as the input can be made out, as in files.c."""
    print('kind', kind)
    at = 0

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, data, at - struct.calcsize(form))

    try:
        while at < len(data):
            length, = take('<B')
            name, size, records = take('<%dsQH' % length)
            print('file', quote(name), size)
            for _ in range(records):
                start, length = take('<QI')
                digits = take('%ds' % min(length, len(data) - at))[0].hex()
                lines = [digits[n:n + LINE] for n in range(0, len(digits), LINE)] or ['text:']
                print('%#x %s' % (start, '\n    '.join(lines)))
    except struct.error:
        print('# It ends in the middle.')


def main():
    if sys.argv[1] == '--text':
        with open(sys.argv[3], 'rb') as file:
            return print_text(sys.argv[2], file.read())
    made, out = 0, sys.argv[1]
    for kind in ('qcow2', 'vhd', 'chain'):
        os.makedirs(os.path.join(out, kind), exist_ok=True)
    for path in sorted(glob.glob(os.path.join(HERE, 'findings', '*.input'))):
        kind, data = finding_of(path)
        with open(os.path.join(out, kind, 'finding-' + os.path.basename(path)[:-len('.input')]), 'wb') as seed:
            seed.write(data)
        made += 1
    with tempfile.TemporaryDirectory() as work:
        for path in sorted(glob.glob(os.path.join(HERE, '..', 'images', '*.recipe'))):
            made += make_seeds(path, '', out)
            with open(path, encoding='utf-8') as recipe:
                text = shrunk(recipe.read())
            if text:
                small = os.path.join(work, os.path.basename(path))
                with open(small, 'w', encoding='utf-8') as recipe:
                    recipe.write(text)
                made += make_seeds(small, '-small', out)
    print('%d seeds' % made)


if __name__ == '__main__':
    main()
