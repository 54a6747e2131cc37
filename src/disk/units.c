/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One mutex over a hash table, a queue of what is wanted and a list of what may be dropped.
 *
 * A unit is WANTED (in the queue), BUSY (somebody decodes it), READY, or FAILED. It is in the
 * table in all states but FAILED; a damaged one is remembered without its bytes for a second, then
 * the next reader tries it again. A unit is in the idle list when it is READY and has no user.
 * The threads start with the first question, since a mount of a plain image never needs them.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/bytes.h"
#include "disk/units.h"

#define BUCKETS 1024u /* a power of two */
#define THREADS_MAX 16
#define READERS 8 /* sequential readers that are told apart */
#define AHEAD_BYTES ((uint64_t)1 << 20)
#define FAILURES 64 /* units that are remembered as damaged */
#define FAILURE_SECONDS 1

enum unit_state { WANTED, BUSY, READY, FAILED };

struct vd_unit {
	const struct vd_image *image;
	struct vd_run run;
	enum unit_state state;
	int error; /* of FAILED */
	unsigned users;
	LIST_ENTRY(vd_unit) bucket_link;
	TAILQ_ENTRY(vd_unit) list_link; /* in the queue or the idle list */
	uint8_t bytes[];
};

TAILQ_HEAD(unit_list, vd_unit);

/* A unit that could not be decoded a moment ago. */
struct failure {
	uint64_t image; /* serial number; 0: none */
	uint64_t virt;
	struct timespec time;
};

struct vd_units {
	pthread_mutex_t lock;
	pthread_cond_t work; /* the queue is not empty, or stop */
	pthread_cond_t done; /* a unit is no longer busy */
	size_t memory, used;
	LIST_HEAD(, vd_unit) buckets[BUCKETS];
	struct unit_list queue, idle; /* idle: least recently used first */
	uint64_t ends[READERS]; /* where recent reads ended; [next_end] is the oldest */
	unsigned next_end;
	struct failure failures[FAILURES];
	unsigned next_failure; /* the oldest of them */
	bool started, stop;
	unsigned threads; /* to start, then running */
	pthread_t ids[THREADS_MAX];
};

int vd_units_new(size_t memory, unsigned threads, struct vd_units **out)
{
	struct vd_units *units = calloc(1, sizeof(*units));

	if (!units)
		return -ENOMEM;
	pthread_mutex_init(&units->lock, NULL);
	pthread_cond_init(&units->work, NULL);
	pthread_cond_init(&units->done, NULL);
	TAILQ_INIT(&units->queue);
	TAILQ_INIT(&units->idle);
	units->memory = memory;
	units->threads = threads < THREADS_MAX ? threads : THREADS_MAX;
	*out = units;
	return 0;
}

static unsigned unit_bucket(const struct vd_image *image, uint64_t virt)
{
	uint64_t mixed = (virt >> 9) * UINT64_C(0x9e3779b97f4a7c15) ^ image->serial;

	return (unsigned)(mixed >> 32 ^ mixed) & (BUCKETS - 1);
}

static struct vd_unit *unit_find(struct vd_units *units, const struct vd_image *image,
				 uint64_t virt)
{
	struct vd_unit *unit;

	LIST_FOREACH(unit, &units->buckets[unit_bucket(image, virt)], bucket_link)
	{
		if (unit->run.start == virt && unit->image->serial == image->serial)
			return unit;
	}
	return NULL;
}

static void unit_free(struct vd_units *units, struct vd_unit *unit)
{
	units->used -= (size_t)unit->run.length;
	free(unit);
}

/* Drop idle units until there is room. The lock is held. */
static bool units_evict(struct vd_units *units, uint64_t room)
{
	struct vd_unit *unit;

	while (units->used + room > units->memory && (unit = TAILQ_FIRST(&units->idle))) {
		TAILQ_REMOVE(&units->idle, unit, list_link);
		LIST_REMOVE(unit, bucket_link);
		unit_free(units, unit);
	}
	return units->used + room <= units->memory;
}

/* A new unit in the table, in no list. The lock is held. */
static struct vd_unit *unit_add(struct vd_units *units, const struct vd_image *image,
				const struct vd_run *run, enum unit_state state)
{
	struct vd_unit *unit = malloc(sizeof(*unit) + (size_t)run->length);

	if (!unit)
		return NULL;
	unit->image = image;
	unit->run = *run;
	unit->state = state;
	unit->error = 0;
	unit->users = 0;
	units->used += (size_t)run->length;
	LIST_INSERT_HEAD(&units->buckets[unit_bucket(image, run->start)], unit, bucket_link);
	return unit;
}

/* Nobody uses it any more: keep it for later, or forget a failed one. The lock is held. */
static void unit_rest(struct vd_units *units, struct vd_unit *unit)
{
	if (unit->state == FAILED) {
		unit_free(units, unit);
		return;
	}
	TAILQ_INSERT_TAIL(&units->idle, unit, list_link);
	units_evict(units, 0);
}

static void failure_keep(struct vd_units *units, const struct vd_unit *unit)
{
	struct failure *failure = &units->failures[units->next_failure++ % FAILURES];

	*failure = (struct failure){
		.image = unit->image->serial,
		.virt = unit->run.start,
	};
	clock_gettime(CLOCK_MONOTONIC, &failure->time);
}

/* -EIO if the unit was found to be damaged a moment ago, else 0. The lock is held. */
static int failure_find(const struct vd_units *units, const struct vd_image *image, uint64_t virt)
{
	struct timespec now;

	for (unsigned i = 0; i < FAILURES && units->next_failure > 0; i++) {
		const struct failure *failure = &units->failures[i];

		if (failure->image != image->serial || failure->virt != virt)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - failure->time.tv_sec <= FAILURE_SECONDS)
			return -EIO;
	}
	return 0;
}

/* Decode a BUSY unit that the caller uses. Called and left with the lock held. */
static void unit_decode(struct vd_units *units, struct vd_unit *unit, struct vd_scratch *scratch)
{
	int r;

	pthread_mutex_unlock(&units->lock);
	r = unit->image->format->decode(unit->image, &unit->run, unit->bytes, scratch);
	pthread_mutex_lock(&units->lock);
	unit->state = r < 0 ? FAILED : READY;
	unit->error = r == -EBADMSG ? -EIO : r;
	if (r < 0)
		LIST_REMOVE(unit, bucket_link);
	if (r == -EBADMSG) /* only damage: a read that failed may work the next time */
		failure_keep(units, unit);
	pthread_cond_broadcast(&units->done);
}

/* Decode the first unit of the queue. Called and left with the lock held. */
static void queue_decode(struct vd_units *units, struct vd_unit *unit, struct vd_scratch *scratch)
{
	TAILQ_REMOVE(&units->queue, unit, list_link);
	unit->state = BUSY;
	unit->users++;
	unit_decode(units, unit, scratch);
	if (--unit->users == 0)
		unit_rest(units, unit);
}

static void *units_run(void *data)
{
	struct vd_units *units = data;
	struct vd_scratch *scratch = NULL;

	if (vd_scratch_new(&scratch) < 0)
		return NULL; /* the readers do it themselves */
	pthread_mutex_lock(&units->lock);
	while (!units->stop) {
		struct vd_unit *unit = TAILQ_FIRST(&units->queue);

		if (unit)
			queue_decode(units, unit, scratch);
		else
			pthread_cond_wait(&units->work, &units->lock);
	}
	pthread_mutex_unlock(&units->lock);
	vd_scratch_free(scratch);
	return NULL;
}

/* Start the threads, as many as can be had. The lock is held. */
static void units_start(struct vd_units *units)
{
	unsigned want = units->threads;
	sigset_t all, before;

	units->started = true;
	units->threads = 0;
	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (units->threads < want &&
	       pthread_create(&units->ids[units->threads], NULL, units_run, units) == 0)
		units->threads++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void vd_units_free(struct vd_units *units)
{
	struct vd_unit *unit;

	if (!units)
		return;
	pthread_mutex_lock(&units->lock);
	units->stop = true;
	pthread_cond_broadcast(&units->work);
	pthread_mutex_unlock(&units->lock);
	for (unsigned i = 0; units->started && i < units->threads; i++)
		pthread_join(units->ids[i], NULL);
	while ((unit = TAILQ_FIRST(&units->queue))) {
		TAILQ_REMOVE(&units->queue, unit, list_link);
		LIST_REMOVE(unit, bucket_link);
		unit_free(units, unit);
	}
	units->memory = 0;
	units_evict(units, 0);
	pthread_cond_destroy(&units->done);
	pthread_cond_destroy(&units->work);
	pthread_mutex_destroy(&units->lock);
	free(units);
}

void vd_units_ask(struct vd_units *units, const struct vd_image *image, const struct vd_run *run)
{
	struct vd_unit *unit;

	pthread_mutex_lock(&units->lock);
	if (!units->started)
		units_start(units);
	if (units->threads > 0 && !unit_find(units, image, run->start) &&
	    failure_find(units, image, run->start) == 0 &&
	    units_evict(units, run->length)) {
		unit = unit_add(units, image, run, WANTED);
		if (unit) {
			TAILQ_INSERT_TAIL(&units->queue, unit, list_link);
			pthread_cond_signal(&units->work);
		}
	}
	pthread_mutex_unlock(&units->lock);
}

/*
 * The first unit in the queue that lies in that file, or NULL. Another file may be on storage that
 * hangs, and then whoever begins with it does, too.
 */
static struct vd_unit *queue_find(struct vd_units *units, const struct vd_source *from)
{
	struct vd_unit *unit;

	TAILQ_FOREACH(unit, &units->queue, list_link)
	{
		if (unit->run.from == from)
			return unit;
	}
	return NULL;
}

/* Find or make the unit and use it; decode it unless somebody does. The lock is held. */
static struct vd_unit *unit_take(struct vd_units *units, const struct vd_image *image,
				 const struct vd_run *run, struct vd_scratch *scratch)
{
	struct vd_unit *unit = unit_find(units, image, run->start);

	if (!unit) {
		units_evict(units, run->length);
		unit = unit_add(units, image, run, BUSY);
		if (!unit)
			return NULL;
		unit->users++;
		unit_decode(units, unit, scratch);
		return unit;
	}
	unit->users++;
	if (unit->state == WANTED) {
		TAILQ_REMOVE(&units->queue, unit, list_link);
		unit->state = BUSY;
		unit_decode(units, unit, scratch);
	} else if (unit->state == READY && unit->users == 1) {
		TAILQ_REMOVE(&units->idle, unit, list_link);
	}
	while (unit->state == BUSY) {
		struct vd_unit *other = queue_find(units, run->from);

		if (other) /* better than waiting: whoever wants it wants it soon */
			queue_decode(units, other, scratch);
		else
			pthread_cond_wait(&units->done, &units->lock);
	}
	return unit;
}

int vd_units_get(struct vd_units *units, const struct vd_image *image, const struct vd_run *run,
		 struct vd_scratch *scratch, struct vd_unit **out, const uint8_t **bytes)
{
	struct vd_unit *unit = NULL;
	int r;

	pthread_mutex_lock(&units->lock);
	r = failure_find(units, image, run->start);
	if (r == 0) {
		unit = unit_take(units, image, run, scratch);
		r = -ENOMEM;
	}
	if (unit) {
		r = unit->state == FAILED ? unit->error : 0;
		if (r < 0 && --unit->users == 0)
			unit_rest(units, unit);
	}
	pthread_mutex_unlock(&units->lock);
	if (r == 0) {
		*out = unit;
		*bytes = unit->bytes;
	}
	return r;
}

void vd_units_put(struct vd_units *units, struct vd_unit *unit)
{
	pthread_mutex_lock(&units->lock);
	if (--unit->users == 0)
		unit_rest(units, unit);
	pthread_mutex_unlock(&units->lock);
}

uint64_t vd_units_ahead(struct vd_units *units, uint64_t virt, uint64_t end)
{
	unsigned slot;
	bool goes_on = false;

	pthread_mutex_lock(&units->lock);
	for (slot = 0; slot < READERS && !goes_on; slot++)
		goes_on = units->ends[slot] == virt;
	if (goes_on) {
		units->ends[slot - 1] = end;
	} else {
		units->ends[units->next_end] = end;
		units->next_end = (units->next_end + 1) % READERS;
	}
	pthread_mutex_unlock(&units->lock);
	return goes_on ? vd_min(AHEAD_BYTES, units->memory / 4) : 0;
}

size_t vd_units_bytes(struct vd_units *units)
{
	size_t used;

	pthread_mutex_lock(&units->lock);
	used = units->used;
	pthread_mutex_unlock(&units->lock);
	return used;
}
