/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What reads of computed files go on from: a reader of the map's JSON or of the QCOW2 file, which is
 * large and costs time to place. A few of them serve all open files of all disks, so that memory
 * does not grow with what is open. One that is taken belongs to one thread.
 *
 * All functions but new and free may be called by any thread.
 */
#ifndef VD_VDIFS_READERS_H
#define VD_VDIFS_READERS_H

#include <sys/queue.h>

#include "map/json.h"
#include "map/view.h"

struct vdifs_readers;

struct vdifs_reader {
	TAILQ_ENTRY(vdifs_reader) link;
	const void *of; /* the node that it reads; NULL: none yet */
	uint64_t next; /* where it would go on */
	bool is_taken;
	struct vd_json_reader *json; /* one of the two; NULL: not made yet */
	struct vd_view_reader *view;
};

/* 0 or -ENOMEM. */
int vdifs_readers_new(struct vdifs_readers **out);
void vdifs_readers_free(struct vdifs_readers *readers); /* none is taken. NULL is fine */

/*
 * Take a reader for `of`: one that would go on at `at`, or the one that was used longest ago, which may
 * be empty. NULL: all are taken.
 */
struct vdifs_reader *vdifs_readers_take(struct vdifs_readers *readers, const void *of, uint64_t at);

/* Give it back. It would go on at `next`. */
void vdifs_readers_put(struct vdifs_readers *readers, struct vdifs_reader *reader, uint64_t next);

#endif
