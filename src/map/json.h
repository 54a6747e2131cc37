/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interval map as JSON.
 *
 * The exact map, {"virtual_size":33562624,"cluster_bits":21,"data_clusters":[[0,2],[13,15]]}, is
 * the text that xen-api's `vhd-tool read_headers_interval` prints: key order, no blanks, no
 * newline, inclusive pairs. If some clusters cannot be read, which counts as data, the member
 * "unreadable" behind these has their pairs. The text is never held in memory: a reader makes it
 * piece by piece.
 */
#ifndef VD_MAP_JSON_H
#define VD_MAP_JSON_H

#include "map/index.h"
#include "map/pairs.h"

/* What Linux lets an extended attribute be. */
#define VD_ATTRIBUTE_MAX 65536

/* Makes the text of the map from the pieces of the disk. One thread at a time. */
struct vd_json_reader;

/*
 * cluster_bits: the disk's, or more for a coarser map, which says that it is not exact. 0 or
 * -ENOMEM.
 */
int vd_json_reader_new(struct vd_index *index, unsigned cluster_bits, struct vd_json_reader **out);
/*
 * Have threads of its own make the map, for a new reader that will go through the text once, in
 * order, and shall be fast. Optional. 0 or -errno.
 */
int vd_json_reader_scan(struct vd_json_reader *reader, unsigned threads);

void vd_json_reader_free(struct vd_json_reader *reader); /* NULL is fine */

/*
 * Copy the text from character `at` on, as much as there is up to `bytes`. Reading on where the
 * last call ended costs nothing extra; going elsewhere in an exact map needs a complete index.
 * Returns the number of characters, 0 at the end, or -EINTR, -ENOMEM. An exact map of an index that
 * was complete when the reader was made, or when it went elsewhere, is the one of which the index
 * knows the length: -EIO where that cannot be made again (stretch.h).
 */
ssize_t vd_json_read(struct vd_json_reader *reader, char *buffer, size_t bytes, uint64_t at,
		     const struct vd_interrupt *interrupt);

/* How far into the disk the text made so far reaches, in bytes. */
uint64_t vd_json_reached(const struct vd_json_reader *reader);

/* Bytes of the disk that this reader found unreadable on its way, where it walked itself. */
uint64_t vd_json_bad_bytes(const struct vd_json_reader *reader);

/*
 * The map for an attribute of at most VD_ATTRIBUTE_MAX characters: the exact one if it fits, else
 * one in which the smallest gaps are listed as data, and "exact":false. Waits for the index. *text is the
 * caller's. 0, -EINTR, -ENOMEM.
 */
int vd_json_attribute(struct vd_index *index, char **text, size_t *length,
		      const struct vd_interrupt *interrupt);

#endif
