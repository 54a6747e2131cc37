/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that cannot be answered at once, because a map must be complete or because there is much
 * to read. libfuse's threads never wait and never work for long: so all other requests, and the
 * kernel's interrupts, are heard whatever is deferred, also with a single thread (-s).
 *
 * A request that waits for a map costs no thread. One thread of ours looks at those that wait, and
 * at those that their callers have interrupted. Long work is done by a few more threads of ours, in
 * slices, so that each request gets its turn.
 */
#ifndef VD_VDIFS_WAITING_H
#define VD_VDIFS_WAITING_H

#include <fuse_lowlevel.h>

#include "map/index.h"

struct vdifs_waiting;

/* Long work of one kind does not hold up that of the other. */
enum vdifs_lane {
	VDIFS_LANE_MAPS, /* what is made once of a complete map */
	VDIFS_LANE_SEARCH, /* seeks and reads, which may go through a whole map each */
	VDIFS_LANES,
};

enum vdifs_outcome {
	VDIFS_REPLIED,
	VDIFS_WAITS, /* for a map, or for another thread */
	VDIFS_WORKS, /* there is more to do than there was time for */
};

struct vdifs_request {
	fuse_req_t req;
	/*
	 * Reply if that is possible. The interrupt says when to stop; NULL: reply only with what is
	 * in memory. May change the request, to go on where it stopped.
	 */
	enum vdifs_outcome (*answer)(struct vdifs_request *request,
				     const struct vd_interrupt *interrupt);
	enum vdifs_lane lane;
	fuse_ino_t ino;
	size_t size; /* of the caller's buffer */
	off_t offset;
	int whence;
	struct fuse_file_info fi;
};

/*
 * `interrupted` says, with a fuse_req_t as its context, whether that request is to be given up. 0 or
 * -ENOMEM.
 */
int vdifs_waiting_new(vd_interrupted_fn *interrupted, struct vdifs_waiting **out);

/* Ends the threads; what is still deferred gets EINTR. NULL is fine. */
void vdifs_waiting_free(struct vdifs_waiting *waiting);

/* Answer the request, which is copied, now or later. */
void vdifs_waiting_answer(struct vdifs_waiting *waiting, const struct vdifs_request *request);

#endif
