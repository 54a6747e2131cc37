/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hash table over start / length. Open addressing, half full at most. A slot holds the start of a
 * piece, which is a multiple of 512, and in its low bits whether it is in use and whether the piece
 * was added more than once.
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

#define SLOT_USED UINT64_C(1)
#define SLOT_SHARED UINT64_C(2)
#define SLOT_FLAGS (SLOT_USED | SLOT_SHARED)

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

/* The slot that holds the piece, or the empty one where it belongs. */
static uint64_t *overlap_slot(struct vd_overlap *set, uint64_t start)
{
	uint64_t number = start / set->length, group = number >> GROUP_BITS, at, there;

	if (group != set->group) {
		set->group = group;
		set->place = 0;
		for (unsigned i = 0; i < NUMBER_BYTES; i++)
			set->place ^= set->random[256 * i + (group >> 8 * i & 0xff)];
	}
	at = set->place << GROUP_BITS | (number & ((1u << GROUP_BITS) - 1));
	while (set->looks++,
	       (there = set->slots[at & set->mask]) != 0 && (there & ~SLOT_FLAGS) != start)
		at++;
	return &set->slots[at & set->mask];
}

bool vd_overlap_add(struct vd_overlap *set, uint64_t start)
{
	uint64_t *slot = overlap_slot(set, start);

	*slot |= *slot ? SLOT_SHARED : start | SLOT_USED;
	return *slot & SLOT_SHARED;
}

bool vd_overlap_is_shared(struct vd_overlap *set, uint64_t start)
{
	return *overlap_slot(set, start) & SLOT_SHARED;
}
