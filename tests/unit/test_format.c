/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all drivers share: collecting runs within the room there is, collecting the names of a
 * parent, and telling formats apart, where a file that looks like two of them is an attack.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "images.h"

static bool add(struct vd_runs *runs, uint64_t start, uint64_t length, enum vd_kind kind,
		const struct vd_source *from, uint64_t where)
{
	struct vd_run run = {
		.start = start,
		.length = length,
		.kind = kind,
		.from = from,
		.where = where,
	};

	return vd_runs_add(runs, &run);
}

static void runs_that_continue_each_other_become_one(void **state)
{
	static const struct vd_source a, b;
	struct vd_run list[8];
	struct vd_runs runs = { .runs = list, .max = 8 };

	(void)state;
	assert_true(add(&runs, 0, 10, VD_ZERO, NULL, 0));
	assert_true(add(&runs, 10, 10, VD_ZERO, NULL, 0));
	assert_true(add(&runs, 20, 10, VD_ABSENT, NULL, 0));
	assert_true(add(&runs, 30, 10, VD_RAW, &a, 500));
	assert_true(add(&runs, 40, 10, VD_RAW, &a, 510));
	assert_true(add(&runs, 50, 10, VD_RAW, &a, 530)); /* elsewhere */
	assert_true(add(&runs, 60, 10, VD_RAW, &b, 540)); /* in another file */
	assert_true(add(&runs, 70, 10, VD_BAD, NULL, 0));
	assert_true(add(&runs, 80, 10, VD_BAD, NULL, 0));
	assert_int_equal(runs.count, 6);
	assert_true(list[0].length == 20 && list[2].length == 20 && list[5].length == 20);
}

static void coded_units_are_never_joined(void **state)
{
	static const struct vd_source a;
	struct vd_run list[8];
	struct vd_runs runs = { .runs = list, .max = 8 };

	(void)state;
	assert_true(add(&runs, 0, 10, VD_CODED, &a, 0));
	assert_true(add(&runs, 10, 10, VD_CODED, &a, 10));
	assert_int_equal(runs.count, 2);
}

static void without_room_a_run_is_refused_unless_it_continues_the_last(void **state)
{
	struct vd_run list[2];
	struct vd_runs runs = { .runs = list, .max = 1 };

	(void)state;
	list[1].start = 77;
	assert_true(add(&runs, 0, 10, VD_ZERO, NULL, 0));
	assert_true(add(&runs, 10, 10, VD_ZERO, NULL, 0));
	assert_false(add(&runs, 20, 10, VD_ABSENT, NULL, 0));
	assert_int_equal(runs.count, 1);
	assert_true(list[0].length == 20 && list[1].start == 77);
}

static void a_parent_has_each_name_once_in_order(void **state)
{
	struct vd_parent parent = { .count = 0 };

	(void)state;
	assert_int_equal(vd_parent_add(&parent, "b"), 0);
	assert_int_equal(vd_parent_add(&parent, ""), 0);
	assert_int_equal(vd_parent_add(&parent, "a"), 0);
	assert_int_equal(vd_parent_add(&parent, "b"), 0);
	assert_int_equal(parent.count, 2);
	assert_string_equal(parent.names[0], "b");
	assert_string_equal(parent.names[1], "a");
	vd_parent_clear(&parent);
	assert_int_equal(parent.count, 0);
	vd_parent_clear(&parent);
}

static void a_parent_has_no_more_names_than_there_is_room_for(void **state)
{
	struct vd_parent parent = { .count = 0 };
	char name[16];

	(void)state;
	for (int i = 0; i < 2 * VD_PARENT_NAMES_MAX; i++) {
		snprintf(name, sizeof(name), "%d", i);
		assert_int_equal(vd_parent_add(&parent, name), 0);
	}
	assert_int_equal(parent.count, VD_PARENT_NAMES_MAX);
	vd_parent_clear(&parent);
}

static void formats_are_found_by_name(void **state)
{
	(void)state;
	assert_ptr_equal(vd_format_find("vhd"), &vd_format_vhd);
	assert_ptr_equal(vd_format_find("vpc"), &vd_format_vhd);
	assert_ptr_equal(vd_format_find("qcow2"), &vd_format_qcow2);
	assert_ptr_equal(vd_format_find("raw"), &vd_format_raw);
	assert_null(vd_format_find(""));
	assert_null(vd_format_find("qcow"));
	assert_null(vd_format_find("QCOW2"));
}

/* Probe a file with these bytes. `says`: a part of the refusal. */
static void check_probe(const char *folder, const struct image *image, int expected,
			const struct vd_format *format, const char *says)
{
	const char *path = in_folder(folder, "file");
	struct vd_error err = { "" };
	const struct vd_format *found = NULL;
	struct vd_source *source;

	image_write(image, path);
	source = file_source(path);
	assert_int_equal(vd_format_probe(source, "--format", &found, &err), expected);
	assert_ptr_equal(found, format);
	assert_non_null(strstr(err.text, says));
	vd_source_close(source);
}

static void images_are_recognised_by_their_magic(void **state)
{
	struct image *image = make(sizeof(*image));

	qcow2_make(image, &(struct qcow2_facts){ .zstd = false });
	check_probe(*state, image, 0, &vd_format_qcow2, "");
	vhd_make(image, &(struct vhd_facts){ .uuid = 1 });
	check_probe(*state, image, 0, &vd_format_vhd, "");
	image->count--; /* old Virtual PC cut a byte */
	check_probe(*state, image, 0, &vd_format_vhd, "");
	memset(image->bytes + image->count - 600, 0, 600); /* the copy at the beginning is left */
	check_probe(*state, image, 0, &vd_format_vhd, "");
	free(image);
}

static void a_raw_disk_is_never_the_answer(void **state)
{
	static const size_t counts[] = { 0, 1, 3, 4, 511, 512, 5000 };
	struct image *image = make(sizeof(*image));

	memset(image, 0, sizeof(*image));
	for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
		image->count = counts[i];
		check_probe(*state, image, -EINVAL, NULL,
			    counts[i] ? "--format=raw" : "the file is empty");
	}
	free(image);
}

static void a_file_that_looks_like_two_formats_is_refused(void **state)
{
	struct image *image = make(sizeof(*image)), *vhd = make(sizeof(*vhd));

	qcow2_make(image, &(struct qcow2_facts){ .zstd = false });
	vhd_make(vhd, &(struct vhd_facts){ .uuid = 1 });
	memcpy(image->bytes + image->count, vhd->bytes, 512);
	image->count += 512;
	check_probe(*state, image, -EINVAL, NULL, "attacks");
	free(image);
	free(vhd);
}

static void formats_that_are_not_read_are_named(void **state)
{
	static const struct {
		size_t at, bytes;
		const char *magic, *name;
	} list[] = {
		{ 0, 8, "QFI\xfb\0\0\0\1", "QCOW version 1" },
		{ 0, 8, "vhdxfile", "VHDX" },
		{ 0, 4, "KDMV", "VMDK" },
		{ 0x40, 4, "\x7f\x10\xda\xbe", "VDI" },
		{ 0, 4, "QED\0", "QED" },
		{ 0, 6, "LUKS\xba\xbe", "LUKS" },
		{ 0, 3, "\x1f\x8b\x08", "gzip" },
		{ 257, 5, "ustar", "tar" },
	};
	struct image *image = make(sizeof(*image));

	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		memset(image, 0, sizeof(*image));
		memcpy(image->bytes + list[i].at, list[i].magic, list[i].bytes);
		image->count = list[i].at + list[i].bytes; /* no longer than that */
		check_probe(*state, image, -ENOTSUP, NULL, list[i].name);
	}
	free(image);
}

/* What the guest writes into its first sector does not decide what a fixed VHD is. */
static void a_vhd_may_begin_like_another_format(void **state)
{
	struct image *image = make(sizeof(*image)), *vhd = make(sizeof(*vhd));

	vhd_make(vhd, &(struct vhd_facts){ .uuid = 1 });
	memset(image, 0, sizeof(*image));
	image->count = 4096 + 512;
	memcpy(image->bytes, "LUKS\xba\xbe", 6);
	memcpy(image->bytes + 4096, vhd->bytes, 512);
	check_probe(*state, image, 0, &vd_format_vhd, "");
	free(image);
	free(vhd);
}

/* An image in memory that cannot be read everywhere. */
struct failing_source {
	struct vd_source source;
	const struct image *image;
	uint64_t from, to; /* reads that begin here fail, */
	unsigned number; /* or the read of this number, from 1 on */
	unsigned reads;
};

static ssize_t failing_pread(const struct vd_source *source, void *buffer, size_t bytes,
			     uint64_t host)
{
	struct failing_source *failing = (struct failing_source *)(uintptr_t)source;

	failing->reads++;
	if (failing->reads == failing->number || (host >= failing->from && host < failing->to))
		return -ETIMEDOUT;
	memcpy(buffer, failing->image->bytes + host, bytes);
	return (ssize_t)bytes;
}

static void failing_close(struct vd_source *source)
{
	(void)source;
}

static const struct vd_source_ops failing_ops = {
	.pread = failing_pread,
	.close = failing_close,
};

static struct failing_source *failing_source(const struct image *image, uint64_t from, uint64_t to)
{
	struct failing_source *failing = calloc(1, sizeof(*failing));

	assert_non_null(failing);
	failing->source = (struct vd_source){
		.ops = &failing_ops,
		.serial = vd_serial(),
		.name = strdup("failing"),
		.size = image->count,
		.fd = -1,
		.dir_fd = -1,
		.real_fd = -1,
	};
	failing->image = image;
	failing->from = from;
	failing->to = to;
	return failing;
}

/* Open the image while no read may begin there; `parents`: ask for its parent, too. */
static int open_failing(const struct image *image, const struct vd_format *format, uint64_t from,
			uint64_t to, bool parents, struct vd_error *err)
{
	struct vd_image_options options = { .snapshot = NULL };
	struct vd_parent parent = { .count = 0 };
	struct vd_image *opened = NULL;
	struct vd_cache *cache;
	int r;

	assert_int_equal(vd_cache_new(1 << 20, &cache), 0);
	r = vd_image_open(&failing_source(image, from, to)->source, format, &options, cache,
			  &opened, err);
	if (r == 0 && parents)
		r = format->parent(opened, &parent, err);
	vd_parent_clear(&parent);
	vd_image_close(opened);
	vd_cache_free(cache);
	return r;
}

/* Each read that a probe needs fails once: that decides, not what the others would say. */
static void check_probe_faults(const struct image *image)
{
	struct vd_error err = { "" };

	for (unsigned number = 1;; number++) {
		struct failing_source *failing = failing_source(image, 0, 0);
		const struct vd_format *found = NULL;
		bool met;
		int r;

		failing->number = number;
		r = vd_format_probe(&failing->source, "--format", &found, &err);
		met = failing->reads >= number;
		assert_true(!met || (r == -ETIMEDOUT && !found));
		assert_true(!met || strstr(err.text, "cannot read what it is"));
		vd_source_close(&failing->source);
		if (!met)
			break;
		assert_true(number < 100);
	}
}

static void what_cannot_be_read_is_of_no_format(void **state)
{
	struct image *image = make(sizeof(*image));

	(void)state;
	qcow2_make(image, &(struct qcow2_facts){ .zstd = false });
	check_probe_faults(image);
	vhd_make(image, &(struct vhd_facts){ .uuid = 1 });
	check_probe_faults(image);
	memset(image, 0, sizeof(*image));
	image->count = 5000;
	check_probe_faults(image);
	free(image);
}

/* A guest may have written a footer to the first sector of a fixed disk. */
static void a_footer_that_cannot_be_read_is_not_replaced_by_another(void **state)
{
	struct image *image = make(sizeof(*image));
	struct vd_error err = { "" };

	(void)state;
	vhd_make(image, &(struct vhd_facts){ .uuid = 1, .parent = "secret", .parent_uuid = 2 });
	assert_int_equal(
		open_failing(image, &vd_format_vhd, image->count - 512, image->count, false, &err),
		-ETIMEDOUT);
	assert_non_null(strstr(err.text, "footer at the end"));
	free(image);
}

/* Whether an image is encrypted, or what its parent is, must be known. */
static void a_batmap_or_a_locator_that_cannot_be_read_is_an_error(void **state)
{
	enum { BATMAP_HOST = 2048, LOCATOR_HOST = 2048 };
	struct vhd_facts facts = { .uuid = 1, .parent = "/dir/base.vhd", .parent_uuid = 2 };
	struct image *image = make(sizeof(*image));
	struct vd_error err = { "" };

	(void)state;
	vhd_make(image, &facts);
	assert_int_equal(open_failing(image, &vd_format_vhd, 0, 0, true, &err), 0);
	assert_int_equal(
		open_failing(image, &vd_format_vhd, LOCATOR_HOST, LOCATOR_HOST + 1, false, &err),
		0);
	assert_int_equal(
		open_failing(image, &vd_format_vhd, LOCATOR_HOST, LOCATOR_HOST + 1, true, &err),
		-ETIMEDOUT);
	assert_non_null(strstr(err.text, "names of its parent"));
	facts = (struct vhd_facts){ .uuid = 1, .creator = "tap" };
	vhd_make(image, &facts);
	assert_int_equal(open_failing(image, &vd_format_vhd, 0, 0, false, &err), 0);
	assert_int_equal(
		open_failing(image, &vd_format_vhd, BATMAP_HOST, BATMAP_HOST + 1, false, &err),
		-ETIMEDOUT);
	assert_non_null(strstr(err.text, "batmap"));
	free(image);
}

static int count_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	(void)bitmap;
	++*(unsigned *)data;
	return 0;
}

/* No bitmaps would be an answer: nothing has changed. The directory is the last cluster of the file. */
static void a_bitmap_directory_that_cannot_be_read_is_an_error(void **state)
{
	enum { EXTENSION = 112, BITMAPS = 0x23852875, AUTOCLEAR = 88, CLUSTER = 512 };
	struct image *bytes = make(sizeof(*bytes));
	struct vd_image_options options = { .snapshot = NULL };
	struct failing_source *failing;
	struct vd_error err = { "" };
	struct vd_image *image;
	struct vd_cache *cache;
	unsigned bitmaps = 0;

	(void)state;
	qcow2_make(bytes, &(struct qcow2_facts){ .zstd = false });
	bytes->count = (bytes->count / CLUSTER + 2) * CLUSTER;
	put_be64(bytes->bytes + AUTOCLEAR, 1);
	put_be32(bytes->bytes + EXTENSION, BITMAPS);
	put_be32(bytes->bytes + EXTENSION + 4, 24);
	put_be32(bytes->bytes + EXTENSION + 8, 1);
	put_be64(bytes->bytes + EXTENSION + 16, 24);
	put_be64(bytes->bytes + EXTENSION + 24, bytes->count - CLUSTER);
	failing = failing_source(bytes, 0, 0);
	assert_int_equal(vd_cache_new(1 << 20, &cache), 0);
	assert_int_equal(
		vd_image_open(&failing->source, &vd_format_qcow2, &options, cache, &image, &err),
		0);
	assert_int_equal(vd_format_qcow2.bitmaps(image, count_bitmap, &bitmaps, &err), 0);
	assert_int_equal(bitmaps, 1);
	failing->from = bytes->count - CLUSTER;
	failing->to = bytes->count;
	assert_int_equal(vd_format_qcow2.bitmaps(image, count_bitmap, &bitmaps, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "cannot read the QCOW2 bitmap directory"));
	assert_int_equal(bitmaps, 1);
	vd_image_close(image);
	vd_cache_free(cache);
	free(bytes);
}

static void an_image_that_cannot_be_opened_closes_its_source(void **state)
{
	const char *path = in_folder(*state, "file");
	unsigned files = open_files();
	struct vd_image_options options = { .snapshot = NULL };
	struct vd_error err = { "" };
	struct vd_image *image = NULL;
	struct vd_cache *cache;

	file_write(path, "too short", 9);
	assert_int_equal(vd_cache_new(1 << 20, &cache), 0);
	assert_int_equal(
		vd_image_open(file_source(path), &vd_format_qcow2, &options, cache, &image, &err),
		-EINVAL);
	assert_int_equal(
		vd_image_open(file_source(path), &vd_format_vhd, &options, cache, &image, &err),
		-EINVAL);
	options.snapshot = "1";
	assert_int_equal(
		vd_image_open(file_source(path), &vd_format_raw, &options, cache, &image, &err),
		-EINVAL);
	assert_null(image);
	assert_int_equal(open_files(), files);
	vd_image_close(NULL);
	vd_cache_free(cache);
}

/* What one question at `virt` says of what is not there: up to where. */
static uint64_t absent_end(const struct image *bytes, const struct vd_format *format, uint64_t virt,
			   uint64_t want)
{
	struct vd_image_options options = { .snapshot = NULL };
	struct vd_error err = { "" };
	struct vd_run run[2];
	struct vd_runs runs = { .runs = run, .max = 2 };
	struct vd_image *image;
	struct vd_cache *cache;

	assert_int_equal(vd_cache_new(1 << 20, &cache), 0);
	assert_int_equal(vd_image_open(&failing_source(bytes, 0, 0)->source, format, &options,
				       cache, &image, &err),
			 0);
	assert_int_equal(format->map(image, virt, want, &runs), 0);
	assert_int_equal(runs.count, 1);
	assert_true(run->start <= virt && !run->from);
	vd_image_close(image);
	vd_cache_free(cache);
	return run->start + run->length;
}

/* All reads fail after the opening, and the cache holds nothing: no table may be taken for an empty one. */
static void check_lost_tables(const struct image *bytes, const struct vd_format *format,
			      const char *line)
{
	struct failing_source *failing = failing_source(bytes, 0, 0);
	struct vd_image_options options = { .snapshot = NULL };
	struct vd_error err = { "" };
	struct vd_run run[16];
	struct vd_image *image;
	struct vd_cache *cache;
	unsigned lost = 0;
	uint64_t end;
	char *text;

	assert_int_equal(vd_cache_new(0, &cache), 0);
	assert_int_equal(vd_image_open(&failing->source, format, &options, cache, &image, &err), 0);
	failing->to = UINT64_MAX;
	capture_begin();
	for (uint64_t virt = 0; virt < image->size; virt = end) {
		struct vd_runs runs = { .runs = run, .max = 16 };

		assert_int_equal(format->map(image, virt, image->size - virt, &runs), 0);
		assert_true(runs.count > 0);
		end = run[runs.count - 1].start + run[runs.count - 1].length;
		assert_true(end > virt);
		for (unsigned i = 0; i < runs.count; i++, lost++)
			assert_int_equal(run[i].kind, VD_BAD);
	}
	text = capture_end();
	assert_true(lost > 0);
	assert_int_equal(count_lines(text), lost);
	assert_non_null(strstr(text, line)); /* which tells no value: there is none */
	free(text);
	vd_image_close(image);
	vd_cache_free(cache);
}

static void a_table_that_is_lost_after_the_opening_is_no_hole(void **state)
{
	struct image *image = make(sizeof(*image));

	(void)state;
	vhd_make(image, &(struct vhd_facts){ .uuid = 1 });
	check_lost_tables(image, &vd_format_vhd, "VHD BAT entry 4: the BAT cannot be read");
	qcow2_make(image, &(struct qcow2_facts){ .zstd = false });
	check_lost_tables(image, &vd_format_qcow2,
			  "QCOW2 L1 entry at byte 0x208 of the file: the L1 table cannot be read");
	free(image);
}

/* A read of a sector in a hole of terabytes must not look at the whole hole. */
static void a_hole_is_looked_at_as_far_as_was_asked(void **state)
{
	enum { BAT_HOST = 1536, L1_HOST = 512 };
	struct image *image = make(sizeof(*image));

	(void)state;
	vhd_make(image, &(struct vhd_facts){ .uuid = 1 });
	memset(image->bytes + BAT_HOST, 0xff, 5 * 4);
	assert_int_equal(absent_end(image, &vd_format_vhd, 4096, 1), 2 * 4096);
	assert_int_equal(absent_end(image, &vd_format_vhd, 4096 + 512, 4096 - 512), 2 * 4096);
	assert_int_equal(absent_end(image, &vd_format_vhd, 4096 + 512, 4096), 3 * 4096);
	assert_int_equal(absent_end(image, &vd_format_vhd, 4096, UINT64_C(1) << 62), VHD_SIZE);
	qcow2_make(image, &(struct qcow2_facts){ .zstd = false });
	memset(image->bytes + L1_HOST, 0, 3 * 8);
	assert_int_equal(absent_end(image, &vd_format_qcow2, 512, 1), 32768);
	assert_int_equal(absent_end(image, &vd_format_qcow2, 512, 32768 - 512), 32768);
	assert_int_equal(absent_end(image, &vd_format_qcow2, 512, 32768), 2 * 32768);
	assert_int_equal(absent_end(image, &vd_format_qcow2, 0, UINT64_C(1) << 62), 3 * 32768);
	free(image);
}

static int second_size(const struct vd_snapshot *snapshot, void *data)
{
	uint64_t *size = data;

	if (strcmp(snapshot->id, "2") == 0)
		*size = snapshot->disk_bytes;
	return 0;
}

/* Version 2 has snapshots without a size. Theirs is that of the disk, not of the snapshot in use. */
static void a_snapshot_without_a_size_has_that_of_the_disk(void **state)
{
	enum { SNAPSHOTS_HOST = 2048, FIRST_BYTES = 64, LESS = 512 };
	struct image *bytes = make(sizeof(*bytes));
	struct vd_image_options options = { .snapshot = "1" };
	struct vd_error err = { "" };
	struct vd_image *image;
	struct vd_cache *cache;
	uint64_t size = 0;
	uint8_t *entry;

	(void)state;
	qcow2_make(bytes, &(struct qcow2_facts){ .snapshot = "small" });
	put_be64(bytes->bytes + SNAPSHOTS_HOST + 48, QCOW2_SIZE - LESS);
	put_be32(bytes->bytes + 60, 2);
	entry = bytes->bytes + SNAPSHOTS_HOST + FIRST_BYTES;
	put_be64(entry, 512); /* the same L1 table */
	put_be32(entry + 8, 3);
	put_be16(entry + 12, 1);
	entry[40] = '2';
	assert_int_equal(vd_cache_new(1 << 20, &cache), 0);
	assert_int_equal(vd_image_open(&failing_source(bytes, 0, 0)->source, &vd_format_qcow2,
				       &options, cache, &image, &err),
			 0);
	assert_int_equal(image->size, QCOW2_SIZE - LESS);
	assert_int_equal(vd_format_qcow2.snapshots(image, second_size, &size, &err), 0);
	assert_int_equal(size, QCOW2_SIZE);
	vd_image_close(image);
	vd_cache_free(cache);
	free(bytes);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_remove)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_that_continue_each_other_become_one),
		cmocka_unit_test(coded_units_are_never_joined),
		cmocka_unit_test(without_room_a_run_is_refused_unless_it_continues_the_last),
		cmocka_unit_test(a_parent_has_each_name_once_in_order),
		cmocka_unit_test(a_parent_has_no_more_names_than_there_is_room_for),
		cmocka_unit_test(formats_are_found_by_name),
		IN_FOLDER(images_are_recognised_by_their_magic),
		IN_FOLDER(a_raw_disk_is_never_the_answer),
		IN_FOLDER(a_file_that_looks_like_two_formats_is_refused),
		IN_FOLDER(formats_that_are_not_read_are_named),
		IN_FOLDER(a_vhd_may_begin_like_another_format),
		cmocka_unit_test(what_cannot_be_read_is_of_no_format),
		cmocka_unit_test(a_footer_that_cannot_be_read_is_not_replaced_by_another),
		cmocka_unit_test(a_batmap_or_a_locator_that_cannot_be_read_is_an_error),
		cmocka_unit_test(a_bitmap_directory_that_cannot_be_read_is_an_error),
		cmocka_unit_test(a_hole_is_looked_at_as_far_as_was_asked),
		cmocka_unit_test(a_table_that_is_lost_after_the_opening_is_no_hole),
		cmocka_unit_test(a_snapshot_without_a_size_has_that_of_the_disk),
		IN_FOLDER(an_image_that_cannot_be_opened_closes_its_source),
	};

	return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
