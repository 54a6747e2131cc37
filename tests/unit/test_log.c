/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A damaged table may be met a million times by many threads. The log must name each place, but
 * each once, and end somewhere.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "util.h"

#define THREADS 8

static void a_line_begins_with_the_programs_name(void **state)
{
	char *text;

	(void)state;
	vd_log_open("unit");
	capture_begin();
	vd_log(LOG_ERR, "%s has %d bytes", "disk.vhd", 7);
	text = capture_end();
	assert_string_equal(text, "unit: disk.vhd has 7 bytes\n");
	free(text);
}

static void a_line_that_is_too_long_is_cut_and_still_ends(void **state)
{
	char line[5000], *text;
	size_t length;

	(void)state;
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\0';
	capture_begin();
	vd_log(LOG_ERR, "%s", line);
	vd_log(LOG_ERR, "next");
	text = capture_end();
	length = strlen(text);
	assert_int_equal(count_lines(text), 2);
	assert_true(length > VD_LOG_ONCE_MAX && length < sizeof(line));
	assert_string_equal(text + length - strlen("unit: next\n"), "unit: next\n");
	free(text);
}

static void a_place_is_logged_once(void **state)
{
	struct vd_log_once once = VD_LOG_ONCE_INIT;
	char *text;

	(void)state;
	capture_begin();
	for (int i = 0; i < 100; i++) {
		vd_log_once(&once, 0, "place %d", 0);
		vd_log_once(&once, UINT64_MAX, "place %d", 1);
	}
	text = capture_end();
	assert_string_equal(text, "unit: place 0\nunit: place 1\n");
	free(text);
}

static void each_image_has_its_own_record(void **state)
{
	struct vd_log_once a = VD_LOG_ONCE_INIT, b = VD_LOG_ONCE_INIT;
	char *text;

	(void)state;
	capture_begin();
	vd_log_once(&a, 5, "a");
	vd_log_once(&b, 5, "b");
	text = capture_end();
	assert_string_equal(text, "unit: a\nunit: b\n");
	free(text);
}

/* Log so many places, most of them often, and what is left out. */
static char *log_many(uint64_t places)
{
	struct vd_log_once once = VD_LOG_ONCE_INIT;

	capture_begin();
	for (int round = 0; round < 3; round++) {
		for (uint64_t key = 0; key < places; key++)
			vd_log_once(&once, key * 512, "place %" PRIu64, key);
	}
	for (int i = 0; i < 3; i++)
		vd_log_once_rest(&once, "file");
	return capture_end();
}

static void up_to_eight_places_are_eight_lines(void **state)
{
	char *text = log_many(8);

	(void)state;
	assert_int_equal(count_lines(text), 8);
	assert_non_null(strstr(text, "place 7\n"));
	assert_null(strstr(text, "more places"));
	free(text);
}

static void more_than_eight_places_are_eight_lines_and_their_number(void **state)
{
	char *text = log_many(100);

	(void)state;
	assert_int_equal(count_lines(text), 9);
	assert_non_null(strstr(text, "place 7\n"));
	assert_non_null(strstr(text, "unit: file: 92 more places"));
	free(text);
}

static void a_number_that_is_too_large_to_count_is_a_bound(void **state)
{
	char *text = log_many(100000);

	(void)state;
	assert_int_equal(count_lines(text), 9);
	assert_non_null(strstr(text, "unit: file: more than 248 more places"));
	free(text);
}

static void *log_places(void *data)
{
	for (uint64_t round = 0; round < 200; round++) {
		for (uint64_t key = 0; key < 8; key++)
			vd_log_once(data, key, "place %" PRIu64 ".", key);
	}
	return NULL;
}

static void threads_together_log_a_place_once(void **state)
{
	struct vd_log_once once = VD_LOG_ONCE_INIT;
	pthread_t threads[THREADS];
	char *text;

	(void)state;
	capture_begin();
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, log_places, &once);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	text = capture_end();
	assert_int_equal(count_lines(text), 8);
	for (int key = 0; key < 8; key++) {
		char line[32];

		snprintf(line, sizeof(line), "unit: place %d.\n", key);
		assert_non_null(strstr(text, line));
	}
	free(text);
}

static void after_the_switch_to_syslog_stderr_is_left_alone(void **state)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	unsigned files;
	char *text;

	(void)state;
	capture_begin();
	vd_log_keep_stderr();
	files = open_files();
	vd_log_to_syslog(null);
	assert_int_equal(open_files(), files); /* a thread that is about to write must find it */
	vd_log(LOG_DEBUG, "a unit test of vdifs");
	text = capture_end();
	close(null);
	assert_string_equal(text, "");
	free(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_begins_with_the_programs_name),
		cmocka_unit_test(a_line_that_is_too_long_is_cut_and_still_ends),
		cmocka_unit_test(a_place_is_logged_once),
		cmocka_unit_test(each_image_has_its_own_record),
		cmocka_unit_test(up_to_eight_places_are_eight_lines),
		cmocka_unit_test(more_than_eight_places_are_eight_lines_and_their_number),
		cmocka_unit_test(a_number_that_is_too_large_to_count_is_a_bound),
		cmocka_unit_test(threads_together_log_a_place_once),
		cmocka_unit_test(after_the_switch_to_syslog_stderr_is_left_alone), /* the last */
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
