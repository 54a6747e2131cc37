/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files there are, and what they are called.
 *
 *	a directory	NAME.raw, NAME.intervals.json
 *	a file		the disk, which is the root itself
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vdifs/tree.h"

#define MAP_SUFFIX ".intervals.json"
#define DISK_SUFFIX ".raw"
#define ROOT 0u

/* Append a node called stem + suffix. Its place, or -ENOMEM. */
static int node_add(struct vdifs_tree *tree, const struct vdifs_kind *kind, unsigned parent,
		    struct vdifs_shown *shown, const char *stem, const char *suffix)
{
	struct vdifs_node node = { .kind = kind, .parent = parent, .shown = shown };

	if (tree->count == tree->room) {
		unsigned room = tree->room ? tree->room * 2 : 4;
		struct vdifs_node *nodes = realloc(tree->nodes, room * sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		tree->nodes = nodes;
		tree->room = room;
	}
	if (asprintf(&node.name, "%s%s", stem, suffix) < 0)
		return -ENOMEM;
	tree->nodes[tree->count] = node;
	return (int)tree->count++;
}

/* The two files of a disk. 0 or -ENOMEM. */
static int disk_add(struct vdifs_tree *tree, unsigned parent, struct vdifs_shown *shown,
		    const char *stem)
{
	int r = node_add(tree, &vdifs_kind_disk, parent, shown, stem, DISK_SUFFIX);

	if (r >= 0)
		r = node_add(tree, &vdifs_kind_map, parent, shown, stem, MAP_SUFFIX);
	return r < 0 ? r : 0;
}

/* NAME is the image's file name without its last extension, "disk" if nothing is left. */
static void image_stem(char stem[VDIFS_NAME_ROOM], const char *name)
{
	const char *dot = strrchr(name, '.');
	size_t length = dot ? (size_t)(dot - name) : strlen(name);

	if (length == 0) {
		name = "disk";
		length = strlen(name);
	}
	if (length > VDIFS_NAME_ROOM - sizeof(MAP_SUFFIX)) { /* more than a lookup can name */
		length = VDIFS_NAME_ROOM - sizeof(MAP_SUFFIX);
		while (length > 0 && ((uint8_t)name[length] & 0xc0) == 0x80) /* whole characters */
			length--;
	}
	snprintf(stem, VDIFS_NAME_ROOM, "%.*s", (int)length, name);
}

int vdifs_tree_init(struct vdifs_tree *tree, struct vd_index *index,
		    const struct vdifs_tree_options *options)
{
	char stem[VDIFS_NAME_ROOM];
	int r;

	*tree = (struct vdifs_tree){ 0 };
	vdifs_shown_init(&tree->disk, index);
	if (!options->is_directory) {
		r = node_add(tree, &vdifs_kind_disk, ROOT, &tree->disk, "", "");
		return r < 0 ? r : 0;
	}
	image_stem(stem, options->image_name);
	r = node_add(tree, &vdifs_kind_directory, ROOT, &tree->disk, "", "");
	return r < 0 ? r : disk_add(tree, ROOT, &tree->disk, stem);
}

void vdifs_tree_clear(struct vdifs_tree *tree)
{
	for (unsigned i = 0; i < tree->count; i++)
		free(tree->nodes[i].name);
	free(tree->nodes);
	vdifs_shown_clear(&tree->disk);
}

int vdifs_tree_find(const struct vdifs_tree *tree, unsigned parent, const char *name)
{
	for (unsigned i = 1; i < tree->count; i++) {
		if (tree->nodes[i].parent == parent && strcmp(tree->nodes[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}
