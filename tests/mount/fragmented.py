#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QCOW2 image with a great many intervals, made fast: all allocated entries point at one host cluster.

    fragmented.py FILE SIZE CLUSTER_BITS TABLES EVERY [SPARSE]

SIZE bytes of disk in clusters of 2^CLUSTER_BITS; of the L2 tables that the size needs, TABLES are there, evenly spread,
and in each of them every EVERYth cluster, from the first one on, is data.  Where data lies is plain arithmetic, so that
answers can be checked without a second reader: data() below.  With SPARSE the tables are holes of the host file: nothing
but zero entries, which nevertheless have to be looked at.
"""
import bisect
import os
import struct
import sys

COPIED = 1 << 63


class Layout:
    def __init__(self, size, cluster_bits, tables, every):
        self.size, self.cluster_bits, self.every = size, cluster_bits, every
        self.cluster = 1 << cluster_bits
        self.entries = self.cluster // 8
        self.reach = self.cluster * self.entries          # bytes of disk that one L2 table maps
        self.l1_entries = -(-size // self.reach)
        self.tables = [n * self.l1_entries // tables for n in range(tables)]
        self.l1_at = 3 * self.cluster                     # header, refcount table, the data, L1
        self.l2_at = self.l1_at + -(-self.l1_entries * 8 // self.cluster) * self.cluster

    def is_data(self, at):
        table, cluster = at // self.reach, at % self.reach // self.cluster
        return self._has(table) and cluster % self.every == 0

    def _has(self, table):
        place = bisect.bisect_left(self.tables, table)
        return place < len(self.tables) and self.tables[place] == table

    def seek_data(self, at):
        """The next data at or after a place; None: there is none."""
        while at < self.size:
            table = at // self.reach
            if not self._has(table):
                place = bisect.bisect_left(self.tables, table)
                if place == len(self.tables):
                    return None
                at = self.tables[place] * self.reach
            elif self.is_data(at):
                return at
            else:
                cluster = at // self.cluster % self.entries
                cluster += self.every - cluster % self.every
                at = table * self.reach + min(cluster, self.entries) * self.cluster
        return None

    def seek_hole(self, at):
        """The next hole.  With EVERY of 2 or more a run is one cluster."""
        return min((at // self.cluster + 1) * self.cluster, self.size) if self.is_data(at) else at

    def pairs(self):
        last = (self.size - 1) // self.cluster
        for table in self.tables:
            for entry in range(0, self.entries, self.every):
                if table * self.entries + entry <= last:
                    yield table * self.entries + entry


def write(path, layout, sparse):
    cluster = layout.cluster
    with open(path, 'wb') as image:
        image.write(struct.pack('>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3, 0, 0, layout.cluster_bits, layout.size, 0,
                                layout.l1_entries, layout.l1_at, cluster, 1, 0, 0, 0, 0, 0, 4, 104))
        image.seek(2 * cluster)
        image.write(b'A' * cluster)
        l1 = bytearray(8 * layout.l1_entries)
        for number, table in enumerate(layout.tables):
            struct.pack_into('>Q', l1, 8 * table, layout.l2_at + number * cluster | COPIED)
        image.seek(layout.l1_at)
        image.write(l1)
        table = bytearray(cluster)
        for entry in range(0, layout.entries, layout.every):
            struct.pack_into('>Q', table, 8 * entry, 2 * cluster | COPIED)
        image.seek(layout.l2_at)
        for _ in range(0 if sparse else len(layout.tables)):
            image.write(table)
        image.truncate(layout.l2_at + len(layout.tables) * cluster)


def main():
    path, *numbers = sys.argv[1:6]
    write(path, Layout(*map(int, numbers)), sys.argv[6:] == ['sparse'])
    os.utime(path, (1000000000, 1000000000))


if __name__ == '__main__':
    main()
