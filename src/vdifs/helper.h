/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fusermount3, which is set-user-ID root and does for an ordinary user what that user is allowed to
 * have. Its complaints are caught and become part of our line.
 */
#ifndef VD_VDIFS_HELPER_H
#define VD_VDIFS_HELPER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * Have it mount on the path, with these options (see vdifs_helper_escape()), and send the descriptor
 * of the mount through the socket `to`. 0 or -errno with a message.
 */
int vdifs_helper_mount(const char *path, const char *options, int to, struct vd_error *err);

/* Have it unmount what is at the path; lazy: at once, also if it is in use. 0 or -errno. */
int vdifs_helper_unmount(const char *path, bool lazy, struct vd_error *err);

/* Append text to `out` with commas and backslashes escaped, as fusermount3 wants them. */
void vdifs_helper_escape(char *out, size_t size, const char *text);

/* The path as a word that can be pasted into a shell. Returns out. */
const char *vdifs_shell_word(char *out, size_t size, const char *path);

#endif
