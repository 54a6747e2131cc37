/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making views: see views.h. What closes them is vd_disk_close(). */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "disk/views.h"

/* A view with the image on top, if there is one, and the disk's layers from `depth` on below it. */
static int view_add(struct vd_disk *disk, struct vd_image *top, unsigned depth,
		    const struct vd_disk **out)
{
	struct vd_disk *view = calloc(1, sizeof(*view));

	if (!view)
		return -ENOMEM;
	if (top)
		view->layers[view->count++] = top;
	view->borrowed = disk->count - depth;
	while (depth < disk->count)
		view->layers[view->count++] = disk->layers[depth++];
	view->lacks_parent = disk->lacks_parent;
	view->cache = disk->cache;
	view->units = disk->units;
	view->size = view->layers[0]->size;
	view->cluster_bits = view->layers[0]->cluster_bits;
	view->next_view = disk->views;
	disk->views = view;
	*out = view;
	return 0;
}

int vd_disk_view_layer(struct vd_disk *disk, unsigned depth, const struct vd_disk **out)
{
	return view_add(disk, NULL, depth, out);
}

int vd_disk_view_snapshot(struct vd_disk *disk, const struct vd_snapshot *snapshot,
			  const struct vd_disk **out, struct vd_error *err)
{
	struct vd_image *image;
	int r = vd_image_open_snapshot(disk->layers[0], snapshot, &disk->budget, &image, err);

	if (r < 0)
		return r;
	r = view_add(disk, image, 1, out);
	if (r < 0) {
		vd_image_close(image);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	return 0;
}
