/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Somebody who waits for one answer, which another thread brings. */
#ifndef VD_SOURCE_WAITER_H
#define VD_SOURCE_WAITER_H

#include <errno.h>
#include <semaphore.h>

struct vd_waiter {
	sem_t done;
	int r;
};

static inline void vd_waiter_init(struct vd_waiter *waiter)
{
	sem_init(&waiter->done, 0, 0);
}

/* Once. The waiter may be gone when this returns. */
static inline void vd_waiter_done(struct vd_waiter *waiter, int r)
{
	waiter->r = r;
	sem_post(&waiter->done);
}

/* Wait for it, and return what it brought. */
static inline int vd_waiter_wait(struct vd_waiter *waiter)
{
	while (sem_wait(&waiter->done) < 0 && errno == EINTR)
		;
	sem_destroy(&waiter->done);
	return waiter->r;
}

#endif
