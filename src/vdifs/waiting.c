/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Deferred requests: see waiting.h.
 *
 * Threads: one looks, every 20 ms at most while anything is deferred. It does not use libfuse's
 * callback for interrupts, which is called with the request's lock held, when no thread may reply. It
 * does no work itself, which may have to read metadata from storage that hangs. Others work, a few
 * for each lane. All are started when they are first needed.
 *
 * A slice that is too short doubles for work which cannot go on where it stopped, so that it comes to
 * an end, too. A seek goes on where it stopped, and its slices stay short: others get their turn.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/timing.h"
#include "vdifs/waiting.h"

enum {
	THREADS_PER_LANE = 4, /* few, which leave processors to those of libfuse */
	FIRST_MILLISECONDS = 4, /* for a thread of libfuse */
	SLICE_MILLISECONDS = 100, /* the first one of ours */
	SLICE_MILLISECONDS_MAX = 60000, /* longer than it takes to go through any map once */
	LOOK_MILLISECONDS_MIN = 1, /* after something was deferred */
	LOOK_MILLISECONDS_MAX = 20,
};

struct deferred {
	TAILQ_ENTRY(deferred) link;
	struct vdifs_request request;
	unsigned slice; /* milliseconds */
};

TAILQ_HEAD(deferred_list, deferred);

struct lane {
	struct vdifs_waiting *waiting;
	struct deferred_list queue;
	pthread_cond_t filled;
	pthread_t threads[THREADS_PER_LANE];
	unsigned thread_count, idle;
};

struct vdifs_waiting {
	vd_interrupted_fn *interrupted;
	pthread_mutex_t lock; /* for all that follows */
	pthread_cond_t changed;
	bool stop;
	pthread_t looker;
	bool has_looker;
	unsigned look_after; /* milliseconds */
	struct deferred_list waits;
	struct lane lanes[VDIFS_LANES];
};

/* --- time ------------------------------------------------------------------------------------ */

/* How long one attempt may take. */
struct slice {
	const struct vdifs_waiting *waiting;
	fuse_req_t req;
	struct timespec end;
};

static bool slice_is_over(void *context)
{
	const struct slice *slice = context;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > slice->end.tv_sec ||
	       (now.tv_sec == slice->end.tv_sec && now.tv_nsec >= slice->end.tv_nsec) ||
	       slice->waiting->interrupted(slice->req);
}

static enum vdifs_outcome try_for(const struct vdifs_waiting *waiting,
				  struct vdifs_request *request, unsigned milliseconds)
{
	struct slice slice = {
		.waiting = waiting,
		.req = request->req,
		.end = vd_time_in(milliseconds),
	};
	struct vd_interrupt interrupt = { .interrupted = slice_is_over, .context = &slice };

	return request->answer(request, &interrupt);
}

/* --- threads --------------------------------------------------------------------------------- */

static bool thread_start(pthread_t *thread, void *(*run)(void *), void *context)
{
	sigset_t all, before;
	int r;

	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(thread, NULL, run, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r == 0;
}

static void *look(void *context);
static void *work(void *context);

/* The lock is held, here and below. */
static bool looker_start(struct vdifs_waiting *waiting)
{
	if (!waiting->has_looker)
		waiting->has_looker = thread_start(&waiting->looker, look, waiting);
	return waiting->has_looker;
}

/* Is there an idle thread for one more request? One that has been woken may not have begun to run. */
static bool has_idle(const struct lane *lane)
{
	const struct deferred *deferred;
	unsigned queued = 0;

	TAILQ_FOREACH(deferred, &lane->queue, link) {
		if (++queued >= lane->idle)
			break;
	}
	return queued < lane->idle;
}

/* One more thread, if all are busy. False: there is none. */
static bool lane_start(struct lane *lane)
{
	if (!has_idle(lane) && lane->thread_count < THREADS_PER_LANE &&
	    thread_start(&lane->threads[lane->thread_count], work, lane))
		lane->thread_count++;
	return lane->thread_count > 0;
}

/* Put it where it belongs after that outcome of an attempt. */
static void put(struct vdifs_waiting *waiting, struct deferred *deferred,
		enum vdifs_outcome outcome)
{
	struct lane *lane = &waiting->lanes[deferred->request.lane];

	if (!looker_start(waiting) || (outcome == VDIFS_WORKS && !lane_start(lane))) {
		fuse_reply_err(deferred->request.req, ENOMEM);
		free(deferred);
		return;
	}
	if (outcome == VDIFS_WORKS) {
		TAILQ_INSERT_TAIL(&lane->queue, deferred, link);
		pthread_cond_signal(&lane->filled);
	} else {
		TAILQ_INSERT_TAIL(&waiting->waits, deferred, link);
	}
	waiting->look_after = LOOK_MILLISECONDS_MIN;
	pthread_cond_signal(&waiting->changed);
}

static void *work(void *context)
{
	struct lane *lane = context;
	struct vdifs_waiting *waiting = lane->waiting;
	struct deferred *deferred;
	enum vdifs_outcome outcome;
	off_t from;

	pthread_mutex_lock(&waiting->lock);
	while (!waiting->stop) {
		deferred = TAILQ_FIRST(&lane->queue);
		if (!deferred) {
			lane->idle++;
			pthread_cond_wait(&lane->filled, &waiting->lock);
			lane->idle--;
			continue;
		}
		TAILQ_REMOVE(&lane->queue, deferred, link);
		pthread_mutex_unlock(&waiting->lock);
		from = deferred->request.offset;
		outcome = try_for(waiting, &deferred->request, deferred->slice);
		pthread_mutex_lock(&waiting->lock);
		if (outcome == VDIFS_WORKS && deferred->request.offset == from &&
		    deferred->slice < SLICE_MILLISECONDS_MAX)
			deferred->slice *= 2;
		if (outcome == VDIFS_REPLIED)
			free(deferred);
		else
			put(waiting, deferred, outcome);
	}
	pthread_mutex_unlock(&waiting->lock);
	return NULL;
}

/* Give up those of the list whose callers have been interrupted; `all`: each of them. */
static void list_give_up(const struct vdifs_waiting *waiting, struct deferred_list *list, bool all)
{
	struct deferred *deferred, *next;

	for (deferred = TAILQ_FIRST(list); deferred; deferred = next) {
		next = TAILQ_NEXT(deferred, link);
		if (!all && !waiting->interrupted(deferred->request.req))
			continue;
		TAILQ_REMOVE(list, deferred, link);
		fuse_reply_err(deferred->request.req, EINTR);
		free(deferred);
	}
}

/* Answer those that waited for what is there now. */
static void waits_try(struct vdifs_waiting *waiting)
{
	struct deferred *deferred, *next;

	for (deferred = TAILQ_FIRST(&waiting->waits); deferred; deferred = next) {
		enum vdifs_outcome outcome = deferred->request.answer(&deferred->request, NULL);

		next = TAILQ_NEXT(deferred, link);
		if (outcome == VDIFS_WAITS)
			continue;
		TAILQ_REMOVE(&waiting->waits, deferred, link);
		if (outcome == VDIFS_WORKS)
			put(waiting, deferred, outcome);
		else
			free(deferred);
	}
}

static bool is_empty(const struct vdifs_waiting *waiting)
{
	bool empty = TAILQ_EMPTY(&waiting->waits);

	for (unsigned i = 0; i < VDIFS_LANES; i++)
		empty = empty && TAILQ_EMPTY(&waiting->lanes[i].queue);
	return empty;
}

static void *look(void *context)
{
	struct vdifs_waiting *waiting = context;

	pthread_mutex_lock(&waiting->lock);
	while (!waiting->stop) {
		struct timespec until = vd_time_in(waiting->look_after);

		if (is_empty(waiting)) {
			pthread_cond_wait(&waiting->changed, &waiting->lock);
			continue;
		}
		/* What comes meanwhile need not be looked at before its time. */
		while (!waiting->stop &&
		       pthread_cond_timedwait(&waiting->changed, &waiting->lock, &until) == 0)
			;
		waiting->look_after = waiting->look_after * 2 < LOOK_MILLISECONDS_MAX
					      ? waiting->look_after * 2
					      : LOOK_MILLISECONDS_MAX;
		list_give_up(waiting, &waiting->waits, false);
		for (unsigned i = 0; i < VDIFS_LANES; i++)
			list_give_up(waiting, &waiting->lanes[i].queue, false);
		waits_try(waiting);
	}
	pthread_mutex_unlock(&waiting->lock);
	return NULL;
}

/* --- the whole ------------------------------------------------------------------------------- */

int vdifs_waiting_new(vd_interrupted_fn *interrupted, struct vdifs_waiting **out)
{
	struct vdifs_waiting *waiting = calloc(1, sizeof(*waiting));

	if (!waiting)
		return -ENOMEM;
	waiting->interrupted = interrupted;
	pthread_mutex_init(&waiting->lock, NULL);
	vd_timed_cond_init(&waiting->changed);
	TAILQ_INIT(&waiting->waits);
	for (unsigned i = 0; i < VDIFS_LANES; i++) {
		waiting->lanes[i].waiting = waiting;
		TAILQ_INIT(&waiting->lanes[i].queue);
		pthread_cond_init(&waiting->lanes[i].filled, NULL);
	}
	*out = waiting;
	return 0;
}

void vdifs_waiting_free(struct vdifs_waiting *waiting)
{
	if (!waiting)
		return;
	pthread_mutex_lock(&waiting->lock);
	waiting->stop = true;
	pthread_cond_broadcast(&waiting->changed);
	for (unsigned i = 0; i < VDIFS_LANES; i++)
		pthread_cond_broadcast(&waiting->lanes[i].filled);
	pthread_mutex_unlock(&waiting->lock);
	if (waiting->has_looker)
		pthread_join(waiting->looker, NULL);
	for (unsigned i = 0; i < VDIFS_LANES; i++) {
		for (unsigned j = 0; j < waiting->lanes[i].thread_count; j++)
			pthread_join(waiting->lanes[i].threads[j], NULL);
	}
	list_give_up(waiting, &waiting->waits, true);
	for (unsigned i = 0; i < VDIFS_LANES; i++) {
		list_give_up(waiting, &waiting->lanes[i].queue, true);
		pthread_cond_destroy(&waiting->lanes[i].filled);
	}
	pthread_cond_destroy(&waiting->changed);
	pthread_mutex_destroy(&waiting->lock);
	free(waiting);
}

void vdifs_waiting_answer(struct vdifs_waiting *waiting, const struct vdifs_request *request)
{
	struct vdifs_request own = *request;
	enum vdifs_outcome outcome = try_for(waiting, &own, FIRST_MILLISECONDS);
	struct deferred *deferred;

	if (outcome == VDIFS_REPLIED)
		return;
	deferred = malloc(sizeof(*deferred));
	if (!deferred) {
		fuse_reply_err(own.req, ENOMEM);
		return;
	}
	*deferred = (struct deferred){ .request = own, .slice = SLICE_MILLISECONDS };
	pthread_mutex_lock(&waiting->lock);
	put(waiting, deferred, outcome);
	pthread_mutex_unlock(&waiting->lock);
}
