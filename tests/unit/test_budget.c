/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The budget of a chain: what fits is spent, what does not is refused, and then so is all else. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "support/budget.h"
#include "util.h"

static void what_fits_is_spent_to_the_last_byte(void **state)
{
	struct vd_budget budget = { .left = 100 };
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(vd_budget_spend(&budget, 60, "a", "size", 1, &err), 0);
	assert_int_equal(vd_budget_spend(&budget, 40, "b", "size", 1, &err), 0);
	assert_int_equal(vd_budget_spend(&budget, 0, "c", "size", 1, &err), 0);
	assert_string_equal(err.text, "");
	assert_true(budget.left == 0);
}

static void what_is_too_much_is_refused_with_file_field_value_and_limit(void **state)
{
	struct vd_budget budget = { .left = 100 };
	struct vd_error err;

	(void)state;
	assert_int_equal(vd_budget_spend(&budget, 101, "a.vhd", "its size", 77, &err), -E2BIG);
	assert_non_null(strstr(err.text, "a.vhd: its size is 77: "));
	assert_non_null(strstr(err.text, "640 MiB"));
	/* A smaller file that comes later must not fare better. */
	assert_int_equal(vd_budget_spend(&budget, 1, "b.vhd", "its size", 1, &err), -E2BIG);
}

static void a_huge_amount_does_not_wrap(void **state)
{
	struct vd_budget budget = { .left = VD_BUDGET_WORK };

	(void)state;
	assert_int_equal(vd_budget_spend(&budget, UINT64_MAX, "a", "size", 1, NULL), -E2BIG);
}

static void without_a_budget_nothing_is_refused(void **state)
{
	(void)state;
	assert_int_equal(vd_budget_spend(NULL, UINT64_MAX, "a", "size", 1, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_spent_to_the_last_byte),
		cmocka_unit_test(what_is_too_much_is_refused_with_file_field_value_and_limit),
		cmocka_unit_test(a_huge_amount_does_not_wrap),
		cmocka_unit_test(without_a_budget_nothing_is_refused),
	};

	return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
