/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits, who is parked: see waiting.h.
 *
 * Threads: one of ours looks at those that are parked, every 20 ms while there are any. It does not
 * use libfuse's callback for interrupts: that is called with the request's lock held, when nobody may
 * reply. It never makes anything itself, since a view may have to read metadata from storage that
 * hangs; a thread that waits does, and there is one as long as anybody is parked.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "vdifs/waiting.h"

#define LOOK_NANOSECONDS 20000000L

struct parked {
	TAILQ_ENTRY(parked) link;
	struct vdifs_request request;
};

struct vdifs_waiting {
	unsigned threads_max;
	vd_interrupted_fn *interrupted;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* for all that follows */
	pthread_cond_t changed;
	bool stop;
	unsigned threads; /* that wait */
	TAILQ_HEAD(, parked) parked;
};

int vdifs_waiting_new(unsigned threads, vd_interrupted_fn *interrupted, struct vdifs_waiting **out)
{
	struct vdifs_waiting *waiting = calloc(1, sizeof(*waiting));

	if (!waiting)
		return -ENOMEM;
	waiting->threads_max = threads;
	waiting->interrupted = interrupted;
	pthread_mutex_init(&waiting->lock, NULL);
	pthread_cond_init(&waiting->changed, NULL);
	TAILQ_INIT(&waiting->parked);
	*out = waiting;
	return 0;
}

void vdifs_waiting_free(struct vdifs_waiting *waiting)
{
	struct parked *parked;

	if (!waiting)
		return;
	pthread_mutex_lock(&waiting->lock);
	waiting->stop = true;
	pthread_cond_broadcast(&waiting->changed);
	pthread_mutex_unlock(&waiting->lock);
	if (waiting->has_thread)
		pthread_join(waiting->thread, NULL);
	while ((parked = TAILQ_FIRST(&waiting->parked))) {
		TAILQ_REMOVE(&waiting->parked, parked, link);
		fuse_reply_err(parked->request.req, EINTR);
		free(parked);
	}
	pthread_cond_destroy(&waiting->changed);
	pthread_mutex_destroy(&waiting->lock);
	free(waiting);
}

/* Answer one that is parked, if it can or must be. */
static bool parked_try(const struct vdifs_waiting *waiting, struct parked *parked)
{
	if (!waiting->interrupted(parked->request.req))
		return parked->request.answer(&parked->request, NULL);
	fuse_reply_err(parked->request.req, EINTR);
	return true;
}

/* Wait for somebody to be parked or, if there is somebody, for a while. The lock is held. */
static void look_later(struct vdifs_waiting *waiting)
{
	struct timespec until;

	if (TAILQ_EMPTY(&waiting->parked)) {
		pthread_cond_wait(&waiting->changed, &waiting->lock);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += LOOK_NANOSECONDS;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_cond_timedwait(&waiting->changed, &waiting->lock, &until);
}

static void *look(void *context)
{
	struct vdifs_waiting *waiting = context;
	struct parked *parked, *next;

	pthread_mutex_lock(&waiting->lock);
	while (!waiting->stop) {
		look_later(waiting);
		for (parked = TAILQ_FIRST(&waiting->parked); parked; parked = next) {
			next = TAILQ_NEXT(parked, link);
			if (!parked_try(waiting, parked))
				continue;
			TAILQ_REMOVE(&waiting->parked, parked, link);
			free(parked);
		}
	}
	pthread_mutex_unlock(&waiting->lock);
	return NULL;
}

/* Start the thread that looks, which few mounts need. The lock is held. */
static bool look_start(struct vdifs_waiting *waiting)
{
	sigset_t all, before;

	if (waiting->has_thread)
		return true;
	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	waiting->has_thread = pthread_create(&waiting->thread, NULL, look, waiting) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return waiting->has_thread;
}

/* Park the request if there are threads enough that wait. Else, or if it cannot be: one more waits. */
static bool park_or_wait(struct vdifs_waiting *waiting, const struct vdifs_request *request)
{
	struct parked *parked = NULL;

	pthread_mutex_lock(&waiting->lock);
	if (waiting->threads >= waiting->threads_max && look_start(waiting))
		parked = malloc(sizeof(*parked));
	if (parked) {
		parked->request = *request;
		TAILQ_INSERT_TAIL(&waiting->parked, parked, link);
		pthread_cond_broadcast(&waiting->changed);
	} else {
		waiting->threads++;
	}
	pthread_mutex_unlock(&waiting->lock);
	return parked;
}

/* The next one for a thread that has waited, or NULL: it waits no more. */
static struct parked *next_or_done(struct vdifs_waiting *waiting)
{
	struct parked *parked;

	pthread_mutex_lock(&waiting->lock);
	parked = TAILQ_FIRST(&waiting->parked);
	if (parked)
		TAILQ_REMOVE(&waiting->parked, parked, link);
	else
		waiting->threads--;
	pthread_mutex_unlock(&waiting->lock);
	return parked;
}

static void wait_for(const struct vdifs_waiting *waiting, struct vdifs_request *request)
{
	struct vd_interrupt interrupt = {
		.interrupted = waiting->interrupted,
		.context = request->req,
	};

	request->answer(request, &interrupt);
}

void vdifs_waiting_answer(struct vdifs_waiting *waiting, const struct vdifs_request *request)
{
	struct vdifs_request own = *request;
	struct parked *parked;

	if (own.answer(&own, NULL) || park_or_wait(waiting, &own))
		return;
	wait_for(waiting, &own);
	while ((parked = next_or_done(waiting))) {
		wait_for(waiting, &parked->request);
		free(parked);
	}
}
