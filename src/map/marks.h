/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The length of the exact JSON, counted while the disk is walked, and marks on the way by which a
 * reader in the middle of the text finds its place. The number of marks is bounded: when they
 * become too many, every other one is dropped. Not locked.
 */
#ifndef VD_MAP_MARKS_H
#define VD_MAP_MARKS_H

#include "map/index.h"
#include "map/joined.h"
#include "map/pairs.h"
#include "map/stretch.h"

#define VD_MARKS_MAX 4096

struct vd_marks {
	struct vd_pairs pairs;
	uint64_t head; /* characters of the head */
	uint64_t json; /* characters so far, the head included */
	uint64_t number, sum; /* pairs so far */
	uint64_t step; /* a mark each so many pairs */
	unsigned count;
	struct vd_json_mark marks[VD_MARKS_MAX];
};

void vd_marks_init(struct vd_marks *marks, uint64_t virtual_size, unsigned cluster_bits);

/*
 * The next data interval, then the end and the clusters that cannot be read; after which marks->json
 * is the length of the JSON.
 */
void vd_marks_add(struct vd_marks *marks, uint64_t start, uint64_t end);
void vd_marks_end(struct vd_marks *marks, const struct vd_joined *unreadable);

struct vd_json_mark vd_marks_find(const struct vd_marks *marks, uint64_t json);

/* From which mark to the next one the pair with that number is, after the end. False: there is none. */
bool vd_marks_stretch(const struct vd_marks *marks, uint64_t number, struct vd_stretch_mark *mark);

#endif
