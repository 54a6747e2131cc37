/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list packs lengths into blocks in chunks. Its borders are where it would go wrong, so that
 * lists of all shapes are compared with plain arrays at every edge.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "map/intervals.h"
#include "util.h"

#define NO_LIMIT ((size_t)1 << 30)

/* The same list as an array: interval i is [ends[i - 1], ends[i]), and data if i is odd or even. */
struct plain {
	uint64_t *ends;
	size_t count;
	bool first_is_data;
};

static struct vd_intervals *list_new(size_t limit)
{
	struct vd_intervals *list;

	assert_int_equal(vd_intervals_new(limit, &list), 0);
	return list;
}

static uint64_t plain_start(const struct plain *plain, size_t i)
{
	return i ? plain->ends[i - 1] : 0;
}

static bool plain_is_data(const struct plain *plain, size_t i)
{
	return plain->first_is_data ^ (i & 1);
}

static void add(struct vd_intervals *list, struct plain *plain, uint64_t length)
{
	bool is_data = plain_is_data(plain, plain->count);

	assert_true(vd_intervals_add(list, length, is_data));
	plain->ends[plain->count] = plain_start(plain, plain->count) + length;
	plain->count++;
}

static void check_is(const struct vd_interval *at, const struct plain *plain, size_t i)
{
	assert_true(at->start == plain_start(plain, i));
	assert_true(at->end == plain->ends[i]);
	assert_int_equal(at->is_data, plain_is_data(plain, i));
}

/* Go over all intervals, and find them (of a long list some) by first, middle and last byte. */
static void check_list(const struct vd_intervals *list, const struct plain *plain)
{
	struct vd_interval at;

	assert_true(vd_intervals_end(list) == plain->ends[plain->count - 1]);
	for (size_t i = 0; i < plain->count; i += i < 1100 ? 1 : 79) {
		uint64_t start = plain_start(plain, i), end = plain->ends[i];
		uint64_t places[] = { start, start + (end - start) / 2, end - 1,
				      start + 1 < end ? start + 1 : start };

		for (size_t p = 0; p < ARRAY_LENGTH(places); p++) {
			vd_intervals_find(list, places[p], &at);
			check_is(&at, plain, i);
		}
	}
	vd_intervals_find(list, 0, &at);
	for (size_t i = 0; i < plain->count; i++) {
		check_is(&at, plain, i);
		assert_int_equal(vd_intervals_next(list, &at), i + 1 < plain->count);
	}
}

/* How long the intervals of a test are. */
enum shape { BYTES, SECTORS, CLUSTERS, ODD, MIXED, LONG, SHAPES };

static uint64_t length_of(enum shape shape, struct dice *dice)
{
	switch (shape) {
	case BYTES:
		return 1 + dice_roll(dice, 3);
	case SECTORS:
		return 512 * (1 + dice_roll(dice, 200));
	case CLUSTERS:
		return 65536 * (1 + dice_roll(dice, 3));
	case ODD:
		return 1 + dice_roll(dice, 100000);
	case LONG: /* up to 2^40, of any number of digits */
		return 1 + (dice_roll(dice, UINT64_C(1) << 40) >> dice_roll(dice, 40));
	case MIXED:
	case SHAPES:
		break;
	}
	return length_of((enum shape)dice_roll(dice, MIXED), dice);
}

static void lists_of_all_shapes_are_what_was_added(void **state)
{
	static const size_t counts[] = { 1, 2, 255, 256, 257, 511, 512, 513, 1000, 40000 };
	struct dice dice = { 1 };

	(void)state;
	for (int shape = 0; shape < SHAPES; shape++) {
		for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
			struct vd_intervals *list = list_new(NO_LIMIT);
			struct plain plain = {
				.ends = make(counts[i] * sizeof(*plain.ends)),
				.first_is_data = i & 1,
			};

			for (size_t n = 0; n < counts[i]; n++)
				add(list, &plain, length_of((enum shape)shape, &dice));
			check_list(list, &plain);
			free(plain.ends);
			vd_intervals_free(list);
		}
	}
}

static void each_length_of_bits_is_kept(void **state)
{
	struct vd_intervals *list = list_new(NO_LIMIT);
	struct plain plain = { .ends = make(400 * sizeof(*plain.ends)) };

	(void)state;
	for (unsigned bit = 0; bit < 53; bit++) {
		uint64_t power = UINT64_C(1) << bit;

		add(list, &plain, power);
		add(list, &plain, power + 1);
		add(list, &plain, 512 * power);
		add(list, &plain, (power > 1 ? power - 1 : 1));
		add(list, &plain, 511 * power + 1);
	}
	check_list(list, &plain);
	free(plain.ends);
	vd_intervals_free(list);
}

static void the_largest_disk_fits(void **state)
{
	static const uint64_t lengths[][2] = {
		{ INT64_MAX - 1, 1 },
		{ 1, INT64_MAX - 1 },
		{ (uint64_t)INT64_MAX + 1 - 512, 511 },
		{ UINT64_MAX - 511, 511 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
		struct vd_intervals *list = list_new(NO_LIMIT);
		uint64_t ends[2];
		struct plain plain = { .ends = ends, .first_is_data = true };

		add(list, &plain, lengths[i][0]);
		add(list, &plain, lengths[i][1]);
		check_list(list, &plain);
		vd_intervals_free(list);
	}
}

static void a_place_stays_good_while_the_list_grows(void **state)
{
	struct vd_intervals *list = list_new(NO_LIMIT);
	struct plain plain = { .ends = make(300000 * sizeof(*plain.ends)) };
	struct vd_interval at;
	struct dice dice = { 2 };

	(void)state;
	add(list, &plain, 1);
	vd_intervals_find(list, 0, &at);
	for (size_t i = 0; i + 1 < 300000; i++) { /* heads and chunks are added on the way */
		assert_false(vd_intervals_next(list, &at));
		add(list, &plain, length_of(SECTORS, &dice));
		assert_true(vd_intervals_next(list, &at));
		check_is(&at, &plain, i + 1);
	}
	free(plain.ends);
	vd_intervals_free(list);
}

/* Fill a list with lengths of that shape until it is full. */
static struct vd_intervals *list_fill(size_t limit, enum shape shape, struct plain *plain)
{
	struct vd_intervals *list = list_new(limit);
	struct dice dice = { 3 };

	*plain = (struct plain){ .ends = make(limit / 65536 * 65536 * sizeof(*plain->ends)) };
	for (;;) {
		uint64_t length = length_of(shape, &dice);

		if (!vd_intervals_add(list, length, plain_is_data(plain, plain->count)))
			break;
		plain->ends[plain->count] = plain_start(plain, plain->count) + length;
		plain->count++;
		assert_true(vd_intervals_memory(list) <= limit);
	}
	return list;
}

static void a_full_list_stays_as_it_is(void **state)
{
	static const size_t limits[] = {
		65536 + 24576 + 8, 100000, 200000, 400000, 524288, 700001
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
		for (int shape = 0; shape < SHAPES; shape++) {
			struct plain plain;
			struct vd_intervals *list = list_fill(limits[i], (enum shape)shape, &plain);
			uint64_t end = vd_intervals_end(list);

			assert_true(plain.count > 5000);
			for (int more = 0; more < 5; more++)
				assert_false(vd_intervals_add(list, 512, true));
			assert_true(vd_intervals_end(list) == end);
			assert_true(vd_intervals_memory(list) <= limits[i]);
			check_list(list, &plain);
			free(plain.ends);
			vd_intervals_free(list);
		}
	}
}

static void a_list_without_memory_takes_nothing(void **state)
{
	static const size_t limits[] = { 0, 1, 4096, 65535, 65544, 70000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
		struct vd_intervals *list = list_new(limits[i]);

		assert_false(vd_intervals_add(list, 512, true));
		assert_false(vd_intervals_add(list, 512, true));
		assert_true(vd_intervals_end(list) == 0);
		assert_true(vd_intervals_memory(list) <= limits[i]);
		vd_intervals_free(list);
	}
}

/*
 * Four chunks of lengths of one byte use up the first 1024 heads. Where the memory ends then, a
 * fifth chunk fits but no head for it: the list must stay as it is, also if it is tried again.
 */
static void a_list_that_is_full_between_chunk_and_head_stays_as_it_is(void **state)
{
	size_t heads = 1024 * 24, chunk = 65536 + 8;

	(void)state;
	for (size_t limit = heads + 4 * chunk; limit <= heads + 5 * chunk + 1; limit++) {
		struct plain plain;
		struct vd_intervals *list = list_fill(limit, BYTES, &plain);

		for (int more = 0; more < 300; more++)
			assert_false(vd_intervals_add(list, UINT64_C(1) << 39 | 1, true));
		check_list(list, &plain);
		free(plain.ends);
		vd_intervals_free(list);
		limit += limit == heads + 4 * chunk ? chunk - 2 : 0; /* only around the borders */
	}
}

static void a_disk_of_millions_of_intervals_fits_into_the_default(void **state)
{
	struct vd_intervals *list = list_new((size_t)64 << 20);
	const unsigned count = 8400000;
	struct vd_interval at;
	struct dice dice = { 4 };

	(void)state;
	for (unsigned i = 0; i < count; i++)
		assert_true(vd_intervals_add(list, 65536, i & 1));
	assert_true(vd_intervals_end(list) == count * UINT64_C(65536));
	assert_true(vd_intervals_memory(list) <= (size_t)64 << 20);
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t number = dice_roll(&dice, count);

		vd_intervals_find(list, number * 65536 + dice_roll(&dice, 65536), &at);
		assert_true(at.start == number * 65536 && at.end == at.start + 65536);
		assert_int_equal(at.is_data, number & 1);
	}
	vd_intervals_free(list);
}

/* Together they take no more than the limit, and what one gives back the other may have. */
static void lists_that_share_a_limit_keep_it_together(void **state)
{
	struct vd_intervals *first = list_new((size_t)1 << 20), *second, *third;

	(void)state;
	assert_int_equal(vd_intervals_new_sharing(first, &second), 0);
	for (unsigned i = 0; i < 100000; i++)
		assert_true(vd_intervals_add(second, 65536, i & 1));
	for (unsigned i = 0; vd_intervals_add(first, 512, i & 1); i++)
		assert_true(i < 2000000);
	assert_true(vd_intervals_memory(first) > 0);
	assert_true(vd_intervals_memory(first) + vd_intervals_memory(second) <= (size_t)1 << 20);
	assert_int_equal(vd_intervals_new_sharing(first, &third), 0);
	assert_false(vd_intervals_add(third, 512, true));
	vd_intervals_free(second);
	assert_true(vd_intervals_add(third, 512, true));
	vd_intervals_free(third);
	vd_intervals_free(first);
}

static void freeing_nothing_is_fine(void **state)
{
	(void)state;
	vd_intervals_free(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_all_shapes_are_what_was_added),
		cmocka_unit_test(each_length_of_bits_is_kept),
		cmocka_unit_test(the_largest_disk_fits),
		cmocka_unit_test(a_place_stays_good_while_the_list_grows),
		cmocka_unit_test(a_full_list_stays_as_it_is),
		cmocka_unit_test(a_list_without_memory_takes_nothing),
		cmocka_unit_test(a_list_that_is_full_between_chunk_and_head_stays_as_it_is),
		cmocka_unit_test(a_disk_of_millions_of_intervals_fits_into_the_default),
		cmocka_unit_test(lists_that_share_a_limit_keep_it_together),
		cmocka_unit_test(freeing_nothing_is_fine),
	};

	return cmocka_run_group_tests_name("intervals", tests, NULL, NULL);
}
