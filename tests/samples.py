#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that this project did not make: written by Windows, Virtual PC, Disk2vhd and old QEMUs.

Whoever writes both the images and the reader may misread the format twice in the same way.  These six come from the test
data of dfvfs, plaso and QEMU's iotests.  They are looked for in ../shared/samples next to the source tree, or in the
folder that VD_SAMPLES names, as NAME.xz; without them the test is skipped.  Each is unpacked and its whole disk hashed:
copied by vdcat, read through a mounted directory and through a mounted file.
"""
import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

import oracle
import resolver
from oracle import Failure, Mount, Programs, run
from tap import Tap

# name: (virtual size, SHA-256 of the disk, or None where it is all zeros and too large to hash)
SAMPLES = {
    'fat-parent.vhd': (4194304, 'bbdb657bc5aa2fde44e2456149f9257a862cb84f4668e338b90e357b0fbdf118'),
    'fat-differential.vhd': (4194304, 'f4b61a33ee2f7e8c19f737792a4107e46340026a9a829e4169b751901cc3ef02'),
    'ntfs-dynamic.vhd': (4194304, '8b10b52e3d1e76075d05a5101a6536b9fa8376a5b8f7c22f502d0987d165c876'),
    'virtualpc-dynamic.vhd': (136365211648, None),
    'd2v-zerofilled.vhd': (263454720, '1ba076be94a8a64541c25aae8d5a5f8b0da758c3797af597e03acb431ff8d143'),
    'vsstest.qcow2': (1073741824, '5cba558cfac0916cae697d2231dc1e17874aa262f2890f5236fb9c90b9610d0a'),
}
NEEDS = {'fat-differential.vhd': ['fat-parent.vhd']}
SETTINGS = bytes.fromhex('0c0000000fb201286988569b')        # System Volume Information/WPSettings.dat of fat-differential
TIME_LIMIT = 120


def sample_folder():
    """The folder with the images, or None."""
    top = os.environ.get('top_srcdir') or os.environ.get('srcdir') or os.path.dirname(oracle.HERE)
    for folder in (os.environ.get('VD_SAMPLES'), os.path.join(top, '..', 'shared', 'samples'),
                   os.path.join(oracle.HERE, '..', '..', 'shared', 'samples')):
        if folder and os.path.isdir(folder) and any(os.path.exists(os.path.join(folder, n + '.xz')) for n in SAMPLES):
            return folder
    return None


def unpack(folder, name, target):
    with open(os.path.join(target, name), 'wb') as out:
        subprocess.run(['xz', '-dc', os.path.join(folder, name + '.xz')], stdout=out, timeout=TIME_LIMIT, check=True)


def check_disk(path, size, digest):
    """Size and hash of a disk; for the one without a hash, that it is one hole."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(fd).st_size != size:
            raise Failure('%s: size %d, expected %d' % (path, os.fstat(fd).st_size, size))
        if digest is None:
            ranges = oracle.walk(fd, size)
            places = [0, size // 3, size - (1 << 20)]
            if ranges or any(any(os.pread(fd, 1 << 20, at)) for at in places):
                raise Failure('%s: not one hole: %s' % (path, ranges[:4]))
            return
        total, at = hashlib.sha256(), 0
        while at < size:
            data = os.pread(fd, 1 << 20, at)
            if not data:
                raise Failure('%s: ends at %d' % (path, at))
            total.update(data)
            at += len(data)
        if total.hexdigest() != digest:
            raise Failure('%s: SHA-256 %s, expected %s' % (path, total.hexdigest(), digest))
    finally:
        os.close(fd)


def by_vdcat(programs, image, name, work):
    size, digest = SAMPLES[name]
    out = os.path.join(work, 'out.raw')
    try:
        status, text, log = run(programs.vdcat, image, out, limit=TIME_LIMIT)
        if status:
            raise Failure('exit status %d: %s' % (status, log))
        told, data, eio = oracle.parse_cat(text)
        if told != size or eio or (digest is None and data):
            raise Failure('vdcat says %s' % text[:500])
        check_disk(out, size, digest)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(out)


def by_map(programs, image):
    status, text, log = run(programs.vdimap, image)
    wanted = resolver.open_disk(image).json()
    if status or text != wanted:
        raise Failure('exit status %d: got %s, expected %s; %s' % (status, text[:600], wanted[:600], log))


def by_directory(programs, image, name, work):
    point = os.path.join(work, 'directory')
    os.makedirs(point, exist_ok=True)
    stem = os.path.splitext(name)[0]
    with Mount(programs, [], image, point):
        check_disk(os.path.join(point, stem + '.raw'), *SAMPLES[name])
        with open(os.path.join(point, stem + '.intervals.json'), encoding='ascii') as file:
            if file.read() != resolver.open_disk(image).json():
                raise Failure('the sidecar is not the expected map')


def by_file(programs, image, name, work):
    point = os.path.join(work, 'file')
    with open(point, 'wb'):
        pass
    with Mount(programs, [], image, point):
        check_disk(point, *SAMPLES[name])


def on_itself(programs, image, name, _work):
    """The mountpoint may be the image's own path."""
    with Mount(programs, [], image, image):
        check_disk(image, *SAMPLES[name])


def fat_file(programs, image, work):
    """The file whose bytes a reader that mishandles bitmap bits shows as zeros."""
    out = os.path.join(work, 'fat.raw')
    run(programs.vdcat, image, out)
    with open(out, 'rb') as file:
        disk = file.read()
    if SETTINGS not in disk:
        raise Failure('its bytes are nowhere on the disk')
    if shutil.which('mtype') is None:
        return
    start = int.from_bytes(disk[454:458], 'little') * 512 if disk[54:57] != b'FAT' else 0
    done = subprocess.run(['mtype', '-i', '%s@@%d' % (out, start), '::System Volume Information/WPSettings.dat'],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIME_LIMIT, check=False,
                          env={**os.environ, 'MTOOLS_SKIP_CHECK': '1'})
    if done.stdout != SETTINGS:
        raise Failure('mtype reads %s, expected %s; %s' % (done.stdout.hex(), SETTINGS.hex(), done.stderr.decode()))


def claim(tap, text, check, *rest):
    try:
        check(*rest)
    except (Failure, OSError, subprocess.SubprocessError, resolver.Refused) as error:
        tap.ok(False, text, str(error))
    else:
        tap.ok(True, text)


def check_sample(tap, programs, folder, name, no_mounts):
    with tempfile.TemporaryDirectory(prefix='vd-samples-') as work:
        images = os.path.join(work, 'images')
        os.mkdir(images)
        for needed in [name] + NEEDS.get(name, []):
            unpack(folder, needed, images)
        image = os.path.join(images, name)
        claim(tap, '%s: vdcat copies the right disk' % name, by_vdcat, programs, image, name, work)
        claim(tap, '%s: vdimap prints the right map' % name, by_map, programs, image)
        if name == 'fat-differential.vhd':
            claim(tap, '%s: WPSettings.dat has its bytes' % name, fat_file, programs, image, work)
        forms = [('a mounted directory', by_directory), ('a mounted file', by_file)]
        if name == 'ntfs-dynamic.vhd':
            forms.append(('a mount over the image itself', on_itself))
        for words, check in forms:
            text = '%s: %s shows the right disk' % (name, words)
            if no_mounts:
                tap.skip(text, no_mounts)
            else:
                claim(tap, text, check, programs, image, name, work)


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    args = parser.parse_args()
    folder = sample_folder()
    if folder is None:
        print('1..0 # SKIP no sample images')
        return 0
    if shutil.which('xz') is None:
        print('1..0 # SKIP xz is not installed')
        return 0
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap', 'vdcat'):
        return tap.bail('not built: ' + ', '.join(programs.missing('vdimap', 'vdcat')))
    no_mounts = 'vdifs is not built' if programs.vdifs is None else oracle.mounts_work()
    for name in SAMPLES:
        if os.path.exists(os.path.join(folder, name + '.xz')):
            check_sample(tap, programs, folder, name, no_mounts)
        else:
            tap.skip(name, 'not in the folder of samples')
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
