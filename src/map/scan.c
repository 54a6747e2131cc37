/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sections are taken in order, so that the one whose turn it is always has a thread, unless it is
 * ready: nobody waits for a section that waits for him. A thread fills a buffer of its own and
 * exchanges it for the empty one of its section; the reader does the same on the other side. The
 * lock is held for that only, never while the disk is walked.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "map/scan.h"

/*
 * 4 GiB of the usual QCOW2 image. Handing a section over may put a thread to sleep, which in a
 * virtual machine costs as much as some thousands of clusters.
 */
#define SECTION_CLUSTERS 65536
/* So that the hole of an enormous disk takes little time: each section is handed over. */
#define SECTIONS_MAX 8192
#define BUFFER_PIECES 65536
/* Walk so far at most before showing it: each step may be a read of slow metadata. */
#define STEPS_PER_BATCH 8192
#define SLOTS_MAX (VD_SCAN_THREADS_MAX + 2)

/* Pieces that follow each other: the end of each, times two, plus one if it is data. */
struct buffer {
	uint64_t *pieces;
	unsigned count;
	uint64_t bad_bytes;
	struct vd_joined unreadable;
};

/* A section that is walked or waits for its turn. */
struct slot {
	struct buffer found; /* count 0: nothing to take */
	bool ended; /* no more will come */
	int error; /* why it ended early */
};

/* Allocated one by one: threads that write into one cache line take turns. */
struct worker {
	struct vd_scan *scan;
	pthread_t id;
	struct buffer mine; /* empty between two sections */
	struct vd_walk walk;
};

struct vd_scan {
	const struct vd_disk *disk;
	uint64_t section_bytes, sections;
	pthread_mutex_t lock; /* from `next` to `slots` */
	pthread_cond_t found; /* for the reader */
	pthread_cond_t room; /* for the threads */
	atomic_bool stop;
	unsigned slot_count;
	uint64_t next; /* section that nobody has taken */
	uint64_t head; /* section whose turn it is; its slot is head % slot_count */
	struct slot slots[SLOTS_MAX];
	struct buffer taken; /* what the reader has; so are the next three his */
	unsigned told; /* pieces of it that he knows */
	uint64_t virt; /* end of the last of them */
	uint64_t bad_bytes;
	struct vd_joined unreadable;
	struct worker *workers[VD_SCAN_THREADS_MAX];
	unsigned threads; /* that run */
};

static void buffers_exchange(struct buffer *a, struct buffer *b)
{
	struct buffer kept = *a;

	*a = *b;
	*b = kept;
	vd_joined_moved(&a->unreadable);
	vd_joined_moved(&b->unreadable);
}

static bool is_stopped(struct vd_scan *scan)
{
	return atomic_load_explicit(&scan->stop, memory_order_relaxed);
}

/* Add a piece, merged with the one before it. */
static void buffer_add(struct buffer *buffer, const struct vd_piece *piece)
{
	uint64_t coded = piece->end << 1 | piece->is_data;

	if (buffer->count > 0 && (buffer->pieces[buffer->count - 1] & 1) == (coded & 1))
		buffer->pieces[buffer->count - 1] = coded;
	else
		buffer->pieces[buffer->count++] = coded;
}

/* Walk on until the buffer is full or it takes long. 1; 0: the section is over; -errno. */
static int section_walk(struct vd_scan *scan, struct vd_walk *walk, struct buffer *buffer)
{
	uint64_t bad_before = walk->bad_bytes;
	struct vd_piece piece;
	unsigned steps = 0;
	int r = 1;

	while (buffer->count < BUFFER_PIECES && steps++ < STEPS_PER_BATCH && !is_stopped(scan)) {
		r = vd_walk_next(walk, &piece);
		if (r <= 0)
			break;
		buffer_add(buffer, &piece);
		if (walk->told->run.kind == VD_BAD)
			vd_joined_add_bytes(&buffer->unreadable, scan->disk->cluster_bits,
					    piece.start, piece.end);
	}
	buffer->bad_bytes += walk->bad_bytes - bad_before;
	return r;
}

/*
 * Put what was found into the slot, after what was found before has been taken; if there is still
 * room to go on meanwhile, leave it for the next time.
 */
static void section_show(struct vd_scan *scan, struct slot *slot, struct buffer *mine, int state)
{
	pthread_mutex_lock(&scan->lock);
	if (state > 0 && slot->found.count > 0 && mine->count < BUFFER_PIECES) {
		pthread_mutex_unlock(&scan->lock);
		return;
	}
	while (slot->found.count > 0 && !is_stopped(scan))
		pthread_cond_wait(&scan->room, &scan->lock);
	buffers_exchange(&slot->found, mine);
	slot->error = state < 0 ? state : 0;
	slot->ended = state <= 0;
	pthread_cond_signal(&scan->found);
	pthread_mutex_unlock(&scan->lock);
	mine->count = 0;
	mine->bad_bytes = 0;
	vd_joined_reset(&mine->unreadable);
}

static void section_scan(struct worker *worker, uint64_t number)
{
	struct vd_scan *scan = worker->scan;
	struct slot *slot = &scan->slots[number % scan->slot_count];
	uint64_t start = number * scan->section_bytes;
	uint64_t end = start + vd_min(scan->section_bytes, scan->disk->size - start);
	int state;

	vd_walk_init_part(&worker->walk, scan->disk, start, end);
	do {
		state = section_walk(scan, &worker->walk, &worker->mine);
		section_show(scan, slot, &worker->mine, state);
	} while (state > 0 && !is_stopped(scan));
}

/* Take the next section. False: there is none any more. */
static bool section_take(struct vd_scan *scan, uint64_t *number)
{
	bool any;

	pthread_mutex_lock(&scan->lock);
	while (scan->next < scan->sections && scan->next - scan->head >= scan->slot_count &&
	       !is_stopped(scan))
		pthread_cond_wait(&scan->room, &scan->lock);
	any = scan->next < scan->sections && !is_stopped(scan);
	*number = any ? scan->next++ : 0;
	pthread_mutex_unlock(&scan->lock);
	return any;
}

static void *scan_run(void *data)
{
	struct worker *worker = data;
	uint64_t number;

	while (section_take(worker->scan, &number))
		section_scan(worker, number);
	return NULL;
}

static void buffer_free(struct buffer *buffer)
{
	free(buffer->pieces);
	vd_joined_clear(&buffer->unreadable);
}

static bool buffer_new(struct buffer *buffer)
{
	buffer->pieces = malloc(BUFFER_PIECES * sizeof(*buffer->pieces));
	vd_joined_init(&buffer->unreadable, VD_UNREADABLE_MAX);
	return buffer->pieces;
}

/* Everything that needs memory. The scan is of zeros. */
static int scan_allocate(struct vd_scan *scan, unsigned threads)
{
	bool good = buffer_new(&scan->taken);

	for (unsigned i = 0; good && i < scan->slot_count; i++)
		good = buffer_new(&scan->slots[i].found);
	for (unsigned i = 0; good && i < vd_max(threads, 1); i++) {
		scan->workers[i] = calloc(1, sizeof(*scan->workers[i]));
		good = scan->workers[i] && buffer_new(&scan->workers[i]->mine);
		if (good)
			scan->workers[i]->scan = scan;
	}
	return good ? 0 : -ENOMEM;
}

/* As many threads as can be had. Without any the reader walks himself: see scan_alone(). */
static void scan_start(struct vd_scan *scan, unsigned threads)
{
	sigset_t all, before;

	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (scan->threads < threads &&
	       pthread_create(&scan->workers[scan->threads]->id, NULL, scan_run,
			      scan->workers[scan->threads]) == 0)
		scan->threads++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (scan->threads == 0)
		vd_walk_init(&scan->workers[0]->walk, scan->disk, 0);
}

int vd_scan_new(const struct vd_disk *disk, unsigned threads, struct vd_scan **out)
{
	struct vd_scan *scan = calloc(1, sizeof(*scan));
	uint64_t clusters;
	int r;

	if (!scan)
		return -ENOMEM;
	pthread_mutex_init(&scan->lock, NULL);
	pthread_cond_init(&scan->found, NULL);
	pthread_cond_init(&scan->room, NULL);
	scan->disk = disk;
	vd_joined_init(&scan->unreadable, VD_UNREADABLE_MAX);
	clusters = vd_max(SECTION_CLUSTERS, (disk->size >> disk->cluster_bits) / SECTIONS_MAX);
	scan->section_bytes = clusters << disk->cluster_bits;
	scan->sections = vd_div_up(disk->size, scan->section_bytes);
	threads = (unsigned)vd_min(vd_min(threads, VD_SCAN_THREADS_MAX), scan->sections);
	scan->slot_count = threads + 2;
	r = scan_allocate(scan, threads);
	if (r < 0) {
		vd_scan_free(scan);
		return r;
	}
	scan_start(scan, threads);
	*out = scan;
	return 0;
}

unsigned vd_scan_threads(void)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	return online < 1 ? 1 : (unsigned)vd_min((uint64_t)online, VD_SCAN_THREADS_MAX);
}

void vd_scan_free(struct vd_scan *scan)
{
	if (!scan)
		return;
	vd_scan_stop(scan);
	for (unsigned i = 0; i < scan->threads; i++)
		pthread_join(scan->workers[i]->id, NULL);
	vd_disk_log_rest(scan->disk);
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		buffer_free(&scan->slots[i].found);
	for (unsigned i = 0; i < VD_SCAN_THREADS_MAX; i++) {
		if (scan->workers[i])
			buffer_free(&scan->workers[i]->mine);
		free(scan->workers[i]);
	}
	buffer_free(&scan->taken);
	vd_joined_clear(&scan->unreadable);
	pthread_cond_destroy(&scan->room);
	pthread_cond_destroy(&scan->found);
	pthread_mutex_destroy(&scan->lock);
	free(scan);
}

/* Count what cannot be read in what was taken. */
static void take_bad(struct vd_scan *scan)
{
	scan->bad_bytes += scan->taken.bad_bytes;
	vd_joined_add_all(&scan->unreadable, &scan->taken.unreadable);
}

/* Take what the slot has; the lock is held. Its section may be over then. */
static void slot_take(struct vd_scan *scan, struct slot *slot)
{
	buffers_exchange(&scan->taken, &slot->found);
	slot->found.count = 0;
	take_bad(scan);
	if (slot->ended && slot->error == 0) {
		slot->ended = false;
		scan->head++;
	}
	pthread_cond_broadcast(&scan->room);
}

/*
 * Walk on. An error comes after what was found before it, and so does the end: with the buffer empty
 * again the walk, which did not move, gives the same answer once more.
 */
static int scan_alone(struct vd_scan *scan)
{
	int r;

	scan->taken.bad_bytes = 0;
	vd_joined_reset(&scan->taken.unreadable);
	r = section_walk(scan, &scan->workers[0]->walk, &scan->taken);
	take_bad(scan);
	if (scan->taken.count > 0)
		return 1;
	return r > 0 ? -ECANCELED : r; /* nothing, and no end: it was stopped */
}

/* Wait for more pieces. 1, 0, or an error, as vd_scan_next(). */
static int scan_take(struct vd_scan *scan)
{
	int r = 1;

	scan->taken.count = scan->told = 0;
	if (scan->threads == 0)
		return scan_alone(scan);
	pthread_mutex_lock(&scan->lock);
	while (r > 0 && scan->taken.count == 0) {
		struct slot *slot = &scan->slots[scan->head % scan->slot_count];

		if (is_stopped(scan))
			r = -ECANCELED;
		else if (scan->head == scan->sections)
			r = 0;
		else if (slot->found.count > 0 || (slot->ended && slot->error == 0))
			slot_take(scan, slot);
		else if (slot->ended)
			r = slot->error;
		else
			pthread_cond_wait(&scan->found, &scan->lock);
	}
	pthread_mutex_unlock(&scan->lock);
	return r;
}

int vd_scan_next(struct vd_scan *scan, struct vd_piece *piece)
{
	uint64_t coded;

	if (scan->told == scan->taken.count) {
		int r = scan_take(scan);

		if (r <= 0)
			return r;
	}
	coded = scan->taken.pieces[scan->told++];
	piece->start = scan->virt;
	piece->end = scan->virt = coded >> 1;
	piece->is_data = coded & 1;
	return 1;
}

bool vd_scan_would_wait(const struct vd_scan *scan)
{
	return scan->told == scan->taken.count;
}

uint64_t vd_scan_bad_bytes(const struct vd_scan *scan)
{
	return scan->bad_bytes;
}

const struct vd_joined *vd_scan_unreadable(const struct vd_scan *scan)
{
	return &scan->unreadable;
}

void vd_scan_stop(struct vd_scan *scan)
{
	pthread_mutex_lock(&scan->lock);
	atomic_store(&scan->stop, true);
	pthread_cond_broadcast(&scan->found);
	pthread_cond_broadcast(&scan->room);
	pthread_mutex_unlock(&scan->lock);
}
