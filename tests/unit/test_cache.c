/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cache stands between every map() and the file: it must give the right bytes, read a page once
 * however many ask for it, and stay within its bound. The source here counts its reads.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"
#include "support/cache.h"

#define PAGE_BITS 9
#define PAGE_BYTES 512u
#define THREADS 8

static struct fake_source *source_of(uint64_t size)
{
	return fake_source_new(size, 7, 0);
}

static struct vd_cache *cache_of(size_t limit)
{
	struct vd_cache *cache;

	assert_int_equal(vd_cache_new(limit, &cache), 0);
	return cache;
}

static bool page_is_right(const struct vd_source *source, const struct vd_page *page)
{
	for (size_t i = 0; i < page->bytes; i++) {
		if (page->data[i] != fake_source_byte(source, page->host + i))
			return false;
	}
	return true;
}

/* Get the page that holds the byte, check it, put it back. */
static void touch(struct vd_cache *cache, const struct vd_source *source, uint64_t host)
{
	const struct vd_page *page;

	assert_int_equal(vd_cache_get(cache, source, PAGE_BITS, host, &page), 0);
	assert_true(page->host == host / PAGE_BYTES * PAGE_BYTES);
	assert_true(page_is_right(source, page));
	vd_cache_put(cache, page);
}

static void every_byte_is_in_its_page(void **state)
{
	struct fake_source *fake = source_of(5000);
	struct vd_cache *cache = cache_of(1 << 20);
	const struct vd_page *page;

	(void)state;
	for (unsigned bits = 4; bits <= 14; bits++) {
		for (uint64_t host = 0; host < 5000; host += 13) {
			assert_int_equal(vd_cache_get(cache, &fake->source, bits, host, &page), 0);
			assert_true(page->host <= host && host < page->host + page->bytes);
			assert_true(page->host % (UINT64_C(1) << bits) == 0);
			assert_true(page_is_right(&fake->source, page));
			vd_cache_put(cache, page);
		}
	}
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void the_last_page_ends_with_the_source(void **state)
{
	struct fake_source *fake = source_of(3 * PAGE_BYTES + 7);
	struct vd_cache *cache = cache_of(1 << 20);
	const struct vd_page *page;

	(void)state;
	assert_int_equal(vd_cache_get(cache, &fake->source, PAGE_BITS, 3 * PAGE_BYTES, &page), 0);
	assert_int_equal(page->bytes, 7);
	assert_true(page_is_right(&fake->source, page));
	assert_int_equal(vd_cache_bytes(cache), 7);
	vd_cache_put(cache, page);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void a_page_is_shared_and_read_once(void **state)
{
	struct fake_source *fake = source_of(5000);
	struct vd_cache *cache = cache_of(1 << 20);
	const struct vd_page *a, *b;

	(void)state;
	assert_int_equal(vd_cache_get(cache, &fake->source, PAGE_BITS, 1024, &a), 0);
	assert_int_equal(vd_cache_get(cache, &fake->source, PAGE_BITS, 1024 + 511, &b), 0);
	assert_ptr_equal(a, b);
	vd_cache_put(cache, a);
	vd_cache_put(cache, b);
	touch(cache, &fake->source, 1024);
	assert_int_equal(fake->preads, 1);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void sources_do_not_mix(void **state)
{
	struct fake_source *a = source_of(5000), *b = fake_source_new(5000, 8, 0);
	struct vd_cache *cache = cache_of(1 << 20);

	(void)state;
	for (uint64_t host = 0; host < 5000; host += PAGE_BYTES) {
		touch(cache, &a->source, host);
		touch(cache, &b->source, host);
	}
	assert_int_equal(a->preads, 10);
	assert_int_equal(b->preads, 10);
	vd_cache_free(cache);
	vd_source_close(&a->source);
	vd_source_close(&b->source);
}

/* malloc() gives the memory of a closed source to the next one, while the cache lives on. */
static void a_closed_source_leaves_no_page_for_the_next_one(void **state)
{
	struct fake_source *fake = source_of(5000);
	struct vd_cache *cache = cache_of(1 << 20);

	(void)state;
	for (uint64_t i = 0; i < 20; i++) {
		for (uint64_t host = 0; host < fake->source.size; host += PAGE_BYTES)
			touch(cache, &fake->source, host);
		fake_source_renew(fake, 300 + i * 700, 8 + i);
	}
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void bytes_outside_a_page_are_not_given(void **state)
{
	static const uint8_t bytes[16];
	const struct vd_page page = { .data = bytes, .host = 4096, .bytes = 16 };

	(void)state;
	assert_ptr_equal(vd_page_at(&page, 4096, 16), bytes);
	assert_ptr_equal(vd_page_at(&page, 4111, 1), bytes + 15);
	assert_ptr_equal(vd_page_at(&page, 4112, 0), bytes + 16);
	assert_null(vd_page_at(&page, 4095, 1));
	assert_null(vd_page_at(&page, 4112, 1));
	assert_null(vd_page_at(&page, 4104, 9));
	assert_null(vd_page_at(&page, 4104, UINT64_MAX));
	assert_null(vd_page_at(&page, 0, 4096));
	assert_true(vd_page_end(&page) == 4112);
}

static void idle_pages_never_exceed_the_limit(void **state)
{
	struct fake_source *fake = source_of(100000);
	struct vd_cache *cache = cache_of(3 * PAGE_BYTES + 100);

	(void)state;
	for (uint64_t host = 0; host < 100000; host += 100) {
		touch(cache, &fake->source, host);
		assert_true(vd_cache_bytes(cache) <= 3 * PAGE_BYTES + 100);
	}
	assert_int_equal(fake->preads, vd_div_up(100000, PAGE_BYTES));
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void without_room_nothing_is_kept(void **state)
{
	struct fake_source *fake = source_of(5000);
	struct vd_cache *cache = cache_of(0);

	(void)state;
	for (int i = 0; i < 3; i++) {
		touch(cache, &fake->source, 0);
		assert_int_equal(vd_cache_bytes(cache), 0);
	}
	assert_int_equal(fake->preads, 3);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void pages_in_use_stay_whatever_the_limit(void **state)
{
	struct fake_source *fake = source_of(20 * PAGE_BYTES);
	struct vd_cache *cache = cache_of(2 * PAGE_BYTES);
	const struct vd_page *pages[20];

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(
			vd_cache_get(cache, &fake->source, PAGE_BITS, i * PAGE_BYTES, &pages[i]),
			0);
	assert_int_equal(vd_cache_bytes(cache), 20 * PAGE_BYTES);
	for (unsigned i = 0; i < 20; i++) {
		assert_true(page_is_right(&fake->source, pages[i]));
		vd_cache_put(cache, pages[i]);
	}
	assert_true(vd_cache_bytes(cache) <= 2 * PAGE_BYTES);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void the_least_recently_used_page_goes_first(void **state)
{
	struct fake_source *fake = source_of(8 * PAGE_BYTES);
	struct vd_cache *cache = cache_of(3 * PAGE_BYTES);

	(void)state;
	touch(cache, &fake->source, 0);
	touch(cache, &fake->source, 1 * PAGE_BYTES);
	touch(cache, &fake->source, 2 * PAGE_BYTES);
	touch(cache, &fake->source, 0); /* in order: 1, 2, 0 */
	touch(cache, &fake->source, 3 * PAGE_BYTES); /* 1 goes */
	assert_int_equal(fake->preads, 4);
	touch(cache, &fake->source, 2 * PAGE_BYTES);
	touch(cache, &fake->source, 0);
	touch(cache, &fake->source, 3 * PAGE_BYTES);
	assert_int_equal(fake->preads, 4);
	touch(cache, &fake->source, 1 * PAGE_BYTES); /* 2 goes */
	assert_int_equal(fake->preads, 5);
	touch(cache, &fake->source, 0);
	assert_int_equal(fake->preads, 5);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void a_failed_read_is_not_remembered(void **state)
{
	struct fake_source *fake = source_of(5000);
	struct vd_cache *cache = cache_of(1 << 20);
	const struct vd_page *page = NULL;

	(void)state;
	atomic_store(&fake->failures, 2);
	assert_int_equal(vd_cache_get(cache, &fake->source, PAGE_BITS, 0, &page), -EIO);
	assert_int_equal(vd_cache_get(cache, &fake->source, PAGE_BITS, 0, &page), -EIO);
	assert_null(page);
	assert_int_equal(vd_cache_bytes(cache), 0);
	touch(cache, &fake->source, 0);
	assert_int_equal(fake->preads, 3);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

static void a_page_without_memory_is_an_error(void **state)
{
	struct fake_source *fake = source_of(UINT64_C(1) << 62);
	struct vd_cache *cache = cache_of(1 << 20);
	const struct vd_page *page = NULL;

	(void)state;
	assert_int_equal(vd_cache_get(cache, &fake->source, 61, 0, &page), -ENOMEM);
	assert_int_equal(vd_cache_bytes(cache), 0);
	vd_cache_free(cache);
	vd_source_close(&fake->source);
}

/* What the threads of a test share. cmocka's checks work in the main thread only. */
struct crowd {
	struct vd_cache *cache;
	struct fake_source *fake;
	pthread_barrier_t start;
	atomic_uint right, failed, wrong, dice;
	uint64_t pages;
	unsigned rounds;
};

static void *crowd_run(void *data)
{
	struct crowd *crowd = data;
	struct dice dice = { .state = atomic_fetch_add(&crowd->dice, 1) };

	pthread_barrier_wait(&crowd->start);
	for (unsigned i = 0; i < crowd->rounds; i++) {
		uint64_t host = dice_roll(&dice, crowd->pages * PAGE_BYTES);
		const struct vd_page *page;
		int r = vd_cache_get(crowd->cache, &crowd->fake->source, PAGE_BITS, host, &page);

		if (r < 0) {
			atomic_fetch_add(&crowd->failed, 1);
			continue;
		}
		if (page->host == host / PAGE_BYTES * PAGE_BYTES &&
		    page_is_right(&crowd->fake->source, page))
			atomic_fetch_add(&crowd->right, 1);
		else
			atomic_fetch_add(&crowd->wrong, 1);
		vd_cache_put(crowd->cache, page);
	}
	return NULL;
}

/* Let THREADS threads at the cache; with a gate, open it when they are under way. */
static void crowd_gather(struct crowd *crowd, struct gate *gate)
{
	pthread_t threads[THREADS];

	pthread_barrier_init(&crowd->start, NULL, THREADS + 1);
	crowd->fake->gate = gate;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, crowd), 0);
	pthread_barrier_wait(&crowd->start);
	if (gate) {
		gate_await(gate);
		gate_open(gate);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd->start);
	crowd->fake->gate = NULL;
}

static void a_page_that_many_wait_for_is_read_once(void **state)
{
	struct crowd crowd = { .fake = source_of(PAGE_BYTES), .pages = 1, .rounds = 1 };
	struct gate gate;

	(void)state;
	gate_init(&gate);
	crowd.cache = cache_of(1 << 20);
	crowd_gather(&crowd, &gate);
	assert_int_equal(crowd.right, THREADS);
	assert_int_equal(crowd.fake->preads, 1);
	vd_cache_free(crowd.cache);
	vd_source_close(&crowd.fake->source);
	gate_free(&gate);
}

static void each_failure_reaches_one_of_many_waiters(void **state)
{
	struct crowd crowd = { .fake = source_of(PAGE_BYTES), .pages = 1, .rounds = 1 };
	struct gate gate;

	(void)state;
	gate_init(&gate);
	crowd.cache = cache_of(1 << 20);
	atomic_store(&crowd.fake->failures, 3);
	crowd_gather(&crowd, &gate);
	assert_int_equal(crowd.failed, 3);
	assert_int_equal(crowd.right, THREADS - 3);
	assert_int_equal(crowd.fake->preads, 4);
	vd_cache_free(crowd.cache);
	vd_source_close(&crowd.fake->source);
	gate_free(&gate);
}

/* While a page is being read, others are to be had: no lock is held meanwhile. */
static void a_slow_read_stops_nobody_else(void **state)
{
	struct crowd crowd = { .fake = source_of(PAGE_BYTES), .pages = 1, .rounds = 1 };
	struct fake_source *other = source_of(5000);
	pthread_t thread;
	struct gate gate;

	(void)state;
	gate_init(&gate);
	crowd.cache = cache_of(1 << 20);
	crowd.fake->gate = &gate;
	pthread_barrier_init(&crowd.start, NULL, 1);
	assert_int_equal(pthread_create(&thread, NULL, crowd_run, &crowd), 0);
	gate_await(&gate);
	touch(crowd.cache, &other->source, 0); /* would never end */
	gate_open(&gate);
	pthread_join(thread, NULL);
	assert_int_equal(crowd.right, 1);
	pthread_barrier_destroy(&crowd.start);
	vd_cache_free(crowd.cache);
	vd_source_close(&crowd.fake->source);
	vd_source_close(&other->source);
	gate_free(&gate);
}

static void many_threads_see_the_right_bytes_within_the_limit(void **state)
{
	static const size_t limits[] = { 0, PAGE_BYTES, 10 * PAGE_BYTES, 1 << 20 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
		struct crowd crowd = { .pages = 40, .rounds = 4000 };

		crowd.fake = source_of(40 * PAGE_BYTES);
		crowd.cache = cache_of(limits[i]);
		atomic_store(&crowd.fake->failures, 20);
		crowd_gather(&crowd, NULL);
		assert_int_equal(crowd.wrong, 0);
		assert_int_equal(crowd.failed, 20);
		assert_int_equal(crowd.right, THREADS * crowd.rounds - 20);
		assert_true(vd_cache_bytes(crowd.cache) <= limits[i]);
		if (limits[i] >= 40 * PAGE_BYTES)
			assert_int_equal(crowd.fake->preads, 40 + 20);
		vd_cache_free(crowd.cache);
		vd_source_close(&crowd.fake->source);
	}
}

static void freeing_nothing_is_fine(void **state)
{
	(void)state;
	vd_cache_free(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_in_its_page),
		cmocka_unit_test(the_last_page_ends_with_the_source),
		cmocka_unit_test(a_page_is_shared_and_read_once),
		cmocka_unit_test(sources_do_not_mix),
		cmocka_unit_test(a_closed_source_leaves_no_page_for_the_next_one),
		cmocka_unit_test(bytes_outside_a_page_are_not_given),
		cmocka_unit_test(idle_pages_never_exceed_the_limit),
		cmocka_unit_test(without_room_nothing_is_kept),
		cmocka_unit_test(pages_in_use_stay_whatever_the_limit),
		cmocka_unit_test(the_least_recently_used_page_goes_first),
		cmocka_unit_test(a_failed_read_is_not_remembered),
		cmocka_unit_test(a_page_without_memory_is_an_error),
		cmocka_unit_test(a_page_that_many_wait_for_is_read_once),
		cmocka_unit_test(each_failure_reaches_one_of_many_waiters),
		cmocka_unit_test(a_slow_read_stops_nobody_else),
		cmocka_unit_test(many_threads_see_the_right_bytes_within_the_limit),
		cmocka_unit_test(freeing_nothing_is_fine),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
