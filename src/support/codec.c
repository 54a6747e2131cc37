/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libdeflate and libzstd behind one signature. Decoders are made when first needed and kept in
 * the thread's scratch.
 *
 * libdeflate is asked with a NULL for the size it made: it then answers success only for exactly
 * out_bytes bytes. zstd is given one frame after the other, since a cluster may consist of several.
 * It is not streamed: a frame that is all there needs no window beside its output, so that what the
 * image says of its window costs no memory.
 */
#include "config.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "support/codec.h"

/* Input larger than that, of clusters of 2 MiB, is not kept from one unit to the next. */
#define INPUT_KEPT ((size_t)1 << 20)

struct vd_scratch {
	struct libdeflate_decompressor *deflate;
	ZSTD_DCtx *zstd;
	void *input;
	size_t input_bytes;
};

int vd_scratch_new(struct vd_scratch **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void vd_scratch_free(struct vd_scratch *scratch)
{
	if (!scratch)
		return;
	if (scratch->deflate)
		libdeflate_free_decompressor(scratch->deflate);
	ZSTD_freeDCtx(scratch->zstd);
	free(scratch->input);
	free(scratch);
}

void *vd_scratch_input(struct vd_scratch *scratch, size_t bytes)
{
	if (scratch->input_bytes < bytes) {
		free(scratch->input);
		scratch->input = malloc(bytes);
		scratch->input_bytes = scratch->input ? bytes : 0;
	}
	return scratch->input;
}

void vd_scratch_rest(struct vd_scratch *scratch)
{
	if (scratch->input_bytes <= INPUT_KEPT)
		return;
	free(scratch->input);
	scratch->input = NULL;
	scratch->input_bytes = 0;
}

int vd_inflate(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
	       size_t out_bytes)
{
	if (!scratch->deflate)
		scratch->deflate = libdeflate_alloc_decompressor();
	if (!scratch->deflate)
		return -ENOMEM;
	if (libdeflate_deflate_decompress(scratch->deflate, in, in_bytes, out, out_bytes, NULL) !=
	    LIBDEFLATE_SUCCESS)
		return -EIO;
	return 0;
}

int vd_unzstd(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
	      size_t out_bytes)
{
	size_t used = 0, made = 0;

	if (!scratch->zstd)
		scratch->zstd = ZSTD_createDCtx();
	if (!scratch->zstd)
		return -ENOMEM;
	do {
		const uint8_t *frame = (const uint8_t *)in + used;
		size_t bytes = ZSTD_findFrameCompressedSize(frame, in_bytes - used);
		size_t got;

		if (ZSTD_isError(bytes))
			return -EIO; /* no frame, or not all of it */
		got = ZSTD_decompressDCtx(scratch->zstd, (uint8_t *)out + made, out_bytes - made,
					  frame, bytes);
		if (ZSTD_isError(got))
			return ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation ? -ENOMEM
										      : -EIO;
		used += bytes;
		made += got;
	} while (made < out_bytes);
	return 0;
}
