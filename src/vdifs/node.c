/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of files, one after the other: directories, the raw disk, its map as JSON, the disk as
 * a QCOW2 file. Each derives all that it answers from the disk and the index of vdifs_node.shown.
 *
 * Threads: what reads of a computed file go on from is taken from readers.h and belongs to one.
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

static ssize_t disk_read(const struct vdifs_node *node, struct vdifs_read *read)
{
	const struct vd_disk *disk = node->shown->disk;
	struct vdifs_worker *worker = read->worker;
	size_t bytes =
		read->at < disk->size ? (size_t)vd_min(read->bytes, disk->size - read->at) : 0;
	int r = 0;

	read->is_spliced = read->can_splice && vdifs_worker_splice(worker, disk, read->at, bytes);
	if (!read->is_spliced && bytes)
		r = vd_disk_read(disk, worker->buffer, bytes, read->at, worker->scratch);
	return r < 0 ? r : (ssize_t)bytes;
}

static int disk_seek(const struct vdifs_node *node, uint64_t at, bool want_data, uint64_t *found,
		     const struct vd_interrupt *interrupt)
{
	if (at >= node->shown->disk->size)
		return -ENXIO;
	if (!interrupt)
		return -EINPROGRESS;
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

/* --- computed files -------------------------------------------------------------------------- */

/* Take a reader. 0; without an interrupt -EINPROGRESS; -EAGAIN: all are taken. */
static int reader_take(const struct vdifs_node *node, uint64_t at, struct vdifs_reader **reader,
		       const struct vd_interrupt *interrupt)
{
	if (!interrupt)
		return -EINPROGRESS;
	*reader = vdifs_readers_take(node->shown->readers, node, at);
	return *reader ? 0 : -EAGAIN;
}

/* --- the map --------------------------------------------------------------------------------- */

static int map_open(const struct vdifs_node *node, const struct vd_interrupt *interrupt)
{
	(void)interrupt;
	return vdifs_shown_wait(node->shown); /* reading anywhere needs it whole */
}

static int map_size(const struct vdifs_node *node, struct vdifs_size *size,
		    const struct vd_interrupt *interrupt)
{
	struct vd_index_totals totals;
	int r = map_open(node, interrupt);

	vd_index_totals(node->shown->index, &totals);
	*size = (struct vdifs_size){
		.bytes = totals.json_bytes,
		.blocks = vd_div_up(totals.json_bytes, VD_SECTOR),
		.is_exact = totals.complete,
	};
	return r;
}

static ssize_t map_read(const struct vdifs_node *node, struct vdifs_read *read)
{
	struct vdifs_shown *shown = node->shown;
	struct vdifs_reader *reader;
	ssize_t got = map_open(node, read->interrupt);

	if (got < 0)
		return got;
	got = reader_take(node, read->at, &reader, read->interrupt);
	if (got < 0)
		return got;
	if (!reader->json)
		got = vd_json_reader_new(shown->index, shown->disk->cluster_bits, &reader->json);
	if (got == 0)
		got = vd_json_read(reader->json, read->worker->buffer, read->bytes, read->at,
				   read->interrupt);
	vdifs_readers_put(shown->readers, reader, read->at + (uint64_t)(got > 0 ? got : 0));
	return got;
}

/* The map has no holes. It is open, so that its size is known. */
static int map_seek(const struct vdifs_node *node, uint64_t at, bool want_data, uint64_t *found,
		    const struct vd_interrupt *interrupt)
{
	struct vd_index_totals totals;

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
	.read = map_read,
	.seek = map_seek,
};

/* --- the disk as a QCOW2 file ---------------------------------------------------------------- */

static int view_open(const struct vdifs_node *node, const struct vd_interrupt *interrupt)
{
	const struct vd_view *view;

	return vdifs_shown_view(node->shown, &view, interrupt);
}

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

/* Take a reader of the view, which has been made by now. 0 or an error. */
static int view_take(const struct vdifs_node *node, uint64_t at, struct vdifs_reader **reader,
		     const struct vd_view **view, const struct vd_interrupt *interrupt)
{
	int r = vdifs_shown_view(node->shown, view, interrupt);

	if (r == 0)
		r = reader_take(node, at, reader, interrupt);
	if (r < 0 || (*reader)->view)
		return r;
	r = vd_view_reader_new(*view, &(*reader)->view);
	if (r < 0)
		vdifs_readers_put(node->shown->readers, *reader, at);
	return r;
}

static ssize_t view_read(const struct vdifs_node *node, struct vdifs_read *read)
{
	struct vdifs_worker *worker = read->worker;
	struct vdifs_reader *reader;
	const struct vd_view *view;
	uint64_t size, virt;
	size_t bytes;
	int r = view_take(node, read->at, &reader, &view, read->interrupt);

	if (r < 0)
		return r;
	size = vd_view_size(view);
	bytes = read->at < size ? (size_t)vd_min(read->bytes, size - read->at) : 0;
	read->is_spliced = read->can_splice && vdifs_worker_may_splice(bytes) &&
			   vd_view_find(reader->view, read->at, bytes, &virt, read->interrupt) &&
			   vdifs_worker_splice(worker, node->shown->disk, virt, bytes);
	if (!read->is_spliced)
		r = vd_view_read(reader->view, worker->buffer, bytes, read->at, worker->scratch,
				 read->interrupt);
	vdifs_readers_put(node->shown->readers, reader, read->at + (r < 0 ? 0 : bytes));
	return r < 0 ? r : (ssize_t)bytes;
}

static int view_seek(const struct vdifs_node *node, uint64_t at, bool want_data, uint64_t *found,
		     const struct vd_interrupt *interrupt)
{
	struct vdifs_reader *reader;
	const struct vd_view *view;
	uint64_t place = at;
	int r = view_take(node, at, &reader, &view, interrupt);

	if (r < 0)
		return r;
	r = at < vd_view_size(view) ? vd_view_seek(reader->view, at, want_data, &place, interrupt)
				    : -ENXIO;
	vdifs_readers_put(node->shown->readers, reader, r < 0 ? at : place);
	if (r == 0)
		*found = place;
	return r;
}

const struct vdifs_kind vdifs_kind_qcow2 = {
	.from_image = true,
	.size = view_size,
	.open = view_open,
	.read = view_read,
	.seek = view_seek,
};
