/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child process in the sandbox, and a parent that opens files for it. The parent parses nothing
 * that comes from an image. Both programs are built like that. The child's stdin is /dev/null.
 */
#ifndef VD_SANDBOX_CONFINED_H
#define VD_SANDBOX_CONFINED_H

#include <sys/types.h>

#include "disk/broker.h"
#include "sandbox/sandbox.h"

/* What the child's function gets; all of it lives until the child ends. */
struct vd_confined {
	struct vd_opener opener; /* asks the parent */
	int layers; /* that hold: enum vd_sandbox_layer */
	char layers_text[VD_LAYERS_TEXT];
	int socket; /* of the broker; the child closes it when it has all files. -1 then */
};

struct vd_confined_options {
	enum vd_sandbox_mode mode;
	bool alone; /* the child is killed when its parent ends, and keeps no other descriptors */
	/* In the child before the sandbox closes, and then in it. Returns the exit status. */
	void (*prepare)(void *context);
	int (*run)(void *context, struct vd_confined *confined);
	void *context;
};

/*
 * Fork the child. In the parent: 0, its pid, and *socket, which questions come from
 * (vd_broker_answer()); or -errno with a message. The child runs, says on stderr why it cannot
 * enter the sandbox, and never returns.
 */
int vd_confined_start(const struct vd_confined_options *options, pid_t *pid, int *socket,
		      struct vd_error *err);

/*
 * Start the child, open files for it and wait until it ends: for a program whose parent process
 * has nothing else to do. The first three arguments after the options are vd_broker_new()'s.
 * Returns the child's exit status; where a signal ended it, it ends this process, too. -errno with
 * a message when there is no child.
 */
int vd_confined_run(const struct vd_confined_options *options, const char *const *images,
		    const struct vd_chain_options *chains, unsigned count, struct vd_error *err);

/* In the child: all files are open, no more will be asked for. */
void vd_confined_opened(struct vd_confined *confined);

#endif
