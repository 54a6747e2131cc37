/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of system calls that the sandbox leaves. Not for use outside src/sandbox.
 */
#ifndef VD_SANDBOX_FILTER_H
#define VD_SANDBOX_FILTER_H

#include <stdbool.h>

/*
 * Install the filter for this process and its threads. may_open: openat(2) stays, for /dev/fuse: something
 * else (landlock) decides what may be opened. 0; -ENOSYS when kernel or build have no seccomp; -errno.
 */
int vd_filter_install(bool may_open);

#endif
