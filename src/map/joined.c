/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Closing the smallest gaps between pairs: see joined.h. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/joined.h"

/* The gap behind a pair. */
struct gap {
	uint64_t clusters;
	size_t number; /* of the pair */
};

void vd_joined_init(struct vd_joined *joined, size_t max)
{
	*joined = (struct vd_joined){ .max = max, .is_exact = true };
}

void vd_joined_clear(struct vd_joined *joined)
{
	if (joined->room > VD_JOINED_FEW)
		free(joined->pairs);
	vd_joined_init(joined, joined->max);
}

void vd_joined_moved(struct vd_joined *joined)
{
	if (joined->room == VD_JOINED_FEW)
		joined->pairs = joined->few;
}

void vd_joined_reset(struct vd_joined *joined)
{
	joined->count = 0;
	joined->is_exact = true;
	joined->closed = 0;
}

static int gap_compare(const void *a, const void *b)
{
	const struct gap *one = a, *other = b;

	if (one->clusters != other->clusters)
		return one->clusters < other->clusters ? -1 : 1;
	return one->number < other->number ? -1 : 1;
}

/* The characters that go when the gap between two pairs is closed: those of "b],[c,". */
static uint64_t text_between(const struct vd_pair *pair)
{
	struct vd_pair inner = { .first = pair[0].last, .last = pair[1].first };

	return vd_json_pair_bytes(&inner, false);
}

/*
 * Close the smallest gaps until that saves `need`: pairs, or characters of their text. A pair whose
 * gap is to be closed has no `last` of its own any more; that marks it until all are joined.
 */
static int close_smallest(struct vd_joined *joined, uint64_t need, bool is_text)
{
	size_t gaps = joined->count > 0 ? joined->count - 1 : 0, kept = 0;
	struct gap *sorted = malloc((gaps + 1) * sizeof(*sorted));
	uint64_t saved = 0;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < gaps; i++)
		sorted[i] = (struct gap){
			.clusters = joined->pairs[i + 1].first - joined->pairs[i].last - 1,
			.number = i,
		};
	qsort(sorted, gaps, sizeof(*sorted), gap_compare);
	for (size_t i = 0; i < gaps && saved < need; i++) {
		struct vd_pair *pair = &joined->pairs[sorted[i].number];

		/* The neighbour's `last` may be gone, its `first` never is; ours is still here. */
		saved += is_text ? text_between(pair) : 1;
		pair->last = UINT64_MAX;
		joined->closed = sorted[i].clusters;
		joined->is_exact = false;
	}
	free(sorted);
	for (size_t i = 0; i < joined->count; i++) {
		struct vd_pair pair = joined->pairs[i];

		while (joined->pairs[i].last == UINT64_MAX)
			pair.last = joined->pairs[++i].last;
		joined->pairs[kept++] = pair;
	}
	joined->count = kept;
	return 0;
}

/* Have room for one more pair. */
static int joined_grow(struct vd_joined *joined)
{
	size_t room = (size_t)vd_min(vd_max(2 * joined->room, 64), 2 * joined->max);
	struct vd_pair *pairs;

	if (joined->room == 0) {
		joined->pairs = joined->few;
		joined->room = VD_JOINED_FEW;
		return 0;
	}
	if (joined->count == 2 * joined->max)
		return close_smallest(joined, joined->max, false);
	pairs = realloc(joined->room > VD_JOINED_FEW ? joined->pairs : NULL,
			room * sizeof(*pairs));
	if (!pairs)
		return -ENOMEM;
	if (joined->room <= VD_JOINED_FEW)
		memcpy(pairs, joined->few, joined->count * sizeof(*pairs));
	joined->pairs = pairs;
	joined->room = room;
	return 0;
}

int vd_joined_add(struct vd_joined *joined, const struct vd_pair *pair)
{
	struct vd_pair *last = joined->count ? &joined->pairs[joined->count - 1] : NULL;
	int r = 0;

	if (last && pair->first <= last->last + 1) {
		last->last = vd_max(last->last, pair->last);
		return 0;
	}
	if (last && pair->first - last->last - 1 > joined->closed && joined->count == joined->room)
		r = joined_grow(joined);
	else if (!last && joined->room == 0)
		joined_grow(joined);
	last = joined->count ? &joined->pairs[joined->count - 1] : NULL;
	if (last && (r < 0 || pair->first - last->last - 1 <= joined->closed)) {
		last->last = pair->last;
		joined->is_exact = false;
		return r;
	}
	joined->pairs[joined->count++] = *pair;
	return 0;
}

int vd_joined_add_bytes(struct vd_joined *joined, unsigned cluster_bits, uint64_t start,
			uint64_t end)
{
	struct vd_pair pair = {
		.first = start >> cluster_bits,
		.last = (end - 1) >> cluster_bits,
	};

	return vd_joined_add(joined, &pair);
}

int vd_joined_add_all(struct vd_joined *joined, const struct vd_joined *other)
{
	int r = 0;

	for (size_t i = 0; i < other->count; i++) {
		int added = vd_joined_add(joined, &other->pairs[i]);

		r = added < 0 ? added : r;
	}
	joined->is_exact = joined->is_exact && other->is_exact;
	return r;
}

int vd_joined_end(struct vd_joined *joined)
{
	if (joined->count <= joined->max)
		return 0;
	return close_smallest(joined, joined->count - joined->max, false);
}

int vd_joined_fit(struct vd_joined *joined, uint64_t bytes)
{
	uint64_t length = 0;

	for (size_t i = 0; i < joined->count; i++)
		length += vd_json_pair_bytes(&joined->pairs[i], i == 0);
	return length <= bytes ? 0 : close_smallest(joined, length - bytes, true);
}

void vd_joined_scale(struct vd_joined *joined, unsigned from, unsigned to, uint64_t size)
{
	size_t kept = 0;

	for (size_t i = 0; i < joined->count; i++) {
		struct vd_pair pair = joined->pairs[i];

		if (to >= from) {
			pair.first >>= to - from;
			pair.last >>= to - from;
		} else {
			pair.first <<= from - to;
			pair.last = vd_min(((pair.last + 1) << (from - to)) - 1, (size - 1) >> to);
		}
		if (kept > 0 && pair.first <= joined->pairs[kept - 1].last + 1)
			joined->pairs[kept - 1].last = pair.last;
		else
			joined->pairs[kept++] = pair;
	}
	joined->count = kept;
}

size_t vd_json_tail(char *text, size_t number, bool is_exact, const struct vd_joined *unreadable)
{
	size_t count = unreadable->count;

	if (number == 0)
		return (size_t)snprintf(text, VD_JSON_PIECE_MAX, "]%s%s",
					is_exact ? "" : ",\"exact\":false",
					count ? ",\"unreadable\":[" : "}");
	if (count == 0 || number > count + 1)
		return 0;
	if (number <= count)
		return vd_json_pair(text, &unreadable->pairs[number - 1], number == 1);
	return (size_t)snprintf(text, VD_JSON_PIECE_MAX, "]%s}",
				unreadable->is_exact ? "" : ",\"unreadable_exact\":false");
}

size_t vd_json_tail_bytes(bool is_exact, const struct vd_joined *unreadable)
{
	char text[VD_JSON_PIECE_MAX];
	size_t bytes = 0, number = 0, piece;

	while ((piece = vd_json_tail(text, number++, is_exact, unreadable)) > 0)
		bytes += piece;
	return bytes;
}
