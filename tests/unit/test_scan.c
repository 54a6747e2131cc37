/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A scan by several threads must tell of the same pieces, in the same order, as a walk by one, and
 * it must end however it is left: at its end, in the middle, while a thread hangs in a driver, or
 * when a driver fails.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/scan.h"

#define CELL ((uint64_t)512)

static struct vd_scan *scan_of(const struct vd_disk *disk, unsigned threads)
{
	struct vd_scan *scan;

	assert_int_equal(vd_scan_new(disk, threads, &scan), 0);
	return scan;
}

/* Several sections of 65536 clusters, each with about as many pieces as a buffer holds. */
static struct vd_disk *sections_disk(const struct fake_grid *grid, unsigned cluster_bits)
{
	struct vd_image *image = fake_grid_image(700000 * CELL + 77, grid, cluster_bits);

	return fake_disk_new(&image, 1, cluster_bits);
}

static void check_scan(struct vd_scan *scan, const struct fake_pieces *pieces)
{
	uint64_t virt = 0;
	struct vd_piece piece;
	size_t i = 0;
	int r;

	while ((r = vd_scan_next(scan, &piece)) > 0)
		fake_pieces_expect(pieces, &i, &virt, &piece);
	assert_int_equal(r, 0);
	assert_true(virt == pieces->size);
	assert_int_equal(vd_scan_next(scan, &piece), 0);
	assert_true(vd_scan_would_wait(scan));
}

static void a_scan_is_a_walk(void **state)
{
	struct dice dice = { 3 };

	(void)state;
	for (int round = 0; round < 40; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_truth truth = fake_truth(disk);
		struct fake_pieces pieces = fake_pieces(disk);
		struct vd_scan *scan = scan_of(disk, (unsigned)dice_roll(&dice, 5));
		uint64_t bad = 0;

		for (uint64_t at = 0; at < disk->size; at++)
			bad += truth.classes[at] == FAKE_UNREADABLE;
		check_scan(scan, &pieces);
		assert_true(vd_scan_bad_bytes(scan) == bad);
		vd_scan_free(scan);
		fake_pieces_free(&pieces);
		fake_truth_free(&truth);
		vd_disk_close(disk);
	}
}

static void sections_and_full_buffers_are_joined_in_order(void **state)
{
	static const struct fake_grid grids[] = {
		{ .cell_bits = 9, .data_of_8 = 4, .seed = 5 },
		{ .cell_bits = 9, .data_of_8 = 8, .scattered = true },
		{ .cell_bits = 9, .data_of_8 = 1, .seed = 6 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(grids); i++) {
		for (unsigned bits = 9; bits <= 15; bits += 3) { /* many sections; one */
			struct vd_disk *disk = sections_disk(&grids[i], bits);
			struct fake_pieces pieces = fake_grid_pieces(disk);

			for (unsigned threads = 0; threads <= 5;
			     threads++) { /* 0: the reader; 5 are 4 */
				struct vd_scan *scan = scan_of(disk, threads);

				check_scan(scan, &pieces);
				vd_scan_free(scan);
			}
			fake_pieces_free(&pieces);
			vd_disk_close(disk);
		}
	}
}

static void an_enormous_hole_takes_no_time(void **state)
{
	struct dice dice = { 4 };
	struct vd_image *image = fake_image_new(INT64_MAX, FAKE_GENEROUS, &dice);
	struct vd_disk *disk;
	struct vd_scan *scan;
	struct vd_piece piece;
	uint64_t virt = 0;
	unsigned calls = 0;

	(void)state;
	fake_span_add(image, INT64_MAX, VD_ZERO, NULL, 0);
	disk = fake_disk_new(&image, 1, 9);
	scan = scan_of(disk, 4);
	while (vd_scan_next(scan, &piece) > 0) {
		assert_true(piece.start == virt && !piece.is_data);
		virt = piece.end;
		calls++;
	}
	assert_true(virt == INT64_MAX);
	assert_true(calls <= 65537);
	vd_scan_free(scan);
	vd_disk_close(disk);
}

static void an_empty_disk_ends_at_once(void **state)
{
	struct dice dice = { 5 };
	struct vd_image *image = fake_image_new(0, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_scan *scan = scan_of(disk, 4);
	struct vd_piece piece;

	(void)state;
	assert_int_equal(vd_scan_next(scan, &piece), 0);
	vd_scan_free(scan);
	vd_disk_close(disk);
}

static void an_error_comes_after_what_is_known(void **state)
{
	static const uint64_t places[] = { 0, 65536, 100000, 650001 };

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LENGTH(places); i++) {
		uint64_t place = places[i / 2];
		struct fake_grid grid = {
			.cell_bits = 9,
			.data_of_8 = 4,
			.seed = 7,
			.error = -ENOMEM,
			.error_virt = place * CELL,
		};
		struct vd_disk *disk = sections_disk(&grid, 9);
		struct vd_scan *scan = scan_of(disk, i % 2 ? 3 : 0);
		struct vd_piece piece = { .end = 0 };
		int r;

		while ((r = vd_scan_next(scan, &piece)) > 0)
			assert_true(piece.end <= (place + 1000) * CELL);
		assert_int_equal(r, -ENOMEM);
		assert_true(piece.end + 1000 * CELL >= place * CELL);
		assert_int_equal(vd_scan_next(scan, &piece), -ENOMEM);
		vd_scan_free(scan);
		vd_disk_close(disk);
	}
}

static void a_scan_may_be_left_in_the_middle(void **state)
{
	static const struct fake_grid grid = { .cell_bits = 9, .data_of_8 = 4, .seed = 8 };
	struct vd_disk *disk = sections_disk(&grid, 9);
	struct vd_piece piece;

	(void)state;
	for (unsigned take = 0; take < 200000; take += 39999) {
		struct vd_scan *scan = scan_of(disk, take % 5);

		for (unsigned i = 0; i < take; i++)
			assert_int_equal(vd_scan_next(scan, &piece), 1);
		vd_scan_free(scan);
	}
	vd_disk_close(disk);
}

struct waiter {
	struct vd_scan *scan;
	int result;
};

static void *waiter_run(void *data)
{
	struct waiter *waiter = data;
	struct vd_piece piece;

	do
		waiter->result = vd_scan_next(waiter->scan, &piece);
	while (waiter->result > 0);
	return NULL;
}

static void who_waits_is_woken_by_a_stop(void **state)
{
	struct gate gate;
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = 4,
		.seed = 9,
		.gate = &gate,
		.gate_virt = 100000 * CELL,
	};
	struct vd_disk *disk = sections_disk(&grid, 9);
	struct waiter waiter;
	pthread_t thread;

	(void)state;
	gate_init(&gate);
	waiter.scan = scan_of(disk, 2);
	assert_int_equal(pthread_create(&thread, NULL, waiter_run, &waiter), 0);
	gate_await(&gate);
	vd_scan_stop(waiter.scan);
	pthread_join(thread, NULL); /* although a thread still hangs in the driver */
	assert_int_equal(waiter.result, -ECANCELED);
	gate_open(&gate);
	vd_scan_free(waiter.scan);
	vd_disk_close(disk);
	gate_free(&gate);
}

static void a_stop_ends_a_scan_without_threads(void **state)
{
	static const struct fake_grid grid = { .cell_bits = 9, .data_of_8 = 4, .seed = 10 };
	struct vd_disk *disk = sections_disk(&grid, 9);
	struct vd_scan *scan = scan_of(disk, 0);
	struct vd_piece piece;
	int r;

	(void)state;
	assert_int_equal(vd_scan_next(scan, &piece), 1);
	vd_scan_stop(scan);
	while ((r = vd_scan_next(scan, &piece)) > 0)
		; /* what is at hand is given out */
	assert_int_equal(r, -ECANCELED);
	assert_true(piece.end < disk->size);
	vd_scan_free(scan);
	vd_disk_close(disk);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scan_is_a_walk),
		cmocka_unit_test(sections_and_full_buffers_are_joined_in_order),
		cmocka_unit_test(an_enormous_hole_takes_no_time),
		cmocka_unit_test(an_empty_disk_ends_at_once),
		cmocka_unit_test(an_error_comes_after_what_is_known),
		cmocka_unit_test(a_scan_may_be_left_in_the_middle),
		cmocka_unit_test(who_waits_is_woken_by_a_stop),
		cmocka_unit_test(a_stop_ends_a_scan_without_threads),
	};

	return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
