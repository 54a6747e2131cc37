/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two walks side by side. A walk's piece lasts until the other one's is used up as well; what both
 * have in common at `virt` is judged as a whole, or, when it must be compared, chunk by chunk.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/diff.h"

#define CHUNK_BYTES ((size_t)1 << 20)

struct side {
	const struct vd_disk *disk;
	struct vd_walk walk;
	struct vd_piece piece; /* holds virt, unless the disk has ended */
	uint8_t *chunk; /* bytes from chunk_start on; NULL: nothing is compared */
};

struct vd_diff {
	struct side old, new;
	uint64_t virt; /* the next byte to tell of */
	uint64_t chunk_start, chunk_end; /* what both chunks hold */
	uint64_t careful_end; /* up to here one unit is read at a time: something is damaged */
	uint64_t unit_bytes;
	struct vd_scratch *scratch;
	uint64_t bad_bytes, compared_bytes;
	struct vd_joined unreadable;
};

static void side_init(struct side *side, const struct vd_disk *disk)
{
	side->disk = disk;
	vd_walk_init(&side->walk, disk, 0);
	side->piece = (struct vd_piece){ 0 };
}

int vd_diff_new(const struct vd_disk *old_disk, const struct vd_disk *new_disk, bool compare,
		unsigned unit_bits, struct vd_diff **out)
{
	struct vd_diff *diff = calloc(1, sizeof(*diff));

	if (!diff)
		return -ENOMEM;
	vd_joined_init(&diff->unreadable, VD_UNREADABLE_MAX);
	side_init(&diff->old, old_disk);
	side_init(&diff->new, new_disk);
	diff->unit_bytes = vd_min(UINT64_C(1) << new_disk->cluster_bits, CHUNK_BYTES);
	if (unit_bits > 0)
		diff->unit_bytes = vd_min(UINT64_C(1) << unit_bits, diff->unit_bytes);
	if (compare) {
		diff->old.chunk = malloc(CHUNK_BYTES);
		diff->new.chunk = malloc(CHUNK_BYTES);
		if (!diff->old.chunk || !diff->new.chunk || vd_scratch_new(&diff->scratch) < 0) {
			vd_diff_free(diff);
			return -ENOMEM;
		}
	}
	*out = diff;
	return 0;
}

void vd_diff_free(struct vd_diff *diff)
{
	if (!diff)
		return;
	free(diff->old.chunk);
	free(diff->new.chunk);
	vd_scratch_free(diff->scratch);
	vd_joined_clear(&diff->unreadable);
	free(diff);
}

uint64_t vd_diff_bad_bytes(const struct vd_diff *diff)
{
	return diff->bad_bytes;
}

const struct vd_joined *vd_diff_unreadable(const struct vd_diff *diff)
{
	return &diff->unreadable;
}

/* The bytes from virt to `end` cannot be read in one of the disks. */
static void add_bad(struct vd_diff *diff, uint64_t end)
{
	diff->bad_bytes += end - diff->virt;
	vd_joined_add_bytes(&diff->unreadable, diff->new.disk->cluster_bits, diff->virt, end);
}

uint64_t vd_diff_compared_bytes(const struct vd_diff *diff)
{
	return diff->compared_bytes;
}

/* Make the piece hold virt. Past the end of the disk there is a hole without end. */
static int side_reach(struct side *side, uint64_t virt)
{
	while (virt >= side->piece.end) {
		int r = vd_walk_next(&side->walk, &side->piece);

		if (r < 0)
			return r;
		if (r == 0)
			side->piece = (struct vd_piece){ .start = virt, .end = UINT64_MAX };
	}
	return 0;
}

static bool side_is_bad(const struct side *side)
{
	return side->piece.is_data && side->walk.told->run.kind == VD_BAD;
}

/* Does the metadata prove that the two pieces have the same bytes from virt on? */
static bool is_proven(const struct side *a, const struct side *b, uint64_t virt)
{
	const struct vd_extent *one = a->walk.told, *other = b->walk.told;
	const struct vd_run *left, *right;

	if (!a->piece.is_data || !b->piece.is_data)
		return a->piece.is_data == b->piece.is_data;
	left = &one->run;
	right = &other->run;
	if (left->kind != right->kind || left->kind == VD_BAD ||
	    !vd_source_has_same_bytes(left->from, right->from))
		return false;
	if (left->kind == VD_RAW)
		return left->where + (virt - one->start) == right->where + (virt - other->start);
	return left->where == right->where && left->coded_bytes == right->coded_bytes &&
	       left->start == right->start && left->length == right->length &&
	       one->image->format == other->image->format &&
	       strcmp(one->image->compression, other->image->compression) == 0;
}

/* Have [start, end) of the disk in the chunk. */
static int side_read(const struct side *side, uint64_t start, uint64_t end,
		     struct vd_scratch *scratch)
{
	uint64_t here = vd_max(vd_min(end, side->disk->size), start) - start;

	memset(side->chunk + here, 0, (size_t)(end - start - here));
	return here ? vd_disk_read(side->disk, side->chunk, (size_t)here, start, scratch) : 0;
}

/* The end of the unit that holds virt, or `end` before that. */
static uint64_t unit_end(const struct vd_diff *diff, uint64_t virt, uint64_t end)
{
	uint64_t rest = diff->unit_bytes - virt % diff->unit_bytes;

	return end - virt < rest ? end : virt + rest;
}

/*
 * Have the bytes from virt on, up to `end` at most, in both chunks. -EIO: those of one unit cannot
 * be read; chunk_end says where it ends.
 */
static int chunks_read(struct vd_diff *diff, uint64_t end)
{
	uint64_t start = diff->virt, rest = CHUNK_BYTES - start % CHUNK_BYTES;
	int r;

	if (end - start > rest)
		end = start + rest;
	if (start < diff->careful_end)
		end = unit_end(diff, start, end);
	diff->chunk_start = start;
	diff->chunk_end = end;
	r = side_read(&diff->old, start, end, diff->scratch);
	if (r == 0)
		r = side_read(&diff->new, start, end, diff->scratch);
	if (r < 0 && r != -ENOMEM && unit_end(diff, start, end) < end) {
		diff->careful_end = end;
		return chunks_read(diff, end);
	}
	return r == 0 || r == -ENOMEM ? r : -EIO;
}

/* Compare from virt on; `piece` ends at `end` or before and is of one kind. */
static int compare(struct vd_diff *diff, uint64_t end, struct vd_piece *piece)
{
	uint64_t at = diff->virt;
	int r = 0;

	if (at < diff->chunk_start || at >= diff->chunk_end) {
		r = chunks_read(diff, end);
		diff->compared_bytes += r == 0 ? diff->chunk_end - at : 0;
	}
	end = vd_min(end, diff->chunk_end);
	if (r == -EIO) {
		add_bad(diff, end);
		diff->chunk_end = diff->chunk_start;
		piece->is_data = true;
		piece->end = end;
		return 0;
	}
	while (r == 0 && at < end) {
		uint64_t next = unit_end(diff, at, end), skip = at - diff->chunk_start;
		bool differs = memcmp(diff->old.chunk + skip, diff->new.chunk + skip,
				      (size_t)(next - at)) != 0;

		if (at > diff->virt && differs != piece->is_data)
			break;
		piece->is_data = differs;
		at = next;
	}
	piece->end = at;
	return r;
}

int vd_diff_next(struct vd_diff *diff, struct vd_piece *piece)
{
	uint64_t end;
	int r;

	if (diff->virt == diff->new.disk->size)
		return 0;
	r = side_reach(&diff->new, diff->virt);
	if (r == 0)
		r = side_reach(&diff->old, diff->virt);
	if (r < 0)
		return r;
	end = vd_min(diff->new.piece.end, diff->old.piece.end);
	*piece = (struct vd_piece){ .start = diff->virt, .end = end, .is_data = true };
	if (side_is_bad(&diff->old) || side_is_bad(&diff->new))
		add_bad(diff, end);
	else if (is_proven(&diff->old, &diff->new, diff->virt))
		piece->is_data = false;
	else if (diff->new.chunk)
		r = compare(diff, end, piece);
	if (r < 0)
		return r;
	diff->virt = piece->end;
	return 1;
}
