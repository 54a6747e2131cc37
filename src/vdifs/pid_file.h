/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file of --pid-file: it is there while the mount is. */
#ifndef VD_VDIFS_PID_FILE_H
#define VD_VDIFS_PID_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct vdifs_pid_file {
	char path[PATH_MAX]; /* absolute; empty: none is wanted */
	bool is_there;
	dev_t device; /* of it, and its inode */
	ino_t inode;
};

/* Find out where it will be: later the working directory is another. 0 or -errno with a message. */
int vdifs_pid_file_find(struct vdifs_pid_file *file, const char *name, struct vd_error *err);

/* Write this process's ID, in one step for readers. 0 or -errno with a message. */
int vdifs_pid_file_write(struct vdifs_pid_file *file, struct vd_error *err);

/* Remove it, unless it has become another's. */
void vdifs_pid_file_remove(const struct vdifs_pid_file *file);

#endif
