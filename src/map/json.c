/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interval map as JSON, out of the index. It is written by hand, since it must be exact to the
 * character and is made piece by piece.
 *
 * Threads: a reader belongs to one thread at a time; the other functions only ask the index.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "map/json.h"
#include "map/stretch.h"

enum {
	PAIRS_PER_CHECK = 1024, /* between two looks for an interrupt */
	PAIRS_MAX = VD_ATTRIBUTE_MAX / 6, /* that can fit into an attribute, as "[0,1]," */
};

struct vd_json_reader {
	struct vd_index_iter iter;
	struct vd_scan *scan; /* NULL: none */
	bool is_settled; /* the pairs are those that the index counted, from the stretch */
	struct vd_stretch *stretch; /* NULL: none yet */
	struct vd_pairs pairs;
	unsigned cluster_bits;
	uint64_t number; /* pairs written */
	size_t tail; /* pieces of the tail written */
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
	reader->tail = 0;
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

/* What the tail names. Only a whole walk knows that. */
static const struct vd_joined *reader_unreadable(const struct vd_json_reader *reader)
{
	static const struct vd_joined none;

	if (reader->scan)
		return vd_scan_unreadable(reader->scan);
	return reader->is_settled ? vd_index_unreadable(reader->iter.index) : &none;
}

/*
 * Replace the piece by the next one, made at `to`, which holds VD_JSON_PIECE_MAX. 1, 0 at the end,
 * or an error, after which it may be tried again.
 */
static int reader_advance(struct vd_json_reader *reader, char *to,
			  const struct vd_interrupt *interrupt)
{
	const struct vd_joined *unreadable = reader_unreadable(reader);
	bool is_exact = reader->cluster_bits == reader_disk(reader)->cluster_bits;
	char tail[VD_JSON_PIECE_MAX];
	struct vd_pair pair;
	size_t length = 0;
	int r = 0;

	if (reader->tail == 0)
		r = next_pair(reader, &pair, interrupt);
	if (r == 0) {
		length = vd_json_tail(tail, reader->tail, is_exact, unreadable);
		if (length == 0)
			return 0;
	}
	if (r < 0)
		return r;
	reader->start += reader->length;
	reader->piece = to;
	if (r > 0) {
		reader->length = vd_json_pair(reader->piece, &pair, reader->number++ == 0);
		return 1;
	}
	memcpy(to, tail, length);
	reader->length = length;
	reader->tail++;
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

/* Collect the pairs of the whole disk. */
static int collect_pairs(struct vd_index *index, struct vd_joined *joined,
			 const struct vd_interrupt *interrupt)
{
	struct vd_index_iter *iter = malloc(sizeof(*iter));
	struct vd_pairs pairs = { .cluster_bits = vd_index_disk(index)->cluster_bits };
	struct vd_pair pair;
	unsigned count = 0;
	int r;

	if (!iter)
		return -ENOMEM;
	vd_index_iter_init(iter, index, 0);
	while ((r = vd_index_iter_pair(iter, &pairs, &pair, interrupt)) > 0) {
		r = vd_joined_add(joined, &pair);
		if (r == 0 && ++count % PAIRS_PER_CHECK == 0 && vd_is_interrupted(interrupt))
			r = -EINTR;
		if (r < 0)
			break;
	}
	free(iter);
	return r;
}

/* Close the smallest gaps between the pairs until head, pairs and tail fit. */
static int fit_pairs(struct vd_joined *joined, uint64_t head, const struct vd_joined *unreadable)
{
	uint64_t room = VD_ATTRIBUTE_MAX - head;
	int r = 0;

	if (joined->is_exact)
		r = vd_joined_fit(joined, room - vd_json_tail_bytes(true, unreadable));
	if (r == 0 && !joined->is_exact)
		r = vd_joined_fit(joined, room - vd_json_tail_bytes(false, unreadable));
	return r;
}

/* Write the text of head, pairs and tail. The number of characters. */
static size_t put_pairs(char *text, uint64_t size, unsigned bits, const struct vd_joined *joined,
			const struct vd_joined *unreadable)
{
	char piece[VD_JSON_PIECE_MAX];
	size_t at = vd_json_head(text, size, bits), number = 0, length;

	for (size_t i = 0; i < joined->count; i++)
		at += vd_json_pair(text + at, &joined->pairs[i], i == 0);
	while ((length = vd_json_tail(piece, number++, joined->is_exact, unreadable)) > 0) {
		memcpy(text + at, piece, length);
		at += length;
	}
	return at;
}

int vd_json_attribute(struct vd_index *index, char **text, size_t *length,
		      const struct vd_interrupt *interrupt)
{
	const struct vd_disk *disk = vd_index_disk(index);
	char head[VD_JSON_PIECE_MAX], *buffer = NULL, *fitted;
	struct vd_joined joined, unreadable;
	int r = vd_index_wait(index, interrupt);

	if (r < 0)
		return r;
	vd_joined_init(&joined, PAIRS_MAX);
	vd_joined_init(&unreadable, VD_UNREADABLE_MAX);
	r = collect_pairs(index, &joined, interrupt);
	if (r == 0)
		r = vd_joined_add_all(&unreadable, vd_index_unreadable(index));
	if (r == 0)
		r = vd_joined_fit(&unreadable, VD_ATTRIBUTE_MAX / 2);
	if (r == 0)
		r = fit_pairs(&joined, vd_json_head(head, disk->size, disk->cluster_bits),
			      &unreadable);
	if (r == 0)
		buffer = malloc(VD_ATTRIBUTE_MAX + VD_JSON_PIECE_MAX);
	if (r == 0 && !buffer)
		r = -ENOMEM;
	if (r == 0)
		*length = put_pairs(buffer, disk->size, disk->cluster_bits, &joined, &unreadable);
	vd_joined_clear(&joined);
	vd_joined_clear(&unreadable);
	if (r < 0)
		return r;
	fitted = realloc(buffer, *length);
	*text = fitted ? fitted : buffer;
	return 0;
}
