/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a time on a condition variable, by CLOCK_MONOTONIC: when CLOCK_REALTIME is set back, a
 * wait would last so much longer.
 */
#ifndef VD_BASE_TIMING_H
#define VD_BASE_TIMING_H

#include <pthread.h>
#include <time.h>

/* A condition variable that is waited for until a vd_time_in(). */
static inline void vd_timed_cond_init(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

static inline struct timespec vd_time_in(unsigned milliseconds)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(milliseconds / 1000);
	until.tv_nsec += (long)(milliseconds % 1000) * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	return until;
}

#endif
