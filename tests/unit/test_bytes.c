/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every number of a hostile image goes through bytes.h. What matters are the ends of the ranges,
 * where a plain sum would have overflowed.
 */
#include "config.h"

#include "base/bytes.h"
#include "util.h"

static void integers_are_loaded_in_their_order(void **state)
{
	static const uint8_t bytes[] = { 0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88 };

	(void)state;
	assert_int_equal(get_be16(bytes), 0xf1e2);
	assert_int_equal(get_be32(bytes), 0xf1e2d3c4);
	assert_true(get_be64(bytes) == UINT64_C(0xf1e2d3c4b5a69788));
	assert_int_equal(get_le16(bytes), 0xe2f1);
	assert_int_equal(get_le32(bytes), 0xc4d3e2f1);
}

static void integers_are_loaded_from_any_address(void **state)
{
	uint8_t bytes[32] = { 0 };

	(void)state;
	for (size_t at = 0; at < 16; at++) {
		put_be64(bytes + at, UINT64_C(0x8182838485868788) + at);
		assert_true(get_be64(bytes + at) == UINT64_C(0x8182838485868788) + at);
	}
}

static void the_smaller_and_the_larger_are_compared_without_sign(void **state)
{
	(void)state;
	assert_true(vd_min(UINT64_MAX, 1) == 1);
	assert_true(vd_min(0, UINT64_MAX) == 0);
	assert_true(vd_max(UINT64_MAX, 1) == UINT64_MAX);
	assert_true(vd_max(7, 7) == 7);
}

static void dividing_up_does_not_overflow(void **state)
{
	(void)state;
	assert_true(vd_div_up(0, 512) == 0);
	assert_true(vd_div_up(1, 512) == 1);
	assert_true(vd_div_up(512, 512) == 1);
	assert_true(vd_div_up(513, 512) == 2);
	assert_true(vd_div_up(UINT64_MAX, 1) == UINT64_MAX);
	assert_true(vd_div_up(UINT64_MAX, 512) == UINT64_C(1) << 55);
	assert_true(vd_div_up(UINT64_MAX, UINT64_MAX) == 1);
}

static void powers_of_two_have_one_bit(void **state)
{
	(void)state;
	assert_false(vd_is_power_of_two(0));
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t power = UINT64_C(1) << bit;

		assert_true(vd_is_power_of_two(power));
		assert_false(bit > 0 && vd_is_power_of_two(power | 1));
	}
	assert_false(vd_is_power_of_two(UINT64_MAX));
}

static void the_logarithm_is_rounded_down(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t power = UINT64_C(1) << bit;

		assert_int_equal(vd_log2(power), bit);
		assert_int_equal(vd_log2(power | (power - 1)), bit);
	}
}

static void a_range_that_overflows_is_not_inside(void **state)
{
	(void)state;
	assert_true(vd_inside(0, 0, 0));
	assert_true(vd_inside(10, 0, 10));
	assert_true(vd_inside(0, 10, 10));
	assert_false(vd_inside(1, 10, 10));
	assert_false(vd_inside(11, 0, 10));
	assert_false(vd_inside(5, UINT64_MAX, 10));
	assert_false(vd_inside(UINT64_MAX, 1, UINT64_MAX));
	assert_false(vd_inside(UINT64_MAX - 1, 3, 100));
	assert_true(vd_inside(1, UINT64_MAX - 1, UINT64_MAX));
}

static void ranges_that_touch_do_not_overlap(void **state)
{
	(void)state;
	assert_false(vd_overlap(0, 10, 10, 10));
	assert_false(vd_overlap(10, 10, 0, 10));
	assert_true(vd_overlap(0, 11, 10, 10));
	assert_true(vd_overlap(10, 10, 0, 11));
	assert_true(vd_overlap(5, 1, 0, 100));
	assert_true(vd_overlap(0, 100, 5, 1));
	assert_false(vd_overlap(5, 0, 5, 10));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_loaded_in_their_order),
		cmocka_unit_test(integers_are_loaded_from_any_address),
		cmocka_unit_test(the_smaller_and_the_larger_are_compared_without_sign),
		cmocka_unit_test(dividing_up_does_not_overflow),
		cmocka_unit_test(powers_of_two_have_one_bit),
		cmocka_unit_test(the_logarithm_is_rounded_down),
		cmocka_unit_test(a_range_that_overflows_is_not_inside),
		cmocka_unit_test(ranges_that_touch_do_not_overlap),
	};

	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
