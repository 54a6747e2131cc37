/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The serving process: opens the image, parses it and answers the kernel, all in the sandbox. It
 * is told by its supervisor (supervisor.c) when the mount is there.
 */
#ifndef VD_VDIFS_SERVE_H
#define VD_VDIFS_SERVE_H

#include "sandbox/confined.h"
#include "vdifs/options.h"

/* Bytes that the two processes send each other; in this order. */
#define VDIFS_OPENED 'o' /* the server: the image is open, mount it */
#define VDIFS_DEVICE '\0' /* the supervisor or fusermount3, with a descriptor of /dev/fuse */
#define VDIFS_MOUNTED 'm' /* the supervisor: answer */
#define VDIFS_ANSWERED 'a' /* the server: the kernel has asked for the first time */

/* Exit statuses of the server besides EXIT_FAILURE, when it has said why. */
#define VDIFS_UNMOUNTED 0 /* it ended because the mount did */
#define VDIFS_SIGNALLED 3 /* it ended although the mount is still there */

struct vdifs_server_options {
	const struct vdifs_options *options;
	const char *image_name; /* what the disk is named after, an extension included */
	bool is_directory; /* the form of the mountpoint */
	int socket; /* to the supervisor */
	int null; /* /dev/null, which stdin to stderr become when the mount answers; -1: stay */
};

/*
 * Before the sandbox closes: signals, and what needs files. null: /dev/null, which becomes stdout,
 * and stderr for all but our own log unless every word of libfuse is wanted.
 */
void vdifs_serve_prepare(const struct vdifs_options *options, int null);

/* Open, wait for the mount, serve. An exit status; what went wrong has been logged. */
int vdifs_serve(const struct vdifs_server_options *options, struct vd_confined *confined);

#endif
