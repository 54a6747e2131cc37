/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pair of sockets that only this process has, with the child as the owner of both for asynchronous
 * notices and SIGKILL as the notice. When this process ends the kernel closes one of them first, which the
 * other one, still open, gives notice of. In which order it does so does not matter.
 */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vdifs/tether.h"

void vdifs_tether_tie(struct vdifs_tether *tether, pid_t child)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, tether->ends) < 0) {
		*tether = (struct vdifs_tether)VDIFS_TETHER_NONE;
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		if (fcntl(tether->ends[i], F_SETOWN, child) == 0 &&
		    fcntl(tether->ends[i], F_SETSIG, SIGKILL) == 0)
			fcntl(tether->ends[i], F_SETFL, O_RDWR | O_ASYNC);
	}
}

void vdifs_tether_loosen(struct vdifs_tether *tether)
{
	if (tether->ends[0] < 0)
		return;
	for (unsigned i = 0; i < 2; i++)
		fcntl(tether->ends[i], F_SETFL, O_RDWR);
	close(tether->ends[0]);
	close(tether->ends[1]);
	*tether = (struct vdifs_tether)VDIFS_TETHER_NONE;
}
