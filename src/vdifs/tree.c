/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files there are, and what they are called.
 *
 *	a directory	NAME.raw, NAME.intervals.json	the disk
 *			NAME.qcow2			with --qcow2
 *			snapshots/SNAPSHOT.raw ...	where the image has some
 *			layers/0.raw ...		with --layers; 0 is the disk itself
 *	a file		the disk, which is the root itself
 *
 * A snapshot is also found by its ID. That name is not listed, since who copies the directory wants
 * each disk once. Where a snapshot is called like another one's ID, the name counts.
 *
 * A snapshot that cannot be opened must not hinder the mount of the disk: it is left out, with a
 * line in the log. Hostile tables are bounded: so many snapshots are looked at, and so many table
 * entries read for all of them together.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/views.h"
#include "vdifs/names.h"
#include "vdifs/tree.h"

#define MAP_SUFFIX ".intervals.json"
#define DISK_SUFFIX ".raw"
#define QCOW2_SUFFIX ".qcow2"
/* Of what comes before the longest suffix, with a NUL. */
#define STEM_ROOM (VDIFS_NAME_ROOM - sizeof(MAP_SUFFIX) + 1)
#define NUMBER_ROOM 4 /* of "~256" */
#define ROOT 0u
#define DISKS_MAX (1 + VDIFS_SNAPSHOTS_MAX + VD_LAYERS_MAX)
/* Of all snapshots' tables: 256 snapshots of a disk of 16 TiB have as many. */
#define TABLE_ENTRIES_MAX (8u << 20)

/* What the tree is being made of. */
struct making {
	struct vdifs_tree *tree;
	struct vd_disk *disk;
	struct vd_error *err;
	bool for_others;
	int directory; /* place of snapshots/, or -1 */
	uint32_t table_entries; /* of the snapshots opened */
	unsigned seen; /* entries of the snapshot table, whatever is in them */
	unsigned id_count;
	char *ids[VDIFS_SNAPSHOTS_MAX]; /* of them, each once; owned */
};

static int no_memory(struct vd_error *err)
{
	return vd_fail(err, ENOMEM, "out of memory");
}

/* --- nodes ----------------------------------------------------------------------------------- */

/* What is to be added, but for the suffix. */
struct naming {
	unsigned parent;
	const char *stem;
	const char *second; /* stem of another name, or NULL */
};

/* Append a node. Its place, or -ENOMEM. */
static int node_add(struct vdifs_tree *tree, const struct vdifs_kind *kind,
		    struct vdifs_shown *shown, const struct naming *naming, const char *suffix)
{
	struct vdifs_node *node;

	if (tree->count == tree->room) {
		unsigned room = tree->room ? tree->room * 2 : 8;
		struct vdifs_node *nodes = realloc(tree->nodes, room * sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		tree->nodes = nodes;
		tree->room = room;
	}
	node = &tree->nodes[tree->count];
	*node = (struct vdifs_node){ .kind = kind, .parent = naming->parent, .shown = shown };
	if (asprintf(&node->name, "%s%s", naming->stem, suffix) < 0)
		return -ENOMEM;
	if (naming->second && asprintf(&node->second_name, "%s%s", naming->second, suffix) < 0) {
		free(node->name);
		return -ENOMEM;
	}
	return (int)tree->count++;
}

static int directory_add(struct vdifs_tree *tree, const char *name)
{
	struct naming naming = { .parent = ROOT, .stem = name };
	int place = node_add(tree, &vdifs_kind_directory, &tree->disks[0], &naming, "");

	if (place >= 0)
		tree->nodes[ROOT].folders++;
	return place;
}

/* The two files that each disk has. 0 or -ENOMEM. */
static int files_add(struct vdifs_tree *tree, struct vdifs_shown *shown,
		     const struct naming *naming)
{
	int r = node_add(tree, &vdifs_kind_disk, shown, naming, DISK_SUFFIX);

	if (r >= 0)
		r = node_add(tree, &vdifs_kind_map, shown, naming, MAP_SUFFIX);
	return r < 0 ? r : 0;
}

/* Show one more disk, with an index of its own. NULL for want of memory. */
static struct vdifs_shown *disk_add(struct making *making, const struct vd_disk *disk)
{
	struct vdifs_tree *tree = making->tree;
	struct vdifs_shown *shown = &tree->disks[tree->disk_count];
	struct vd_index *index;

	if (vd_index_new_sharing(disk, tree->disks[0].index, &index) < 0)
		return NULL;
	vdifs_shown_init(shown, index, &tree->turns);
	shown->readers = tree->readers;
	vdifs_shown_permit(shown, &making->disk->layers[0]->source->st, making->for_others);
	tree->disk_count++;
	return shown;
}

/* --- finding --------------------------------------------------------------------------------- */

static int find_listed(const struct vdifs_tree *tree, unsigned parent, const char *name)
{
	for (unsigned i = 1; i < tree->count; i++) {
		if (tree->nodes[i].parent == parent && strcmp(tree->nodes[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

int vdifs_tree_find(const struct vdifs_tree *tree, unsigned parent, const char *name)
{
	int found = find_listed(tree, parent, name);

	for (unsigned i = 1; i < tree->count && found < 0; i++) {
		const struct vdifs_node *node = &tree->nodes[i];

		if (node->parent == parent && node->second_name &&
		    strcmp(node->second_name, name) == 0)
			found = (int)i;
	}
	return found;
}

/* --- layers ---------------------------------------------------------------------------------- */

static int layer_add(struct making *making, unsigned parent, unsigned depth)
{
	struct vdifs_tree *tree = making->tree;
	struct vdifs_shown *shown = &tree->disks[0];
	const struct vd_disk *view;
	char stem[16];
	struct naming naming = { .parent = parent, .stem = stem };

	if (depth > 0) {
		if (vd_disk_view_layer(making->disk, depth, &view) < 0)
			return -ENOMEM;
		shown = disk_add(making, view);
		if (!shown)
			return -ENOMEM;
	}
	snprintf(stem, sizeof(stem), "%u", depth);
	return files_add(tree, shown, &naming);
}

static int layers_add(struct making *making)
{
	int parent = directory_add(making->tree, "layers"), r = parent;

	for (unsigned i = 0; i < making->disk->count && r >= 0; i++)
		r = layer_add(making, (unsigned)parent, i);
	return r < 0 ? no_memory(making->err) : 0;
}

/* --- snapshots ------------------------------------------------------------------------------- */

/* A stem that no other snapshot has: its name, its ID where it has none. */
static void snapshot_stem(const struct making *making, const struct vd_snapshot *snapshot,
			  char stem[STEM_ROOM])
{
	const char *name = *snapshot->name ? snapshot->name
			   : *snapshot->id ? snapshot->id
					   : "snapshot";
	char file[VDIFS_NAME_ROOM];
	unsigned number = 1;

	vdifs_name_escape(stem, STEM_ROOM, name);
	for (;;) {
		snprintf(file, sizeof(file), "%s" DISK_SUFFIX, stem);
		if (find_listed(making->tree, (unsigned)making->directory, file) < 0)
			return;
		vdifs_name_escape(stem, STEM_ROOM - NUMBER_ROOM, name);
		snprintf(stem + strlen(stem), NUMBER_ROOM + 1, "~%u", ++number % 1000);
	}
}

/* Make the files of a snapshot that has been opened. */
static int snapshot_show(struct making *making, const struct vd_snapshot *snapshot,
			 const struct vd_disk *view)
{
	char stem[STEM_ROOM], id[STEM_ROOM];
	struct naming naming = { .stem = stem };
	struct vdifs_shown *shown;

	if (making->directory < 0)
		making->directory = directory_add(making->tree, "snapshots");
	if (making->directory < 0)
		return -ENOMEM;
	shown = disk_add(making, view);
	if (!shown)
		return -ENOMEM;
	snapshot_stem(making, snapshot, stem);
	naming.parent = (unsigned)making->directory;
	if (vdifs_name_escape(id, sizeof(id), snapshot->id) && *id) /* half an ID is none */
		naming.second = id;
	return files_add(making->tree, shown, &naming);
}

static int id_is_new(struct making *making, const char *id, struct vd_error *err)
{
	for (unsigned i = 0; i < making->id_count; i++) {
		if (strcmp(making->ids[i], id) == 0)
			return vd_fail(err, EEXIST, "%s: another snapshot has the same ID",
				       making->disk->layers[0]->source->name);
	}
	making->ids[making->id_count] = strdup(id);
	if (!making->ids[making->id_count])
		return no_memory(err);
	making->id_count++;
	return 0;
}

/* Open it. By its ID, which counts before a name and therefore is the right one if it is new. */
static int snapshot_open(struct making *making, const struct vd_snapshot *snapshot,
			 const struct vd_disk **view, struct vd_error *err)
{
	int r = id_is_new(making, snapshot->id, err);

	if (r < 0)
		return r;
	if (snapshot->l1_size > TABLE_ENTRIES_MAX - making->table_entries)
		return vd_fail(err, EFBIG, "%s: the L1 tables of all snapshots are too large",
			       making->disk->layers[0]->source->name);
	making->table_entries += snapshot->l1_size;
	return vd_disk_view_snapshot(making->disk, snapshot, view, err);
}

/* A vd_snapshot_fn. */
static int snapshot_add(const struct vd_snapshot *snapshot, void *context)
{
	struct making *making = context;
	struct vd_error err = { "" };
	const struct vd_disk *view;
	char id[80], name[160];
	int r;

	if (making->seen == VDIFS_SNAPSHOTS_MAX) {
		vd_log(LOG_WARNING,
		       "%s: only the first %d snapshots are shown; any can be mounted with "
		       "--snapshot",
		       making->disk->layers[0]->source->name, VDIFS_SNAPSHOTS_MAX);
		return 1;
	}
	making->seen++;
	r = snapshot_open(making, snapshot, &view, &err);
	if (r == 0)
		return snapshot_show(making, snapshot, view);
	if (r != -ENOMEM)
		vd_log(LOG_WARNING, "%s; snapshot %s=%s is not shown", err.text,
		       vd_escape(id, sizeof(id), snapshot->id, strlen(snapshot->id)),
		       vd_escape(name, sizeof(name), snapshot->name, strlen(snapshot->name)));
	return r == -ENOMEM ? r : 0;
}

static int snapshots_add(struct making *making)
{
	const struct vd_image *image = making->disk->layers[0];
	struct vd_error err = { "" };
	int r = 0;

	if (image->format->snapshots)
		r = image->format->snapshots(image, snapshot_add, making, &err);
	for (unsigned i = 0; i < making->id_count; i++)
		free(making->ids[i]);
	if (r == -ENOMEM)
		return no_memory(making->err);
	if (r < 0)
		vd_log(LOG_WARNING, "%s; not all snapshots are shown", err.text);
	return 0;
}

/* --- inode numbers --------------------------------------------------------------------------- */

/*
 * Programs that make backups take a file with the name, inode number, size and time of an earlier
 * one for that one. So another disk at the same place has another number, and the same disk has its
 * number again. 52 bits: what reads numbers as floating point gets them whole.
 */
static uint64_t node_number(const struct vdifs_tree *tree, const struct vdifs_node *node)
{
	static const struct vdifs_kind *const kinds[] = {
		&vdifs_kind_directory, &vdifs_kind_root,  &vdifs_kind_disk,
		&vdifs_kind_map,       &vdifs_kind_qcow2,
	};
	uint64_t sum = vdifs_shown_identity(node->shown);
	unsigned kind = 0;

	while (kinds[kind] != node->kind)
		kind++;
	sum = vd_mix(sum, kind);
	sum = vd_mix_text(sum, tree->nodes[node->parent].name); /* "", "snapshots" or "layers" */
	if (node->kind->is_directory)
		sum = vd_mix_text(sum, node->name);
	return sum >> 12;
}

static bool number_is_taken(const struct vdifs_tree *tree, unsigned place, uint64_t number)
{
	if (number < 2) /* 0 stands for none; 1 is what mounts without such numbers have */
		return true;
	for (unsigned i = 0; i < place; i++) {
		if (tree->nodes[i].number == number)
			return true;
	}
	return false;
}

static void number_nodes(struct vdifs_tree *tree)
{
	for (unsigned i = 0; i < tree->count; i++) {
		uint64_t number = node_number(tree, &tree->nodes[i]);

		while (number_is_taken(tree, i, number))
			number++;
		tree->nodes[i].number = number;
	}
}

/* --- the whole ------------------------------------------------------------------------------- */

/* NAME is the image's file name without its last extension, "disk" if nothing is left. */
static void image_stem(char stem[STEM_ROOM], const char *name)
{
	const char *dot = strrchr(name, '.');
	size_t length = dot ? (size_t)(dot - name) : strlen(name);

	if (length == 0) {
		name = "disk";
		length = strlen(name);
	}
	if (length > STEM_ROOM - 1) { /* more than a lookup can name */
		unsigned back = 0; /* to where a character begins, if it is UTF-8 */

		length = STEM_ROOM - 1;
		while (back < 4 && ((uint8_t)name[length - back] & 0xc0) == 0x80)
			back++;
		length -= back < 4 ? back : 0;
	}
	snprintf(stem, STEM_ROOM, "%.*s", (int)length, name);
}

/* The directory form. */
static int directory_make(struct making *making, const struct vdifs_tree_options *options)
{
	struct vdifs_tree *tree = making->tree;
	char stem[STEM_ROOM];
	struct naming root = { .parent = ROOT, .stem = "" };
	struct naming naming = { .parent = ROOT, .stem = stem };
	int r = node_add(tree, &vdifs_kind_root, &tree->disks[0], &root, "");

	image_stem(stem, options->image_name);
	if (r >= 0)
		r = files_add(tree, &tree->disks[0], &naming);
	if (r < 0)
		return no_memory(making->err);
	if (options->qcow2)
		r = vd_view_check(making->disk, making->err);
	if (r == 0 && options->qcow2 &&
	    node_add(tree, &vdifs_kind_qcow2, &tree->disks[0], &naming, QCOW2_SUFFIX) < 0)
		r = no_memory(making->err);
	if (r == 0)
		r = snapshots_add(making);
	if (r == 0 && options->layers)
		r = layers_add(making);
	return r;
}

int vdifs_tree_init(struct vdifs_tree *tree, struct vd_disk *disk, struct vd_index *index,
		    const struct vdifs_tree_options *options, struct vd_error *err)
{
	struct making making = {
		.tree = tree,
		.disk = disk,
		.err = err,
		.for_others = options->for_others,
		.directory = -1,
	};
	struct naming root = { .parent = ROOT, .stem = "" };
	int r;

	*tree = (struct vdifs_tree){ .disks = calloc(DISKS_MAX, sizeof(*tree->disks)) };
	pthread_mutex_init(&tree->turns.lock, NULL);
	if (!tree->disks || vdifs_readers_new(&tree->readers) < 0)
		return no_memory(err);
	vdifs_shown_init(&tree->disks[tree->disk_count++], index, NULL);
	tree->disks[0].readers = tree->readers;
	vdifs_shown_permit(&tree->disks[0], &disk->layers[0]->source->st, options->for_others);
	if (options->is_directory) {
		r = directory_make(&making, options);
		number_nodes(tree);
		return r;
	}
	if (options->layers || options->qcow2)
		return vd_fail(err, EINVAL,
			       "--%s shows more than one file: the mountpoint must be a directory",
			       options->layers ? "layers" : "qcow2");
	if (node_add(tree, &vdifs_kind_disk, &tree->disks[0], &root, "") < 0)
		return no_memory(err);
	number_nodes(tree);
	return 0;
}

void vdifs_tree_clear(struct vdifs_tree *tree)
{
	vdifs_readers_free(tree->readers); /* before the views and indexes that they read */
	for (unsigned i = 0; i < tree->disk_count; i++) {
		vdifs_shown_clear(&tree->disks[i]);
		if (i > 0)
			vd_index_free(tree->disks[i].index);
	}
	free(tree->disks);
	for (unsigned i = 0; i < tree->count; i++) {
		free(tree->nodes[i].name);
		free(tree->nodes[i].second_name);
	}
	free(tree->nodes);
	pthread_mutex_destroy(&tree->turns.lock);
}
