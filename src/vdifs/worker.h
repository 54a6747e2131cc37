/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one thread needs to answer reads: a scratch, a buffer, a pipe. Made when the thread first
 * reads and freed when it ends, so that no request allocates and no two threads share.
 */
#ifndef VD_VDIFS_WORKER_H
#define VD_VDIFS_WORKER_H

#include <pthread.h>

#include "disk/disk.h"

struct vdifs_worker {
	struct vd_scratch *scratch;
	char *buffer;
	size_t bytes; /* size of the buffer */
	int pipe[2]; /* -1: none yet. Empty between two requests */
	size_t pipe_bytes; /* what fits */
};

/* A place for the workers of all threads. 0 or -ENOMEM. */
int vdifs_workers_new(pthread_key_t *key);

/* Called when all other threads have ended; frees what the calling one has. */
void vdifs_workers_free(pthread_key_t key);

/* This thread's, with a buffer of `bytes` (> 0) at least; NULL for want of memory. */
struct vdifs_worker *vdifs_worker_get(pthread_key_t key, size_t bytes);

/* Can so many bytes be had by vdifs_worker_splice()? If so it still depends on where they are. */
bool vdifs_worker_may_splice(size_t bytes);

/*
 * Have `bytes` at virt of the disk put into the worker's pipe without copying them. False: they do
 * not lie in one piece in a file, or the system does not let us; vd_disk_read() is the other way.
 * The caller empties the pipe and then calls vdifs_worker_emptied().
 */
bool vdifs_worker_splice(struct vdifs_worker *worker, const struct vd_disk *disk, uint64_t virt,
			 size_t bytes);

/* The pipe has been read; if something is left in it after all, it is not used again. */
void vdifs_worker_emptied(struct vdifs_worker *worker);

#endif
