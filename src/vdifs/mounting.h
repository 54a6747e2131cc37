/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a process with rights mounts, itself. For place.c alone. */
#ifndef VD_VDIFS_MOUNTING_H
#define VD_VDIFS_MOUNTING_H

#include "vdifs/place.h"

/* What both ways say to the kernel, as options with commas. */
void vdifs_kernel_options(const struct vdifs_options *options, char *out, size_t size);

/*
 * As root, or root of a user namespace: mount on what place->at leads to. *top: a descriptor (O_PATH) of
 * the mount, or -1 where the kernel gives none. 0 or -errno with a message.
 */
int vdifs_mount_directly(const struct vdifs_place *place, const struct vdifs_options *options,
			 const char *source, int to, int *top, struct vd_error *err);

#endif
