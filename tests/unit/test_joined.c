/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pairs in bounded memory must cover all that was added, and no other choice of so many pairs may
 * cover less. That is compared with a sum over all gaps, sorted.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/joined.h"
#include "util.h"

static uint64_t covered(const struct vd_joined *joined)
{
	uint64_t clusters = 0;

	for (size_t i = 0; i < joined->count; i++)
		clusters += joined->pairs[i].last - joined->pairs[i].first + 1;
	return clusters;
}

static void check_order(const struct vd_joined *joined)
{
	for (size_t i = 0; i < joined->count; i++) {
		assert_true(joined->pairs[i].first <= joined->pairs[i].last);
		assert_true(i == 0 || joined->pairs[i - 1].last + 1 < joined->pairs[i].first);
	}
}

/* Each pair is inside a pair of the list. */
static void check_covers(const struct vd_joined *joined, const struct vd_pair *pairs, size_t count)
{
	size_t at = 0;

	for (size_t i = 0; i < count; i++) {
		while (at < joined->count && joined->pairs[at].last < pairs[i].first)
			at++;
		assert_true(at < joined->count);
		assert_true(joined->pairs[at].first <= pairs[i].first);
		assert_true(joined->pairs[at].last >= pairs[i].last);
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

	return one < other ? -1 : one > other;
}

/* What `max` pairs cover at least: the whole span without the largest gaps. */
static uint64_t least(const struct vd_pair *pairs, size_t count, size_t max)
{
	uint64_t *gaps = make(count * sizeof(*gaps)), clusters;

	for (size_t i = 0; i + 1 < count; i++)
		gaps[i] = pairs[i + 1].first - pairs[i].last - 1;
	qsort(gaps, count - 1, sizeof(*gaps), compare);
	clusters = pairs[count - 1].last - pairs[0].first + 1;
	for (size_t i = 0; i + 1 < max && i + 1 < count; i++)
		clusters -= gaps[count - 2 - i];
	free(gaps);
	return clusters;
}

/* Pairs at random; `kind` decides how large the gaps are. */
static struct vd_pair *random_pairs(size_t count, unsigned kind, struct dice *dice)
{
	struct vd_pair *pairs = make(count * sizeof(*pairs));
	uint64_t at = dice_roll(dice, 5);

	for (size_t i = 0; i < count; i++) {
		uint64_t gaps[] = { 1, 1 + dice_roll(dice, 3), 1 + dice_roll(dice, 1 << 20), 1 + i,
				    count - i };

		pairs[i].first = at;
		pairs[i].last = at + dice_roll(dice, 4);
		at = pairs[i].last + 1 + gaps[kind];
	}
	return pairs;
}

static void no_choice_of_so_many_pairs_covers_less(void **state)
{
	struct dice dice = { 8 };

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		size_t count = 1 + (size_t)dice_roll(&dice, 3000);
		size_t max = 2 + (size_t)dice_roll(&dice, 300);
		struct vd_pair *pairs = random_pairs(count, round % 5, &dice);
		struct vd_joined joined;

		vd_joined_init(&joined, max);
		for (size_t i = 0; i < count; i++) {
			assert_int_equal(vd_joined_add(&joined, &pairs[i]), 0);
			assert_true(joined.count <= 2 * max);
		}
		assert_int_equal(vd_joined_end(&joined), 0);
		assert_true(joined.count <= max);
		assert_int_equal(joined.is_exact, count <= max);
		check_order(&joined);
		check_covers(&joined, pairs, count);
		assert_true(covered(&joined) == least(pairs, count, max));
		vd_joined_clear(&joined);
		free(pairs);
	}
}

static void a_text_is_as_long_as_it_may_be(void **state)
{
	struct dice dice = { 9 };

	(void)state;
	for (unsigned round = 0; round < 100; round++) {
		size_t count = 100 + (size_t)dice_roll(&dice, 900);
		struct vd_pair *pairs = random_pairs(count, round % 5, &dice);
		uint64_t room = 60 + dice_roll(&dice, 9000), length = 0;
		struct vd_joined joined;

		vd_joined_init(&joined, count);
		for (size_t i = 0; i < count; i++)
			assert_int_equal(vd_joined_add(&joined, &pairs[i]), 0);
		assert_int_equal(vd_joined_fit(&joined, room), 0);
		check_order(&joined);
		check_covers(&joined, pairs, count);
		for (size_t i = 0; i < joined.count; i++)
			length += vd_json_pair_bytes(&joined.pairs[i], i == 0);
		assert_true(length <= room);
		assert_true(joined.is_exact || length + 2 * 10 + 4 > room);
		assert_true(covered(&joined) == least(pairs, count, joined.count));
		vd_joined_clear(&joined);
		free(pairs);
	}
}

static void neighbours_become_one_pair(void **state)
{
	static const struct vd_pair pairs[] = { { 3, 3 }, { 3, 4 }, { 5, 9 }, { 11, 11 }, { 20, 29 } };
	struct vd_joined joined, copy;

	(void)state;
	vd_joined_init(&joined, 8);
	for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++)
		assert_int_equal(vd_joined_add(&joined, &pairs[i]), 0);
	assert_int_equal(joined.count, 3);
	assert_int_equal(vd_joined_add_bytes(&joined, 9, 29 * 512 + 511, 30 * 512 + 1), 0);
	assert_int_equal(joined.count, 3);
	assert_true(joined.pairs[2].last == 30 && joined.is_exact);
	vd_joined_init(&copy, 8);
	assert_int_equal(vd_joined_add_all(&copy, &joined), 0);
	vd_joined_scale(&copy, 9, 12, 31 * 512); /* [3,9] [11,11] [20,30] of 512 bytes */
	assert_int_equal(copy.count, 1);
	assert_true(copy.pairs[0].first == 0 && copy.pairs[0].last == 3);
	vd_joined_scale(&copy, 12, 10, 31 * 512);
	assert_int_equal(copy.count, 1);
	assert_true(copy.pairs[0].first == 0 && copy.pairs[0].last == 15);
	vd_joined_clear(&copy);
	vd_joined_clear(&joined);
}

static void the_tail_names_what_cannot_be_read(void **state)
{
	static const char *const wanted[] = {
		"]}",
		"],\"exact\":false}",
		"],\"unreadable\":[[3,4],[7,7]]}",
		("],\"exact\":false,\"unreadable\":[[3,4],[7,7]],"
		 "\"unreadable_exact\":false}"),
	};
	static const struct vd_pair pairs[] = { { 3, 4 }, { 7, 7 } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_LENGTH(wanted); i++) {
		char text[4 * VD_JSON_PIECE_MAX];
		size_t used = 0, number = 0, piece;
		struct vd_joined joined;

		vd_joined_init(&joined, 8);
		for (size_t p = 0; i >= 2 && p < ARRAY_LENGTH(pairs); p++)
			assert_int_equal(vd_joined_add(&joined, &pairs[p]), 0);
		joined.is_exact = i < 3;
		while ((piece = vd_json_tail(text + used, number++, i % 2 == 0, &joined)) > 0)
			used += piece;
		assert_int_equal(used, strlen(wanted[i]));
		assert_memory_equal(text, wanted[i], used);
		assert_int_equal(used, vd_json_tail_bytes(i % 2 == 0, &joined));
		vd_joined_clear(&joined);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_choice_of_so_many_pairs_covers_less),
		cmocka_unit_test(a_text_is_as_long_as_it_may_be),
		cmocka_unit_test(neighbours_become_one_pair),
		cmocka_unit_test(the_tail_names_what_cannot_be_read),
	};

	return cmocka_run_group_tests_name("joined", tests, NULL, NULL);
}
