/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lengths, not places, are stored: as variable-length numbers of seven bits a byte, in sectors
 * when a length is whole sectors (nearly always), so that an interval of 64 KiB takes two bytes.
 * They stand in blocks of BLOCK_LENGTHS lengths that do not move; the block's head
 * says where on the disk it begins and of which kind its first interval is. Finding a place is a
 * binary search over the heads and then a walk over at most one block.
 */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "map/intervals.h"

enum {
	BLOCK_LENGTHS = 256,
	LENGTH_BYTES_MAX = 10, /* 64 bits, seven a byte */
	CHUNK_BYTES = 64 << 10, /* blocks are cut from chunks, so that little is left unused */
	HEADS_AT_ONCE = 1024,
};

struct head {
	uint64_t start; /* virtual byte of the first interval */
	const uint8_t *bytes; /* of the lengths */
	uint16_t count; /* lengths in the block */
	bool first_is_data;
};

struct chunk {
	struct chunk *next;
	uint8_t bytes[CHUNK_BYTES];
};

struct vd_intervals {
	atomic_size_t own_room; /* bytes that may still be taken */
	atomic_size_t *room_left; /* that, or of the list whose limit is shared */
	size_t memory; /* taken by this one */
	uint64_t end;
	struct head *heads;
	size_t count, room; /* of heads */
	struct chunk *chunks; /* the one being filled first */
	size_t used; /* bytes of it */
};

int vd_intervals_new(size_t limit, struct vd_intervals **out)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	atomic_init(&(*out)->own_room, limit);
	(*out)->room_left = &(*out)->own_room;
	return 0;
}

int vd_intervals_new_sharing(struct vd_intervals *other, struct vd_intervals **out)
{
	int r = vd_intervals_new(0, out);

	if (r == 0)
		(*out)->room_left = other->room_left;
	return r;
}

void vd_intervals_free(struct vd_intervals *list)
{
	if (!list)
		return;
	while (list->chunks) {
		struct chunk *chunk = list->chunks;

		list->chunks = chunk->next;
		free(chunk);
	}
	free(list->heads);
	atomic_fetch_add(list->room_left, list->memory);
	free(list);
}

uint64_t vd_intervals_end(const struct vd_intervals *list)
{
	return list->end;
}

size_t vd_intervals_memory(const struct vd_intervals *list)
{
	return list->memory;
}

/* A whole number of sectors in the low bits' favour: bit 0 says that the unit is a byte. */
static unsigned length_put(uint8_t *to, uint64_t length)
{
	uint64_t value = length % VD_SECTOR == 0 ? length / VD_SECTOR << 1 : length << 1 | 1;
	unsigned used = 0;

	while (value >= 0x80) {
		to[used++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	to[used++] = (uint8_t)value;
	return used;
}

static uint64_t length_get(const uint8_t *from, unsigned *used)
{
	uint64_t value = 0;
	unsigned shift = 0;
	uint8_t byte;

	do {
		byte = from[(*used)++];
		value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	return value & 1 ? value >> 1 : (value >> 1) * VD_SECTOR;
}

/* Make room for `bytes` more of memory within the limit. */
static bool memory_take(struct vd_intervals *list, size_t bytes)
{
	size_t left = atomic_load(list->room_left);

	do {
		if (left < bytes)
			return false;
	} while (!atomic_compare_exchange_weak(list->room_left, &left, left - bytes));
	list->memory += bytes;
	return true;
}

static void memory_give_back(struct vd_intervals *list, size_t bytes)
{
	list->memory -= bytes;
	atomic_fetch_add(list->room_left, bytes);
}

static bool chunk_add(struct vd_intervals *list)
{
	struct chunk *chunk;

	if (!memory_take(list, sizeof(*chunk)))
		return false;
	chunk = malloc(sizeof(*chunk));
	if (!chunk) {
		memory_give_back(list, sizeof(*chunk));
		return false;
	}
	chunk->next = list->chunks;
	list->chunks = chunk;
	list->used = 0;
	return true;
}

/* Make room for one more head. */
static bool head_reserve(struct vd_intervals *list)
{
	size_t room = list->room + HEADS_AT_ONCE;
	struct head *heads;

	if (list->count < list->room)
		return true;
	if (!memory_take(list, HEADS_AT_ONCE * sizeof(*heads)))
		return false;
	heads = realloc(list->heads, room * sizeof(*heads));
	if (!heads) {
		memory_give_back(list, HEADS_AT_ONCE * sizeof(*heads));
		return false;
	}
	list->heads = heads;
	list->room = room;
	return true;
}

bool vd_intervals_add(struct vd_intervals *list, uint64_t length, bool is_data)
{
	/* A block's lengths lie in one chunk: a new chunk begins a new block. */
	bool full = !list->chunks || list->used + LENGTH_BYTES_MAX > CHUNK_BYTES;
	bool begins = full || list->heads[list->count - 1].count == BLOCK_LENGTHS;

	/* The head's room first: a chunk without a head would belong to the block before. */
	if ((begins && !head_reserve(list)) || (full && !chunk_add(list)))
		return false;
	if (begins)
		list->heads[list->count++] = (struct head){
			.start = list->end,
			.bytes = list->chunks->bytes + list->used,
			.first_is_data = is_data,
		};
	list->used += length_put(list->chunks->bytes + list->used, length);
	list->heads[list->count - 1].count++;
	list->end += length;
	return true;
}

/* Put `at` on the first interval of a block. */
static void block_begin(const struct vd_intervals *list, size_t block, struct vd_interval *at)
{
	const struct head *head = &list->heads[block];

	*at = (struct vd_interval){
		.start = head->start,
		.is_data = head->first_is_data,
		.block = block,
	};
	at->end = at->start + length_get(head->bytes, &at->used);
}

void vd_intervals_find(const struct vd_intervals *list, uint64_t virt, struct vd_interval *found)
{
	size_t low = 0, high = list->count;

	while (high - low > 1) { /* heads[low].start <= virt < heads[high].start */
		size_t middle = low + (high - low) / 2;

		if (list->heads[middle].start <= virt)
			low = middle;
		else
			high = middle;
	}
	block_begin(list, low, found);
	while (found->end <= virt && vd_intervals_next(list, found))
		;
}

bool vd_intervals_next(const struct vd_intervals *list, struct vd_interval *at)
{
	const struct head *head = &list->heads[at->block];

	if (at->number + 1u < head->count) {
		at->number++;
		at->start = at->end;
		at->end += length_get(head->bytes, &at->used);
		at->is_data = !at->is_data;
		return true;
	}
	if (at->block + 1 == list->count)
		return false;
	block_begin(list, at->block + 1, at);
	return true;
}
