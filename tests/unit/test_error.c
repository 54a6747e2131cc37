/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages carry names that an attacker chose, to terminals and logs. They must stay printable, on
 * one line and inside their buffer, whatever the name.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "util.h"

static void failing_gives_the_negative_code_and_the_message(void **state)
{
	struct vd_error err = { "old" };

	(void)state;
	assert_int_equal(vd_fail(&err, EINVAL, "%s: field is %d", "disk.vhd", 7), -EINVAL);
	assert_string_equal(err.text, "disk.vhd: field is 7");
}

static void failing_without_a_place_for_the_message_is_fine(void **state)
{
	(void)state;
	assert_int_equal(vd_fail(NULL, EIO, "%s", "nobody listens"), -EIO);
}

static void a_message_that_is_too_long_is_cut_at_its_end(void **state)
{
	struct {
		struct vd_error err;
		char behind[8];
	} guarded;
	char longest[3 * VD_ERROR_MAX];

	(void)state;
	memset(guarded.behind, '#', sizeof(guarded.behind));
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(vd_fail(&guarded.err, EFBIG, "begin %s", longest), -EFBIG);
	assert_int_equal(strlen(guarded.err.text), VD_ERROR_MAX - 1);
	assert_memory_equal(guarded.err.text, "begin xx", 8);
	assert_memory_equal(guarded.behind, "########", 8);
	vd_error_add(&guarded.err, "%s", longest);
	assert_int_equal(strlen(guarded.err.text), VD_ERROR_MAX - 1);
	assert_memory_equal(guarded.behind, "########", 8);
}

static void adding_continues_the_message_until_it_is_full(void **state)
{
	struct vd_error err = { "" };
	char word[16];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(word, sizeof(word), "%04d", i);
		vd_error_add(&err, "%s", word);
	}
	assert_int_equal(strlen(err.text), VD_ERROR_MAX - 1);
	assert_memory_equal(err.text, "000000010002", 12);
}

static void each_byte_is_itself_or_an_escape(void **state)
{
	(void)state;
	for (int byte = 0; byte < 256; byte++) {
		char name = (char)byte, out[16], expected[16];
		bool is_plain = byte >= 0x20 && byte < 0x7f && !strchr("\\\"'", byte);

		snprintf(expected, sizeof(expected), is_plain ? "%c" : "\\x%02x", byte);
		assert_string_equal(vd_escape(out, sizeof(out), &name, 1), expected);
	}
}

static void a_name_with_control_bytes_stays_on_one_line(void **state)
{
	static const char name[] = "a\nb\x1b[31m\0c\\d'e\"f\x7f\xc3\xa4";
	char out[128];

	(void)state;
	vd_escape(out, sizeof(out), name, sizeof(name) - 1);
	assert_string_equal(out, "a\\x0ab\\x1b[31m\\x00c\\x5cd\\x27e\\x22f\\x7f\\xc3\\xa4");
}

static void an_empty_name_gives_an_empty_text(void **state)
{
	char out[1] = { 'x' };

	(void)state;
	assert_string_equal(vd_escape(out, sizeof(out), "", 0), "");
}

static void an_escaped_name_comes_back(void **state)
{
	char name[256], escaped[4 * 256 + 4], back[4 * 256 + 4];

	(void)state;
	for (unsigned byte = 1; byte < 256; byte++)
		name[byte - 1] = (char)byte;
	name[255] = '\0';
	vd_escape(escaped, sizeof(escaped), name, 255);
	assert_string_equal(vd_unescape(back, escaped), name);
	assert_string_equal(vd_unescape(back, ""), "");
	assert_string_equal(vd_unescape(back, "\\x"), "\\x"); /* cut: not one of ours */
	assert_string_equal(vd_unescape(back, "\\x4"), "\\x4");
}

static void a_name_with_room_for_its_escapes_is_not_cut(void **state)
{
	char name[200], out[4 * sizeof(name) + 4];

	(void)state;
	memset(name, 0xff, sizeof(name));
	for (size_t bytes = 0; bytes <= sizeof(name); bytes++) {
		vd_escape(out, 4 * bytes + 4, name, bytes);
		assert_int_equal(strlen(out), 4 * bytes);
	}
}

/* What a name of that length in a buffer of that size must look like. */
static void check_cut(const char *name, size_t bytes, size_t room)
{
	char whole[256], out[256];
	size_t length;

	vd_escape(whole, sizeof(whole), name, bytes);
	memset(out, '#', sizeof(out));
	assert_ptr_equal(vd_escape(out, room, name, bytes), out);
	length = strlen(out);
	assert_true(length < room);
	for (size_t i = room; i < sizeof(out); i++)
		assert_int_equal(out[i], '#');
	if (strcmp(out, whole) == 0)
		return;
	if (room >= sizeof("..."))
		assert_string_equal(out + length - 3, "...");
	else
		assert_memory_equal(out, "...", length);
	if (length <= 3)
		return;
	/* What stands before the dots is the beginning of the whole, and no half of an escape. */
	assert_memory_equal(out, whole, length - 3);
	for (size_t i = 0; i < length - 3; i += out[i] == '\\' ? 4 : 1)
		assert_true(out[i] != '\\' || i + 4 <= length - 3);
}

static void a_cut_name_ends_in_dots_inside_its_room(void **state)
{
	static const char names[][24] = {
		"abcdefghijklmnopqrst",
		"\n\n\n\n\n\n\n\n",
		"a\nb\nc\nd\ne\nf\ng\nh",
		"a\\b",
		"\xff",
		"abc",
		"a",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		for (size_t room = 1; room < 64; room++)
			check_cut(names[i], strlen(names[i]), room);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(failing_gives_the_negative_code_and_the_message),
		cmocka_unit_test(failing_without_a_place_for_the_message_is_fine),
		cmocka_unit_test(a_message_that_is_too_long_is_cut_at_its_end),
		cmocka_unit_test(adding_continues_the_message_until_it_is_full),
		cmocka_unit_test(each_byte_is_itself_or_an_escape),
		cmocka_unit_test(an_escaped_name_comes_back),
		cmocka_unit_test(a_name_with_control_bytes_stays_on_one_line),
		cmocka_unit_test(an_empty_name_gives_an_empty_text),
		cmocka_unit_test(a_name_with_room_for_its_escapes_is_not_cut),
		cmocka_unit_test(a_cut_name_ends_in_dots_inside_its_room),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
