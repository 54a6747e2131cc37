/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The search for pieces of a file that are used more than once is a hash table over a hostile file's
 * numbers. Its answers are compared with a plain array, and it may not become slow.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/overlap.h"
#include "util.h"

static void pieces_added_twice_are_found_as_in_an_array(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (int round = 0; round < 300; round++) {
		uint64_t length = UINT64_C(512) << dice_roll(&dice, 13);
		uint64_t count = 1 + dice_roll(&dice, 200), room = 1 + dice_roll(&dice, 2 * count);
		unsigned times[400] = { 0 };
		struct vd_overlap set;

		assert_int_equal(vd_overlap_init(&set, length, count), 0);
		for (uint64_t i = 0; i < count; i++) {
			uint64_t number = dice_roll(&dice, room);

			assert_int_equal(vd_overlap_add(&set, number * length), times[number] > 0);
			times[number]++;
		}
		for (uint64_t number = 0; number < room; number++)
			assert_int_equal(vd_overlap_is_shared(&set, number * length),
					 times[number] > 1);
		vd_overlap_free(&set);
	}
}

static void the_largest_places_work(void **state)
{
	const uint64_t end = UINT64_C(1) << 56;
	struct vd_overlap set;

	(void)state;
	assert_int_equal(vd_overlap_init(&set, 512, 10), 0);
	assert_false(vd_overlap_add(&set, end - 512));
	assert_false(vd_overlap_add(&set, end - 1024));
	assert_true(vd_overlap_add(&set, end - 512));
	assert_false(vd_overlap_is_shared(&set, end - 1024));
	assert_true(vd_overlap_is_shared(&set, end - 512));
	vd_overlap_free(&set);
}

/* Numbers that are likely to meet: in groups, that many of a kind, `step` apart and from `far` on. */
static void check_cost(uint64_t count, uint64_t step, uint64_t far, bool backwards)
{
	enum { LENGTH = 512, LOOKS = 40 };
	struct vd_overlap set;

	assert_int_equal(vd_overlap_init(&set, LENGTH, count), 0);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = backwards ? count - 1 - i : i;
		uint64_t number = at < count / 2 ? at * step : far + (at - count / 2) * step;

		assert_false(vd_overlap_add(&set, number * LENGTH));
	}
	assert_true(set.looks <= LOOKS * count);
	vd_overlap_free(&set);
}

/*
 * Two groups of neighbours that differ in one bit, or in a little more: if they come to lie on each
 * other, each piece is looked for past all of the others. Counted, since slow is not a number.
 */
static void no_numbers_make_it_slow(void **state)
{
	enum { COUNT = (1 << 14) - 2 };

	(void)state;
	for (unsigned bit = 15; bit < 55; bit++) {
		uint64_t far = UINT64_C(1) << bit;

		check_cost(COUNT, 1, far, false);
		check_cost(COUNT, 1, far, true);
		check_cost(COUNT, 1, far + far / 2, false);
		check_cost(COUNT, 1, far - COUNT, false);
	}
	for (unsigned bit = 0; bit < 38; bit++)
		check_cost(COUNT, UINT64_C(1) << bit, (UINT64_C(1) << bit) * COUNT, false);
}

/* A full table is searched from end to end. A number below a power of two fills it most. */
static void the_table_is_never_more_than_half_full(void **state)
{
	(void)state;
	for (uint64_t power = 2; power <= 1 << 16; power *= 2) {
		for (uint64_t count = power - 2; count <= power + 1; count++) {
			struct vd_overlap set;

			assert_int_equal(vd_overlap_init(&set, 512, count), 0);
			assert_true(set.mask + 1 >= 2 * count);
			vd_overlap_free(&set);
		}
	}
}

static void freeing_twice_is_fine(void **state)
{
	struct vd_overlap set;

	(void)state;
	assert_int_equal(vd_overlap_init(&set, 512, 0), 0);
	vd_overlap_free(&set);
	vd_overlap_free(&set);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_added_twice_are_found_as_in_an_array),
		cmocka_unit_test(the_largest_places_work),
		cmocka_unit_test(no_numbers_make_it_slow),
		cmocka_unit_test(the_table_is_never_more_than_half_full),
		cmocka_unit_test(freeing_twice_is_fine),
	};

	return cmocka_run_group_tests_name("overlap", tests, NULL, NULL);
}
