/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading ahead from a source that is far away: whoever reads in order finds the next blocks under
 * way or there already, several at a time, so that the time a server takes to answer is paid once
 * and not for each request.
 *
 * The kernel's read-ahead does not suffice: an ordinary user's mount has 128 KiB of it, and it does
 * not see what is read out of order in the image or compressed. Memory is bounded by VD_AHEAD_SLOTS blocks.
 * A block that cannot be read is forgotten: the reader that wants it meets the error himself.
 * Self-locking; any number of threads.
 */
#ifndef VD_SOURCE_AHEAD_H
#define VD_SOURCE_AHEAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VD_AHEAD_SLOTS 32 /* blocks that are kept */
#define VD_AHEAD_DEPTH 16 /* blocks that one reader may be ahead */

/* One read of exactly `bytes` at `host`, which is inside the source. */
struct vd_transfer {
	void *buffer;
	size_t bytes;
	uint64_t host;
	/* It has ended, with 0 or -errno. Called once, by any thread; the transfer is free then. */
	void (*done)(struct vd_transfer *transfer, int r);
	void *owner; /* of whoever reads */
	size_t arrived; /* bytes so far; 0 at first, for whoever begins */
};

/* Begin to read. done() may be called before this returns. */
typedef void vd_transfer_begin(void *context, struct vd_transfer *transfer);

struct vd_ahead;

/*
 * For a source of `size` bytes, read by begin(context, ...) in blocks of `block_bytes`, the last
 * one shorter. 0 or -ENOMEM.
 */
int vd_ahead_new(size_t block_bytes, uint64_t size, vd_transfer_begin *begin, void *context,
		 struct vd_ahead **out);

/* No transfer may be under way any more. NULL is fine. */
void vd_ahead_free(struct vd_ahead *ahead);

/*
 * A read of `*bytes` at `host` (inside the source). Returns how many bytes, from the first one on,
 * were copied to the buffer; perhaps after waiting. 0: they are not here, the caller reads *bytes,
 * which may have become less, by himself. Begins to read ahead where that is of use.
 */
size_t vd_ahead_read(struct vd_ahead *ahead, void *buffer, size_t *bytes, uint64_t host);

#endif
