/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decoded units are shared by all readers: each is decoded once, memory is bounded, a failure is
 * nobody's but the reader's who meets it, and nobody waits for ever.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "disk/units.h"
#include "fake.h"

enum { UNIT_BYTES = 1000, UNITS = 64, READERS = 8 };

struct fixture {
	struct vd_image *image;
	struct vd_units *units;
	struct vd_scratch *scratch;
};

/* A layer of coded units; the one numbered `damaged` cannot be decoded. */
static struct fixture make_fixture(size_t memory, unsigned threads, unsigned damaged)
{
	struct dice dice = { 3 };
	struct fixture f = { .image = fake_image_new(UNITS * UNIT_BYTES, FAKE_GENEROUS, &dice) };

	for (unsigned i = 0; i < UNITS; i++)
		fake_span_add(f.image, UNIT_BYTES, VD_CODED, NULL, 0)->is_damaged = i == damaged;
	assert_int_equal(vd_units_new(memory, threads, &f.units), 0);
	assert_int_equal(vd_scratch_new(&f.scratch), 0);
	return f;
}

static void free_fixture(struct fixture *f)
{
	vd_units_free(f->units);
	vd_scratch_free(f->scratch);
	vd_image_close(f->image);
}

static struct vd_run run_of(unsigned number)
{
	return (struct vd_run){
		.start = (uint64_t)number * UNIT_BYTES,
		.length = UNIT_BYTES,
		.kind = VD_CODED,
	};
}

/* Get the unit, compare it with what decoding by hand gives, and let go of it. */
static int get(struct fixture *f, unsigned number, struct vd_scratch *scratch)
{
	struct vd_run run = run_of(number);
	const uint8_t *bytes;
	struct vd_unit *unit;
	int r = vd_units_get(f->units, f->image, &run, scratch, &unit, &bytes);
	uint8_t expected[UNIT_BYTES];

	if (r < 0)
		return r;
	assert_int_equal(f->image->format->decode(f->image, &run, expected, scratch), 0);
	fake_layer(f->image)->decodes--; /* ours does not count */
	assert_memory_equal(bytes, expected, UNIT_BYTES);
	vd_units_put(f->units, unit);
	return 0;
}

static unsigned decodes(const struct fixture *f)
{
	return atomic_load(&fake_layer(f->image)->decodes);
}

static void what_is_asked_for_is_decoded_once(void **state)
{
	struct fixture f = make_fixture(UNITS * UNIT_BYTES, 2, UNITS);

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < UNITS; i++) {
			struct vd_run run = run_of(i);

			vd_units_ask(f.units, f.image, &run);
		}
		for (unsigned i = 0; i < UNITS; i++)
			assert_int_equal(get(&f, i, f.scratch), 0);
	}
	assert_int_equal(decodes(&f), UNITS);
	free_fixture(&f);
}

static void without_threads_the_readers_decode(void **state)
{
	struct fixture f = make_fixture(UNITS * UNIT_BYTES, 0, UNITS);
	struct vd_run run = run_of(1);

	(void)state;
	vd_units_ask(f.units, f.image, &run);
	assert_int_equal(decodes(&f), 0);
	for (unsigned i = 0; i < UNITS; i++)
		assert_int_equal(get(&f, i, f.scratch), 0);
	assert_int_equal(decodes(&f), UNITS);
	free_fixture(&f);
}

static void memory_is_bounded_and_the_oldest_goes_first(void **state)
{
	struct fixture f = make_fixture(4 * UNIT_BYTES, 0, UNITS);

	(void)state;
	for (unsigned i = 0; i < UNITS; i++) {
		assert_int_equal(get(&f, i, f.scratch), 0);
		assert_true(vd_units_bytes(f.units) <= 4 * UNIT_BYTES);
	}
	for (unsigned i = UNITS - 4; i < UNITS; i++)
		assert_int_equal(get(&f, i, f.scratch), 0);
	assert_int_equal(decodes(&f), UNITS);
	assert_int_equal(get(&f, 0, f.scratch), 0);
	assert_int_equal(decodes(&f), UNITS + 1);
	free_fixture(&f);
}

static void a_unit_larger_than_the_memory_is_still_read(void **state)
{
	struct fixture f = make_fixture(10, 2, UNITS);

	(void)state;
	for (unsigned i = 0; i < UNITS; i++) {
		struct vd_run run = run_of(i + 1 < UNITS ? i + 1 : 0);

		vd_units_ask(f.units, f.image, &run); /* no room: nothing happens */
		assert_int_equal(get(&f, i, f.scratch), 0);
		assert_int_equal(vd_units_bytes(f.units), 0);
	}
	assert_int_equal(decodes(&f), UNITS);
	free_fixture(&f);
}

static void a_damaged_unit_is_decoded_once_in_a_while(void **state)
{
	struct fixture f = make_fixture(UNITS * UNIT_BYTES, 0, 5);
	struct timespec a_while = { .tv_sec = 2, .tv_nsec = 100000000 };

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(get(&f, 5, f.scratch), -EIO);
	assert_true(decodes(&f) <= 2); /* 2 on a machine that stands still for a second */
	nanosleep(&a_while, NULL);
	assert_int_equal(get(&f, 5, f.scratch), -EIO);
	assert_true(decodes(&f) >= 2);
	assert_int_equal(get(&f, 6, f.scratch), 0);
	assert_int_equal(vd_units_bytes(f.units), UNIT_BYTES);
	free_fixture(&f);
}

static void *read_all(void *data)
{
	struct fixture *f = data;
	struct vd_scratch *scratch;

	assert_int_equal(vd_scratch_new(&scratch), 0);
	for (unsigned i = 0; i < UNITS; i++) {
		struct vd_run next = run_of((i + 1) % UNITS);
		const uint8_t *bytes;
		struct vd_unit *unit;
		struct vd_run run = run_of(i);
		int r;

		vd_units_ask(f->units, f->image, &next);
		r = vd_units_get(f->units, f->image, &run, scratch, &unit, &bytes);
		assert_int_equal(r, i == 7 ? -EIO : 0);
		if (r == 0)
			vd_units_put(f->units, unit);
	}
	vd_scratch_free(scratch);
	return NULL;
}

static void many_readers_share_what_is_decoded(void **state)
{
	struct fixture f = make_fixture(UNITS * UNIT_BYTES, 2, 7);
	pthread_t readers[READERS];

	(void)state;
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_all, &f), 0);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_join(readers[i], NULL), 0);
	/* All once, but the damaged one: at most once a question. */
	assert_true(decodes(&f) >= UNITS && decodes(&f) <= UNITS - 1 + 2 * READERS);
	assert_int_equal(vd_units_bytes(f.units), (UNITS - 1) * UNIT_BYTES);
	free_fixture(&f);
}

static void what_nobody_fetches_is_freed(void **state)
{
	struct fixture f = make_fixture(UNITS * UNIT_BYTES, 2, 7);

	(void)state;
	for (unsigned i = 0; i < UNITS; i++) {
		struct vd_run run = run_of(i);

		vd_units_ask(f.units, f.image, &run);
	}
	free_fixture(&f);
	vd_units_free(NULL);
}

/* Units 0 and 1 of two files, which hang. */
struct two_files {
	struct fixture f;
	struct vd_run runs[2];
	struct gate gates[2];
};

static void *read_first(void *data)
{
	struct two_files *two = data;
	struct vd_scratch *scratch;
	const uint8_t *bytes;
	struct vd_unit *unit;

	assert_int_equal(vd_scratch_new(&scratch), 0);
	assert_int_equal(
		vd_units_get(two->f.units, two->f.image, &two->runs[0], scratch, &unit, &bytes), 0);
	vd_units_put(two->f.units, unit);
	vd_scratch_free(scratch);
	return NULL;
}

static void a_reader_does_not_wait_for_a_file_that_is_not_its_own(void **state)
{
	struct two_files two = { .f = make_fixture(UNITS * UNIT_BYTES, 1, UNITS) };
	struct vd_source *files[] = { two.f.image->source, two.f.image->data };
	struct timespec until;
	pthread_t reader;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		gate_init(&two.gates[i]);
		((struct fake_source *)(void *)files[i])->gate = &two.gates[i];
		two.runs[i] = run_of(i);
		two.runs[i].from = files[i];
	}
	vd_units_ask(two.f.units, two.f.image, &two.runs[0]);
	gate_await(&two.gates[0]); /* the thread has begun with it */
	vd_units_ask(two.f.units, two.f.image, &two.runs[1]);
	assert_int_equal(pthread_create(&reader, NULL, read_first, &two), 0);
	usleep(50000); /* for the reader to wait */
	gate_open(&two.gates[0]);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	assert_int_equal(pthread_timedjoin_np(reader, NULL, &until), 0);
	gate_open(&two.gates[1]);
	free_fixture(&two.f);
	gate_free(&two.gates[0]);
	gate_free(&two.gates[1]);
}

static void only_a_reader_that_goes_on_is_read_ahead_for(void **state)
{
	struct fixture f = make_fixture(1 << 20, 0, UNITS);

	(void)state;
	assert_int_equal(vd_units_ahead(f.units, 5000, 6000), 0);
	assert_true(vd_units_ahead(f.units, 6000, 7000) > 0);
	assert_int_equal(vd_units_ahead(f.units, 90000, 91000), 0); /* another reader */
	assert_true(vd_units_ahead(f.units, 7000, 8000) > 0); /* the first one */
	assert_true(vd_units_ahead(f.units, 91000, 92000) > 0);
	assert_int_equal(vd_units_ahead(f.units, 7000, 8000), 0); /* a place read before */
	free_fixture(&f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_asked_for_is_decoded_once),
		cmocka_unit_test(without_threads_the_readers_decode),
		cmocka_unit_test(memory_is_bounded_and_the_oldest_goes_first),
		cmocka_unit_test(a_unit_larger_than_the_memory_is_still_read),
		cmocka_unit_test(a_damaged_unit_is_decoded_once_in_a_while),
		cmocka_unit_test(many_readers_share_what_is_decoded),
		cmocka_unit_test(what_nobody_fetches_is_freed),
		cmocka_unit_test(a_reader_does_not_wait_for_a_file_that_is_not_its_own),
		cmocka_unit_test(only_a_reader_that_goes_on_is_read_ahead_for),
	};

	return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
