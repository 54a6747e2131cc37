/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is printed: yes or no for each byte of the disk, in order, whatever the question is: is it
 * data, may it differ from the old disk, is it set in a bitmap. One thread; the scan has its own.
 */
#ifndef VD_VDIMAP_FEED_H
#define VD_VDIMAP_FEED_H

#include "map/diff.h"
#include "map/pairs.h"
#include "map/scan.h"
#include "vdimap/bitmaps.h"
#include "vdimap/options.h"
#include "vdimap/progress.h"

struct feed;

/* One question. next: 1, 0 at the end, or -errno; `yes` is in piece->is_data. */
struct feed_ops {
	int (*next)(struct feed *feed, struct vd_piece *piece);
	const char *yes, *no; /* what the answers mean to people */
};

struct feed {
	const struct feed_ops *ops;
	const struct vd_disk *disk;
	unsigned cluster_bits; /* of what is printed */
	struct progress progress;
	struct vd_pairs pairs;
	uint64_t pieces; /* so far */
	uint64_t ranges, yes_bytes; /* that feed_range() told of */
	uint64_t exact_bytes; /* with a yes, not rounded to clusters */
	uint64_t bad_bytes; /* that cannot be read; counted as yes */
	struct vd_joined bitmap_bad; /* clusters of the bitmap that cannot be read */
	struct vd_joined unreadable; /* clusters of cluster_bits, once all pieces have been taken */
	bool has_ended;
	struct vd_scan *scan;
	struct vd_diff *diff;
	struct bitmaps *bitmaps;
};

/* Answer what the options ask. The disks must outlive the feed. 0 or -errno with a message. */
int feed_open(struct feed *feed, const struct options *options, const struct vd_disk *disk,
	      const struct vd_disk *old_disk, struct vd_error *err);

/* The next piece; neighbours may be of one kind. 1, 0, -errno. */
int feed_piece(struct feed *feed, struct vd_piece *piece);

/* Instead of feed_piece(): the next range of clusters with a yes, as long as can be. 1, 0, -errno. */
int feed_range(struct feed *feed, struct vd_pair *pair);

/* Half made is fine. */
void feed_close(struct feed *feed);

#endif
