/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The index must give the same answers before, during and after it is built, and with any bound of
 * memory: they are compared with pieces that were worked out byte by byte or from a formula. What
 * happens "during" is held still by a gate in the driver.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/index.h"

#define PLENTY ((size_t)64 << 20)
#define ONE_CHUNK ((size_t)100000) /* about 65,000 intervals */

static struct vd_index *index_of(const struct vd_disk *disk, size_t memory)
{
	struct vd_index *index;

	assert_int_equal(vd_index_new(disk, memory, &index), 0);
	return index;
}

static struct vd_index *index_complete(const struct vd_disk *disk, size_t memory)
{
	struct vd_index *index = index_of(disk, memory);

	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	return index;
}

/* A disk of many fragments, more than fit into one chunk of the list. */
static struct vd_disk *fragmented_disk(struct gate *gate, uint64_t gate_virt)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = 4,
		.seed = 5,
		.gate = gate,
		.gate_virt = gate_virt,
	};
	struct vd_image *image = fake_grid_image(180000 * 512 + 77, &grid, 12);

	return fake_disk_new(&image, 1, 12);
}

/* All data, but no cell continues its neighbour. */
static struct vd_disk *scattered_disk(uint64_t cells, struct gate *gate, uint64_t gate_virt)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = 8,
		.scattered = true,
		.gate = gate,
		.gate_virt = gate_virt,
	};
	struct vd_image *image = fake_grid_image(cells * 512, &grid, 12);

	return fake_disk_new(&image, 1, 12);
}

static size_t piece_find(const struct fake_pieces *pieces, uint64_t virt)
{
	size_t low = 0, high = pieces->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (pieces->pieces[middle].start <= virt)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Is a seek from there right, for data and for holes? Any thread. */
static bool seek_is_right(struct vd_index *index, const struct fake_pieces *pieces, uint64_t virt)
{
	const struct vd_piece *piece = &pieces->pieces[piece_find(pieces, virt)];
	uint64_t same = 0, other = 0;
	int r = vd_index_seek(index, virt, piece->is_data, &same, NULL);

	if (r != 0 || same != virt)
		return false;
	r = vd_index_seek(index, virt, !piece->is_data, &other, NULL);
	if (piece->end < pieces->size || piece->is_data)
		return r == 0 && other == piece->end; /* behind the last data is a hole */
	return r == -ENXIO;
}

static void check_seeks(struct vd_index *index, const struct fake_pieces *pieces, size_t step)
{
	for (size_t i = 0; i < pieces->count; i += step) {
		const struct vd_piece *piece = &pieces->pieces[i];

		assert_true(seek_is_right(index, pieces, piece->start));
		assert_true(seek_is_right(index, pieces, piece->end - 1));
		assert_true(seek_is_right(index, pieces,
					  piece->start + (piece->end - piece->start) / 2));
	}
	assert_true(seek_is_right(index, pieces, pieces->size - 1));
}

/* All pieces from a place on, merged, are those expected. */
static void check_pieces_from(struct vd_index *index, const struct fake_pieces *pieces,
			      uint64_t virt)
{
	struct vd_index_iter *iter = make(sizeof(*iter));
	size_t i = pieces->size ? piece_find(pieces, virt) : 0;
	struct vd_piece piece;
	int r;

	vd_index_iter_init(iter, index, virt);
	while ((r = vd_index_iter_next(iter, &piece)) > 0)
		fake_pieces_expect(pieces, &i, &virt, &piece);
	assert_int_equal(r, 0);
	assert_true(virt == pieces->size);
	free(iter);
}

static void check_totals(struct vd_index *index, const struct fake_pieces *pieces)
{
	struct vd_index_totals totals;
	uint64_t data = 0, count = 0;

	for (size_t i = 0; i < pieces->count; i++) {
		if (!pieces->pieces[i].is_data)
			continue;
		data += pieces->pieces[i].end - pieces->pieces[i].start;
		count++;
	}
	vd_index_totals(index, &totals);
	assert_true(totals.complete);
	assert_true(totals.mapped_bytes == pieces->size);
	assert_true(totals.data_bytes == data);
	assert_true(totals.intervals == count);
	assert_true(totals.json_bytes > 0);
}

static void answers_are_the_same_lazily_and_from_the_list(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (int round = 0; round < 25; round++) {
		struct vd_disk *disk = fake_disk_random(true, &dice);
		struct fake_pieces pieces = fake_pieces(disk);
		struct vd_index *indexes[] = {
			index_of(disk, PLENTY),
			index_complete(disk, PLENTY),
			index_complete(disk, 0),
		};

		for (size_t i = 0; i < ARRAY_LENGTH(indexes); i++) {
			check_seeks(indexes[i], &pieces, 1 + pieces.count / 100);
			check_pieces_from(indexes[i], &pieces, 0);
			check_pieces_from(indexes[i], &pieces, dice_roll(&dice, disk->size));
			if (i > 0)
				check_totals(indexes[i], &pieces);
			vd_index_free(indexes[i]);
		}
		fake_pieces_free(&pieces);
		vd_disk_close(disk);
	}
}

static void a_list_that_ends_early_changes_no_answer(void **state)
{
	static const size_t memories[] = { 0, 70000, ONE_CHUNK, 200000, PLENTY };
	struct vd_disk *disk = fragmented_disk(NULL, 0);
	struct fake_pieces pieces = fake_grid_pieces(disk);

	(void)state;
	assert_true(pieces.count > 80000);
	for (size_t i = 0; i < ARRAY_LENGTH(memories); i++) {
		struct vd_index *index = index_complete(disk, memories[i]);

		check_seeks(index, &pieces, 997);
		check_totals(index, &pieces);
		check_pieces_from(index, &pieces, 0);
		check_pieces_from(index, &pieces, pieces.size / 2 + 100);
		check_pieces_from(index, &pieces, pieces.size - 1);
		check_pieces_from(index, &pieces, pieces.size);
		vd_index_free(index);
	}
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
}

/* The data among the first bytes of the disk. */
static uint64_t data_before(const struct fake_pieces *pieces, uint64_t virt)
{
	uint64_t data = 0;

	for (size_t i = 0; i < pieces->count && pieces->pieces[i].start < virt; i++) {
		if (pieces->pieces[i].is_data)
			data += vd_min(pieces->pieces[i].end, virt) - pieces->pieces[i].start;
	}
	return data;
}

static void answers_are_right_while_the_index_is_being_built(void **state)
{
	static const size_t memories[] = { 0, ONE_CHUNK, PLENTY };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(memories); i++) {
		struct gate gate;
		struct vd_disk *disk = fragmented_disk(&gate, 130000 * 512);
		struct fake_pieces pieces = fake_grid_pieces(disk);
		struct vd_index *index = index_of(disk, memories[i]);
		struct vd_index_totals totals;

		gate_init(&gate);
		assert_int_equal(vd_index_start(index), 0);
		gate_await(&gate);
		do /* what lies before the gate is about to come */
			vd_index_totals(index, &totals);
		while (totals.mapped_bytes == 0);
		assert_false(totals.complete);
		assert_true(totals.mapped_bytes > 0 && totals.mapped_bytes <= 130064 * 512);
		assert_true(totals.json_bytes == 0);
		check_seeks(index, &pieces, 997);
		check_pieces_from(index, &pieces, 12345);
		gate_open(&gate);
		assert_int_equal(vd_index_wait(index, NULL), 0);
		check_seeks(index, &pieces, 997);
		check_totals(index, &pieces);
		vd_index_free(index);
		fake_pieces_free(&pieces);
		vd_disk_close(disk);
		gate_free(&gate);
	}
}

static void the_totals_fit_together_while_the_index_is_being_built(void **state)
{
	struct vd_disk *disks[2];
	struct gate gates[2];

	(void)state;
	disks[0] = fragmented_disk(&gates[0], 130000 * 512);
	disks[1] = scattered_disk(10000, &gates[1], 9000 * 512);
	for (int i = 0; i < 2; i++) {
		struct fake_pieces pieces = fake_grid_pieces(disks[i]);
		struct vd_index *index = index_of(disks[i], PLENTY);
		struct vd_index_totals totals;

		gate_init(&gates[i]);
		assert_int_equal(vd_index_start(index), 0);
		gate_await(&gates[i]);
		vd_index_totals(index, &totals);
		gate_open(&gates[i]);
		vd_index_free(index);
		assert_true(totals.data_bytes == data_before(&pieces, totals.mapped_bytes));
		fake_pieces_free(&pieces);
		vd_disk_close(disks[i]);
		gate_free(&gates[i]);
	}
}

static void an_iterator_survives_the_growth_of_the_index(void **state)
{
	struct gate gate;
	struct vd_disk *disk = fragmented_disk(&gate, 100000 * 512);
	struct fake_pieces pieces = fake_grid_pieces(disk);
	struct vd_index *index = index_of(disk, ONE_CHUNK);
	struct vd_index_iter *iter = make(sizeof(*iter));
	uint64_t virt = 0;
	struct vd_piece piece;
	size_t i = 0;

	(void)state;
	gate_init(&gate);
	vd_index_iter_init(iter, index, 0);
	assert_int_equal(vd_index_start(index), 0);
	gate_await(&gate);
	while (vd_index_iter_next(iter, &piece) > 0) {
		if (virt < 50000 * 512 && piece.end >= 50000 * 512) {
			gate_open(&gate);
			assert_int_equal(vd_index_wait(index, NULL), 0);
		}
		fake_pieces_expect(&pieces, &i, &virt, &piece);
	}
	assert_true(virt == disk->size);
	free(iter);
	vd_index_free(index);
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
	gate_free(&gate);
}

struct seeker {
	struct vd_index *index;
	const struct fake_pieces *pieces;
	uint64_t seed;
	unsigned wrong, right;
	pthread_t thread;
};

static void *seeker_run(void *data)
{
	struct seeker *seeker = data;
	struct dice dice = { seeker->seed };

	for (int i = 0; i < 1500; i++) {
		if (seek_is_right(seeker->index, seeker->pieces,
				  dice_roll(&dice, seeker->pieces->size)))
			seeker->right++;
		else
			seeker->wrong++;
	}
	return NULL;
}

static void threads_may_seek_while_the_index_grows(void **state)
{
	static const size_t memories[] = { ONE_CHUNK, PLENTY };
	struct vd_disk *disk = fragmented_disk(NULL, 0);
	struct fake_pieces pieces = fake_grid_pieces(disk);

	(void)state;
	for (size_t m = 0; m < ARRAY_LENGTH(memories); m++) {
		struct vd_index *index = index_of(disk, memories[m]);
		struct seeker seekers[4];

		assert_int_equal(vd_index_start(index), 0);
		for (unsigned i = 0; i < ARRAY_LENGTH(seekers); i++) {
			seekers[i] =
				(struct seeker){ .index = index, .pieces = &pieces, .seed = i };
			assert_int_equal(
				pthread_create(&seekers[i].thread, NULL, seeker_run, &seekers[i]),
				0);
		}
		for (unsigned i = 0; i < ARRAY_LENGTH(seekers); i++) {
			pthread_join(seekers[i].thread, NULL);
			assert_int_equal(seekers[i].wrong, 0);
			assert_int_equal(seekers[i].right, 1500);
		}
		vd_index_free(index);
	}
	fake_pieces_free(&pieces);
	vd_disk_close(disk);
}

static void unreadable_bytes_are_data_and_counted(void **state)
{
	struct dice dice = { 2 };
	struct vd_image *image = fake_image_new(3000, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_index *index;
	struct vd_index_totals totals;

	(void)state;
	fake_span_add(image, 1000, VD_ZERO, NULL, 0);
	fake_span_add(image, 700, VD_BAD, NULL, 0);
	fake_span_add(image, 300, VD_ABSENT, NULL, 0);
	fake_span_add(image, 5000, VD_BAD, NULL, 0); /* it passes the end */
	index = index_complete(disk, PLENTY);
	vd_index_totals(index, &totals);
	assert_true(totals.bad_bytes == 1700);
	assert_true(totals.data_bytes == 1700);
	assert_true(totals.intervals == 2);
	vd_index_free(index);
	vd_disk_close(disk);
}

static void an_empty_disk_is_complete_at_once(void **state)
{
	struct dice dice = { 3 };
	struct vd_image *image = fake_image_new(0, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_index *index = index_of(disk, PLENTY);
	struct fake_pieces pieces = { .size = 0 };
	bool is_exact;

	(void)state;
	check_pieces_from(index, &pieces, 0);
	assert_true(vd_index_blocks(index, &is_exact) == 0);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	check_pieces_from(index, &pieces, 0);
	assert_true(vd_index_blocks(index, &is_exact) == 0);
	assert_true(is_exact);
	vd_index_free(index);
	vd_disk_close(disk);
}

/* The largest disk there is, with data at its very end. */
static void the_last_byte_of_the_largest_disk_is_found(void **state)
{
	static const size_t memories[] = { 0, PLENTY };
	struct dice dice = { 4 };
	struct vd_image *image = fake_image_new(100, FAKE_GENEROUS, &dice);
	struct vd_disk *disk;
	uint64_t found;

	(void)state;
	fake_span_add(image, INT64_MAX - 1, VD_ABSENT, NULL, 0);
	fake_span_add(image, 1, VD_RAW, image->source, 5);
	image->size = INT64_MAX;
	disk = fake_disk_new(&image, 1, 21);
	for (size_t i = 0; i < ARRAY_LENGTH(memories); i++) {
		struct vd_index *index = index_complete(disk, memories[i]);

		assert_int_equal(vd_index_seek(index, 0, true, &found, NULL), 0);
		assert_true(found == INT64_MAX - 1);
		assert_int_equal(vd_index_seek(index, found, false, &found, NULL), 0);
		assert_true(found == INT64_MAX);
		vd_index_free(index);
	}
	vd_disk_close(disk);
}

static void freeing_stops_a_walk_that_would_take_years(void **state)
{
	struct vd_disk *disk = scattered_disk(UINT64_C(1) << 53, NULL, 0);
	struct vd_index *index;

	(void)state;
	for (int i = 0; i < 20; i++) {
		index = index_of(disk, ONE_CHUNK);
		assert_int_equal(vd_index_start(index), 0);
		vd_index_free(index);
	}
	vd_disk_close(disk);
	vd_index_free(NULL);
}

static void the_callers_signals_are_left_as_they_were(void **state)
{
	struct vd_disk *disk = fragmented_disk(NULL, 0);
	struct vd_index *index = index_of(disk, PLENTY);
	sigset_t own, after;

	(void)state;
	sigemptyset(&own);
	sigaddset(&own, SIGUSR1);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &own, NULL), 0);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &own, &after), 0);
	assert_true(sigismember(&after, SIGUSR1));
	assert_false(sigismember(&after, SIGTERM));
	vd_index_free(index);
	vd_disk_close(disk);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_the_same_lazily_and_from_the_list),
		cmocka_unit_test(a_list_that_ends_early_changes_no_answer),
		cmocka_unit_test(answers_are_right_while_the_index_is_being_built),
		cmocka_unit_test(the_totals_fit_together_while_the_index_is_being_built),
		cmocka_unit_test(an_iterator_survives_the_growth_of_the_index),
		cmocka_unit_test(threads_may_seek_while_the_index_grows),
		cmocka_unit_test(unreadable_bytes_are_data_and_counted),
		cmocka_unit_test(an_empty_disk_is_complete_at_once),
		cmocka_unit_test(the_last_byte_of_the_largest_disk_is_found),
		cmocka_unit_test(freeing_stops_a_walk_that_would_take_years),
		cmocka_unit_test(the_callers_signals_are_left_as_they_were),
	};

	return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
