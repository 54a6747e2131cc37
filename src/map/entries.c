/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What qemu-img map says of each kind of run, and its rule for joining neighbours: all fields are
 * alike, and offsets, where there are any, go on. QEMU's view differs from the interval map in that
 * a hole of the file is mostly data to it, and so is what is missing at the end of a file.
 */
#include "config.h"

#include "base/bytes.h"
#include "map/entries.h"

void vd_entries_init(struct vd_entries *entries, const struct vd_disk *disk)
{
	vd_walk_init(&entries->walk, disk, 0);
	entries->has_next = false;
	vd_joined_init(&entries->unreadable, VD_UNREADABLE_MAX);
	for (unsigned i = 0; i < disk->count; i++) {
		const struct vd_image *image = disk->layers[i];

		entries->holes[i] = image->format->host_hole ? image->format->host_hole(image)
							     : VD_HOLE_IS_DATA;
	}
}

void vd_entries_clear(struct vd_entries *entries)
{
	vd_joined_clear(&entries->unreadable);
}

/* The piece that the walk just told of. */
static struct vd_entry entry_make(const struct vd_entries *entries, const struct vd_piece *piece)
{
	const struct vd_extent *extent = entries->walk.told;
	const struct vd_run *run = &extent->run;
	enum vd_host_hole holes = entries->holes[extent->depth];
	bool raw = run->kind == VD_RAW || run->cut;
	bool is_hole = raw && !piece->is_data;
	struct vd_entry entry = {
		.start = piece->start,
		.length = piece->end - piece->start,
		.depth = extent->depth,
		.present = extent->image,
		.compressed = run->kind == VD_CODED,
	};

	if (raw) {
		entry.zero = is_hole && holes != VD_HOLE_IS_DATA;
		entry.data = !(is_hole && holes == VD_HOLE_IS_HOLE);
	} else {
		entry.zero = run->kind == VD_ZERO;
		entry.data = !entry.zero;
	}
	entry.has_offset = run->kind != VD_CODED && run->kind != VD_BAD && run->from;
	if (entry.has_offset)
		entry.offset = run->where + (piece->start - extent->start);
	return entry;
}

static bool entry_continues(const struct vd_entry *a, const struct vd_entry *b)
{
	return a->depth == b->depth && a->present == b->present && a->zero == b->zero &&
	       a->data == b->data && a->compressed == b->compressed &&
	       a->has_offset == b->has_offset &&
	       (!a->has_offset || a->offset + a->length == b->offset);
}

int vd_entries_next(struct vd_entries *entries, struct vd_entry *entry)
{
	struct vd_piece piece;
	bool any = entries->has_next;
	int r;

	*entry = entries->next;
	entries->has_next = false;
	while ((r = vd_walk_next(&entries->walk, &piece)) > 0) {
		struct vd_entry next = entry_make(entries, &piece);

		if (entries->walk.told->run.kind == VD_BAD)
			vd_joined_add_bytes(&entries->unreadable, entries->walk.disk->cluster_bits,
					    piece.start, piece.end);
		if (!any) {
			*entry = next;
			any = true;
		} else if (entry_continues(entry, &next)) {
			entry->length += next.length;
		} else {
			entries->next = next;
			entries->has_next = true;
			return 1;
		}
	}
	return r < 0 ? r : any;
}
