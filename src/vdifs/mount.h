/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mounting and serving until unmounted. One function, called once by main.
 */
#ifndef VD_VDIFS_MOUNT_H
#define VD_VDIFS_MOUNT_H

#include "vdifs/options.h"

/*
 * Open the image, mount it and serve until it is unmounted or a signal comes. ready_fd: a
 * descriptor that one byte is written to as soon as the kernel talks to us (then stderr goes
 * away and logging goes to syslog), or -1 in the foreground. 0 or -errno with a message; after a
 * failure nothing is mounted.
 */
int vdifs_mount_serve(const struct vdifs_options *options, int ready_fd, struct vd_error *err);

#endif
