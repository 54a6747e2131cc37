/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vdimap asks of a disk besides its map: facts, the words of qemu-img map, differences. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "map/diff.h"
#include "map/entries.h"

enum { STEPS_MAX = 2000 };

static int fact_seen(const struct vd_fact *fact, void *data)
{
	(void)data;
	CHECK(fact->name && (fact->kind != VD_FACT_TEXT || fact->text));
	return 0;
}

static void check_facts(const struct vd_image *image)
{
	CHECK(!image->format->facts || image->format->facts(image, fact_seen, NULL) == 0);
}

static void check_entries(const struct vd_disk *disk)
{
	struct vd_entries *entries = malloc(sizeof(*entries));
	struct vd_entry entry;
	uint64_t at = 0;
	int r = 1;

	CHECK(entries);
	vd_entries_init(entries, disk);
	for (int i = 0; i < STEPS_MAX; i++) {
		r = vd_entries_next(entries, &entry);
		if (r <= 0)
			break;
		CHECK(entry.start == at && entry.length > 0 && entry.depth < disk->count);
		CHECK(entry.zero || entry.data);
		at += entry.length;
	}
	CHECK(r != 0 || at == disk->size);
	vd_entries_clear(entries);
	free(entries);
}

/* A disk differs from itself where it cannot be read, and nowhere else. */
static void check_diff(const struct vd_disk *disk)
{
	uint64_t differing = 0, at = 0;
	struct vd_diff *diff;
	struct vd_piece piece;

	CHECK(vd_diff_new(disk, disk, false, 0, &diff) == 0);
	for (int i = 0; i < STEPS_MAX && vd_diff_next(diff, &piece) > 0; i++) {
		CHECK(piece.start == at && piece.end > at && piece.end <= disk->size);
		at = piece.end;
		differing += piece.is_data ? piece.end - piece.start : 0;
	}
	CHECK(differing == vd_diff_bad_bytes(diff));
	vd_diff_free(diff);
}

void fuzz_extras(const struct vd_disk *disk)
{
	for (unsigned i = 0; i < disk->count; i++)
		check_facts(disk->layers[i]);
	if (disk->size > 0) {
		check_entries(disk);
		check_diff(disk);
	}
}
