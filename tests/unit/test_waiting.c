/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Deferred requests without libfuse: who is answered when. A request is one of ours, fuse_reply_err()
 * is ours, and CLOCK_REALTIME is an hour late, as if it had been set back during a wait.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "util.h"
#include "vdifs/waiting.h"

enum { PATIENCE_MS = 5000, SLICES = 7 };

struct order {
	enum vdifs_outcome outcome; /* of each attempt, until it is released */
	bool hangs; /* an attempt of a lane ends when it is released, and not before */
	bool advances; /* each attempt changes the offset */
	atomic_bool released, interrupted;
	atomic_int attempts, replied, error;
	long lengths[SLICES]; /* of the attempts of a lane, in ms */
};

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	int r = __real_clock_gettime(clock, now);

	if (clock == CLOCK_REALTIME)
		now->tv_sec += 3600;
	return r;
}

static long now_ms(void)
{
	struct timespec now;

	__real_clock_gettime(CLOCK_MONOTONIC, &now);
	return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int fuse_reply_err(fuse_req_t req, int err)
{
	struct order *order = (struct order *)req;

	order->error = err;
	order->replied++;
	return 0;
}

static bool is_interrupted(void *context)
{
	return ((struct order *)context)->interrupted;
}

/* An attempt lasts as long as it may; the first one, in the thread of the caller, is over at once. */
static enum vdifs_outcome answer(struct vdifs_request *request,
				 const struct vd_interrupt *interrupt)
{
	struct order *order = (struct order *)request->req;
	long begin = now_ms();
	int number = order->attempts++;

	while (number > 0 && interrupt && !order->released &&
	       (order->hangs || !vd_is_interrupted(interrupt)))
		usleep(500);
	if (number > 0 && number <= SLICES)
		order->lengths[number - 1] = now_ms() - begin;
	if (order->advances)
		request->offset++;
	if (!order->released)
		return order->outcome;
	fuse_reply_err(request->req, 0);
	return VDIFS_REPLIED;
}

static void ask(struct vdifs_waiting *waiting, struct order *order)
{
	const struct vdifs_request request = {
		.req = (fuse_req_t)order,
		.answer = answer,
		.lane = VDIFS_LANE_SEARCH,
	};

	vdifs_waiting_answer(waiting, &request);
}

static bool reaches(atomic_int *number, int wanted)
{
	for (long end = now_ms() + PATIENCE_MS; *number < wanted && now_ms() < end;)
		usleep(500);
	return *number >= wanted;
}

static struct vdifs_waiting *waiting_new(void)
{
	struct vdifs_waiting *waiting;

	assert_int_equal(vdifs_waiting_new(is_interrupted, &waiting), 0);
	return waiting;
}

static void what_waits_is_answered_though_the_clock_is_set_back(void **state)
{
	struct vdifs_waiting *waiting = waiting_new();
	struct order first = { .outcome = VDIFS_WAITS }, second = first;

	(void)state;
	ask(waiting, &first);
	ask(waiting, &second);
	second.interrupted = true;
	assert_true(reaches(&second.replied, 1));
	assert_int_equal(second.error, EINTR);
	first.released = true;
	assert_true(reaches(&first.replied, 1));
	assert_int_equal(first.error, 0);
	vdifs_waiting_free(waiting);
}

/* One thread is idle. It has been woken for the first of two, and has not run yet when the second comes. */
static void one_that_hangs_does_not_hold_up_the_next(void **state)
{
	(void)state;
	for (int round = 0; round < 30; round++) {
		struct vdifs_waiting *waiting = waiting_new();
		struct order before = { .outcome = VDIFS_WORKS }, next = before, hangs = before;
		bool begins;

		hangs.hangs = true;
		ask(waiting, &before);
		assert_true(reaches(&before.attempts, 2));
		before.released = true;
		assert_true(reaches(&before.replied, 1));
		usleep(5000); /* by now its thread is idle */
		ask(waiting, &hangs);
		ask(waiting, &next);
		begins = reaches(&next.attempts, 2);
		hangs.released = next.released = true;
		assert_true(reaches(&hangs.replied, 1) && reaches(&next.replied, 1));
		assert_true(begins);
		vdifs_waiting_free(waiting);
	}
}

static void only_work_that_cannot_go_on_gets_longer_slices(void **state)
{
	struct vdifs_waiting *waiting = waiting_new();
	struct order goes_on = { .outcome = VDIFS_WORKS, .advances = true };
	struct order begins_again = { .outcome = VDIFS_WORKS };
	long shortest = PATIENCE_MS;

	(void)state;
	ask(waiting, &goes_on);
	ask(waiting, &begins_again);
	assert_true(reaches(&goes_on.attempts, SLICES + 2));
	assert_true(reaches(&begins_again.attempts, 5));
	goes_on.released = begins_again.released = true;
	assert_true(reaches(&goes_on.replied, 1) && reaches(&begins_again.replied, 1));
	for (int i = SLICES - 3; i < SLICES; i++)
		shortest = goes_on.lengths[i] < shortest ? goes_on.lengths[i] : shortest;
	assert_true(shortest < 800); /* a machine with much to do makes them longer, but not all */
	assert_true(begins_again.lengths[2] >= 350);
	vdifs_waiting_free(waiting);
}

static void the_end_answers_what_is_deferred(void **state)
{
	struct vdifs_waiting *waiting = waiting_new();
	struct order waits = { .outcome = VDIFS_WAITS }, works = { .outcome = VDIFS_WORKS };

	(void)state;
	ask(waiting, &waits);
	ask(waiting, &works);
	vdifs_waiting_free(waiting);
	assert_int_equal(waits.replied, 1);
	assert_int_equal(waits.error, EINTR);
	assert_int_equal(works.replied, 1);
	assert_int_equal(works.error, EINTR);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_waits_is_answered_though_the_clock_is_set_back),
		cmocka_unit_test(one_that_hangs_does_not_hold_up_the_next),
		cmocka_unit_test(only_work_that_cannot_go_on_gets_longer_slices),
		cmocka_unit_test(the_end_answers_what_is_deferred),
	};

	return cmocka_run_group_tests_name("waiting", tests, NULL, NULL);
}
