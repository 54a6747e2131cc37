/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The computed QCOW2 file is read from its first byte to its last and decoded by a reader that never
 * looks back, which also counts how often each cluster is used. What it says of the disk is
 * compared with what the disk is known to be. Then the same bytes must come from any place in any
 * order, and its holes must be where the disk's are.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/view.h"

#define PLENTY ((size_t)64 << 20)
#define NOTHING ((size_t)0)

/* A disk, its view, and the whole file. */
struct setup {
	struct vd_disk *disk;
	struct vd_index *index;
	struct vd_view *view;
	struct vd_view_reader *reader;
	struct vd_scratch *scratch;
	uint8_t *file;
	uint64_t size;
};

static void setup_make(struct setup *setup, struct vd_disk *disk, size_t map_memory)
{
	setup->disk = disk;
	assert_int_equal(vd_view_check(disk, NULL), 0);
	assert_int_equal(vd_index_new(disk, map_memory, &setup->index), 0);
	assert_int_equal(vd_index_start(setup->index), 0);
	assert_int_equal(vd_index_wait(setup->index, NULL), 0);
	assert_int_equal(vd_view_new(setup->index, NULL, &setup->view), 0);
	assert_int_equal(vd_view_reader_new(setup->view, &setup->reader), 0);
	assert_int_equal(vd_scratch_new(&setup->scratch), 0);
	setup->size = vd_view_size(setup->view);
	setup->file = make((size_t)setup->size);
	assert_int_equal(vd_view_read(setup->reader, setup->file, (size_t)setup->size, 0,
				      setup->scratch, NULL),
			 0);
}

static void setup_free(struct setup *setup)
{
	free(setup->file);
	vd_scratch_free(setup->scratch);
	vd_view_reader_free(setup->reader);
	vd_view_free(setup->view);
	vd_index_free(setup->index);
	vd_disk_close(setup->disk);
}

static uint64_t field(const uint8_t *at, unsigned bytes)
{
	return bytes == 4 ? get_be32(at) : get_be64(at);
}

/* What a table entry points at, which must be the next cluster that is not used yet; 0: nothing. */
static uint64_t entry_take(const uint8_t *entry, uint64_t *next, uint64_t cluster)
{
	uint64_t value = get_be64(entry);

	if (value == 0)
		return 0;
	assert_true(value >> 63 == 1); /* "copied" */
	value &= ~(UINT64_C(1) << 63);
	assert_true(value == *next);
	*next += cluster;
	return value;
}

/* All that is said in an L2 table: bytes of the disk. Data is counted on from *next. */
static void table_decode(const struct setup *setup, const uint8_t *table, uint64_t virt,
			 uint64_t cluster, uint64_t *next, uint8_t *disk)
{
	for (uint64_t i = 0; i < cluster / 8; i++, virt += cluster) {
		uint64_t at = entry_take(table + i * 8, next, cluster);

		if (at == 0)
			continue;
		assert_true(virt < setup->disk->size);
		assert_true(at + cluster <= setup->size);
		memcpy(disk + virt, setup->file + at,
		       (size_t)vd_min(cluster, setup->disk->size - virt));
		for (uint64_t b = setup->disk->size - vd_min(virt, setup->disk->size); b < cluster;
		     b++)
			assert_int_equal(setup->file[at + b], 0);
	}
}

/* Refcounts are 1 up to the end of the file and 0 behind it. */
static void refcounts_check(const struct setup *setup, uint64_t table, uint64_t table_clusters,
			    uint64_t cluster)
{
	uint64_t clusters = setup->size / cluster, number = 0;
	uint64_t block = table + table_clusters * cluster;

	for (uint64_t i = 0; i < table_clusters * cluster / 8; i++) {
		uint64_t at = get_be64(setup->file + table + i * 8);

		if (at == 0)
			continue;
		assert_true(at == block);
		block += cluster;
		for (uint64_t j = 0; j < cluster / 2; j++, number++)
			assert_int_equal(get_be16(setup->file + at + j * 2), number < clusters);
	}
	assert_true(number >= clusters);
}

/* Decode the file, and compare it with the disk. */
static void file_check(const struct setup *setup, unsigned cluster_bits)
{
	const uint8_t *file = setup->file;
	uint64_t cluster = UINT64_C(1) << cluster_bits, reach = cluster * cluster / 8;
	uint64_t l1 = field(file + 40, 8), entries = field(file + 36, 4), next, data;
	uint64_t size = setup->disk->size;
	uint8_t *disk = calloc(1, (size_t)size), *wanted = make((size_t)size);

	assert_non_null(disk);
	assert_memory_equal(file, "QFI\xfb\0\0\0\3", 8);
	assert_int_equal(field(file + 20, 4), cluster_bits);
	assert_true(field(file + 24, 8) == vd_div_up(size, 512) * 512);
	assert_int_equal(field(file + 96, 4), 4);
	assert_true(setup->size % cluster == 0);
	refcounts_check(setup, field(file + 48, 8), field(file + 56, 4), cluster);
	next = l1 + vd_div_up(entries * 8, cluster) * cluster;
	data = next;
	for (uint64_t i = 0; i < entries; i++)
		entry_take(file + l1 + i * 8, &data, cluster); /* tables, then data */
	for (uint64_t i = 0; i < entries; i++) {
		uint64_t table = entry_take(file + l1 + i * 8, &next, cluster);

		if (table)
			table_decode(setup, file + table, i * reach, cluster, &data, disk);
	}
	assert_true(data == setup->size);
	assert_int_equal(vd_disk_read(setup->disk, wanted, (size_t)size, 0, setup->scratch), 0);
	assert_memory_equal(disk, wanted, (size_t)size);
	free(disk);
	free(wanted);
}

/* Any piece of the file, by itself, is what it is in the whole. */
static void pieces_check(const struct setup *setup, struct dice *dice, unsigned rounds)
{
	uint8_t *buffer = make(5000);

	for (unsigned i = 0; i < rounds; i++) {
		uint64_t at = dice_roll(dice, setup->size), virt;
		size_t bytes = (size_t)vd_min(1 + dice_roll(dice, 5000), setup->size - at);

		if (i % 4 == 0) /* on from where the last one ended */
			at = vd_min(at / 4096 * 4096, setup->size - bytes);
		assert_int_equal(
			vd_view_read(setup->reader, buffer, bytes, at, setup->scratch, NULL), 0);
		assert_memory_equal(buffer, setup->file + at, bytes);
		if (!vd_view_find(setup->reader, at, bytes, &virt, NULL))
			continue;
		assert_int_equal(vd_disk_read(setup->disk, buffer, bytes, virt, setup->scratch), 0);
		assert_memory_equal(buffer, setup->file + at, bytes);
	}
	free(buffer);
}

/*
 * Walk the holes as cp(1) does. They are zeros, there are as many bytes of data as the block count
 * says, and an answer from within is the same.
 */
static void holes_check(const struct setup *setup, struct dice *dice)
{
	uint64_t at = 0, data, hole = 0, found, sum = 0;
	int r;

	while ((r = vd_view_seek(setup->reader, at, true, &data, NULL)) == 0) {
		for (uint64_t i = hole; i < data; i++)
			assert_int_equal(setup->file[i], 0);
		assert_int_equal(vd_view_seek(setup->reader, data, false, &hole, NULL), 0);
		assert_true(hole > data && hole <= setup->size);
		sum += hole - data;
		found = data + dice_roll(dice, hole - data);
		assert_int_equal(vd_view_seek(setup->reader, found, false, &found, NULL), 0);
		assert_true(found == hole);
		if (hole == setup->size)
			break;
		at = hole;
	}
	if (hole < setup->size)
		assert_int_equal(r, -ENXIO);
	for (uint64_t i = hole; i < setup->size; i++)
		assert_int_equal(setup->file[i], 0);
	found = vd_div_up(sum, 512);
	if (sum < setup->size)
		found = vd_min(found, setup->size / 512 - 1);
	assert_true(vd_view_blocks(setup->view) == found);
}

static void check(struct vd_disk *disk, size_t map_memory, unsigned cluster_bits)
{
	struct dice dice = { disk->size + cluster_bits };
	struct setup setup;

	setup_make(&setup, disk, map_memory);
	file_check(&setup, cluster_bits);
	pieces_check(&setup, &dice, 300);
	holes_check(&setup, &dice);
	setup_free(&setup);
}

static struct vd_disk *grid_disk(uint64_t size, unsigned data_of_8, unsigned cluster_bits)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = data_of_8,
		.scattered = true,
		.seed = size,
	};
	struct vd_image *image = fake_grid_image(size, &grid, cluster_bits);

	return fake_disk_new(&image, 1, cluster_bits);
}

static void disks_of_all_shapes_are_in_their_files(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 60; seed++) {
		struct dice dice = { seed };

		struct vd_disk *disk = fake_disk_random(false, &dice);

		check(disk, seed % 2 ? PLENTY : NOTHING,
		      (unsigned)vd_min(vd_max(disk->cluster_bits, 9), 21));
	}
}

static void grains_of_all_sizes_are_in_their_files(void **state)
{
	(void)state;
	for (unsigned bits = 9; bits <= 21; bits += 3) {
		for (unsigned data = 0; data <= 8; data += 2)
			check(grid_disk(3000000 + bits, data, bits), PLENTY, bits);
	}
}

static void a_map_that_does_not_fit_is_walked(void **state)
{
	(void)state;
	check(grid_disk(2000000, 4, 9), NOTHING, 9);
	check(grid_disk(2000000, 1, 12), NOTHING, 12);
}

static void more_pairs_than_marks_are_found(void **state)
{
	(void)state;
	check(grid_disk(64 << 20, 3, 9), PLENTY, 9);
}

static void disks_without_data_or_size_have_files(void **state)
{
	(void)state;
	check(grid_disk(1 << 20, 0, 16), PLENTY, 16);
	check(grid_disk(1, 8, 16), PLENTY, 16);
	check(grid_disk(513, 8, 9), PLENTY, 9);
}

/* QEMU takes L1 tables of 32 MiB: what needs more gets larger clusters, or is refused. */
static void disks_too_large_for_their_clusters_get_larger_ones(void **state)
{
	struct setup setup;
	struct vd_error err = { "" };
	struct vd_image *image;
	struct vd_disk *disk;
	struct dice dice = { 5 };

	(void)state;
	image = fake_image_new(UINT64_C(1) << 45, FAKE_GENEROUS, &dice);
	fake_span_add(image, UINT64_C(1) << 45, VD_ZERO, NULL, 0);
	setup_make(&setup, fake_disk_new(&image, 1, 9), PLENTY);
	assert_int_equal(field(setup.file + 20, 4), 14);
	assert_true(field(setup.file + 36, 4) <= 4194304);
	setup_free(&setup);
	image = fake_image_new(INT64_MAX, FAKE_GENEROUS, &dice);
	fake_span_add(image, INT64_MAX, VD_ZERO, NULL, 0);
	disk = fake_disk_new(&image, 1, 16);
	assert_int_equal(vd_view_check(disk, &err), -EFBIG);
	assert_non_null(strstr(err.text, "--qcow2"));
	vd_disk_close(disk);
}

static struct vd_disk *endless_disk(uint64_t size, uint64_t bad_bytes, unsigned cluster_bits)
{
	struct dice dice = { 9 };
	struct vd_image *image = fake_image_new(size, FAKE_GENEROUS, &dice);

	if (bad_bytes)
		fake_span_add(image, bad_bytes, VD_BAD, NULL, 0);
	fake_span_add(image, size - bad_bytes, VD_ZERO, NULL, 0);
	return fake_disk_new(&image, 1, cluster_bits);
}

/* How long the file of a disk is of which so much is data; 0: it would be too long. */
static uint64_t endless_size(uint64_t data_bytes)
{
	struct vd_disk *disk = endless_disk(UINT64_C(1) << 57, data_bytes, 21);
	struct vd_index *index;
	struct vd_view *view;
	uint64_t size = 0;
	int r;

	assert_int_equal(vd_index_new(disk, PLENTY, &index), 0);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	r = vd_view_new(index, NULL, &view);
	if (r == 0) {
		size = vd_view_size(view);
		vd_view_free(view);
	} else {
		assert_int_equal(r, -EFBIG);
	}
	vd_index_free(index);
	vd_disk_close(disk);
	return size;
}

/* Offsets have 56 bits: the longest file ends there, and one cluster more is refused. */
static void no_entry_points_past_its_bits(void **state)
{
	const uint64_t cluster = 1 << 21, most = UINT64_C(1) << 56;
	uint64_t low = 1, high = most / cluster; /* clusters that fit, that do not */

	(void)state;
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (endless_size(middle * cluster))
			low = middle;
		else
			high = middle;
	}
	assert_true(endless_size(low * cluster) == most);
	assert_true(endless_size(high * cluster) == 0);
}

static void an_exbibyte_is_the_largest_disk(void **state)
{
	struct vd_disk *disk;

	(void)state;
	disk = endless_disk(UINT64_C(1) << 60, 0, 9);
	assert_int_equal(vd_view_check(disk, NULL), 0);
	vd_disk_close(disk);
	disk = endless_disk((UINT64_C(1) << 60) + 1, 0, 9);
	assert_int_equal(vd_view_check(disk, NULL), -EFBIG);
	vd_disk_close(disk);
}

/* What cannot be read is data, and reading it is an error: never zeros. */
static void unreadable_parts_are_errors(void **state)
{
	struct dice dice = { 6 };
	struct vd_image *image = fake_image_new(4 * 65536, FAKE_GENEROUS, &dice);
	struct setup setup = { 0 };
	uint8_t byte;
	uint64_t data;

	(void)state;
	fake_span_add(image, 65536, VD_ZERO, NULL, 0);
	fake_span_add(image, 65536, VD_BAD, NULL, 0);
	fake_span_add(image, 2 * 65536, VD_ZERO, NULL, 0);
	setup.disk = fake_disk_new(&image, 1, 16);
	assert_int_equal(vd_index_new(setup.disk, PLENTY, &setup.index), 0);
	assert_int_equal(vd_index_start(setup.index), 0);
	assert_int_equal(vd_index_wait(setup.index, NULL), 0);
	assert_int_equal(vd_view_new(setup.index, NULL, &setup.view), 0);
	assert_int_equal(vd_view_reader_new(setup.view, &setup.reader), 0);
	assert_int_equal(vd_scratch_new(&setup.scratch), 0);
	data = vd_view_size(setup.view) - 65536;
	assert_int_equal(vd_view_read(setup.reader, &byte, 1, data - 1, setup.scratch, NULL), 0);
	assert_int_equal(vd_view_read(setup.reader, &byte, 1, data, setup.scratch, NULL), -EIO);
	setup_free(&setup);
}

/* Reads at the beginning, in the middle and anywhere, in all moods but the first. Of which -EIO. */
static unsigned moody_reads(const struct setup *setup, struct fake_source *source, unsigned moods,
			    unsigned *good)
{
	struct dice dice = { moods };
	struct vd_view_reader *reader = setup->reader;
	uint8_t *buffer = make(9000);
	unsigned bad = 0;

	for (unsigned i = 0; i < moods * 40; i++) {
		size_t bytes = i % 8 ? (size_t)(1 + dice_roll(&dice, 9000)) : 104;
		uint64_t at = i % 8 ? dice_roll(&dice, setup->size - bytes) : 0, virt = 0;
		bool is_found;
		int r;

		if (i % 40 == 0)
			atomic_store(&source->mood, 2 + i / 40);
		r = vd_view_read(reader, buffer, bytes, at, setup->scratch, NULL);
		if (r == 0)
			assert_memory_equal(buffer, setup->file + at, bytes);
		else
			assert_int_equal(r, -EIO);
		bad += r < 0;
		*good += r == 0;
		is_found = vd_view_find(reader, at, bytes, &virt, NULL);
		if (is_found && vd_disk_read(setup->disk, buffer, bytes, virt, setup->scratch) == 0)
			assert_memory_equal(buffer, setup->file + at, bytes);
		r = vd_view_seek(reader, at, i & 1, &virt, NULL);
		assert_true(r == 0 || r == -EIO || r == -ENXIO);
		if (r == 0 && !(i & 1) && virt < setup->size)
			assert_int_equal(setup->file[virt], 0);
	}
	free(buffer);
	return bad;
}

/* Holes come and go with the page cache: then there are errors, but never another byte. */
static void a_walk_that_differs_gives_no_wrong_bytes(void **state)
{
	const uint64_t size = 3 << 20;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct dice dice = { 7 + i };
		struct vd_image *image = fake_image_new(size, FAKE_GENEROUS, &dice);
		struct fake_source *source = (struct fake_source *)(uintptr_t)image->data;
		struct setup setup;
		unsigned good = 0, bad;

		source->hole_bits = 9 + i % 2;
		source->mood = i / 2;
		fake_span_add(image, size, VD_RAW, image->data, 1024);
		setup_make(&setup, fake_disk_new(&image, 1, 9), NOTHING);
		bad = moody_reads(&setup, source, 20, &good);
		assert_true(bad > 100);
		assert_true(good >= 20 * 40 / 8); /* the reads of the header, one of eight */
		atomic_store(&source->mood, i / 2);
		pieces_check(&setup, &dice, 300);
		setup_free(&setup);
	}
}

static void a_map_that_is_stored_does_not_differ(void **state)
{
	const uint64_t size = 1 << 20;
	struct dice dice = { 17 };
	struct vd_image *image = fake_image_new(size, FAKE_GENEROUS, &dice);
	struct fake_source *source = (struct fake_source *)(uintptr_t)image->data;
	struct setup setup;
	unsigned good = 0;

	(void)state;
	source->hole_bits = 9;
	fake_span_add(image, size, VD_RAW, image->data, 1024);
	setup_make(&setup, fake_disk_new(&image, 1, 9), PLENTY);
	assert_int_equal(moody_reads(&setup, source, 10, &good), 0);
	setup_free(&setup);
}

static bool always(void *context)
{
	(void)context;
	return true;
}

static void who_is_interrupted_gets_nothing(void **state)
{
	struct vd_interrupt interrupt = { .interrupted = always };
	struct dice dice = { 1 };
	struct setup setup;
	struct vd_view *view;
	uint64_t virt;
	uint8_t byte;

	(void)state;
	setup_make(&setup, grid_disk(4 << 20, 4, 9), PLENTY);
	assert_int_equal(vd_view_new(setup.index, &interrupt, &view), -EINTR);
	file_check(&setup, 9);
	for (uint64_t at = setup.size / 2; at < setup.size * 3 / 4; at += setup.size / 64) {
		assert_int_equal(
			vd_view_read(setup.reader, &byte, 1, at - 1, setup.scratch, &interrupt),
			-EINTR);
		assert_false(vd_view_find(setup.reader, at - 1, 1, &virt, &interrupt));
	}
	pieces_check(&setup, &dice, 100);
	setup_free(&setup);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(disks_of_all_shapes_are_in_their_files),
		cmocka_unit_test(grains_of_all_sizes_are_in_their_files),
		cmocka_unit_test(a_map_that_does_not_fit_is_walked),
		cmocka_unit_test(more_pairs_than_marks_are_found),
		cmocka_unit_test(disks_without_data_or_size_have_files),
		cmocka_unit_test(disks_too_large_for_their_clusters_get_larger_ones),
		cmocka_unit_test(no_entry_points_past_its_bits),
		cmocka_unit_test(an_exbibyte_is_the_largest_disk),
		cmocka_unit_test(unreadable_parts_are_errors),
		cmocka_unit_test(a_walk_that_differs_gives_no_wrong_bytes),
		cmocka_unit_test(a_map_that_is_stored_does_not_differ),
		cmocka_unit_test(who_is_interrupted_gets_nothing),
	};

	return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
