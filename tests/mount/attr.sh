#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The extended attributes and the sidecar: one map, told in four ways, also where it is too long for
# an attribute.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2317
. "$(dirname "$0")/lib.sh"
start root qemu-img qemu-io python3 getfattr jq tar rsync
mkdir mnt out
touch plain
image some.qcow2 $((5 * 1048576 + 512)) "write -q -P 1 64k 128k" "write -q -P 2 1m 1m" "write -q -P 3 5m 512"
qemu-img convert -O vpc -o force_size=on some.qcow2 some.vhd
qemu-img convert -O vpc -o force_size=on,subformat=fixed some.qcow2 footer
qemu-img convert -O raw some.qcow2 all.raw
cp --sparse=always all.raw plain.raw # qemu-img allocates the first block in any case
{ cat all.raw && tail -c 512 footer; } >all.vhd
cp --sparse=always all.vhd fixed.vhd
image empty.qcow2 1m
image_options=backing_file=some.qcow2,backing_fmt=qcow2
image chain.qcow2 6m "write -q -P 4 3m 64k"
image_options=

# The exact map is 6,145 pairs in clusters of 512 bytes.
size=$((6 * 1048576 + 100))
"$python" "$here/fragmented.py" many.qcow2 "$size" 9 193 2

# one_map IMAGE STEM WANTED [OPTION]: the map as vdimap, both attributes and the sidecar tell it
one_map() {
	is "$1: vdimap" "$("$vdimap" ${4:+"$4"} "$1")" "$3"
	mount_image "$4" "$1" mnt && mount_image "$4" "$1" plain || return
	is "$1: user.intervals of the disk in a directory$in" "$(attribute user.intervals "mnt/$2.raw")" "$3"
	is "$1: user.intervals of the directory$in" "$(attribute user.intervals mnt)" "$3"
	is "$1: user.intervals of a file$in" "$(attribute user.intervals plain)" "$3"
	is "$1: the sidecar$in" "$(cat "mnt/$2.intervals.json")" "$3"
	is "$1: the sidecar's size$in" "$(stat -c %s "mnt/$2.intervals.json")" "${#3}"
	info "$1" "mnt/$2.raw" "$4"
	unmount plain
	unmount mnt
}

# user.vdifs.info is JSON, and right. $1 image, $2 disk, $3 option
info() {
	local text size
	text=$(attribute user.vdifs.info "$2")
	claim "$1: user.vdifs.info is one JSON object$in" jq -e 'type == "object"' <(echo "$text")
	is "$1: user.vdifs.info is as its schema says$in" \
		"$(PYTHONPATH=$here/../lib "$python" -c 'import json, schema, sys; print(schema.faults(json.loads(sys.argv[1])))' "$text")" '[]'
	attribute user.intervals "$2" >/dev/null # waits for the map
	text=$(attribute user.vdifs.info "$2") size=$(stat -c %s "$2")
	is "$1: user.vdifs.info knows the disk$in" \
		"$(jq -c '[."virtual-size", (.vdifs."data-bytes" / 512 | ceil), .vdifs."unreadable-bytes", .vdifs.map."mapped-bytes", .vdifs.map.complete]' <<<"$text")" \
		"[$size,$(stat -c %b "$2"),0,$size,true]"
	is "$1: user.vdifs.info has vdimap's cluster size$in" "$(jq '.vdifs."cluster-bits"' <<<"$text")" \
		"$("$vdimap" ${3:+"$3"} "$1" | jq .cluster_bits)"
	is "$1: the directory has the same user.vdifs.info$in" "$(attribute user.vdifs.info mnt)" "$text"
}

maps() {
	one_map some.qcow2 some '{"virtual_size":5243392,"cluster_bits":16,"data_clusters":[[1,2],[16,31],[80,80]]}' ''
	one_map some.vhd some '{"virtual_size":5243392,"cluster_bits":21,"data_clusters":[[0,0],[2,2]]}' ''
	one_map fixed.vhd fixed '{"virtual_size":5243392,"cluster_bits":16,"data_clusters":[[1,2],[16,31],[80,80]]}' ''
	one_map empty.qcow2 empty '{"virtual_size":1048576,"cluster_bits":16,"data_clusters":[]}' ''
	one_map chain.qcow2 chain '{"virtual_size":6291456,"cluster_bits":16,"data_clusters":[[1,2],[16,31],[48,48],[80,80]]}' ''
	one_map plain.raw plain '{"virtual_size":5243392,"cluster_bits":16,"data_clusters":[[1,2],[16,31],[80,80]]}' --format=raw

	mount_image '' chain.qcow2 mnt || return
	is "the chain in user.vdifs.info$in" \
		"$(attribute user.vdifs.info mnt | jq -c '[.format, [.vdifs.chain[] | [(.filename | sub(".*/"; "")), .format, ."virtual-size"]]]')" \
		'["qcow2",[["chain.qcow2","qcow2",6291456],["some.qcow2","qcow2",5243392]]]'
	unmount mnt
}

# The calls themselves. $1: a file or a directory.
calls() {
	python_claims "$1" "$("$vdimap" some.qcow2)" " of $1$in" <<'END'
import ctypes, errno, os, sys
from claims import claim, fails, same
path, wanted, mode = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
libc.getxattr.restype = libc.listxattr.restype = ctypes.c_ssize_t

def get(name, size):
    """(result, errno, bytes) of getxattr with a buffer of this size."""
    room = ctypes.create_string_buffer(max(size, 1))
    got = libc.getxattr(path.encode(), name.encode(), room if size else None, ctypes.c_size_t(size))
    return (got, ctypes.get_errno(), b'') if got < 0 else (got, 0, room.raw[:got] if size else b'')

same('listxattr names no attribute' + mode, os.listxattr(path), [])
same('listxattr with room for nothing is 0' + mode, libc.listxattr(path.encode(), None, ctypes.c_size_t(0)), 0)
for name, text in (('user.intervals', wanted), ('user.vdifs.info', os.getxattr(path, 'user.vdifs.info'))):
    length = len(text)
    same('a probe tells the length of %s%s' % (name, mode), get(name, 0), (length, 0, b''))
    same('room enough gives %s%s' % (name, mode), get(name, length), (length, 0, text))
    same('more room gives %s%s' % (name, mode), get(name, 65536), (length, 0, text))
    same('much more room gives %s%s' % (name, mode), get(name, 1 << 20), (length, 0, text))
    same('one byte too little is ERANGE for %s%s' % (name, mode), get(name, length - 1)[:2], (-1, errno.ERANGE))
    same('one byte is ERANGE for %s%s' % (name, mode), get(name, 1)[:2], (-1, errno.ERANGE))
for name in ('user.none', 'user.intervals.x', 'user.interval', 'user.vdifs', 'security.selinux', 'trusted.x',
             'system.posix_acl_access', 'security.capability'):
    fails('%s is not there%s' % (name, mode), [errno.ENODATA, errno.EOPNOTSUPP], os.getxattr, path, name)
fails('a name is told from another in ENODATA' + mode, [errno.ENODATA], os.getxattr, path, 'user.none')
same('after all that the attribute is still there' + mode, os.getxattr(path, 'user.intervals'), wanted)
END
}

all_calls() {
	mount_image '' some.qcow2 mnt && mount_image '' some.qcow2 plain || return
	calls mnt/some.raw
	calls mnt
	calls plain
	python_claims "$in" <<'END'
import errno, os, sys
from claims import fails, same
mode, side = sys.argv[1], 'mnt/some.intervals.json'
same('the sidecar has no attributes' + mode, os.listxattr(side), [])
for name in 'user.intervals', 'user.vdifs.info':
    fails('the sidecar has no %s%s' % (name, mode), [errno.ENODATA], os.getxattr, side, name)
END
	copies mnt/some.raw
	unmount plain
	unmount mnt
}

# Programs that copy all attributes get none, which hold names of files, and do not stumble. $1: the disk
copies() {
	local name=${1#mnt/}
	rm -rf out/*
	setfattr -n user.t -v 1 out 2>/dev/null || {
		skip "copies with attributes of $1$in" "no user attributes below ${TMPDIR:-/tmp}"
		return
	}
	claim "cp --preserve=xattr of $1$in" cp --preserve=xattr "$1" out/cp
	is "cp --preserve=xattr takes no attribute$in" "$(getfattr --absolute-names out/cp | grep -c ^user)" 0
	claim "cp -a of the directory$in" cp -a mnt out/all
	is "cp -a takes the sidecar$in" "$(hash_of "out/all/${name%.raw}.intervals.json")" \
		"$(hash_of "${1%.raw}.intervals.json")"
	claim "rsync -X of $1$in" rsync -X "$1" out/rsync
	is "rsync -X takes no attribute$in" "$(getfattr --absolute-names out/rsync | grep -c ^user)" 0
	claim "the copies are right$in" cmp out/cp out/rsync
	claim "tar --xattrs of the directory$in" tar -C mnt --xattrs -S -c -f out/tar .
}

# The map that does not fit: coarser, but safe, and said so.
coarse() {
	local side=mnt/many.intervals.json
	mount_image '' many.qcow2 mnt && mount_image '' many.qcow2 plain || return
	"$vdimap" many.qcow2 >exact.json
	attribute user.intervals mnt/many.raw >attribute.json
	claim "a long map: the sidecar is vdimap's$in" cmp "$side" exact.json
	is "a long map: the sidecar's size$in" "$(stat -c %s "$side")" "$(stat -c %s exact.json)"
	is "a long map: the directory has the same attribute$in" "$(attribute user.intervals mnt)" "$(<attribute.json)"
	is "a long map: a file has the same attribute$in" "$(attribute user.intervals plain)" "$(<attribute.json)"
	python_claims "$size" "$here" " (of a long map)$in" <<'END'
import json, os, sys
from claims import claim, same
sys.path.insert(0, sys.argv[2])
from fragmented import Layout
size, mode = int(sys.argv[1]), sys.argv[3]
layout = Layout(size, 9, 193, 2)
with open('exact.json') as file:
    text = file.read()
exact = json.loads(text)
same('the exact map has every pair, and no word of exactness' + mode, text, '{"virtual_size":%d,"cluster_bits":9,"data_clusters":[%s]}'
     % (size, ','.join('[%d,%d]' % (c, c) for c in layout.pairs())))
claim('the exact map is too long' + mode, len(text) > 65536, len(text))
with open('attribute.json') as file:
    short = file.read()
told = json.loads(short)
claim('the attribute fits' + mode, len(short) <= 65536, len(short))
same('its keys' + mode, list(told), ['virtual_size', 'cluster_bits', 'data_clusters', 'exact'])
same('it says that it is not exact' + mode, told['exact'], False)
same('its form' + mode, short, json.dumps(told, separators=(',', ':')))
same('its size' + mode, told['virtual_size'], size)
same('its clusters are the same' + mode, told['cluster_bits'], 9)
unit, pairs = 1 << told['cluster_bits'], told['data_clusters']
claim('its pairs ascend and do not touch' + mode, all(a <= b for a, b in pairs) and
      all(pairs[i][1] + 1 < pairs[i + 1][0] for i in range(len(pairs) - 1)), pairs[:10])
claim('its last pair is within the disk' + mode, pairs[-1][1] == (size - 1) // unit, pairs[-1])
listed = {c for a, b in pairs for c in range(a, b + 1)}
missing = [c for c in layout.pairs() if c * 512 // unit not in listed]
same('it lists all data' + mode, missing, [])
claim('another pair would not fit' + mode, len(short) > 65536 - 32, len(short))
gaps = sorted(b[0] - a[1] for a, b in zip(exact['data_clusters'], exact['data_clusters'][1:]))
added = sum(b - a + 1 for a, b in pairs) - len(exact['data_clusters'])
same('only the smallest gaps are closed' + mode, added, sum(gap - 1 for gap in gaps[:len(exact['data_clusters']) - len(pairs)]))
with open('mnt/many.intervals.json', 'rb', buffering=0) as side:
    whole = text.encode()
    same('the sidecar backwards' + mode, all(os.pread(side.fileno(), 4093, at) == whole[at:at + 4093]
         for at in range(len(whole) - len(whole) % 4093, -1, -4093)), True)
    same('the sidecar beyond its end' + mode, os.pread(side.fileno(), 10, len(whole)), b'')
END
	rm -rf out/*
	tar -C mnt -c -S -f - . | tar -C out -x -f -
	claim "a long map: tar takes the sidecar whole$in" cmp out/many.intervals.json exact.json
	rm -rf out/*
	rsync -a mnt/ out/
	claim "a long map: rsync takes the sidecar whole$in" cmp out/many.intervals.json exact.json
	cp --sparse=always "$side" out/again
	claim "a long map: cp takes the sidecar whole$in" cmp out/again exact.json
	copies mnt/many.raw
	info many.qcow2 mnt/many.raw ''
	unmount plain
	unmount mnt
}

# The information has one length from the first moment on: a probe and a fetch must agree.
constant_length() {
	local lengths=''
	"$python" "$here/fragmented.py" long.qcow2 $((1 << 40)) 16 256 2
	touch long
	for _ in 1 2 3; do
		mount_image '' long.qcow2 long || return
		lengths+=$(python_lengths long)' '
		unmount long
	done
	is "user.vdifs.info has one length while the map grows$in" "$(tr ' ' '\n' <<<"$lengths" | grep . | sort -u | wc -l)" 1
}

python_lengths() {
	"$python" - "$1" <<'END'
import json, os, sys
path = sys.argv[1]
while True:
    text = os.getxattr(path, 'user.vdifs.info')
    print(len(text))
    if json.loads(text)['vdifs']['map']['complete']:
        break
END
}

each_mode maps
each_mode all_calls
each_mode coarse
each_mode constant_length
finish
