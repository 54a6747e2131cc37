#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Internal snapshots are files, each with its own size, holes, map and time; whatever they are
# called, and whatever is wrong with one of them.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2012,SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr jq
mkdir mnt
touch plain

image base.qcow2 4m "write -q -P 9 3m 64k"
image_options=backing_file=base.qcow2,backing_fmt=qcow2
image disk.qcow2 4m "write -q -P 1 64k 128k"
image_options=
qemu-img snapshot -c first disk.qcow2
qemu-io -c "write -q -P 2 1m 1m" disk.qcow2
qemu-img snapshot -c second disk.qcow2
qemu-io -c "write -q -P 3 0 1m" disk.qcow2
image none.qcow2 1m "write -q -P 1 0 64k"

shown() {
	local id name
	mount_image '' disk.qcow2 mnt || return
	is "snapshots are listed by their names$in" "$(ls mnt/snapshots | tr '\n' ' ')" \
		"first.intervals.json first.raw second.intervals.json second.raw "
	for id in 1 2; do
		name=$([ "$id" = 1 ] && echo first || echo second)
		qemu-img convert -l "snapshot.id=$id" -O raw disk.qcow2 wanted.raw
		claim "$name is what qemu-img reads$in" cmp wanted.raw "mnt/snapshots/$name.raw"
		claim "$name is found by its ID$in" cmp wanted.raw "mnt/snapshots/$id.raw"
		is "$name: the sidecar is its map$in" "$(cat "mnt/snapshots/$name.intervals.json")" \
			"$("$vdimap" --snapshot="$id" disk.qcow2)"
		is "$name: so is the one found by its ID$in" "$(cat "mnt/snapshots/$id.intervals.json")" \
			"$("$vdimap" --snapshot="$id" disk.qcow2)"
		is "$name: the attribute is its map$in" "$(attribute user.intervals "mnt/snapshots/$name.raw")" \
			"$("$vdimap" --snapshot="$id" disk.qcow2)"
		is "$name: blocks are those of its data$in" "$(stat -c %b "mnt/snapshots/$name.raw")" \
			"$(attribute user.vdifs.info "mnt/snapshots/$name.raw" | jq '.vdifs."data-bytes" / 512')"
		is "$name: its time is that of the snapshot$in" "$(stat -c %Y "mnt/snapshots/$name.raw")" \
			"$(qemu-img info -U --output=json disk.qcow2 | jq ".snapshots[] | select(.id == \"$id\") | .\"date-sec\"")"
		cp --sparse=always "mnt/snapshots/$name.raw" copy.raw
		claim "$name: a sparse copy is the same$in" cmp copy.raw wanted.raw
	done
	qemu-img convert -U -O raw disk.qcow2 wanted.raw
	claim "the disk itself is as ever$in" cmp wanted.raw mnt/disk.raw
	is "the directory counts its directories$in" "$(stat -c %h mnt)" 3
	is "find sees them$in" "$(find mnt -name '*.raw' | wc -l)" 3
	is "snapshots/ itself has no map$in" "$(attribute user.intervals mnt/snapshots 2>&1 | grep -c 'No such attribute')" 1
	unmount mnt
	mount_image --snapshot=first disk.qcow2 mnt
	is "they are shown beside another one$in" "$(find mnt/snapshots -name '*.raw' | wc -l)" 2
	claim "which has a file there, too$in" cmp mnt/disk.raw mnt/snapshots/first.raw
	unmount mnt
	mount_image '' none.qcow2 mnt
	is "no snapshots, no directory$in" "$(ls mnt | tr '\n' ' ')" "none.intervals.json none.raw "
	unmount mnt
	mount_image '' disk.qcow2 plain
	claim "a file as mountpoint is the disk alone$in" cmp wanted.raw plain
	unmount plain
}

# Everything a name can be. The writer's names come from a Python list; the test's from the same.
names() {
	"$python" - write <<'END' || return
import os
from qcow2_writer import Qcow2

class Bytes(str):
    def encode(self, *_):
        return os.fsencode(str(self))

q = Qcow2('names.qcow2', 1 << 20, cluster_bits=16)
names = ['a/b', '..', '.', '', '100%', 'tab\tand\nline', 'twice', 'twice', 'x' * 300, 'x' * 300, '\u00e9' * 150, 'c1\u009bx', '2', '.hidden', 'a' + '\udc80' * 300, 'last']
for number, name in enumerate(names):
    q.add_snapshot(str(number + 1), Bytes(name), disk_size=(number + 1) << 16, contents=[(0, ("data", number + 65))])
q.snapshots[-1].ident = 'i' * 239 + '\U0001f600j'
q.write()
END
	mount_image '' names.qcow2 mnt || return
	python_claims "$in" <<'END'
import os, sys, urllib.parse
from claims import claim, same
mode = sys.argv[1]
names = ['a/b', '..', '.', '', '100%', 'tab\tand\nline', 'twice', 'twice', 'x' * 300, 'x' * 300, '\u00e9' * 150, 'c1\u009bx', '2', '.hidden', 'a' + '\udc80' * 300, 'last']
wanted = ['a%2fb', '%2e.', '%2e', '4', '100%25', 'tab%09and%0aline', 'twice', 'twice~2', 'x' * 240, 'x' * 236 + '~2', '\u00e9' * 120, 'c1%c2%9bx', '2', '%2ehidden', 'a' + '\udc80' * 239, 'last']
found = sorted(n for n in os.listdir('mnt/snapshots') if n.endswith('.raw'))
same('each snapshot has a name of its own' + mode, found, sorted(w + '.raw' for w in wanted))
same('each has its map' + mode, sum(n.endswith('.intervals.json') for n in os.listdir('mnt/snapshots')), len(names))
for number, (name, stem) in enumerate(zip(names, wanted)):
    path = 'mnt/snapshots/%s.raw' % stem
    with open(path, 'rb') as disk:
        same('snapshot %d, %.20r, is there with its size%s' % (number + 1, name, mode), (disk.read(1), os.stat(path).st_size),
             (bytes([number + 65]), (number + 1) << 16))
    if len(name) < 100 and '~' not in stem and name:
        same('unescaped it is its name again%s, %d' % (mode, number + 1), urllib.parse.unquote(stem), name)
    if number + 1 not in (2, len(names)):
        with open('mnt/snapshots/%d.raw' % (number + 1), 'rb') as disk:
            same('snapshot %d is found by its ID%s' % (number + 1, mode), disk.read(1), bytes([number + 65]))
    with open('mnt/snapshots/%s.intervals.json' % stem) as text:
        same('snapshot %d has its own map%s' % (number + 1, mode), text.read(),
             '{"virtual_size":%d,"cluster_bits":16,"data_clusters":[[0,0]]}' % ((number + 1) << 16))
same('half an ID is no name' + mode, os.path.exists('mnt/snapshots/%s.raw' % ('i' * 239)), False)
with open('mnt/snapshots/2.raw', 'rb') as disk:
    same('a name counts before an ID' + mode, disk.read(1), bytes([12 + 65]))
END
	unmount mnt
}

# log_of IMAGE: mount it over mnt in the foreground; what it says is in `log` when it has ended
foreground() {
	begin "$vdifs" -f "$1" mnt 2>log >/dev/null </dev/null
	wait_for 20 mounted mnt && ls mnt >/dev/null
}

damaged() {
	"$python" - <<'END' || return
import struct
from qcow2_writer import Qcow2
q = Qcow2('damaged.qcow2', 1 << 20, cluster_bits=16)
for number, name in enumerate(['good', 'bad', 'same', 'also good']):
    q.add_snapshot(str(min(number, 1) + number), name, contents=[(0, ("data", number + 65))])
q.snapshots[2].ident = '0'
q.write()
with open('damaged.qcow2', 'r+b') as image:
    image.seek(q.where('snap[1]'))
    image.write(struct.pack('>Q', 1 << 40))
END
	foreground damaged.qcow2 || { not_ok "an image with a damaged snapshot mounts" "$(cat log)"; return; }
	is "a damaged snapshot does not hide the others" "$(cd mnt/snapshots && printf '%s ' *.raw)" "also good.raw good.raw "
	is "they are right" "$(head -c 1 mnt/snapshots/good.raw)$(head -c 1 'mnt/snapshots/also good.raw')" AD
	unmount mnt
	end_of "$pid"
	is "what is left out is logged" "$(grep -c 'is not shown$' log)" 2
	claim "with the reason" grep -q 'snapshot l1_table_offset .* snapshot 2=bad is not shown' log
	claim "also an ID that is not the only one" grep -q 'same ID; snapshot 0=same is not shown' log
}

many() {
	"$python" - <<'END' || return
from qcow2_writer import Qcow2
q = Qcow2('many.qcow2', 1 << 20, cluster_bits=9)
for number in range(300):
    q.add_snapshot(str(number + 1), 'n%d' % (number + 1), contents=[(number, ("data", 65))])
q.write()
END
	foreground many.qcow2 || { not_ok "an image with many snapshots mounts" "$(cat log)"; return; }
	is "256 snapshots are shown" "$(find mnt/snapshots -name '*.raw' | wc -l)" 256
	# All maps at once: they are built one after the other, and each waits for its own.
	find mnt/snapshots -name '*.json' -print0 | timeout 60 xargs -0 -n 8 -P 8 cat >all.json
	is "all their maps can be had at once" "$(tr '}' '\n' <all.json | grep -o 'clusters":.*' | sort | uniq -c | awk '$1 == 1' | wc -l)" 256
	unmount mnt
	end_of "$pid"
	is "that there are more is logged" "$(grep -c 'only the first 256 snapshots are shown' log)" 1
}

# A table in which all have the same ID is not gone through to its end.
same_id() {
	"$python" - <<'END' || return
from qcow2_writer import Qcow2
q = Qcow2('same.qcow2', 1 << 20, cluster_bits=16)
for number in range(3000):
    q.add_snapshot('1', 'n%d' % number)
q.write()
END
	foreground same.qcow2 || { not_ok "an image whose snapshots have one ID mounts" "$(cat log)"; return; }
	is "the first of 3000 snapshots with one ID is shown" "$(cd mnt/snapshots && echo *.raw)" n0.raw
	unmount mnt
	end_of "$pid"
	is "255 others are logged, and that there are more" "$(wc -l <log)" 256
}

each_mode shown
each_mode names
damaged
many
same_id
finish
