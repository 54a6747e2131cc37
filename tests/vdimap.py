#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vdimap prints besides the map: other forms of it, dirty bitmaps, and facts about the image.

    tests/vdimap.py [--builddir DIR] [WORD...]         only the claims that have one of the words

The map itself is held to two readers by oracle.py, which compares --qemu as well; what has changed, by changes.py.
"""
import argparse
import contextlib
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, 'lib'), os.path.join(HERE, 'mount')]

import fragmented                                                              # noqa: E402
import oracle                                                                  # noqa: E402
import schema                                                                  # noqa: E402
from oracle import Failure, Programs, run                                      # noqa: E402
from qcow2_writer import Qcow2                                                 # noqa: E402
from tap import Tap, effort, sanitized                                                 # noqa: E402
from vhd_writer import Vhd                                                     # noqa: E402

MIB = 1 << 20
TIME_LIMIT = 120
MEMORY_LIMIT = 96 * MIB                  # of which 32 MiB are the cache of metadata
EXTENSION_BITMAPS = struct.pack('>I', 0x23852875)


def tool(*command, folder=None):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=TIME_LIMIT, check=False, cwd=folder)
    if done.returncode:
        raise Failure('%s: %s' % (' '.join(command), done.stderr.decode(errors='replace')))
    return done.stdout.decode()


def same(what, got, want):
    if got != want:
        raise Failure('%s: got %r, expected %r' % (what, str(got)[:1500], str(want)[:1500]))


class Bench:
    """A folder and the program."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *words):
        """Standard output of a run that must succeed without a word."""
        status, text, log = run(self.program, *words, limit=TIME_LIMIT)
        if status or log:
            raise Failure('vdimap %s: exit status %d: %s' % (' '.join(words), status, log))
        return text

    def fails(self, pattern, *words, out='', wanted=1):
        """That exit status, one line that says what is wrong, and nothing on standard output."""
        status, text, log = run(self.program, *words, limit=TIME_LIMIT)
        if status != wanted or not re.search(pattern, log) or (out is not None and (text != out or log.count('\n') != 1)):
            raise Failure('vdimap %s: exit status %d, printed %r, said %r; expected /%s/' % (
                ' '.join(words), status, text[:300], log[:500], pattern))
        return text

    def unreadable(self, pattern, *words):
        """Exit status 3: all is printed, and a line says that parts of the disk cannot be read."""
        return self.fails(pattern, *words, out=None, wanted=3)

    def create(self, name, size, *options):
        path = self.path(name)
        tool('qemu-img', 'create', '-q', '-f', 'qcow2', *options, path, str(size), folder=self.folder)
        return path

    def write(self, path, *commands):
        tool('qemu-io', *[word for command in commands for word in ('-c', command)], path, folder=self.folder)


def small(bench):
    """One image with a bit of all: data, a zero cluster, compressed data, holes, a partial last cluster."""
    image = Qcow2(bench.path('small.qcow2'), 20 * 65536 + 512, cluster_bits=16)
    for cluster, kind, data in ((0, 'data', 0x41), (1, 'zero_alloc', 0x42), (2, 'zero', None), (3, 'compressed', b'C' * 999),
                                (7, 'data', 0x44), (8, 'data', 0x45), (20, 'data', 0x46)):
        image.set(cluster, kind, data)
    image.write()
    return image.path


# Forms of the map

def legacy_list(bench):
    """The text of `vhd-tool read_headers`, which the pairs have replaced."""
    image = Vhd(bench.path('legacy.vhd'), 33562624)
    for block in (0, 1, 2, 13, 14, 15):
        image.set_block(block, 0x41)
    image.write()
    same('--clusters', bench.run('--clusters', image.path),
         '{"virtual_size":33562624,"cluster_bits":21,"data_clusters":[0,1,2,13,14,15]}')
    same('--clusters of nothing', bench.run('--clusters', bench.create('none.qcow2', MIB)),
         '{"virtual_size":1048576,"cluster_bits":16,"data_clusters":[]}')


def coarser(bench):
    image = small(bench)
    clusters = [0, 3, 7, 8, 20]
    for bits in (16, 17, 18, 19, 20, 21, 40, 62):
        want = sorted({c >> (bits - 16) for c in clusters})
        got = json.loads(bench.run('--clusters', '--cluster-bits=%d' % bits, image))
        same('%d bits' % bits, got, {'virtual_size': 20 * 65536 + 512, 'cluster_bits': bits, 'data_clusters': want})
    same('the pairs', bench.run('--cluster-bits=17', image),
         '{"virtual_size":1311232,"cluster_bits":17,"data_clusters":[[0,1],[3,4],[10,10]]}')
    for wrong in ('0', '8', '63', '-1', '16x', '', '99999999999999999999'):
        bench.fails('from 9 to 62', '--cluster-bits=' + wrong, image, wanted=2)


def finer(bench):
    """Down to a sector: a VHD knows its sectors, whatever its blocks are."""
    same('a cluster in sectors', json.loads(bench.run('--cluster-bits=9', small(bench)))['data_clusters'],
         [[0, 127], [384, 511], [896, 1151], [2560, 2560]])
    old, new = bench.path('old.vhd'), bench.path('new.vhd')
    for path, sectors in ((old, [(3, 3), (100, 200)]), (new, [(3, 3), (100, 200), (4000, 4001)])):
        image = Vhd(path, 8 * MIB)
        image.set_block(1, 0x41, bitmap=sectors)
        image.write()
    same('a map of sectors', json.loads(bench.run('--cluster-bits=9', new))['data_clusters'],
         [[4099, 4099], [4196, 4296], [8096, 8097]])
    same('a map of blocks', json.loads(bench.run(new))['data_clusters'], [[1, 1]])
    same('what differs, by blocks', json.loads(bench.run('--diff=' + old, '--compare', new))['data_clusters'], [[1, 1]])
    same('by sectors', json.loads(bench.run('--diff=' + old, '--compare', '--cluster-bits=9', new)),
         {'virtual_size': 8 * MIB, 'cluster_bits': 9, 'data_clusters': [[8096, 8097]]})
    same('by 4 KiB', json.loads(bench.run('--diff=' + old, '--compare', '--cluster-bits=12', new))['data_clusters'], [[1012, 1012]])
    same('what may differ, by sectors', json.loads(bench.run('--diff=' + old, '--cluster-bits=9', new))['data_clusters'],
         [[4099, 4099], [4196, 4296], [8096, 8097]])


def table(bench):
    lines = bench.run('--text', small(bench)).splitlines()
    rows = [line.split() for line in lines[1:-1]]
    same('rows', [(int(r[0]), int(r[1]), r[-1]) for r in rows],
         [(0, 65536, 'data'), (65536, 196608, 'hole'), (196608, 262144, 'data'), (262144, 458752, 'hole'),
          (458752, 589824, 'data'), (589824, 1310720, 'hole'), (1310720, 1311232, 'data')])
    same('lengths', [' '.join(r[2:-1]) for r in rows], ['64 KiB', '128 KiB', '64 KiB', '192 KiB', '128 KiB', '704 KiB', '512 B'])
    same('the sum', lines[-1], 'data: 256.5 KiB of 1.25 MiB (20.0 %) in 4 ranges')
    lines = bench.run('--text', bench.create('empty.qcow2', 0)).splitlines()
    same('no disk', lines[1:], ['data: 0 B of 0 B (0.0 %) in 0 ranges'])


def qemu_same(bench, path, *options):
    """The text is that of the qemu-img that is installed, which has the member "compressed" since QEMU 8.2."""
    ours = bench.run('--qemu', path, *options)
    version = re.search(r'version (\d+)\.(\d+)', tool('qemu-img', '--version'))
    if tuple(map(int, version.groups())) < (8, 2):
        ours = re.sub(', "compressed": (true|false)', '', ours)
    theirs = tool('qemu-img', 'map', '--output=json', path, folder=bench.folder)
    same('--qemu ' + os.path.basename(path), ours, theirs)


def qemu_text(bench):
    """Not only equal when parsed: the same text."""
    qemu_same(bench, small(bench))
    base = bench.create('base.qcow2', 3 * MIB)
    bench.write(base, 'write -P 1 0 64k', 'write -z 128k 64k', 'write -P 3 192k 64k', 'write -z 192k 64k', 'write -c 320k 64k')
    middle = bench.create('middle.qcow2', 2 * MIB, '-b', base, '-F', 'qcow2', '-o', 'cluster_size=4k')
    bench.write(middle, 'write 700k 5k', 'write -z 0 8k')
    top = bench.create('top.qcow2', 4 * MIB, '-b', middle, '-F', 'qcow2', '-o', 'extended_l2=on')
    bench.write(top, 'write 512k 4k', 'write -z 520k 2k')
    for path in (base, middle, top):
        qemu_same(bench, path)
    qemu_same(bench, bench.create('empty.qcow2', 0))
    qemu_same(bench, bench.create('hole.qcow2', 1 << 40))


def qemu_holes_of_files(bench):
    """QEMU looks for holes of the file where the metadata was made in advance, in fixed VHDs and in raw files."""
    for number, options in enumerate(('preallocation=metadata', 'preallocation=metadata,extended_l2=on',
                                      'preallocation=metadata,refcount_bits=1', 'preallocation=metadata,refcount_bits=64',
                                      'preallocation=metadata,cluster_size=2M', 'preallocation=metadata,cluster_size=512',
                                      'preallocation=falloc', 'preallocation=full')):
        path = bench.create('made%d.qcow2' % number, 9 * MIB, '-o', options)
        qemu_same(bench, path)
        bench.write(path, 'write 1M 100k', 'write 5M 1M')
        qemu_same(bench, path)
    raw = bench.path('base.raw')
    with open(raw, 'wb') as out:
        out.truncate(8 * MIB)
        out.seek(MIB)
        out.write(b'R' * 70000)
    qemu_same(bench, bench.create('over.qcow2', 8 * MIB, '-b', raw, '-F', 'raw'))


def refcounts_hostile(bench):
    """Only holes of the file hang on the reference counts: whatever they say, the rest is told."""
    image = small(bench)
    want = bench.run('--qemu', image)
    with open(image, 'rb') as file:
        whole = file.read()
    table = struct.unpack_from('>Q', whole, 48)[0]
    block = struct.unpack_from('>Q', whole, table)[0]
    for at, data in ((96, b'\xff' * 4), (96, struct.pack('>I', 7)), (96, struct.pack('>I', 6)), (96, bytes(4)), (48, b'\xff' * 8),
                     (48, struct.pack('>Q', 1 << 40)), (48, bytes(8)), (56, b'\xff' * 4), (56, struct.pack('>I', 128)),
                     (table, b'\xff' * 8), (table, struct.pack('>Q', block) * 8192), (table, bytes(8)), (block, bytes(65536))):
        path = bench.path('hostile.qcow2')
        with open(path, 'wb') as out:
            out.write(whole[:at] + data + whole[at + len(data):])
        same('%r at %d' % (data[:8], at), bench.run('--qemu', path), want)


def refcounts_endless(bench):
    """A sparse file whose table of reference counts names one block a million times: the work is bounded by what the file holds."""
    path = bench.create('endless.qcow2', MIB, '-o', 'cluster_size=512,refcount_bits=1')
    with open(path, 'r+b') as image:
        image.seek(0, 2)
        block = -(-image.tell() // 512) * 512
        image.seek(block)
        image.write(bytes(512) + struct.pack('>Q', block) * MIB)
        image.seek(48)
        image.write(struct.pack('>QI', block + 512, 16384))
        image.truncate(15 << 40)
    before = os.times().children_user
    bench.run('--qemu', path)
    took = os.times().children_user - before
    if took > (10 if sanitized(bench.program) else 2):
        raise Failure('it takes %.1f s' % took)


def tables_in_holes(bench):
    """L2 tables of 2 MiB that lie in a hole of the file, the last entry of the last one set: of each, few pages are read."""
    count, cluster = 500, 2 * MIB
    path = bench.create('hollow.qcow2', count << 39, '-o', 'cluster_size=2M')
    with open(path, 'r+b') as image:
        image.seek(40)
        l1, = struct.unpack('>Q', image.read(8))
        start = -(-os.fstat(image.fileno()).st_size // cluster) * cluster
        image.seek(l1)
        image.write(b''.join(struct.pack('>Q', 1 << 63 | start + table * cluster) for table in range(count)))
        image.seek(start + count * cluster - 8)
        image.write(struct.pack('>Q', 1 << 63 | start + count * cluster) + b'x' * cluster)
        image.truncate(start + (count + 1) * cluster)
    process = subprocess.Popen([bench.program, path], stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with open('/proc/%d/io' % process.pid, encoding='ascii') as file:
        read = int(re.search(r'rchar: (\d+)', file.read()).group(1))
    same('the exit status', process.wait(), 0)
    same('the last cluster', json.loads(text)['data_clusters'], [[count * 262144 - 1, count * 262144 - 1]])
    if read > count * cluster // 4:
        raise Failure('%d MiB are read' % (read // MIB))


def qemu_cut(bench):
    """The file ends within its last cluster: data to QEMU, zeros to us, no entry of its own in this form."""
    path = bench.create('cut.qcow2', MIB)
    bench.write(path, 'write 0 64k', 'write 64k 64k')
    os.truncate(path, os.path.getsize(path) - 5 * 4096)
    qemu_same(bench, path)


def qemu_cut_vhd(bench):
    """A VHD whose last block ends in the footer is damaged: what is missing is data without an offset, where QEMU has one."""
    path = bench.path('cut.vhd')
    tool('qemu-img', 'create', '-q', '-f', 'vpc', '-o', 'subformat=dynamic', path, '8M')
    tool('qemu-io', '-f', 'vpc', '-c', 'write -q -P 65 4M 2M', path)
    with open(path, 'r+b') as image:
        image.seek(-512, 2)
        footer = image.read()
        image.seek(-1024, 2)
        image.write(footer)
        image.truncate()
    entries = json.loads(bench.unreadable('the file ends inside VHD block 2', '--qemu', path))
    same('the entries with data', [(e['start'], e['length'], 'offset' in e) for e in entries if e['data']],
         [(4 * MIB, 2 * MIB - 512, True), (6 * MIB - 512, 512, False)])


def chart(bench):
    """A character a cell: columns and rows from the window, shades from what the cells hold."""
    path = bench.create('chart.qcow2', 64 * MIB)
    bench.write(path, 'write 0 32M', 'write 48M 64k')
    environment = dict(os.environ, COLUMNS='75', LC_ALL='C')      # room for 64 cells
    done = subprocess.run([bench.program, '--chart', path], env=environment, stdout=subprocess.PIPE, timeout=TIME_LIMIT,
                          stderr=subprocess.PIPE, check=True)
    lines = done.stdout.decode('ascii').splitlines()
    cells = ''.join(line[11:] for line in lines[:-2])
    same('cells', (len(lines), len(cells), cells[:512], cells[512:].strip('.')), (18, 1024, '#' * 512, '#'))
    same('labels', [line[:10].strip() for line in lines[:-2]], ['0 B'] + ['%d MiB' % (4 * row) for row in range(1, 16)])
    same('the line with data', cells.rindex('#'), 768)
    same('the sum', lines[-1].strip(), 'data: 32.06 MiB of 64 MiB (50.1 %) in 2 ranges, 64 KiB a block')
    utf8 = subprocess.run([bench.program, '--chart', path], env=dict(environment, LC_ALL='C.UTF-8'), stdout=subprocess.PIPE,
                          timeout=TIME_LIMIT, check=True).stdout.decode()
    same('blocks', (utf8.count('\u2588'), '#' in utf8, '\033' in utf8), (514, False, False))
    bench.run('--chart', bench.create('empty.qcow2', 0))
    steps = ['%d KiB' % (256 * row) for row in range(1, 4)]
    for size, want in ((3000832, ['0 B'] + steps + ['1 MiB', '1.25 MiB', '1.5 MiB', '1.75 MiB', '2 MiB', '2.25 MiB', '2.5 MiB', '2.75 MiB']),
                       (1900544, ['0 B'] + ['%d KiB' % (128 * row) for row in range(1, 15)])):
        text = subprocess.run([bench.program, '--chart', bench.create('labels.qcow2', size)], env=environment, stdout=subprocess.PIPE,
                              timeout=TIME_LIMIT, check=True).stdout.decode('ascii')
        same('exact labels', [line[:10].strip() for line in text.splitlines()[:-2]], want)
    path = bench.create('sum.qcow2', 512 * MIB, '-o', 'cluster_size=4096')
    bench.write(path, 'write 0 8M', 'write 300M 4k')
    same('a sum has no zeros behind the point', bench.run('--text', path).splitlines()[-1], 'data: 8 MiB of 512 MiB (1.6 %) in 2 ranges')


def read_terminal(parent, child):
    """All that the process, which has the child's side by now, writes there until its end."""
    os.close(child)
    text = b''
    with contextlib.suppress(OSError):
        while True:
            part = os.read(parent, 65536)
            if not part:
                break
            text += part
    os.close(parent)
    return text


def terminal(program, *words, columns=60):
    """What a program writes to a terminal of some width; stdout and stderr are the same one."""
    parent, child = pty.openpty()
    import fcntl
    import termios
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack('HHHH', 10, columns, 0, 0))
    process = subprocess.Popen([program, *words], stdin=subprocess.DEVNULL, stdout=child, stderr=child,
                               env=dict(os.environ, TERM='xterm', LC_ALL='C.UTF-8'))
    text = read_terminal(parent, child)
    if process.wait(TIME_LIMIT):
        raise Failure('%s: exit status %d: %r' % (words, process.returncode, text[:500]))
    return text.decode()


def chart_in_terminal(bench):
    path = bench.create('chart.qcow2', 64 * MIB)
    bench.write(path, 'write 0 8M')
    text = terminal(bench.program, '--chart', path)
    rows = [re.sub('\033\\[[0-9;]*m', '', line) for line in text.replace('\r', '').splitlines()]
    same('rows and columns', (len(rows), {len(row) for row in rows[:-2]}), (6, {11 + 32}))
    if '\033[33m' not in text or not text.replace('\r', '').endswith('block\n'):
        raise Failure('no colours: %r' % text[:300])
    same('a newline on a terminal', terminal(bench.program, path).count('\n'), 1)


def picture(bench):
    """SVG that a parser accepts; its squares are as many as the disk has cells; names cannot break it."""
    path = bench.path('a<b&c>.qcow2')
    shutil.copyfile(small(bench), path)
    svg = xml.etree.ElementTree.fromstring(bench.run('--svg', path))
    space = '{http://www.w3.org/2000/svg}'
    if not svg.findtext(space + 'title').endswith('a<b&c>.qcow2'):
        raise Failure('the title is %r' % svg.findtext(space + 'title'))
    cells = [r for r in svg.iter(space + 'rect') if r.get('height') == '9']
    same('squares', sum(int(r.get('width')) for r in cells) // 10, -(-(20 * 65536 + 512) // 1024))
    same('full squares', sum(int(r.get('width')) for r in cells if r.get('fill') == '#12406f') // 10, 4 * 64 + 1)
    same('the legend', [t.text for t in svg.iter(space + 'text')][2:], ['none', 'to 33 %', 'to 67 %', 'below 100 %', 'all'])


def constant_memory(bench):
    """Ten million intervals (short: 2.4 million) in every form, within the same memory."""
    if sanitized(bench.program):
        return 'sanitizers keep memory of their own'
    path = bench.path('many.qcow2')
    tables = effort(600, 2500, 2500)
    intervals = tables * 4096
    fragmented.write(path, fragmented.Layout(tables * 8192 * 65536, 16, tables, 2), False)
    for form, ending, count in (('--json-form', b']}', intervals), ('--clusters', b']}', intervals), ('--text', b'ranges\n', None),
                                ('--qemu', b'}]\n', None), ('--info', b'\n', None), ('--svg', b'</svg>\n', None),
                                ('--diff=' + bench.create('none.qcow2', MIB), b']}', intervals)):
        words = [] if form == '--json-form' else [form]
        out = bench.path('out')
        with open(out, 'wb') as file:
            process = subprocess.Popen([bench.program, *words, path], stdin=subprocess.DEVNULL, stdout=file)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
        with open(out, 'rb') as file:
            file.seek(-len(ending), os.SEEK_END)
            end = file.read()
            file.seek(0)
            commas = sum(part.count(b',') for part in iter(lambda f=file: f.read(MIB), b'')) if count else None
        if status or end != ending or usage.ru_maxrss * 1024 > MEMORY_LIMIT:
            raise Failure('%s: status %d, ends in %r, %d KiB of memory' % (form, status, end, usage.ru_maxrss))
        if count and commas != (2 + count - 1 if form == '--clusters' else 2 + 2 * count - 1):
            raise Failure('%s: %d commas' % (form, commas))
        os.unlink(out)
    return None


def progress(bench):
    """Over a second of work with a terminal for messages alone draws a bar and takes it away."""
    path = bench.path('many.qcow2')
    tables = 300 if sanitized(bench.program) else 1500
    fragmented.write(path, fragmented.Layout(tables * 8192 * 65536, 16, tables, 2), False)
    parent, child = pty.openpty()
    process = subprocess.Popen([bench.program, '--qemu', path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=child)
    text = read_terminal(parent, child)
    same('the exit status', process.wait(TIME_LIMIT), 0)
    if not re.search(rb'vdimap: \[#*  *\]  *\d+ %', text) or not text.endswith(b'\r\033[K'):
        raise Failure('the terminal got %r' % text[-300:])
    text = terminal(bench.program, '--chart', '--diff=' + path, path)
    if not re.match(r'\r?vdimap: \[#* *\] +\d+ %.*\r\033\[K', text, re.S) or not text.replace('\r', '').endswith('block\n'):
        raise Failure('a form that prints at its end has no bar: %r' % text[:300])


def verbose(bench):
    image = small(bench)
    status, text, log = run(bench.program, '-v', image)
    if status or text != bench.run(image) or 'layer 0: ' not in log or ' ranges' not in log or ' seconds' not in log:
        raise Failure('exit status %d, %r, %r' % (status, text, log))
    vhd = Vhd(bench.path('verbose.vhd'), 4 * MIB)
    vhd.write()
    for name in ('vpc', 'vhd'):
        _, _, log = run(bench.program, '-v', '--format=' + name, vhd.path)
        if 'verbose.vhd: vpc, 4194304 bytes' not in log:
            raise Failure("not QEMU's name of the format: %r" % log)


def command_line(bench):
    image = small(bench)
    for words, pattern in ((('--clusters', '--qemu'), 'exclude each other'), (('--json',), 'goes with --info'),
                           (('--compare',), 'need --diff'), (('--old-format=raw',), 'need --diff'),
                           (('--old-snapshot=x',), 'need --diff'), (('--diff=' + image, '--bitmap=x'), 'exclude each other'),
                           (('--qemu', '--cluster-bits=20'), 'whole image'), (('--info', '--bitmap=x'), 'whole image'),
                           (('--bitmap=x', '--snapshot=1'), 'current disk'), (('--bitmap=',), 'needs the name'),
                           (('--diff=' + image, '--old-format=vmdk'), r'--old-format=vmdk: the formats are vpc \(or vhd\), qcow2 and raw'),
                           (('--nonsense',), 'nonsense'),
                           (('--chart', '--cluster-bits=20'), 'leave --cluster-bits'), (('--svg', '--cluster-bits=20'), 'leave --cluster-bits'),
                           ((image,), 'give one image, not 2 names')):
        bench.fails(pattern, *words, image, wanted=2)
    bench.fails('give one image', wanted=2)
    bench.fails('gone.*No such file', '--diff=' + bench.path('gone'), image)
    bench.fails('gone.*No such file', bench.path('gone'))


def broken_output(bench):
    with open('/dev/full', 'wb') as full:
        for form in ('--clusters', '--qemu', '--text', '--info', '--chart', '--svg'):
            done = subprocess.run([bench.program, form, small(bench)], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
            if done.returncode != 1 or b'cannot write the map: No space left' not in done.stderr:
                raise Failure('%s: exit status %d, %r' % (form, done.returncode, done.stderr))


def damaged(bench):
    """Every form prints what it can, says how much cannot be read, and exits 3."""
    image = Qcow2(bench.path('bad.qcow2'), MIB, cluster_bits=16)
    image.set(1, 'data', 0x41)
    image.set(5, 'data', 0x42)
    image.write()
    with open(image.path, 'r+b') as out:
        out.seek(image.where('l2e[5]'))
        out.write(struct.pack('>Q', 1 << 50))
    place = 'bytes 327680 to 393215 of the disk cannot be read'
    for form in ('--clusters', '--qemu', '--text', '--info', '--chart', '--svg', '--diff=' + image.path):
        text = bench.unreadable(place, form, image.path)
        if not text:
            raise Failure('%s prints nothing' % form)
    told = json.loads(bench.unreadable(place, '--clusters', image.path))
    same('the bad cluster is listed', (told['data_clusters'], told['unreadable']), ([1, 5], [[5, 5]]))
    text = bench.unreadable(place, image.path)
    same('the map', text, '{"virtual_size":1048576,"cluster_bits":16,"data_clusters":[[1,1],[5,5]],"unreadable":[[5,5]]}')
    same('a coarser map', json.loads(bench.unreadable(place.split()[0], '--cluster-bits=18', image.path)),
         {'virtual_size': MIB, 'cluster_bits': 18, 'data_clusters': [[0, 1]], 'unreadable': [[1, 1]]})
    told = json.loads(bench.unreadable(place, '--info', '--json', image.path))
    same('facts', (told['vdifs']['unreadable'], schema.faults(told)), ([[5, 5]], []))
    text = bench.unreadable(place, '--text', image.path)
    rows = [line.split() for line in text.splitlines() if line.endswith('unreadable')]
    same('the table of what cannot be read', rows, [['327680', '393216', '64', 'KiB', 'unreadable']])


def too_many_clusters(bench):
    """An image of some KiB whose L1 entries claim 2 EiB of data: a list of them would take years."""
    image = Qcow2(bench.path('huge.qcow2'), MIB, cluster_bits=16)
    image.set(0, 'data', 0x41)
    image.write()
    entries = 1 << 13                   # each of 512 MiB, at one wrong place: 2^26 clusters
    with open(image.path, 'r+b') as out:
        host = os.path.getsize(image.path)
        out.seek(24)
        out.write(struct.pack('>Q', entries << 29))
        out.seek(36)
        out.write(struct.pack('>IQ', entries, host))
        out.seek(host)
        out.write(struct.pack('>Q', 512) * entries)
    bench.unreadable('bytes 0 to %d of' % ((entries << 29) - 1), image.path)
    bench.fails(r'huge\.qcow2: there are more clusters than the 4294967296 that --clusters lists', '--clusters',
                '--cluster-bits=9', image.path, out=None)


def much_damaged(bench):
    """At most 8 lines name ranges, and one has the count; JSON has all of them."""
    image = Qcow2(bench.path('bad.qcow2'), 4 * MIB, cluster_bits=16)
    for cluster in range(0, 60, 3):
        image.set(cluster, 'data', 0x41)
    image.write()
    with open(image.path, 'r+b') as out:
        for cluster in range(0, 60, 3):
            out.seek(image.where('l2e[%d]' % cluster))
            out.write(struct.pack('>Q', 1 << 50))
    status, text, log = run(bench.program, image.path)
    same('status and ranges', (status, json.loads(text)['unreadable']), (3, [[c, c] for c in range(0, 60, 3)]))
    lines = [line for line in log.splitlines() if re.search(r': (bytes \d+ to|\d+ ranges of) .*cannot be read', line)]
    same('lines', (len(lines), 'vdimap: %s: 20 ranges of the disk, 1310720 bytes in all, cannot be read' % image.path), (9, lines[-1]))


def exit_code(bench):
    """--exit-code: 4 if anything differs, 3 if something cannot be read, else 0."""
    image = small(bench)
    base = bench.create('none.qcow2', 20 * 65536 + 512)
    longer = bench.create('longer.qcow2', 40 * 65536)
    for old, wanted in ((image, 0), (base, 4)):
        same(old, run(bench.program, '--diff=' + old, '--exit-code', image)[0], wanted)
        same('without it', run(bench.program, '--diff=' + old, image)[0], 0)
    same('the old disk is longer', run(bench.program, '--diff=' + longer, '--exit-code', base)[0], 4)
    bench.fails('need --diff', '--exit-code', image, wanted=2)


# Dirty bitmaps

def bitmap_image(bench, name, granularity=65536, size=64 * MIB, cluster=65536, bitmap='b'):
    path = bench.create(name, size, '-o', 'cluster_size=%d' % cluster)
    tool('qemu-img', 'bitmap', '--add', '-g', str(granularity), path, bitmap)
    return path


def bitmaps(bench):
    """What QEMU has written is dirty, rounded outward to the granularity."""
    for number, (granularity, cluster) in enumerate(((65536, 65536), (512, 65536), (4096, 512), (1 << 20, 4096), (1 << 31, 65536),
                                                     (16384, 1 << 21))):
        path = bitmap_image(bench, 'bm%d.qcow2' % number, granularity, 40 * MIB + 1024, cluster)
        writes = ((0, 512), (700 * 1024, 3000 * 512), (30 * MIB, 65536), (40 * MIB, 1024))
        bench.write(path, *['write %d %d' % pair for pair in writes])
        want = sorted({c for at, length in writes for c in range(at // granularity, (at + length - 1) // granularity + 1)})
        got = json.loads(bench.run('--bitmap=b', '--clusters', path))
        same('granularity %d' % granularity, got, {'virtual_size': 40 * MIB + 1024, 'cluster_bits': granularity.bit_length() - 1,
                                                   'data_clusters': want})
        pairs = json.loads(bench.run('--bitmap=b', path))['data_clusters']
        same('pairs', [c for a, b in pairs for c in range(a, b + 1)], want)
    path = bitmap_image(bench, 'clean.qcow2')
    same('a clean one', bench.run('--bitmap=b', path), '{"virtual_size":67108864,"cluster_bits":16,"data_clusters":[]}')
    lines = bench.run('--bitmap=b', '--text', path).splitlines()
    same('its table', lines[-1], 'dirty: 0 B of 64 MiB (0.0 %) in 0 ranges')
    bench.fails("no bitmap is called 'c'.* b$", '--bitmap=c', path)
    bench.write(path, 'write 64k 512')
    same('finer than it is', json.loads(bench.run('--bitmap=b', '--cluster-bits=12', path))['data_clusters'], [[16, 31]])
    bench.fails('has none', '--bitmap=b', bench.create('without.qcow2', MIB))
    image = Vhd(bench.path('x.vhd'), MIB)
    image.write()
    bench.fails("no bitmap is called 'b'.* has none", '--bitmap=b', image.path)


def bitmap_add(bench, path, name, granularity=65536):
    tool('qemu-img', 'bitmap', '--add', '-g', str(granularity), path, name, folder=bench.folder)


def bitmaps_union(bench):
    """Those of all layers, and all that are named."""
    base = bitmap_image(bench, 'base.qcow2', 65536, 16 * MIB, bitmap='nightly')
    bench.write(base, 'write 1M 64k')
    top = bench.create('top.qcow2', 16 * MIB, '-b', base, '-F', 'qcow2')
    bench.fails(r"top.qcow2: layer 0 of the chain has no bitmap 'nightly', but layer 1 \(.*base.qcow2\) has", '--bitmap=nightly', top)
    bitmap_add(bench, top, 'nightly', 4096)
    bench.write(top, 'write 8M 4k')
    same('both layers', bench.run('--bitmap=nightly', top),
         '{"virtual_size":16777216,"cluster_bits":12,"data_clusters":[[256,271],[2048,2048]]}')
    same('coarser', json.loads(bench.run('--bitmap=nightly', '--cluster-bits=20', top))['data_clusters'], [[1, 1], [8, 8]])
    bench.fails('base.qcow2', '--backing=none', '--bitmap=nightly', top)
    bitmap_add(bench, top, 'since')
    bench.write(top, 'write 12M 64k')
    same('a bitmap of the top layer alone', json.loads(bench.run('--bitmap=since', top))['data_clusters'], [[192, 192]])
    same('two names', json.loads(bench.run('--bitmap=since', '--bitmap=nightly', '--cluster-bits=20', top))['data_clusters'],
         [[1, 1], [8, 8], [12, 12]])
    bench.fails("no bitmap is called 'other'", '--bitmap=since', '--bitmap=other', top)
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', top, '-F', 'qcow2', bench.path('three.qcow2'), folder=bench.folder)
    bitmap_add(bench, bench.path('three.qcow2'), 'nightly')
    tool('qemu-img', 'bitmap', '--remove', top, 'nightly')
    bench.fails("top.qcow2: layer 1 of the chain has no bitmap 'nightly', but layer 2", '--bitmap=nightly', bench.path('three.qcow2'))
    vhd = Vhd(bench.path('over.vhd'), 16 * MIB, kind='differencing', parent_name='base.qcow2')
    vhd.write()
    bench.fails("over.vhd: layer 0 of the chain has no bitmap 'nightly', but layer 1", '--bitmap=nightly', '--backing-file=' + base,
                '--backing-format=qcow2', vhd.path)


def bitmaps_over_vhd(bench):
    """A layer below the first one with the bitmap needs none: the checkpoint came after it."""
    vhd = Vhd(bench.path('base.vhd'), 16 * MIB)
    vhd.set_block(0, 0x41)
    vhd.write()
    top = bench.create('top.qcow2', 16 * MIB, '-b', vhd.path, '-F', 'vpc')
    bitmap_add(bench, top, 'b')
    bench.write(top, 'write 5M 64k')
    same('the top layer', json.loads(bench.run('--bitmap=b', top))['data_clusters'], [[80, 80]])


def bitmaps_stopped(bench):
    """One that does not record any more is no answer, unless another one does or somebody knows better."""
    path = bitmap_image(bench, 'd.qcow2', bitmap='monday')
    bench.write(path, 'write 1M 64k')
    tool('qemu-img', 'bitmap', '--disable', path, 'monday')
    bitmap_add(bench, path, 'tuesday')
    bench.write(path, 'write 20M 64k')
    bench.fails('recording in layer 0.*--stopped-bitmaps', '--bitmap=monday', path)
    top = bench.create('above.qcow2', 64 * MIB, '-b', path, '-F', 'qcow2')
    status, text, log = run(bench.program, '--bitmap=monday', '--stopped-bitmaps', '--without-parent', top)
    if status != 1 or text or '--bitmap needs the whole chain' not in log:
        raise Failure('without the parent: exit status %d, %r, %r' % (status, text, log))
    same('by request', json.loads(bench.run('--bitmap=monday', '--stopped-bitmaps', path))['data_clusters'], [[16, 16]])
    same('with the one after it', json.loads(bench.run('--bitmap=monday', '--bitmap=tuesday', path))['data_clusters'],
         [[16, 16], [320, 320]])
    bench.fails('goes with --bitmap', '--stopped-bitmaps', path, wanted=2)
    text = bench.run('--info', path)
    told = json.loads(bench.run('--info', '--json', path))['vdifs']['bitmaps']
    for name, recording in (('monday', False), ('tuesday', True)):
        if not re.search(r'^   0 %s +64 KiB, %srecording$' % (name, '' if recording else 'not '), text, re.M):
            raise Failure('%s: %r' % (name, text))
        same(name, [one for one in told if one['name'] == name],
             [{'depth': 0, 'name': name, 'granularity': 65536, 'recording': recording, 'valid': True}])
    over = bench.create('over.qcow2', 64 * MIB, '-b', path, '-F', 'qcow2')
    bitmap_add(bench, over, 'monday')
    bench.fails('d.qcow2: .*recording in layer 1', '--bitmap=monday', over)
    text = bench.run('--info', over)
    same('the layers of all, as text', re.findall(r'^ +(\d) (\w+) +64 KiB, (recording|not recording)$', text, re.M),
         [('0', 'monday', 'recording'), ('1', 'monday', 'not recording'), ('1', 'tuesday', 'recording')])
    same('one heading', text.count('bitmaps: (layer, name, granularity)'), 1)
    same('the layers of all', [(one['depth'], one['name'], one['recording']) for one in json.loads(
        bench.run('--info', '--json', over))['vdifs']['bitmaps']], [(0, 'monday', True), (1, 'monday', False), (1, 'tuesday', True)])


def bitmaps_invalid_below(bench):
    """One wrong layer spoils the union, also if it does not have the name any more."""
    base = bitmap_image(bench, 'base.qcow2')
    top = bench.create('top.qcow2', 64 * MIB, '-b', base, '-F', 'qcow2')
    bitmap_add(bench, top, 'b')
    p = Places(base)
    p.broken(bench, 'base.qcow2', (p.directory + 12, struct.pack('>I', 3)))
    bench.fails("base.qcow2: the bitmap 'b' of layer 1 is in use", '--bitmap=b', top)
    p.broken(bench, 'base.qcow2', (88, bytes(8)))
    bench.fails('base.qcow2: the bitmaps are not valid any more', '--bitmap=b', top)
    p.broken(bench, 'base.qcow2', (p.directory + 16, b'\2'))
    bench.fails("base.qcow2: the bitmap 'b' of layer 1 cannot be used: its type is not 1", '--bitmap=b', top)


def bitmaps_of_sizes(bench):
    """Today's size decides; what a layer cut off and a later one brought back as zeros has changed."""
    base = bitmap_image(bench, 'base.qcow2', size=10 * MIB)
    bench.write(base, 'write 1M 64k', 'write 9M 64k')
    for name, size, wanted in (('grown', 12 * MIB, [[16, 16], [144, 144]]), ('cut', 8 * MIB, [[16, 16]])):
        path = bench.create(name + '.qcow2', size, '-b', base, '-F', 'qcow2')
        bitmap_add(bench, path, 'b')
        same(name, json.loads(bench.run('--bitmap=b', path)), {'virtual_size': size, 'cluster_bits': 16, 'data_clusters': wanted})
    back = bench.create('back.qcow2', 12 * MIB, '-b', bench.path('cut.qcow2'), '-F', 'qcow2')
    bitmap_add(bench, back, 'b')
    same('cut and grown again', json.loads(bench.run('--bitmap=b', back))['data_clusters'], [[16, 16], [128, 159]])


class Places:
    """Where the structures of an image's first bitmap lie."""

    def __init__(self, path):
        self.path = path
        with open(path, 'rb') as file:
            self.bytes = file.read()
        self.extension = self.bytes.index(EXTENSION_BITMAPS, 104) + 8
        self.directory = struct.unpack_from('>Q', self.bytes, self.extension + 16)[0]
        self.table = struct.unpack_from('>Q', self.bytes, self.directory)[0]

    def broken(self, bench, name, *pokes):
        """A copy with some bytes changed: (place, bytes)."""
        out = bytearray(self.bytes)
        for at, data in pokes:
            out[at:at + len(data)] = data
        path = bench.path(name)
        with open(path, 'wb') as file:
            file.write(out)
        return path


def bitmaps_refused(bench):
    """One wrong number at a time.  The disk itself is read all the same."""
    path = bitmap_image(bench, 'good.qcow2')
    bench.write(path, 'write 0 1M')
    p = Places(path)
    end = struct.pack('>Q', (len(p.bytes) // 65536 + 9) * 65536)
    size = p.directory + 8
    cases = (
        ('autoclear bit', ((88, bytes(8)),), 'not valid any more'),
        ('in use', ((p.directory + 12, struct.pack('>I', 3)),), 'is in use'),
        ('no bitmaps', ((p.extension, bytes(4)),), '24 bytes and 0 bitmaps'),
        ('65536 bitmaps', ((p.extension, struct.pack('>I', 65536)),), '65535'),
        ('short extension', ((p.extension - 4, struct.pack('>I', 16)),), '16 bytes'),
        ('large directory', ((p.extension + 8, struct.pack('>Q', 65 << 20)),), '64 MiB'),
        ('directory size -1', ((p.extension + 8, b'\xff' * 8),), '64 MiB'),
        ('directory of 0 bytes', ((p.extension + 8, bytes(8)),), 'ends in the middle'),
        ('directory of 25 bytes', ((p.extension + 8, struct.pack('>Q', 24)),), 'leaves it'),
        ('directory past the end', ((p.extension + 16, end),), 'past the end'),
        ('directory offset -1', ((p.extension + 16, b'\xff' * 8),), 'not aligned'),
        ('directory unaligned', ((p.extension + 17, b'\1'), (p.extension + 22, b'\2')), 'not aligned'),
        ('table offset 0', ((p.directory, bytes(8)),), 'its table'),
        ('table past the end', ((p.directory, end),), 'its table'),
        ('table unaligned', ((p.directory + 6, b'\2'),), 'its table'),
        ('table of no entries', ((size, bytes(4)),), 'bitmap_table_size'),
        ('table size -1', ((size, b'\xff' * 4),), 'bitmap_table_size'),
        ('table too long', ((size, struct.pack('>I', 0x8000000)),), 'its table'),
        ('reserved flag', ((p.directory + 12, struct.pack('>I', 1 << 31)),), 'reserved flags'),
        ('another type', ((p.directory + 16, b'\2'),), 'type is not 1'),
        ('granularity 8', ((p.directory + 17, b'\x08'),), '9 to 31'),
        ('granularity 32', ((p.directory + 17, b'\x20'),), '9 to 31'),
        ('granularity 255', ((p.directory + 17, b'\xff'),), '9 to 31'),
        ('no name', ((p.directory + 18, bytes(2)),), 'no bitmap is called'),
        ('long name', ((p.directory + 18, b'\xff\xff'),), 'leaves it'),
        ('extra data', ((p.directory + 20, struct.pack('>I', 8)),), 'leaves it'),
        ('extra data -1', ((p.directory + 20, b'\xff' * 4),), 'leaves it'),
        ('extra data that fits', ((p.extension + 8, struct.pack('>Q', 40)), (p.directory + 20, struct.pack('>I', 8)),
                                  (p.directory + 24, bytes(8) + b'b' + bytes(7))), 'must not be ignored'),
        ('more than 512 MiB', ((size, struct.pack('>I', 8193)), (len(p.bytes), bytes(2 * 65536))), 'more than 512 MiB'),
    )
    for name, pokes, pattern in cases:
        try:
            bench.fails(pattern, '--bitmap=b', p.broken(bench, 'broken.qcow2', *pokes))
            same('the disk', json.loads(bench.run(bench.path('broken.qcow2')))['data_clusters'], [[0, 15]])
        except Failure as failure:
            raise Failure('%s: %s' % (name, failure)) from None
    bench.fails('ends in the middle', '--bitmap=c', p.broken(bench, 'broken.qcow2', (p.extension, struct.pack('>I', 2))))
    short = bitmap_image(bench, 'short.qcow2', 512, 64 * MIB, 512)
    p = Places(short)
    bench.fails('shorter than the disk', '--bitmap=b', p.broken(bench, 'broken.qcow2', (p.directory + 8, struct.pack('>I', 31))))


def bitmaps_damaged(bench):
    """What a table entry gets wrong counts as dirty, is said, and makes the exit status 3."""
    path = bitmap_image(bench, 'good.qcow2', 512, 400 * MIB, 65536)
    bench.write(path, 'write 0 512')
    p = Places(path)
    wild = (len(p.bytes) // 65536 + 9) * 65536
    entry = struct.unpack_from('>Q', p.bytes, p.table)[0]
    listed = '{"virtual_size":419430400,"cluster_bits":9,"data_clusters":[%s]}'
    for value, pairs, pattern in ((1, '[0,524287]', None), (0, '', None), (entry, '[0,0]', None),
                                  (wild, '[0,524287]', 'past the end'), (entry | 1, '[0,524287]', 'reserved'),
                                  (entry | 2, '[0,524287]', 'reserved'), (entry | 1 << 56, '[0,524287]', 'reserved'),
                                  (entry ^ 512, '[0,524287]', 'not aligned'), (1 << 55, '[0,524287]', 'past the end')):
        broken = p.broken(bench, 'broken.qcow2', (p.table, struct.pack('>Q', value)))
        if pattern is None:
            same('entry 0x%x' % value, bench.run('--bitmap=b', broken), listed % pairs)
            continue
        text = bench.unreadable(pattern, '--bitmap=b', broken)
        same('entry 0x%x' % value, text, (listed % pairs)[:-1] + ',"unreadable":[[0,524287]]}')
        bench.unreadable('bytes 0 to 268435455 of the bitmap cannot be read; they are listed as dirty', '--bitmap=b', broken)


# Facts

def without(value, *keys):
    return {k: v for k, v in value.items() if k not in keys}


# What qemu-img 8.0 info --output=json prints of the file below an image.
CHILD = """{
            "name": "%s",
            "info": {
                "children": [
                ],
                "virtual-size": %d,
                "filename": "%s",
                "format": "file",
                "actual-size": %d,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }"""


def children_of(bench, path, theirs):
    """As older ones do not have them: from the text above.  Sizes are those of the files, in sectors."""
    name = theirs.get('format-specific', {}).get('data', {}).get('data-file')
    files = [('file', path)] + ([('data-file', bench.path(name))] if name else [])
    return [json.loads(CHILD % (role, -(-os.stat(file).st_size // 512) * 512, os.path.realpath(file),
                                os.stat(file).st_blocks * 512)) for role, file in files]


def info_same(bench, path, *options, driver=()):
    ours = json.loads(bench.run('--info', '--json', *options, path))
    theirs = json.loads(tool('qemu-img', 'info', '--output=json', *driver, path, folder=bench.folder))
    full = theirs.pop('full-backing-filename', None)
    same('%s: the backing file' % os.path.basename(path), ours.pop('full-backing-filename', None),
         full and os.path.realpath(os.path.join(bench.folder, full)))
    same(os.path.basename(path), without(ours, 'children', 'vdifs'), without(theirs, 'children'))
    same('%s: the schema' % os.path.basename(path), schema.faults(ours), [])
    same('%s: its files' % os.path.basename(path), ours['children'], children_of(bench, path, theirs))
    return ours


def info_qemu(bench):
    """Every key that qemu-img info prints has the same value."""
    info_same(bench, small(bench))
    base = bench.create('base.qcow2', 8 * MIB, '-o', 'compat=0.10')
    bench.write(base, 'write 1M 1M')
    top = bench.create('top.qcow2', 9 * MIB, '-b', base, '-F', 'qcow2', '-o',
                       'extended_l2=on,compression_type=zstd,lazy_refcounts=on,refcount_bits=32')
    tool('qemu-img', 'bitmap', '--add', '-g', '4k', top, 'b\u00e4ckup "1"')
    tool('qemu-img', 'bitmap', '--add', '--disable', top, 'off')
    bench.write(top, 'write 2M 1M')
    for name in ('one', 'tw\u00f6 \\ "'):
        tool('qemu-img', 'snapshot', '-c', name, top)
    ours = info_same(bench, top)
    same('counts', without(ours['vdifs'], 'chain', 'bitmaps'),
         {'schema': 1, 'cluster-bits': 16, 'compression': 'zstd', 'data-bytes': 2 * MIB, 'compressed-bytes': 0, 'unreadable-bytes': 0,
          'intervals': 1})
    same('the chain', [(row['depth'], row['filename'], row['data-bytes']) for row in ours['vdifs']['chain']],
         [(0, top, MIB), (1, base, MIB)])
    info_same(bench, base)
    info_same(bench, bench.create('file.qcow2', 8 * MIB, '-o', 'data_file=file.data,data_file_raw=on'))
    vhd = bench.path('x.vhd')
    tool('qemu-img', 'create', '-q', '-f', 'vpc', vhd, '8M')
    info_same(bench, vhd)


def info_text(bench):
    path = bench.create('x.qcow2', 8 * MIB)
    tool('qemu-img', 'bitmap', '--add', path, 'nightly')
    tool('qemu-img', 'snapshot', '-c', 'before\033upgrade', path)
    bench.write(path, 'write -c 0 64k')
    lines = bench.run('--info', path).splitlines()
    for want in ('image: ' + path, 'format: qcow2', 'virtual size: 8 MiB (8388608 bytes)', 'cluster size: 64 KiB (65536 bytes)',
                 'compression-type: zlib', 'data: 64 KiB (65536 bytes)', 'compressed data: 64 KiB (65536 bytes)', 'intervals: 1'):
        if want not in lines:
            raise Failure('no line %r in %r' % (want, lines))
    text = '\n'.join(lines)
    if not re.search(r'^  1 +before\\x1bupgrade +20', text, re.M) or not re.search(r'^   0 nightly +64 KiB, recording', text, re.M):
        raise Failure('the lists: %r' % lines)
    p = Places(path)
    _, text, log = run(bench.program, '--info', p.broken(bench, 'y.qcow2', (88, bytes(8))))
    if 'intervals: 1' not in text or 'not valid any more' not in log:
        raise Failure('bitmaps that are not valid: %r, %r' % (text, log))


def info_names(bench):
    """In JSON a file is called what it is called; bytes that are not UTF-8 are beside it in hexadecimal digits."""
    name = 'b\u00e4 "se\\\'s\n.qcow2'
    base = bench.create(name, MIB)
    top = bench.create('top.qcow2', MIB, '-b', 'json:' + json.dumps({'driver': 'qcow2', 'file': {'driver': 'file', 'filename': base}}),
                       '-F', 'qcow2')
    told = json.loads(bench.run('--info', '--json', '--backing-file=' + base, top))
    same('names', (told['full-backing-filename'], told['vdifs']['chain'][1]['filename']), (base, base))
    odd = os.path.join(os.fsencode(bench.folder), b'\xff.qcow2')
    os.rename(base, odd)
    told = json.loads(bench.run('--info', '--json', b'--backing-file=' + odd, top))
    same('a name that is no UTF-8', os.path.basename(told['full-backing-filename']), '\ufffd.qcow2')
    same('its bytes', bytes.fromhex(told['full-backing-filename-hex']), odd)
    same('in the chain', bytes.fromhex(told['vdifs']['chain'][1]['filename-hex']), odd)
    name = 'del\x7f csi\u009b31m rlo\u202e'
    path = bench.create(name, MIB)
    tool('qemu-img', 'snapshot', '-c', name, path)
    text = bench.run('--info', '--json', path)
    same('names are in ASCII', [c for c in text if not ' ' <= c < '\x7f' and c != '\n'], [])
    same('and are what they were', (os.path.basename(json.loads(text)['filename']), json.loads(text)['snapshots'][0]['name']), (name, name))
    _, text, log = run(bench.program, '--info', '-v', path)
    same('messages and --info are in ASCII', [c for c in text + log if not ' ' <= c < '\x7f' and c != '\n'], [])
    parent = Vhd(bench.path('parent.vhd'), 4 * MIB)
    parent.write()
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', parent.path, '-F', 'vpc', bench.path('over.qcow2'))
    told = json.loads(bench.run('--info', '--json', bench.path('over.qcow2')))
    same('formats are called as in QEMU', (told['backing-filename-format'], told['vdifs']['chain'][1]['format']), ('vpc', 'vpc'))


def info_snapshot(bench):
    """Bitmaps are of the active disk, also where a larger one is looked at."""
    path = bench.create('shrunk.qcow2', 1 << 33)
    tool('qemu-img', 'snapshot', '-c', 'before', path)
    tool('qemu-img', 'resize', '-q', '--shrink', path, str(8 * MIB))
    tool('qemu-img', 'bitmap', '--add', '-g', '512', path, 'nightly')
    text = bench.run('--info', '--snapshot=before', path)
    if 'virtual size: 8 GiB' not in text or not re.search(r'^   0 nightly +512 B, recording$', text, re.M):
        raise Failure('%r' % text)


def info_alone(bench):
    """What stands in the image itself is told without its parents, with a line that says so; a map is not."""
    base = bench.create('base.qcow2', 8 * MIB)
    top = bench.create('top.qcow2', 8 * MIB, '-b', base, '-F', 'qcow2')
    tool('qemu-img', 'bitmap', '--add', top, 'nightly')
    bench.write(top, 'write 0 64k')
    os.unlink(base)
    for words, wanted, exits in ((('--info',), 'virtual size: 8 MiB', 3), (('--info', '--json'), '"virtual-size": 8388608', 3)):
        status, text, log = run(bench.program, *words, top)
        if status != exits or wanted not in text or 'base.qcow2' not in log or 'of this image alone' not in log or log.count('\n') != 1:
            raise Failure('%s: %d, %r, %r' % (words, status, text, log))
        if '"chain"' in text or 'chain:' in text or 'intervals' in text or 'data: ' in text:
            raise Failure('%s tells what it cannot know: %r' % (words, text))
    bench.fails('base.qcow2', top)
    bench.fails('base.qcow2', '--qemu', top)
    bench.fails('base.qcow2', '--bitmap=nightly', top)           # the layer that is missing may have one
    bench.fails('cannot open the image', '--info', bench.path('nothing'))


CLAIMS = (
    ('--clusters is the legacy list of vhd-tool', legacy_list),
    ('--cluster-bits rounds outward to any coarser grain', coarser),
    ('--cluster-bits goes down to a sector', finer),
    ('--text is a table of ranges', table),
    ('--qemu is the text of qemu-img map', qemu_text),
    ('--qemu tells holes of files as QEMU does', qemu_holes_of_files),
    ('--qemu tells a cluster that the file ends in as QEMU does', qemu_cut),
    ('--qemu tells no place for what a cut VHD has lost', qemu_cut_vhd),
    ('--qemu bears reference counts of any kind', refcounts_hostile),
    ('--qemu counts no more than the file holds', refcounts_endless),
    ('what is left of a table is not read if the file has a hole there', tables_in_holes),
    ('--chart draws cells by what they hold', chart),
    ('--chart fits the terminal and is coloured there', chart_in_terminal),
    ('--svg is a picture with a legend', picture),
    ('millions of intervals take no memory, in any form', constant_memory),
    ('a bar shows how far it is', progress),
    ('-v tells what is done and changes nothing', verbose),
    ('a command line that makes no sense is refused', command_line),
    ('output that cannot be written is an error', broken_output),
    ('damaged metadata is told in every form', damaged),
    ('much damage takes few lines', much_damaged),
    ('a list of too many clusters is refused', too_many_clusters),
    ('--exit-code has a status for differences', exit_code),
    ('--bitmap lists what QEMU has marked', bitmaps),
    ('--bitmap is the union of all layers and names', bitmaps_union),
    ('--bitmap needs none in a layer below the first', bitmaps_over_vhd),
    ('--bitmap wants one that records, and --info says which do', bitmaps_stopped),
    ('--bitmap follows the sizes of the layers', bitmaps_of_sizes),
    ('--bitmap refuses what is not valid or damaged', bitmaps_refused),
    ('--bitmap refuses what is not valid in a lower layer', bitmaps_invalid_below),
    ('--bitmap takes for dirty what it cannot read', bitmaps_damaged),
    ('--info --json is what qemu-img info prints, and more', info_qemu),
    ('--info is for people', info_text),
    ('names of files in JSON are the true ones', info_names),
    ('--info of a snapshot has the bitmaps of the active disk', info_snapshot),
    ('--info does without parents, --bitmap does not', info_alone),
)


def claim(tap, text, program, check):
    with tempfile.TemporaryDirectory(prefix='vd-vdimap-') as folder:
        try:
            reason = check(Bench(program, os.path.realpath(folder)))
        except (Failure, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            tap.ok(False, text, '%s: %s' % (type(error).__name__, error))
        else:
            if reason:
                tap.note('%s: %s' % (text, reason))
            else:
                tap.ok(True, text)


def main():
    oracle.end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--builddir', default=None)
    parser.add_argument('words', nargs='*')
    args = parser.parse_args()
    if shutil.which('qemu-img') is None or shutil.which('qemu-io') is None:
        print('1..0 # SKIP qemu-img is not installed')
        return 0
    tap, programs = Tap(), Programs(args.builddir)
    if programs.missing('vdimap'):
        return tap.bail('not built: vdimap')
    for text, check in CLAIMS:
        if not args.words or any(word in text or word == check.__name__ for word in args.words):
            claim(tap, text, programs.vdimap, check)
    return tap.done()


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
