/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What --backing-file=NAME=PATH says, and how a message writes it for a shell. */
#include "config.h"

#include <string.h>

#include "disk/renamed.h"
#include "util.h"

static void the_first_equals_sign_ends_the_name(void **state)
{
	static const struct {
		const char *value, *path;
		bool has_name;
	} rows[] = {
		{ "disk", "disk", false },
		{ "base=disk", "disk", true },
		{ "base=a=b", "a=b", true },
		{ "=a=b", "a=b", false },
		{ "a\\=b=c", "c", true },
		{ "a\\\\=b=c", "b=c", true },
		{ "a\\=b", "a\\=b", false },
		{ "nbd+unix:///e?socket=/s", "nbd+unix:///e?socket=/s", false },
		{ "base=nbd+unix:///e?socket=/s", "nbd+unix:///e?socket=/s", true },
		{ "base=", "", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		bool has_name;

		assert_string_equal(vd_renamed_path(rows[i].value, &has_name), rows[i].path);
		assert_int_equal(has_name, rows[i].has_name);
	}
}

static void names_are_compared_as_a_whole(void **state)
{
	static const struct {
		const char *value, *name;
		bool is;
	} rows[] = {
		{ "base=x", "base", true },       { "base=x", "bas", false },
		{ "base=x", "base2", false },     { "a\\=b=x", "a=b", true },
		{ "a\\\\=x", "a\\", true },       { "a\\b=x", "a\\b", true },
		{ "a\\=b=x", "a\\=b", false },    { "/a b/c=x", "/a b/c", true },
		{ "a\\\\\\=b=x", "a\\=b", true }, { "b=x", "", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
		assert_int_equal(vd_renamed_is(rows[i].value, rows[i].name), rows[i].is);
}

static void an_advice_is_one_word_of_a_shell(void **state)
{
	static const char *const rows[][2] = {
		{ "base.qcow2", "--backing-file=base.qcow2=PATH" },
		{ "../a/b-1_2", "--backing-file=../a/b-1_2=PATH" },
		{ "a b", "--backing-file='a b'=PATH" },
		{ "$(rm)", "--backing-file='$(rm)'=PATH" },
		{ "a=b", "--backing-file='a\\=b'=PATH" },
		{ "a\\b", "--backing-file='a\\\\b'=PATH" },
		{ "it's", "--backing-file=$'it\\'s'=PATH" },
		{ "a\nb\x1b", "--backing-file=$'a\\012b\\033'=PATH" },
		{ "\xc3\xa4"
		  "1",
		  "--backing-file=$'\\303\\2441'=PATH" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		struct vd_error text = { "" };

		vd_renamed_advise(&text, rows[i][0]);
		assert_string_equal(text.text, rows[i][1]);
	}
}

static void a_path_with_an_equals_sign_is_marked(void **state)
{
	struct vd_error text = { "" };

	(void)state;
	vd_renamed_advise_path(&text, "/a/b");
	vd_error_add(&text, " ");
	vd_renamed_advise_path(&text, "/a=b c");
	assert_string_equal(text.text, "--backing-file=/a/b --backing-file=='/a=b c'");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_equals_sign_ends_the_name),
		cmocka_unit_test(names_are_compared_as_a_whole),
		cmocka_unit_test(an_advice_is_one_word_of_a_shell),
		cmocka_unit_test(a_path_with_an_equals_sign_is_marked),
	};

	return cmocka_run_group_tests_name("renamed", tests, NULL, NULL);
}
