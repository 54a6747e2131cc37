/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decompression of what an attacker wrote. A stream gives exactly one unit or an error, and no byte
 * outside of the two buffers is touched: both end at a page that cannot be accessed.
 */
#include "config.h"

#include <errno.h>
#include <libdeflate.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "support/codec.h"
#include "util.h"

typedef int expand_fn(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
		      size_t out_bytes);
typedef size_t press_fn(const void *in, size_t in_bytes, void *out, size_t room);

/* Memory that ends at a guard page, and another one before it. */
struct guarded {
	uint8_t *map, *bytes;
	size_t map_bytes;
};

static struct guarded guarded_new(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page + 2;
	struct guarded memory = { .map_bytes = pages * page };

	memory.map = mmap(NULL, memory.map_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory.map != MAP_FAILED);
	assert_int_equal(mprotect(memory.map, page, PROT_NONE), 0);
	assert_int_equal(mprotect(memory.map + (pages - 1) * page, page, PROT_NONE), 0);
	memory.bytes = memory.map + (pages - 1) * page - bytes;
	return memory;
}

static void guarded_free(struct guarded *memory)
{
	munmap(memory->map, memory->map_bytes);
}

static size_t press_deflate(const void *in, size_t in_bytes, void *out, size_t room)
{
	struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(6);
	size_t bytes;

	assert_non_null(compressor);
	bytes = libdeflate_deflate_compress(compressor, in, in_bytes, out, room);
	libdeflate_free_compressor(compressor);
	assert_true(bytes > 0);
	return bytes;
}

static size_t press_zstd(const void *in, size_t in_bytes, void *out, size_t room)
{
	size_t bytes = ZSTD_compress(out, room, in, in_bytes, 3);

	assert_false(ZSTD_isError(bytes));
	return bytes;
}

static const struct {
	expand_fn *expand;
	press_fn *press;
} codecs[] = {
	{ vd_inflate, press_deflate },
	{ vd_unzstd, press_zstd },
};

/* Some of it can be compressed. */
static void fill(uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(mix(3, i / 512) & 1 ? mix(4, i) : mix(5, i / 64));
}

/* Expand what is in `in`, with both buffers before a guard page. */
static int expand(struct vd_scratch *scratch, expand_fn *fn, const uint8_t *in, size_t in_bytes,
		  const uint8_t *expected, size_t out_bytes)
{
	struct guarded from = guarded_new(in_bytes), to = guarded_new(out_bytes);
	int r;

	memcpy(from.bytes, in, in_bytes);
	memset(to.bytes, 0xaa, out_bytes);
	r = fn(scratch, from.bytes, in_bytes, to.bytes, out_bytes);
	if (r == 0 && expected)
		assert_memory_equal(to.bytes, expected, out_bytes);
	guarded_free(&from);
	guarded_free(&to);
	return r;
}

/* A unit of many bytes and its two compressed forms. */
#define UNIT 65536u
#define ROOM (2 * UNIT)

struct fixture {
	struct vd_scratch *scratch;
	uint8_t unit[UNIT], in[ROOM];
	size_t in_bytes;
};

static int fixture_make(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	if (!fixture || vd_scratch_new(&fixture->scratch) < 0)
		return -1;
	fill(fixture->unit, UNIT);
	*state = fixture;
	return 0;
}

static int fixture_free(void **state)
{
	struct fixture *fixture = *state;

	vd_scratch_free(fixture->scratch);
	free(fixture);
	return 0;
}

static void a_whole_unit_is_expanded(void **state)
{
	static const size_t sizes[] = { 1, 511, 512, 4095, 4096, 4097, UNIT };
	struct fixture *f = *state;

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
			f->in_bytes = codecs[codec].press(f->unit, sizes[i], f->in, ROOM);
			assert_int_equal(expand(f->scratch, codecs[codec].expand, f->in,
						f->in_bytes, f->unit, sizes[i]),
					 0);
		}
	}
}

static void the_largest_cluster_is_expanded(void **state)
{
	struct fixture *f = *state;
	size_t bytes = 2 << 20;
	uint8_t *unit = make(bytes), *in = make(2 * bytes);

	fill(unit, bytes);
	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		size_t in_bytes = codecs[codec].press(unit, bytes, in, 2 * bytes);

		assert_int_equal(
			expand(f->scratch, codecs[codec].expand, in, in_bytes, unit, bytes), 0);
	}
	free(unit);
	free(in);
}

static void a_stream_that_gives_less_or_more_is_refused(void **state)
{
	struct fixture *f = *state;

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		f->in_bytes = codecs[codec].press(f->unit, 5000, f->in, ROOM);
		for (size_t out = 4990; out <= 5010; out++)
			assert_int_equal(expand(f->scratch, codecs[codec].expand, f->in,
						f->in_bytes, f->unit, out),
					 out == 5000 ? 0 : -EIO);
		assert_int_equal(
			expand(f->scratch, codecs[codec].expand, f->in, f->in_bytes, f->unit, 1),
			-EIO);
		assert_int_equal(
			expand(f->scratch, codecs[codec].expand, f->in, f->in_bytes, f->unit, UNIT),
			-EIO);
	}
}

static void input_behind_the_end_is_ignored(void **state)
{
	static const uint8_t fills[] = { 0x00, 0xff, 0x5a };
	struct fixture *f = *state;

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		f->in_bytes = codecs[codec].press(f->unit, 5000, f->in, ROOM);
		for (size_t more = 1; more < 1500; more += 123) {
			memset(f->in + f->in_bytes, fills[more % 3], more);
			assert_int_equal(expand(f->scratch, codecs[codec].expand, f->in,
						f->in_bytes + more, f->unit, 5000),
					 0);
		}
		/* Another stream behind the first is garbage, too. */
		codecs[codec].press(f->unit, 700, f->in + f->in_bytes, ROOM - f->in_bytes);
		assert_int_equal(expand(f->scratch, codecs[codec].expand, f->in, f->in_bytes + 64,
					f->unit, 5000),
				 0);
	}
}

static void every_cut_input_is_refused(void **state)
{
	struct fixture *f = *state;

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		f->in_bytes = codecs[codec].press(f->unit, 1200, f->in, ROOM);
		for (size_t bytes = 0; bytes < f->in_bytes; bytes++)
			assert_int_equal(
				expand(f->scratch, codecs[codec].expand, f->in, bytes, NULL, 1200),
				-EIO);
	}
}

static void damaged_input_touches_nothing_else(void **state)
{
	struct fixture *f = *state;
	struct dice dice = { 11 };

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		f->in_bytes = codecs[codec].press(f->unit, 3000, f->in, ROOM);
		for (int i = 0; i < 1500; i++) {
			size_t at = (size_t)dice_roll(&dice, f->in_bytes);
			uint8_t before = f->in[at];
			int r;

			f->in[at] ^= (uint8_t)(1 + dice_roll(&dice, 255));
			r = expand(f->scratch, codecs[codec].expand, f->in, f->in_bytes, NULL,
				   3000);
			assert_true(r == 0 || r == -EIO);
			f->in[at] = before;
		}
		assert_int_equal(
			expand(f->scratch, codecs[codec].expand, f->in, f->in_bytes, f->unit, 3000),
			0);
	}
}

static void noise_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dice dice = { 12 };

	for (int i = 0; i < 500; i++) {
		size_t bytes = (size_t)dice_roll(&dice, 600);

		for (size_t at = 0; at < bytes; at++)
			f->in[at] = (uint8_t)dice_roll(&dice, 256);
		f->in[0] |= 6; /* a deflate block of the reserved type: cannot be good by chance */
		for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++)
			assert_int_equal(
				expand(f->scratch, codecs[codec].expand, f->in, bytes, NULL, 4096),
				-EIO);
	}
}

static void several_zstd_frames_make_one_unit(void **state)
{
	static const size_t cuts[] = { 0, 1, 1000, 1001, 4095, 4096 };
	struct fixture *f = *state;

	f->in_bytes = 0;
	for (size_t i = 0; i + 1 < ARRAY_LENGTH(cuts); i++)
		f->in_bytes += press_zstd(f->unit + cuts[i], cuts[i + 1] - cuts[i],
					  f->in + f->in_bytes, ROOM - f->in_bytes);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 4096), 0);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 4097), -EIO);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes - 1, f->unit, 4096),
			 -EIO);
	/* At the end of a frame it is enough, whatever follows. */
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 4095), 0);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 4094), -EIO);
}

static void a_zstd_frame_that_may_be_skipped_is(void **state)
{
	static const uint8_t skip_frame[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };
	struct fixture *f = *state;

	memcpy(f->in, skip_frame, sizeof(skip_frame));
	f->in_bytes = sizeof(skip_frame) + press_zstd(f->unit, 900, f->in + sizeof(skip_frame),
						      ROOM - sizeof(skip_frame));
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 900), 0);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, sizeof(skip_frame), f->unit, 900),
			 -EIO);
}

/* Compress with a parameter set; the size is not told, as in a streamed frame. */
static void press_with(struct fixture *f, ZSTD_cParameter parameter, int value, size_t bytes)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_inBuffer from = { .src = f->unit, .size = bytes };
	ZSTD_outBuffer to = { .dst = f->in, .size = ROOM };

	assert_non_null(context);
	assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter, value)));
	assert_int_equal(ZSTD_compressStream2(context, &to, &from, ZSTD_e_flush), 0);
	assert_int_equal(ZSTD_compressStream2(context, &to, &from, ZSTD_e_end), 0);
	ZSTD_freeCCtx(context);
	f->in_bytes = to.pos;
}

static void a_zstd_checksum_is_checked(void **state)
{
	struct fixture *f = *state;

	press_with(f, ZSTD_c_checksumFlag, 1, 3000);
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 3000), 0);
	for (size_t cut = 1; cut <= 4; cut++)
		assert_int_equal(
			expand(f->scratch, vd_unzstd, f->in, f->in_bytes - cut, f->unit, 3000),
			-EIO);
	f->in[f->in_bytes - 1] ^= 1;
	assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 3000), -EIO);
}

/* What is expanded at once needs no window, whatever the image says. */
static void a_zstd_window_of_any_size_is_taken(void **state)
{
	struct fixture *f = *state;

	for (int bits = 10; bits <= 27; bits++) {
		press_with(f, ZSTD_c_windowLog, bits, 3000);
		assert_int_equal(expand(f->scratch, vd_unzstd, f->in, f->in_bytes, f->unit, 3000),
				 0);
	}
}

static void a_failure_spoils_nothing_for_the_next(void **state)
{
	struct fixture *f = *state;

	for (size_t codec = 0; codec < ARRAY_LENGTH(codecs); codec++) {
		f->in_bytes = codecs[codec].press(f->unit, UNIT, f->in, ROOM);
		for (size_t bytes = 0; bytes < f->in_bytes; bytes += 997) {
			assert_int_equal(
				expand(f->scratch, codecs[codec].expand, f->in, bytes, NULL, UNIT),
				-EIO);
			assert_int_equal(expand(f->scratch, codecs[codec].expand, f->in,
						f->in_bytes, f->unit, UNIT),
					 0);
		}
	}
}

static void the_input_buffer_grows_and_is_kept(void **state)
{
	struct fixture *f = *state;
	void *large = vd_scratch_input(f->scratch, 10000);

	assert_non_null(large);
	memset(large, 1, 10000);
	assert_ptr_equal(vd_scratch_input(f->scratch, 10000), large);
	assert_ptr_equal(vd_scratch_input(f->scratch, 1), large);
	large = vd_scratch_input(f->scratch, 100000);
	assert_non_null(large);
	memset(large, 1, 100000);
}

static void a_large_input_buffer_is_not_kept(void **state)
{
	struct fixture *f = *state;
	void *small = vd_scratch_input(f->scratch, 1 << 20);

	vd_scratch_rest(f->scratch);
	assert_ptr_equal(vd_scratch_input(f->scratch, 1 << 20), small);
	assert_non_null(vd_scratch_input(f->scratch, 2 << 20));
	vd_scratch_rest(f->scratch);
	assert_true(malloc_usable_size(vd_scratch_input(f->scratch, 10)) < 1 << 20);
}

static void a_buffer_without_memory_is_told(void **state)
{
	struct fixture *f = *state;

	assert_null(vd_scratch_input(f->scratch, PTRDIFF_MAX));
	assert_non_null(vd_scratch_input(f->scratch, 10));
}

static void freeing_nothing_is_fine(void **state)
{
	(void)state;
	vd_scratch_free(NULL);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_free)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		WITH_SCRATCH(a_whole_unit_is_expanded),
		WITH_SCRATCH(the_largest_cluster_is_expanded),
		WITH_SCRATCH(a_stream_that_gives_less_or_more_is_refused),
		WITH_SCRATCH(input_behind_the_end_is_ignored),
		WITH_SCRATCH(every_cut_input_is_refused),
		WITH_SCRATCH(damaged_input_touches_nothing_else),
		WITH_SCRATCH(noise_is_refused),
		WITH_SCRATCH(several_zstd_frames_make_one_unit),
		WITH_SCRATCH(a_zstd_frame_that_may_be_skipped_is),
		WITH_SCRATCH(a_zstd_checksum_is_checked),
		WITH_SCRATCH(a_zstd_window_of_any_size_is_taken),
		WITH_SCRATCH(a_failure_spoils_nothing_for_the_next),
		WITH_SCRATCH(the_input_buffer_grows_and_is_kept),
		WITH_SCRATCH(a_large_input_buffer_is_not_kept),
		WITH_SCRATCH(a_buffer_without_memory_is_told),
		cmocka_unit_test(freeing_nothing_is_fine),
	};

	return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
