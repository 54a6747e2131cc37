/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A raw disk: the file is the disk. It has no magic, so that it is never found by probing, only
 * named by the user or recorded in the image that stands on it. Its holes are found by disk/,
 * as those of every file.
 */
#include "config.h"

#include <errno.h>

#include "format/format.h"

/* Raw has no clusters; the interval map is drawn in units of 64 KiB. */
#define RAW_CLUSTER_BITS 16

static int raw_probe(const struct vd_source *source)
{
	(void)source;
	return 0;
}

static int raw_open(struct vd_image *image, const struct vd_image_options *options,
		    struct vd_error *err)
{
	if (options->snapshot)
		return vd_fail(err, EINVAL, "%s: a raw disk has no snapshots; leave --snapshot out",
			       image->source->name);
	image->size = image->source->size;
	image->cluster_bits = RAW_CLUSTER_BITS;
	image->has_no_clusters = true;
	return 0;
}

static int raw_map(const struct vd_image *image, uint64_t virt, uint64_t want, struct vd_runs *runs)
{
	struct vd_run run = { .length = image->size, .kind = VD_RAW, .from = image->source };

	(void)virt;
	(void)want;
	vd_runs_add(runs, &run);
	return 0;
}

static enum vd_host_hole raw_host_hole(const struct vd_image *image)
{
	(void)image;
	return VD_HOLE_IS_HOLE;
}

static void raw_close(struct vd_image *image)
{
	(void)image;
}

const struct vd_format vd_format_raw = {
	.name = "raw",
	.probe = raw_probe,
	.open = raw_open,
	.map = raw_map,
	.host_hole = raw_host_hole,
	.close = raw_close,
};
