/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking a mount whether it answers, without waiting for it. Who asks a server that hangs, hangs
 * with it, and no signal helps once the server has taken the request; so the one who asks is a
 * process of its own, which has the usual signals and nothing else open.
 */
#ifndef VD_VDIFS_PROBE_H
#define VD_VDIFS_PROBE_H

#include <sys/types.h>

struct vdifs_probe {
	pid_t pid; /* 0: there is none */
	int fd; /* can be read from when there is an answer; -1 */
};

#define VDIFS_PROBE_NONE \
	{                \
		.fd = -1 \
	}

/* Have fstatfs(2) of the descriptor, which may be O_PATH, asked. 0 or -errno. */
int vdifs_probe_start(struct vdifs_probe *probe, int fd);

/*
 * Wait for the answer and end the probe. 0, or -errno of fstatfs(2); -EINTR when the process was
 * ended by somebody, -ETIMEDOUT when there is none after wait_ms.
 */
int vdifs_probe_finish(struct vdifs_probe *probe, int wait_ms);

#endif
