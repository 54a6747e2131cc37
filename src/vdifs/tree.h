/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files that a mount shows: a table of nodes, made before the mount and const from then on.
 */
#ifndef VD_VDIFS_TREE_H
#define VD_VDIFS_TREE_H

#include "vdifs/node.h"

/* Longest name of a file, with its NUL. */
#define VDIFS_NAME_ROOM 256

struct vdifs_tree_options {
	const char *image_name; /* the image's file name, without its directory */
	bool is_directory; /* the form of the mountpoint */
};

struct vdifs_tree {
	struct vdifs_node *nodes; /* [0] is the root */
	unsigned count, room;
	struct vdifs_shown disk; /* the one that NAME.raw is */
};

/* The index and its disk must outlive the tree. 0 or -ENOMEM; clear it in any case. */
int vdifs_tree_init(struct vdifs_tree *tree, struct vd_index *index,
		    const struct vdifs_tree_options *options);
void vdifs_tree_clear(struct vdifs_tree *tree);

/* The place of a name in the directory at place `parent`, or -1. */
int vdifs_tree_find(const struct vdifs_tree *tree, unsigned parent, const char *name);

#endif
