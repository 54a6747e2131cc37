/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The JSON is made piece by piece and may be read from any place; here it is compared with a text
 * that is built in one go from the known data. The attribute must fit, be valid, and leave no data
 * out.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/info.h"
#include "map/json.h"

#define PLENTY ((size_t)64 << 20)
#define ONE_CHUNK ((size_t)100000)

/* The text in one piece. bits: of the grain. Caller frees. */
static char *whole_text(const struct fake_pieces *pieces, unsigned bits, bool is_exact)
{
	size_t clusters = (size_t)vd_div_up(pieces->size, UINT64_C(1) << bits);
	bool *used = calloc(clusters + 2, sizeof(*used));
	char *text = make(200 + clusters * 45), *at = text;
	bool is_first = true;

	assert_non_null(used);
	for (size_t i = 0; i < pieces->count; i++) {
		const struct vd_piece *piece = &pieces->pieces[i];

		for (uint64_t c = piece->start >> bits; piece->is_data && c << bits < piece->end;
		     c++)
			used[c] = true;
	}
	at += sprintf(at, "{\"virtual_size\":%" PRIu64 ",\"cluster_bits\":%u,\"data_clusters\":[",
		      pieces->size, bits);
	for (size_t c = 0; c < clusters; c++) {
		size_t first = c;

		if (!used[c])
			continue;
		while (used[c + 1])
			c++;
		at += sprintf(at, "%s[%zu,%zu]", is_first ? "" : ",", first, c);
		is_first = false;
	}
	strcpy(at, is_exact ? "]}" : "],\"exact\":false}");
	free(used);
	return text;
}

/* The text with the clusters named that hold a byte which cannot be read. Caller frees. */
static char *unreadable_text(const char *text, const struct vd_disk *disk)
{
	struct fake_truth truth = fake_truth(disk);
	size_t clusters = (size_t)vd_div_up(disk->size, UINT64_C(1) << disk->cluster_bits);
	bool *bad = calloc(clusters + 2, sizeof(*bad)), any = false;
	char *whole = make(strlen(text) + 100 + clusters * 45), *at;

	assert_non_null(bad);
	for (uint64_t byte = 0; byte < disk->size; byte++) {
		if (truth.classes[byte] == FAKE_UNREADABLE)
			bad[byte >> disk->cluster_bits] = true;
	}
	at = stpcpy(whole, text) - 1; /* without the last brace */
	for (size_t c = 0; c < clusters; c++) {
		size_t first = c;

		if (!bad[c])
			continue;
		while (bad[c + 1])
			c++;
		at += sprintf(at, "%s[%zu,%zu]", any ? "," : ",\"unreadable\":[", first, c);
		any = true;
	}
	strcpy(at, any ? "]}" : "}");
	fake_truth_free(&truth);
	free(bad);
	return whole;
}

static struct vd_index *index_of(const struct vd_disk *disk, size_t memory, bool start)
{
	struct vd_index *index;

	assert_int_equal(vd_index_new(disk, memory, &index), 0);
	if (start) {
		assert_int_equal(vd_index_start(index), 0);
		assert_int_equal(vd_index_wait(index, NULL), 0);
	}
	return index;
}

static struct vd_disk *grid_disk(uint64_t size, unsigned data_of_8, bool scattered,
				 unsigned cluster_bits)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = data_of_8,
		.scattered = scattered,
		.seed = 3,
	};
	struct vd_image *image = fake_grid_image(size, &grid, cluster_bits);

	return fake_disk_new(&image, 1, cluster_bits);
}

static struct vd_json_reader *reader_of(struct vd_index *index, unsigned bits)
{
	struct vd_json_reader *reader;

	assert_int_equal(vd_json_reader_new(index, bits, &reader), 0);
	return reader;
}

/* Read from the beginning in chunks of that size; all must be as in the text. */
static void check_in_order(struct vd_index *index, const char *text, size_t chunk)
{
	struct vd_json_reader *reader = reader_of(index, vd_index_disk(index)->cluster_bits);
	size_t length = strlen(text), at = 0;
	char *buffer = make(chunk);
	ssize_t got;

	while ((got = vd_json_read(reader, buffer, chunk, at, NULL)) > 0) {
		assert_int_equal(got, vd_min(chunk, length - at));
		assert_memory_equal(buffer, text + at, (size_t)got);
		at += (size_t)got;
	}
	assert_int_equal(got, 0);
	assert_int_equal(at, length);
	free(buffer);
	vd_json_reader_free(reader);
}

static void check_anywhere(struct vd_index *index, const char *text, unsigned count,
			   struct dice *dice)
{
	struct vd_json_reader *reader = reader_of(index, vd_index_disk(index)->cluster_bits);
	size_t length = strlen(text);
	char buffer[700];

	for (unsigned i = 0; i < count; i++) {
		size_t at = (size_t)dice_roll(dice, length + 10);
		size_t bytes = (size_t)dice_roll(dice, sizeof(buffer) + 1);
		size_t left = at < length ? length - at : 0;
		ssize_t got = vd_json_read(reader, buffer, bytes, at, NULL);

		assert_int_equal(got, vd_min(bytes, left));
		assert_memory_equal(buffer, text + (at < length ? at : 0), (size_t)got);
	}
	vd_json_reader_free(reader);
}

static void small_disks_give_the_text_in_any_state(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (int round = 0; round < 40; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_pieces pieces = fake_pieces(disk);
		char *part = whole_text(&pieces, disk->cluster_bits, true);
		char *text = unreadable_text(part, disk);
		struct vd_index *lazy = index_of(disk, PLENTY, false);
		struct vd_index *complete = index_of(disk, round & 1 ? PLENTY : 0, true);
		struct vd_index_totals totals;

		vd_index_totals(complete, &totals);
		assert_true(totals.json_bytes == strlen(text));
		check_in_order(lazy, part, 1 + (size_t)dice_roll(&dice, 300));
		check_in_order(complete, text, 1);
		check_in_order(complete, text, 100000);
		check_anywhere(complete, text, 30, &dice);
		vd_index_free(lazy);
		vd_index_free(complete);
		free(part);
		free(text);
		fake_pieces_free(&pieces);
		vd_disk_close(disk);
	}
}

static void a_long_text_is_the_same_from_everywhere(void **state)
{
	static const size_t memories[] = { 0, ONE_CHUNK, PLENTY };
	struct vd_disk *disk = grid_disk(180000 * 512 + 1, 4, false, 9);
	struct fake_pieces pieces = fake_grid_pieces(disk);
	char *text = whole_text(&pieces, 9, true);
	struct dice dice = { 2 };

	(void)state;
	assert_true(strlen(text) > 500000);
	for (size_t i = 0; i < ARRAY_LENGTH(memories); i++) {
		struct vd_index *index = index_of(disk, memories[i], true);
		struct vd_index_totals totals;

		vd_index_totals(index, &totals);
		assert_true(totals.json_bytes == strlen(text));
		check_in_order(index, text, 4096);
		check_in_order(index, text, 131072);
		check_anywhere(index, text, 300, &dice);
		vd_index_free(index);
	}
	free(text);
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
}

/* The kernel reads ahead: it asks for a piece, then for one before or a little behind it. */
static void reading_back_and_forth_gives_the_same_text(void **state)
{
	struct vd_disk *disk = grid_disk(60000 * 512, 4, false, 9);
	struct fake_pieces pieces = fake_grid_pieces(disk);
	char *text = whole_text(&pieces, 9, true), buffer[4096];
	struct vd_index *index = index_of(disk, PLENTY, true);
	struct vd_json_reader *reader = reader_of(index, 9);
	size_t length = strlen(text);

	(void)state;
	for (size_t at = 0; at + 12288 < length; at += 4096) {
		static const size_t order[] = { 4096, 0, 8192, 4097, 4095 };

		for (size_t i = 0; i < ARRAY_LENGTH(order); i++) {
			assert_int_equal(vd_json_read(reader, buffer, 4096, at + order[i], NULL),
					 vd_min(4096, length - at - order[i]));
			assert_memory_equal(buffer, text + at + order[i],
					    vd_min(4096, length - at - order[i]));
		}
	}
	vd_json_reader_free(reader);
	vd_index_free(index);
	free(text);
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
}

static void disks_without_holes_or_data_have_their_text(void **state)
{
	static const struct {
		uint64_t size;
		unsigned data_of_8;
		const char *text;
	} cases[] = {
		{ 0, 8, "{\"virtual_size\":0,\"cluster_bits\":16,\"data_clusters\":[]}" },
		{ 1, 8, "{\"virtual_size\":1,\"cluster_bits\":16,\"data_clusters\":[[0,0]]}" },
		{ 1, 0, "{\"virtual_size\":1,\"cluster_bits\":16,\"data_clusters\":[]}" },
		{ 65536, 8,
		  "{\"virtual_size\":65536,\"cluster_bits\":16,\"data_clusters\":[[0,0]]}" },
		{ 65537, 8,
		  "{\"virtual_size\":65537,\"cluster_bits\":16,\"data_clusters\":[[0,1]]}" },
		{ 999999, 0, "{\"virtual_size\":999999,\"cluster_bits\":16,\"data_clusters\":[]}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct vd_disk *disk = grid_disk(cases[i].size, cases[i].data_of_8, false, 16);
		struct vd_index *index = index_of(disk, PLENTY, true);
		size_t length = 0;
		char *text;

		check_in_order(index, cases[i].text, 1000);
		assert_int_equal(vd_json_attribute(index, &text, &length, NULL), 0);
		assert_int_equal(length, strlen(cases[i].text));
		assert_memory_equal(text, cases[i].text, length);
		free(text);
		vd_index_free(index);
		vd_disk_close(disk);
	}
}

static void a_reader_counts_what_it_found_unreadable(void **state)
{
	struct dice dice = { 4 };
	struct vd_image *image = fake_image_new(3000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_index *index = index_of(disk, PLENTY, false);
	struct vd_json_reader *reader = reader_of(index, 9);
	char buffer[1000];

	(void)state;
	fake_span_add(image, 1000, VD_ZERO, NULL, 0);
	fake_span_add(image, 5000, VD_BAD, NULL, 0);
	assert_true(vd_json_bad_bytes(reader) == 0);
	assert_true(vd_json_read(reader, buffer, sizeof(buffer), 0, NULL) > 0);
	assert_true(vd_json_bad_bytes(reader) == 2000);
	vd_json_reader_free(reader);
	vd_json_reader_free(NULL);
	vd_index_free(index);
	vd_disk_close(disk);
}

/* Interrupts every so many times it is asked. */
struct moods {
	unsigned every, asked;
};

static bool moods_change(void *context)
{
	struct moods *moods = context;

	return ++moods->asked % moods->every == 0;
}

static void an_interrupted_read_may_be_tried_again(void **state)
{
	struct vd_disk *disk = grid_disk(100000 * 512, 8, true, 12);
	struct fake_pieces pieces = fake_grid_pieces(disk);
	char *text = whole_text(&pieces, 12, true), buffer[300];
	struct moods moods = { .every = 2 };
	struct vd_interrupt interrupt = { moods_change, &moods };
	struct vd_index *index = index_of(disk, PLENTY, false);
	struct vd_json_reader *reader = reader_of(index, 12);
	unsigned interruptions = 0;
	ssize_t got;

	(void)state;
	while ((got = vd_json_read(reader, buffer, sizeof(buffer), 0, &interrupt)) == -EINTR)
		interruptions++;
	assert_true(interruptions >= 10);
	assert_int_equal(got, strlen(text));
	assert_memory_equal(buffer, text, (size_t)got);
	vd_json_reader_free(reader);
	vd_index_free(index);
	free(text);
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
}

static void making_the_attribute_can_be_interrupted(void **state)
{
	struct vd_disk *disk = grid_disk(100000 * 512, 8, true, 12);
	struct moods moods = { .every = 1 };
	struct vd_interrupt interrupt = { moods_change, &moods };
	struct vd_index *index = index_of(disk, 0, false);
	size_t length;
	char *text;

	(void)state;
	assert_int_equal(vd_json_attribute(index, &text, &length, &interrupt), -EINTR);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	assert_int_equal(vd_json_attribute(index, &text, &length, &interrupt), -EINTR);
	moods.every = UINT32_MAX;
	assert_int_equal(vd_json_attribute(index, &text, &length, &interrupt), 0);
	free(text);
	vd_index_free(index);
	vd_disk_close(disk);
}

/* What a coarse text must be: valid, ascending, and naming all clusters that hold data. */
static void check_coarse(const char *text, size_t length, const struct fake_pieces *pieces)
{
	json_error_t error;
	json_t *map = json_loadb(text, length, 0, &error), *pair;
	json_int_t bits = json_integer_value(json_object_get(map, "cluster_bits")), last = -2;
	bool *listed = calloc((size_t)(pieces->size >> bits) + 1, sizeof(*listed));
	size_t i;

	assert_non_null(map);
	assert_non_null(listed);
	assert_int_equal(json_integer_value(json_object_get(map, "virtual_size")), pieces->size);
	assert_true(json_is_false(json_object_get(map, "exact")));
	json_array_foreach(json_object_get(map, "data_clusters"), i, pair)
	{
		json_int_t first = json_integer_value(json_array_get(pair, 0));

		assert_true(first > last + 1);
		last = json_integer_value(json_array_get(pair, 1));
		assert_true(first <= last && (uint64_t)last <= (pieces->size - 1) >> bits);
		for (json_int_t c = first; c <= last; c++)
			listed[c] = true;
	}
	for (i = 0; i < pieces->count; i++) {
		const struct vd_piece *piece = &pieces->pieces[i];

		for (uint64_t c = piece->start >> bits; piece->is_data && c << bits < piece->end;
		     c++)
			assert_true(listed[c]);
	}
	free(listed);
	json_decref(map);
}

static void an_attribute_that_is_too_long_is_made_coarser(void **state)
{
	static const size_t memories[] = { 0, PLENTY };
	static const uint64_t sizes[] = { 40000 * 512, 60000 * 512 + 1, 120000 * 512 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
		struct vd_disk *disk = grid_disk(sizes[i], 2 + (unsigned)i, false, 9);
		struct fake_pieces pieces = fake_grid_pieces(disk);
		struct vd_index *index = index_of(disk, memories[i % 2], true);
		char *text, *expected;
		size_t length;

		assert_int_equal(vd_json_attribute(index, &text, &length, NULL), 0);
		assert_true(length <= VD_ATTRIBUTE_MAX);
		expected = whole_text(&pieces, 9, true);
		assert_true(strlen(expected) > VD_ATTRIBUTE_MAX);
		assert_true(length > VD_ATTRIBUTE_MAX - 32); /* one pair more would not fit */
		check_coarse(text, length, &pieces);
		free(expected);
		free(text);
		vd_index_free(index);
		fake_pieces_free(&pieces);
		vd_disk_close(disk);
	}
}

/* So many clusters of data, one of three, on a disk of 10^digits bytes. */
/* What is read of the text, in as many moods of the source. How often it cannot be had. */
static unsigned moody_reads(struct vd_index *index, struct fake_source *source, const char *text,
			    unsigned moods)
{
	struct dice dice = { moods };
	struct vd_json_reader *reader = reader_of(index, 9);
	uint64_t length = strlen(text);
	char buffer[3000];
	unsigned bad = 0;

	for (unsigned i = 0; i < moods * 30; i++) {
		uint64_t at = dice_roll(&dice, length);
		ssize_t got;

		if (i % 30 == 0)
			atomic_store(&source->mood, 2 + i / 30);
		got = vd_json_read(reader, buffer, sizeof(buffer), at, NULL);
		if (got < 0) {
			assert_int_equal(got, -EIO);
			bad++;
			continue;
		}
		assert_int_equal(got, vd_min(sizeof(buffer), length - at));
		assert_memory_equal(buffer, text + at, (size_t)got);
	}
	vd_json_reader_free(reader);
	return bad;
}

static void a_walk_that_differs_gives_no_other_text(void **state)
{
	const uint64_t size = 16 << 20;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct dice dice = { 70 + i };
		struct vd_image *image = fake_image_new(size, FAKE_GENEROUS, &dice);
		struct fake_source *source = (struct fake_source *)(uintptr_t)image->data;
		struct vd_disk *disk;
		struct vd_index *index;
		struct vd_index_totals totals;
		struct vd_json_reader *reader;
		char *text;

		source->hole_bits = 9;
		source->mood = i == 1;
		fake_span_add(image, size, VD_RAW, image->data, 1024);
		disk = fake_disk_new(&image, 1, 9);
		index = index_of(disk, i == 2 ? 64 << 20 : 0, true);
		vd_index_totals(index, &totals);
		text = calloc(1, totals.json_bytes + 2);
		assert_non_null(text);
		reader = reader_of(index, 9);
		assert_int_equal(vd_json_read(reader, text, totals.json_bytes + 1, 0, NULL),
				 totals.json_bytes);
		if (i == 2)
			assert_int_equal(moody_reads(index, source, text, 20), 0);
		else
			assert_true(moody_reads(index, source, text, 20) > 100);
		atomic_store(&source->mood, i == 1);
		check_in_order(index, text, 4000);
		check_anywhere(index, text, 100, &dice);
		free(text);
		vd_json_reader_free(reader);
		vd_index_free(index);
		vd_disk_close(disk);
	}
}

static struct vd_disk *striped_disk(unsigned digits, unsigned pairs, struct dice *dice)
{
	struct vd_image *image = fake_image_new(10000000, FAKE_GENEROUS, dice);
	uint64_t size = 1;

	while (digits-- > 0)
		size *= 10;
	for (unsigned i = 0; i < pairs; i++) {
		fake_span_add(image, 512, VD_RAW, image->source, i);
		fake_span_add(image, 1024, VD_ZERO, NULL, 0);
	}
	fake_span_add(image, size, VD_ABSENT, NULL, 0);
	image->size = size;
	return fake_disk_new(&image, 1, 9);
}

static size_t exact_length(const struct vd_disk *disk)
{
	struct vd_index *index = index_of(disk, PLENTY, true);
	struct vd_index_totals totals;

	vd_index_totals(index, &totals);
	vd_index_free(index);
	return (size_t)totals.json_bytes;
}

/* The number of digits of the size sets the length to the character. */
static void the_longest_exact_attribute_has_65536_characters(void **state)
{
	struct dice dice = { 5 };
	unsigned pairs = 4000, digits = 8;
	struct vd_disk *disk = striped_disk(digits, pairs, &dice);
	size_t length;

	(void)state;
	/* A pair takes at most 14 characters, and the digits can make up for 10. */
	while ((length = exact_length(disk)) < VD_ATTRIBUTE_MAX - 10) {
		vd_disk_close(disk);
		pairs += 1 + (unsigned)(VD_ATTRIBUTE_MAX - 10 - length) / 20;
		disk = striped_disk(digits, pairs, &dice);
	}
	assert_true(length <= VD_ATTRIBUTE_MAX);
	digits += (unsigned)(VD_ATTRIBUTE_MAX - length);
	vd_disk_close(disk);
	for (unsigned more = 0; more < 2; more++) {
		struct vd_index *index;
		char *text;

		disk = striped_disk(digits + more, pairs, &dice);
		index = index_of(disk, PLENTY, true);
		assert_int_equal(exact_length(disk), VD_ATTRIBUTE_MAX + more);
		assert_int_equal(vd_json_attribute(index, &text, &length, NULL), 0);
		if (more == 0)
			assert_int_equal(length, VD_ATTRIBUTE_MAX);
		else
			assert_true(length < VD_ATTRIBUTE_MAX);
		assert_int_equal(memcmp(text + length - 2, more ? "e}" : "]}", 2), 0);
		free(text);
		vd_index_free(index);
		vd_disk_close(disk);
	}
}

/* The info, and the totals before and after it: a thread may be adding to them meanwhile. */
static void info_between(struct vd_index *index, struct vd_index_totals *totals, char **text,
			 size_t *length)
{
	struct vd_index_totals before;

	for (*text = NULL;;) {
		struct vd_info info = { .disk = vd_index_disk(index), .is_mount = true };

		vd_index_totals(index, &before);
		info.totals = before;
		info.unreadable = before.complete ? vd_index_unreadable(index) : NULL;
		assert_int_equal(vd_info_attribute(&info, text, length), 0);
		vd_index_totals(index, totals);
		if (before.mapped_bytes == totals->mapped_bytes &&
		    before.complete == totals->complete)
			return;
		free(*text);
	}
}

/* The info is valid JSON; its values are checked against the totals. Gives its length. */
static size_t check_info(struct vd_index *index)
{
	const struct vd_disk *disk = vd_index_disk(index);
	struct vd_index_totals totals;
	json_error_t error;
	json_t *info, *vdifs, *map;
	size_t length = 0;
	char *text;

	info_between(index, &totals, &text, &length);
	info = json_loadb(text, length, 0, &error);
	assert_non_null(info);
	assert_null(memchr(text, '\n', length));
	assert_int_equal(json_integer_value(json_object_get(info, "virtual-size")), disk->size);
	assert_string_equal(json_string_value(json_object_get(info, "format")),
			    disk->layers[0]->format->name);
	vdifs = json_object_get(info, "vdifs");
	assert_int_equal(json_integer_value(json_object_get(vdifs, "schema")), VD_INFO_SCHEMA);
	assert_int_equal(json_integer_value(json_object_get(vdifs, "cluster-bits")),
			 disk->cluster_bits);
	assert_int_equal(json_array_size(json_object_get(vdifs, "chain")), disk->count);
	assert_int_equal(json_integer_value(json_object_get(vdifs, "data-bytes")),
			 totals.data_bytes);
	assert_int_equal(json_integer_value(json_object_get(vdifs, "intervals")), totals.intervals);
	assert_int_equal(json_integer_value(json_object_get(vdifs, "unreadable-bytes")),
			 totals.bad_bytes);
	assert_int_equal(json_array_size(json_object_get(vdifs, "unreadable")) > 0,
			 totals.complete && totals.bad_bytes > 0);
	map = json_object_get(vdifs, "map");
	assert_int_equal(json_is_true(json_object_get(map, "complete")), totals.complete);
	assert_int_equal(json_integer_value(json_object_get(map, "mapped-bytes")),
			 totals.mapped_bytes);
	json_decref(info);
	free(text);
	return length;
}

static void the_info_is_as_long_before_as_after_the_walk(void **state)
{
	struct fake_grid grid = { .cell_bits = 9, .data_of_8 = 4, .gate_virt = 50000 * 512 };
	struct vd_image *image;
	struct vd_disk *disk;
	struct vd_index *index;
	struct gate gate;
	size_t length;

	(void)state;
	gate_init(&gate);
	grid.gate = &gate;
	image = fake_grid_image(100000 * 512, &grid, 9);
	image->compression = "zstd";
	disk = fake_disk_new(&image, 1, 9);
	index = index_of(disk, PLENTY, false);
	length = check_info(index);
	assert_int_equal(vd_index_start(index), 0);
	gate_await(&gate);
	assert_int_equal(check_info(index), length);
	gate_open(&gate);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	assert_int_equal(check_info(index), length);
	vd_index_free(index);
	vd_disk_close(disk);
	gate_free(&gate);
}

static void the_info_of_any_disk_is_valid(void **state)
{
	struct dice dice = { 6 };

	(void)state;
	for (int round = 0; round < 30; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct vd_index *lazy = index_of(disk, PLENTY, false);
		struct vd_index *complete = index_of(disk, PLENTY, true);

		assert_int_equal(check_info(lazy), check_info(complete));
		vd_index_free(lazy);
		vd_index_free(complete);
		vd_disk_close(disk);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_disks_give_the_text_in_any_state),
		cmocka_unit_test(a_long_text_is_the_same_from_everywhere),
		cmocka_unit_test(reading_back_and_forth_gives_the_same_text),
		cmocka_unit_test(disks_without_holes_or_data_have_their_text),
		cmocka_unit_test(a_reader_counts_what_it_found_unreadable),
		cmocka_unit_test(an_interrupted_read_may_be_tried_again),
		cmocka_unit_test(making_the_attribute_can_be_interrupted),
		cmocka_unit_test(an_attribute_that_is_too_long_is_made_coarser),
		cmocka_unit_test(a_walk_that_differs_gives_no_other_text),
		cmocka_unit_test(the_longest_exact_attribute_has_65536_characters),
		cmocka_unit_test(the_info_is_as_long_before_as_after_the_walk),
		cmocka_unit_test(the_info_of_any_disk_is_valid),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
