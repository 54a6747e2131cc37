/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking through the layers is done in one place for all formats. Here the drivers are fakes that
 * answer in every way their contract allows, on random disks whose bytes are known; reads, extents
 * and walks must all tell of those bytes.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"

#define ROUNDS 150

/* A disk of one layer, for tests that say exactly what is in it. */
static struct vd_disk *disk_of(struct vd_image *image)
{
	return fake_disk_new(&image, 1, 9);
}

static struct vd_disk *disk_of_two(struct vd_image *top, struct vd_image *bottom)
{
	struct vd_image *images[] = { top, bottom };

	return fake_disk_new(images, 2, 9);
}

static struct vd_scratch *scratch_new(void)
{
	struct vd_scratch *scratch;

	assert_int_equal(vd_scratch_new(&scratch), 0);
	return scratch;
}

/* The kind of an extent must be that of its bytes. */
static void check_extent(const struct vd_disk *disk, const struct vd_extent *extent,
			 const struct fake_truth *truth)
{
	const struct vd_run *run = &extent->run;

	for (uint64_t at = extent->start; at < extent->start + extent->length; at++) {
		uint8_t class = truth->classes[at];

		switch (run->kind) {
		case VD_ABSENT:
			fail_msg("an extent is ABSENT");
			break;
		case VD_ZERO:
			assert_int_equal(class, FAKE_HOLE);
			break;
		case VD_RAW:
			assert_true(class == FAKE_DATA || class == FAKE_HOLE);
			assert_int_equal(fake_source_byte(run->from, run->where + at - run->start),
					 truth->values[at]);
			break;
		case VD_CODED:
			assert_true(class == FAKE_DATA || class == FAKE_DAMAGED);
			break;
		case VD_BAD:
			assert_int_equal(class, FAKE_UNREADABLE);
			break;
		}
	}
	if (run->kind == VD_CODED)
		assert_true(run->start <= extent->start &&
			    run->start + run->length >= extent->start + extent->length);
	else
		assert_true(run->start == extent->start && run->length == extent->length);
	assert_true(extent->image || run->kind == VD_ZERO);
	assert_true(!extent->image || extent->image == disk->layers[extent->depth]);
}

static bool could_be_one(const struct vd_extent *a, const struct vd_extent *b)
{
	if (a->run.kind != b->run.kind || a->run.kind == VD_CODED || a->depth != b->depth ||
	    a->image != b->image)
		return false;
	return a->run.kind != VD_RAW ||
	       (a->run.from == b->run.from && a->run.where + a->run.length == b->run.where);
}

/* What the drivers have been asked so far. */
static unsigned questions(const struct vd_disk *disk)
{
	unsigned maps = 0;

	for (unsigned i = 0; i < disk->count; i++) {
		struct fake_layer *layer = disk->layers[i]->state;

		maps += atomic_load(&layer->maps);
	}
	return maps;
}

static void check_map(const struct vd_disk *disk, const struct fake_truth *truth, uint64_t virt,
		      uint64_t want, unsigned max)
{
	struct vd_extent extents[64];
	unsigned asked = questions(disk);
	int count = vd_disk_map(disk, virt, want, extents, max);
	uint64_t at = virt;

	assert_true(count >= 1 && (unsigned)count <= max);
	for (int i = 0; i < count; i++) {
		assert_true(extents[i].start == at && extents[i].length > 0);
		check_extent(disk, &extents[i], truth);
		assert_false(i > 0 && could_be_one(&extents[i - 1], &extents[i]));
		at += extents[i].length;
	}
	assert_true(at <= virt + want);
	/* It stops for want of room or after many questions only. */
	asked = questions(disk) - asked;
	assert_true((unsigned)count == max || at == virt + want || asked >= VD_DISK_MAP_CALLS);
}

static void extents_are_adjacent_merged_and_true(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_truth truth = fake_truth(disk);

		check_map(disk, &truth, 0, disk->size, 64);
		for (int i = 0; i < 50; i++) {
			uint64_t virt = dice_roll(&dice, disk->size);
			uint64_t want = 1 + dice_roll(&dice, disk->size - virt);

			check_map(disk, &truth, virt, want, 1 + (unsigned)dice_roll(&dice, 64));
			check_map(disk, &truth, virt, 1 + dice_roll(&dice, vd_min(want, 100)), 1);
		}
		fake_truth_free(&truth);
		vd_disk_close(disk);
	}
}

/* A coded unit that is seen through gaps may come in several extents: join them. */
static void join_units(struct vd_extent *extents, int count)
{
	int last = 0;

	for (int i = 1; i < count; i++) {
		if (extents[i].run.kind == VD_CODED && extents[last].run.kind == VD_CODED &&
		    extents[i].image == extents[last].image &&
		    extents[i].run.start == extents[last].run.start)
			extents[last].length += extents[i].length;
		else
			extents[++last] = extents[i];
	}
}

/* With a small room at a time the same extents are found, in pieces that belong together. */
static void the_room_for_extents_does_not_change_them(void **state)
{
	struct dice dice = { 2 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		struct vd_disk *disk = fake_disk_random(false, &dice);
		struct vd_extent all[400], few[3];
		int count = vd_disk_map(disk, 0, disk->size, all, ARRAY_LENGTH(all)), i = 0;
		uint64_t end = all[count - 1].start + all[count - 1].length, at = 0;

		join_units(all, count);
		while (at < end) {
			int got = vd_disk_map(disk, at, end - at, few,
					      1 + (unsigned)dice_roll(&dice, 3));

			assert_true(got > 0);
			for (int k = 0; k < got; k++) {
				while (all[i].start + all[i].length <= few[k].start)
					i++;
				assert_true(few[k].start + few[k].length <=
					    all[i].start + all[i].length);
				assert_int_equal(few[k].run.kind, all[i].run.kind);
				assert_ptr_equal(few[k].run.from, all[i].run.from);
				at += few[k].length;
			}
		}
		vd_disk_close(disk);
	}
}

static void check_read(const struct vd_disk *disk, const struct fake_truth *truth, uint64_t virt,
		       size_t bytes, struct vd_scratch *scratch)
{
	uint8_t *buffer = make(bytes);
	bool readable = true;
	int r = vd_disk_read(disk, buffer, bytes, virt, scratch);

	for (uint64_t at = virt; at < virt + bytes; at++)
		readable = readable && truth->classes[at] < FAKE_UNREADABLE;
	assert_int_equal(r, readable ? 0 : -EIO);
	if (readable)
		assert_memory_equal(buffer, truth->values + virt, bytes);
	free(buffer);
}

static void reads_give_the_bytes_or_an_error(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 3 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		struct vd_disk *disk = fake_disk_random(round & 1, &dice);
		struct fake_truth truth = fake_truth(disk);
		uint64_t step = 1 + dice_roll(&dice, 3000);

		for (uint64_t at = 0; at < disk->size; at += step)
			check_read(disk, &truth, at, (size_t)vd_min(step, disk->size - at),
				   scratch);
		for (int i = 0; i < 20; i++) {
			uint64_t virt = dice_roll(&dice, disk->size);

			check_read(disk, &truth, virt,
				   (size_t)(1 + dice_roll(&dice, vd_min(disk->size - virt, 600))),
				   scratch);
		}
		check_read(disk, &truth, 0, (size_t)disk->size, scratch);
		fake_truth_free(&truth);
		vd_disk_close(disk);
		/* Another image may be where this one was: its units must not be remembered. */
		vd_scratch_free(scratch);
		scratch = scratch_new();
	}
	vd_scratch_free(scratch);
}

static void a_walk_tells_of_all_holes_and_data(void **state)
{
	struct vd_walk *walk = make(sizeof(*walk));
	struct dice dice = { 4 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_truth truth = fake_truth(disk);
		uint64_t at = round & 1 ? dice_roll(&dice, disk->size + 1) : 0, bad = 0;
		struct vd_piece piece;
		int r;

		vd_walk_init(walk, disk, at);
		while ((r = vd_walk_next(walk, &piece)) > 0) {
			assert_true(piece.start == at && piece.end > at);
			for (; at < piece.end; at++) {
				assert_int_equal(truth.classes[at] != FAKE_HOLE, piece.is_data);
				bad += truth.classes[at] == FAKE_UNREADABLE;
			}
		}
		assert_int_equal(r, 0);
		assert_true(at == disk->size);
		assert_true(walk->bad_bytes == bad);
		fake_truth_free(&truth);
		vd_disk_close(disk);
	}
	free(walk);
}

static void what_no_layer_holds_is_zero(void **state)
{
	struct dice dice = { 5 };
	struct vd_image *top = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_image *bottom = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of_two(top, bottom);
	struct vd_extent extent;

	(void)state;
	fake_span_add(top, 5000, VD_ABSENT, NULL, 0);
	fake_span_add(bottom, 1000, VD_ABSENT, NULL, 0);
	assert_int_equal(vd_disk_map(disk, 10, 990, &extent, 1), 1);
	assert_int_equal(extent.run.kind, VD_ZERO);
	assert_null(extent.image);
	assert_int_equal(extent.depth, 1);
	assert_true(extent.start == 10 && extent.length == 990);
	vd_disk_close(disk);
}

static void a_zero_hides_what_lies_below(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 6 };
	struct vd_image *top = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_image *bottom = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of_two(top, bottom);
	uint8_t bytes[1000];

	(void)state;
	fake_span_add(top, 500, VD_ZERO, NULL, 0);
	fake_span_add(top, 500, VD_ABSENT, NULL, 0);
	fake_span_add(bottom, 1000, VD_RAW, bottom->source, 0);
	assert_int_equal(vd_disk_read(disk, bytes, 1000, 0, scratch), 0);
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(bytes[i], i < 500 ? 0 : fake_source_byte(bottom->source, i));
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

/* Three layers: the lowest has data everywhere, the one between ends before it. */
static void bytes_in_one_piece_of_a_file_are_found_there(void **state)
{
	struct dice dice = { 11 };
	struct vd_image *image = fake_image_new(4000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of(image);
	const struct vd_source *from = NULL;
	uint64_t where = 0;

	(void)state;
	fake_span_add(image, 1000, VD_RAW, image->source, 5000);
	fake_span_add(image, 1000, VD_RAW, image->source, 6000); /* goes on where the last ends */
	fake_span_add(image, 1000, VD_RAW, image->source, 1000);
	fake_span_add(image, 1000, VD_ZERO, NULL, 0);
	assert_true(vd_disk_find_raw(disk, 100, 1900, &from, &where));
	assert_true(from == image->source && where == 5100);
	assert_true(vd_disk_find_raw(disk, 2999, 1, &from, &where));
	assert_true(from == image->source && where == 1999);
	assert_false(vd_disk_find_raw(disk, 1999, 2, &from, &where));
	assert_false(vd_disk_find_raw(disk, 2999, 2, &from, &where));
	assert_false(vd_disk_find_raw(disk, 3500, 10, &from, &where));
	fake_layer(image)->error = -ENOMEM;
	fake_layer(image)->error_virt = 0;
	assert_false(vd_disk_find_raw(disk, 100, 10, &from, &where));
	vd_disk_close(disk);
}

static void a_shorter_layer_in_the_middle_hides_what_lies_below_its_end(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 7 };
	struct vd_image *images[] = {
		fake_image_new(3000, FAKE_GENEROUS, &dice),
		fake_image_new(1000, FAKE_GENEROUS, &dice),
		fake_image_new(3000, FAKE_GENEROUS, &dice),
	};
	struct vd_disk *disk = fake_disk_new(images, 3, 9);
	uint8_t bytes[3000];

	(void)state;
	fake_span_add(images[0], 3000, VD_ABSENT, NULL, 0);
	fake_span_add(images[1], 2000, VD_ABSENT, NULL, 0); /* its last cluster passes its end */
	fake_span_add(images[2], 3000, VD_RAW, images[2]->source, 0);
	assert_int_equal(vd_disk_read(disk, bytes, 3000, 0, scratch), 0);
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(bytes[i], i < 1000 ? fake_source_byte(images[2]->source, i) : 0);
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

static void a_chain_of_the_greatest_depth_works(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 8 };
	struct vd_image *images[VD_LAYERS_MAX];
	struct vd_disk *disk;
	uint8_t bytes[VD_LAYERS_MAX * 10];

	(void)state;
	for (unsigned i = 0; i < VD_LAYERS_MAX; i++) { /* layer i holds ten bytes, at 10 i */
		images[i] = fake_image_new(sizeof(bytes), FAKE_MIXED, &dice);
		if (i > 0)
			fake_span_add(images[i], i * 10, VD_ABSENT, NULL, 0);
		fake_span_add(images[i], 10, VD_RAW, images[i]->source, i * 10);
		fake_span_add(images[i], sizeof(bytes), VD_ABSENT, NULL, 0);
	}
	disk = fake_disk_new(images, VD_LAYERS_MAX, 9);
	assert_int_equal(vd_disk_read(disk, bytes, sizeof(bytes), 0, scratch), 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], fake_source_byte(images[i / 10]->source, i));
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

/* A layer of two coded units of 1000 bytes; the last passes the end of the disk. */
static struct vd_disk *coded_disk(bool is_damaged)
{
	struct dice dice = { 9 };
	struct vd_image *image = fake_image_new(1900, FAKE_GENEROUS, &dice);

	fake_span_add(image, 1000, VD_CODED, NULL, 0)->is_damaged = is_damaged;
	fake_span_add(image, 1000, VD_CODED, NULL, 0);
	return disk_of(image);
}

static void a_coded_unit_is_decoded_once_for_small_reads(void **state)
{
	struct vd_disk *disk = coded_disk(false);
	struct fake_truth truth = fake_truth(disk);
	struct vd_scratch *scratch = scratch_new();

	(void)state;
	for (uint64_t at = 0; at < 1900; at += 10)
		check_read(disk, &truth, at, 10, scratch);
	assert_int_equal(fake_layer(disk->layers[0])->decodes, 2);
	check_read(disk, &truth, 0, 1000, scratch);
	check_read(disk, &truth, 1899, 1, scratch);
	check_read(disk, &truth, 500, 1400, scratch);
	assert_int_equal(fake_layer(disk->layers[0])->decodes, 2); /* all kept */
	fake_truth_free(&truth);
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

static void a_failed_decode_is_not_taken_for_the_unit(void **state)
{
	struct vd_disk *disk = coded_disk(true);
	struct fake_truth truth = fake_truth(disk);
	struct vd_scratch *scratch = scratch_new();

	(void)state;
	check_read(disk, &truth, 1000, 900, scratch);
	for (int i = 0; i < 3; i++) {
		check_read(disk, &truth, 10, 100, scratch);
		check_read(disk, &truth, 0, 1000, scratch);
		check_read(disk, &truth, 1010, 100, scratch);
	}
	fake_truth_free(&truth);
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

static void a_driver_without_memory_stops_the_map_there(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 10 };
	struct vd_image *image = fake_image_new(1000, FAKE_SINGLE, &dice);
	struct vd_disk *disk = disk_of(image);
	struct vd_walk *walk = make(sizeof(*walk));
	struct vd_extent extents[4];
	struct vd_piece piece;
	uint8_t bytes[1000];

	(void)state;
	fake_span_add(image, 400, VD_RAW, image->source, 0);
	fake_span_add(image, 600, VD_ZERO, NULL, 0);
	fake_layer(image)->error = -ENOMEM;
	fake_layer(image)->error_virt = 400;
	assert_int_equal(vd_disk_map(disk, 0, 1000, extents, 4), 1); /* what is known is given */
	assert_true(extents[0].length == 400);
	assert_int_equal(vd_disk_map(disk, 400, 600, extents, 4), -ENOMEM);
	assert_int_equal(vd_disk_read(disk, bytes, 1000, 0, scratch), -ENOMEM);
	vd_walk_init(walk, disk, 0);
	assert_int_equal(vd_walk_next(walk, &piece), 1);
	assert_true(piece.end == 400 && piece.is_data);
	assert_int_equal(vd_walk_next(walk, &piece), -ENOMEM);
	free(walk);
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

/* Against the contract: the run ends before the place that was asked for. */
static int map_elsewhere(const struct vd_image *image, uint64_t virt, uint64_t want,
			 struct vd_runs *runs)
{
	struct vd_run run = { .start = 0, .length = virt ? virt : 1, .kind = VD_ZERO };

	(void)image;
	(void)want;
	vd_runs_add(runs, &run);
	return 0;
}

static void a_driver_that_does_not_answer_is_an_error_and_no_endless_loop(void **state)
{
	static const struct vd_format elsewhere = { .name = "elsewhere", .map = map_elsewhere };
	struct vd_image image = { .format = &elsewhere, .size = 1000 };
	struct vd_disk disk = { .layers = { &image }, .count = 1, .size = 1000 };
	struct vd_extent extents[4];

	(void)state;
	assert_int_equal(vd_disk_map(&disk, 5, 100, extents, 4), -EIO);
}

static ssize_t read_fails(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host)
{
	(void)buffer;
	(void)bytes;
	(void)host;
	return -source->fd;
}

/* To those above they would mean that the read is to be tried again, for ever. */
static void errors_that_mean_something_else_are_eio(void **state)
{
	static const struct vd_source_ops fails = { .pread = read_fails };
	struct vd_source source = { .ops = &fails, .size = 1000 };
	char byte;

	(void)state;
	for (source.fd = 1; source.fd < 140; source.fd++) {
		bool other = source.fd == EAGAIN || source.fd == EINPROGRESS || source.fd == EINTR;

		assert_int_equal(vd_source_read(&source, &byte, 1, 0), other ? -EIO : -source.fd);
	}
}

static void a_source_that_cannot_be_read_is_an_error_logged_once(void **state)
{
	struct vd_scratch *scratch = scratch_new();
	struct dice dice = { 11 };
	struct vd_image *image = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of(image);
	uint8_t bytes[1000];
	char *text;

	(void)state;
	fake_span_add(image, 1000, VD_RAW, image->source, 0);
	atomic_store(&((struct fake_source *)image->source)->failures, 3);
	capture_begin();
	for (int i = 0; i < 3; i++)
		assert_int_equal(vd_disk_read(disk, bytes, 1000, 0, scratch), -EIO);
	text = capture_end();
	assert_int_equal(count_lines(text), 1);
	assert_non_null(strstr(text, "fake: cannot read"));
	assert_int_equal(vd_disk_read(disk, bytes, 1000, 0, scratch), 0);
	free(text);
	vd_disk_close(disk);
	vd_scratch_free(scratch);
}

static void a_dense_source_is_not_asked_for_its_holes(void **state)
{
	struct dice dice = { 12 };
	struct vd_image *image = fake_image_new(1000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of(image);
	struct vd_walk *walk = make(sizeof(*walk));
	struct vd_piece piece;

	(void)state;
	fake_span_add(image, 1000, VD_RAW, image->source, 0);
	vd_walk_init(walk, disk, 0);
	assert_int_equal(vd_walk_next(walk, &piece), 1);
	assert_true(piece.start == 0 && piece.end == 1000 && piece.is_data);
	assert_int_equal(((struct fake_source *)image->source)->extents, 0);
	free(walk);
	vd_disk_close(disk);
}

/* Fragments that lie in the same extent of the file cost no question each. */
static void an_extent_of_the_file_is_asked_for_once(void **state)
{
	struct dice dice = { 13 };
	struct vd_image *image = fake_image_new(10000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = disk_of(image);
	struct fake_source *fake = (struct fake_source *)image->data;
	struct vd_walk *walk = make(sizeof(*walk));
	struct vd_piece piece;
	unsigned pieces = 0;

	(void)state;
	fake->hole_bits = 40; /* one extent, which covers all */
	for (uint64_t at = 0; at < 10000; at += 100) /* forwards, in leaps */
		fake_span_add(image, 100, VD_RAW, image->data, 2 * at);
	vd_walk_init(walk, disk, 0);
	while (vd_walk_next(walk, &piece) > 0)
		pieces++;
	assert_int_equal(pieces, 100);
	assert_int_equal(fake->extents, 1);
	free(walk);
	vd_disk_close(disk);
}

static void closing_nothing_is_fine(void **state)
{
	(void)state;
	vd_disk_close(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(extents_are_adjacent_merged_and_true),
		cmocka_unit_test(the_room_for_extents_does_not_change_them),
		cmocka_unit_test(reads_give_the_bytes_or_an_error),
		cmocka_unit_test(a_walk_tells_of_all_holes_and_data),
		cmocka_unit_test(what_no_layer_holds_is_zero),
		cmocka_unit_test(a_zero_hides_what_lies_below),
		cmocka_unit_test(bytes_in_one_piece_of_a_file_are_found_there),
		cmocka_unit_test(a_shorter_layer_in_the_middle_hides_what_lies_below_its_end),
		cmocka_unit_test(a_chain_of_the_greatest_depth_works),
		cmocka_unit_test(a_coded_unit_is_decoded_once_for_small_reads),
		cmocka_unit_test(a_failed_decode_is_not_taken_for_the_unit),
		cmocka_unit_test(a_driver_without_memory_stops_the_map_there),
		cmocka_unit_test(a_driver_that_does_not_answer_is_an_error_and_no_endless_loop),
		cmocka_unit_test(errors_that_mean_something_else_are_eio),
		cmocka_unit_test(a_source_that_cannot_be_read_is_an_error_logged_once),
		cmocka_unit_test(a_dense_source_is_not_asked_for_its_holes),
		cmocka_unit_test(an_extent_of_the_file_is_asked_for_once),
		cmocka_unit_test(closing_nothing_is_fine),
	};

	return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
