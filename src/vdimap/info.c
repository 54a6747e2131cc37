/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gathering what --info prints. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/walk.h"
#include "vdimap/info.h"

static int dirty_find(const struct vd_fact *fact, void *data)
{
	if (strcmp(fact->name, "dirty-flag") == 0)
		*(bool *)data = fact->number;
	return 0;
}

static int info_walk(struct vd_info *info, struct progress *progress, struct vd_joined *unreadable)
{
	struct vd_walk *walk = malloc(sizeof(*walk));
	bool was_data = false;
	struct vd_piece piece;
	int r;

	if (!walk)
		return -ENOMEM;
	vd_walk_init(walk, info->disk, 0);
	while ((r = vd_walk_next(walk, &piece)) > 0) {
		uint64_t bytes = piece.is_data ? piece.end - piece.start : 0;

		info->totals.data_bytes += bytes;
		info->layer_bytes[walk->told->depth] += bytes;
		info->coded_bytes += walk->told->run.kind == VD_CODED ? bytes : 0;
		info->totals.intervals += piece.is_data && !was_data;
		was_data = piece.is_data;
		if (walk->told->run.kind == VD_BAD)
			vd_joined_add_bytes(unreadable, info->disk->cluster_bits, piece.start,
					    piece.end);
		progress_draw(progress, piece.end);
	}
	info->totals.bad_bytes = walk->bad_bytes;
	info->totals.complete = r == 0;
	info->is_walked = true;
	free(walk);
	if (r == 0)
		r = vd_joined_end(unreadable);
	info->unreadable = unreadable;
	return r;
}

int info_gather(struct vd_info *info, struct progress *progress, struct vd_joined *unreadable,
		struct vd_error *err)
{
	const struct vd_image *top = info->disk->layers[0];
	int r = 0;

	if (top->format->parent)
		r = top->format->parent(top, &info->parent, err);
	if (r == -EINVAL) /* it names none, and one was given by hand */
		r = 0;
	if (r < 0)
		return r;
	if (top->format->facts)
		top->format->facts(top, dirty_find, &info->is_dirty);
	r = info->fault ? 0 : info_walk(info, progress, unreadable);
	return r < 0 ? vd_fail(err, -r, "out of memory") : 0;
}

static int to_stdout(const char *text, size_t bytes, void *data)
{
	(void)data;
	fwrite(text, 1, bytes, stdout); /* whether that works the caller asks ferror() */
	return 0;
}

int info_print_json(const struct vd_info *info)
{
	return vd_info_write(info, to_stdout, NULL);
}
