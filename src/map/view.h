/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QCOW2 file computed from the interval map of a disk: what `qemu-img convert -O qcow2` would
 * write, without writing it. All layers are one; what is no data is not in the file.
 *
 * A view is const once it is made. A reader may be used by any number of threads.
 */
#ifndef VD_MAP_VIEW_H
#define VD_MAP_VIEW_H

#include "map/index.h"

struct vd_view;
struct vd_view_reader;

/* Can the disk be a QCOW2 file? -EFBIG with a message: it has more than 1 EiB. */
int vd_view_check(const struct vd_disk *disk, struct vd_error *err);

/*
 * Work out the file's shape from a complete index, which must outlive the view; the disk has passed
 * vd_view_check(). Goes through the whole map. 0, -EINTR, -ENOMEM; -EFBIG: the file would be longer
 * than the 64 PiB that table entries can point into.
 */
int vd_view_new(struct vd_index *index, const struct vd_interrupt *interrupt, struct vd_view **out);
void vd_view_free(struct vd_view *view); /* NULL is fine; no reader may be left */

uint64_t vd_view_size(const struct vd_view *view); /* bytes of the file */

/*
 * What st_blocks is to be: of the metadata and of the data of the disk, and less than the size
 * where there is a hole (see vd_index_blocks()).
 */
uint64_t vd_view_blocks(const struct vd_view *view);

/* Reading on where a reader was is cheapest. 0 or -ENOMEM. */
int vd_view_reader_new(const struct vd_view *view, struct vd_view_reader **out);
void vd_view_reader_free(struct vd_view_reader *reader); /* NULL is fine */

/*
 * Read exactly `bytes` (inside the file) at `at`. 0, -EINTR, or as vd_disk_read(); also -EIO where the
 * map, which was not stored for want of room, is not found as it was: never anything else than what
 * belongs there.
 */
int vd_view_read(struct vd_view_reader *reader, void *buffer, size_t bytes, uint64_t at,
		 struct vd_scratch *scratch, const struct vd_interrupt *interrupt);

/* Are these bytes of the file the bytes of the disk at *virt, in one piece? False if interrupted. */
bool vd_view_find(struct vd_view_reader *reader, uint64_t at, size_t bytes, uint64_t *virt,
		  const struct vd_interrupt *interrupt);

/* Like vd_index_seek(), in the file: `at` below its size. Metadata is data. */
int vd_view_seek(struct vd_view_reader *reader, uint64_t at, bool want_data, uint64_t *found,
		 const struct vd_interrupt *interrupt);

#endif
