/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blocks are sorted by their start: one that shares units with any other shares some with a
 * neighbour. A radix sort takes the same time for all inputs, so that a hostile image cannot make it
 * slow; four million blocks take about a tenth of a second.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "support/collisions.h"

#define DIGIT_BITS 8
#define DIGITS (1u << DIGIT_BITS)
#define START_SHIFT 32

int vd_collisions_init(struct vd_collisions *set, size_t max)
{
	set->count = 0;
	set->blocks = malloc(max ? max * sizeof(*set->blocks) : 1);
	return set->blocks ? 0 : -ENOMEM;
}

void vd_collisions_free(struct vd_collisions *set)
{
	free(set->blocks);
	set->blocks = NULL;
}

void vd_collisions_add(struct vd_collisions *set, uint32_t start, uint32_t index)
{
	set->blocks[set->count++] = (uint64_t)start << START_SHIFT | index;
}

/* Sort by one digit and keep the order of equal ones. */
static void sort_digit(const uint64_t *from, uint64_t *to, size_t count, unsigned shift)
{
	size_t place[DIGITS] = { 0 }, sum = 0;

	for (size_t i = 0; i < count; i++)
		place[from[i] >> shift & (DIGITS - 1)]++;
	for (unsigned digit = 0; digit < DIGITS; digit++) {
		size_t here = place[digit];

		place[digit] = sum;
		sum += here;
	}
	for (size_t i = 0; i < count; i++)
		to[place[from[i] >> shift & (DIGITS - 1)]++] = from[i];
}

static uint64_t start_of(uint64_t block)
{
	return block >> START_SHIFT;
}

long vd_collisions_find(struct vd_collisions *set, uint64_t length, uint8_t *bits)
{
	uint64_t *blocks = set->blocks, *other = malloc(set->count ? set->count * sizeof(*other) : 1);
	long found = 0;

	if (!other)
		return -ENOMEM;
	/* The number of passes is even: the result is where the blocks were. */
	for (unsigned shift = START_SHIFT; shift < 64; shift += 2 * DIGIT_BITS) {
		sort_digit(blocks, other, set->count, shift);
		sort_digit(other, blocks, set->count, shift + DIGIT_BITS);
	}
	free(other);
	for (size_t i = 0; i < set->count; i++) {
		uint64_t start = start_of(blocks[i]);
		uint32_t index = (uint32_t)blocks[i];
		bool before = i > 0 && start - start_of(blocks[i - 1]) < length;
		bool after = i + 1 < set->count && start_of(blocks[i + 1]) - start < length;

		if (!before && !after)
			continue;
		bits[index / 8] |= (uint8_t)(1 << index % 8);
		found++;
	}
	return found;
}
