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
	int r = bitmaps_next(feed->bitmaps, piece);

	if (r > 0 && bitmaps_bad_bytes(feed->bitmaps) > feed->bad_bytes)
		vd_joined_add_bytes(&feed->bitmap_bad, bitmaps_granularity_bits(feed->bitmaps),
				    piece->start, piece->end);
	feed->bad_bytes = bitmaps_bad_bytes(feed->bitmaps);
	return r;
}

static const struct feed_ops bitmap_ops = { bitmap_next, "dirty", "clean" };

int feed_open(struct feed *feed, const struct options *options, const struct vd_disk *disk,
	      const struct vd_disk *old_disk, struct vd_error *err)
{
	int r;

	*feed = (struct feed){ .disk = disk, .cluster_bits = disk->cluster_bits };
	vd_joined_init(&feed->bitmap_bad, VD_UNREADABLE_MAX);
	vd_joined_init(&feed->unreadable, VD_UNREADABLE_MAX);
	if (options->bitmap_count > 0) {
		feed->ops = &bitmap_ops;
		r = bitmaps_open(disk, options->bitmaps, options->bitmap_count,
				 options->stopped_bitmaps, &feed->bitmaps, err);
		if (r < 0)
			return r;
		feed->cluster_bits = bitmaps_granularity_bits(feed->bitmaps);
	} else if (old_disk) {
		feed->ops = &diff_ops;
		r = vd_diff_new(old_disk, disk, options->compare, options->cluster_bits,
				&feed->diff);
	} else {
		feed->ops = &data_ops;
		r = vd_scan_new(disk, vd_scan_threads(), &feed->scan);
	}
	if (r < 0)
		return vd_fail(err, -r, "out of memory");
	if (options->cluster_bits)
		feed->cluster_bits = options->cluster_bits;
	feed->pairs.cluster_bits = feed->cluster_bits;
	progress_begin(&feed->progress, options->terminal.bar, disk->size);
	return 0;
}

/* After the last piece: note what cannot be read, in the clusters that are printed. */
static int feed_end(struct feed *feed)
{
	const struct vd_joined *found = &feed->bitmap_bad;
	unsigned bits = feed->disk->cluster_bits;
	int r;

	feed->has_ended = true;
	if (feed->scan)
		found = vd_scan_unreadable(feed->scan);
	else if (feed->diff)
		found = vd_diff_unreadable(feed->diff);
	else
		bits = bitmaps_granularity_bits(feed->bitmaps);
	r = vd_joined_add_all(&feed->unreadable, found);
	if (r == 0)
		r = vd_joined_end(&feed->unreadable);
	vd_joined_scale(&feed->unreadable, bits, feed->cluster_bits, feed->disk->size);
	return r;
}

int feed_piece(struct feed *feed, struct vd_piece *piece)
{
	int r = feed->ops->next(feed, piece);

	if (r == 0 && !feed->has_ended)
		return feed_end(feed);
	if (r > 0 && piece->is_data)
		feed->exact_bytes += piece->end - piece->start;
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
	bitmaps_free(feed->bitmaps);
	vd_joined_clear(&feed->bitmap_bad);
	vd_joined_clear(&feed->unreadable);
}
