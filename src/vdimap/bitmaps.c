/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The union of bitmaps: see bitmaps.h. All layers are searched for all names first, then the result
 * is checked, then the bitmaps are walked side by side.
 *
 * A layer may be shorter than one below it. What the lower layer holds past that end was lost when
 * the disk was cut, and reads as zeros if the disk has grown again. No bitmap has this change, so
 * that range is listed as well.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vdimap/bitmaps.h"

/* One bitmap of one layer. */
struct part {
	const char *name; /* one of those that were asked for */
	unsigned depth;
	struct vd_bitmap bitmap; /* without its strings, but for the fault */
	uint64_t end; /* `bits` hold up to here */
	enum vd_bits bits;
};

struct bitmaps {
	const struct vd_disk *disk;
	struct part *parts;
	size_t count;
	uint64_t virt; /* where the next piece begins */
	uint64_t cut_start, cut_end; /* what may have been cut off and come back as zeros */
	uint64_t bad_bytes;
};

/* The search of one layer. */
struct search {
	struct bitmaps *bitmaps;
	unsigned depth;
	const char *const *names;
	unsigned count;
	struct vd_error *seen; /* names of other bitmaps, for a message */
};

static int part_add(struct bitmaps *bitmaps, const char *name, unsigned depth,
		    const struct vd_bitmap *bitmap)
{
	struct part *parts = reallocarray(bitmaps->parts, bitmaps->count + 1, sizeof(*parts));

	if (!parts)
		return -ENOMEM;
	bitmaps->parts = parts;
	parts += bitmaps->count++;
	*parts = (struct part){ .name = name, .depth = depth, .bitmap = *bitmap };
	parts->bitmap.name = NULL; /* it is valid during the visit only */
	return 0;
}

static int search_visit(const struct vd_bitmap *bitmap, void *data)
{
	struct search *search = data;
	char name[256];
	bool wanted = false;
	int r = 0;

	for (unsigned i = 0; i < search->count && r == 0; i++) {
		if (strcmp(search->names[i], bitmap->name) != 0)
			continue;
		wanted = true;
		r = part_add(search->bitmaps, search->names[i], search->depth, bitmap);
	}
	if (!wanted)
		vd_error_add(search->seen, " %s",
			     vd_escape(name, sizeof(name), bitmap->name, strlen(bitmap->name)));
	return r;
}

static int bitmaps_search(struct bitmaps *bitmaps, const char *const *names, unsigned count,
			  struct vd_error *seen, struct vd_error *err)
{
	for (unsigned depth = 0; depth < bitmaps->disk->count; depth++) {
		const struct vd_image *image = bitmaps->disk->layers[depth];
		struct search search = {
			.bitmaps = bitmaps,
			.depth = depth,
			.names = names,
			.count = count,
			.seen = seen,
		};
		int r = image->format->bitmaps
				? image->format->bitmaps(image, search_visit, &search, err)
				: 0;

		if (r < 0)
			return *err->text ? r : vd_fail(err, -r, "out of memory");
	}
	return 0;
}

/* The name of the file that a message is about. */
static const char *layer_name(const struct bitmaps *bitmaps, unsigned depth)
{
	return bitmaps->disk->layers[depth]->source->name;
}

static const struct part *part_find(const struct bitmaps *bitmaps, const char *name, unsigned depth)
{
	for (size_t i = 0; i < bitmaps->count; i++) {
		if (bitmaps->parts[i].depth == depth && bitmaps->parts[i].name == name)
			return &bitmaps->parts[i];
	}
	return NULL;
}

/* From the lowest layer that has the bitmap up, every one must have it. *lowest: its depth. */
static int name_check(const struct bitmaps *bitmaps, const char *name, const struct vd_error *seen,
		      unsigned *lowest, struct vd_error *err)
{
	unsigned count = bitmaps->disk->count, depth = count;
	char shown[256];

	vd_escape(shown, sizeof(shown), name, strlen(name));
	while (depth > 0 && !part_find(bitmaps, name, depth - 1))
		depth--;
	if (depth == 0)
		return vd_fail(err, ENOENT,
			       "%s: no bitmap is called '%s' (--bitmap); the image%s has%s",
			       layer_name(bitmaps, 0), shown, count > 1 ? " or its chain" : "",
			       *seen->text ? seen->text : " none");
	*lowest = depth - 1;
	for (unsigned i = 0; i < *lowest; i++) {
		if (part_find(bitmaps, name, i))
			continue;
		return vd_fail(err, EINVAL,
			       "%s: layer %u of the chain has no bitmap '%s', but layer %u (%s) "
			       "has one: what was written to layer %u since is not recorded; make "
			       "a full backup",
			       layer_name(bitmaps, i), i, shown, *lowest,
			       layer_name(bitmaps, *lowest), i);
	}
	return 0;
}

static int part_check(const struct bitmaps *bitmaps, const struct part *part, struct vd_error *err)
{
	const char *layer = layer_name(bitmaps, part->depth);
	char name[256];

	vd_escape(name, sizeof(name), part->name, strlen(part->name));
	if (part->bitmap.fault)
		return vd_fail(err, EINVAL,
			       "%s: the bitmap '%s' of layer %u cannot be used: %s; make a full "
			       "backup",
			       layer, name, part->depth, part->bitmap.fault);
	if (part->bitmap.in_use)
		return vd_fail(err, EBUSY,
			       "%s: the bitmap '%s' of layer %u is in use: what is stored of it is "
			       "not valid, because a program holds it or has ended without storing "
			       "it; stop the virtual machine, or make a full backup",
			       layer, name, part->depth);
	return 0;
}

/* In each layer that has one of the bitmaps, one must be recording when something is written. */
static int recording_check(const struct bitmaps *bitmaps, struct vd_error *err)
{
	for (unsigned depth = 0; depth < bitmaps->disk->count; depth++) {
		bool any = false, recording = false;

		for (size_t i = 0; i < bitmaps->count; i++) {
			any = any || bitmaps->parts[i].depth == depth;
			recording = recording || (bitmaps->parts[i].depth == depth &&
						  bitmaps->parts[i].bitmap.is_auto);
		}
		if (any && !recording)
			return vd_fail(err, EINVAL,
				       "%s: no bitmap that is named with --bitmap is recording in "
				       "layer %u: changes made after it was stopped are not in it; "
				       "name the one that records as well, or use "
				       "--stopped-bitmaps if nothing was written since",
				       layer_name(bitmaps, depth), depth);
	}
	return 0;
}

/* Find what was cut off by a layer above `lowest`. */
static void cut_find(struct bitmaps *bitmaps, unsigned lowest)
{
	const struct vd_disk *disk = bitmaps->disk;
	uint64_t tallest = disk->layers[lowest]->size;

	bitmaps->cut_start = disk->size;
	for (unsigned depth = lowest; depth-- > 0;) {
		uint64_t size = disk->layers[depth]->size;

		if (size < tallest) {
			bitmaps->cut_start = vd_min(bitmaps->cut_start, size);
			bitmaps->cut_end = vd_min(tallest, disk->size);
		}
		tallest = vd_max(tallest, size);
	}
	bitmaps->cut_end = vd_max(bitmaps->cut_start, bitmaps->cut_end);
}

static int bitmaps_check(struct bitmaps *bitmaps, const char *const *names, unsigned count,
			 bool stopped, const struct vd_error *seen, struct vd_error *err)
{
	unsigned lowest = 0, all_lowest = 0;
	int r = 0;

	for (unsigned i = 0; i < count && r == 0; i++) {
		r = name_check(bitmaps, names[i], seen, &lowest, err);
		all_lowest = lowest > all_lowest ? lowest : all_lowest;
	}
	for (size_t i = 0; i < bitmaps->count && r == 0; i++)
		r = part_check(bitmaps, &bitmaps->parts[i], err);
	if (r == 0 && !stopped)
		r = recording_check(bitmaps, err);
	if (r == 0)
		cut_find(bitmaps, all_lowest);
	return r;
}

int bitmaps_open(const struct vd_disk *disk, const char *const *names, unsigned count, bool stopped,
		 struct bitmaps **out, struct vd_error *err)
{
	struct vd_error seen = { "" };
	struct bitmaps *bitmaps;
	int r;

	if (disk->lacks_parent)
		return vd_fail(err, EINVAL,
			       "%s: the parent is left out (--without-parent), and with it its bitmaps: "
			       "--bitmap needs the whole chain",
			       disk->layers[disk->count - 1]->source->name);
	bitmaps = calloc(1, sizeof(*bitmaps));
	if (!bitmaps)
		return vd_fail(err, ENOMEM, "out of memory");
	bitmaps->disk = disk;
	r = bitmaps_search(bitmaps, names, count, &seen, err);
	if (r == 0)
		r = bitmaps_check(bitmaps, names, count, stopped, &seen, err);
	if (r < 0)
		bitmaps_free(bitmaps);
	else
		*out = bitmaps;
	return r;
}

void bitmaps_free(struct bitmaps *bitmaps)
{
	if (bitmaps)
		free(bitmaps->parts);
	free(bitmaps);
}

unsigned bitmaps_granularity_bits(const struct bitmaps *bitmaps)
{
	unsigned bits = bitmaps->parts[0].bitmap.granularity_bits;

	for (size_t i = 1; i < bitmaps->count; i++) {
		if (bitmaps->parts[i].bitmap.granularity_bits < bits)
			bits = bitmaps->parts[i].bitmap.granularity_bits;
	}
	return bits;
}

uint64_t bitmaps_bad_bytes(const struct bitmaps *bitmaps)
{
	return bitmaps->bad_bytes;
}

/* Make the part's bits hold `virt`. Past the end of its layer nothing is set. */
static int part_reach(const struct bitmaps *bitmaps, struct part *part, uint64_t virt)
{
	const struct vd_image *image = bitmaps->disk->layers[part->depth];

	if (virt < part->end)
		return 0;
	if (virt < image->size)
		return image->format->bitmap_map(image, &part->bitmap, virt, &part->bits,
						 &part->end);
	part->bits = VD_BITS_CLEAR;
	part->end = UINT64_MAX;
	return 0;
}

int bitmaps_next(struct bitmaps *bitmaps, struct vd_piece *piece)
{
	uint64_t virt = bitmaps->virt, end = bitmaps->disk->size;
	bool is_cut = virt >= bitmaps->cut_start && virt < bitmaps->cut_end, is_bad = false;

	if (virt == end)
		return 0;
	*piece = (struct vd_piece){ .start = virt, .is_data = is_cut };
	if (is_cut || virt < bitmaps->cut_start)
		end = vd_min(end, is_cut ? bitmaps->cut_end : bitmaps->cut_start);
	for (size_t i = 0; i < bitmaps->count; i++) {
		struct part *part = &bitmaps->parts[i];
		int r = part_reach(bitmaps, part, virt);

		if (r < 0)
			return r;
		piece->is_data = piece->is_data || part->bits != VD_BITS_CLEAR;
		is_bad = is_bad || part->bits == VD_BITS_BAD;
		end = vd_min(end, part->end);
	}
	bitmaps->bad_bytes += is_bad ? end - virt : 0;
	piece->end = bitmaps->virt = end;
	return 1;
}
