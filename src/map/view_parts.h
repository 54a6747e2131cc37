/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two halves of the computed QCOW2 file share: view.c works out its shape and finds places
 * in it, view_read.c makes its bytes.
 */
#ifndef VD_MAP_VIEW_PARTS_H
#define VD_MAP_VIEW_PARTS_H

#include <pthread.h>

#include "map/stretch.h"
#include "map/view.h"

#define VD_VIEW_MARKS_MAX 16384
#define VD_VIEW_STEP_MIN 64 /* pairs from mark to mark */
#define VD_VIEW_PAIRS_PER_CHECK 1024 /* between two looks for an interrupt */
#define VD_VIEW_ENTRY_BYTES 8
#define VD_VIEW_REFCOUNT_ORDER 4 /* 16 bits */
#define VD_VIEW_REFCOUNT_BYTES 2

enum vd_area {
	AREA_HEADER,
	AREA_REFCOUNT_TABLE,
	AREA_REFCOUNT_BLOCKS,
	AREA_L1,
	AREA_L2,
	AREA_DATA,
	AREA_END,
};

/* Where a pair stands: its first cluster, and what comes before it in the file. */
struct vd_place {
	uint64_t first; /* cluster of the disk */
	uint64_t number, sum; /* of pairs before it, see vd_pair_sum() */
	uint64_t clusters; /* of data before it */
	uint64_t tables; /* L2 tables before the one that its first cluster is in */
};

struct vd_view {
	struct vd_index *index;
	unsigned cluster_bits;
	uint64_t table_entries; /* of an L2 table */
	uint64_t disk_bytes; /* whole sectors */
	uint64_t l1_entries;
	uint64_t pairs, sum; /* of all of them */
	uint64_t clusters, tables; /* of data, of L2 */
	uint64_t data_bytes; /* of the map: the rest of the clusters are holes */
	uint64_t starts[AREA_END + 1]; /* cluster of the file in which an area begins */
	uint64_t mark_step; /* a mark each so many pairs */
	unsigned mark_count;
	struct vd_place marks[VD_VIEW_MARKS_MAX];
};

/* Stands on a pair, or nowhere. */
struct vd_cursor {
	pthread_mutex_t lock;
	bool is_valid;
	unsigned mark; /* whose stretch it is in */
	struct vd_place place;
	struct vd_pair pair;
	struct vd_stretch *stretch; /* NULL: none yet */
};

/* First byte of an area in the file. */
static inline uint64_t vd_area_start(const struct vd_view *view, enum vd_area area)
{
	return view->starts[area] << view->cluster_bits;
}

/* Which of the disk's L2 tables, of which not all are in the file, a cluster is in. */
static inline uint64_t vd_table_of(const struct vd_view *view, uint64_t cluster)
{
	return cluster / view->table_entries;
}

static inline uint64_t vd_pair_clusters(const struct vd_pair *pair)
{
	return pair->last - pair->first + 1;
}

/* Is not all of the data area data? */
static inline bool vd_view_has_holes(const struct vd_view *view)
{
	return view->data_bytes < view->clusters << view->cluster_bits;
}

/*
 * The number of a pair's first entry or cluster in an area whose contents follow from pairs. It
 * grows from pair to pair, in L1 not always.
 */
uint64_t vd_area_key(const struct vd_view *view, enum vd_area area, const struct vd_place *place);

/* Stands nowhere. */
void vd_cursor_init(struct vd_cursor *cursor);
void vd_cursor_clear(struct vd_cursor *cursor);

/*
 * Stand on a pair such that those before it have nothing at or behind the key. 1; 0: there are no
 * pairs; or an error, as of vd_stretch_load(). The lock is held.
 */
int vd_cursor_seek(const struct vd_view *view, struct vd_cursor *cursor, enum vd_area area,
		   uint64_t key, const struct vd_interrupt *interrupt);

/* Take the next pair. 1, 0 at the end, or an error; but after 1 it stands nowhere. Likewise. */
int vd_cursor_next(const struct vd_view *view, struct vd_cursor *cursor,
		   const struct vd_interrupt *interrupt);

#endif
