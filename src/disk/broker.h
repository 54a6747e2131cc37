/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening files for a process that cannot: the sandboxed child asks over a socket, its parent
 * opens under the policy and passes a descriptor back.
 *
 * The parent believes nothing of what the child says, which may be in the hands of an image by
 * then: policy and owner are its own, a name "by hand" must be one that the user gave, and the
 * file that names another must be one that the parent opened. Start-up only; one thread a side.
 */
#ifndef VD_DISK_BROKER_H
#define VD_DISK_BROKER_H

#include "disk/chain.h"

struct vd_broker;

/*
 * Two connected sockets that are closed by execve(2): [0] for the answering side, [1] for the
 * asking one. 0 or -errno with a message.
 */
int vd_broker_sockets(int sockets[2], struct vd_error *err);

/*
 * The answering side. images: the image files of the command line; options: how each is opened. The
 * images and what any of the options names by hand may be opened; policy and patience are those of
 * the first. Arrays and strings must outlive the broker. 0 or -ENOMEM.
 */
int vd_broker_new(const char *const *images, const struct vd_chain_options *options, unsigned count,
		  struct vd_broker **out);

/*
 * Receive one question on the socket and answer it. 1: there may be another; 0: the other side
 * has closed its end; -EPROTO: what came is not a question, or there were too many; -errno.
 */
int vd_broker_answer(struct vd_broker *broker, int socket);

/* NULL is fine. Descriptors that were passed on stay open on the other side. */
void vd_broker_free(struct vd_broker *broker);

/* The asking side: an opener whose context is the socket, which must outlive it. */
struct vd_opener vd_broker_opener(const int *socket);

#endif
