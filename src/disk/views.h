/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Other disks made of what one disk has open: the disk as a layer of the chain saw it, and as an
 * internal snapshot kept it. No file is opened for them; metadata cache and decoded clusters are
 * shared, so that their bounds hold for all together.
 *
 * A view belongs to the disk that it is made of, and is closed with it. Views are made at start-up,
 * by one thread; then they are const like any disk.
 */
#ifndef VD_DISK_VIEWS_H
#define VD_DISK_VIEWS_H

#include "disk/disk.h"

/* The layer at `depth` (0: the image itself) and all below it. 0 or -ENOMEM. */
int vd_disk_view_layer(struct vd_disk *disk, unsigned depth, const struct vd_disk **out);

/*
 * An internal snapshot of the image, as its snapshots() tells of it, on top of the image's parents.
 * Its size may differ from the disk's. Spends from the disk's budget. 0 or -errno.
 */
int vd_disk_view_snapshot(struct vd_disk *disk, const struct vd_snapshot *snapshot,
			  const struct vd_disk **out, struct vd_error *err);

#endif
