/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hash table over start / length: pieces that do not overlap have different numbers there, and
 * one that overlaps has the same number or a neighbour's. Open addressing. Neighbours lie side by
 * side, since tables are mostly in order; what is far apart is shifted by a random amount, so that
 * an image cannot be made to collide and take hours to open.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "support/overlap.h"

int vd_overlap_init(struct vd_overlap *set, uint64_t length, uint64_t count)
{
	set->length = length;
	set->bits = vd_log2(count + 1) + 2; /* never more than half full */
	set->mask = ((uint64_t)1 << set->bits) - 1;
	if (getrandom(&set->seed, sizeof(set->seed), GRND_NONBLOCK) != sizeof(set->seed))
		set->seed = (uint64_t)(uintptr_t)&set; /* early at boot: the address will do */
	set->slots = calloc((size_t)set->mask + 1, sizeof(*set->slots));
	return set->slots ? 0 : -ENOMEM;
}

void vd_overlap_free(struct vd_overlap *set)
{
	free(set->slots);
	set->slots = NULL;
}

/* The slot that holds the piece of that number, or the empty one where it belongs. */
static uint64_t *overlap_slot(const struct vd_overlap *set, uint64_t number)
{
	uint64_t far = (number >> set->bits ^ set->seed) * UINT64_C(0x9e3779b97f4a7c15);
	uint64_t at = number + (far >> 29);
	uint64_t low =
		number * set->length; /* pieces of that number begin in [low, low + length) */
	uint64_t there;

	while ((there = set->slots[at & set->mask]) != 0 && there - 1 - low >= set->length)
		at++;
	return &set->slots[at & set->mask];
}

/* Does the piece of that number, if there is one, reach into [start, start + length)? */
static bool overlap_hits(const struct vd_overlap *set, uint64_t number, uint64_t start)
{
	uint64_t there = *overlap_slot(set, number);

	return there != 0 && vd_overlap(there - 1, set->length, start, set->length);
}

bool vd_overlap_add(struct vd_overlap *set, uint64_t start)
{
	uint64_t number = start / set->length;
	uint64_t *slot = overlap_slot(set, number);

	if (*slot != 0 || overlap_hits(set, number + 1, start) ||
	    (number > 0 && overlap_hits(set, number - 1, start)))
		return true;
	*slot = start + 1;
	return false;
}
