/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk in the words of qemu-img map: which layer holds what, as data, zeros or nothing, and
 * where in the layer's file. The same walk as that of the interval map, told in more detail.
 */
#ifndef VD_MAP_ENTRIES_H
#define VD_MAP_ENTRIES_H

#include "disk/walk.h"
#include "map/joined.h"

/* One entry; the fields are those of qemu-img map --output=json. */
struct vd_entry {
	uint64_t start, length; /* virtual bytes */
	unsigned depth; /* layer; 0 is the image */
	bool present; /* the layer says something about it */
	bool zero, data, compressed;
	bool has_offset;
	uint64_t offset; /* host byte in the layer's file, or in its data file */
};

/* Belongs to one thread. Large: not for the stack of a deep call. */
struct vd_entries {
	struct vd_walk walk;
	enum vd_host_hole holes[VD_LAYERS_MAX];
	bool has_next; /* `next` has been found, and does not continue what was told before */
	struct vd_entry next;
	struct vd_joined unreadable; /* clusters found so far that cannot be read */
};

/* The disk must outlive it. May read metadata of all layers. vd_entries_clear() frees memory. */
void vd_entries_init(struct vd_entries *entries, const struct vd_disk *disk);
void vd_entries_clear(struct vd_entries *entries);

/* 1: the next entry, as long as can be; 0: the end of the disk; -ENOMEM. */
int vd_entries_next(struct vd_entries *entries, struct vd_entry *entry);

#endif
