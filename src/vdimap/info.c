/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gathering what --info tells. */
#include "config.h"

#include <errno.h>
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

static int info_walk(struct info *info, struct progress *progress)
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

		info->data_bytes += bytes;
		info->layer_bytes[walk->told->depth] += bytes;
		info->coded_bytes += walk->told->run.kind == VD_CODED ? bytes : 0;
		info->ranges += piece.is_data && !was_data;
		was_data = piece.is_data;
		progress_draw(progress, piece.end);
	}
	info->bad_bytes = walk->bad_bytes;
	free(walk);
	return r;
}

int info_gather(struct info *info, struct progress *progress, struct vd_error *err)
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
	r = info->alone ? 0 : info_walk(info, progress);
	return r < 0 ? vd_fail(err, -r, "out of memory") : 0;
}

void info_clear(struct info *info)
{
	vd_parent_clear(&info->parent);
}

const char *info_qemu_format(const struct vd_image *image)
{
	return image->format == &vd_format_vhd ? "vpc" : image->format->name;
}
