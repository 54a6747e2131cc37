/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The supervising process: mounts, unmounts, opens files for the server, forwards signals and
 * cleans up. It parses nothing.
 */
#ifndef VD_VDIFS_SUPERVISOR_H
#define VD_VDIFS_SUPERVISOR_H

#include "vdifs/options.h"

/*
 * Mount the image and stay until the mount has ended. ready_fd: a descriptor that one byte is
 * written to as soon as the mount answers (then stderr goes away and logging goes to syslog), or
 * -1 in the foreground. Returns an exit status; what went wrong has been said. After a failure
 * nothing is mounted.
 */
int vdifs_supervise(const struct vdifs_options *options, int ready_fd);

#endif
