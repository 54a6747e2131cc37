/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a diff takes for equal must be so, whatever lies behind it; what it cannot prove it lists, or
 * reads when asked to. Disks are written down span by span, see fake_image_of(); in sectors.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/diff.h"

static struct vd_disk *disk_of(const char *spans, unsigned file, unsigned cluster_bits)
{
	struct vd_image *image = fake_image_of(spans, FAKE_GENEROUS, file);

	return fake_disk_new(&image, 1, cluster_bits);
}

static struct fake_source *source_of(const struct vd_disk *disk)
{
	return (struct fake_source *)(void *)disk->layers[0]->source;
}

/* What a diff told, besides its pieces. */
struct told {
	uint64_t bad_bytes, compared_bytes;
};

/* The pieces that may differ must be these, "3-4 8-9"; closes the disks. */
static struct told check_disks(struct vd_disk *old, struct vd_disk *new, bool compare,
			       const char *expected)
{
	uint64_t at = 0, start = 0, end = 0; /* of what is being collected */
	struct vd_piece piece;
	struct vd_diff *diff;
	struct told told;
	char text[512] = "";
	int r;

	assert_int_equal(vd_diff_new(old, new, compare, 0, &diff), 0);
	do {
		r = vd_diff_next(diff, &piece);
		assert_true(r == 0 || r == 1);
		if (r > 0) {
			assert_true(piece.start == at && piece.end > at && piece.end <= new->size);
			at = piece.end;
		}
		if (r > 0 && piece.is_data && piece.start == end) {
			end = piece.end;
			continue;
		}
		if (end > start && (r == 0 || piece.is_data))
			snprintf(text + strlen(text), sizeof(text) - strlen(text),
				 "%s%" PRIu64 "-%" PRIu64, *text ? " " : "", start / VD_SECTOR,
				 vd_div_up(end, VD_SECTOR));
		if (r > 0 && piece.is_data) {
			start = piece.start;
			end = piece.end;
		}
	} while (r > 0);
	assert_true(at == new->size);
	assert_int_equal(vd_diff_next(diff, &piece), 0);
	assert_string_equal(text, expected);
	told.bad_bytes = vd_diff_bad_bytes(diff);
	told.compared_bytes = vd_diff_compared_bytes(diff);
	vd_diff_free(diff);
	vd_disk_close(old);
	vd_disk_close(new);
	return told;
}

/* Without a look at the data: two disks in the same file. */
static void check(const char *old, const char *new, const char *expected)
{
	struct told told = check_disks(disk_of(old, 1, 9), disk_of(new, 1, 9), false, expected);

	assert_true(told.compared_bytes == 0 && told.bad_bytes == 0);
}

/* With a look: the same bytes, in another file. */
static struct told compare(const char *old, const char *new, unsigned cluster_bits,
			   const char *expected)
{
	struct vd_disk *new_disk = disk_of(new, 1, cluster_bits);

	source_of(new_disk)->source.st.st_ino = 2;
	return check_disks(disk_of(old, 1, 9), new_disk, true, expected);
}

static void zeros_are_equal_however_they_are_told(void **state)
{
	(void)state;
	check("Z4", "Z4", "");
	check("A4", "Z4", "");
	check("Z2@8 A2", "A1 Z3@20", "");
}

static void raw_bytes_are_equal_at_the_same_place_of_the_same_file(void **state)
{
	(void)state;
	check("R4@8", "R4@8", "");
	check("R4@8", "R4@9", "0-4");
	check("R4@9", "R4@8", "0-4");
	check("R4@8", "R1@8 R1@20 R2@10", "1-2");
	check("R1@0 R3@8", "Z1 R3@8", "0-1"); /* the run is longer than what both have */
	check("Z1 R3@8", "Z2 R2@9", "1-2");
	check("Z1 R3@8", "R1@7 R3@8", "0-1");
	check_disks(disk_of("R4@8", 1, 9), disk_of("R4@8", 2, 9), false, "0-4");
}

static void data_and_zeros_may_differ(void **state)
{
	(void)state;
	check("R4@8", "Z4", "0-4");
	check("Z1 R2@8 Z1", "Z4", "1-3");
	check("C4@8", "A4", "0-4");
	check("C4@8", "R4@8", "0-4");
	check("R4@8", "C4@8", "0-4");
}

static void units_are_equal_as_a_whole_or_not_at_all(void **state)
{
	(void)state;
	check("Z1 C2@8 Z1", "Z1 C2@8 Z1", "");
	check("C2@8", "C2@9", "0-2");
	check("C2@8 Z1", "C3@8", "0-3"); /* of another length */
	check("C2@8 Z1", "Z1 C2@8", "0-3"); /* at another place of the disk */
	check("C2@8 R1@4", "C2@8 R1@5", "2-3");
	check_disks(disk_of("C4@8", 1, 9), disk_of("C4@8", 2, 9), false, "0-4");
}

static void units_are_equal_only_for_the_same_decoder(void **state)
{
	struct vd_disk *old = disk_of("C4@8", 1, 9), *new = disk_of("C4@8", 1, 9);
	struct vd_format format = *new->layers[0]->format;

	(void)state;
	new->layers[0]->compression = "zstd";
	check_disks(old, new, false, "0-4");
	old = disk_of("C4@8", 1, 9);
	new = disk_of("C4@8", 1, 9);
	new->layers[0]->format = &format;
	check_disks(old, new, false, "0-4");
}

static int (*original_map)(const struct vd_image *, uint64_t, uint64_t, struct vd_runs *);

static int map_longer(const struct vd_image *image, uint64_t virt, uint64_t want,
		      struct vd_runs *runs)
{
	int r = original_map(image, virt, want, runs);

	for (unsigned i = 0; i < runs->count; i++)
		runs->runs[i].coded_bytes += image->cluster_bits;
	return r;
}

static void units_are_equal_only_with_as_many_bytes_of_input(void **state)
{
	for (unsigned more = 0; more < 2; more++) {
		struct vd_disk *old = disk_of("C4@8", 1, 9), *new = disk_of("C4@8", 1, 9);
		struct vd_format format = *new->layers[0]->format;

		original_map = format.map;
		format.map = map_longer;
		old->layers[0]->format = new->layers[0]->format = &format;
		new->layers[0]->cluster_bits = more;
		check_disks(old, new, false, more ? "0-4" : "");
	}
	(void)state;
}

/* The new disk is one layer more, as after a snapshot. */
static void layers_that_both_have_are_equal(void **state)
{
	struct vd_image *images[] = {
		fake_image_of("A1 R1@0 A3 Z1 A2", FAKE_SINGLE, 2),
		fake_image_of("C3@8 R4@40 Z1", FAKE_CLIPPED, 1),
	};

	(void)state;
	check_disks(disk_of("C3@8 R4@40 Z1", 1, 9), fake_disk_new(images, 2, 9), false, "1-2 5-6");
}

static void what_is_past_the_old_end_was_zeros(void **state)
{
	(void)state;
	check("R2@0", "R2@0 Z2", "");
	check("R2@0", "R2@0 Z1 R1@3", "3-4");
	check("R2@0 R2@9", "R2@0", "");
	check("R2@0 R2@9", "R1@0 Z1", "1-2");
}

static void an_empty_disk_is_no_trouble(void **state)
{
	(void)state;
	check("", "", "");
	check("", "Z1 R1@0", "1-2");
	check("R4@0", "", "");
}

static void what_cannot_be_read_may_differ_and_is_counted(void **state)
{
	struct told told;

	(void)state;
	told = check_disks(disk_of("B2 R2@2", 1, 9), disk_of("R4@0", 1, 9), false, "0-2");
	assert_int_equal(told.bad_bytes, 2 * VD_SECTOR);
	for (int compares = 0; compares < 2; compares++) {
		told = check_disks(disk_of("R1@0 B2 R3@3", 1, 9),
				   disk_of("R1@0 B2 R1@3 B1 Z1", 1, 9), compares, "1-3 4-6");
		assert_int_equal(told.bad_bytes, 3 * VD_SECTOR);
	}
}

static void comparing_lists_what_differs(void **state)
{
	struct told told;

	(void)state;
	told = compare("R8@0", "R8@0", 9, "");
	assert_int_equal(told.compared_bytes, 8 * VD_SECTOR);
	compare("R8@0", "R3@0 R1@100 R4@4", 9, "3-4");
	compare("R8@0", "R8@1", 9, "0-8");
	compare("Z8", "Z2 R1@0 Z5", 9, "2-3");
	compare("R2@0", "R4@0", 9, "2-4"); /* past the end of the old one */
	compare("R4@0", "R2@0", 9, "");
	told = compare("Z4 R4@0", "Z8", 9, "4-8");
	assert_int_equal(told.compared_bytes, 4 * VD_SECTOR);
}

static void comparing_reads_only_what_is_not_proven(void **state)
{
	struct vd_disk *old = disk_of("R4@0 R4@8 Z8", 1, 9), *new = disk_of("R4@0 R4@20 Z8", 1, 9);
	struct told told = check_disks(old, new, true, "4-8");

	(void)state;
	assert_int_equal(told.compared_bytes, 4 * VD_SECTOR);
}

/* A difference is told of in clusters of the new disk, or what the metadata leaves of them. */
static void comparing_goes_by_clusters(void **state)
{
	(void)state;
	compare("R16@0", "R3@0 R1@100 R12@4", 12, "3-4");
	check_disks(disk_of("R16@0", 1, 9), disk_of("R16@0", 2, 12), true, "0-16");
	compare("Z16", "Z8 R8@0", 12, "8-16");
}

static void comparing_goes_on_over_chunks(void **state)
{
	const char *old = "R6244@0", *new = "R2047@0 R2@9000 R4095@2049 R100@6144";
	struct told told = compare(old, new, 9, "2047-2049");

	(void)state;
	assert_int_equal(told.compared_bytes, 6244 * VD_SECTOR);
	compare("R4100@0", "R4100@1", 9, "0-4100");
	compare("Z1 R4099@1", "R4100@0", 21, "0-1"); /* clusters of 2 MiB: units of 1 */
	compare("R4096@0", "R4096@0", 21, "");
}

/* Does the cluster of that sector differ? In the old file some sectors are zeros; the first is a hole. */
static bool cluster_differs(const struct vd_source *source, uint64_t sector, uint64_t cluster,
			    uint64_t sectors)
{
	uint64_t first = sector / cluster * cluster;

	for (uint64_t i = vd_max(first, 1); i < vd_min(first + cluster, sectors); i++) {
		if (fake_source_is_hole(source, i * VD_SECTOR))
			return true;
	}
	return false;
}

static void comparing_finds_what_differs_inside_of_a_run(void **state)
{
	const uint64_t sectors = 5001;

	(void)state;
	for (unsigned form = 0; form < 8; form++) { /* units of the clusters, or by request */
		unsigned bits = 9 + form % 4, asked = form < 4 ? 0 : bits;
		struct vd_disk *old = disk_of("Z1 R5000@1", 1, 9),
			       *new = disk_of("Z1 R5000@1", 1, asked ? 21 : bits);
		struct fake_source *zeros = source_of(old);
		struct vd_piece piece;
		struct vd_diff *diff;

		new->layers[0]->source->st.st_ino = 2;
		zeros->hole_bits = 9; /* but it is said to be dense: a walk does not see them */
		assert_int_equal(vd_diff_new(old, new, true, asked, &diff), 0);
		while (vd_diff_next(diff, &piece) > 0) {
			for (uint64_t at = piece.start / VD_SECTOR; at < piece.end / VD_SECTOR;
			     at++)
				assert_int_equal(piece.is_data,
						 at > 0 &&
							 cluster_differs(&zeros->source, at,
									 UINT64_C(1) << (bits - 9),
									 sectors));
		}
		assert_true(piece.end == sectors * VD_SECTOR);
		vd_diff_free(diff);
		vd_disk_close(old);
		vd_disk_close(new);
	}
}

static void one_bad_unit_does_not_hide_the_rest(void **state)
{
	struct told told;

	(void)state;
	told = compare("R4@0 D4 R4@8", "R4@0 R3@4 R1@4 R4@8", 9, "4-8");
	assert_int_equal(told.bad_bytes, 4 * VD_SECTOR);
	told = compare("R4@0 C4@8 R4@8", "R4@0 D4@8 R4@8", 9, "4-8");
	assert_int_equal(told.bad_bytes, 4 * VD_SECTOR);
}

/* The chunk fails, and then its first unit; the others are compared one by one. */
static void a_read_that_fails_is_tried_again_unit_by_unit(void **state)
{
	for (int failures = 0; failures <= 3; failures++) {
		static const char *const expected[] = { "6-7", "6-7", "0-1 6-7", "0-2 6-7" };
		struct vd_disk *old = disk_of("R8@0", 1, 9),
			       *new = disk_of("R6@0 R1@50 R1@7", 1, 9);
		struct told told;

		new->layers[0]->source->st.st_ino = 2;
		atomic_store(&source_of(old)->failures, failures);
		told = check_disks(old, new, true, expected[failures]);
		assert_int_equal(told.bad_bytes,
				 (unsigned)(failures > 1 ? failures - 1 : 0) * VD_SECTOR);
	}
	(void)state;
}

static void want_of_memory_is_told(void **state)
{
	for (int side = 0; side < 2; side++) {
		struct vd_disk *disks[] = { disk_of("R4@0", 1, 9), disk_of("R4@0", 1, 9) };
		struct vd_piece piece;
		struct vd_diff *diff;

		fake_layer(disks[side]->layers[0])->error = -ENOMEM;
		assert_int_equal(vd_diff_new(disks[0], disks[1], false, 0, &diff), 0);
		assert_int_equal(vd_diff_next(diff, &piece), -ENOMEM);
		vd_diff_free(diff);
		vd_disk_close(disks[0]);
		vd_disk_close(disks[1]);
	}
	vd_diff_free(NULL);
	(void)state;
}

/* Files of their own, which units lie in, too. */
static void name_files(struct vd_disk *disk, ino_t first)
{
	for (unsigned i = 0; i < disk->count; i++) {
		struct fake_layer *layer = fake_layer(disk->layers[i]);

		for (unsigned j = 0; j < layer->count; j++) {
			if (layer->spans[j].kind == VD_CODED)
				layer->spans[j].from = disk->layers[i]->source;
		}
		disk->layers[i]->compression = "zlib";
		disk->layers[i]->source->st.st_ino = first + 2 * i;
		disk->layers[i]->data->st.st_ino = first + 2 * i + 1;
	}
}

/* Are two bytes surely equal? Past the end of the old disk there are zeros. */
static bool byte_equal(const struct fake_truth *old, const struct fake_truth *new, uint64_t at)
{
	uint8_t value = at < old->size ? old->values[at] : 0;
	uint8_t class = at < old->size ? old->classes[at] : FAKE_HOLE;

	return class < FAKE_UNREADABLE &&
	       new->classes[at] < FAKE_UNREADABLE &&value == new->values[at];
}

/* What is left out is equal; compared, what is listed is not. */
static void check_truth(const struct vd_disk *old, const struct vd_disk *new, bool compares)
{
	struct fake_truth was = fake_truth(old), is = fake_truth(new);
	struct vd_piece piece;
	struct vd_diff *diff;
	uint64_t at = 0;

	assert_int_equal(vd_diff_new(old, new, compares, 0, &diff), 0);
	while (vd_diff_next(diff, &piece) > 0) {
		bool differs = false;

		assert_true(piece.start == at);
		for (; at < piece.end; at++)
			differs |= !byte_equal(&was, &is, at);
		assert_true(piece.is_data || !differs);
		assert_true(!piece.is_data || differs || !compares);
	}
	assert_true(at == new->size);
	vd_diff_free(diff);
	fake_truth_free(&was);
	fake_truth_free(&is);
}

static void random_disks_are_told_right(void **state)
{
	struct dice dice = { 11 };

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct vd_disk *old = fake_disk_random(true, &dice);
		struct vd_disk *new = fake_disk_random(true, &dice);

		name_files(old, 100);
		name_files(new, 200);
		check_truth(old, new, round % 2);
		vd_disk_close(new);
		vd_disk_close(old);
	}
}

/* But for what is bad. Damage of a unit is seen by those who read, and nobody has to. */
static void a_random_disk_is_equal_to_itself(void **state)
{
	struct dice dice = { 12 };

	(void)state;
	for (int round = 0; round < 100; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_truth truth = fake_truth(disk);
		struct vd_piece piece;
		struct vd_diff *diff;
		uint64_t at = 0;

		name_files(disk, 100);
		assert_int_equal(vd_diff_new(disk, disk, round % 2, 0, &diff), 0);
		while (vd_diff_next(diff, &piece) > 0) {
			assert_true(piece.start == at);
			for (; at < piece.end; at++)
				assert_int_equal(piece.is_data,
						 truth.classes[at] == FAKE_UNREADABLE);
		}
		assert_true(vd_diff_compared_bytes(diff) == 0 && at == disk->size);
		vd_diff_free(diff);
		fake_truth_free(&truth);
		vd_disk_close(disk);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_are_equal_however_they_are_told),
		cmocka_unit_test(raw_bytes_are_equal_at_the_same_place_of_the_same_file),
		cmocka_unit_test(data_and_zeros_may_differ),
		cmocka_unit_test(units_are_equal_as_a_whole_or_not_at_all),
		cmocka_unit_test(units_are_equal_only_for_the_same_decoder),
		cmocka_unit_test(units_are_equal_only_with_as_many_bytes_of_input),
		cmocka_unit_test(layers_that_both_have_are_equal),
		cmocka_unit_test(what_is_past_the_old_end_was_zeros),
		cmocka_unit_test(an_empty_disk_is_no_trouble),
		cmocka_unit_test(what_cannot_be_read_may_differ_and_is_counted),
		cmocka_unit_test(comparing_lists_what_differs),
		cmocka_unit_test(comparing_reads_only_what_is_not_proven),
		cmocka_unit_test(comparing_goes_by_clusters),
		cmocka_unit_test(comparing_goes_on_over_chunks),
		cmocka_unit_test(comparing_finds_what_differs_inside_of_a_run),
		cmocka_unit_test(one_bad_unit_does_not_hide_the_rest),
		cmocka_unit_test(a_read_that_fails_is_tried_again_unit_by_unit),
		cmocka_unit_test(want_of_memory_is_told),
		cmocka_unit_test(random_disks_are_told_right),
		cmocka_unit_test(a_random_disk_is_equal_to_itself),
	};

	return cmocka_run_group_tests_name("diff", tests, NULL, NULL);
}
