/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names are in the abstract namespace: nothing is left behind in the file system. Any user can
 * take such a name first, so the user behind the socket counts, not the name.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "vdifs/lifeline.h"

/* Connections that are not accepted, and whose makers may have ended. */
#define BACKLOG 4096

/* The address of the name's number-th form. Its length. */
static socklen_t address_fill(struct sockaddr_un *address, dev_t device, unsigned number)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "vdifs/%u:%u/%u",
			  major(device), minor(device), number);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

int vdifs_lifeline_new(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

void vdifs_lifeline_announce(int fd, dev_t device)
{
	struct sockaddr_un address;

	for (unsigned i = 0; fd >= 0 && i < VDIFS_LIFELINES_MAX; i++) {
		socklen_t length = address_fill(&address, device, i);

		if (bind(fd, (struct sockaddr *)&address, length) == 0) {
			listen(fd, BACKLOG);
			return;
		}
	}
}

/* Does the other end belong to root, or to the user? */
static bool is_trusted(int fd, uid_t user)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t length = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	       (peer.uid == 0 || peer.uid == user);
}

unsigned vdifs_lifeline_connect(dev_t device, uid_t user, int fds[VDIFS_LIFELINES_MAX])
{
	struct sockaddr_un address;
	unsigned count = 0;

	for (unsigned i = 0; i < VDIFS_LIFELINES_MAX; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		socklen_t length = address_fill(&address, device, i);

		if (fd < 0)
			break;
		if (connect(fd, (struct sockaddr *)&address, length) == 0 && is_trusted(fd, user))
			fds[count++] = fd;
		else
			close(fd);
	}
	return count;
}

int vdifs_lifeline_wait(int fds[VDIFS_LIFELINES_MAX], unsigned count, int timeout_ms)
{
	for (unsigned i = 0; i < count; i++) {
		struct pollfd wait = { .fd = fds[i] }; /* hanging up is always told */
		int r;

		do
			r = fds[i] < 0 ? 1 : poll(&wait, 1, timeout_ms);
		while (r < 0 && errno == EINTR);
		if (r <= 0)
			return -ETIMEDOUT;
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
	return 0;
}
