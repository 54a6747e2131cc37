/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of a file that are reserved but were never written: zeros, like a hole. SEEK_HOLE of ext4 and
 * XFS calls them data as long as some of their pages are in the page cache, so that a file has
 * another map once a program has read it. FIEMAP tells them apart.
 *
 * Self-locking; the file is only asked about, and what it has in memory is written if there is no
 * other way to know.
 */
#ifndef VD_SOURCE_UNWRITTEN_H
#define VD_SOURCE_UNWRITTEN_H

#include <stdbool.h>
#include <stdint.h>

struct vd_unwritten;

/* Is SEEK_HOLE to be mistrusted on a file system of this kind (f_type of statfs(2))? */
bool vd_unwritten_matters(unsigned long kind);

/* Is every byte of the file written, as far as one question tells? No system waits for a disk here. */
bool vd_unwritten_none(int fd, uint64_t size);

/* For questions about a file of that many bytes; fd stays the caller's. 0 or -ENOMEM. */
int vd_unwritten_new(int fd, uint64_t size, struct vd_unwritten **out);

/* NULL is fine. */
void vd_unwritten_free(struct vd_unwritten *unwritten);

/*
 * Is the byte at `host` (< size) in a hole or unwritten, and how far does that hold (*end > host)?
 * 0 or -errno: the file system does not tell, the file has become shorter, there is no memory.
 * SEEK_HOLE is the next to ask then; what it says is no less safe.
 */
int vd_unwritten_find(struct vd_unwritten *unwritten, uint64_t host, bool *is_hole, uint64_t *end);

#endif
