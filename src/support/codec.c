/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libdeflate and libzstd behind one signature. Decoders are made when first needed and kept in
 * the thread's scratch.
 *
 * libdeflate is asked with a NULL for the size it made: it then answers success only for exactly
 * out_bytes bytes. zstd is streamed, since a cluster may consist of several frames.
 */
#include "config.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "support/codec.h"

/* The largest window to accept: 8 MiB. A cluster has 2 MiB, so that no honest writer needs more. */
#define ZSTD_WINDOW_LOG_MAX 23

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

static int zstd_prepare(struct vd_scratch *scratch)
{
	if (!scratch->zstd)
		scratch->zstd = ZSTD_createDCtx();
	if (!scratch->zstd)
		return -ENOMEM;
	ZSTD_DCtx_reset(scratch->zstd, ZSTD_reset_session_only);
	if (ZSTD_isError(ZSTD_DCtx_setParameter(scratch->zstd, ZSTD_d_windowLogMax,
						ZSTD_WINDOW_LOG_MAX)))
		return -EIO;
	return 0;
}

int vd_unzstd(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
	      size_t out_bytes)
{
	ZSTD_inBuffer from = { .src = in, .size = in_bytes };
	ZSTD_outBuffer to = { .dst = out, .size = out_bytes };
	size_t left = 1; /* of the current frame; 0: it is complete */
	int r = zstd_prepare(scratch);

	if (r < 0)
		return r;
	while (to.pos < to.size || left > 0) {
		size_t in_before = from.pos, out_before = to.pos;

		left = ZSTD_decompressStream(scratch->zstd, &to, &from);
		if (ZSTD_isError(left))
			return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? -ENOMEM
										       : -EIO;
		if (from.pos == in_before && to.pos == out_before && (left > 0 || to.pos < to.size))
			return -EIO; /* no progress: too little input, or more output than fits */
	}
	return 0;
}
