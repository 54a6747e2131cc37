/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a disk may differ from another one, which is mostly an older state of it.
 *
 * Both disks are walked side by side. Equal is what the metadata proves equal: zeros in both, or
 * the same bytes of the same file, as in layers that both chains have. The rest may differ, or is
 * read and compared. What lies past the end of the old disk was zeros; past the end of the new one
 * there is nothing to tell of.
 */
#ifndef VD_MAP_DIFF_H
#define VD_MAP_DIFF_H

#include "disk/walk.h"
#include "map/joined.h"

struct vd_diff;

/*
 * compare: read what is not proven equal, and list real differences only, in units of 2^unit_bits
 * bytes. The units are never larger than the new disk's clusters or 1 MiB; 0: they are as large.
 * The disks must outlive the diff. 0 or -ENOMEM.
 */
int vd_diff_new(const struct vd_disk *old_disk, const struct vd_disk *new_disk, bool compare,
		unsigned unit_bits, struct vd_diff **out);
void vd_diff_free(struct vd_diff *diff); /* NULL is fine */

/*
 * The next piece of the new disk; is_data: it may differ. Neighbours may be of one kind. One
 * thread at a time. 1; 0: the end of the new disk; -ENOMEM.
 */
int vd_diff_next(struct vd_diff *diff, struct vd_piece *piece);

/* Bytes told of so far that cannot be read in one of the disks; they may differ. */
uint64_t vd_diff_bad_bytes(const struct vd_diff *diff);

/* The clusters of the new disk that these bytes are in. */
const struct vd_joined *vd_diff_unreadable(const struct vd_diff *diff);

/* Bytes that had to be compared so far. */
uint64_t vd_diff_compared_bytes(const struct vd_diff *diff);

#endif
