/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file has six areas, each of whole clusters, in this order, so that a reader that cannot
 * seek has seen all tables before the first data:
 *
 *	header, refcount table, refcount blocks, L1 table, L2 tables, data
 *
 * Only L2 tables with data are there, and only clusters with data, both in the order of the disk.
 * Nothing of this is stored. Clusters with data come as pairs (pairs.h); a pair's entries stand
 * side by side in the L2 tables, its clusters side by side in the data, its L2 tables in the L1
 * table. So all areas are made by walking over the pairs, and a pair is found from any place in any
 * area by its number of clusters and tables before it. Marks on the way, whose number is
 * bounded, hold these for every so many pairs; from mark to mark pairs are had as a stretch, which
 * is what it was when the view was made, or an error.
 *
 * The cluster size is that of the top layer, which is the grain of the map as JSON: then a cluster
 * is in the file exactly if it is in that list, and nothing that the image keeps apart is joined
 * (VHD: its blocks, mostly 2 MiB; fixed and raw disks: 64 KiB, as qemu-img makes them). It grows
 * only where QEMU's limits leave no choice: L1 table 32 MiB, refcount table 8 MiB. Refcounts have
 * QEMU's default of 16 bits, so that a copy of the file can be given snapshots.
 *
 * QEMU cuts a size that is not whole sectors; the file's disk is rounded up, with zeros.
 *
 * Threads: a view belongs to one until it is made, then it is const; cursors are locked by whoever
 * uses them.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "map/view_parts.h"

enum {
	CLUSTER_BITS_MIN = 9,
	CLUSTER_BITS_MAX = 21,
};

#define L1_ENTRIES_MAX ((UINT64_C(32) << 20) / VD_VIEW_ENTRY_BYTES)
#define REFCOUNT_BLOCKS_MAX ((UINT64_C(8) << 20) / VD_VIEW_ENTRY_BYTES)
/* An entry has the bits 9 to 55 for an offset. */
#define FILE_BYTES_MAX (UINT64_C(1) << 56)

/* --- the shape ------------------------------------------------------------------------------- */

/* Does a disk of that many bytes fit QEMU's limits with such clusters? */
static bool bits_fit(uint64_t bytes, unsigned bits)
{
	uint64_t clusters = vd_div_up(bytes, UINT64_C(1) << bits);
	uint64_t per_block = (UINT64_C(1) << bits) / VD_VIEW_REFCOUNT_BYTES;

	/* All metadata together is less than the data, if that is all of the disk. */
	return vd_div_up(clusters, (UINT64_C(1) << bits) / VD_VIEW_ENTRY_BYTES) <= L1_ENTRIES_MAX &&
	       vd_div_up(clusters, per_block) <= REFCOUNT_BLOCKS_MAX / 2;
}

static unsigned view_bits(const struct vd_disk *disk)
{
	unsigned bits =
		(unsigned)vd_min(vd_max(disk->cluster_bits, CLUSTER_BITS_MIN), CLUSTER_BITS_MAX);

	while (bits < CLUSTER_BITS_MAX && !bits_fit(disk->size, bits))
		bits++;
	return bits;
}

int vd_view_check(const struct vd_disk *disk, struct vd_error *err)
{
	if (bits_fit(disk->size, CLUSTER_BITS_MAX))
		return 0;
	return vd_fail(err, EFBIG,
		       "%s: the disk has %" PRIu64
		       " bytes, more than a QCOW2 file can describe; leave --qcow2 out",
		       disk->layers[0]->source->name, disk->size);
}

/* The place of `next`, which comes after `pair` at `place`. */
static void place_advance(const struct vd_view *view, struct vd_place *place,
			  const struct vd_pair *pair, const struct vd_pair *next)
{
	place->first = next->first;
	place->number++;
	place->sum += vd_pair_sum(pair);
	place->clusters += vd_pair_clusters(pair);
	place->tables += vd_table_of(view, next->first) - vd_table_of(view, pair->first);
	/* Tables in between have no data and are not there. */
	if (vd_table_of(view, next->first) != vd_table_of(view, pair->last))
		place->tables -= vd_table_of(view, next->first) - vd_table_of(view, pair->last) - 1;
}

static void mark_add(struct vd_view *view, const struct vd_place *place)
{
	if (place->number % view->mark_step != 0)
		return;
	if (view->mark_count == VD_VIEW_MARKS_MAX) {
		for (unsigned i = 0; i < VD_VIEW_MARKS_MAX / 2; i++)
			view->marks[i] = view->marks[2 * i];
		view->mark_count = VD_VIEW_MARKS_MAX / 2;
		view->mark_step *= 2;
	}
	if (place->number % view->mark_step == 0)
		view->marks[view->mark_count++] = *place;
}

/* Go through all pairs: count and mark. */
static int view_walk(struct vd_view *view, const struct vd_interrupt *interrupt)
{
	struct vd_index_iter *iter = malloc(sizeof(*iter));
	struct vd_pairs pairs = { .cluster_bits = view->cluster_bits };
	struct vd_pair pair = { 0 }, next;
	struct vd_place place = { 0 };
	int r;

	if (!iter)
		return -ENOMEM;
	vd_index_iter_init(iter, view->index, 0);
	while ((r = vd_index_iter_pair(iter, &pairs, &next, interrupt)) > 0) {
		if (view->pairs++ == 0)
			place.first = next.first;
		else
			place_advance(view, &place, &pair, &next);
		mark_add(view, &place);
		pair = next;
		if (view->pairs % VD_VIEW_PAIRS_PER_CHECK == 0 && vd_is_interrupted(interrupt)) {
			r = -EINTR;
			break;
		}
	}
	free(iter);
	if (r == 0 && view->pairs > 0) {
		view->sum = place.sum + vd_pair_sum(&pair);
		view->clusters = place.clusters + vd_pair_clusters(&pair);
		view->tables = place.tables + vd_table_of(view, pair.last) -
			       vd_table_of(view, pair.first) + 1;
	}
	return r;
}

/* Where the areas begin. The refcounts count themselves. */
static int view_place_areas(struct vd_view *view)
{
	uint64_t cluster = UINT64_C(1) << view->cluster_bits;
	uint64_t l1 = vd_div_up(view->l1_entries * VD_VIEW_ENTRY_BYTES, cluster);
	uint64_t rest = 1 + l1 + view->tables + view->clusters;
	uint64_t table = 1, blocks = 1, before;
	uint64_t *starts = view->starts;

	do { /* it only grows, less each time */
		before = table + blocks;
		blocks = vd_div_up(rest + before, cluster / VD_VIEW_REFCOUNT_BYTES);
		table = vd_div_up(blocks * VD_VIEW_ENTRY_BYTES, cluster);
	} while (table + blocks != before);
	starts[AREA_HEADER] = 0;
	starts[AREA_REFCOUNT_TABLE] = 1;
	starts[AREA_REFCOUNT_BLOCKS] = 1 + table;
	starts[AREA_L1] = 1 + table + blocks;
	starts[AREA_L2] = starts[AREA_L1] + l1;
	starts[AREA_DATA] = starts[AREA_L2] + view->tables;
	starts[AREA_END] = starts[AREA_DATA] + view->clusters;
	return starts[AREA_END] > FILE_BYTES_MAX >> view->cluster_bits ? -EFBIG : 0;
}

int vd_view_new(struct vd_index *index, const struct vd_interrupt *interrupt, struct vd_view **out)
{
	const struct vd_disk *disk = vd_index_disk(index);
	struct vd_view *view = calloc(1, sizeof(*view));
	struct vd_index_totals totals;
	uint64_t clusters;
	int r;

	if (!view)
		return -ENOMEM;
	vd_index_totals(index, &totals);
	view->index = index;
	view->cluster_bits = view_bits(disk);
	view->table_entries = (UINT64_C(1) << view->cluster_bits) / VD_VIEW_ENTRY_BYTES;
	view->disk_bytes = vd_div_up(disk->size, VD_SECTOR) * VD_SECTOR;
	view->mark_step = VD_VIEW_STEP_MIN;
	clusters = vd_div_up(disk->size, UINT64_C(1) << view->cluster_bits);
	view->l1_entries = vd_max(vd_div_up(clusters, view->table_entries), 1);
	r = view_walk(view, interrupt);
	if (r == 0)
		r = view_place_areas(view);
	/* The index has counted them in a walk of its own. */
	view->data_bytes = vd_min(totals.data_bytes, view->clusters << view->cluster_bits);
	if (r < 0)
		free(view);
	else
		*out = view;
	return r;
}

void vd_view_free(struct vd_view *view)
{
	free(view);
}

uint64_t vd_view_size(const struct vd_view *view)
{
	return vd_area_start(view, AREA_END);
}

uint64_t vd_view_blocks(const struct vd_view *view)
{
	uint64_t blocks = vd_div_up(vd_area_start(view, AREA_DATA) + view->data_bytes, VD_SECTOR);

	return vd_view_has_holes(view) ? vd_min(blocks, vd_view_size(view) / VD_SECTOR - 1)
				       : blocks;
}

/* --- finding pairs --------------------------------------------------------------------------- */

uint64_t vd_area_key(const struct vd_view *view, enum vd_area area, const struct vd_place *place)
{
	if (area == AREA_L1)
		return vd_table_of(view, place->first);
	if (area == AREA_L2)
		return place->tables * view->table_entries + place->first % view->table_entries;
	return place->clusters;
}

/* The last mark at or before a key, or the first one. There is one. */
static unsigned mark_find(const struct vd_view *view, enum vd_area area, uint64_t key)
{
	unsigned low = 0, high = view->mark_count;

	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;

		if (vd_area_key(view, area, &view->marks[middle]) <= key)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Stand on the first pair behind a mark. 1 or an error. */
static int cursor_place(const struct vd_view *view, struct vd_cursor *cursor, unsigned mark,
			const struct vd_interrupt *interrupt)
{
	const struct vd_place *place = &view->marks[mark];
	bool is_last = mark + 1 == view->mark_count;
	struct vd_stretch_mark stretch = {
		.virt = place->first << view->cluster_bits,
		.number = place->number,
		.count = (is_last ? view->pairs : place[1].number) - place->number,
		.sum = (is_last ? view->sum : place[1].sum) - place->sum,
	};
	int r = 0;

	if (!cursor->stretch)
		r = vd_stretch_new(view->index, view->cluster_bits, &cursor->stretch);
	if (r == 0 && !vd_stretch_pair(cursor->stretch, place->number))
		r = vd_stretch_load(cursor->stretch, &stretch, interrupt);
	if (r < 0)
		return r;
	cursor->is_valid = true;
	cursor->mark = mark;
	cursor->place = *place;
	cursor->pair = *vd_stretch_pair(cursor->stretch, place->number);
	return 1;
}

int vd_cursor_next(const struct vd_view *view, struct vd_cursor *cursor,
		   const struct vd_interrupt *interrupt)
{
	const struct vd_pair *next = vd_stretch_pair(cursor->stretch, cursor->place.number + 1);

	cursor->is_valid = false;
	if (!next)
		return cursor->mark + 1 == view->mark_count
			       ? 0
			       : cursor_place(view, cursor, cursor->mark + 1, interrupt);
	cursor->is_valid = true;
	place_advance(view, &cursor->place, &cursor->pair, next);
	cursor->pair = *next;
	return 1;
}

int vd_cursor_seek(const struct vd_view *view, struct vd_cursor *cursor, enum vd_area area,
		   uint64_t key, const struct vd_interrupt *interrupt)
{
	unsigned mark;

	if (view->mark_count == 0)
		return 0;
	mark = mark_find(view, area, key);
	if (cursor->is_valid && cursor->mark == mark &&
	    vd_area_key(view, area, &cursor->place) <= key)
		return 1;
	cursor->is_valid = false;
	return cursor_place(view, cursor, mark, interrupt);
}

void vd_cursor_init(struct vd_cursor *cursor)
{
	cursor->is_valid = false;
	cursor->stretch = NULL;
	pthread_mutex_init(&cursor->lock, NULL);
}

void vd_cursor_clear(struct vd_cursor *cursor)
{
	vd_stretch_free(cursor->stretch);
	pthread_mutex_destroy(&cursor->lock);
}
