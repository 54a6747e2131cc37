/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holes and data in order, from vd_disk_map() and the holes of the host files. */
#include "config.h"

#include "base/bytes.h"
#include "disk/walk.h"

void vd_walk_init(struct vd_walk *walk, const struct vd_disk *disk, uint64_t virt)
{
	vd_walk_init_part(walk, disk, virt, disk->size);
}

void vd_walk_init_part(struct vd_walk *walk, const struct vd_disk *disk, uint64_t virt,
		       uint64_t end)
{
	walk->disk = disk;
	walk->virt = virt;
	walk->end = end;
	walk->bad_bytes = 0;
	walk->next = walk->count = 0;
	walk->host = NULL;
}

/* Is the host byte in a hole? *end: how far, in the host file, that holds. */
static bool host_is_hole(struct vd_walk *walk, const struct vd_source *from, uint64_t where,
			 uint64_t *end)
{
	if (walk->host != from || where < walk->host_start || where >= walk->host_end) {
		vd_source_extent(from, where, &walk->host_is_hole, &walk->host_end);
		walk->host = from;
		walk->host_start = where;
	}
	*end = walk->host_end;
	return walk->host_is_hole;
}

/* The piece of a raw extent that begins at walk->virt. */
static void raw_piece(struct vd_walk *walk, const struct vd_extent *extent, struct vd_piece *piece)
{
	uint64_t where = extent->run.where + (walk->virt - extent->start);
	uint64_t end;

	piece->is_data = !host_is_hole(walk, extent->run.from, where, &end);
	piece->end = vd_min(piece->end, walk->virt + (end - where));
}

int vd_walk_next(struct vd_walk *walk, struct vd_piece *piece)
{
	const struct vd_extent *extent;

	if (walk->virt == walk->end)
		return 0;
	if (walk->next == walk->count) {
		int count = vd_disk_map(walk->disk, walk->virt, walk->end - walk->virt,
					walk->extents, VD_WALK_EXTENTS);

		if (count < 0)
			return count;
		walk->next = 0;
		walk->count = (unsigned)count;
	}
	extent = &walk->extents[walk->next];
	*piece = (struct vd_piece){
		.start = walk->virt,
		.end = extent->start + extent->length,
		.is_data = extent->run.kind != VD_ZERO,
	};
	if (extent->run.kind == VD_RAW && !extent->run.from->dense)
		raw_piece(walk, extent, piece);
	else if (extent->run.kind == VD_BAD)
		walk->bad_bytes += piece->end - piece->start;
	walk->told = extent;
	walk->virt = piece->end;
	if (piece->end == extent->start + extent->length)
		walk->next++;
	return 1;
}
