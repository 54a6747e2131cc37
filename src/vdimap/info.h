/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What --info prints, gathered in one walk over the disk, and its two forms. One thread. */
#ifndef VD_VDIMAP_INFO_H
#define VD_VDIMAP_INFO_H

#include "map/info.h"
#include "vdimap/progress.h"

/*
 * disk, filename and fault are set: gather the rest. The clusters that cannot be read are added to
 * `unreadable`, which info refers to from then on. 0 or -errno with a message; vd_info_clear() in
 * both cases.
 */
int info_gather(struct vd_info *info, struct progress *progress, struct vd_joined *unreadable,
		struct vd_error *err);

/* Print; a snapshot or bitmap table that is damaged is logged and left out. 0 or -ENOMEM. */
int info_print_json(const struct vd_info *info);
int info_print_text(const struct vd_info *info);

#endif
