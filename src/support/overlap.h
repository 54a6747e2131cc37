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
	bool unaligned; /* a piece begins elsewhere than at a multiple of its length */
	uint64_t mask;
	uint64_t *slots; /* start + 1 of a piece, 0: empty */
	const uint64_t *random; /* behind the slots; unknown to who made the image */
	uint64_t group, place; /* the group of numbers that was met last, and where it lies */
	uint64_t looks; /* at slots, in all: what the search has cost */
};

/* Make room for `count` pieces, 16 to 32 bytes for each. 0 or -ENOMEM. */
int vd_overlap_init(struct vd_overlap *set, uint64_t length, uint64_t count);
void vd_overlap_free(struct vd_overlap *set);

/*
 * Add [start, start + length). True: it shares bytes with one added before, and is not added. Costs
 * some ten looks on average, whatever the pieces are.
 */
bool vd_overlap_add(struct vd_overlap *set, uint64_t start);

#endif
