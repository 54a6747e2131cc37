/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kinds of files: a kind is a row of functions, and whatever is special to it is in them. Which
 * files there are is in tree.c; asking and answering the kernel is in fs.c.
 *
 * Nodes are const once they are in the tree; all functions may be called by any thread.
 */
#ifndef VD_VDIFS_NODE_H
#define VD_VDIFS_NODE_H

#include <sys/types.h>

#include "vdifs/shown.h"
#include "vdifs/worker.h"

struct vdifs_node;

struct vdifs_size {
	uint64_t bytes;
	uint64_t blocks; /* of 512 bytes */
	bool is_exact; /* false: the block count may still change, or nothing is known yet */
};

/* A read: what is asked, and where the answer is. */
struct vdifs_read {
	struct vdifs_worker *worker; /* its buffer holds `bytes` at least */
	size_t bytes;
	uint64_t at;
	bool can_splice; /* the answer may be put into the worker's pipe */
	bool is_spliced; /* it is there, else in the buffer */
	const struct vd_interrupt *interrupt;
};

struct vdifs_kind {
	bool is_directory;
	bool has_attributes; /* those of its disk */
	bool from_image; /* its bytes are read from the image, not made from the map */

	/*
	 * All of these: 0 or -errno; -EAGAIN: it must be tried again, since a map is not complete or
	 * another thread is at it; -EINPROGRESS: there is no interrupt, and work to do; -EINTR: the
	 * work was interrupted. With any error the size is 0.
	 */
	int (*size)(const struct vdifs_node *node, struct vdifs_size *size,
		    const struct vd_interrupt *interrupt);

	/* What follows is NULL in a directory; open, too, where nothing has to be there first. */

	/* May it be read? */
	int (*open)(const struct vdifs_node *node, const struct vd_interrupt *interrupt);

	/* All that there is of `bytes` at `at`. Returns how much that is. */
	ssize_t (*read)(const struct vdifs_node *node, struct vdifs_read *read);

	/*
	 * Like vd_index_seek(), but at may be past the end: -ENXIO. *found is `at` before the call,
	 * and after -EINTR from where it may go on.
	 */
	int (*seek)(const struct vdifs_node *node, uint64_t at, bool want_data, uint64_t *found,
		    const struct vd_interrupt *interrupt);
};

struct vdifs_node {
	const struct vdifs_kind *kind;
	unsigned parent; /* its place in the tree; the root is its own */
	char *name; /* owned */
	char *second_name; /* found, but not listed; owned, or NULL */
	struct vdifs_shown *shown; /* the disk it belongs to */
	uint64_t number; /* its inode number; no other node has it */
	unsigned folders; /* directories in it */
};

extern const struct vdifs_kind vdifs_kind_directory, vdifs_kind_root, vdifs_kind_disk,
	vdifs_kind_map, vdifs_kind_qcow2;

#endif
