/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON out of the index. The map is written by hand, since it must be exact to the character and
 * is made piece by piece; everything else goes through jansson, which only this file knows.
 *
 * Threads: a reader belongs to one thread at a time; the other functions only ask the index.
 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/json.h"
#include "map/stretch.h"

struct vd_json_reader {
	struct vd_index_iter iter;
	struct vd_scan *scan; /* NULL: none */
	bool is_settled; /* the pairs are those that the index counted, from the stretch */
	struct vd_stretch *stretch; /* NULL: none yet */
	struct vd_pairs pairs;
	unsigned cluster_bits;
	uint64_t number; /* pairs written */
	bool done; /* the tail has been written */
	uint64_t start; /* character that piece[0] is */
	size_t length; /* of the piece */
	char *piece; /* in `own`, or where the reader's caller wants it */
	char own[VD_JSON_PIECE_MAX];
};

static const struct vd_disk *reader_disk(const struct vd_json_reader *reader)
{
	return vd_index_disk(reader->iter.index);
}

/* Stand at the mark, with nothing made yet. */
static void reader_place(struct vd_json_reader *reader, const struct vd_json_mark *mark)
{
	vd_index_iter_init(&reader->iter, reader->iter.index, mark->virt);
	reader->pairs = (struct vd_pairs){ .cluster_bits = reader->cluster_bits };
	reader->is_settled = !reader->scan &&
			     reader->cluster_bits == reader_disk(reader)->cluster_bits &&
			     vd_index_poll(reader->iter.index) == 0;
	reader->number = mark->number;
	reader->done = false;
	reader->start = mark->json;
	reader->length = 0;
	reader->piece = reader->own;
}

/* Stand before the head, with the head made. */
static void reader_rewind(struct vd_json_reader *reader)
{
	struct vd_json_mark begin = { 0 };

	reader_place(reader, &begin);
	reader->length =
		vd_json_head(reader->piece, reader_disk(reader)->size, reader->cluster_bits);
}

int vd_json_reader_new(struct vd_index *index, unsigned cluster_bits, struct vd_json_reader **out)
{
	struct vd_json_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->iter.index = index;
	reader->iter.walk.bad_bytes = 0;
	reader->scan = NULL;
	reader->stretch = NULL;
	reader->cluster_bits = cluster_bits;
	reader_rewind(reader);
	*out = reader;
	return 0;
}

int vd_json_reader_scan(struct vd_json_reader *reader, unsigned threads)
{
	int r = vd_scan_new(reader_disk(reader), threads, &reader->scan);

	if (r == 0)
		vd_index_iter_scan(&reader->iter, reader->scan);
	reader->is_settled = reader->is_settled && r < 0;
	return r;
}

void vd_json_reader_free(struct vd_json_reader *reader)
{
	if (!reader)
		return;
	vd_scan_free(reader->scan);
	vd_stretch_free(reader->stretch);
	free(reader);
}

uint64_t vd_json_reached(const struct vd_json_reader *reader)
{
	return reader->iter.virt;
}

uint64_t vd_json_bad_bytes(const struct vd_json_reader *reader)
{
	return reader->iter.walk.bad_bytes + (reader->scan ? vd_scan_bad_bytes(reader->scan) : 0);
}

/* The next of the pairs that the index counted. 1, 0 at the end, or an error. */
static int settled_pair(struct vd_json_reader *reader, struct vd_pair *pair,
			const struct vd_interrupt *interrupt)
{
	struct vd_index *index = reader->iter.index;
	const struct vd_pair *next = NULL;
	struct vd_stretch_mark mark;
	int r = 0;

	if (!reader->stretch)
		r = vd_stretch_new(index, reader->cluster_bits, &reader->stretch);
	else
		next = vd_stretch_pair(reader->stretch, reader->number);
	if (r == 0 && !next) {
		if (!vd_index_json_stretch(index, reader->number, &mark))
			return 0;
		r = vd_stretch_load(reader->stretch, &mark, interrupt);
		next = vd_stretch_pair(reader->stretch, reader->number);
	}
	if (r < 0)
		return r;
	*pair = *next;
	return 1;
}

static int next_pair(struct vd_json_reader *reader, struct vd_pair *pair,
		     const struct vd_interrupt *interrupt)
{
	if (reader->is_settled)
		return settled_pair(reader, pair, interrupt);
	return vd_index_iter_pair(&reader->iter, &reader->pairs, pair, interrupt);
}

/*
 * Replace the piece by the next one, made at `to`, which holds VD_JSON_PIECE_MAX. 1, 0 at the end,
 * or an error, after which it may be tried again.
 */
static int reader_advance(struct vd_json_reader *reader, char *to,
			  const struct vd_interrupt *interrupt)
{
	struct vd_pair pair;
	int r;

	if (reader->done)
		return 0;
	r = next_pair(reader, &pair, interrupt);
	if (r < 0)
		return r;
	reader->start += reader->length;
	reader->piece = to;
	if (r > 0) {
		reader->length = vd_json_pair(reader->piece, &pair, reader->number++ == 0);
		return 1;
	}
	reader->length = vd_json_tail(reader->piece,
				      reader->cluster_bits == reader_disk(reader)->cluster_bits);
	reader->done = true;
	return 1;
}

/* Move so that the character is in the piece or after it. */
static void reader_seek(struct vd_json_reader *reader, uint64_t at)
{
	struct vd_json_mark mark = vd_index_json_mark(reader->iter.index, at);
	char head[VD_JSON_PIECE_MAX];

	if (at < vd_json_head(head, reader_disk(reader)->size, reader->cluster_bits))
		reader_rewind(reader);
	else if (at < reader->start || mark.json > reader->start + reader->length)
		reader_place(reader, &mark);
}

/*
 * The caller's buffer is about to go away: the piece in it, which it has got whole, is not needed.
 */
static void reader_keep(struct vd_json_reader *reader)
{
	if (reader->piece == reader->own)
		return;
	reader->start += reader->length;
	reader->length = 0;
	reader->piece = reader->own;
}

ssize_t vd_json_read(struct vd_json_reader *reader, char *buffer, size_t bytes, uint64_t at,
		     const struct vd_interrupt *interrupt)
{
	size_t done = 0;
	int r = 1;

	if (at < reader->start || at > reader->start + reader->length)
		reader_seek(reader, at);
	while (done < bytes && r > 0) {
		uint64_t skip = at + done - reader->start; /* of the piece; it may be all of it */
		bool fits = bytes - done >= VD_JSON_PIECE_MAX;

		if (skip < reader->length) {
			size_t take = (size_t)vd_min(bytes - done, reader->length - skip);

			if (reader->piece != buffer + done)
				memcpy(buffer + done, reader->piece + skip, take);
			done += take;
		} else { /* make it in its place, unless it will be cut or is read past */
			r = reader_advance(reader,
					   fits && skip == reader->length ? buffer + done
									  : reader->own,
					   interrupt);
		}
	}
	reader_keep(reader);
	return r < 0 ? r : (ssize_t)done;
}

/* Make the whole text with that grain if it fits into an attribute; -E2BIG if not. */
static int attribute_try(struct vd_index *index, unsigned cluster_bits, char *text, size_t *length,
			 const struct vd_interrupt *interrupt)
{
	struct vd_json_reader *reader;
	ssize_t got;
	int r = vd_json_reader_new(index, cluster_bits, &reader);

	if (r < 0)
		return r;
	reader->is_settled = false; /* nobody knows its size yet: what is true now will do */
	got = vd_json_read(reader, text, VD_ATTRIBUTE_MAX + 1, 0, interrupt);
	vd_json_reader_free(reader);
	if (got < 0)
		return (int)got;
	*length = (size_t)got;
	return got > VD_ATTRIBUTE_MAX ? -E2BIG : 0;
}

int vd_json_attribute(struct vd_index *index, char **text, size_t *length,
		      const struct vd_interrupt *interrupt)
{
	unsigned bits = vd_index_disk(index)->cluster_bits;
	char *buffer, *fitted;
	int r = vd_index_wait(index, interrupt);

	if (r < 0)
		return r;
	buffer = malloc(VD_ATTRIBUTE_MAX + 1);
	if (!buffer)
		return -ENOMEM;
	do
		r = attribute_try(index, bits++, buffer, length, interrupt);
	while (r == -E2BIG); /* ends: with a cluster as large as the disk there is one pair */
	if (r < 0) {
		free(buffer);
		return r;
	}
	fitted = realloc(buffer, *length);
	*text = fitted ? fitted : buffer;
	return 0;
}

/*
 * What follows collects the failures of jansson, which are all for want of memory, in one number:
 * json_object_set_new() refuses a NULL object or value with -1. (json_pack() does not tell.)
 */

/* One entry of "chain", or NULL. */
static json_t *info_layer(const struct vd_image *image)
{
	json_t *layer = json_object();
	int bad = 0;

	bad |= json_object_set_new(layer, "file", json_string(image->source->name));
	bad |= json_object_set_new(layer, "format", json_string(image->format->name));
	bad |= json_object_set_new(layer, "virtual_size", json_integer((json_int_t)image->size));
	if (image->data)
		bad |= json_object_set_new(layer, "data_file", json_string(image->data->name));
	if (bad) {
		json_decref(layer);
		return NULL;
	}
	return layer;
}

/* The whole text, to be freed, or NULL. */
static char *info_text(const struct vd_disk *disk, const struct vd_index_totals *totals,
		       const char *sandbox)
{
	const struct vd_image *top = disk->layers[0];
	json_t *info = json_object(), *chain = json_array(), *map = json_object();
	const char *compression = top->compression;
	size_t length;
	char *text;
	int bad = 0;

	for (unsigned i = 0; i < disk->count; i++)
		bad |= json_array_append_new(chain, info_layer(disk->layers[i]));
	bad |= json_object_set_new(map, "complete", json_boolean(totals->complete));
	bad |= json_object_set_new(map, "mapped_bytes",
				   json_integer((json_int_t)totals->mapped_bytes));
	bad |= json_object_set_new(info, "format", json_string(top->format->name));
	bad |= json_object_set_new(info, "virtual_size", json_integer((json_int_t)disk->size));
	bad |= json_object_set_new(info, "cluster_bits", json_integer(disk->cluster_bits));
	bad |= json_object_set_new(info, "compression",
				   compression ? json_string(compression) : json_null());
	bad |= json_object_set_new(info, "chain", chain);
	bad |= json_object_set_new(info, "data_bytes",
				   json_integer((json_int_t)totals->data_bytes));
	bad |= json_object_set_new(info, "intervals", json_integer((json_int_t)totals->intervals));
	bad |= json_object_set_new(info, "unreadable_bytes",
				   json_integer((json_int_t)totals->bad_bytes));
	bad |= json_object_set_new(info, "map", map);
	if (sandbox)
		bad |= json_object_set_new(info, "sandbox", json_string(sandbox));
	length = bad ? 0 : json_dumpb(info, NULL, 0, JSON_COMPACT);
	text = length ? calloc(1, length + 1) : NULL;
	/* Not json_dumps(): it gives half a text when there is no memory for all of it. */
	if (text && json_dumpb(info, text, length, JSON_COMPACT) != length) {
		free(text);
		text = NULL;
	}
	json_decref(info);
	return text;
}

void vd_json_warm_up(void)
{
	json_object_seed(0);
}

int vd_json_info(struct vd_index *index, const char *sandbox, char **text, size_t *length)
{
	const struct vd_disk *disk = vd_index_disk(index);
	/* As long as the text can become: no number that grows is above the size. */
	struct vd_index_totals longest = {
		.mapped_bytes = disk->size,
		.data_bytes = disk->size,
		.intervals = disk->size,
		.bad_bytes = disk->size,
	};
	struct vd_index_totals now;
	char *padded = info_text(disk, &longest, sandbox), *used;

	vd_index_totals(index, &now);
	used = info_text(disk, &now, sandbox);
	if (!padded || !used) {
		free(padded);
		free(used);
		return -ENOMEM;
	}
	*length = strlen(padded);
	memset(padded, ' ', *length);
	memcpy(padded, used, (size_t)vd_min(strlen(used), *length));
	free(used);
	*text = padded;
	return 0;
}
