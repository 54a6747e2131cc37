/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting to a server. This is done by the process that may (disk/broker.h), one thread, at
 * start-up. It has its signals blocked and waits for them elsewhere; a server that does not answer
 * must not keep it from hearing them, so that it looks now and then.
 */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "source/address.h"

#define TICK_MS 100

#ifdef HAVE_LIBNBD

static bool signal_is_pending(void)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	sigset_t set;
	bool any = false;

	sigpending(&set);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		any = any || sigismember(&set, signals[i]) == 1;
	return any;
}

/* Wait until the connection is there or has failed. 0 or -errno. */
static int await(int fd, uint64_t ticks)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	socklen_t length = sizeof(int);
	int code = 0, r;

	do {
		r = poll(&wait, 1, TICK_MS);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0 && signal_is_pending())
			return -EINTR;
	} while (r <= 0 && ticks-- > 0);
	if (r <= 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0)
		return -errno;
	return -code;
}

/* The connected socket or -errno. */
static int connect_to(const struct sockaddr *to, socklen_t length, unsigned seconds)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint64_t ticks = (uint64_t)seconds * 1000 / TICK_MS;
	int r;

	if (fd < 0)
		return -errno;
	r = connect(fd, to, length) < 0 ? -errno : 0;
	/* A server in the file system that has others to greet first */
	while (r == -EAGAIN && ticks-- > 0 && !signal_is_pending()) {
		poll(NULL, 0, TICK_MS);
		r = connect(fd, to, length) < 0 ? -errno : 0;
	}
	if (r == -EINPROGRESS)
		r = await(fd, ticks);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int connect_unix(const struct vd_address *address, unsigned seconds)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	memcpy(to.sun_path, address->path, sizeof(to.sun_path));
	return connect_to((const struct sockaddr *)&to, sizeof(to), seconds);
}

static int connect_tcp(const struct vd_address *address, unsigned seconds, struct vd_error *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	char shown[512];
	int yes = 1, fd = -ECONNREFUSED;
	int r = getaddrinfo(address->host, address->port, &hints, &found);

	vd_escape(shown, sizeof(shown), address->host, strlen(address->host));
	if (r != 0)
		return vd_fail(err, EHOSTUNREACH, "the host '%s' is not known: %s", shown,
			       gai_strerror(r));
	for (const struct addrinfo *one = found; one && fd < 0 && fd != -EINTR; one = one->ai_next)
		fd = connect_to(one->ai_addr, one->ai_addrlen, seconds);
	freeaddrinfo(found);
	if (fd < 0)
		return vd_fail(err, -fd, "cannot connect to host '%s', port %s: %s", shown,
			       address->port, strerror(-fd));
	/* Requests are small and waited for; and a peer that is gone for good is to be noticed. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	return fd;
}

int vd_address_connect(const struct vd_address *address, unsigned seconds, struct vd_error *err)
{
	char shown[512];
	int fd;

	if (!address->is_unix)
		return connect_tcp(address, seconds, err);
	fd = connect_unix(address, seconds);
	vd_escape(shown, sizeof(shown), address->path, strlen(address->path));
	if (fd < 0)
		return vd_fail(err, -fd, "cannot connect to the socket '%s': %s", shown,
			       strerror(-fd));
	return fd;
}

#else

int vd_address_connect(const struct vd_address *address, unsigned seconds, struct vd_error *err)
{
	(void)address;
	(void)seconds;
	return vd_fail(err, ENOTSUP, "this vdifs was built without libnbd and knows no servers");
}

#endif
