/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk: the layers of a chain laid on each other.
 *
 * Here, and only here, the layers' answers are clipped, looked through and merged. A layer that is
 * shorter than the one above it reads as zeros past its end, also in the middle of a chain.
 * A const disk may be used by any number of threads, each with its own scratch.
 */
#ifndef VD_DISK_DISK_H
#define VD_DISK_DISK_H

#include "disk/units.h"
#include "format/format.h"

#define VD_LAYERS_MAX 256

/* Questions to drivers before vd_disk_map() stops: a hole of terabytes must not take one call. */
#define VD_DISK_MAP_CALLS 16

struct vd_disk {
	struct vd_image *layers[VD_LAYERS_MAX]; /* the image first, its parents after it */
	unsigned count;
	bool lacks_parent; /* the last layer has one that is not here: what that would hold is BAD */
	struct vd_cache *cache; /* of metadata */
	struct vd_units *units; /* decoded clusters */
	struct vd_budget budget; /* what opening views may still cost; start-up only */
	/*
	 * Of a view (views.h) the cache, the units and so many of the layers, the last ones, are
	 * those of the disk that it is a view of.
	 */
	unsigned borrowed;
	struct vd_disk *views; /* of this disk; owned */
	struct vd_disk *next_view; /* in the list of that disk */
	uint64_t size; /* virtual bytes: the top layer's */
	unsigned cluster_bits; /* the top layer's */
};

/* What [start, start + length) of the disk is. */
struct vd_extent {
	uint64_t start, length; /* virtual bytes */
	const struct vd_image *image; /* whose run it is; NULL for ZERO that no layer holds */
	unsigned depth; /* the layer that it is in; NULL image: the last that could hold it */
	struct vd_run run; /* ZERO, RAW or BAD: clipped like the extent; CODED: the whole unit */
};

/*
 * Fill extents with 1 to max adjacent ones that begin at virt and end at virt + want or before.
 * want > 0 and [virt, virt + want) is inside the disk. Neighbours that continue each other are
 * merged (parts of one CODED unit are not). It stops early when there is no room or after
 * VD_DISK_MAP_CALLS questions to drivers. Returns the number of extents, or -ENOMEM.
 */
int vd_disk_map(const struct vd_disk *disk, uint64_t virt, uint64_t want, struct vd_extent *extents,
		unsigned max);

/*
 * Read exactly `bytes` (inside the disk). 0 or -errno: -EIO where data or metadata is damaged,
 * which is logged once; the buffer is then undefined.
 */
int vd_disk_read(const struct vd_disk *disk, void *buffer, size_t bytes, uint64_t virt,
		 struct vd_scratch *scratch);

/*
 * Where `bytes` (inside the disk) at virt lie in one piece and as they are in a file: at byte
 * *where of *from. False: they do not, or it cannot be told; vd_disk_read() says more.
 */
bool vd_disk_find_raw(const struct vd_disk *disk, uint64_t virt, size_t bytes,
		      const struct vd_source **from, uint64_t *where);

/*
 * Has a file of the chain changed (vd_source_changed()) since it was opened? The files' names, what
 * changed and what that means are logged, once for each change of each file.
 */
bool vd_disk_changed(const struct vd_disk *disk);

/* A walk over the disk has ended: log how many damaged places its lines have left out. */
void vd_disk_log_rest(const struct vd_disk *disk);

/* Close its views, too. Not for a view. NULL is fine. */
void vd_disk_close(struct vd_disk *disk);

#endif
