/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON, the legacy list, QEMU's entries and a table: see print.h. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "map/entries.h"
#include "vdimap/print.h"

static void put(const char *text, size_t length)
{
	fwrite_unlocked(text, 1, length, stdout);
}

int print_json(struct feed *feed)
{
	char text[VD_JSON_PIECE_MAX];
	struct vd_pair pair;
	bool is_first = true;
	int r;

	put(text, vd_json_head(text, feed->disk->size, feed->cluster_bits));
	while ((r = feed_range(feed, &pair)) > 0 && !ferror(stdout)) {
		put(text, vd_json_pair(text, &pair, is_first));
		is_first = false;
	}
	if (r == 0)
		put(text, vd_json_tail(text, true));
	return r < 0 ? r : 0;
}

int print_clusters(struct feed *feed)
{
	char text[VD_JSON_PIECE_MAX];
	struct vd_pair pair;
	bool is_first = true;
	int r;

	put(text, vd_json_head(text, feed->disk->size, feed->cluster_bits));
	while ((r = feed_range(feed, &pair)) > 0) {
		for (uint64_t i = pair.first; i <= pair.last && !ferror(stdout); i++) {
			put(text, vd_json_number(text, i, is_first));
			is_first = false;
		}
	}
	if (r == 0)
		put(text, vd_json_tail(text, true));
	return r;
}

char *size_text(char text[SIZE_TEXT], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned unit = 0;
	double shown = (double)bytes;

	while (shown >= 1024 && unit < 6) {
		shown /= 1024;
		unit++;
	}
	if (unit > 0 && bytes % (UINT64_C(1) << 10 * unit) != 0)
		snprintf(text, SIZE_TEXT, "%.1f %s", shown, units[unit]);
	else
		snprintf(text, SIZE_TEXT, "%.0f %s", shown, units[unit]);
	return text;
}

static void text_row(uint64_t start, uint64_t end, const char *what)
{
	char text[SIZE_TEXT];

	if (start < end)
		printf("%20" PRIu64 " %20" PRIu64 " %11s  %s\n", start, end,
		       size_text(text, end - start), what);
}

int print_text(struct feed *feed)
{
	uint64_t size = feed->disk->size, at = 0;
	char yes[SIZE_TEXT], all[SIZE_TEXT];
	struct vd_pair pair;
	int r;

	printf("%20s %20s %11s\n", "START", "END", "LENGTH");
	while ((r = feed_range(feed, &pair)) > 0 && !ferror(stdout)) {
		uint64_t start = pair.first << feed->cluster_bits;
		uint64_t bytes = (pair.last - pair.first + 1) << feed->cluster_bits;

		text_row(at, start, feed->ops->no);
		at = start + vd_min(bytes, size - start);
		text_row(start, at, feed->ops->yes);
	}
	if (r < 0)
		return r;
	text_row(at, size, feed->ops->no);
	printf("%s: %s of %s (%.1f %%) in %" PRIu64 " range%s\n", feed->ops->yes,
	       size_text(yes, feed->yes_bytes), size_text(all, size),
	       100.0 * (double)feed->yes_bytes / (double)vd_max(size, 1), feed->ranges,
	       feed->ranges == 1 ? "" : "s");
	return 0;
}

static const char *word(bool yes)
{
	return yes ? "true" : "false";
}

static void put_entry(const struct vd_entry *entry, bool is_first)
{
	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
	       ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
	       is_first ? "[" : ",\n", entry->start, entry->length, entry->depth,
	       word(entry->present), word(entry->zero), word(entry->data));
	if (entry->has_offset)
		printf(", \"offset\": %" PRIu64, entry->offset);
	putchar('}');
}

int print_qemu(const struct vd_disk *disk, struct progress *progress, uint64_t *bad_bytes)
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
		puts("]");
	*bad_bytes = entries->walk.bad_bytes;
	free(entries);
	return r < 0 ? r : 0;
}
