/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk that is shown: what its files have in common. Reads come from its disk; block counts,
 * seeks, attributes and the files that are computed from its index, so that they cannot disagree.
 *
 * There may be hundreds of such disks, as snapshots have indexes of their own. These are built when
 * they are first needed, one after the other.
 *
 * All functions but init and clear may be called by any thread.
 */
#ifndef VD_VDIFS_SHOWN_H
#define VD_VDIFS_SHOWN_H

#include <pthread.h>
#include <time.h>

#include "map/view.h"
#include "vdifs/readers.h"

struct vdifs_shown;

/* Whose index is being built, or was the last. Zero `latest`, init the lock. */
struct vdifs_turns {
	pthread_mutex_t lock;
	struct vdifs_shown *latest;
};

/* Something that is made of an index by whoever needs it first. */
struct vdifs_once {
	bool is_begun; /* somebody is at it */
	bool is_done; /* for good, well or not */
	int result;
};

struct vdifs_shown {
	const struct vd_disk *disk;
	struct vd_index *index;
	struct timespec written, changed; /* mtime and ctime of its files */
	mode_t mode; /* of its files */
	struct vdifs_readers *readers; /* of its computed files */
	struct vdifs_turns *turns; /* NULL: its index is built first, without waiting for a turn */
	bool is_started; /* the index; under the lock of turns */
	pthread_mutex_t lock; /* for the state of what is made once; never held while it is made */
	struct vdifs_once attribute_once, view_once;
	char *attribute; /* user.intervals, once made */
	size_t attribute_length;
	struct vd_view *view; /* the disk as a QCOW2 file, once made */
};

/*
 * The index, its disk and turns must outlive it. The times are those of the snapshot, or the newest
 * ones of all files whose bytes are shown.
 */
void vdifs_shown_init(struct vdifs_shown *shown, struct vd_index *index, struct vdifs_turns *turns);
void vdifs_shown_clear(struct vdifs_shown *shown);

/*
 * A number that tells this disk from all others, and is the same when it is mounted again: it is made
 * of the image's file and its snapshot.
 */
uint64_t vdifs_shown_identity(const struct vdifs_shown *shown);

/*
 * Who may read its files, which have the owner and group of the image: those who could read every
 * file whose bytes they show, and the image. for_others: the mount is not for its maker alone, who
 * has read all of these files; what he may do as one of several is what the image says. The image's
 * permissions to write are shown, too, though nothing can be written: a copy gets them, and a second
 * copy over it would fail without.
 */
void vdifs_shown_permit(struct vdifs_shown *shown, const struct stat *image, bool for_others);

/* The index is of use: have it built, unless another one is being built. */
void vdifs_shown_wanted(struct vdifs_shown *shown);

/*
 * What follows never waits. -EAGAIN: that is needed, the index is being built, or will be in its turn,
 * or another thread is at it. -EINPROGRESS, without an interrupt: there is work to do. -EINTR: the work
 * was interrupted.
 */

/* 0: the index is complete. -EAGAIN, or the error that ended it: the next one may have more luck. */
int vdifs_shown_wait(struct vdifs_shown *shown);

/* The value of user.intervals, which stays for as long as the disk is shown. Also -ENOMEM. */
int vdifs_shown_attribute(struct vdifs_shown *shown, const char **text, size_t *length,
			  const struct vd_interrupt *interrupt);

/* The QCOW2 file; likewise. Also -EFBIG. */
int vdifs_shown_view(struct vdifs_shown *shown, const struct vd_view **view,
		     const struct vd_interrupt *interrupt);

#endif
