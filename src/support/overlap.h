/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding pieces of a file that are used more than once. All pieces have one length, and each
 * begins at a multiple of it, as L2 tables do (for others see collisions.h). One thread; used while
 * an image is opened, then freed.
 */
#ifndef VD_SUPPORT_OVERLAP_H
#define VD_SUPPORT_OVERLAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vd_overlap {
	uint64_t length; /* of every piece, in bytes; a multiple of 512 */
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
 * Add the piece that begins at `start`. True: it has been added before. Costs some ten looks on
 * average, whatever the pieces are.
 */
bool vd_overlap_add(struct vd_overlap *set, uint64_t start);

/* Was the piece, which is in the set, added more than once? */
bool vd_overlap_is_shared(struct vd_overlap *set, uint64_t start);

#endif
