/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that have to wait for a map. Half of the threads may wait; whoever comes then is parked
 * and costs no thread, so that all other requests, and the kernel's interrupts, are still heard.
 *
 * A request that is parked is answered when that can be done without waiting, or as soon as its
 * caller is interrupted; and each thread that has waited to the end goes on with the next one parked.
 */
#ifndef VD_VDIFS_WAITING_H
#define VD_VDIFS_WAITING_H

#include <fuse_lowlevel.h>

#include "map/index.h"

struct vdifs_waiting;

struct vdifs_request {
	fuse_req_t req;
	/*
	 * Reply: in any case if there is an interrupt, else only if that can be done without
	 * waiting. False: it could not. What the reply is made of is in the rest of the request.
	 */
	bool (*answer)(struct vdifs_request *request, const struct vd_interrupt *interrupt);
	fuse_ino_t ino;
	size_t size; /* of the caller's buffer */
	struct fuse_file_info fi;
};

/*
 * So many threads wait. Whether a request is to wait no longer is asked with its fuse_req_t as the
 * context. 0 or -ENOMEM.
 */
int vdifs_waiting_new(unsigned threads, vd_interrupted_fn *interrupted, struct vdifs_waiting **out);

/* No thread waits any more; who is still parked gets EINTR. NULL is fine. */
void vdifs_waiting_free(struct vdifs_waiting *waiting);

/* Answer the request, which is copied, now or later. */
void vdifs_waiting_answer(struct vdifs_waiting *waiting, const struct vdifs_request *request);

#endif
