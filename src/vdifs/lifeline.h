/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How others learn that the processes of a mount are gone, and with them all that they held: open
 * images and their locks. The mount's two processes hold a listening socket, whose name has the
 * device number of the mount in it. Nobody accepts: a connection hangs up when the last holder of
 * the listening socket has ended, however it ended.
 */
#ifndef VD_VDIFS_LIFELINE_H
#define VD_VDIFS_LIFELINE_H

#include <sys/types.h>

/* Make the socket, before the processes part. A descriptor or -1. */
int vdifs_lifeline_new(void);

/* Give it the name of the mount. Failing is fine: then others cannot wait. */
void vdifs_lifeline_announce(int fd, dev_t device);

/* Numbers of devices are used again while the processes of an older mount are ending. */
#define VDIFS_LIFELINES_MAX 8

/* Connections to the processes of a mount that `user` made. How many of fds[] are filled in. */
unsigned vdifs_lifeline_connect(dev_t device, uid_t user, int fds[VDIFS_LIFELINES_MAX]);

/* Wait until all of them have hung up, and close them. -ETIMEDOUT: not yet; call it again. */
int vdifs_lifeline_wait(int fds[VDIFS_LIFELINES_MAX], unsigned count, int timeout_ms);

#endif
