/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Both programs say the same of a wrong command line. What getopt_long() leaves in `optind` and `optopt`
 * depends on where the mistake is, so each place has a case.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/usage.h"
#include "util.h"

static const struct option longs[] = {
	{ "format", required_argument, NULL, 300 },
	{ "backing", required_argument, NULL, 301 },
	{ "backing-file", required_argument, NULL, 302 },
	{ "direct", no_argument, NULL, 303 },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* Parse until something is wrong, and compare what is said. */
static void says(const char *wanted, char **argv)
{
	struct vd_error err = { "" };
	int argc = 0, c;

	while (argv[argc])
		argc++;
	optind = 0; /* glibc: begin anew */
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":hvo:", longs, NULL)) != -1) {
		if (c != '?' && c != ':')
			continue;
		assert_int_equal(vd_usage_option(&err, argv, c, longs), -EINVAL);
		break;
	}
	assert_string_equal(err.text, wanted);
}

#define SAYS(wanted, ...) says(wanted, (char *[]){ "program", __VA_ARGS__, NULL })

static void a_long_option_is_unknown_or_nearly_right(void **state)
{
	(void)state;
	SAYS("", "--format=raw", "image", "-v", "--dir");
	SAYS("unknown option --nonsense", "--nonsense", "image");
	SAYS("unknown option --nonsense", "image", "--nonsense=1", "other");
	SAYS("unknown option --fromat; did you mean --format?", "--fromat=raw");
	SAYS("unknown option --dirct; did you mean --direct?", "-v", "image", "--dirct");
	SAYS("unknown option --back; it may be --backing or --backing-file", "--back=x");
	SAYS("unknown option --a\\x0ab", "--a\nb");
}

static void a_value_is_missing_or_too_much(void **state)
{
	(void)state;
	SAYS("--format needs a value", "image", "--format");
	SAYS("--format needs a value", "--form");
	SAYS("-o needs a value", "image", "-vo");
	SAYS("--direct takes no value", "--direct=yes", "image");
	SAYS("--help takes no value", "--help=");
}

static void a_letter_is_unknown(void **state)
{
	(void)state;
	SAYS("unknown option -Q", "-Q", "image");
	SAYS("unknown option -Q", "--direct", "-vQv", "image");
	SAYS("unknown option -Q", "--format", "raw", "-Q");
	SAYS("unknown option -\\x01", "-\001");
}

static void a_file_whose_name_begins_with_a_dash_has_another_name(void **state)
{
	(void)state;
	SAYS("unknown option -x; a file name that begins with a dash is given as ./-x.qcow2",
	     "-x.qcow2", "mnt");
	SAYS("unknown option -x; a file name that begins with a dash is given as ./-vx.img", "-v",
	     "--direct", "-vx.img", "mnt");
	SAYS("unknown option --disk.vhd; a file name that begins with a dash is given as "
	     "./--disk.vhd",
	     "--disk.vhd");
}

static void near_is_a_slip_or_two_and_the_nearest_wins(void **state)
{
	static const struct {
		const char *typed, *found;
	} cases[] = {
		{ "allow_otehr", "allow_other" }, { "allow_othr", "allow_other" },
		{ "alow_root", "allow_root" },	  { "allow_xxxer", NULL },
		{ "ro", "ro" },			  { "rx", "ro" },
		{ "xy", NULL },			  { "", NULL },
	};
	static const char *const words[] = { "allow_root", "allow_other", "ro" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct vd_nearest nearest = VD_NEAREST_TO(cases[i].typed);

		for (size_t j = 0; j < ARRAY_LENGTH(words); j++)
			vd_nearest_try(&nearest, words[j]);
		if (cases[i].found)
			assert_string_equal(nearest.found, cases[i].found);
		else
			assert_null(nearest.found);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_long_option_is_unknown_or_nearly_right),
		cmocka_unit_test(a_value_is_missing_or_too_much),
		cmocka_unit_test(a_letter_is_unknown),
		cmocka_unit_test(a_file_whose_name_begins_with_a_dash_has_another_name),
		cmocka_unit_test(near_is_a_slip_or_two_and_the_nearest_wins),
	};

	return cmocka_run_group_tests_name("usage", tests, NULL, NULL);
}
