/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What dirty bitmaps say of a chain of layers.
 *
 * When a disk gets a new top layer, management software makes a bitmap of the same name in that
 * layer: what has changed since the checkpoint is the union over all layers. A change that is not
 * listed is lost in a backup, and so everything that may leave one out is refused: a layer that lacks
 * the bitmap, a bitmap that is not valid, and one that does not record any more.
 */
#ifndef VD_VDIMAP_BITMAPS_H
#define VD_VDIMAP_BITMAPS_H

#include "disk/walk.h"

struct bitmaps;

/*
 * Find the bitmaps of these names in all layers. stopped: those that do not record will do.
 * 0, or -errno with a message. The disk must outlive them.
 */
int bitmaps_open(const struct vd_disk *disk, const char *const *names, unsigned count, bool stopped,
		 struct bitmaps **out, struct vd_error *err);
void bitmaps_free(struct bitmaps *bitmaps); /* NULL is fine */

/* The finest granularity among them, as a power of two. */
unsigned bitmaps_granularity_bits(const struct bitmaps *bitmaps);

/* The next piece; is_data: it may have changed. One thread. 1; 0: the end of the disk; -ENOMEM. */
int bitmaps_next(struct bitmaps *bitmaps, struct vd_piece *piece);

/* Bytes so far that count as changed because a bitmap cannot be read there. */
uint64_t bitmaps_bad_bytes(const struct bitmaps *bitmaps);

#endif
