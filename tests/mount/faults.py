# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests share that make storage or memory fail under vdifs_faults (tests/tools/faults.c)."""
import mmap
import os
import struct

FIELDS = ('allocations', 'fail_at', 'failed', 'reads', 'error_ppm', 'short_ppm', 'delay_ppm', 'delay_us', 'errors', 'shorts',
          'delays')


class Faults:
    """The numbers that faults.c shares with a test, as attributes; $VD_FAULTS names their file."""

    def __init__(self, path='faults'):
        with open(path, 'wb') as file:
            file.truncate(mmap.PAGESIZE)
        with open(path, 'r+b') as file:
            self.__dict__['map'] = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        os.environ['VD_FAULTS'] = os.path.abspath(path)

    def __getattr__(self, name):
        return struct.unpack_from('=q', self.map, 8 * FIELDS.index(name))[0]

    def __setattr__(self, name, value):
        struct.pack_into('=q', self.map, 8 * FIELDS.index(name), value)


def processes(program, word):
    """The processes of a program that have a word on their command lines, the oldest first."""
    found = []
    for name in os.listdir('/proc'):
        try:
            if name.isdigit() and os.readlink('/proc/%s/exe' % name) == program:
                with open('/proc/%s/cmdline' % name, 'rb') as file:
                    if word.encode() in file.read().split(b'\0'):
                        found.append(int(name))
        except OSError:
            pass
    return sorted(found)
