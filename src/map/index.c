/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building and asking the interval index.
 *
 * One thread takes what the threads of a scan have found and enters it in batches, under the lock;
 * `complete` is set last, with release order, and from then on everything is frozen and read
 * without the lock.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/timing.h"
#include "map/index.h"
#include "map/marks.h"
#include "map/scan.h"

enum {
	BATCH = 256, /* runs handed over at a time */
	PIECES_PER_CHECK = 16, /* pieces between two looks for an interrupt, at most */
	WAIT_MILLISECONDS = 20, /* between two looks whether a waiter is interrupted */
	PAUSE_MILLISECONDS = 100, /* before the first new attempt after memory was short */
	PAUSE_MILLISECONDS_MAX = 10000, /* before later ones */
};

struct vd_index {
	const struct vd_disk *disk;
	pthread_t thread;
	bool has_thread;
	atomic_bool complete;
	atomic_bool has_differed; /* and that was said */
	pthread_mutex_t lock; /* for all that follows, until complete */
	pthread_cond_t ended; /* or to be stopped */
	bool stop;
	struct vd_scan *scan; /* the thread's, while it has one; to be stopped by others */
	bool has_ended; /* the thread has, whether complete or not; or pauses */
	int error; /* why it ended early */
	bool list_is_full;
	struct vd_intervals *list;
	uint64_t data_bytes, intervals; /* of what was handed over: without the open run */
	struct vd_index_totals totals;
	struct vd_joined unreadable;
	struct vd_marks marks;
};

/* What the thread has found and not handed over yet. */
struct batch {
	struct vd_piece runs[BATCH]; /* maximal */
	unsigned count;
	struct vd_piece open; /* the run that may still grow; end 0: none */
};

/* Takes over the list, which may be NULL for want of memory. */
static int index_new(const struct vd_disk *disk, struct vd_intervals *list, struct vd_index **out)
{
	struct vd_index *index = list ? calloc(1, sizeof(*index)) : NULL;

	if (!index) {
		vd_intervals_free(list);
		return -ENOMEM;
	}
	index->list = list;
	index->disk = disk;
	pthread_mutex_init(&index->lock, NULL);
	vd_timed_cond_init(&index->ended);
	vd_joined_init(&index->unreadable, VD_UNREADABLE_MAX);
	vd_marks_init(&index->marks, disk->size, disk->cluster_bits);
	*out = index;
	return 0;
}

int vd_index_new(const struct vd_disk *disk, size_t map_memory, struct vd_index **out)
{
	struct vd_intervals *list = NULL;

	vd_intervals_new(map_memory, &list);
	return index_new(disk, list, out);
}

int vd_index_new_sharing(const struct vd_disk *disk, struct vd_index *other, struct vd_index **out)
{
	struct vd_intervals *list = NULL;

	vd_intervals_new_sharing(other->list, &list);
	return index_new(disk, list, out);
}

static bool index_is_complete(struct vd_index *index)
{
	return atomic_load_explicit(&index->complete, memory_order_acquire);
}

const struct vd_disk *vd_index_disk(const struct vd_index *index)
{
	return index->disk;
}

/* Enter the batch. All up to `virt` has been scanned. */
static void index_take(struct vd_index *index, struct batch *batch, uint64_t virt,
		       uint64_t bad_bytes)
{
	uint64_t open;

	pthread_mutex_lock(&index->lock);
	for (unsigned i = 0; i < batch->count; i++) {
		const struct vd_piece *run = &batch->runs[i];

		if (!index->list_is_full &&
		    !vd_intervals_add(index->list, run->end - run->start, run->is_data))
			index->list_is_full = true;
		if (run->is_data) {
			index->data_bytes += run->end - run->start;
			index->intervals++;
			vd_marks_add(&index->marks, run->start, run->end);
		}
	}
	batch->count = 0;
	open = batch->open.end != 0 && batch->open.is_data ? 1 : 0;
	index->totals.data_bytes = index->data_bytes + open * (batch->open.end - batch->open.start);
	index->totals.intervals = index->intervals + open;
	index->totals.mapped_bytes = virt;
	index->totals.bad_bytes = bad_bytes;
	pthread_mutex_unlock(&index->lock);
}

/* Add a piece to the batch, merged with the one before it. */
static void batch_add(struct batch *batch, const struct vd_piece *piece)
{
	if (batch->open.end != 0 && batch->open.is_data == piece->is_data) {
		batch->open.end = piece->end;
		return;
	}
	if (batch->open.end != 0)
		batch->runs[batch->count++] = batch->open;
	batch->open = *piece;
}

/* The end: the length of the JSON, and waking all who wait. */
static void index_end(struct vd_index *index, int r)
{
	pthread_mutex_lock(&index->lock);
	if (r == 0) {
		vd_marks_end(&index->marks, &index->unreadable);
		index->totals.json_bytes = index->marks.json;
		index->totals.complete = true;
		atomic_store_explicit(&index->complete, true, memory_order_release);
	}
	index->error = r;
	index->has_ended = true;
	pthread_cond_broadcast(&index->ended);
	pthread_mutex_unlock(&index->lock);
}

/* Enter all that the scan finds past *done, where an earlier one ended. 0, or the error that ended it. */
static int index_collect(struct vd_index *index, struct vd_scan *scan, struct batch *batch,
			 uint64_t *done)
{
	struct vd_piece piece = { .end = 0 };
	int r;

	while ((r = vd_scan_next(scan, &piece)) > 0) {
		if (piece.end <= *done)
			continue;
		piece.start = vd_max(piece.start, *done);
		batch_add(batch, &piece);
		*done = piece.end;
		if (batch->count == BATCH || vd_scan_would_wait(scan))
			index_take(index, batch, *done, vd_scan_bad_bytes(scan));
	}
	if (r == 0 && batch->open.end != 0) { /* the last run grows no more */
		batch->runs[batch->count++] = batch->open;
		batch->open.end = 0;
	}
	if (r == 0)
		index_take(index, batch, *done, vd_scan_bad_bytes(scan));
	return r;
}

/* Let vd_index_free() stop this scan; NULL: not any more. */
static void index_set_scan(struct vd_index *index, struct vd_scan *scan)
{
	pthread_mutex_lock(&index->lock);
	index->scan = scan;
	if (scan && index->stop)
		vd_scan_stop(scan);
	pthread_mutex_unlock(&index->lock);
}

/* Walk the disk once. 0, or the error that ended it. */
static int index_attempt(struct vd_index *index, struct batch *batch, uint64_t *done)
{
	struct vd_scan *scan;
	int r = vd_scan_new(index->disk, vd_scan_threads(), &scan);

	if (r < 0)
		return r;
	index_set_scan(index, scan);
	r = index_collect(index, scan, batch, done);
	index_set_scan(index, NULL);
	if (r == 0 && vd_joined_add_all(&index->unreadable, vd_scan_unreadable(scan)) == 0)
		vd_joined_end(&index->unreadable);
	vd_scan_free(scan);
	return r;
}

/* Memory was short: who waits is told, and after a while there may be some. False: to be stopped. */
static bool index_pause(struct vd_index *index, unsigned milliseconds)
{
	struct timespec until = vd_time_in(milliseconds);
	bool stop;

	index_end(index, -ENOMEM);
	pthread_mutex_lock(&index->lock);
	while (!index->stop && pthread_cond_timedwait(&index->ended, &index->lock, &until) == 0)
		;
	stop = index->stop;
	index->has_ended = stop;
	pthread_mutex_unlock(&index->lock);
	return !stop;
}

static void *index_run(void *data)
{
	struct vd_index *index = data;
	struct batch batch = { .count = 0 };
	unsigned pause = PAUSE_MILLISECONDS;
	uint64_t done = 0;
	int r;

	while ((r = index_attempt(index, &batch, &done)) == -ENOMEM) {
		if (!index_pause(index, pause))
			return NULL;
		pause = pause * 2 < PAUSE_MILLISECONDS_MAX ? pause * 2 : PAUSE_MILLISECONDS_MAX;
	}
	index_end(index, r);
	return NULL;
}

int vd_index_start(struct vd_index *index)
{
	sigset_t all, before;
	int r = 0;

	if (index_is_complete(index))
		return 0;
	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&index->lock);
	if (!index->has_thread)
		r = -pthread_create(&index->thread, NULL, index_run, index);
	if (r == -EAGAIN) /* of threads there are no more than of memory; -EAGAIN means something else here */
		r = -ENOMEM;
	if (!index->has_thread) { /* after a failure those who wait must not wait for ever */
		index->has_thread = r == 0;
		index->has_ended = r < 0;
		index->error = r;
	}
	pthread_mutex_unlock(&index->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

void vd_index_free(struct vd_index *index)
{
	if (!index)
		return;
	if (index->has_thread) {
		pthread_mutex_lock(&index->lock);
		index->stop = true;
		if (index->scan)
			vd_scan_stop(index->scan);
		pthread_cond_broadcast(&index->ended);
		pthread_mutex_unlock(&index->lock);
		pthread_join(index->thread, NULL);
	}
	pthread_cond_destroy(&index->ended);
	pthread_mutex_destroy(&index->lock);
	vd_intervals_free(index->list);
	vd_joined_clear(&index->unreadable);
	free(index);
}

const struct vd_joined *vd_index_unreadable(const struct vd_index *index)
{
	return &index->unreadable;
}

void vd_index_totals(struct vd_index *index, struct vd_index_totals *totals)
{
	pthread_mutex_lock(&index->lock);
	*totals = index->totals;
	pthread_mutex_unlock(&index->lock);
}

/* At most this much of what is not walked yet can be data: what the host files hold. */
static uint64_t host_bytes(const struct vd_disk *disk)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < disk->count; i++) {
		const struct vd_source *source = disk->layers[i]->source;
		const struct vd_source *data = disk->layers[i]->data;

		bytes += S_ISBLK(source->st.st_mode) ? source->size
						     : (uint64_t)source->st.st_blocks * VD_SECTOR;
		bytes += data ? (uint64_t)data->st.st_blocks * VD_SECTOR : 0;
	}
	return bytes;
}

uint64_t vd_index_blocks(struct vd_index *index, bool *is_exact)
{
	uint64_t size = index->disk->size, most = size / VD_SECTOR, blocks, data;
	struct vd_index_totals totals;

	vd_index_totals(index, &totals);
	*is_exact = totals.complete;
	data = totals.data_bytes;
	if (!totals.complete)
		data += vd_min(size - totals.mapped_bytes, host_bytes(index->disk));
	blocks = vd_div_up(data, VD_SECTOR);
	if (!totals.complete || data < size)
		blocks = vd_min(blocks, most > 0 ? most - 1 : 0);
	return blocks == 0 && size > 0 && (data > 0 || !totals.complete) ? 1 : blocks;
}

bool vd_index_has_ended(struct vd_index *index)
{
	bool has_ended;

	pthread_mutex_lock(&index->lock);
	has_ended = index->has_ended;
	pthread_mutex_unlock(&index->lock);
	return has_ended;
}

int vd_index_wait(struct vd_index *index, const struct vd_interrupt *interrupt)
{
	int r;

	if (index_is_complete(index))
		return 0;
	pthread_mutex_lock(&index->lock);
	while (!index->has_ended) {
		struct timespec until = vd_time_in(WAIT_MILLISECONDS);

		pthread_cond_timedwait(&index->ended, &index->lock, &until);
		if (vd_is_interrupted(interrupt)) {
			pthread_mutex_unlock(&index->lock);
			return -EINTR;
		}
	}
	r = index->error;
	pthread_mutex_unlock(&index->lock);
	return r;
}

int vd_index_poll(struct vd_index *index)
{
	int r;

	if (index_is_complete(index))
		return 0;
	pthread_mutex_lock(&index->lock);
	r = index->has_ended ? index->error : -EAGAIN;
	pthread_mutex_unlock(&index->lock);
	return r;
}

void vd_index_iter_init(struct vd_index_iter *iter, struct vd_index *index, uint64_t virt)
{
	iter->index = index;
	iter->virt = virt;
	iter->in_list = false;
	iter->in_walk = false;
	iter->scan = NULL;
}

void vd_index_iter_scan(struct vd_index_iter *iter, struct vd_scan *scan)
{
	iter->scan = scan;
}

/* Take the next piece from the list, if it reaches that far. */
static bool iter_list(struct vd_index_iter *iter, struct vd_piece *piece)
{
	const struct vd_intervals *list = iter->index->list;

	if (iter->virt >= vd_intervals_end(list))
		return false;
	if (iter->in_list)
		vd_intervals_next(list, &iter->at);
	else
		vd_intervals_find(list, iter->virt, &iter->at);
	iter->in_list = true;
	*piece = (struct vd_piece){
		.start = iter->virt,
		.end = iter->at.end,
		.is_data = iter->at.is_data,
	};
	return true;
}

int vd_index_iter_next(struct vd_index_iter *iter, struct vd_piece *piece)
{
	struct vd_index *index = iter->index;
	bool locked = !index_is_complete(index), found = false;
	int r = 1;

	if (iter->virt == index->disk->size)
		return 0;
	if (!iter->in_walk && !iter->scan) {
		if (locked)
			pthread_mutex_lock(&index->lock);
		found = iter_list(iter, piece);
		if (locked)
			pthread_mutex_unlock(&index->lock);
	}
	if (iter->scan) {
		r = vd_scan_next(iter->scan, piece);
	} else if (!found) {
		if (!iter->in_walk)
			vd_walk_init(&iter->walk, index->disk, iter->virt);
		iter->in_walk = true;
		r = vd_walk_next(&iter->walk, piece);
	}
	if (r > 0)
		iter->virt = piece->end;
	return r;
}

/*
 * After a piece: is it time to look for an interrupt? Each time when the walk is about to read metadata
 * again, which may be 16 pages, and now and then when not.
 */
static bool iter_must_check(const struct vd_index_iter *iter, unsigned *pieces)
{
	return ++*pieces % PIECES_PER_CHECK == 0 ||
	       (iter->in_walk && iter->walk.next == iter->walk.count);
}

int vd_index_iter_pair(struct vd_index_iter *iter, struct vd_pairs *pairs, struct vd_pair *pair,
		       const struct vd_interrupt *interrupt)
{
	struct vd_piece piece;
	unsigned pieces = 0;
	int r;

	while ((r = vd_index_iter_next(iter, &piece)) > 0) {
		if (piece.is_data && vd_pairs_add(pairs, piece.start, piece.end, pair))
			return 1;
		if (iter_must_check(iter, &pieces) && vd_is_interrupted(interrupt))
			return -EINTR;
	}
	if (r < 0)
		return r;
	return vd_pairs_end(pairs, pair);
}

/* Go on with the list, should it have been filled that far meanwhile. */
static void iter_catch_up(struct vd_index_iter *iter)
{
	struct vd_index *index = iter->index;

	if (!iter->in_walk)
		return;
	pthread_mutex_lock(&index->lock);
	if (iter->virt < vd_intervals_end(index->list))
		vd_index_iter_init(iter, index, iter->virt);
	pthread_mutex_unlock(&index->lock);
}

int vd_index_seek(struct vd_index *index, uint64_t virt, bool want_data, uint64_t *found,
		  const struct vd_interrupt *interrupt)
{
	struct vd_index_iter iter;
	struct vd_piece piece;
	unsigned pieces = 0;
	int r;

	vd_index_iter_init(&iter, index, virt);
	while ((r = vd_index_iter_next(&iter, &piece)) > 0) {
		if (piece.is_data == want_data) {
			*found = piece.start;
			return 0;
		}
		/* At the end of the disk there is no more to do, and no place to go on from. */
		if (piece.end == index->disk->size || !iter_must_check(&iter, &pieces))
			continue;
		*found = piece.end;
		if (vd_is_interrupted(interrupt))
			return -EINTR;
		iter_catch_up(&iter);
	}
	if (r < 0)
		return r;
	*found = index->disk->size; /* behind the last data is a hole, even if it has no length */
	return want_data ? -ENXIO : 0;
}

struct vd_json_mark vd_index_json_mark(struct vd_index *index, uint64_t json)
{
	return vd_marks_find(&index->marks, json);
}

bool vd_index_json_stretch(struct vd_index *index, uint64_t number, struct vd_stretch_mark *mark)
{
	return vd_marks_stretch(&index->marks, number, mark);
}

int vd_index_differs(struct vd_index *index)
{
	if (!atomic_exchange(&index->has_differed, true))
		vd_log(LOG_ERR,
		       "%s: the map does not fit into memory, and where it is walked again holes "
		       "are not where they were: files made of it read as an error there; mount "
		       "with a larger --map-memory",
		       index->disk->layers[0]->source->name);
	return -EIO;
}
