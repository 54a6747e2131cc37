/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a caller gets who does not wait for the index, waits and is interrupted, or waits for one
 * that fails; and the block count, which decides whether cp and tar see the holes.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "fake.h"
#include "map/index.h"
#include "map/json.h"

#define PLENTY ((size_t)64 << 20)

static struct vd_index *index_of(const struct vd_disk *disk)
{
	struct vd_index *index;

	assert_int_equal(vd_index_new(disk, PLENTY, &index), 0);
	return index;
}

/* Where the data of a disk lies, for block counts. */
enum layout { ALL_DATA, ALL_HOLE, FIRST_BYTE, LAST_BYTE, ALL_BUT_ONE, LAYOUTS };

static struct vd_disk *laid_out_disk(uint64_t size, enum layout layout, struct dice *dice)
{
	struct vd_image *image = fake_image_new(size, FAKE_GENEROUS, dice);
	uint64_t data = layout == ALL_DATA      ? size
			: layout == ALL_HOLE    ? 0
			: layout == ALL_BUT_ONE ? size - 1
						: 1;

	if (layout == LAST_BYTE && size > 1)
		fake_span_add(image, size - 1, VD_ZERO, NULL, 0);
	if (data > 0)
		fake_span_add(image, data, VD_RAW, image->source, 0);
	if (layout != LAST_BYTE && data < size)
		fake_span_add(image, size - data, VD_ZERO, NULL, 0);
	return fake_disk_new(&image, 1, 9);
}

static const uint64_t sizes[] = { 1, 2, 511, 512, 513, 1023, 1024, 1025, 1536, 4096, 100001 };

static void the_block_count_is_exact_within_its_bounds(void **state)
{
	struct dice dice = { 1 };

	(void)state;
	for (size_t s = 0; s < ARRAY_LENGTH(sizes); s++) {
		for (int layout = 0; layout < LAYOUTS; layout++) {
			struct vd_disk *disk = laid_out_disk(sizes[s], (enum layout)layout, &dice);
			struct vd_index *index = index_of(disk);
			struct vd_index_totals totals;
			uint64_t blocks, expected, most = sizes[s] / 512;
			bool is_exact = false;

			assert_int_equal(vd_index_start(index), 0);
			assert_int_equal(vd_index_wait(index, NULL), 0);
			vd_index_totals(index, &totals);
			blocks = vd_index_blocks(index, &is_exact);
			assert_true(is_exact);
			expected = (totals.data_bytes + 511) / 512;
			if (totals.data_bytes < sizes[s] && expected >= most)
				expected = most > 0 ? most - 1 : 0;
			if (totals.data_bytes > 0 && expected == 0)
				expected = 1;
			assert_true(blocks == expected);
			vd_index_free(index);
			vd_disk_close(disk);
		}
	}
}

/*
 * The estimate, too, must not be 0 with data in the disk (tar would drop it all), and must show
 * that there may be holes. What the host's file system says of its blocks does not change that:
 * some say 0 for any file.
 */
static void the_estimated_block_count_is_within_its_bounds(void **state)
{
	static const blkcnt_t host_blocks[] = { 0, 1, 8, 1 << 20 };
	struct dice dice = { 2 };

	(void)state;
	for (size_t s = 0; s < ARRAY_LENGTH(sizes); s++) {
		for (size_t i = 0; i < LAYOUTS * ARRAY_LENGTH(host_blocks); i++) {
			struct vd_disk *disk =
				laid_out_disk(sizes[s], (enum layout)(i % LAYOUTS), &dice);
			struct vd_index *index = index_of(disk);
			uint64_t blocks, most = vd_max(2, sizes[s] / 512) - 1;
			bool is_exact = true;

			disk->layers[0]->source->st.st_blocks = host_blocks[i / LAYOUTS];
			disk->layers[0]->data->st.st_blocks = 0;
			blocks = vd_index_blocks(index, &is_exact);
			assert_false(is_exact);
			assert_true(blocks >= 1 && blocks <= most);
			vd_index_free(index);
			vd_disk_close(disk);
		}
	}
}

/* All data, no cell continues its neighbour; the gate holds the walk up at the last cells. */
static struct vd_disk *gated_disk(struct gate *gate, uint64_t cells)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = 8,
		.scattered = true,
		.gate = gate,
		.gate_virt = (cells - 256) * 512,
	};
	struct vd_image *image = fake_grid_image(cells * 512, &grid, 12);

	return fake_disk_new(&image, 1, 12);
}

static void the_estimate_near_the_end_is_still_within_its_bounds(void **state)
{
	const uint64_t cells = 4096 * 3 + 256;
	struct gate gate;
	struct vd_disk *disk = gated_disk(&gate, cells);
	struct vd_index *index = index_of(disk);
	uint64_t blocks;
	bool is_exact = true;

	(void)state;
	gate_init(&gate);
	assert_int_equal(vd_index_start(index), 0);
	gate_await(&gate);
	blocks = vd_index_blocks(index, &is_exact);
	assert_false(is_exact);
	assert_true(blocks >= 4096 * 3 - 1 && blocks <= cells - 1); /* so much is known already */
	gate_open(&gate);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	assert_true(vd_index_blocks(index, &is_exact) == cells);
	assert_true(is_exact);
	vd_index_free(index);
	vd_disk_close(disk);
	gate_free(&gate);
}

/* Interrupts when it has been asked so many times. */
struct patience {
	unsigned left, asked;
};

static bool patience_ends(void *context)
{
	struct patience *patience = context;

	patience->asked++;
	if (patience->left > 0)
		patience->left--;
	return patience->left == 0;
}

static void waiting_can_be_interrupted(void **state)
{
	struct gate gate;
	struct vd_disk *disk = gated_disk(&gate, 1000);
	struct vd_index *index = index_of(disk);
	struct patience patience = { .left = 3 };
	struct vd_interrupt interrupt = { patience_ends, &patience };

	(void)state;
	gate_init(&gate);
	assert_int_equal(vd_index_wait(index, &interrupt), -EINTR); /* nobody builds it */
	assert_int_equal(patience.asked, 3);
	assert_int_equal(vd_index_start(index), 0);
	gate_await(&gate);
	patience.left = 2;
	assert_int_equal(vd_index_wait(index, &interrupt), -EINTR);
	gate_open(&gate);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	assert_int_equal(vd_index_wait(index, &interrupt), 0); /* complete: nothing to interrupt */
	vd_index_free(index);
	vd_disk_close(disk);
	gate_free(&gate);
}

static void a_long_seek_can_be_interrupted(void **state)
{
	struct vd_disk *disk = gated_disk(NULL, 100000);
	struct vd_index *index = index_of(disk);
	struct patience patience = { .left = 5 }, endless = { .left = UINT32_MAX };
	struct vd_interrupt interrupt = { patience_ends, &patience }, silent = { NULL, NULL };
	struct vd_interrupt asked = { patience_ends, &endless };
	uint64_t found = 0;

	(void)state;
	assert_int_equal(vd_index_seek(index, 0, false, &found, &interrupt), -EINTR);
	assert_int_equal(patience.asked, 5);
	assert_int_equal(vd_index_seek(index, 0, false, &found, &asked), 0);
	assert_true(found == disk->size && endless.asked > 20);
	assert_int_equal(vd_index_seek(index, 0, false, &found, &silent), 0);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, &silent), 0);
	patience.left = 1;
	assert_int_equal(vd_index_seek(index, 0, false, &found, &interrupt), 0); /* one interval */
	vd_index_free(index);
	vd_disk_close(disk);
}

/* With an interrupt after each step, from where it says that it may go on: the end is no such place. */
static void a_seek_in_steps_ends_at_the_end_of_the_disk(void **state)
{
	struct vd_disk *disk = gated_disk(NULL, 5000);
	struct vd_index *index = index_of(disk);
	struct patience patience = { .left = 1 };
	struct vd_interrupt interrupt = { patience_ends, &patience };
	uint64_t at = 0, found = 0;
	int r, steps = 0;

	(void)state;
	while ((r = vd_index_seek(index, at, false, &found, &interrupt)) == -EINTR) {
		assert_true(found > at && found < disk->size);
		at = found;
		steps++;
	}
	assert_int_equal(r, 0);
	assert_true(found == disk->size && steps > 10);
	vd_index_free(index);
	vd_disk_close(disk);
}

/* Hold a disk whose driver runs out of memory at a place. */
static struct vd_disk *failing_disk(uint64_t cells, uint64_t error_cell)
{
	struct fake_grid grid = {
		.cell_bits = 9,
		.data_of_8 = 4,
		.seed = 9,
		.error = -ENOMEM,
		.error_virt = error_cell * 512,
	};
	struct vd_image *image = fake_grid_image(cells * 512, &grid, 12);

	return fake_disk_new(&image, 1, 12);
}

static void a_walk_that_fails_is_told_to_those_who_wait(void **state)
{
	struct vd_disk *disk = failing_disk(100000, 50000);
	struct vd_index *index = index_of(disk);
	struct vd_index_totals totals;
	uint64_t found = 0;
	size_t length;
	bool is_exact = true;
	char *text;

	(void)state;
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), -ENOMEM);
	assert_int_equal(vd_index_wait(index, NULL), -ENOMEM);
	assert_int_equal(vd_json_attribute(index, &text, &length, NULL), -ENOMEM);
	vd_index_totals(index, &totals);
	assert_false(totals.complete);
	assert_true(totals.json_bytes == 0);
	assert_true(vd_index_blocks(index, &is_exact) > 0);
	assert_false(is_exact);
	/* What can be found still is, and the rest is an error, each time. */
	assert_int_equal(vd_index_seek(index, 10 * 512, true, &found, NULL), 0);
	assert_int_equal(vd_index_seek(index, 60000 * 512, true, &found, NULL), -ENOMEM);
	fake_grid(disk)->error = 0;
	assert_int_equal(vd_index_seek(index, 60000 * 512, true, &found, NULL), 0);
	vd_index_free(index);
	vd_disk_close(disk);
}

static void a_walk_that_fails_at_once_is_told_too(void **state)
{
	struct vd_disk *disk = failing_disk(100, 0);
	struct vd_index *index = index_of(disk);
	uint64_t found;

	(void)state;
	assert_int_equal(vd_index_seek(index, 0, true, &found, NULL), -ENOMEM);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), -ENOMEM);
	assert_int_equal(vd_index_seek(index, 0, true, &found, NULL), -ENOMEM);
	vd_index_free(index);
	vd_disk_close(disk);
}

static unsigned threads_to_fail;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
			  void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
			  void *context);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
			  void *context)
{
	if (threads_to_fail == 0)
		return __real_pthread_create(thread, attributes, run, context);
	threads_to_fail--;
	return EAGAIN;
}

static void a_thread_that_does_not_start_is_started_later(void **state)
{
	struct dice dice = { 1 };
	struct vd_disk *disk = laid_out_disk(4096, FIRST_BYTE, &dice);
	struct vd_index *index = index_of(disk);

	(void)state;
	threads_to_fail = 1;
	assert_int_equal(vd_index_start(index), -ENOMEM);
	assert_int_equal(vd_index_wait(index, NULL), -ENOMEM);
	assert_int_equal(vd_index_poll(index), -ENOMEM);
	assert_int_equal(vd_index_start(index), 0);
	assert_int_equal(vd_index_wait(index, NULL), 0);
	assert_int_equal(vd_index_start(index), 0);
	vd_index_free(index);
	vd_disk_close(disk);
}

static void an_interrupted_seek_says_where_it_may_go_on(void **state)
{
	struct vd_disk *disk = gated_disk(NULL, 100000);
	struct vd_index *index = index_of(disk);
	struct patience patience = { .left = 1 };
	struct vd_interrupt interrupt = { patience_ends, &patience };
	uint64_t at = 0, found = 0;
	unsigned rounds = 0;
	int r;

	(void)state;
	while ((r = vd_index_seek(index, at, false, &found, &interrupt)) == -EINTR) {
		assert_true(found > at);
		at = found;
		patience.left = 1;
		rounds++;
	}
	assert_int_equal(r, 0);
	assert_true(found == disk->size && rounds > 20);
	vd_index_free(index);
	vd_disk_close(disk);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_block_count_is_exact_within_its_bounds),
		cmocka_unit_test(the_estimated_block_count_is_within_its_bounds),
		cmocka_unit_test(the_estimate_near_the_end_is_still_within_its_bounds),
		cmocka_unit_test(waiting_can_be_interrupted),
		cmocka_unit_test(a_long_seek_can_be_interrupted),
		cmocka_unit_test(a_seek_in_steps_ends_at_the_end_of_the_disk),
		cmocka_unit_test(a_thread_that_does_not_start_is_started_later),
		cmocka_unit_test(an_interrupted_seek_says_where_it_may_go_on),
		cmocka_unit_test(a_walk_that_fails_is_told_to_those_who_wait),
		cmocka_unit_test(a_walk_that_fails_at_once_is_told_too),
	};

	return cmocka_run_group_tests_name("index waits", tests, NULL, NULL);
}
