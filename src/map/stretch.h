/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pairs of the map that are what they were.
 *
 * The text of the map and the computed QCOW2 file have sizes and offsets that follow from pairs which
 * were counted once. Their bytes are made later, of the same pairs: from the list of the index, or,
 * where that was full, by walking over the disk again. But a walk need not find the same twice. Holes
 * of the host file come and go without a change of the image: blocks that were allocated and never
 * written are data while their pages are in the page cache, and a server may fail to say where holes
 * are. A pair more or less, and all that comes after it would be at the wrong place.
 *
 * So pairs are had by the stretch, that is from one mark of who counted them to the next: all of them
 * are collected, and their sum compared with what it was then, before the first is given out.
 */
#ifndef VD_MAP_STRETCH_H
#define VD_MAP_STRETCH_H

#include "map/index.h"

/* Which pairs. */
struct vd_stretch_mark {
	uint64_t virt; /* where the first one begins, in bytes */
	uint64_t number; /* of pairs before it */
	uint64_t count;
	uint64_t sum; /* of their vd_pair_sum() */
};

/* Holds the pairs of one stretch. One thread at a time. */
struct vd_stretch;

/* The index is complete. 0 or -ENOMEM. */
int vd_stretch_new(struct vd_index *index, unsigned cluster_bits, struct vd_stretch **out);
void vd_stretch_free(struct vd_stretch *stretch); /* NULL is fine */

/*
 * Hold these instead; those that come after the last ones are cheapest. 0; -EINTR or -ENOMEM; -EIO,
 * which is logged once: what is found there now is not what it was.
 */
int vd_stretch_load(struct vd_stretch *stretch, const struct vd_stretch_mark *mark,
		    const struct vd_interrupt *interrupt);

/* The pair with so many before it, or NULL: it is in another stretch. */
const struct vd_pair *vd_stretch_pair(const struct vd_stretch *stretch, uint64_t number);

#endif
