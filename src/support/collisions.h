/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding blocks of a file that share bytes with another block. All blocks have one length and
 * begin at any unit (VHD: a sector). One thread; used while an image is opened, then freed.
 */
#ifndef VD_SUPPORT_COLLISIONS_H
#define VD_SUPPORT_COLLISIONS_H

#include <stddef.h>
#include <stdint.h>

struct vd_collisions {
	uint64_t *blocks; /* start << 32 | index */
	size_t count;
};

/* Make room for at most `max` blocks, 8 bytes for each. 0 or -ENOMEM. */
int vd_collisions_init(struct vd_collisions *set, size_t max);
void vd_collisions_free(struct vd_collisions *set);

/* Add [start, start + length), in units, which is known as `index`. */
void vd_collisions_add(struct vd_collisions *set, uint32_t start, uint32_t index);

/*
 * For each block that shares a unit with another one, set bit `index` of `bits` (bit 0 is the lowest
 * one of byte 0). All blocks of an overlap are found, because none can be told to be the right one.
 * Needs as much memory again. The number of such blocks, or -ENOMEM.
 */
long vd_collisions_find(struct vd_collisions *set, uint64_t length, uint8_t *bits);

#endif
