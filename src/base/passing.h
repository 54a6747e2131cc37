/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors through a socket of the family AF_UNIX (SCM_RIGHTS, unix(7)). Any thread.
 */
#ifndef VD_BASE_PASSING_H
#define VD_BASE_PASSING_H

#include <stddef.h>
#include <sys/types.h>

/* Send `count` > 0 bytes, and a descriptor with them unless it is -1. 0 or -errno; no SIGPIPE. */
int vd_pass(int socket, const void *bytes, size_t count, int fd);

/*
 * Receive up to `count` bytes and the descriptor that comes with them: *fd is the caller's, closed
 * by execve(2), or -1. Returns the number of bytes, 0 at the end, or -errno.
 */
ssize_t vd_pass_receive(int socket, void *bytes, size_t count, int *fd);

#endif
