/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The options of a chain are set by name from two command lines and from /etc/fstab; each row of
 * the table must do what it says, and a bad value must be named.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "disk/chain.h"
#include "util.h"

static struct vd_chain_options set(const char *name, const char *value, int expected)
{
	struct vd_chain_options options = { .format = NULL };
	struct vd_error err = { "" };

	assert_int_equal(vd_chain_option_set(&options, name, value, &err), expected);
	if (expected == -EINVAL) {
		assert_non_null(strstr(err.text, "--"));
		assert_non_null(strstr(err.text, name));
	} else {
		assert_string_equal(err.text, "");
	}
	return options;
}

static void the_image_format_is_one_that_is_read(void **state)
{
	(void)state;
	assert_string_equal(set("format", "vhd", 0).format, "vhd");
	assert_string_equal(set("format", "vpc", 0).format, "vpc");
	assert_string_equal(set("format", "qcow2", 0).format, "qcow2");
	assert_string_equal(set("format", "raw", 0).format, "raw");
	set("format", "vmdk", -EINVAL);
	set("format", "QCOW2", -EINVAL);
	set("format", "", -EINVAL);
}

static void the_policy_is_one_of_three(void **state)
{
	(void)state;
	assert_int_equal((struct vd_chain_options){ .format = NULL }.backing, VD_BACKING_SAME_DIR);
	assert_int_equal(set("backing", "same-dir", 0).backing, VD_BACKING_SAME_DIR);
	assert_int_equal(set("backing", "any", 0).backing, VD_BACKING_ANY);
	assert_int_equal(set("backing", "none", 0).backing, VD_BACKING_NONE);
	set("backing", "samedir", -EINVAL);
	set("backing", "", -EINVAL);
}

static void a_policy_that_is_not_known_leaves_the_old_one(void **state)
{
	struct vd_chain_options options = { .backing = VD_BACKING_NONE };
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(vd_chain_option_set(&options, "backing", "all", &err), -EINVAL);
	assert_int_equal(options.backing, VD_BACKING_NONE);
	assert_non_null(strstr(err.text, "same-dir, any and none"));
}

/* A value that the last one replaced silently would be a mistake that the user does not see. */
static void a_value_given_twice_is_refused_unless_both_count(void **state)
{
	static const struct {
		const char *name, *value;
		int again;
	} cases[] = {
		{ "format", "raw", -EINVAL },      { "backing", "any", -EINVAL },
		{ "data-file", "x", -EINVAL },     { "snapshot", "x", -EINVAL },
		{ "nbd-timeout", "7", -EINVAL },   { "force-share", NULL, 0 },
		{ "backing-file", "x", 0 },	   { "backing-format", "raw", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vd_chain_options options = { .format = NULL };
		struct vd_error err = { "" };

		assert_int_equal(
			vd_chain_option_set(&options, cases[i].name, cases[i].value, &err), 0);
		assert_int_equal(
			vd_chain_option_set(&options, cases[i].name, cases[i].value, &err),
			cases[i].again);
		if (cases[i].again < 0)
			assert_true(strstr(err.text, cases[i].name) &&
				    strstr(err.text, "given twice"));
	}
}

static void files_and_snapshots_are_any_text_but_the_empty(void **state)
{
	(void)state;
	assert_string_equal(set("data-file", "a b", 0).data_file, "a b");
	assert_string_equal(set("snapshot", "1", 0).snapshot, "1");
	assert_string_equal(set("backing-file", "x", 0).backing_files[0], "x");
	assert_int_equal(set("backing-file", "x", 0).backing_file_count, 1);
	set("data-file", "", -EINVAL);
	set("snapshot", "", -EINVAL);
	assert_int_equal(set("backing-file", "", -EINVAL).backing_file_count, 0);
	assert_int_equal(set("backing-format", "odd", -EINVAL).backing_format_count, 0);
}

static void backing_formats_are_checked_as_the_images(void **state)
{
	(void)state;
	assert_string_equal(set("backing-format", "raw", 0).backing_formats[0], "raw");
	assert_int_equal(set("backing-format", "raw", 0).backing_format_count, 1);
	set("backing-format", "qed", -EINVAL);
}

static void a_flag_takes_no_value(void **state)
{
	(void)state;
	assert_false((struct vd_chain_options){ .format = NULL }.force_share);
	assert_true(set("force-share", NULL, 0).force_share);
	assert_false(set("force-share", "yes", -EINVAL).force_share);
	assert_false(set("force-share", "", -EINVAL).force_share);
}

static void patience_is_a_number_of_seconds(void **state)
{
	static const char *const wrong[] = { "", "0", "-1", "+1", " 1", "1s", "1.5", "86401", "x",
					     "99999999999999999999" };

	(void)state;
	assert_int_equal(set("nbd-timeout", "1", 0).patience.seconds, 1);
	assert_int_equal(set("nbd-timeout", "86400", 0).patience.seconds, 86400);
	for (unsigned i = 0; i < ARRAY_LENGTH(wrong); i++)
		set("nbd-timeout", wrong[i], -EINVAL);
}

static void each_row_with_a_value_needs_it(void **state)
{
	unsigned rows = 0;

	(void)state;
	for (const struct vd_chain_option *row = vd_chain_option_table; row->name; row++) {
		assert_non_null(row->help);
		if (row->value)
			set(row->name, NULL, -EINVAL);
		rows++;
	}
	assert_int_equal(rows, 13);
}

static void a_footer_is_at_the_end_or_the_start(void **state)
{
	(void)state;
	set("vhd-footer", "end", 0);
	set("vhd-footer", "start", 0);
	set("vhd-footer", "middle", -EINVAL);
	set("vhd-footer", "", -EINVAL);
	set("ignore-checksums", NULL, 0);
	set("ignore-checksums", "yes", -EINVAL);
}

static void other_names_are_left_to_the_caller(void **state)
{
	static const char *const names[] = {
		"", "form", "formats", "FORMAT", "backing-", "-format", "direct", "map-memory",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		set(names[i], "raw", -ENOENT);
		set(names[i], NULL, -ENOENT);
	}
}

static void lists_keep_their_order(void **state)
{
	struct vd_chain_options options = { .format = NULL };
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "a", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "backing-format", "raw", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "b", &err), 0);
	assert_int_equal(options.backing_file_count, 2);
	assert_string_equal(options.backing_files[0], "a");
	assert_string_equal(options.backing_files[1], "b");
	assert_int_equal(options.backing_format_count, 1);
}

/* A chain of VD_LAYERS_MAX layers has one backing file less, and each may have its format. */
static void lists_hold_a_whole_chain_and_no_more(void **state)
{
	struct vd_chain_options options = { .format = NULL };
	struct vd_error err = { "" };

	(void)state;
	for (unsigned i = 1; i < VD_LAYERS_MAX; i++)
		assert_int_equal(vd_chain_option_set(&options, "backing-file", "a", &err), 0);
	for (unsigned i = 1; i < VD_LAYERS_MAX; i++)
		assert_int_equal(vd_chain_option_set(&options, "backing-format", "raw", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "a", &err), -EINVAL);
	assert_int_equal(vd_chain_option_set(&options, "backing-format", "raw", &err), -EINVAL);
	assert_int_equal(options.backing_file_count, VD_LAYERS_MAX - 1);
	assert_int_equal(options.backing_format_count, VD_LAYERS_MAX - 1);
	assert_non_null(strstr(err.text, "256 layers"));
	for (unsigned i = 0; i < VD_SEARCH_MAX; i++)
		assert_int_equal(vd_chain_option_set(&options, "search", "a", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "search", "a", &err), -EINVAL);
}

static void a_backing_file_may_have_a_name(void **state)
{
	struct vd_chain_options options = { .format = NULL };
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "a=b", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "=c=d", &err), 0);
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "a=", &err), -EINVAL);
	assert_int_equal(vd_chain_option_set(&options, "backing-file", "=", &err), -EINVAL);
	assert_int_equal(options.renamed_count, 1);
	assert_string_equal(options.renamed[0], "a=b");
	assert_int_equal(options.backing_file_count, 1);
	assert_string_equal(options.backing_files[0], "c=d");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_image_format_is_one_that_is_read),
		cmocka_unit_test(the_policy_is_one_of_three),
		cmocka_unit_test(a_policy_that_is_not_known_leaves_the_old_one),
		cmocka_unit_test(a_value_given_twice_is_refused_unless_both_count),
		cmocka_unit_test(files_and_snapshots_are_any_text_but_the_empty),
		cmocka_unit_test(backing_formats_are_checked_as_the_images),
		cmocka_unit_test(a_flag_takes_no_value),
		cmocka_unit_test(patience_is_a_number_of_seconds),
		cmocka_unit_test(each_row_with_a_value_needs_it),
		cmocka_unit_test(a_footer_is_at_the_end_or_the_start),
		cmocka_unit_test(other_names_are_left_to_the_caller),
		cmocka_unit_test(lists_keep_their_order),
		cmocka_unit_test(lists_hold_a_whole_chain_and_no_more),
		cmocka_unit_test(a_backing_file_may_have_a_name),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
