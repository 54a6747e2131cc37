/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walking over a disk as holes and data: the interval map at its source. A byte is data unless it
 * is known to read as zero; a hole of the host file under raw bytes is a hole of the disk, and what
 * cannot be read is data.
 *
 * A walk belongs to one thread. It remembers the last extent of the host file, so that a fragmented
 * disk in a dense file costs no system call a piece.
 */
#ifndef VD_DISK_WALK_H
#define VD_DISK_WALK_H

#include "disk/disk.h"

#define VD_WALK_EXTENTS 256

struct vd_walk {
	const struct vd_disk *disk;
	uint64_t virt; /* the next byte to tell of */
	uint64_t end; /* of what is to be told of */
	uint64_t bad_bytes; /* told of so far that cannot be read */
	struct vd_extent extents[VD_WALK_EXTENTS];
	unsigned next, count; /* extents not told of: [next, count) */
	const struct vd_extent *told; /* that the last piece is of; until the next call */
	const struct vd_source *host; /* of the remembered host extent; NULL: none */
	uint64_t host_start, host_end;
	bool host_is_hole;
};

/* [start, end) is all hole or all data. Neighbours may be of one kind: the caller merges. */
struct vd_piece {
	uint64_t start, end; /* virtual bytes */
	bool is_data;
};

/* From virt (<= size) to the end of the disk. */
void vd_walk_init(struct vd_walk *walk, const struct vd_disk *disk, uint64_t virt);

/* From virt to end, virt <= end <= size. */
void vd_walk_init_part(struct vd_walk *walk, const struct vd_disk *disk, uint64_t virt,
		       uint64_t end);

/* 1: a piece; 0: the end; -ENOMEM. */
int vd_walk_next(struct vd_walk *walk, struct vd_piece *piece);

#endif
