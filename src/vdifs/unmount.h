/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdifs --unmount: what umount(8) cannot do is to wait for the processes behind a mount. */
#ifndef VD_VDIFS_UNMOUNT_H
#define VD_VDIFS_UNMOUNT_H

#include "base/error.h"

/* Unmount, and wait until the image is free: closed, its locks released. 0 or -errno with a message. */
int vdifs_unmount(const char *mountpoint, struct vd_error *err);

#endif
