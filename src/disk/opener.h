/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening files: the one place that opens a file whose name came from an image.
 *
 * It is reached through a function pointer, so that a sandboxed process can ask another one to
 * open under the same policy and receive descriptors. Start-up only, one thread.
 */
#ifndef VD_DISK_OPENER_H
#define VD_DISK_OPENER_H

#include <sys/types.h>

#include "base/error.h"
#include "source/source.h"

enum vd_backing {
	VD_BACKING_SAME_DIR, /* inside the directory of the file that names it, same owner */
	VD_BACKING_ANY, /* any file or block device */
	VD_BACKING_NONE, /* no file that an image names */
};

struct vd_open_request {
	const char *name;
	const char *role; /* "image", "backing file", "data file": for messages */
	const char *option; /* that names such a file by hand, or NULL: for messages */
	const struct vd_source *base; /* the file that names it; NULL: named by hand, no policy */
	enum vd_backing policy;
	uid_t owner; /* same-dir: who must own the file */
	struct vd_patience patience; /* with a server that is named by hand */
};

/*
 * Open the file as a source. Names by hand go through realpath() from the current directory, or are
 * addresses of servers (source/address.h); names from images never are.
 * Errors: -ENOENT and its like; -EXDEV: policy, outside the directory; -EPERM: policy, another
 * owner; -EACCES: policy none, or the kernel's; -EINVAL: a name or a kind of file that is never
 * opened.
 */
typedef int vd_open_fn(void *context, const struct vd_open_request *request, struct vd_source **out,
		       struct vd_error *err);

struct vd_opener {
	vd_open_fn *open;
	void *context;
};

/*
 * The half of it that needs rights: like the function, but vd_source_begin() is left to whoever gets
 * the descriptor.
 */
int vd_opener_open(const struct vd_open_request *request, struct vd_source **out,
		   struct vd_error *err);

/* The opener that does it in this process. */
extern const struct vd_opener vd_opener_here;

#endif
