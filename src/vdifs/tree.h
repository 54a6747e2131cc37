/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files that a mount shows: a table of nodes, made before the mount and const from then on.
 * Which disks there are besides the main one (snapshots, layers) is decided here, too.
 */
#ifndef VD_VDIFS_TREE_H
#define VD_VDIFS_TREE_H

#include "vdifs/node.h"

/* Longest name of a file, with its NUL. */
#define VDIFS_NAME_ROOM 256

/* More snapshots than this are not shown. */
#define VDIFS_SNAPSHOTS_MAX 256

struct vdifs_tree_options {
	const char *image_name; /* the image's file name, without its directory */
	bool is_directory; /* the form of the mountpoint; in the other one there is one file */
	bool layers; /* show each layer of the chain */
	bool qcow2; /* show the disk as a QCOW2 file */
	bool for_others; /* other users may see the mount */
};

struct vdifs_tree {
	struct vdifs_node *nodes; /* [0] is the root */
	unsigned count, room;
	struct vdifs_shown *disks; /* [0] is the main one, the others' indexes are owned */
	unsigned disk_count;
	struct vdifs_turns turns; /* of the others */
	struct vdifs_readers *readers; /* of all */
};

/*
 * The disk and its index must outlive the tree; the disk gets views, on which the tree stands. 0 or
 * -errno; clear it in any case.
 */
int vdifs_tree_init(struct vdifs_tree *tree, struct vd_disk *disk, struct vd_index *index,
		    const struct vdifs_tree_options *options, struct vd_error *err);
void vdifs_tree_clear(struct vdifs_tree *tree);

/* The place of a name in the directory at place `parent`, or -1. */
int vdifs_tree_find(const struct vdifs_tree *tree, unsigned parent, const char *name);

#endif
