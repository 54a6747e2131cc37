/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of system calls that the sandbox leaves. Not for use outside src/sandbox.
 */
#ifndef VD_SANDBOX_FILTER_H
#define VD_SANDBOX_FILTER_H

/*
 * Install the filter for this process and its threads. 0; -ENOSYS when kernel or build have no seccomp;
 * -errno.
 */
int vd_filter_install(void);

#endif
