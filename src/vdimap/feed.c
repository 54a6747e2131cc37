/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The questions that can be asked of a disk: see feed.h. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "vdimap/feed.h"

/* Pieces between two looks at the clock, where a piece takes no time. */
#define PIECES_PER_LOOK 64

static int data_next(struct feed *feed, struct vd_piece *piece)
{
	int r = vd_scan_next(feed->scan, piece);

	feed->bad_bytes = vd_scan_bad_bytes(feed->scan);
	return r;
}

static const struct feed_ops data_ops = { data_next, "data", "hole" };

static int diff_next(struct feed *feed, struct vd_piece *piece)
{
	int r = vd_diff_next(feed->diff, piece);

	feed->bad_bytes = vd_diff_bad_bytes(feed->diff);
	return r;
}

static const struct feed_ops diff_ops = { diff_next, "changed", "same" };

static int bitmap_next(struct feed *feed, struct vd_piece *piece)
{
	const struct vd_image *top = feed->disk->layers[0];
	enum vd_bits bits;
	int r;

	if (feed->bitmap_virt == feed->disk->size)
		return 0;
	piece->start = feed->bitmap_virt;
	r = top->format->bitmap_map(top, &feed->bitmap, piece->start, &bits, &piece->end);
	if (r < 0)
		return r;
	piece->is_data = bits != VD_BITS_CLEAR;
	if (bits == VD_BITS_BAD)
		feed->bad_bytes += piece->end - piece->start;
	feed->bitmap_virt = piece->end;
	return 1;
}

static const struct feed_ops bitmap_ops = { bitmap_next, "dirty", "clean" };

/* The bitmap that is looked for, and what there is instead. */
struct bitmap_search {
	const char *wanted;
	struct vd_bitmap *found;
	struct vd_error seen;
};

static int bitmap_match(const struct vd_bitmap *bitmap, void *data)
{
	struct bitmap_search *search = data;
	char name[256];

	if (strcmp(bitmap->name, search->wanted) == 0) {
		*search->found = *bitmap;
		search->found->name = NULL; /* it ends with this call */
		return 1;
	}
	vd_error_add(&search->seen, " %s",
		     vd_escape(name, sizeof(name), bitmap->name, strlen(bitmap->name)));
	return 0;
}

static int bitmap_find(struct feed *feed, const char *wanted, struct vd_error *err)
{
	const struct vd_image *top = feed->disk->layers[0];
	struct bitmap_search search = { .wanted = wanted, .found = &feed->bitmap };
	char name[256];
	int r;

	vd_escape(name, sizeof(name), wanted, strlen(wanted));
	if (!top->format->bitmaps)
		return vd_fail(err, EINVAL, "%s: a %s image has no dirty bitmaps",
			       top->source->name, top->format->name);
	r = top->format->bitmaps(top, bitmap_match, &search, err);
	if (r < 0)
		return r;
	if (r == 0)
		return vd_fail(err, ENOENT, "%s: no bitmap is called '%s' (--bitmap); it has%s",
			       top->source->name, name,
			       *search.seen.text ? search.seen.text : " none");
	if (feed->bitmap.fault)
		return vd_fail(err, EINVAL, "%s: the bitmap '%s' cannot be used: %s",
			       top->source->name, name, feed->bitmap.fault);
	if (feed->bitmap.in_use)
		return vd_fail(err, EBUSY,
			       "%s: the bitmap '%s' is in use: what is stored of it is not valid, "
			       "because a program holds it or has ended without storing it; stop "
			       "the virtual machine, or make a full backup",
			       top->source->name, name);
	feed->cluster_bits = feed->bitmap.granularity_bits;
	return 0;
}

int feed_open(struct feed *feed, const struct options *options, const struct vd_disk *disk,
	      const struct vd_disk *old_disk, struct vd_error *err)
{
	int r;

	*feed = (struct feed){ .disk = disk, .cluster_bits = disk->cluster_bits };
	if (options->bitmap) {
		feed->ops = &bitmap_ops;
		r = bitmap_find(feed, options->bitmap, err);
		if (r < 0)
			return r;
	} else if (old_disk) {
		feed->ops = &diff_ops;
		r = vd_diff_new(old_disk, disk, options->compare, &feed->diff);
	} else {
		feed->ops = &data_ops;
		r = vd_scan_new(disk, vd_scan_threads(), &feed->scan);
	}
	if (r < 0)
		return vd_fail(err, -r, "out of memory");
	if (options->cluster_bits && options->cluster_bits < feed->cluster_bits)
		return vd_fail(
			err, EINVAL,
			"--cluster-bits=%u is finer than the map, which counts in 2^%u bytes",
			options->cluster_bits, feed->cluster_bits);
	if (options->cluster_bits)
		feed->cluster_bits = options->cluster_bits;
	feed->pairs.cluster_bits = feed->cluster_bits;
	progress_begin(&feed->progress, options->terminal.bar, disk->size);
	return 0;
}

int feed_piece(struct feed *feed, struct vd_piece *piece)
{
	int r = feed->ops->next(feed, piece);

	if (r > 0 && (feed->diff || ++feed->pieces % PIECES_PER_LOOK == 0))
		progress_draw(&feed->progress, piece->end);
	return r;
}

int feed_range(struct feed *feed, struct vd_pair *pair)
{
	struct vd_piece piece;
	uint64_t start, end;
	int r;

	while ((r = feed_piece(feed, &piece)) > 0) {
		if (piece.is_data && vd_pairs_add(&feed->pairs, piece.start, piece.end, pair))
			break;
	}
	if (r < 0 || (r == 0 && !vd_pairs_end(&feed->pairs, pair)))
		return r;
	start = pair->first << feed->cluster_bits;
	end = vd_min(feed->disk->size - start, (pair->last - pair->first + 1)
						       << feed->cluster_bits);
	feed->ranges++;
	feed->yes_bytes += end;
	return 1;
}

void feed_close(struct feed *feed)
{
	progress_end(&feed->progress);
	vd_scan_free(feed->scan);
	vd_diff_free(feed->diff);
}
