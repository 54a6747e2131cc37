/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Collecting pairs and comparing their sum: see stretch.h. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "map/stretch.h"

#define PAIRS_PER_CHECK 32 /* between two looks for an interrupt */

struct vd_stretch {
	uint64_t number, count; /* of the pairs that are held */
	size_t room;
	struct vd_pair *pairs;
	bool goes_on; /* what follows stands behind the last of them */
	struct vd_pairs collecting;
	struct vd_index_iter iter;
};

int vd_stretch_new(struct vd_index *index, unsigned cluster_bits, struct vd_stretch **out)
{
	struct vd_stretch *stretch = malloc(sizeof(*stretch));

	if (!stretch)
		return -ENOMEM;
	stretch->number = stretch->count = 0;
	stretch->room = 0;
	stretch->pairs = NULL;
	stretch->goes_on = false;
	stretch->collecting.cluster_bits = cluster_bits;
	stretch->iter.index = index;
	*out = stretch;
	return 0;
}

void vd_stretch_free(struct vd_stretch *stretch)
{
	if (stretch)
		free(stretch->pairs);
	free(stretch);
}

static int stretch_reserve(struct vd_stretch *stretch, uint64_t count)
{
	struct vd_pair *pairs;

	if (stretch->room >= count)
		return 0;
	pairs = reallocarray(stretch->pairs, (size_t)count, sizeof(*pairs));
	if (!pairs)
		return -ENOMEM;
	stretch->pairs = pairs;
	stretch->room = (size_t)count;
	return 0;
}

/* Collect pairs from where it stands. 1: they are those of the mark; 0: not; or an error. */
static int stretch_collect(struct vd_stretch *stretch, const struct vd_stretch_mark *mark,
			   const struct vd_interrupt *interrupt)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < mark->count; i++) {
		int r = vd_index_iter_pair(&stretch->iter, &stretch->collecting, &stretch->pairs[i],
					   interrupt);

		if (r <= 0)
			return r;
		sum += vd_pair_sum(&stretch->pairs[i]);
		if (i % PAIRS_PER_CHECK == PAIRS_PER_CHECK - 1 && vd_is_interrupted(interrupt))
			return -EINTR;
	}
	return sum == mark->sum;
}

static void stretch_place(struct vd_stretch *stretch, uint64_t virt)
{
	vd_index_iter_init(&stretch->iter, stretch->iter.index, virt);
	stretch->collecting = (struct vd_pairs){ .cluster_bits = stretch->collecting.cluster_bits };
}

int vd_stretch_load(struct vd_stretch *stretch, const struct vd_stretch_mark *mark,
		    const struct vd_interrupt *interrupt)
{
	bool goes_on = stretch->goes_on && stretch->number + stretch->count == mark->number;
	int r = stretch_reserve(stretch, mark->count);

	if (r < 0)
		return r;
	stretch->count = 0;
	stretch->goes_on = false;
	r = goes_on ? stretch_collect(stretch, mark, interrupt) : 0;
	if (r == 0) { /* also if something new was found before the mark: that is not wanted */
		stretch_place(stretch, mark->virt);
		r = stretch_collect(stretch, mark, interrupt);
	}
	if (r < 0)
		return r;
	if (r == 0)
		return vd_index_differs(stretch->iter.index);
	stretch->number = mark->number;
	stretch->count = mark->count;
	stretch->goes_on = true;
	return 0;
}

const struct vd_pair *vd_stretch_pair(const struct vd_stretch *stretch, uint64_t number)
{
	if (number < stretch->number || number - stretch->number >= stretch->count)
		return NULL;
	return &stretch->pairs[number - stretch->number];
}
