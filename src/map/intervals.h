/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A compact list of alternating holes and data that begins at byte 0 of a disk.
 *
 * It only grows at its end, up to a limit of memory. A disk with millions of intervals fits in a
 * few bytes each, and a place in it is found in O(log n). Bytes everywhere.
 *
 * Not locked: one thread may add while none reads, or any number may read. Lists that share a limit
 * need not know of each other in this.
 */
#ifndef VD_MAP_INTERVALS_H
#define VD_MAP_INTERVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vd_intervals;

/* limit: bytes of memory. 0 or -ENOMEM. */
int vd_intervals_new(size_t limit, struct vd_intervals **out);

/* A list that shares the limit of another one, which must outlive it. 0 or -ENOMEM. */
int vd_intervals_new_sharing(struct vd_intervals *other, struct vd_intervals **out);

void vd_intervals_free(struct vd_intervals *list); /* NULL is fine */

/*
 * Append [end of the list, end of the list + length), length > 0. Of the other kind than what was
 * added before (the first may be of either kind). False when the limit is reached or there is no
 * memory: the list stays as it is.
 */
bool vd_intervals_add(struct vd_intervals *list, uint64_t length, bool is_data);

uint64_t vd_intervals_end(const struct vd_intervals *list);
size_t vd_intervals_memory(const struct vd_intervals *list);

/* A place in the list, as a reader holds it. Valid for as long as the list, also while it grows. */
struct vd_interval {
	uint64_t start, end; /* virtual bytes */
	bool is_data;
	size_t block; /* private, like what follows */
	unsigned number, used;
};

/* Find the interval that holds virt, which must be below the end of the list. */
void vd_intervals_find(const struct vd_intervals *list, uint64_t virt, struct vd_interval *found);

/* Go on to the next one; false: that was the last. */
bool vd_intervals_next(const struct vd_intervals *list, struct vd_interval *at);

#endif
