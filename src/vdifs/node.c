/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of files, one after the other: directories, the raw disk, its map as JSON, the disk as
 * a QCOW2 file. Each derives all that it answers from the disk and the index of vdifs_node.shown.
 *
 * Threads: an open map has a mutex, since several requests may read it at once.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "map/json.h"
#include "vdifs/node.h"

/* --- directories ----------------------------------------------------------------------------- */

static int directory_size(const struct vdifs_node *node, struct vdifs_size *size,
			  const struct vd_interrupt *interrupt)
{
	(void)node;
	(void)interrupt;
	*size = (struct vdifs_size){ .is_exact = true };
	return 0;
}

const struct vdifs_kind vdifs_kind_directory = {
	.is_directory = true,
	.size = directory_size,
};

const struct vdifs_kind vdifs_kind_root = {
	.is_directory = true,
	.has_attributes = true,
	.size = directory_size,
};

/* --- the disk -------------------------------------------------------------------------------- */

static int disk_size(const struct vdifs_node *node, struct vdifs_size *size,
		     const struct vd_interrupt *interrupt)
{
	(void)interrupt;
	vdifs_shown_wanted(node->shown);
	size->bytes = node->shown->disk->size;
	size->blocks = vd_index_blocks(node->shown->index, &size->is_exact);
	return 0;
}

static ssize_t disk_read(const struct vdifs_node *node, void *handle, struct vdifs_read *read)
{
	const struct vd_disk *disk = node->shown->disk;
	struct vdifs_worker *worker = read->worker;
	size_t bytes =
		read->at < disk->size ? (size_t)vd_min(read->bytes, disk->size - read->at) : 0;
	int r = 0;

	(void)handle;
	read->is_spliced = read->can_splice && vdifs_worker_splice(worker, disk, read->at, bytes);
	if (!read->is_spliced && bytes)
		r = vd_disk_read(disk, worker->buffer, bytes, read->at, worker->scratch);
	return r < 0 ? r : (ssize_t)bytes;
}

static int disk_seek(const struct vdifs_node *node, void *handle, uint64_t at, bool want_data,
		     uint64_t *found, const struct vd_interrupt *interrupt)
{
	(void)handle;
	if (at >= node->shown->disk->size)
		return -ENXIO;
	vdifs_shown_wanted(node->shown);
	return vd_index_seek(node->shown->index, at, want_data, found, interrupt);
}

const struct vdifs_kind vdifs_kind_disk = {
	.has_attributes = true,
	.from_image = true,
	.size = disk_size,
	.read = disk_read,
	.seek = disk_seek,
};

/* --- the map --------------------------------------------------------------------------------- */

struct open_map {
	pthread_mutex_t lock;
	struct vd_json_reader *reader;
};

static int map_size(const struct vdifs_node *node, struct vdifs_size *size,
		    const struct vd_interrupt *interrupt)
{
	struct vd_index_totals totals;
	int r = vdifs_shown_wait(node->shown, interrupt);

	vd_index_totals(node->shown->index, &totals);
	*size = (struct vdifs_size){
		.bytes = totals.json_bytes,
		.blocks = vd_div_up(totals.json_bytes, VD_SECTOR),
		.is_exact = totals.complete,
	};
	return r;
}

static int map_open(const struct vdifs_node *node, void **handle,
		    const struct vd_interrupt *interrupt)
{
	struct vdifs_shown *shown = node->shown;
	struct open_map *map;
	int r = vdifs_shown_wait(shown, interrupt); /* reading anywhere needs it whole */

	if (r < 0)
		return r;
	map = calloc(1, sizeof(*map));
	if (!map || vd_json_reader_new(shown->index, shown->disk->cluster_bits, &map->reader) < 0) {
		free(map);
		return -ENOMEM;
	}
	pthread_mutex_init(&map->lock, NULL);
	*handle = map;
	return 0;
}

static void map_release(void *handle)
{
	struct open_map *map = handle;

	vd_json_reader_free(map->reader);
	pthread_mutex_destroy(&map->lock);
	free(map);
}

static ssize_t map_read(const struct vdifs_node *node, void *handle, struct vdifs_read *read)
{
	struct open_map *map = handle;
	ssize_t got;

	(void)node;
	pthread_mutex_lock(&map->lock);
	got = vd_json_read(map->reader, read->worker->buffer, read->bytes, read->at,
			   read->interrupt);
	pthread_mutex_unlock(&map->lock);
	return got;
}

/* The map has no holes. It is open, so that its size is known. */
static int map_seek(const struct vdifs_node *node, void *handle, uint64_t at, bool want_data,
		    uint64_t *found, const struct vd_interrupt *interrupt)
{
	struct vd_index_totals totals;

	(void)handle;
	(void)interrupt;
	vd_index_totals(node->shown->index, &totals);
	if (at >= totals.json_bytes)
		return -ENXIO;
	*found = want_data ? at : totals.json_bytes;
	return 0;
}

const struct vdifs_kind vdifs_kind_map = {
	.size = map_size,
	.open = map_open,
	.release = map_release,
	.read = map_read,
	.seek = map_seek,
};

/* --- the disk as a QCOW2 file ---------------------------------------------------------------- */

struct open_view {
	const struct vd_view *view;
	struct vd_view_reader *reader;
};

static int view_size(const struct vdifs_node *node, struct vdifs_size *size,
		     const struct vd_interrupt *interrupt)
{
	const struct vd_view *view;
	int r = vdifs_shown_view(node->shown, &view, interrupt);

	*size = (struct vdifs_size){ .is_exact = view };
	if (view) {
		size->bytes = vd_view_size(view);
		size->blocks = vd_view_blocks(view);
	}
	return r;
}

static int view_open(const struct vdifs_node *node, void **handle,
		     const struct vd_interrupt *interrupt)
{
	struct open_view *open;
	const struct vd_view *view;
	int r = vdifs_shown_view(node->shown, &view, interrupt);

	if (r < 0)
		return r;
	open = calloc(1, sizeof(*open));
	if (!open || vd_view_reader_new(view, &open->reader) < 0) {
		free(open);
		return -ENOMEM;
	}
	open->view = view;
	*handle = open;
	return 0;
}

static void view_release(void *handle)
{
	struct open_view *open = handle;

	vd_view_reader_free(open->reader);
	free(open);
}

static ssize_t view_read(const struct vdifs_node *node, void *handle, struct vdifs_read *read)
{
	struct open_view *open = handle;
	struct vdifs_worker *worker = read->worker;
	uint64_t size = vd_view_size(open->view), virt;
	size_t bytes = read->at < size ? (size_t)vd_min(read->bytes, size - read->at) : 0;
	int r = 0;

	read->is_spliced = read->can_splice && vdifs_worker_may_splice(bytes) &&
			   vd_view_find(open->reader, read->at, bytes, &virt, read->interrupt) &&
			   vdifs_worker_splice(worker, node->shown->disk, virt, bytes);
	if (!read->is_spliced)
		r = vd_view_read(open->reader, worker->buffer, bytes, read->at, worker->scratch,
				 read->interrupt);
	return r < 0 ? r : (ssize_t)bytes;
}

static int view_seek(const struct vdifs_node *node, void *handle, uint64_t at, bool want_data,
		     uint64_t *found, const struct vd_interrupt *interrupt)
{
	struct open_view *open = handle;

	(void)node;
	if (at >= vd_view_size(open->view))
		return -ENXIO;
	return vd_view_seek(open->reader, at, want_data, found, interrupt);
}

const struct vdifs_kind vdifs_kind_qcow2 = {
	.from_image = true,
	.size = view_size,
	.open = view_open,
	.release = view_release,
	.read = view_read,
	.seek = view_seek,
};
