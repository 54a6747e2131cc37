/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of the computed QCOW2 file, and where its holes are: see view.c for its layout.
 *
 * Threads: a reader has two cursors, each with a mutex: a long search for a hole does not hold up
 * reads. No lock is held while the disk is read.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/view_parts.h"

enum {
	HEADER_BYTES = 104, /* version 3 without additional fields */
	PIECES_PER_READ = 64,
};

#define COPIED (UINT64_C(1) << 63) /* the refcount is exactly 1 */

struct vd_view_reader {
	const struct vd_view *view;
	struct vd_cursor reading, seeking;
};

/* --- tables ---------------------------------------------------------------------------------- */

/* A part of an area that is being filled; `from` counts from the start of the area. */
struct window {
	uint8_t *buffer;
	uint64_t from, bytes;
};

/* Put what lies in the window of an entry; the rest of the window is zero. */
static void window_put(const struct window *window, uint64_t entry, uint64_t value)
{
	uint64_t at = entry * VD_VIEW_ENTRY_BYTES;

	for (unsigned i = 0; i < VD_VIEW_ENTRY_BYTES; i++, at++) {
		if (at >= window->from && at < window->from + window->bytes)
			window->buffer[at - window->from] =
				(uint8_t)(value >> (8 * (VD_VIEW_ENTRY_BYTES - 1 - i)));
	}
}

static uint64_t window_first(const struct window *window)
{
	return window->from / VD_VIEW_ENTRY_BYTES;
}

static uint64_t window_end(const struct window *window)
{
	return vd_div_up(window->from + window->bytes, VD_VIEW_ENTRY_BYTES);
}

static void put_be(uint8_t *to, unsigned bytes, uint64_t value)
{
	while (bytes-- > 0) {
		to[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void fill_header(const struct vd_view *view, const struct window *window)
{
	uint8_t header[HEADER_BYTES] = { 'Q', 'F', 'I', 0xfb };
	uint64_t table_clusters =
		view->starts[AREA_REFCOUNT_BLOCKS] - view->starts[AREA_REFCOUNT_TABLE];

	put_be(header + 4, 4, 3); /* version */
	put_be(header + 20, 4, view->cluster_bits);
	put_be(header + 24, 8, view->disk_bytes);
	put_be(header + 36, 4, view->l1_entries);
	put_be(header + 40, 8, vd_area_start(view, AREA_L1));
	put_be(header + 48, 8, vd_area_start(view, AREA_REFCOUNT_TABLE));
	put_be(header + 56, 4, table_clusters);
	put_be(header + 96, 4, VD_VIEW_REFCOUNT_ORDER);
	put_be(header + 100, 4, HEADER_BYTES);
	/* No extensions: zeros end their list. */
	if (window->from < HEADER_BYTES)
		memcpy(window->buffer, header + window->from,
		       (size_t)vd_min(window->bytes, HEADER_BYTES - window->from));
}

static void fill_refcount_table(const struct vd_view *view, const struct window *window)
{
	uint64_t first = view->starts[AREA_REFCOUNT_BLOCKS];
	uint64_t blocks = view->starts[AREA_L1] - first;

	for (uint64_t i = window_first(window); i < vd_min(window_end(window), blocks); i++)
		window_put(window, i, (first + i) << view->cluster_bits);
}

/* Each cluster of the file is used once. */
static void fill_refcount_blocks(const struct vd_view *view, const struct window *window)
{
	uint64_t end = vd_min(window->from + window->bytes,
			      view->starts[AREA_END] * VD_VIEW_REFCOUNT_BYTES);

	for (uint64_t at = window->from | 1; at < end; at += VD_VIEW_REFCOUNT_BYTES)
		window->buffer[at - window->from] = 1;
}

/* Put the entries of one pair. False: what comes after it is past the window. */
static bool fill_pair(const struct vd_view *view, enum vd_area area, const struct vd_place *place,
		      const struct vd_pair *pair, const struct window *window)
{
	uint64_t first = vd_area_key(view, area, place);
	uint64_t end = first + (area == AREA_L2 ? vd_pair_clusters(pair)
						: vd_table_of(view, pair->last) - first + 1);
	uint64_t target = area == AREA_L2 ? view->starts[AREA_DATA] + place->clusters
					  : view->starts[AREA_L2] + place->tables;

	for (uint64_t i = vd_max(first, window_first(window)); i < vd_min(end, window_end(window));
	     i++)
		window_put(window, i, (target + (i - first)) << view->cluster_bits | COPIED);
	return end < window_end(window);
}

static int fill_from_pairs(const struct vd_view *view, enum vd_area area, struct vd_cursor *cursor,
			   const struct window *window, const struct vd_interrupt *interrupt)
{
	int r;

	pthread_mutex_lock(&cursor->lock);
	r = vd_cursor_seek(view, cursor, area, window_first(window), interrupt);
	while (r > 0 && fill_pair(view, area, &cursor->place, &cursor->pair, window))
		r = vd_cursor_next(view, cursor, interrupt);
	pthread_mutex_unlock(&cursor->lock);
	return r < 0 ? r : 0;
}

static int fill_tables(struct vd_view_reader *reader, enum vd_area area,
		       const struct window *window, const struct vd_interrupt *interrupt)
{
	const struct vd_view *view = reader->view;

	memset(window->buffer, 0, (size_t)window->bytes);
	switch (area) {
	case AREA_HEADER:
		fill_header(view, window);
		return 0;
	case AREA_REFCOUNT_TABLE:
		fill_refcount_table(view, window);
		return 0;
	case AREA_REFCOUNT_BLOCKS:
		fill_refcount_blocks(view, window);
		return 0;
	default:
		return fill_from_pairs(view, area, &reader->reading, window, interrupt);
	}
}

/* --- data ------------------------------------------------------------------------------------ */

struct piece {
	uint64_t virt;
	size_t bytes;
};

/*
 * Where on the disk [from, from + bytes) of the data area lies: up to `max` pieces from its
 * beginning on. Their number, or an error.
 */
static int data_pieces(struct vd_view_reader *reader, uint64_t from, size_t bytes,
		       struct piece *pieces, int max, const struct vd_interrupt *interrupt)
{
	const struct vd_view *view = reader->view;
	struct vd_cursor *cursor = &reader->reading;
	unsigned bits = view->cluster_bits;
	int count = 0, r;

	pthread_mutex_lock(&cursor->lock);
	r = vd_cursor_seek(view, cursor, AREA_DATA, from >> bits, interrupt);
	while (r > 0) {
		uint64_t start = cursor->place.clusters << bits;
		uint64_t end = start + (vd_pair_clusters(&cursor->pair) << bits);

		if (from < end) {
			pieces[count].virt = (cursor->pair.first << bits) + (from - start);
			pieces[count].bytes = (size_t)vd_min(bytes, end - from);
			from += pieces[count].bytes;
			bytes -= pieces[count++].bytes;
		}
		if (bytes == 0 || count == max)
			break;
		r = vd_cursor_next(view, cursor, interrupt);
	}
	pthread_mutex_unlock(&cursor->lock);
	return r < 0 ? r : r == 0 ? -EIO : count;
}

/* Read from the disk, behind whose end there are zeros. */
static int piece_read(const struct vd_disk *disk, const struct piece *piece, uint8_t *buffer,
		      struct vd_scratch *scratch)
{
	uint64_t left = piece->virt < disk->size ? disk->size - piece->virt : 0;
	size_t there = (size_t)vd_min(piece->bytes, left);

	memset(buffer + there, 0, piece->bytes - there);
	return there ? vd_disk_read(disk, buffer, there, piece->virt, scratch) : 0;
}

static int read_data(struct vd_view_reader *reader, const struct window *window,
		     struct vd_scratch *scratch, const struct vd_interrupt *interrupt)
{
	const struct vd_disk *disk = vd_index_disk(reader->view->index);
	struct piece pieces[PIECES_PER_READ];
	size_t done = 0;

	while (done < window->bytes) {
		int count = data_pieces(reader, window->from + done, (size_t)window->bytes - done,
					pieces, PIECES_PER_READ, interrupt);

		if (count < 0)
			return count;
		for (int i = 0; i < count; i++) {
			int r = piece_read(disk, &pieces[i], window->buffer + done, scratch);

			if (r < 0)
				return r;
			done += pieces[i].bytes;
		}
	}
	return 0;
}

/* --- readers --------------------------------------------------------------------------------- */

int vd_view_reader_new(const struct vd_view *view, struct vd_view_reader **out)
{
	struct vd_view_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->view = view;
	vd_cursor_init(&reader->reading);
	vd_cursor_init(&reader->seeking);
	*out = reader;
	return 0;
}

void vd_view_reader_free(struct vd_view_reader *reader)
{
	if (!reader)
		return;
	vd_cursor_clear(&reader->reading);
	vd_cursor_clear(&reader->seeking);
	free(reader);
}

static enum vd_area area_of(const struct vd_view *view, uint64_t at)
{
	enum vd_area area = AREA_HEADER;

	while (at >= vd_area_start(view, area + 1))
		area++;
	return area;
}

int vd_view_read(struct vd_view_reader *reader, void *buffer, size_t bytes, uint64_t at,
		 struct vd_scratch *scratch, const struct vd_interrupt *interrupt)
{
	const struct vd_view *view = reader->view;
	uint8_t *to = buffer;
	int r = 0;

	while (bytes > 0 && r == 0) {
		enum vd_area area = area_of(view, at);
		struct window window = {
			.buffer = to,
			.from = at - vd_area_start(view, area),
			.bytes = vd_min(bytes, vd_area_start(view, area + 1) - at),
		};

		r = area == AREA_DATA ? read_data(reader, &window, scratch, interrupt)
				      : fill_tables(reader, area, &window, interrupt);
		to += window.bytes;
		at += window.bytes;
		bytes -= (size_t)window.bytes;
	}
	return r;
}

bool vd_view_find(struct vd_view_reader *reader, uint64_t at, size_t bytes, uint64_t *virt,
		  const struct vd_interrupt *interrupt)
{
	const struct vd_view *view = reader->view;
	uint64_t data = vd_area_start(view, AREA_DATA), size = vd_index_disk(view->index)->size;
	struct piece piece;

	if (bytes == 0 || at < data || !vd_inside(at, bytes, vd_view_size(view)) ||
	    data_pieces(reader, at - data, bytes, &piece, 1, interrupt) != 1 ||
	    piece.bytes != bytes || !vd_inside(piece.virt, bytes, size))
		return false;
	*virt = piece.virt;
	return true;
}

/*
 * Look for data or a hole in the clusters of one pair, from byte *from of the data area on. True:
 * *from is where it begins, else the end of the pair. An error in *r.
 */
static bool seek_in_pair(const struct vd_view *view, const struct vd_cursor *cursor, bool want_data,
			 uint64_t *from, const struct vd_interrupt *interrupt, int *r)
{
	unsigned bits = view->cluster_bits;
	uint64_t start = cursor->place.clusters << bits;
	uint64_t end = start + (vd_pair_clusters(&cursor->pair) << bits);
	uint64_t virt_start = cursor->pair.first << bits, virt, found;
	uint64_t virt_end = vd_min(virt_start + (end - start), vd_index_disk(view->index)->size);

	if (*from >= end)
		return false;
	virt = virt_start + (*from - start);
	if (virt < virt_end) {
		*r = vd_index_seek(view->index, virt, want_data, &found, interrupt);
		if (*r < 0 && *r != -ENXIO)
			return false;
		if (*r == 0 && found < virt_end) {
			*from = start + (found - virt_start);
			return true;
		}
	}
	*r = 0;
	if (!want_data && virt_end < virt_start + (end - start)) { /* behind the disk */
		*from = start + (vd_max(virt, virt_end) - virt_start);
		return true;
	}
	*from = end;
	return false;
}

int vd_view_seek(struct vd_view_reader *reader, uint64_t at, bool want_data, uint64_t *found,
		 const struct vd_interrupt *interrupt)
{
	const struct vd_view *view = reader->view;
	struct vd_cursor *cursor = &reader->seeking;
	uint64_t data = vd_area_start(view, AREA_DATA), from = at < data ? 0 : at - data;
	bool is_found = false;
	unsigned pairs = 0;
	int r, failed = 0;

	if (want_data && (at < data || !vd_view_has_holes(view))) {
		*found = at;
		return 0;
	}
	*found = vd_view_size(view);
	if (!vd_view_has_holes(view))
		return 0;
	pthread_mutex_lock(&cursor->lock);
	r = vd_cursor_seek(view, cursor, AREA_DATA, from >> view->cluster_bits, interrupt);
	while (r > 0 && failed == 0) {
		is_found = seek_in_pair(view, cursor, want_data, &from, interrupt, &failed);
		if (is_found || failed < 0)
			break;
		if (++pairs % VD_VIEW_PAIRS_PER_CHECK == 0 && vd_is_interrupted(interrupt))
			failed = -EINTR;
		r = vd_cursor_next(view, cursor, interrupt);
	}
	pthread_mutex_unlock(&cursor->lock);
	if (failed < 0 || r < 0)
		return failed < 0 ? failed : r;
	if (is_found)
		*found = data + from;
	return is_found || !want_data ? 0 : -ENXIO;
}
