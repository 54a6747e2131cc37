/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file system that shows a disk, in a directory (tree.c says which files) or as one file. Knows
 * libfuse's low-level operations, but nothing of mounting (place.h) or of image formats.
 */
#ifndef VD_VDIFS_FS_H
#define VD_VDIFS_FS_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

#include "vdifs/tree.h"

struct vdifs_fs;

struct vdifs_fs_options {
	struct vdifs_tree_options tree; /* which files there are */
	bool direct; /* answer reads past the page cache */
	const char *layers; /* of the sandbox, for user.vdifs.info; outlives the file system */
	/* Called once from a worker thread when the kernel asks for the first time. */
	void (*ready)(void *context, struct fuse_conn_info *conn);
	/* Asked for requests that wait: is the mount about to end? */
	bool (*ending)(void *context);
	void *context; /* of both */
};

/*
 * The disk and its index must outlive the file system; the disk gets views (disk/views.h). 0 or
 * -errno.
 */
int vdifs_fs_new(struct vd_disk *disk, struct vd_index *index,
		 const struct vdifs_fs_options *options, struct vdifs_fs **out,
		 struct vd_error *err);
void vdifs_fs_free(struct vdifs_fs *fs); /* NULL is fine */

/* For fuse_session_new(), with the file system as userdata. */
extern const struct fuse_lowlevel_ops vdifs_fs_ops;

#endif
