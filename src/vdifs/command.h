/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdifs IMAGE MOUNTPOINT -- COMMAND...: running a command while an image is mounted. */
#ifndef VD_VDIFS_COMMAND_H
#define VD_VDIFS_COMMAND_H

#include <signal.h>
#include <sys/types.h>

/* What the program was started with and changes for itself; the command gets it back. */
struct vdifs_inherited {
	sigset_t mask;
	struct sigaction child; /* of SIGCHLD */
};

/* Keep it. The first thing that main() does. */
void vdifs_inherited_keep(struct vdifs_inherited *inherited);

/*
 * Run the command, pass signals on to it, and have the supervisor unmount when it has ended. ready_fd:
 * the pipe to the supervisor, which unmounts when it is closed. Returns the exit status of vdifs.
 */
int vdifs_command_run(char *const *command, const struct vdifs_inherited *inherited,
		      pid_t supervisor, int ready_fd);

#endif
