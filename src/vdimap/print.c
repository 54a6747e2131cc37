/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON, the legacy list, QEMU's entries and a table: see print.h. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/entries.h"
#include "vdimap/print.h"

/*
 * What --clusters lists: 16 TiB in clusters of 4 KiB. A hostile image of some KiB can claim 2^52
 * clusters, which would take years to print.
 */
#define CLUSTERS_MAX (UINT64_C(1) << 32)

/*
 * What stands between the making of small pieces, millions of them, and stdout. One form is printed
 * in a run, so that there is one.
 */
static char out[64 << 10];
static size_t out_used;

/* Where the next piece may be made: room for VD_JSON_PIECE_MAX. The caller then adds to out_used. */
static char *out_room(void)
{
	if (sizeof(out) - out_used < VD_JSON_PIECE_MAX) {
		fwrite(out, 1, out_used, stdout);
		out_used = 0;
	}
	return out + out_used;
}

static void out_end(void)
{
	fwrite(out, 1, out_used, stdout);
	out_used = 0;
}

static void put_tail(const struct feed *feed)
{
	size_t number = 0, length;

	while ((length = vd_json_tail(out_room(), number++, true, &feed->unreadable)) > 0)
		out_used += length;
}

int print_json(struct feed *feed)
{
	struct vd_pair pair;
	bool is_first = true;
	int r;

	out_used += vd_json_head(out_room(), feed->disk->size, feed->cluster_bits);
	while ((r = feed_range(feed, &pair)) > 0 && !ferror(stdout)) {
		out_used += vd_json_pair(out_room(), &pair, is_first);
		is_first = false;
	}
	if (r == 0)
		put_tail(feed);
	out_end();
	return r < 0 ? r : 0;
}

int print_clusters(struct feed *feed, struct vd_error *err)
{
	struct vd_pair pair;
	bool is_first = true;
	uint64_t left = CLUSTERS_MAX;
	int r;

	out_used += vd_json_head(out_room(), feed->disk->size, feed->cluster_bits);
	while ((r = feed_range(feed, &pair)) > 0 && !ferror(stdout)) {
		if (pair.last - pair.first >= left) {
			r = vd_fail(err, E2BIG,
				    "%s: there are more clusters than the %" PRIu64
				    " that --clusters lists; without it ranges are printed",
				    feed->disk->layers[0]->source->name, CLUSTERS_MAX);
			break;
		}
		left -= pair.last - pair.first + 1;
		for (uint64_t i = pair.first; i <= pair.last && !ferror(stdout); i++) {
			out_used += vd_json_number(out_room(), i, is_first);
			is_first = false;
		}
	}
	if (r == 0)
		put_tail(feed);
	out_end();
	return r < 0 ? r : 0;
}

/* The number without zeros at the end of its fraction, and the unit: 1024^unit bytes. */
static char *unit_text(char text[SIZE_TEXT], double shown, int digits, unsigned unit)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	int length = snprintf(text, SIZE_TEXT, "%.*f", digits, shown);

	while (text[length - 1] == '0')
		length--;
	if (text[length - 1] == '.')
		length--;
	snprintf(text + length, SIZE_TEXT - (size_t)length, " %s", units[unit]);
	return text;
}

char *size_text(char text[SIZE_TEXT], uint64_t bytes)
{
	unsigned unit = 0;
	double shown = (double)bytes;

	/* 1023.95 would be rounded to 1024. */
	while (shown >= 1023.95 && unit < 6) {
		shown /= 1024;
		unit++;
	}
	return unit_text(text, shown, shown < 99.995 ? 2 : 1, unit);
}

char *multiple_text(char text[SIZE_TEXT], uint64_t step, uint64_t count)
{
	uint64_t bytes = step * count, unit_bytes = 1;
	unsigned unit = 0;

	while (unit < 6 && bytes / 1024 >= unit_bytes && step % (unit_bytes * 1024 / 4) == 0) {
		unit_bytes *= 1024;
		unit++;
	}
	return unit_text(text, (double)bytes / (double)unit_bytes, 2, unit);
}

static void put_text(const char *text)
{
	char *from = out_room();

	out_used += (size_t)(stpcpy(from, text) - from);
}

static void put_number(uint64_t number)
{
	out_used += vd_json_number(out_room(), number, true);
}

static void put_spaces(size_t used, size_t width)
{
	if (used < width) {
		memset(out_room(), ' ', width - used);
		out_used += width - used;
	}
}

/* The rows of the table. Most have the length of the one before, whose text is kept. */
struct text_rows {
	uint64_t length;
	char length_text[SIZE_TEXT];
};

static void put_column(uint64_t number)
{
	char digits[VD_JSON_PIECE_MAX];
	size_t used = vd_json_number(digits, number, true);

	digits[used] = '\0';
	put_spaces(used, 20);
	put_text(digits);
	put_text(" ");
}

/* As put_entry(): printf() would take most of the time. */
static void put_row(struct text_rows *rows, uint64_t start, uint64_t end, const char *what)
{
	if (start == end)
		return;
	if (rows->length != end - start) {
		rows->length = end - start;
		size_text(rows->length_text, rows->length);
	}
	put_column(start);
	put_column(end);
	put_spaces(strlen(rows->length_text), 11);
	put_text(rows->length_text);
	put_text("  ");
	put_text(what);
	put_text("\n");
}

struct range range_of(const struct vd_pair *pair, unsigned cluster_bits, uint64_t size)
{
	uint64_t start = pair->first << cluster_bits;
	uint64_t bytes = (pair->last - pair->first + 1) << cluster_bits;

	return (struct range){ start, start + vd_min(bytes, size - start) };
}

int print_text(struct feed *feed)
{
	uint64_t size = feed->disk->size, at = 0;
	char yes[SIZE_TEXT], all[SIZE_TEXT];
	struct text_rows rows = { 0 };
	struct vd_pair pair;
	int r;

	printf("%20s %20s %11s\n", "START", "END", "LENGTH");
	while ((r = feed_range(feed, &pair)) > 0 && !ferror(stdout)) {
		struct range range = range_of(&pair, feed->cluster_bits, size);

		put_row(&rows, at, range.start, feed->ops->no);
		put_row(&rows, range.start, range.end, feed->ops->yes);
		at = range.end;
	}
	if (r == 0)
		put_row(&rows, at, size, feed->ops->no);
	out_end();
	if (r < 0)
		return r;
	printf("%s: %s of %s (%.1f %%) in %" PRIu64 " range%s", feed->ops->yes,
	       size_text(yes, feed->yes_bytes), size_text(all, size),
	       100.0 * (double)feed->yes_bytes / (double)vd_max(size, 1), feed->ranges,
	       feed->ranges == 1 ? "" : "s");
	if (feed->exact_bytes != feed->yes_bytes)
		printf(", in whole clusters; without rounding: %s",
		       size_text(yes, feed->exact_bytes));
	putchar('\n');
	return 0;
}

void print_unreadable(const struct feed *feed)
{
	struct text_rows rows = { 0 };

	printf("of this, what cannot be read:\n");
	for (size_t i = 0; i < feed->unreadable.count && !ferror(stdout); i++) {
		struct range range = range_of(&feed->unreadable.pairs[i], feed->cluster_bits,
					      feed->disk->size);

		put_row(&rows, range.start, range.end, "unreadable");
	}
	out_end();
}

/* Millions of them are printed: printf() would take most of the time. */
static void put_entry(const struct vd_entry *entry, bool is_first)
{
	put_text(is_first ? "[{ \"start\": " : ",\n{ \"start\": ");
	put_number(entry->start);
	put_text(", \"length\": ");
	put_number(entry->length);
	put_text(", \"depth\": ");
	put_number(entry->depth);
	put_text(entry->present ? ", \"present\": true" : ", \"present\": false");
	put_text(entry->zero ? ", \"zero\": true" : ", \"zero\": false");
	put_text(entry->data ? ", \"data\": true" : ", \"data\": false");
	put_text(entry->compressed ? ", \"compressed\": true" : ", \"compressed\": false");
	if (entry->has_offset) {
		put_text(", \"offset\": ");
		put_number(entry->offset);
	}
	put_text("}");
}

int print_qemu(const struct vd_disk *disk, struct progress *progress, uint64_t *bad_bytes,
	       struct vd_joined *unreadable)
{
	struct vd_entries *entries = malloc(sizeof(*entries));
	struct vd_entry entry = { 0 };
	int r;

	if (!entries)
		return -ENOMEM;
	vd_entries_init(entries, disk);
	if (disk->size == 0)
		put_entry(&entry, true); /* so does QEMU */
	while ((r = vd_entries_next(entries, &entry)) > 0 && !ferror(stdout)) {
		put_entry(&entry, entry.start == 0);
		progress_draw(progress, entry.start);
	}
	if (r == 0)
		put_text("]\n");
	out_end();
	*bad_bytes = entries->walk.bad_bytes;
	if (r >= 0 && vd_joined_add_all(unreadable, &entries->unreadable) < 0)
		r = -ENOMEM;
	vd_entries_clear(entries);
	free(entries);
	return r < 0 ? r : 0;
}
