/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers and pipes of the threads.
 *
 * Splicing saves one of the two copies of a read: pages of the image's page cache go through the
 * pipe to /dev/fuse as they are. A pipe of 1 MiB is what everybody may have, and libfuse puts its
 * header in front in a pipe of its own of the same size, so that 512 KiB is the most. Below 32 KiB
 * the calls cost more than the copy. All pipes of a user together may have 64 MiB, past which his
 * other programs get tiny ones; only so many threads have a pipe, the others copy. That holds for
 * root as well, whose privileges this process has given up.
 *
 * All bytes must be in the pipe before the answer begins: an answer that turns out to be short
 * would mean the end of the file to the kernel.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vdifs/worker.h"

#define PAGE_BYTES 4096
#define SPLICE_MIN ((size_t)32 << 10)
#define SPLICE_MAX ((size_t)512 << 10)
#define PIPES_MAX 8u

/* After there was no room for a pipe: so many reads are copied before the next attempt. */
#define COPIES 1000

/*
 * Of the process, which serves one mount: pipes that there are, whether trying is always in
 * vain, and how many reads are to be copied before the next attempt.
 */
static atomic_uint pipes;
static atomic_bool in_vain;
static atomic_int copies;

static bool pipe_open(struct vdifs_worker *worker)
{
	if (atomic_fetch_add(&pipes, 1) < PIPES_MAX &&
	    pipe2(worker->pipe, O_CLOEXEC | O_NONBLOCK) == 0)
		return true;
	atomic_fetch_sub(&pipes, 1);
	worker->pipe[0] = worker->pipe[1] = -1;
	return false;
}

static void pipe_close(struct vdifs_worker *worker)
{
	if (worker->pipe[0] < 0)
		return;
	close(worker->pipe[0]);
	close(worker->pipe[1]);
	worker->pipe[0] = worker->pipe[1] = -1;
	worker->pipe_bytes = 0;
	atomic_fetch_sub(&pipes, 1);
}

static void worker_free(void *data)
{
	struct vdifs_worker *worker = data;

	if (!worker)
		return;
	vd_scratch_free(worker->scratch);
	pipe_close(worker);
	free(worker->buffer);
	free(worker);
}

int vdifs_workers_new(pthread_key_t *key)
{
	return -pthread_key_create(key, worker_free);
}

void vdifs_workers_free(pthread_key_t key)
{
	worker_free(pthread_getspecific(key));
	pthread_key_delete(key);
}

static struct vdifs_worker *worker_new(pthread_key_t key)
{
	struct vdifs_worker *worker = calloc(1, sizeof(*worker));

	if (!worker)
		return NULL;
	worker->pipe[0] = worker->pipe[1] = -1;
	if (vd_scratch_new(&worker->scratch) < 0 || pthread_setspecific(key, worker) != 0) {
		worker_free(worker);
		return NULL;
	}
	return worker;
}

struct vdifs_worker *vdifs_worker_get(pthread_key_t key, size_t bytes)
{
	struct vdifs_worker *worker = pthread_getspecific(key);

	if (!worker)
		worker = worker_new(key);
	if (!worker)
		return NULL;
	if (worker->bytes < bytes) {
		free(worker->buffer);
		worker->buffer =
			aligned_alloc(PAGE_BYTES, (size_t)vd_div_up(bytes, PAGE_BYTES) * PAGE_BYTES);
		worker->bytes = worker->buffer ? bytes : 0;
	}
	return worker->buffer ? worker : NULL;
}

/* A pipe that holds `bytes`; they may begin within a page. */
static bool pipe_ready(struct vdifs_worker *worker, size_t bytes)
{
	int room;

	if (worker->pipe[0] < 0 && !pipe_open(worker))
		return false;
	if (worker->pipe_bytes >= bytes + PAGE_BYTES)
		return true;
	room = fcntl(worker->pipe[1], F_SETPIPE_SZ, (int)(bytes + PAGE_BYTES));
	if (room < 0) { /* the user's pipes have all that they may have: leave it to others */
		atomic_store(&copies, COPIES);
		pipe_close(worker);
		return false;
	}
	worker->pipe_bytes = (size_t)room;
	return true;
}

bool vdifs_worker_may_splice(size_t bytes)
{
	return bytes >= SPLICE_MIN && bytes <= SPLICE_MAX && !atomic_load(&in_vain);
}

bool vdifs_worker_splice(struct vdifs_worker *worker, const struct vd_disk *disk, uint64_t virt,
			 size_t bytes)
{
	const struct vd_source *from;
	uint64_t where;
	int r;

	if (atomic_load(&copies) > 0 && atomic_fetch_sub(&copies, 1) > 0)
		return false;
	if (!vdifs_worker_may_splice(bytes) ||
	    !vd_disk_find_raw(disk, virt, bytes, &from, &where) || !vd_source_can_splice(from) ||
	    !pipe_ready(worker, bytes))
		return false;
	r = vd_source_splice(from, worker->pipe[1], bytes, where);
	if (r == 0)
		return true;
	if (r == -EINVAL || r == -EOPNOTSUPP) /* a file system that cannot */
		atomic_store(&in_vain, true);
	pipe_close(worker);
	return false;
}

void vdifs_worker_emptied(struct vdifs_worker *worker)
{
	int left;

	if (ioctl(worker->pipe[0], FIONREAD, &left) < 0 || left > 0)
		pipe_close(worker);
}
