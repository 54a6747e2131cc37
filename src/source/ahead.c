/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers are recognised by where they go on, with some tolerance: the kernel's requests are
 * answered by several threads and come in any order, and a dynamic VHD has a bitmap between its blocks.
 * A reader's first step in order has two blocks read ahead, each further one twice as many.
 *
 * A block that has been read to its end is the first to make way, then the one that was touched longest
 * ago. No transfer is begun with the lock held: begin() takes locks of its own, which are held
 * while it calls done().
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "source/ahead.h"

#define STREAMS 8
#define DEPTH_FIRST 2

enum state { EMPTY, READING, VALID };

struct slot {
	struct vd_transfer transfer;
	struct vd_ahead *ahead;
	enum state state;
	uint64_t block; /* the place in the source, in blocks */
	uint64_t used; /* time of last use, or 0: read to its end */
	unsigned pins; /* threads that copy from it */
	char *buffer; /* NULL until first used */
};

/* A reader. */
struct stream {
	uint64_t next; /* where it will go on; 0: none */
	uint64_t used;
	unsigned depth; /* blocks ahead */
};

struct vd_ahead {
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	size_t block_bytes;
	uint64_t size;
	vd_transfer_begin *begin;
	void *context;
	uint64_t clock;
	struct stream streams[STREAMS];
	struct slot slots[VD_AHEAD_SLOTS];
};

static void arrived(struct vd_transfer *transfer, int r)
{
	struct slot *slot = transfer->owner;
	struct vd_ahead *ahead = slot->ahead;

	pthread_mutex_lock(&ahead->lock);
	slot->state = r == 0 ? VALID : EMPTY;
	pthread_cond_broadcast(&ahead->arrived);
	pthread_mutex_unlock(&ahead->lock);
}

int vd_ahead_new(size_t block_bytes, uint64_t size, vd_transfer_begin *begin, void *context,
		 struct vd_ahead **out)
{
	struct vd_ahead *ahead = calloc(1, sizeof(*ahead));

	if (!ahead)
		return -ENOMEM;
	pthread_mutex_init(&ahead->lock, NULL);
	pthread_cond_init(&ahead->arrived, NULL);
	ahead->block_bytes = block_bytes;
	ahead->size = size;
	ahead->begin = begin;
	ahead->context = context;
	for (unsigned i = 0; i < VD_AHEAD_SLOTS; i++)
		ahead->slots[i].ahead = ahead;
	*out = ahead;
	return 0;
}

void vd_ahead_free(struct vd_ahead *ahead)
{
	if (!ahead)
		return;
	for (unsigned i = 0; i < VD_AHEAD_SLOTS; i++)
		free(ahead->slots[i].buffer);
	pthread_cond_destroy(&ahead->arrived);
	pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}

static struct slot *slot_find(struct vd_ahead *ahead, uint64_t block)
{
	for (unsigned i = 0; i < VD_AHEAD_SLOTS; i++) {
		struct slot *slot = &ahead->slots[i];

		if (slot->state != EMPTY && slot->block == block)
			return slot;
	}
	return NULL;
}

/* A slot to read a block into, or NULL. */
static struct slot *slot_take(struct vd_ahead *ahead)
{
	struct slot *best = NULL;

	for (unsigned i = 0; i < VD_AHEAD_SLOTS; i++) {
		struct slot *slot = &ahead->slots[i];

		if (slot->state == READING || slot->pins > 0)
			continue;
		if (!best || slot->state == EMPTY ||
		    (best->state != EMPTY && slot->used < best->used))
			best = slot;
		if (slot->state == EMPTY)
			break;
	}
	if (best && !best->buffer)
		best->buffer = malloc(ahead->block_bytes);
	return best && best->buffer ? best : NULL;
}

/* The reader that goes on at `host`, or a new one in place of the one not seen for longest. */
static struct stream *stream_find(struct vd_ahead *ahead, uint64_t host)
{
	uint64_t slack = 2 * (uint64_t)ahead->block_bytes;
	struct stream *oldest = &ahead->streams[0];

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &ahead->streams[i];

		if (stream->next && host + slack >= stream->next && host <= stream->next + slack)
			return stream;
		if (stream->used < oldest->used)
			oldest = stream;
	}
	*oldest = (struct stream){ .next = 0 };
	return oldest;
}

/* Note a read up to `end`; returns the byte up to which to read ahead, or 0: not at all. */
static uint64_t stream_note(struct vd_ahead *ahead, uint64_t host, uint64_t end)
{
	struct stream *stream = stream_find(ahead, host);
	uint64_t far;

	stream->used = ++ahead->clock;
	if (stream->next == 0) {
		stream->next = end;
		return 0;
	}
	if (end > stream->next) {
		stream->next = end;
		stream->depth = stream->depth ? (unsigned)vd_min(stream->depth * 2, VD_AHEAD_DEPTH)
					      : DEPTH_FIRST;
	}
	far = stream->next + (uint64_t)stream->depth * ahead->block_bytes;
	return stream->depth ? vd_min(far, ahead->size) : 0;
}

/* Prepare the reading of what is missing in [host, end): slots to begin with. How many. */
static unsigned slots_prepare(struct vd_ahead *ahead, uint64_t host, uint64_t end,
			      struct slot **slots)
{
	size_t bytes = ahead->block_bytes;
	unsigned count = 0;

	for (uint64_t block = host / bytes; block * bytes < end; block++) {
		struct slot *slot = slot_find(ahead, block) ? NULL : slot_take(ahead);

		if (!slot && !slot_find(ahead, block))
			break;
		if (!slot)
			continue;
		slot->state = READING;
		slot->block = block;
		slot->used = ++ahead->clock;
		slot->transfer = (struct vd_transfer){
			.buffer = slot->buffer,
			.bytes = (size_t)vd_min(bytes, ahead->size - block * bytes),
			.host = block * bytes,
			.done = arrived,
			.owner = slot,
		};
		slots[count++] = slot;
	}
	return count;
}

/* How much of a read the caller must do, up to the first block that is here or on its way. */
static size_t gap(struct vd_ahead *ahead, size_t bytes, uint64_t host)
{
	uint64_t block = host / ahead->block_bytes + 1, end = host + bytes;

	while (block * ahead->block_bytes < end && !slot_find(ahead, block))
		block++;
	return (size_t)(vd_min(block * ahead->block_bytes, end) - host);
}

/* Copy from a slot that is there. Called with the lock, which it gives back for the time. */
static size_t slot_copy(struct vd_ahead *ahead, struct slot *slot, void *buffer, size_t bytes,
			uint64_t host)
{
	size_t skip = (size_t)(host - slot->transfer.host);
	size_t count = (size_t)vd_min(bytes, slot->transfer.bytes - skip);

	slot->pins++;
	slot->used = skip + count == slot->transfer.bytes ? 0 : ++ahead->clock;
	pthread_mutex_unlock(&ahead->lock);
	memcpy(buffer, slot->buffer + skip, count);
	pthread_mutex_lock(&ahead->lock);
	slot->pins--;
	return count;
}

size_t vd_ahead_read(struct vd_ahead *ahead, void *buffer, size_t *bytes, uint64_t host)
{
	uint64_t block = host / ahead->block_bytes, far;
	struct slot *begin[VD_AHEAD_SLOTS], *slot;
	unsigned count;
	size_t copied = 0;

	pthread_mutex_lock(&ahead->lock);
	far = stream_note(ahead, host, host + *bytes);
	count = slots_prepare(ahead, host, far, begin);
	pthread_mutex_unlock(&ahead->lock);
	for (unsigned i = 0; i < count; i++)
		ahead->begin(ahead->context, &begin[i]->transfer);
	pthread_mutex_lock(&ahead->lock);
	while ((slot = slot_find(ahead, block)) && slot->state == READING)
		pthread_cond_wait(&ahead->arrived, &ahead->lock);
	if (slot)
		copied = slot_copy(ahead, slot, buffer, *bytes, host);
	else
		*bytes = gap(ahead, *bytes, host);
	pthread_mutex_unlock(&ahead->lock);
	return copied;
}
