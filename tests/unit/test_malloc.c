/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Out of memory anywhere must end in -ENOMEM or in a right answer: never in a crash, a leak or a
 * wrong answer. Each allocation on the way from a file name to JSON fails once, and then that one
 * and all after it, until a run needs no more of them.
 *
 * The linker redirects what allocates in libvd (--wrap), jansson is told.
 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <libdeflate.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "disk/views.h"
#include "images.h"
#include "map/info.h"
#include "map/json.h"
#include "map/view.h"

static atomic_long allocations; /* since a run began */
static atomic_long fails_at; /* the number of the one that fails; 0: none */
static atomic_bool fails_on; /* and all after it */

enum { STAINED = 8192 };

static bool fails(void)
{
	long number = atomic_fetch_add(&allocations, 1) + 1, at = atomic_load(&fails_at);
	bool failing = at > 0 && (atomic_load(&fails_on) ? number >= at : number == at);

	if (failing)
		errno = ENOMEM;
	return failing;
}

#define WRAP(type, name, parameters, arguments)                  \
	type __real_##name parameters;                           \
	type __wrap_##name parameters;                           \
	type __wrap_##name parameters                            \
	{                                                        \
		return fails() ? NULL : __real_##name arguments; \
	}

/*
 * Fresh memory holds no zeros, as with MALLOC_PERTURB_, which would fill the megabytes of buffers, too,
 * and take most of the time of this test.
 */
static void *stained(void *memory, size_t bytes)
{
	if (memory)
		memset(memory, 0xa5, bytes < STAINED ? bytes : STAINED);
	return memory;
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : stained(__real_malloc(bytes), bytes);
}

WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, (void *old, size_t bytes), (old, bytes))
WRAP(char *, strdup, (const char *text), (text))
WRAP(char *, strndup, (const char *text, size_t bytes), (text, bytes))
WRAP(char *, realpath, (const char *path, char *resolved), (path, resolved))
WRAP(struct libdeflate_decompressor *, libdeflate_alloc_decompressor, (void), ())
WRAP(ZSTD_DCtx *, ZSTD_createDCtx, (void), ())

/* What a run saw, as one number. */
static uint64_t digest(uint64_t sum, const void *bytes, size_t count)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < count; i++)
		sum = (sum ^ at[i]) * UINT64_C(0x100000001b3);
	return sum + count;
}

/* Read the disk in pieces that fit nowhere. What cannot be read is part of the result. */
static int use_bytes(const struct vd_disk *disk, uint64_t *sum)
{
	struct vd_scratch *scratch;
	uint8_t piece[700];
	int r = vd_scratch_new(&scratch);

	if (r < 0)
		return r;
	for (uint64_t at = 0; at < disk->size && r != -ENOMEM; at += sizeof(piece)) {
		size_t bytes = (size_t)vd_min(sizeof(piece), disk->size - at);

		r = vd_disk_read(disk, piece, bytes, at, scratch);
		*sum = r == 0 ? digest(*sum, piece, bytes) : digest(*sum, &r, sizeof(r));
	}
	vd_scratch_free(scratch);
	return r == -ENOMEM ? r : 0;
}

static int use_text(struct vd_index *index, uint64_t *sum)
{
	unsigned bits = vd_index_disk(index)->cluster_bits;
	struct vd_json_reader *reader;
	char text[4096];
	ssize_t got;
	int r = vd_json_reader_new(index, bits, &reader);

	if (r < 0)
		return r;
	got = vd_json_read(reader, text, sizeof(text), 0, NULL);
	if (got > 0)
		*sum = digest(*sum, text, (size_t)got);
	vd_json_reader_free(reader);
	return got < 0 ? (int)got : 0;
}

static int use_attributes(struct vd_index *index, uint64_t *sum)
{
	struct vd_info info = { .is_mount = true, .sandbox = "none" };
	char *text;
	size_t length;
	int r = vd_json_attribute(index, &text, &length, NULL);

	if (r < 0)
		return r;
	*sum = digest(*sum, text, length);
	free(text);
	info.disk = vd_index_disk(index);
	vd_index_totals(index, &info.totals);
	info.unreadable = vd_index_unreadable(index);
	r = vd_info_attribute(&info, &text, &length);
	if (r < 0)
		return r;
	*sum = digest(*sum, text, length);
	free(text);
	return 0;
}

/* The whole disk as a QCOW2 file. */
static int use_view(struct vd_index *index, uint64_t *sum)
{
	struct vd_view_reader *reader = NULL;
	struct vd_scratch *scratch = NULL;
	struct vd_view *view;
	uint8_t piece[5000];
	int r = vd_view_new(index, NULL, &view);

	if (r < 0)
		return r;
	r = vd_view_reader_new(view, &reader);
	if (r == 0)
		r = vd_scratch_new(&scratch);
	for (uint64_t at = 0; at < vd_view_size(view) && r != -ENOMEM; at += sizeof(piece)) {
		size_t bytes = (size_t)vd_min(sizeof(piece), vd_view_size(view) - at);

		r = vd_view_read(reader, piece, bytes, at, scratch, NULL);
		*sum = r == 0 ? digest(*sum, piece, bytes) : digest(*sum, &r, sizeof(r));
	}
	vd_scratch_free(scratch);
	vd_view_reader_free(reader);
	vd_view_free(view);
	return r == -ENOMEM ? r : 0;
}

static int use_index(const struct vd_disk *disk, uint64_t *sum)
{
	struct vd_index *index;
	int r = vd_index_new(disk, (size_t)64 << 20, &index);

	if (r < 0)
		return r;
	r = use_text(index, sum); /* walked */
	if (r == 0)
		r = vd_index_start(index);
	if (r == 0)
		r = vd_index_wait(index, NULL);
	if (r == 0)
		r = use_text(index, sum);
	if (r == 0)
		r = use_attributes(index, sum);
	if (r == 0)
		r = use_view(index, sum);
	vd_index_free(index);
	return r;
}

struct first_snapshot {
	struct vd_disk *disk;
	const struct vd_disk *view;
	struct vd_error err;
};

static int use_snapshot(const struct vd_snapshot *snapshot, void *context)
{
	struct first_snapshot *first = context;
	int r = vd_disk_view_snapshot(first->disk, snapshot, &first->view, &first->err);

	return r < 0 ? r : 1;
}

/* What the disk is made of, as disks. */
static int use_views(struct vd_disk *disk, uint64_t *sum)
{
	const struct vd_image *image = disk->layers[0];
	struct first_snapshot first = { .disk = disk };
	const struct vd_disk *view;
	struct vd_index *index, *other;
	int r = vd_disk_view_layer(disk, disk->count - 1, &view);

	if (r == 0)
		r = use_bytes(view, sum);
	if (r == 0 && image->format->snapshots)
		r = image->format->snapshots(image, use_snapshot, &first, &first.err);
	if (r > 0) {
		view = first.view;
		r = use_bytes(view, sum);
	}
	if (r < 0)
		return r;
	r = vd_index_new(disk, (size_t)64 << 20, &index);
	if (r < 0)
		return r;
	r = vd_index_new_sharing(view, index, &other);
	if (r == 0)
		vd_index_free(other);
	vd_index_free(index);
	return r;
}

struct chain_case {
	const char *path;
	struct vd_chain_options options;
	bool only_open; /* what it logs would be logged hundreds of times */
};

/* All that there is to ask of an open disk. */
static int use_disk(struct vd_disk *disk, uint64_t *sum)
{
	int r = use_bytes(disk, sum);

	if (r == 0)
		r = use_index(disk, sum);
	return r == 0 ? use_views(disk, sum) : r;
}

static int use_chain(const struct chain_case *chain, uint64_t *sum)
{
	struct vd_error err = { "" };
	struct vd_disk *disk;
	int r = vd_chain_open(chain->path, &chain->options, &vd_opener_here, &disk, &err);

	*sum = 0;
	if (r < 0 && *err.text == '\0')
		return -EPROTO; /* a refusal without a message */
	if (r < 0)
		return r;
	*sum = disk->size + disk->count;
	if (!chain->only_open)
		r = use_disk(disk, sum);
	vd_disk_close(disk);
	return r;
}

/* One run whose n-th allocation fails. 1: it had no n-th. 0: fine. -1: not. */
static int run(const struct chain_case *chain, long number, bool on, uint64_t expected)
{
	uint64_t sum = 0;
	int r;

	atomic_store(&allocations, 0);
	atomic_store(&fails_on, on);
	atomic_store(&fails_at, number);
	r = use_chain(chain, &sum);
	atomic_store(&fails_at, 0);
	if (r != -ENOMEM && (r < 0 || sum != expected)) {
		print_error("allocation %ld%s: %s\n", number, on ? " and all after it" : "",
			    r < 0 ? strerror(-r) : "wrong contents");
		return -1;
	}
	return atomic_load(&allocations) < number;
}

/* The short form (VD_SHORT) has one of five allocations fail, each time others. */
static long step(void)
{
	return getenv("VD_SHORT") ? 5 : 1;
}

/* All runs, without one that is wrong. */
static void check_chain(const struct chain_case *chain)
{
	long every = step();
	unsigned files = open_files(), wrong = 0;
	uint64_t expected = 0;

	assert_int_equal(use_chain(chain, &expected), 0);
	for (int on = 0; on < 2; on++) {
		long number = 1 + getpid() % every;

		for (int r = 0; r <= 0; number += every) {
			r = run(chain, number, on, expected);
			wrong += r < 0;
			assert_int_equal(open_files(), files);
		}
		assert_true(number > 10);
	}
	assert_int_equal(wrong, 0);
}

/*
 * One open disk, which is then read and mapped, with the n-th allocation failing. What that hits is
 * -ENOMEM; afterwards all of the disk is there again. 1: there was no n-th. 0: fine. -1: not.
 */
static int run_open_disk(const struct chain_case *chain, long number, uint64_t expected)
{
	struct vd_error err = { "" };
	struct vd_disk *disk;
	uint64_t sum, again;
	int r, later;

	assert_int_equal(vd_chain_open(chain->path, &chain->options, &vd_opener_here, &disk, &err),
			 0);
	sum = again = disk->size + disk->count; /* as use_chain() begins */
	atomic_store(&allocations, 0);
	atomic_store(&fails_on, false);
	atomic_store(&fails_at, number);
	r = use_disk(disk, &sum);
	atomic_store(&fails_at, 0);
	later = use_disk(disk, &again);
	vd_disk_close(disk);
	if ((r != -ENOMEM && (r < 0 || sum != expected)) || later < 0 || again != expected) {
		print_error("allocation %ld: %s, then %s\n", number, strerror(-r),
			    later < 0 ? strerror(-later) : "other contents");
		return -1;
	}
	return atomic_load(&allocations) < number;
}

static void check_recovery(const struct chain_case *chain)
{
	unsigned wrong = 0;
	uint64_t expected = 0;
	long every = step(), number = 1 + getpid() % every;

	assert_int_equal(use_chain(chain, &expected), 0);
	for (int r = 0; r <= 0 && wrong < 20; number += every) {
		r = run_open_disk(chain, number, expected);
		wrong += r < 0;
	}
	assert_int_equal(wrong, 0);
	assert_true(number > 10);
}

static void qcow2_file(const char *folder, const char *name, const struct qcow2_facts *facts)
{
	struct image *image = make(sizeof(*image));

	qcow2_make(image, facts);
	image_write(image, in_folder(folder, name));
	free(image);
}

static void vhd_file(const char *folder, const char *name, const struct vhd_facts *facts)
{
	struct image *image = make(sizeof(*image));

	vhd_make(image, facts);
	image_write(image, in_folder(folder, name));
	free(image);
}

static void a_qcow2_chain_survives(void **state)
{
	struct chain_case chain = { .path = in_folder(*state, "top") };
	struct qcow2_facts top = { .backing = "base", .backing_format = "qcow2" };
	struct qcow2_facts base = { .zstd = true };

	qcow2_file(*state, "top", &top);
	qcow2_file(*state, "base", &base);
	check_chain(&chain);
	check_recovery(&chain);
}

static void a_qcow2_snapshot_with_its_base_by_hand_survives(void **state)
{
	char base[1024];
	struct chain_case chain = {
		.path = in_folder(*state, "top"),
		.options = {
			.format = "qcow2",
			.snapshot = "first",
			.backing_files = { base },
			.backing_file_count = 1,
			.backing_formats = { "raw" },
			.backing_format_count = 1,
		},
	};
	struct qcow2_facts top = { .backing = "nowhere", .snapshot = "first" };

	snprintf(base, sizeof(base), "%s", in_folder(*state, "base"));
	qcow2_file(*state, "top", &top);
	qcow2_file(*state, "base", &top); /* taken as raw */
	check_chain(&chain);
	check_recovery(&chain);
}

static void a_qcow2_image_with_a_data_file_survives(void **state)
{
	struct chain_case chain = { .path = in_folder(*state, "top") };
	struct qcow2_facts top = { .data_file = "data" };
	char zeros[1] = { 0 };

	qcow2_file(*state, "top", &top);
	file_write(in_folder(*state, "data"), zeros, sizeof(zeros));
	assert_int_equal(truncate(in_folder(*state, "data"), QCOW2_SIZE), 0);
	check_chain(&chain);
	check_recovery(&chain);
}

static void a_vhd_chain_with_an_absolute_locator_survives(void **state)
{
	struct chain_case chain = { .path = in_folder(*state, "top.vhd") };
	char parent[1024];
	struct vhd_facts top = { .uuid = 1, .parent = parent, .parent_uuid = 2 };
	struct vhd_facts base = { .uuid = 2 };

	snprintf(parent, sizeof(parent), "%s", in_folder(*state, "base.vhd"));
	vhd_file(*state, "top.vhd", &top);
	vhd_file(*state, "base.vhd", &base);
	check_chain(&chain);
	check_recovery(&chain);
}

static void a_vhd_chain_whose_first_names_lead_nowhere_survives(void **state)
{
	struct chain_case chain = { .path = in_folder(*state, "top.vhd") };
	struct vhd_facts top = { .uuid = 1, .parent = "C:\\gone\\base.vhd", .parent_uuid = 2 };
	struct vhd_facts base = { .uuid = 2 };

	vhd_file(*state, "top.vhd", &top);
	vhd_file(*state, "base.vhd", &base);
	check_chain(&chain);
	check_recovery(&chain);
}

static void images_with_shared_tables_and_blocks_survive(void **state)
{
	struct chain_case qcow2 = { .path = in_folder(*state, "qcow2"), .only_open = true };
	struct chain_case vhd = { .path = in_folder(*state, "vhd"), .only_open = true };

	qcow2_file(*state, "qcow2", &(struct qcow2_facts){ .alias = true });
	vhd_file(*state, "vhd", &(struct vhd_facts){ .overlap = true });
	check_chain(&qcow2);
	check_chain(&vhd);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_remove)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_FOLDER(a_qcow2_chain_survives),
		IN_FOLDER(a_qcow2_snapshot_with_its_base_by_hand_survives),
		IN_FOLDER(a_qcow2_image_with_a_data_file_survives),
		IN_FOLDER(a_vhd_chain_with_an_absolute_locator_survives),
		IN_FOLDER(a_vhd_chain_whose_first_names_lead_nowhere_survives),
		IN_FOLDER(images_with_shared_tables_and_blocks_survive),
	};

#ifdef M_PERTURB
	mallopt(M_PERTURB, 0); /* see stained() */
#endif
	json_set_alloc_funcs(__wrap_malloc, free);
	return cmocka_run_group_tests_name("malloc", tests, NULL, NULL);
}
