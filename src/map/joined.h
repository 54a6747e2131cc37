/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ascending pairs of clusters in bounded memory: if they become too many, the smallest gaps between
 * them are closed.
 *
 * The result is the best that so many pairs can say: no other choice covers fewer clusters, however
 * many pairs were added. A gap that is closed early is not among the largest of those seen so far,
 * so it cannot be among the largest of all.
 *
 * Not locked.
 */
#ifndef VD_MAP_JOINED_H
#define VD_MAP_JOINED_H

#include "map/pairs.h"

/* As many ranges as are named of what cannot be read. */
#define VD_UNREADABLE_MAX 4096

#define VD_JOINED_FEW 2

struct vd_joined {
	struct vd_pair *pairs; /* ascending, with gaps between them */
	size_t count;
	bool is_exact; /* no gap was closed */
	size_t room, max;
	uint64_t closed; /* gaps up to this size need not stay open */
	struct vd_pair few[VD_JOINED_FEW]; /* needs no memory */
};

/* max: pairs after vd_joined_end(), at least VD_JOINED_FEW; up to twice as many are held before. */
void vd_joined_init(struct vd_joined *joined, size_t max);
void vd_joined_clear(struct vd_joined *joined); /* what init() or zeros left is fine */

/*
 * Add clusters that begin at or after the first cluster of the pair that was added last. -ENOMEM: the
 * pair is covered, because the gap before it was closed.
 */
int vd_joined_add(struct vd_joined *joined, const struct vd_pair *pair);

/* Add the clusters that hold bytes of [start, end). As vd_joined_add(). */
int vd_joined_add_bytes(struct vd_joined *joined, unsigned cluster_bits, uint64_t start,
			uint64_t end);

/* Add all pairs of another list, which begins at or after the last pair of this one. Likewise. */
int vd_joined_add_all(struct vd_joined *joined, const struct vd_joined *other);

/* No more are added: have no more than max. 0 or -ENOMEM: there may be more. */
int vd_joined_end(struct vd_joined *joined);

/* Close gaps until the pairs' text (vd_json_pair()) has no more than `bytes` characters. 0, -ENOMEM. */
int vd_joined_fit(struct vd_joined *joined, uint64_t bytes);

/* Count in clusters of 2^to bytes in place of 2^from; the disk has `size` bytes. */
void vd_joined_scale(struct vd_joined *joined, unsigned from, unsigned to, uint64_t size);

/* After the struct was copied to another place, from which it is not used any more. */
void vd_joined_moved(struct vd_joined *joined);

/* Empty it, but keep its memory. */
void vd_joined_reset(struct vd_joined *joined);

/*
 * The text of the JSON map behind the pairs of data_clusters, piece by piece: `number` counts from 0.
 * is_exact: those pairs are. unreadable: clusters that cannot be read; if there are none, the text
 * does not mention them. Returns the number of characters put into text[VD_JSON_PIECE_MAX], or 0:
 * there is no such piece.
 */
size_t vd_json_tail(char *text, size_t number, bool is_exact, const struct vd_joined *unreadable);

/* The length of the whole tail. */
size_t vd_json_tail_bytes(bool is_exact, const struct vd_joined *unreadable);

#endif
