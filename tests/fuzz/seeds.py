#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the seeds of the fuzzers out of the recipes of tests/images: one input each, in the form of files.h.

    tests/fuzz/seeds.py OUT         makes OUT/qcow2, OUT/vhd and OUT/chain

A recipe with one image is a seed of its format, one with several files a seed of the chains.  The first file of an
input is the one that is opened.  What is too large to be fuzzed at some speed is left out.
"""
import glob
import os
import struct
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))

from recipe import Recipe, RecipeError                                  # noqa: E402

SEED_MAX = 64 << 10
FILES_MAX, RECORDS_MAX, NAME_MAX = 8, 256, 32
GAP = 64                # zeros between two records


def data_of(fd, size):
    """(start, bytes) of all that the file system does not call a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        if at - start > 64 * SEED_MAX:
            raise ValueError('too large')
        yield start, os.pread(fd, at - start, start)


def records_of(start, data):
    """The parts of data that are not zero, with short gaps left in."""
    at = 0
    while True:
        while data[at:at + GAP] == bytes(len(data[at:at + GAP])) and at < len(data):
            at += GAP
        if at >= len(data):
            return
        end = data.find(bytes(GAP), at)
        end = len(data) if end < 0 else end
        end += -end % GAP
        yield start + at, data[at:end]
        at = max(end, at + GAP)


def print_file(path, name):
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        records = [record for start, data in data_of(file.fileno(), size) for record in records_of(start, data)]
    if len(records) > RECORDS_MAX or len(name) > NAME_MAX:
        raise ValueError('too much')
    out = struct.pack('<B%dsQH' % len(name), len(name), name, size, len(records))
    return out + b''.join(struct.pack('<QI', start, len(data)) + data for start, data in records)


def seed_of(recipe):
    """(kind, input) of a built recipe."""
    first = recipe.runs[-1].image
    if not os.path.isfile(recipe.place(first)):
        raise ValueError('no plain file')
    names = [first] + [name for name in recipe.files if name != first and os.path.isfile(recipe.place(name))]
    if len(names) > FILES_MAX:
        raise ValueError('too many files')
    parts = [print_file(recipe.place(name), os.path.basename(recipe.place(name)).encode()) for name in names]
    if sum(map(len, parts)) > SEED_MAX:
        raise ValueError('too large')
    with open(recipe.place(first), 'rb') as file:
        kind = 'qcow2' if file.read(4) == b'QFI\xfb' else 'vhd'
    return 'chain' if len(names) > 1 else kind, b''.join(parts)


def main():
    made = 0
    for kind in ('qcow2', 'vhd', 'chain'):
        os.makedirs(os.path.join(sys.argv[1], kind), exist_ok=True)
    for path in sorted(glob.glob(os.path.join(HERE, '..', 'images', '*.recipe'))):
        recipe = Recipe(path)
        try:
            kind, data = seed_of(recipe.build())
        except (RecipeError, ValueError, OSError):
            continue
        finally:
            if hasattr(recipe, 'out'):
                recipe.close()
        with open(os.path.join(sys.argv[1], kind, recipe.name), 'wb') as out:
            out.write(data)
        made += 1
    print('%d seeds' % made)


if __name__ == '__main__':
    main()
