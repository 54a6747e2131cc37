/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pieces are sorted by their start: one that shares units with any other shares some with a
 * neighbour. A radix sort from the highest digit down, in place ("American flag sort", McIlroy,
 * Bostic and McIlroy, "Engineering Radix Sort"): its time is bounded by the eight digits of a start,
 * so that a hostile image cannot make it slow as it can a quicksort or a hash table, and it takes no
 * memory beside the pieces. Four million of them in any order take some tenths of a second.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/collisions.h"

#define DIGIT_BITS 8
#define DIGITS (1u << DIGIT_BITS)
#define TOP_SHIFT (64 - DIGIT_BITS)
#define FEW 24 /* so many are sorted by insertion */

/*
 * Ask for huge pages: with small ones a third of the time goes into page faults, and the sort misses
 * the translation cache. Advice: without huge pages all is as right, and slower.
 */
static void prefer_huge_pages(void *memory, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t skipped = -(uintptr_t)memory % page;

	if (bytes > 2 * page)
		(void)madvise((char *)memory + skipped, bytes - skipped, MADV_HUGEPAGE);
}

int vd_collisions_init(struct vd_collisions *set, size_t max)
{
	set->count = 0;
	set->max = max;
	set->pieces = malloc(max ? max * sizeof(*set->pieces) : 1);
	if (!set->pieces)
		return -ENOMEM;
	prefer_huge_pages(set->pieces, max * sizeof(*set->pieces));
	return 0;
}

void vd_collisions_free(struct vd_collisions *set)
{
	free(set->pieces);
	set->pieces = NULL;
}

bool vd_collisions_add(struct vd_collisions *set, uint64_t start, uint32_t index)
{
	if (set->count == set->max)
		return false;
	set->pieces[set->count++] = (struct vd_collisions_piece){
		.start_high = (uint32_t)(start >> 32),
		.start_low = (uint32_t)start,
		.index = index,
	};
	return true;
}

static uint64_t start_of(const struct vd_collisions_piece *piece)
{
	return (uint64_t)piece->start_high << 32 | piece->start_low;
}

static unsigned digit_of(const struct vd_collisions_piece *piece, unsigned shift)
{
	return (unsigned)(start_of(piece) >> shift) & (DIGITS - 1);
}

static void sort_few(struct vd_collisions_piece *pieces, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct vd_collisions_piece piece = pieces[i];
		size_t at = i;

		for (; at > 0 && start_of(&pieces[at - 1]) > start_of(&piece); at--)
			pieces[at] = pieces[at - 1];
		pieces[at] = piece;
	}
}

/*
 * Bring the pieces into the order of one digit. `ends` gets where each digit's pieces end; those of
 * the digit before end where they begin. False: all have the same digit there, as the high ones of
 * most files, and nothing is done.
 */
static bool sort_digit(struct vd_collisions_piece *pieces, size_t count, unsigned shift,
		       size_t *ends)
{
	size_t next[DIGITS], sum = 0; /* where the next piece of a digit belongs */

	for (unsigned digit = 0; digit < DIGITS; digit++)
		ends[digit] = 0;
	for (size_t i = 0; i < count; i++)
		ends[digit_of(&pieces[i], shift)]++;
	if (ends[digit_of(&pieces[0], shift)] == count)
		return false;
	for (unsigned digit = 0; digit < DIGITS; digit++) {
		next[digit] = sum;
		sum += ends[digit];
		ends[digit] = sum;
	}
	/* What lies where a digit's next piece belongs goes where it belongs itself, until it is there. */
	for (unsigned digit = 0; digit < DIGITS; digit++) {
		while (next[digit] < ends[digit]) {
			struct vd_collisions_piece piece = pieces[next[digit]];
			unsigned its = digit_of(&piece, shift);

			pieces[next[digit]] = pieces[next[its]];
			pieces[next[its]++] = piece;
		}
	}
	return true;
}

static void sort(struct vd_collisions_piece *pieces, size_t count, unsigned shift)
{
	size_t ends[DIGITS], begin = 0;

	if (count <= FEW) {
		sort_few(pieces, count);
		return;
	}
	while (!sort_digit(pieces, count, shift, ends)) {
		if (shift == 0)
			return; /* they all begin at one place */
		shift -= DIGIT_BITS;
	}
	for (unsigned digit = 0; digit < DIGITS && shift > 0; digit++) {
		sort(pieces + begin, ends[digit] - begin, shift - DIGIT_BITS);
		begin = ends[digit];
	}
}

/* The pieces are in order. True: some share a unit. */
static bool mark(const struct vd_collisions *set, uint64_t length, uint8_t *bits)
{
	const struct vd_collisions_piece *pieces = set->pieces;
	bool found = false;

	for (size_t i = 0; i < set->count; i++) {
		uint64_t start = start_of(&pieces[i]);
		uint32_t index = pieces[i].index;
		bool before = i > 0 && start - start_of(&pieces[i - 1]) < length;
		bool after = i + 1 < set->count && start_of(&pieces[i + 1]) - start < length;

		if (!before && !after)
			continue;
		bits[index / 8] |= (uint8_t)(1 << index % 8);
		found = true;
	}
	return found;
}

int vd_collisions_find(struct vd_collisions *set, uint64_t length, size_t indexes, uint8_t **bits)
{
	*bits = calloc(1, indexes / 8 + 1);
	if (!*bits)
		return -ENOMEM;
	sort(set->pieces, set->count, TOP_SHIFT);
	if (!mark(set, length, *bits)) {
		free(*bits);
		*bits = NULL;
	}
	return 0;
}
