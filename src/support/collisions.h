/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding pieces of a file that share bytes with another piece: the blocks of a VHD, the L2 tables of
 * a QCOW2 image. All pieces have one length and begin anywhere. One thread; used while an image is
 * opened, then freed.
 */
#ifndef VD_SUPPORT_COLLISIONS_H
#define VD_SUPPORT_COLLISIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The start in two halves: three aligned numbers take 12 bytes, where a number of 64 bits makes it 16. */
struct vd_collisions_piece {
	uint32_t start_high, start_low, index;
};

struct vd_collisions {
	struct vd_collisions_piece *pieces;
	size_t count, max;
};

/* Make room for at most `max` pieces, 12 bytes for each. 0 or -ENOMEM. */
int vd_collisions_init(struct vd_collisions *set, size_t max);
void vd_collisions_free(struct vd_collisions *set);

/*
 * Add [start, start + length), in a unit of the caller's, which is known as `index`. False: there is
 * no room, because the file has more of them than when they were counted.
 */
bool vd_collisions_add(struct vd_collisions *set, uint64_t start, uint32_t index);

/*
 * Set *bits, which the caller frees, to a bit for each index below `indexes` (bit 0 is the lowest one
 * of byte 0): does its piece share a unit with another one? NULL: none does. All pieces of an overlap
 * are found, because none can be told to be the right one. 0 or -ENOMEM.
 */
int vd_collisions_find(struct vd_collisions *set, uint64_t length, size_t indexes, uint8_t **bits);

#endif
