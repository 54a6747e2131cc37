/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pairs of the JSON: rounded outward, merged, never past the last cluster; and their text,
 * which others parse and which must be exact to the character.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map/pairs.h"
#include "util.h"

/* Feed intervals "START-END ...", give the pairs "[first,last]...". */
static void check_pairs(unsigned cluster_bits, const char *intervals, const char *expected)
{
	struct vd_pairs pairs = { .cluster_bits = cluster_bits };
	struct vd_pair done;
	char text[512] = "";
	uint64_t start, end;
	int used;

	while (sscanf(intervals, "%" SCNu64 "-%" SCNu64 "%n", &start, &end, &used) == 2) {
		intervals += used;
		if (vd_pairs_add(&pairs, start, end, &done))
			snprintf(text + strlen(text), sizeof(text) - strlen(text),
				 "[%" PRIu64 ",%" PRIu64 "]", done.first, done.last);
	}
	if (vd_pairs_end(&pairs, &done))
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 "[%" PRIu64 ",%" PRIu64 "]", done.first, done.last);
	assert_string_equal(text, expected);
	assert_false(vd_pairs_end(&pairs, &done));
}

static void no_data_gives_no_pair(void **state)
{
	(void)state;
	check_pairs(16, "", "");
}

static void data_is_rounded_outward(void **state)
{
	(void)state;
	check_pairs(9, "0-1", "[0,0]");
	check_pairs(9, "511-512", "[0,0]");
	check_pairs(9, "511-513", "[0,1]");
	check_pairs(9, "512-1024", "[1,1]");
	check_pairs(9, "1000-2049", "[1,4]");
}

static void neighbours_become_one_pair(void **state)
{
	(void)state;
	check_pairs(9, "0-512 512-1024", "[0,1]");
	check_pairs(9, "0-1 600-601", "[0,1]");
	check_pairs(9, "0-1 2-3 4-5", "[0,0]");
	check_pairs(9, "0-1 500-700 700-1023", "[0,1]");
	check_pairs(9, "0-1 511-512 1023-1024", "[0,1]");
}

static void a_hole_of_a_whole_cluster_parts(void **state)
{
	(void)state;
	check_pairs(9, "0-512 1024-1536", "[0,0][2,2]");
	check_pairs(9, "0-513 1535-1536 2560-2561 5000-5001", "[0,2][5,5][9,9]");
}

static void the_last_partial_cluster_counts(void **state)
{
	(void)state;
	check_pairs(21, "4194304-4194305", "[2,2]");
	check_pairs(21, "0-9223372036854775807", "[0,4398046511103]");
}

static void the_smallest_and_the_largest_grain_work(void **state)
{
	(void)state;
	check_pairs(0, "0-1 1-2 3-4", "[0,1][3,3]");
	check_pairs(62, "0-9223372036854775807", "[0,1]");
	check_pairs(63, "5-6 9223372036854775806-9223372036854775807", "[0,0]");
}

static void random_intervals_give_the_clusters_they_touch(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct vd_pairs pairs = { .cluster_bits = (unsigned)dice_roll(&dice, 8) };
		struct vd_pair done = { 0 };
		bool touched[6000] = { false };
		uint64_t at = 0, last = 0, longest = 1 + dice_roll(&dice, 300);
		bool any = false, more = true;

		while (more) {
			uint64_t start = at + dice_roll(&dice, longest);
			bool is_done;

			at = start + 1 + dice_roll(&dice, longest);
			more = at < 5000;
			for (uint64_t i = start; more && i < at; i++)
				touched[i >> pairs.cluster_bits] = true;
			is_done = more ? vd_pairs_add(&pairs, start, at, &done)
				       : vd_pairs_end(&pairs, &done);
			if (!is_done)
				continue;
			assert_true(!any || done.first > last + 1);
			for (uint64_t i = done.first; i <= done.last; i++) {
				assert_true(touched[i]);
				touched[i] = false;
			}
			last = done.last;
			any = true;
		}
		for (size_t i = 0; i < ARRAY_LENGTH(touched); i++)
			assert_false(touched[i]);
	}
}

static void check_text(const char *text, size_t length, const char *expected)
{
	assert_int_equal(length, strlen(expected));
	assert_memory_equal(text, expected, length);
}

static void the_text_is_that_of_xen_api(void **state)
{
	char text[VD_JSON_PIECE_MAX];

	(void)state;
	check_text(text, vd_json_head(text, 33562624, 21),
		   "{\"virtual_size\":33562624,\"cluster_bits\":21,\"data_clusters\":[");
	check_text(text, vd_json_pair(text, &(struct vd_pair){ 0, 2 }, true), "[0,2]");
	check_text(text, vd_json_pair(text, &(struct vd_pair){ 13, 15 }, false), ",[13,15]");
}

static void numbers_of_any_length_are_printed(void **state)
{
	char text[VD_JSON_PIECE_MAX], expected[VD_JSON_PIECE_MAX];
	struct dice dice = { 2 };

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct vd_pair pair = {
			.first = dice_roll(&dice, UINT64_MAX) >> dice_roll(&dice, 64),
			.last = dice_roll(&dice, UINT64_MAX) >> dice_roll(&dice, 64),
		};

		snprintf(expected, sizeof(expected), ",[%" PRIu64 ",%" PRIu64 "]", pair.first,
			 pair.last);
		check_text(text, vd_json_pair(text, &pair, false), expected);
		assert_int_equal(vd_json_pair_bytes(&pair, false), strlen(expected));
		assert_int_equal(vd_json_pair_bytes(&pair, true), strlen(expected) - 1);
		check_text(text, vd_json_pair(text, &pair, true), expected + 1);
	}
}

static void the_longest_texts_fit(void **state)
{
	struct vd_pair pair = { UINT64_MAX, UINT64_MAX };
	char text[VD_JSON_PIECE_MAX];

	(void)state;
	assert_true(vd_json_head(text, UINT64_MAX, 63) < VD_JSON_PIECE_MAX);
	check_text(text, vd_json_pair(text, &pair, false),
		   ",[18446744073709551615,18446744073709551615]");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_data_gives_no_pair),
		cmocka_unit_test(data_is_rounded_outward),
		cmocka_unit_test(neighbours_become_one_pair),
		cmocka_unit_test(a_hole_of_a_whole_cluster_parts),
		cmocka_unit_test(the_last_partial_cluster_counts),
		cmocka_unit_test(the_smallest_and_the_largest_grain_work),
		cmocka_unit_test(random_intervals_give_the_clusters_they_touch),
		cmocka_unit_test(the_text_is_that_of_xen_api),
		cmocka_unit_test(numbers_of_any_length_are_printed),
		cmocka_unit_test(the_longest_texts_fit),
	};

	return cmocka_run_group_tests_name("pairs", tests, NULL, NULL);
}
