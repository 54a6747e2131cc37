/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The words of qemu-img map for each kind of run, for holes of the file as each format takes them, and
 * which neighbours are one entry. Disks are written down span by span, see fake_image_of(); in sectors.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/entries.h"

static const struct vd_format *original; /* of the images whose format a test has changed */
static enum vd_host_hole host_hole;

static enum vd_host_hole tell_host_hole(const struct vd_image *image)
{
	(void)image;
	return host_hole;
}

/* Zeros with a place are what the end of the file cuts off. */
static int map_cut(const struct vd_image *image, uint64_t virt, uint64_t want, struct vd_runs *runs)
{
	int r = original->map(image, virt, want, runs);

	for (unsigned i = 0; i < runs->count; i++)
		runs->runs[i].cut = runs->runs[i].kind == VD_ZERO && runs->runs[i].from;
	return r;
}

/* "START+LENGTH DEPTH WHAT@PLACE", with - for what is not so: present, zero, data; c: compressed. */
static void print_entry(char *text, size_t room, const struct vd_entry *entry)
{
	size_t used = strlen(text);

	used += (size_t)snprintf(
		text + used, room - used, "%s%" PRIu64 "+%" PRIu64 " %u %c%c%c%s", used ? ", " : "",
		entry->start / VD_SECTOR, entry->length / VD_SECTOR, entry->depth,
		entry->present ? 'p' : '-', entry->zero ? 'z' : '-', entry->data ? 'd' : '-',
		entry->compressed ? "c" : "");
	if (entry->has_offset)
		snprintf(text + used, room - used, "@%" PRIu64, entry->offset / VD_SECTOR);
}

/* Closes the disk. */
static void check_disk(struct vd_disk *disk, const char *expected)
{
	struct vd_entries *entries = make(sizeof(*entries));
	struct vd_entry entry;
	char text[1024] = "";
	uint64_t at = 0;
	int r;

	vd_entries_init(entries, disk);
	while ((r = vd_entries_next(entries, &entry)) > 0) {
		assert_true(entry.start == at && entry.length > 0);
		at += entry.length;
		print_entry(text, sizeof(text), &entry);
	}
	assert_int_equal(r, 0);
	assert_true(at == disk->size);
	assert_int_equal(vd_entries_next(entries, &entry), 0);
	assert_string_equal(text, expected);
	vd_entries_clear(entries);
	free(entries);
	vd_disk_close(disk);
}

/* However the driver cuts its answers. */
static void check(const char *spans, const char *expected)
{
	for (int manner = 0; manner < FAKE_MANNERS; manner++) {
		struct vd_image *image = fake_image_of(spans, (enum fake_manner)manner, 1);

		check_disk(fake_disk_new(&image, 1, 9), expected);
	}
}

static void check_two(const char *top, const char *bottom, const char *expected)
{
	for (int manner = 0; manner < FAKE_MANNERS; manner++) {
		struct vd_image *images[] = {
			fake_image_of(top, (enum fake_manner)manner, 1),
			fake_image_of(bottom, (enum fake_manner)manner, 2),
		};

		check_disk(fake_disk_new(images, 2, 9), expected);
	}
}

static void each_kind_has_its_words(void **state)
{
	(void)state;
	check("A2", "0+2 0 -z-");
	check("Z2", "0+2 0 pz-");
	check("Z2@8", "0+2 0 pz-@8");
	check("R2@8", "0+2 0 p-d@8");
	check("C2@8", "0+2 0 p-dc");
	check("D2@8", "0+2 0 p-dc");
	check("B2", "0+2 0 p-d");
	check("", "");
}

static void what_goes_on_is_one_entry(void **state)
{
	(void)state;
	check("R2@8 R3@10", "0+5 0 p-d@8");
	check("R2@8 R3@11", "0+2 0 p-d@8, 2+3 0 p-d@11");
	check("R2@8 R3@8", "0+2 0 p-d@8, 2+3 0 p-d@8");
	check("C2@8 C2@40 C1@0", "0+5 0 p-dc");
	check("C2@8 B2", "0+2 0 p-dc, 2+2 0 p-d");
	check("C2@8 R2@10", "0+2 0 p-dc, 2+2 0 p-d@10");
	check("Z2@8 Z2@10", "0+4 0 pz-@8");
	check("Z2@8 Z2", "0+2 0 pz-@8, 2+2 0 pz-");
	check("Z2@8 R2@10", "0+2 0 pz-@8, 2+2 0 p-d@10");
	check("Z2 Z2 Z1", "0+5 0 pz-");
	check("Z2 A2", "0+2 0 pz-, 2+2 0 -z-");
	check("R1@0 Z1 R1@2", "0+1 0 p-d@0, 1+1 0 pz-, 2+1 0 p-d@2");
}

static void each_layer_has_its_depth(void **state)
{
	(void)state;
	check_two("A2 R2@0", "R4@8", "0+2 1 p-d@8, 2+2 0 p-d@0");
	check_two("Z2 A2", "R2@0 Z2", "0+2 0 pz-, 2+2 1 pz-");
	check_two("A4", "R1@0 A3", "0+1 1 p-d@0, 1+3 1 -z-");
	check_two("C2@0 A2", "C4@8", "0+2 0 p-dc, 2+2 1 p-dc");
	check_two("A4", "R2@8", "0+2 1 p-d@8, 2+2 0 -z-"); /* a shorter layer */
	check_two("R1@0 A2 R1@3", "R4@0", "0+1 0 p-d@0, 1+2 1 p-d@1, 3+1 0 p-d@3");
}

/* A raw layer over a file of holes and data, every 512 bytes of which are of one kind. */
static struct vd_disk *disk_with_holes(struct vd_format *format, uint64_t sectors)
{
	struct dice dice = { 5 };
	struct vd_image *image = fake_image_new(sectors * VD_SECTOR, FAKE_MIXED, &dice);
	struct fake_source *data = (struct fake_source *)(void *)image->data;

	data->hole_bits = 9;
	fake_span_add(image, sectors * VD_SECTOR, VD_RAW, image->data, 8 * VD_SECTOR);
	*format = *image->format;
	format->host_hole = tell_host_hole;
	image->format = format;
	return fake_disk_new(&image, 1, 9);
}

/* In all three ways, and when the format does not say: then they are data. */
static void holes_of_the_file_are_what_the_format_makes_of_them(void **state)
{
	struct vd_entries *entries = make(sizeof(*entries));

	(void)state;
	for (int way = 0; way <= 3; way++) {
		struct vd_format format;
		struct vd_disk *disk = disk_with_holes(&format, 200);
		const struct vd_source *data = disk->layers[0]->data;
		struct vd_entry entry;
		unsigned count = 0;

		host_hole = way < 3 ? (enum vd_host_hole)way : VD_HOLE_IS_DATA;
		if (way == 3)
			format.host_hole = NULL;
		vd_entries_init(entries, disk);
		for (uint64_t at = 0; vd_entries_next(entries, &entry) > 0; count++) {
			assert_true(entry.start == at && entry.present && entry.has_offset);
			assert_true(entry.offset == at + 8 * VD_SECTOR);
			for (; at < entry.start + entry.length; at += VD_SECTOR) {
				bool is_hole = fake_source_is_hole(data, at + 8 * VD_SECTOR);

				assert_int_equal(entry.zero,
						 is_hole && host_hole != VD_HOLE_IS_DATA);
				assert_int_equal(entry.data,
						 !is_hole || host_hole != VD_HOLE_IS_HOLE);
			}
		}
		assert_true(host_hole == VD_HOLE_IS_DATA ? count == 1 : count > 20);
		vd_disk_close(disk);
	}
	free(entries);
}

/* What the end of the file cuts off is a hole of the file. */
static void what_is_cut_off_is_a_hole_of_the_file(void **state)
{
	static const char *const expected[] = {
		[VD_HOLE_IS_DATA] = "0+4 0 p-d@8, 4+1 0 pz-",
		[VD_HOLE_IS_ZERO_DATA] = "0+2 0 p-d@8, 2+2 0 pzd@10, 4+1 0 pz-",
		[VD_HOLE_IS_HOLE] = "0+2 0 p-d@8, 2+2 0 pz-@10, 4+1 0 pz-",
	};

	(void)state;
	for (int way = 0; way < 3; way++) {
		struct vd_image *image = fake_image_of("R2@8 Z2@10 Z1", FAKE_SINGLE, 1);
		struct vd_format format = *image->format;

		original = image->format;
		host_hole = (enum vd_host_hole)way;
		format.host_hole = tell_host_hole;
		format.map = map_cut;
		image->format = &format;
		check_disk(fake_disk_new(&image, 1, 9), expected[way]);
	}
}

static void want_of_memory_is_told(void **state)
{
	struct vd_image *image = fake_image_of("R2@8 Z2", FAKE_SINGLE, 1);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_entries *entries = make(sizeof(*entries));
	struct vd_entry entry;

	(void)state;
	fake_layer(image)->error = -ENOMEM;
	vd_entries_init(entries, disk);
	assert_int_equal(vd_entries_next(entries, &entry), -ENOMEM);
	vd_entries_clear(entries);
	free(entries);
	vd_disk_close(disk);
}

/* Any disk: in order, without gaps, zeros where it reads as zeros, and no two that could be one. */
static void random_disks_are_told_whole(void **state)
{
	struct vd_entries *entries = make(sizeof(*entries));
	struct dice dice = { 17 };

	(void)state;
	for (int round = 0; round < 100; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_truth truth = fake_truth(disk);
		struct vd_entry entry, before = { 0 };
		uint64_t at = 0;

		vd_entries_init(entries, disk);
		for (; vd_entries_next(entries, &entry) > 0; before = entry) {
			assert_true(entry.start == at && entry.length > 0);
			assert_true(entry.zero || entry.data);
			assert_true(before.length == 0 || before.depth != entry.depth ||
				    before.present != entry.present || before.zero != entry.zero ||
				    before.data != entry.data ||
				    before.compressed != entry.compressed ||
				    before.has_offset != entry.has_offset ||
				    (entry.has_offset &&
				     before.offset + before.length != entry.offset));
			for (; at < entry.start + entry.length; at++) {
				assert_true(!entry.zero || truth.classes[at] == FAKE_HOLE);
				assert_true(entry.zero || entry.has_offset ||
					    truth.classes[at] != FAKE_HOLE);
			}
		}
		assert_true(at == disk->size);
		vd_entries_clear(entries);
		fake_truth_free(&truth);
		vd_disk_close(disk);
	}
	free(entries);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_has_its_words),
		cmocka_unit_test(what_goes_on_is_one_entry),
		cmocka_unit_test(each_layer_has_its_depth),
		cmocka_unit_test(holes_of_the_file_are_what_the_format_makes_of_them),
		cmocka_unit_test(what_is_cut_off_is_a_hole_of_the_file),
		cmocka_unit_test(want_of_memory_is_told),
		cmocka_unit_test(random_disks_are_told_whole),
	};

	return cmocka_run_group_tests_name("entries", tests, NULL, NULL);
}
