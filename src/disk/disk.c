/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking through the layers, and reading what is found. Both work on the stack and in the
 * caller's scratch; nothing is shared but the layers, which are frozen.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "disk/disk.h"

/*
 * Runs asked of a layer at a time, and of all layers together: 40 KiB on the stack, which long
 * chains share. A layer's own stack frames are small.
 */
#define RUNS_PER_CALL 64
#define RUNS_IN_ALL 1024
#define EXTENTS_PER_READ 32

/* Where vd_disk_map() collects. */
struct sink {
	struct vd_extent *extents;
	unsigned count, max;
	uint64_t end; /* of the last extent; the next begins here */
	unsigned calls; /* of drivers */
	struct vd_run *runs; /* runs_per_call for each layer */
	unsigned runs_per_call;
	bool full;
};

/* Append what is inside [sink->end, end) of the run. */
static void sink_add(struct sink *sink, const struct vd_image *image, unsigned depth,
		     const struct vd_run *run, uint64_t end)
{
	struct vd_extent *extent = &sink->extents[sink->count];
	uint64_t skip = sink->end - run->start, length = end - sink->end;

	if (sink->count > 0 && extent[-1].image == image && extent[-1].depth == depth &&
	    vd_run_continues(&extent[-1].run, run, skip)) {
		extent[-1].length += length;
		extent[-1].run.length += length;
	} else if (sink->count < sink->max) {
		extent->start = sink->end;
		extent->length = length;
		extent->image = image;
		extent->depth = depth;
		vd_run_copy(&extent->run, run);
		if (run->kind != VD_CODED) {
			extent->run.where += skip;
			extent->run.start = sink->end;
			extent->run.length = length;
		}
		sink->count++;
	} else {
		sink->full = true;
		return;
	}
	sink->end = end;
}

/* Nothing below holds what is absent in the layer: it is zeros. */
static void sink_add_hole(struct sink *sink, unsigned depth, const struct vd_run *absent,
			  uint64_t end)
{
	struct vd_run hole;

	vd_run_copy(&hole, absent);
	hole.kind = VD_ZERO;
	sink_add(sink, NULL, depth, &hole, end);
}

/* What is absent in the last layer stands in its parent, which is not here. */
static void sink_add_lost(struct sink *sink, const struct vd_image *image, unsigned depth,
			  const struct vd_run *absent, uint64_t end)
{
	struct vd_run lost = { .start = absent->start, .length = absent->length, .kind = VD_BAD };

	sink_add(sink, image, depth, &lost, end);
}

static int layers_map(const struct vd_disk *disk, unsigned depth, uint64_t end, struct sink *sink);

/* Fill the sink up to `end`, where the layer has an absent run, with what lies below. */
static int below_map(const struct vd_disk *disk, unsigned depth, const struct vd_run *absent,
		     uint64_t end, struct sink *sink)
{
	int r = depth + 1 < disk->count ? layers_map(disk, depth + 1, end, sink) : 0;

	if (depth + 1 == disk->count && disk->lacks_parent)
		sink_add_lost(sink, disk->layers[depth], depth, absent, end);
	else if (r == 0 && !sink->full && sink->end < end)
		sink_add_hole(sink, depth, absent, end);
	return r;
}

/* Fill the sink up to `end`, or to that of the layer, with what the layers from `depth` down hold. */
static int layers_map(const struct vd_disk *disk, unsigned depth, uint64_t end, struct sink *sink)
{
	const struct vd_image *image = disk->layers[depth];
	uint64_t limit = vd_min(end, image->size);
	struct vd_run *found = sink->runs + (size_t)depth * sink->runs_per_call;
	int r = 0;

	while (sink->end < limit && !sink->full && r == 0) {
		struct vd_runs runs = { .runs = found, .max = sink->runs_per_call };
		uint64_t before = sink->end;

		r = image->format->map(image, sink->end, limit - sink->end, &runs);
		for (unsigned i = 0; i < runs.count && r == 0 && !sink->full; i++) {
			const struct vd_run *run = &found[i];
			uint64_t run_end = vd_min(run->start + run->length, limit);

			if (run_end <= sink->end || run->start > sink->end)
				continue;
			if (run->kind == VD_ABSENT)
				r = below_map(disk, depth, run, run_end, sink);
			else
				sink_add(sink, image, depth, run, run_end);
		}
		if (r == 0 && !sink->full && sink->end == before)
			return -EIO; /* a driver that does not cover what it was asked for */
		sink->full = sink->full || (++sink->calls >= VD_DISK_MAP_CALLS && sink->count > 0);
	}
	return r;
}

int vd_disk_map(const struct vd_disk *disk, uint64_t virt, uint64_t want, struct vd_extent *extents,
		unsigned max)
{
	struct vd_run runs[RUNS_IN_ALL];
	struct sink sink = {
		.extents = extents,
		.max = max,
		.end = virt,
		.runs = runs,
		.runs_per_call = (unsigned)vd_min(RUNS_PER_CALL, RUNS_IN_ALL / disk->count),
	};
	int r = layers_map(disk, 0, virt + want, &sink);

	return r < 0 && sink.count == 0 ? r : (int)sink.count;
}

static int read_raw(const struct vd_extent *extent, void *buffer)
{
	const struct vd_run *run = &extent->run;
	int r;

	/* Reading a hole fills the page cache with zeros. */
	if (vd_source_is_hole(run->from, run->where, extent->length)) {
		memset(buffer, 0, (size_t)extent->length);
		return 0;
	}
	r = vd_source_read(run->from, buffer, (size_t)extent->length, run->where);

	if (r < 0)
		vd_log_once(vd_image_log(extent->image), run->where,
			    "%s: cannot read %" PRIu64 " bytes at byte %" PRIu64 " of the file: %s",
			    run->from->name, extent->length, run->where,
			    r == -EIO ? "input/output error, or the file was cut short"
				      : strerror(-r));
	return r;
}

static int read_coded(struct vd_units *units, const struct vd_extent *extent, void *buffer,
		      struct vd_scratch *scratch)
{
	struct vd_unit *unit;
	const uint8_t *bytes;
	int r = vd_units_get(units, extent->image, &extent->run, scratch, &unit, &bytes);

	if (r < 0)
		return r;
	memcpy(buffer, bytes + (extent->start - extent->run.start), (size_t)extent->length);
	vd_units_put(units, unit);
	return 0;
}

static int read_extent(const struct vd_disk *disk, const struct vd_extent *extent, void *buffer,
		       struct vd_scratch *scratch)
{
	switch (extent->run.kind) {
	case VD_ABSENT:
	case VD_ZERO:
		memset(buffer, 0, (size_t)extent->length);
		return 0;
	case VD_RAW:
		return read_raw(extent, buffer);
	case VD_CODED:
		return read_coded(disk->units, extent, buffer, scratch);
	case VD_BAD:
		break;
	}
	return -EIO;
}

/* Have all compressed clusters among the extents but the first decoded by others. */
static bool ask_for_units(const struct vd_disk *disk, const struct vd_extent *extents, int count,
			  bool is_first)
{
	bool any = false;

	for (int i = 0; i < count; i++) {
		if (extents[i].run.kind != VD_CODED)
			continue;
		if (any || !is_first)
			vd_units_ask(disk->units, extents[i].image, &extents[i].run);
		any = true;
	}
	return any;
}

/* A reader goes on in order: have what comes next decoded before it is asked for. */
static void look_ahead(const struct vd_disk *disk, uint64_t virt, uint64_t end)
{
	uint64_t ahead = vd_min(vd_units_ahead(disk->units, virt, end), disk->size - end);
	struct vd_extent extents[EXTENTS_PER_READ];
	int count = ahead ? vd_disk_map(disk, end, ahead, extents, EXTENTS_PER_READ) : 0;

	ask_for_units(disk, extents, count, false);
}

int vd_disk_read(const struct vd_disk *disk, void *buffer, size_t bytes, uint64_t virt,
		 struct vd_scratch *scratch)
{
	struct vd_extent extents[EXTENTS_PER_READ];
	uint64_t at = virt, end = virt + bytes;

	while (at < end) {
		int count = vd_disk_map(disk, at, end - at, extents, EXTENTS_PER_READ);

		if (count < 0)
			return count;
		if (ask_for_units(disk, extents, count, true) && at == virt)
			look_ahead(disk, virt, end);
		for (int i = 0; i < count; i++) {
			int r = read_extent(disk, &extents[i], (uint8_t *)buffer + (at - virt),
					    scratch);

			if (r < 0) /* why a server is lost is nothing to a reader */
				return r == -ETIMEDOUT ? -EIO : r;
			at += extents[i].length;
		}
	}
	return 0;
}

bool vd_disk_find_raw(const struct vd_disk *disk, uint64_t virt, size_t bytes,
		      const struct vd_source **from, uint64_t *where)
{
	struct vd_extent extent;

	if (vd_disk_map(disk, virt, bytes, &extent, 1) != 1 || extent.run.kind != VD_RAW ||
	    extent.length != bytes || vd_source_is_hole(extent.run.from, extent.run.where, bytes))
		return false;
	*from = extent.run.from;
	*where = extent.run.where;
	return true;
}

/* Log what is different about the file, unless just that has been logged. */
static void log_change(struct vd_log_once *once, const struct vd_source *source,
		       const struct stat *now)
{
	uint64_t key = (uint64_t)now->st_size * UINT64_C(0x9e3779b97f4a7c15) ^
		       (uint64_t)now->st_mtim.tv_sec << 30 ^ (uint64_t)now->st_mtim.tv_nsec ^
		       source->serial << 40;
	char what[96], when[32] = "?";
	struct tm tm;

	if (gmtime_r(&now->st_mtim.tv_sec,
		     &tm)) /* local time might need a file that is closed to us */
		strftime(when, sizeof(when), "%F %T", &tm);
	if ((uint64_t)now->st_size < source->size)
		snprintf(what, sizeof(what), "was cut from %" PRIu64 " to %" PRIu64 " bytes",
			 source->size, (uint64_t)now->st_size);
	else if ((uint64_t)now->st_size > source->size)
		snprintf(what, sizeof(what), "grew from %" PRIu64 " to %" PRIu64 " bytes",
			 source->size, (uint64_t)now->st_size);
	else
		snprintf(what, sizeof(what), "was written to at %s UTC", when);
	vd_log_once(once, key,
		    "%s: the file %s while it is mounted; what is read from now on may be wrong or "
		    "an error: unmount the disk, and mount it again",
		    source->name, what);
}

bool vd_disk_changed(const struct vd_disk *disk)
{
	bool changed = false;
	struct stat now;

	for (unsigned i = 0; i < 2 * disk->count; i++) {
		const struct vd_image *image = disk->layers[i / 2];
		const struct vd_source *source = i % 2 ? image->data : image->source;

		if (!source || !vd_source_changed(source, &now))
			continue;
		changed = true;
		if (image->changed)
			log_change(image->changed, source, &now);
	}
	return changed;
}

void vd_disk_log_rest(const struct vd_disk *disk)
{
	for (unsigned i = 0; i < disk->count; i++) {
		const struct vd_image *image = disk->layers[i];

		vd_log_once_rest(image->corrupt, image->source->name);
	}
}

/* Close the layers that are the disk's own, and free it. */
static void disk_free(struct vd_disk *disk)
{
	for (unsigned i = 0; i < disk->count - disk->borrowed; i++)
		vd_image_close(disk->layers[i]);
	free(disk);
}

void vd_disk_close(struct vd_disk *disk)
{
	struct vd_cache *cache;

	if (!disk)
		return;
	vd_units_free(disk->units); /* its threads use the layers, those of the views as well */
	while (disk->views) {
		struct vd_disk *view = disk->views;

		disk->views = view->next_view;
		disk_free(view);
	}
	cache = disk->cache;
	disk_free(disk);
	vd_cache_free(cache);
}
