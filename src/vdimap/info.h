/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What --info tells, gathered in one walk over the disk, and its two forms. One thread. */
#ifndef VD_VDIMAP_INFO_H
#define VD_VDIMAP_INFO_H

#include "disk/disk.h"
#include "vdimap/progress.h"

struct info {
	const struct vd_disk *disk;
	const char *filename; /* as it was given */
	bool alone; /* its parents could not be opened: layers and data are not known */
	struct vd_parent parent; /* as the image names it */
	uint64_t data_bytes, coded_bytes, bad_bytes, ranges;
	uint64_t layer_bytes[VD_LAYERS_MAX]; /* of data that each layer gives */
	bool is_dirty;
};

/*
 * disk, filename and alone are set: gather the rest. 0 or -errno with a message; info_clear() in
 * both cases.
 */
int info_gather(struct info *info, struct progress *progress, struct vd_error *err);
void info_clear(struct info *info);

/* "vpc" for a VHD: QEMU's word. */
const char *info_qemu_format(const struct vd_image *image);

/* Print; a snapshot or bitmap table that is damaged is logged and left out. 0 or -ENOMEM. */
int info_print_json(const struct info *info);
int info_print_text(const struct info *info);

#endif
