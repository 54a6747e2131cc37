/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decompression, and the buffers that one thread needs for it.
 *
 * The only file that knows libdeflate and libzstd is codec.c. A scratch belongs to one thread;
 * what it allocates it keeps, so that a read allocates nothing after the first.
 */
#ifndef VD_SUPPORT_CODEC_H
#define VD_SUPPORT_CODEC_H

#include <stddef.h>
#include <stdint.h>

struct vd_scratch;

int vd_scratch_new(struct vd_scratch **out);
void vd_scratch_free(struct vd_scratch *scratch); /* NULL is fine */

/* The scratch's buffer for compressed input, at least `bytes` long, or NULL for want of memory. */
void *vd_scratch_input(struct vd_scratch *scratch, size_t bytes);

/* The input is not needed any more: a large buffer is freed, since there are many threads. */
void vd_scratch_rest(struct vd_scratch *scratch);

/*
 * Expand raw deflate (no zlib header), or zstd (one or several frames), from in[0..in_bytes) to
 * exactly out_bytes bytes. Input that is left over after the end of the stream is normal. A
 * stream that is damaged, or gives less or more than out_bytes, is -EIO. -ENOMEM.
 */
int vd_inflate(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
	       size_t out_bytes);
int vd_unzstd(struct vd_scratch *scratch, const void *in, size_t in_bytes, void *out,
	      size_t out_bytes);

#endif
