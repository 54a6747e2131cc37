/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading ahead, and answers about holes that are kept: what is begun, what is copied, what becomes
 * of errors. The server answers at once.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "source/ahead.h"
#include "source/holes.h"
#include "util.h"

#define BLOCK 4096
#define SIZE (100 * BLOCK + 100)

static uint8_t byte_at(uint64_t host)
{
	return (uint8_t)mix(3, host);
}

static struct {
	uint64_t farthest; /* byte that was asked for, + 1 */
	atomic_size_t bytes; /* asked for */
	atomic_uint failures; /* answers to come that are errors; */
} far;

static void far_end(struct vd_transfer *transfer, int r)
{
	for (size_t i = 0; i < transfer->bytes && r == 0; i++)
		((uint8_t *)transfer->buffer)[i] = byte_at(transfer->host + i);
	transfer->done(transfer, r);
}

static void far_begin(void *context, struct vd_transfer *transfer)
{
	(void)context;
	assert_true(transfer->bytes > 0 && transfer->host + transfer->bytes <= SIZE);
	if (transfer->host + transfer->bytes > far.farthest)
		far.farthest = transfer->host + transfer->bytes;
	far.bytes += transfer->bytes;
	if (atomic_load(&far.failures) > 0) {
		atomic_fetch_sub(&far.failures, 1);
		far_end(transfer, -EIO);
	} else {
		far_end(transfer, 0);
	}
}

static struct vd_ahead *ahead_make(void)
{
	struct vd_ahead *ahead;

	memset(&far, 0, sizeof(far));
	assert_int_equal(vd_ahead_new(BLOCK, SIZE, far_begin, NULL, &ahead), 0);
	return ahead;
}

/* Read; returns what was copied and has it checked. *left: what the caller is to read himself. */
static size_t step(struct vd_ahead *ahead, size_t bytes, uint64_t host, size_t *left)
{
	uint8_t *buffer = make(bytes);
	size_t copied;

	*left = bytes;
	copied = vd_ahead_read(ahead, buffer, left, host);
	assert_true(copied <= bytes);
	for (size_t i = 0; i < copied; i++)
		assert_int_equal(buffer[i], byte_at(host + i));
	free(buffer);
	return copied;
}

static void a_single_read_begins_nothing(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	size_t left;

	(void)state;
	assert_int_equal(step(ahead, 3 * BLOCK, 7, &left), 0);
	assert_int_equal(left, 3 * BLOCK);
	assert_int_equal(step(ahead, 10, 50 * BLOCK, &left), 0); /* somewhere else */
	assert_int_equal(left, 10);
	assert_int_equal(far.bytes, 0);
	vd_ahead_free(ahead);
}

static void a_reader_in_order_is_read_ahead_for(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	size_t left, copied;
	uint64_t at = BLOCK;

	(void)state;
	assert_int_equal(step(ahead, BLOCK, 0, &left), 0);
	while (at < SIZE) {
		copied = step(ahead, BLOCK, at, &left);
		assert_true(copied > 0);
		at += copied;
	}
	assert_int_equal(at, SIZE);
	vd_ahead_free(ahead);
}

/* Each step begins so many blocks that the reader's depth is ahead of it, and no more. */
static void depth_doubles_up_to_its_limit(void **state)
{
	static const uint64_t ahead_of[] = { 2, 4, 8, 16, 16, 16, 16 };
	struct vd_ahead *ahead = ahead_make();
	size_t left;

	(void)state;
	step(ahead, BLOCK, 0, &left);
	assert_int_equal(far.farthest, 0);
	for (unsigned i = 0; i < ARRAY_LENGTH(ahead_of); i++) {
		assert_int_equal(step(ahead, BLOCK, (i + 1) * BLOCK, &left), BLOCK);
		assert_int_equal(far.farthest, (i + 2 + ahead_of[i]) * BLOCK);
	}
	vd_ahead_free(ahead);
}

static void each_block_is_read_once(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	size_t left, alone = 0;
	uint64_t at = 0;

	(void)state;
	while (at < SIZE) {
		size_t copied = step(ahead, at + 1000 < SIZE ? 1000 : SIZE - at, at, &left);

		alone += copied ? 0 : left;
		at += copied ? copied : left;
	}
	assert_true(alone < BLOCK);
	assert_true(far.bytes <= SIZE);
	vd_ahead_free(ahead);
}

static void a_block_that_fails_is_left_to_its_reader(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	size_t left;

	(void)state;
	step(ahead, BLOCK, 0, &left);
	atomic_store(&far.failures, 3);
	assert_int_equal(step(ahead, BLOCK, BLOCK, &left), 0);
	assert_int_equal(left, BLOCK);
	/* The failure is not remembered. */
	assert_int_equal(step(ahead, BLOCK, 2 * BLOCK, &left), BLOCK);
	vd_ahead_free(ahead);
}

static void a_gap_ends_where_a_block_is_there(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	size_t left;

	(void)state;
	step(ahead, BLOCK, 20 * BLOCK, &left);
	assert_int_equal(step(ahead, BLOCK, 21 * BLOCK, &left), BLOCK); /* 21 to 23 are there */
	assert_int_equal(step(ahead, 10 * BLOCK, 18 * BLOCK + 5, &left), 0);
	assert_int_equal(left, 3 * BLOCK - 5);
	vd_ahead_free(ahead);
}

static void *read_all(void *context)
{
	struct vd_ahead *ahead = context;
	struct dice dice = { .state = (uint64_t)(uintptr_t)&dice };
	size_t left, copied;

	for (unsigned round = 0; round < 20; round++) {
		uint64_t at = dice_roll(&dice, SIZE);

		while (at < SIZE) {
			size_t bytes = (size_t)dice_roll(&dice, 3 * BLOCK) + 1;

			bytes = bytes < SIZE - at ? bytes : (size_t)(SIZE - at);
			copied = step(ahead, bytes, at, &left);
			assert_true(copied > 0 || (left > 0 && left <= bytes));
			at += copied ? copied : left;
		}
	}
	return NULL;
}

static void threads_get_their_bytes(void **state)
{
	struct vd_ahead *ahead = ahead_make();
	pthread_t threads[4];

	(void)state;
	atomic_store(&far.failures, 50);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_all, ahead), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	vd_ahead_free(ahead);
}

/* --- holes ----------------------------------------------------------------------------------- */

static void an_answer_is_found_again_until_it_is_old(void **state)
{
	struct vd_holes *holes;
	bool is_hole;
	uint64_t end;

	(void)state;
	assert_int_equal(vd_holes_new(&holes), 0);
	assert_false(vd_holes_find(holes, 0, &is_hole, &end));
	for (unsigned i = 0; i < 100; i++) {
		struct vd_answer *answer = vd_answer_new(i * 1000, VD_HOLES_MAX);

		assert_true(vd_answer_add(answer, 100, false));
		assert_true(vd_answer_add(answer, 200, true));
		assert_true(vd_answer_add(answer, 300, true)); /* becomes one with the last */
		assert_true(vd_answer_add(answer, 1, false));
		assert_int_equal(vd_answer_end(answer), i * 1000 + 601);
		vd_holes_keep(holes, answer);
		assert_true(vd_holes_find(holes, i * 1000 + 100, &is_hole, &end));
		assert_true(is_hole);
		assert_int_equal(end, i * 1000 + 600);
		assert_true(vd_holes_find(holes, 0, &is_hole, &end)); /* in use: stays */
		assert_false(is_hole);
		assert_int_equal(end, 100);
		assert_false(vd_holes_find(holes, i * 1000 + 601, &is_hole, &end));
	}
	assert_false(vd_holes_find(holes, 1000, &is_hole, &end));
	vd_holes_free(holes);
}

static void an_answer_that_is_full_ends_early(void **state)
{
	struct vd_answer *answer = vd_answer_new(5, VD_HOLES_MAX);
	bool is_hole;
	uint64_t end;

	(void)state;
	for (unsigned i = 0; i < VD_HOLES_MAX; i++)
		assert_true(vd_answer_add(answer, 3, i % 2));
	assert_false(vd_answer_add(answer, 3, false));
	assert_int_equal(vd_answer_end(answer), 5 + 3 * VD_HOLES_MAX);
	for (unsigned i = 0; i < 3 * VD_HOLES_MAX; i++) {
		vd_answer_find(answer, 5 + i, &is_hole, &end);
		assert_int_equal(is_hole, i / 3 % 2);
		assert_int_equal(end, 5 + (i / 3 + 1) * 3);
	}
	vd_answer_free(answer);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_single_read_begins_nothing),
		cmocka_unit_test(a_reader_in_order_is_read_ahead_for),
		cmocka_unit_test(depth_doubles_up_to_its_limit),
		cmocka_unit_test(each_block_is_read_once),
		cmocka_unit_test(a_block_that_fails_is_left_to_its_reader),
		cmocka_unit_test(a_gap_ends_where_a_block_is_there),
		cmocka_unit_test(threads_get_their_bytes),
		cmocka_unit_test(an_answer_is_found_again_until_it_is_old),
		cmocka_unit_test(an_answer_that_is_full_ends_early),
	};

	return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
