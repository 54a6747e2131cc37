/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding pieces of a file that are used twice: L2 tables, blocks. All pieces have one length.
 * One thread; used while an image is opened, then freed.
 */
#ifndef VD_SUPPORT_OVERLAP_H
#define VD_SUPPORT_OVERLAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vd_overlap {
	uint64_t length; /* of every piece, in bytes */
	uint64_t seed; /* unknown to who made the image */
	uint64_t mask;
	unsigned bits;
	uint64_t *slots; /* start + 1 of a piece, 0: empty */
};

/* Make room for `count` pieces. 0 or -ENOMEM. */
int vd_overlap_init(struct vd_overlap *set, uint64_t length, uint64_t count);
void vd_overlap_free(struct vd_overlap *set);

/* Add [start, start + length). True: it shares bytes with one added before, and is not added. */
bool vd_overlap_add(struct vd_overlap *set, uint64_t start);

#endif
