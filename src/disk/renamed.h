/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The value of --backing-file, which is PATH or NAME=PATH, and the advice to give that option.
 *
 * The first '=' ends NAME. In NAME '\=' stands for '=' and '\\' for '\'; any other '\' is itself. A
 * PATH with '=' is given as =PATH: its NAME is empty. The address of a server is always a PATH.
 * Pure.
 */
#ifndef VD_DISK_RENAMED_H
#define VD_DISK_RENAMED_H

#include <stdbool.h>

#include "base/error.h"

/* The PATH in the value. *has_name: there is a NAME before it. */
const char *vd_renamed_path(const char *value, bool *has_name);

/* Is this the NAME in the value, which has one? */
bool vd_renamed_is(const char *value, const char *name);

/* Append --backing-file=NAME=PATH, with NAME quoted for a shell, and the word PATH as it is. */
void vd_renamed_advise(struct vd_error *text, const char *name);

/* Append --backing-file=path, quoted for a shell. */
void vd_renamed_advise_path(struct vd_error *text, const char *path);

#endif
