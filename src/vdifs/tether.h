/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that the kernel kills when this process ends, also if it ends by SIGKILL, for as long as this
 * process wants that, and whatever the child does about it. A child's own PR_SET_PDEATHSIG would have to be
 * undone by the child, which may have been taken over by then.
 */
#ifndef VD_VDIFS_TETHER_H
#define VD_VDIFS_TETHER_H

#include <sys/types.h>

struct vdifs_tether {
	int ends[2]; /* -1: it is not tied */
};

#define VDIFS_TETHER_NONE          \
	{                          \
		.ends = { -1, -1 } \
	}

/* Tie the child. Call right after fork(), in the parent alone. Failing is fine. */
void vdifs_tether_tie(struct vdifs_tether *tether, pid_t child);

/* From now on the child lives on. */
void vdifs_tether_loosen(struct vdifs_tether *tether);

#endif
