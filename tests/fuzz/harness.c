/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every fuzzer does with its input: open the chain, walk over the disk, read, decompress, seek
 * and make the JSON; and what must hold whatever the image is:
 *
 * - the pieces of a walk cover the disk, in order, and so do extents;
 * - what a walk calls a hole reads as zeros;
 * - a read gives the same bytes as two reads of its halves;
 * - seeks and the stored map agree with the walk; the JSON parses, its pairs are those of the walk;
 * - the disk as a QCOW2 file can be read from anywhere; snapshots open or say why not; bitmaps have
 *   bits for the whole disk;
 * - a failure has an errno and one line of text.
 *
 * A broken promise aborts. A disk may be of exabytes: only so many pieces are looked at.
 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "disk/views.h"
#include "files.h"
#include "harness.h"
#include "map/index.h"
#include "map/json.h"
#include "map/view.h"

#define PIECES_MAX 2000
#define READS 12
#define READ_MAX ((size_t)1 << 17)
#define SEEKS 8
#define VIEW_READ_MAX ((size_t)1 << 16)
#define SNAPSHOTS_MAX 4
#define BITMAPS_MAX 8
#define TEXT_MAX ((size_t)1 << 16)
#define OPTIONS_MAX ((size_t)512)
#define THREADS_IN 16 /* threads cost more than all the rest: one of so many times */
#define CACHE_BYTES ((size_t)4 << 20)

struct job {
	struct vd_disk *disk;
	struct vd_index *index;
	struct vd_scratch *scratch;
	uint64_t dice;
	struct vd_piece pieces[PIECES_MAX]; /* from 0 on, merged; the last may be cut short */
	unsigned count;
	uint64_t reached; /* end of the last piece */
	unsigned snapshots; /* opened */
	unsigned bitmaps; /* walked */
};

static uint64_t roll(struct job *job, uint64_t sides)
{
	job->dice ^= job->dice << 13;
	job->dice ^= job->dice >> 7;
	job->dice ^= job->dice << 17;
	return sides ? job->dice % sides : 0;
}

/* A place in the disk, mostly near an edge of a piece. */
static uint64_t any_place(struct job *job)
{
	uint64_t size = job->disk->size, place;

	if (job->count == 0 || roll(job, 4) == 0)
		return roll(job, size);
	place = job->pieces[roll(job, job->count)].end + roll(job, 7) - 3;
	return place < size ? place : size - 1;
}

static void walk(struct job *job)
{
	struct vd_walk *walk = malloc(sizeof(*walk));
	struct vd_piece piece;
	unsigned steps = 0;
	int r = 1;

	CHECK(walk);
	vd_walk_init(walk, job->disk, 0);
	while (job->count < PIECES_MAX && steps++ < 4 * PIECES_MAX &&
	       (r = vd_walk_next(walk, &piece)) > 0) {
		CHECK(piece.start == job->reached && piece.end > piece.start &&
		      piece.end <= job->disk->size);
		if (job->count > 0 && job->pieces[job->count - 1].is_data == piece.is_data)
			job->pieces[job->count - 1].end = piece.end;
		else
			job->pieces[job->count++] = piece;
		job->reached = piece.end;
	}
	CHECK(r >= 0 || r == -ENOMEM);
	CHECK(r != 0 || job->reached == job->disk->size);
	free(walk);
}

/* Is there data in the range, as far as the walk has come? */
static bool is_hole(const struct job *job, uint64_t start, uint64_t end)
{
	if (end > job->reached)
		return false;
	for (unsigned i = 0; i < job->count; i++) {
		const struct vd_piece *piece = &job->pieces[i];

		if (piece->is_data && piece->start < end && piece->end > start)
			return false;
	}
	return true;
}

static void check_extents(struct job *job)
{
	struct vd_extent extents[8];

	for (int i = 0; i < 8; i++) {
		uint64_t virt = any_place(job), at = virt;
		uint64_t want = 1 + roll(job, job->disk->size - virt);
		int count = vd_disk_map(job->disk, virt, want, extents, 1 + (unsigned)i);

		CHECK(count > 0 || count == -ENOMEM);
		CHECK(count <= 1 + i);
		for (int j = 0; j < count; j++) {
			const struct vd_run *run = &extents[j].run;

			CHECK(extents[j].start == at && extents[j].length > 0);
			at += extents[j].length;
			CHECK(run->kind != VD_ABSENT);
			CHECK(run->kind != VD_RAW ||
			      vd_inside(run->where, run->length, run->from->size));
		}
		CHECK(at <= virt + want);
	}
}

/* What is said to lie in a file as it is does. `bytes` of them have been read. */
static void check_raw(struct job *job, const uint8_t *whole, size_t bytes, uint64_t virt)
{
	static uint8_t raw[READ_MAX];
	const struct vd_source *from;
	uint64_t where;

	if (!vd_disk_find_raw(job->disk, virt, bytes, &from, &where))
		return;
	CHECK(vd_inside(where, bytes, from->size));
	CHECK(vd_source_read(from, raw, bytes, where) == 0 && memcmp(raw, whole, bytes) == 0);
}

static void check_read(struct job *job)
{
	static uint8_t whole[READ_MAX], parts[READ_MAX];
	uint64_t virt = any_place(job);
	size_t most = (size_t)vd_min(READ_MAX, job->disk->size - virt);
	size_t bytes = roll(job, 2) ? 1 + (size_t)roll(job, vd_min(most, 5000))
				    : 1 + (size_t)roll(job, most);
	size_t half;
	int r, first, second;

	bytes = bytes < most ? bytes : most;
	half = (size_t)roll(job, bytes + 1);
	r = vd_disk_read(job->disk, whole, bytes, virt, job->scratch);
	first = half ? vd_disk_read(job->disk, parts, half, virt, job->scratch) : 0;
	second = half < bytes ? vd_disk_read(job->disk, parts + half, bytes - half, virt + half,
					     job->scratch)
			      : 0;
	CHECK(r <= 0 && first <= 0 && second <= 0);
	if (r == -ENOMEM || first == -ENOMEM || second == -ENOMEM)
		return;
	CHECK((r == 0) == (first == 0 && second == 0));
	if (r < 0)
		return;
	CHECK(memcmp(whole, parts, bytes) == 0);
	check_raw(job, whole, bytes, virt);
	if (is_hole(job, virt, virt + bytes))
		CHECK(whole[0] == 0 && memcmp(whole, whole + 1, bytes - 1) == 0);
}

/* A seek from a place that the walk knows. */
static void check_seek(struct job *job, struct vd_index *index)
{
	const struct vd_piece *piece = &job->pieces[roll(job, job->count)];
	uint64_t virt = piece->start + roll(job, piece->end - piece->start), found = 0;

	CHECK(vd_index_seek(index, virt, piece->is_data, &found, NULL) == 0);
	CHECK(found == virt);
	if (piece->end == job->reached) /* what comes then may go on like it, for ever */
		return;
	CHECK(vd_index_seek(index, virt, !piece->is_data, &found, NULL) == 0);
	CHECK(found == piece->end);
}

/* The pair that the data from piece number *i on makes; false: there is no more data. */
static bool next_pair(const struct job *job, unsigned *i, struct vd_pair *pair)
{
	unsigned bits = job->disk->cluster_bits;
	bool any = false;

	for (; *i < job->count; ++*i) {
		const struct vd_piece *piece = &job->pieces[*i];

		if (!piece->is_data)
			continue;
		if (any && piece->start >> bits > pair->last + 1)
			break;
		if (!any)
			pair->first = piece->start >> bits;
		pair->last = (piece->end - 1) >> bits;
		any = true;
	}
	return any;
}

/* The pairs of a whole text are those of the walk. */
static void check_pairs(struct job *job, const char *text, size_t length)
{
	json_t *map = json_loadb(text, length, 0, NULL), *pairs, *pair;
	struct vd_pair wanted;
	unsigned piece = 0;
	size_t i;

	CHECK(map);
	CHECK(json_integer_value(json_object_get(map, "virtual_size")) ==
	      (json_int_t)job->disk->size);
	pairs = json_object_get(map, "data_clusters");
	CHECK(json_is_array(pairs));
	json_array_foreach(pairs, i, pair)
	{
		CHECK(next_pair(job, &piece, &wanted));
		CHECK((uint64_t)json_integer_value(json_array_get(pair, 0)) == wanted.first);
		CHECK((uint64_t)json_integer_value(json_array_get(pair, 1)) == wanted.last);
	}
	CHECK(!next_pair(job, &piece, &wanted));
	json_decref(map);
}

static void check_json(struct job *job)
{
	static char text[TEXT_MAX];
	struct vd_json_reader *reader;
	ssize_t got;

	if (job->reached < job->disk->size)
		return; /* too long */
	CHECK(vd_json_reader_new(job->index, job->disk->cluster_bits, &reader) == 0);
	if (roll(job, THREADS_IN) == 0)
		vd_json_reader_scan(reader, 2);
	got = vd_json_read(reader, text, sizeof(text), 0, NULL);
	CHECK(got > 0);
	if ((size_t)got < sizeof(text))
		check_pairs(job, text, (size_t)got);
	vd_json_reader_free(reader);
}

/* The disk as a QCOW2 file: reads anywhere, halves as the whole; holes are zeros. */
static void check_view_read(struct job *job, const struct vd_view *view,
			    struct vd_view_reader *reader)
{
	static uint8_t whole[VIEW_READ_MAX], parts[VIEW_READ_MAX];
	uint64_t at = roll(job, vd_view_size(view)), found;
	size_t bytes = (size_t)vd_min(1 + roll(job, VIEW_READ_MAX), vd_view_size(view) - at);
	size_t half = (size_t)roll(job, bytes + 1);
	int r = vd_view_read(reader, whole, bytes, at, job->scratch, NULL);
	int second = half < bytes ? vd_view_read(reader, parts + half, bytes - half, at + half,
						 job->scratch, NULL)
				  : 0;
	int first = half ? vd_view_read(reader, parts, half, at, job->scratch, NULL) : 0;

	CHECK(r == -ENOMEM || first == -ENOMEM || second == -ENOMEM ||
	      (r == 0) == (first == 0 && second == 0));
	CHECK(r < 0 || first < 0 || second < 0 || memcmp(whole, parts, bytes) == 0);
	if (vd_view_seek(reader, at, true, &found, NULL) < 0)
		found = vd_view_size(view);
	CHECK(found >= at && found <= vd_view_size(view));
	for (uint64_t i = at; i < found && i < at + bytes; i++)
		CHECK(r < 0 || whole[i - at] == 0);
}

/* However much of it is data, the QCOW2 file of a disk that is no larger stays below 2^56 bytes. */
#define VIEW_FITS (UINT64_C(1) << 55)

static void check_view(struct job *job, struct vd_index *index)
{
	struct vd_view_reader *reader;
	struct vd_view *view;
	int r;

	if (vd_view_check(job->disk, NULL) < 0)
		return;
	r = vd_view_new(index, NULL, &view);
	CHECK(r == 0 || (r == -EFBIG && job->disk->size > VIEW_FITS));
	if (r < 0)
		return;
	CHECK(vd_view_reader_new(view, &reader) == 0);
	for (int i = 0; i < READS; i++)
		check_view_read(job, view, reader);
	vd_view_reader_free(reader);
	vd_view_free(view);
}

/* A vd_snapshot_fn: open it beside the disk, and read. */
static int check_snapshot(const struct vd_snapshot *snapshot, void *context)
{
	struct job *job = context;
	struct vd_error err = { "" };
	const struct vd_disk *view;
	uint8_t bytes[100];
	int r = vd_disk_view_snapshot(job->disk, snapshot, &view, &err);

	CHECK(r <= 0 && (r == 0 || (*err.text && !strpbrk(err.text, "\n\033"))));
	for (int i = 0; i < 4 && r == 0 && view->size >= sizeof(bytes); i++)
		vd_disk_read(view, bytes, sizeof(bytes), roll(job, view->size - sizeof(bytes) + 1),
			     job->scratch);
	return ++job->snapshots == SNAPSHOTS_MAX;
}

/* A bitmap that can be used has bits for all of the disk. */
static int check_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	struct job *job = data;
	const struct vd_image *image = job->disk->layers[0];
	uint64_t virt = 0, end;
	enum vd_bits bits;

	CHECK(bitmap->name);
	if (bitmap->fault || bitmap->in_use)
		return 0;
	for (unsigned steps = 0; steps < 64 && virt < image->size; steps++) {
		int r = image->format->bitmap_map(image, bitmap, virt, &bits, &end);

		CHECK(r == 0 || r == -ENOMEM);
		if (r < 0)
			return r;
		CHECK(end > virt && end <= image->size);
		/* near the edge, and far behind it */
		virt = steps % 8 == 7 ? end + roll(job, image->size) : end;
	}
	return ++job->bitmaps == BITMAPS_MAX;
}

static void check_bitmaps(struct job *job)
{
	const struct vd_image *image = job->disk->layers[0];
	struct vd_error err = { "" };
	int r;

	if (!image->format->bitmaps)
		return;
	job->bitmaps = 0;
	r = image->format->bitmaps(image, check_bitmap, job, &err);
	CHECK(r >= 0 || r == -ENOMEM || *err.text);
}

static void check_views(struct job *job)
{
	const struct vd_image *image = job->disk->layers[0];
	const struct vd_disk *view;
	struct vd_error err;
	uint8_t byte;

	job->snapshots = 0;
	if (image->format->snapshots)
		image->format->snapshots(image, check_snapshot, job, &err);
	CHECK(vd_disk_view_layer(job->disk, job->disk->count - 1, &view) == 0);
	if (view->size > 0)
		vd_disk_read(view, &byte, 1, view->size - 1, job->scratch);
}

/* All that an index tells from a place on is what the walk has found. */
static void check_stored(struct job *job, struct vd_index *index)
{
	struct vd_index_iter *iter = malloc(sizeof(*iter));
	uint64_t virt = roll(job, 2) ? any_place(job) : 0;
	struct vd_piece piece;
	unsigned i = 0;
	int r;

	CHECK(iter);
	vd_index_iter_init(iter, index, virt);
	while ((r = vd_index_iter_next(iter, &piece)) > 0) {
		CHECK(piece.start == virt && piece.end > virt);
		while (i < job->count && job->pieces[i].end <= virt)
			i++;
		CHECK(i < job->count && piece.end <= job->pieces[i].end);
		CHECK(piece.is_data == job->pieces[i].is_data);
		virt = piece.end;
	}
	CHECK(r == -ENOMEM || virt == job->disk->size);
	free(iter);
}

/* With threads an index, with room for all of it, comes to what the walk has found. */
static void check_index(struct job *job)
{
	struct vd_index_totals totals;
	struct vd_index *index;
	uint64_t data = 0;
	bool started;

	if (job->reached < job->disk->size || roll(job, THREADS_IN) != 0)
		return;
	for (unsigned i = 0; i < job->count; i++) {
		if (job->pieces[i].is_data)
			data += job->pieces[i].end - job->pieces[i].start;
	}
	CHECK(vd_index_new(job->disk, CACHE_BYTES, &index) == 0);
	started = vd_index_start(index) == 0;
	if (started) {
		check_stored(job, index); /* a part of it, and the walk for the rest */
		check_seek(job, index);
	}
	if (started && vd_index_wait(index, NULL) == 0) {
		vd_index_totals(index, &totals);
		CHECK(totals.complete && totals.mapped_bytes == job->disk->size);
		CHECK(totals.data_bytes == data);
		for (int i = 0; i < SEEKS; i++) {
			check_stored(job, index);
			check_seek(job, index);
		}
		check_view(job, index);
	}
	vd_index_free(index);
}

static void check_disk(struct job *job)
{
	CHECK(job->disk->size <= INT64_MAX);
	CHECK(vd_index_new(job->disk, 0, &job->index) == 0);
	CHECK(vd_scratch_new(&job->scratch) == 0);
	if (job->disk->size > 0) {
		walk(job);
		check_extents(job);
		for (int i = 0; i < READS; i++)
			check_read(job);
		for (int i = 0; i < SEEKS && job->count > 0; i++)
			check_seek(job, job->index);
		check_json(job);
		check_index(job);
	}
	check_bitmaps(job);
	check_views(job);
	fuzz_extras(job->disk);
	vd_scratch_free(job->scratch);
	vd_index_free(job->index);
}

static uint64_t hash(const uint8_t *data, size_t bytes)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h | 1;
}

/* The options are a file, too: a line each, as on a command line but without dashes. */
static void take_options(const struct fuzz_files *files, struct vd_chain_options *options)
{
	static char text[OPTIONS_MAX + 1];
	const struct fuzz_file *file = NULL;
	char *line, *rest = text;
	size_t bytes;

	for (unsigned i = 1; i < files->count; i++) {
		if (strcmp(files->files[i].name, "options") == 0)
			file = &files->files[i];
	}
	if (!file)
		return;
	bytes = (size_t)vd_min(file->size, OPTIONS_MAX);
	fuzz_file_read(file, text, bytes, 0);
	text[bytes] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		struct vd_error err = { "" };
		char *value = strchr(line, '=');
		int r;

		if (value)
			*value++ = '\0';
		r = vd_chain_option_set(options, line, value, &err);
		CHECK(r == 0 || r == -ENOENT || (r == -EINVAL && *err.text));
	}
}

/* The directories of --search are empty. */
static int fuzz_list(void *context, const char *directory, const char *after, char *names,
		     struct vd_error *err)
{
	(void)context;
	(void)directory;
	(void)after;
	(void)names;
	(void)err;
	return 0;
}

void fuzz_run(const uint8_t *data, size_t bytes)
{
	static struct job job;
	static struct fuzz_files files;
	struct vd_opener opener = { .open = fuzz_open, .list = fuzz_list, .context = &files };
	struct vd_chain_options options = { .cache_memory = CACHE_BYTES };
	struct vd_error err = { "" };
	int r;

	fuzz_files_parse(&files, data, bytes);
	if (files.count > 0) {
		take_options(&files, &options);
		job.count = 0;
		job.reached = 0;
		job.dice = hash(data, bytes);
		r = vd_chain_open(files.files[0].name, &options, &opener, &job.disk, &err);
		CHECK(r <= 0);
		CHECK(r == 0 || (*err.text && !strpbrk(err.text, "\n\033")));
		if (r == 0) {
			check_disk(&job);
			vd_disk_close(job.disk);
		}
	}
	fuzz_files_free(&files);
}
