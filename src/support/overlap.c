/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hash table over start / length: pieces that do not overlap have different numbers there, and
 * one that overlaps has the same number or a neighbour's. Open addressing, half full at most.
 *
 * Eight neighbours lie side by side, in one line of the processor's cache, since tables are mostly
 * in order. Where each eight lie is decided by tabulation: a random number for each byte of theirs,
 * all combined. For whatever set of numbers, chosen without knowing the random ones, the cost of
 * linear probing is then constant (Patrascu and Thorup, "The Power of Simple Tabulation Hashing").
 * Multiplying by a constant is not enough: who knows it can lay one half of a table on the other.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "support/overlap.h"

#define GROUP_BITS 3
#define NUMBER_BYTES 8u
#define RANDOM_COUNT (NUMBER_BYTES * 256)

/* Fill it with what an image cannot foresee. */
static void random_fill(uint64_t *random)
{
	size_t bytes = RANDOM_COUNT * sizeof(*random), done = 0;
	ssize_t got = 1;

	while (done < bytes && got > 0) {
		got = getrandom((uint8_t *)random + done, bytes - done, GRND_NONBLOCK);
		done += got > 0 ? (size_t)got : 0;
	}
	/* Early at boot, or a signal came: where the memory lies is random, too. */
	for (size_t i = done / sizeof(*random); i < RANDOM_COUNT; i++) {
		uint64_t mixed = ((uint64_t)(uintptr_t)random + i) * UINT64_C(0x9e3779b97f4a7c15);

		mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
		random[i] = mixed ^ mixed >> 31;
	}
}

int vd_overlap_init(struct vd_overlap *set, uint64_t length, uint64_t count)
{
	uint64_t slots = (uint64_t)1 << GROUP_BITS;

	while (slots < 2 * count)
		slots *= 2;
	*set = (struct vd_overlap){ .length = length, .mask = slots - 1, .group = UINT64_MAX };
	set->slots = calloc((size_t)slots + RANDOM_COUNT, sizeof(*set->slots));
	if (!set->slots)
		return -ENOMEM;
	random_fill(set->slots + slots);
	set->random = set->slots + slots;
	return 0;
}

void vd_overlap_free(struct vd_overlap *set)
{
	free(set->slots);
	set->slots = NULL;
}

/* The slot that holds the piece of that number, or the empty one where it belongs. */
static uint64_t *overlap_slot(struct vd_overlap *set, uint64_t number)
{
	/* Pieces of that number begin in [low, low + length). */
	uint64_t low = number * set->length, group = number >> GROUP_BITS, at, there;

	if (group != set->group) {
		set->group = group;
		set->place = 0;
		for (unsigned i = 0; i < NUMBER_BYTES; i++)
			set->place ^= set->random[256 * i + (group >> 8 * i & 0xff)];
	}
	at = set->place << GROUP_BITS | (number & ((1u << GROUP_BITS) - 1));
	while (set->looks++,
	       (there = set->slots[at & set->mask]) != 0 && there - 1 - low >= set->length)
		at++;
	return &set->slots[at & set->mask];
}

/* Does the piece of that number, if there is one, reach into [start, start + length)? */
static bool overlap_hits(struct vd_overlap *set, uint64_t number, uint64_t start)
{
	uint64_t there = *overlap_slot(set, number);

	return there != 0 && vd_overlap(there - 1, set->length, start, set->length);
}

bool vd_overlap_add(struct vd_overlap *set, uint64_t start)
{
	uint64_t number = start / set->length;
	bool unaligned = start % set->length != 0;
	uint64_t *slot = overlap_slot(set, number);

	/* One that is aligned ends where the next number begins. */
	if (*slot != 0 || (unaligned && overlap_hits(set, number + 1, start)) ||
	    (set->unaligned && number > 0 && overlap_hits(set, number - 1, start)))
		return true;
	set->unaligned = set->unaligned || unaligned;
	*slot = start + 1;
	return false;
}
