/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The marks let a reader begin in the middle of a JSON text that nobody holds. A mark that is off
 * by one character or pair would give text that is broken far from where it went wrong.
 */
#include "config.h"

#include <stdlib.h>

#include "map/marks.h"
#include "util.h"

#define BITS 9

/* The test's disks: pair i is [3i, 3i + i % 2], so that none of them merge. */
static struct vd_pair pair_of(uint64_t number)
{
	return (struct vd_pair){ .first = 3 * number, .last = 3 * number + number % 2 };
}

static uint64_t size_of(uint64_t pairs)
{
	return 3 * pairs << BITS;
}

/* Add the pair as two intervals that begin inside a cluster. */
static void add_pair(struct vd_marks *marks, uint64_t number)
{
	struct vd_pair pair = pair_of(number);

	vd_marks_add(marks, (pair.first << BITS) + 7, (pair.first << BITS) + 9);
	vd_marks_add(marks, (pair.last << BITS) + 20, (pair.last << BITS) + 30);
}

static const struct vd_joined nothing; /* that cannot be read */

/* Marks of the first `pairs` pairs. */
static struct vd_marks *marks_new(uint64_t pairs)
{
	struct vd_marks *marks = make(sizeof(*marks));

	vd_marks_init(marks, size_of(pairs), BITS);
	for (uint64_t i = 0; i < pairs; i++)
		add_pair(marks, i);
	vd_marks_end(marks, &nothing);
	return marks;
}

/* Write all pairs, and compare the marks on the way. */
static void check_marks(const struct vd_marks *marks, uint64_t pairs)
{
	char text[VD_JSON_PIECE_MAX];
	uint64_t json = vd_json_head(text, size_of(pairs), BITS);
	unsigned mark = 0;

	assert_true(marks->head == json);
	assert_true(marks->number == pairs);
	for (uint64_t i = 0; i < pairs; i++) {
		struct vd_pair pair = pair_of(i);

		if (mark < marks->count && marks->marks[mark].number == i) {
			assert_true(marks->marks[mark].json == json);
			assert_true(marks->marks[mark].virt == pair.first << BITS);
			mark++;
		}
		json += vd_json_pair(text, &pair, i == 0);
	}
	assert_int_equal(mark, marks->count);
	assert_true(marks->json == json + vd_json_tail_bytes(true, &nothing));
}

/* At each character the last mark that is not behind it is found. */
static void check_find(const struct vd_marks *marks, uint64_t step)
{
	struct vd_json_mark begin = { .json = marks->head };
	unsigned last = 0;

	for (uint64_t at = 0; at <= marks->json + step; at += step) {
		struct vd_json_mark found = vd_marks_find(marks, at), expected = begin;

		while (last < marks->count && marks->marks[last].json <= at)
			last++;
		if (last > 0)
			expected = marks->marks[last - 1];
		assert_true(found.virt == expected.virt && found.json == expected.json &&
			    found.number == expected.number);
	}
}

/* Stretches follow each other, and their sums are those of their pairs. */
static void check_stretches(const struct vd_marks *marks, uint64_t pairs)
{
	struct vd_stretch_mark mark = { .number = 0 };

	for (uint64_t next = 0; next < pairs; next = mark.number + mark.count) {
		uint64_t sum = 0;

		assert_true(vd_marks_stretch(marks, next, &mark));
		assert_true(mark.number == next && mark.count > 0);
		assert_true(mark.virt == pair_of(next).first << BITS);
		for (uint64_t i = 0; i < mark.count; i++) {
			struct vd_pair pair = pair_of(next + i);

			sum += vd_pair_sum(&pair);
		}
		assert_true(sum == mark.sum);
		assert_true(vd_marks_stretch(marks, next + mark.count - 1, &mark));
		assert_true(mark.number == next);
	}
	assert_true(mark.number + mark.count == pairs || pairs == 0);
	assert_false(vd_marks_stretch(marks, pairs, &mark));
}

static void the_length_is_that_of_the_text(void **state)
{
	static const uint64_t counts[] = { 0, 1, 2, 10, 1023, 1024, 1025, 2048, 2049, 100000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
		struct vd_marks *marks = marks_new(counts[i]);

		check_marks(marks, counts[i]);
		check_stretches(marks, counts[i]);
		free(marks);
	}
}

static void the_nearest_mark_before_a_character_is_found(void **state)
{
	static const uint64_t counts[] = { 0, 1, 1024, 1025, 20000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
		struct vd_marks *marks = marks_new(counts[i]);

		check_find(marks, 1);
		free(marks);
	}
}

static void without_pairs_a_reader_begins_behind_the_head(void **state)
{
	struct vd_marks *marks = marks_new(0);
	struct vd_json_mark found = vd_marks_find(marks, marks->json - 1);

	(void)state;
	assert_true(found.virt == 0 && found.json == marks->head && found.number == 0);
	free(marks);
}

static void too_many_marks_are_thinned_and_stay_right(void **state)
{
	const uint64_t most = (uint64_t)VD_MARKS_MAX * 1024, pairs = most + 3000;
	struct vd_marks *marks = make(sizeof(*marks));

	(void)state;
	vd_marks_init(marks, size_of(pairs), BITS);
	for (uint64_t i = 0; i <= most; i++) /* the last one may still grow: it has no mark */
		add_pair(marks, i);
	assert_int_equal(marks->count, VD_MARKS_MAX);
	for (uint64_t i = most + 1; i < pairs; i++)
		add_pair(marks, i);
	vd_marks_end(marks, &nothing);
	assert_int_equal(marks->count, VD_MARKS_MAX / 2 + 2);
	assert_true(marks->step == 2 * 1024);
	for (unsigned i = 0; i < marks->count; i++)
		assert_true(marks->marks[i].number == i * marks->step);
	check_marks(marks, pairs);
	check_find(marks, 99991);
	check_stretches(marks, pairs);
	free(marks);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_length_is_that_of_the_text),
		cmocka_unit_test(the_nearest_mark_before_a_character_is_found),
		cmocka_unit_test(without_pairs_a_reader_begins_behind_the_head),
		cmocka_unit_test(too_many_marks_are_thinned_and_stay_right),
	};

	return cmocka_run_group_tests_name("marks", tests, NULL, NULL);
}
