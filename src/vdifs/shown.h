/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk that is shown: what its files have in common. Reads come from its disk; block counts,
 * seeks, attributes and the sidecar from its index, so that they cannot disagree.
 *
 * All functions may be called by any thread.
 */
#ifndef VD_VDIFS_SHOWN_H
#define VD_VDIFS_SHOWN_H

#include <pthread.h>

#include "map/index.h"

struct vdifs_shown {
	const struct vd_disk *disk;
	struct vd_index *index;
	pthread_mutex_t lock; /* for what follows */
	char *attribute; /* user.intervals, once made */
	size_t attribute_length;
};

/* The index and its disk must outlive it. */
void vdifs_shown_init(struct vdifs_shown *shown, struct vd_index *index);
void vdifs_shown_clear(struct vdifs_shown *shown);

/*
 * The value of user.intervals, which stays for as long as the disk is shown. Waits for the index. 0,
 * -EINTR, -ENOMEM.
 */
int vdifs_shown_attribute(struct vdifs_shown *shown, const char **text, size_t *length,
			  const struct vd_interrupt *interrupt);

#endif
