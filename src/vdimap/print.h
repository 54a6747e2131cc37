/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The forms in which vdimap prints. All write to stdout while they go, so that memory does not
 * grow with the map; whether that worked the caller asks ferror(). 0 or -errno.
 */
#ifndef VD_VDIMAP_PRINT_H
#define VD_VDIMAP_PRINT_H

#include "vdimap/feed.h"

/* {"virtual_size":...,"data_clusters":[[0,2],[13,15]]}, or [0,1,2,13,14,15] instead of the pairs. */
int print_json(struct feed *feed);
int print_clusters(struct feed *feed, struct vd_error *err); /* -E2BIG with a message: too many */

/* A table of ranges, with a sum below it, and one of what cannot be read. */
int print_text(struct feed *feed);
void print_unreadable(const struct feed *feed);

/* Blocks in the terminal, and a picture: see chart.c. */
int print_chart(struct feed *feed, const struct terminal *terminal);
int print_svg(struct feed *feed);

/*
 * The entries of qemu-img map --output=json. *bad_bytes: of the disk, that cannot be read, in the
 * clusters that are added to `unreadable`.
 */
int print_qemu(const struct vd_disk *disk, struct progress *progress, uint64_t *bad_bytes,
	       struct vd_joined *unreadable);

/* The bytes [start, end) of a disk of `size` bytes that a pair of clusters stands for. */
struct range {
	uint64_t start, end;
};

struct range range_of(const struct vd_pair *pair, unsigned cluster_bits, uint64_t size);

/* "64 KiB", "1.25 GiB", "103.4 MiB": rounded, in at most ten characters. Returns text. */
#define SIZE_TEXT 24
char *size_text(char text[SIZE_TEXT], uint64_t bytes);

/*
 * The size step * count without rounding, for a step that is a power of two. The unit is the largest
 * one in which no multiple of the step needs more than two digits behind the point: "1.25 MiB" in
 * steps of 256 KiB, "1280 KiB" in steps of 128 KiB.
 */
char *multiple_text(char text[SIZE_TEXT], uint64_t step, uint64_t count);

#endif
