/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Blocks that share bytes: what the search finds is compared with all pairs of blocks. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support/collisions.h"
#include "util.h"

enum { BLOCKS = 200 };

static bool shares(const uint64_t *starts, uint32_t count, uint32_t i, uint64_t length)
{
	for (uint32_t j = 0; j < count; j++) {
		uint64_t distance = vd_max(starts[i], starts[j]) - vd_min(starts[i], starts[j]);

		if (i != j && distance < length)
			return true;
	}
	return false;
}

/* Search among these pieces, twice, and compare each answer with all other pieces. */
static void check(const uint64_t *starts, uint32_t count, uint64_t length)
{
	struct vd_collisions set;

	assert_int_equal(vd_collisions_init(&set, count), 0);
	for (uint32_t i = 0; i < count; i++)
		vd_collisions_add(&set, starts[i], i);
	for (int round = 0; round < 2; round++) { /* they are in order by the second */
		uint8_t *bits;
		bool any = false;

		assert_int_equal(vd_collisions_find(&set, length, count, &bits), 0);
		for (uint32_t i = 0; i < count; i++) {
			bool wanted = shares(starts, count, i, length);

			assert_int_equal(bits ? bits[i / 8] >> i % 8 & 1 : 0, wanted);
			any = any || wanted;
		}
		assert_int_equal(bits != NULL, any);
		free(bits);
	}
	vd_collisions_free(&set);
}

static void what_is_found_is_what_all_pairs_show(void **state)
{
	struct dice dice = { 1 };
	uint64_t starts[BLOCKS];

	(void)state;
	for (int round = 0; round < 500; round++) {
		uint64_t length = 1 + dice_roll(&dice, 40);
		uint32_t count = 1 + (uint32_t)dice_roll(&dice, BLOCKS);
		uint64_t room = 1 + dice_roll(&dice, 4 * count * length);
		uint64_t first =
			dice_roll(&dice, (UINT64_C(1) << (16 + round % 48)) - room - length);

		for (uint32_t i = 0; i < count; i++)
			starts[i] = first + dice_roll(&dice, room);
		check(starts, count, length);
	}
}

/* Each block lies on the next one by a little: none of them may be believed. */
static void of_blocks_that_overlap_in_a_row_all_are_found(void **state)
{
	uint64_t starts[BLOCKS];

	(void)state;
	for (uint32_t i = 0; i < BLOCKS; i++)
		starts[i] = 4 + i * 4096;
	check(starts, BLOCKS, 4097);
	check(starts, BLOCKS, 4096);
}

static void the_largest_places_work(void **state)
{
	static const uint64_t starts[] = { UINT32_MAX, 0, UINT32_MAX - 9, UINT32_MAX - 20, 3 };
	static const uint64_t far[] = { UINT64_MAX, 0, UINT64_MAX - 9, UINT64_MAX - 20, 3 };

	(void)state;
	check(starts, 5, 10);
	check(starts, 5, 9);
	check(starts, 5, UINT64_C(1) << 31);
	check(starts, 1, 10);
	check(starts, 0, 10);
	check(far, 4, 10);
	check(far, 4, 9);
}

/* Each digit decides somewhere, and so does each alone: pieces that differ in one bit or in two. */
static void pieces_are_told_apart_by_any_digit(void **state)
{
	uint64_t starts[BLOCKS];

	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (uint32_t i = 0; i < BLOCKS; i++)
			starts[i] = (i % 2 ? UINT64_C(1) << bit : 0) |
				    (i > 60 ? UINT64_C(1) << i % 64 : 0);
		check(starts, BLOCKS, 1);
		check(starts, 64, 1);
	}
}

/* A file may change between counting and collecting. */
static void what_was_not_counted_has_no_room(void **state)
{
	struct vd_collisions set;
	uint8_t *bits;

	(void)state;
	assert_int_equal(vd_collisions_init(&set, 1), 0);
	assert_true(vd_collisions_add(&set, 7, 0));
	assert_false(vd_collisions_add(&set, 7, 1));
	assert_int_equal(vd_collisions_find(&set, 1, 2, &bits), 0);
	assert_null(bits);
	vd_collisions_free(&set);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_found_is_what_all_pairs_show),
		cmocka_unit_test(of_blocks_that_overlap_in_a_row_all_are_found),
		cmocka_unit_test(the_largest_places_work),
		cmocka_unit_test(pieces_are_told_apart_by_any_digit),
		cmocka_unit_test(what_was_not_counted_has_no_room),
	};

	return cmocka_run_group_tests_name("collisions", tests, NULL, NULL);
}
