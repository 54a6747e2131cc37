/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening files: the one place that opens a file whose name came from an image.
 *
 * It is reached through function pointers, so that a sandboxed process can ask another one to
 * open under the same policy and receive descriptors. Start-up only, one thread.
 */
#ifndef VD_DISK_OPENER_H
#define VD_DISK_OPENER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "source/source.h"

enum vd_backing {
	VD_BACKING_SAME_DIR, /* inside the directory of the file that names it, same owner */
	VD_BACKING_ANY, /* any file or block device */
	VD_BACKING_NONE, /* no file that an image names */
};

/* How many bytes of names vd_list_fn returns at most. */
#define VD_LIST_BYTES 16384u

struct vd_open_request {
	const char *name;
	const char *role; /* "image", "backing file", "data file": for messages */
	const struct vd_source *base; /* the file that names it; NULL: named by hand, no policy */
	/*
	 * Look in this directory, which was given by hand (--search), in place of base's. The
	 * policy is the same. NULL: none.
	 */
	const char *directory;
	bool beside_real; /* beside base's real file only; -ENOENT if it was not found by a link */
	bool is_candidate; /* the caller looks at it and closes it; it names no other file */
	enum vd_backing policy;
	uid_t owner; /* same-dir: who must own the file */
	struct vd_patience patience; /* with a server that is named by hand */
};

/*
 * Open the file as a source. Names by hand are paths from the current directory, or addresses of
 * servers (source/address.h); names from images never are. A relative name from an image is looked
 * up beside the path by which `base` was found; if nothing is there and that path is a symbolic
 * link, beside the real file. The log has a line when that matters.
 * Errors, with a message that says what is wrong and leaves the advice to the caller: -ENOENT and
 * its like; -EXDEV: policy, outside the directory; -EPERM: policy, another owner; -ENOTBLK: policy,
 * a block device; -EACCES: policy none, or the kernel's; -EINVAL: a name or a kind of file that is
 * never opened; never -ESTALE, which says of a parent that it has another UUID.
 */
typedef int vd_open_fn(void *context, const struct vd_open_request *request, struct vd_source **out,
		       struct vd_error *err);

/*
 * List names in a directory that was given by hand: those that come after `after` in the order of
 * strcmp(), each with its '\0', as many as fit into VD_LIST_BYTES. The number of bytes; 0: there are
 * no more; or -errno with a message.
 */
typedef int vd_list_fn(void *context, const char *directory, const char *after, char *names,
		       struct vd_error *err);

struct vd_opener {
	vd_open_fn *open;
	vd_list_fn *list;
	void *context;
};

/*
 * The half of it that needs rights: like the function, but vd_source_begin() is left to whoever gets
 * the descriptor.
 */
int vd_opener_open(const struct vd_open_request *request, struct vd_source **out,
		   struct vd_error *err);
int vd_opener_list(const char *directory, const char *after, char *names, struct vd_error *err);

/*
 * A chain may have more files than a process may usually have open. Raise the limit as far as is
 * allowed without asking; what fails for want of descriptors says so.
 */
void vd_opener_raise_limit(void);

/* The opener that does it in this process. */
extern const struct vd_opener vd_opener_here;

#endif
