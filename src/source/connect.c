/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting to a server. This is done by the process that may (disk/broker.h), one thread, at
 * start-up, when a signal still ends it: nothing here has to look for one. The lookup of a host's
 * name takes as long as the resolver takes (resolv.conf(5)).
 */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "source/address.h"

#define TICK_MS 100

#ifdef HAVE_LIBNBD

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Wait until the connection is there or has failed. 0 or -errno. */
static int await(int fd, int64_t until_ms)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	socklen_t length = sizeof(int);
	int code = 0, r;

	do {
		int64_t left = until_ms - now_ms();

		r = poll(&wait, 1, left > 0 ? (int)left : 0);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	if (r == 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0)
		return -errno;
	return -code;
}

/* The connected socket or -errno. */
static int connect_to(const struct sockaddr *to, socklen_t length, int64_t until_ms)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = connect(fd, to, length) < 0 ? -errno : 0;
	/* A server in the file system that has others to greet first */
	while (r == -EAGAIN && now_ms() < until_ms) {
		poll(NULL, 0, TICK_MS);
		r = connect(fd, to, length) < 0 ? -errno : 0;
	}
	if (r == -EINPROGRESS)
		r = await(fd, until_ms);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int connect_unix(const struct vd_address *address, unsigned seconds)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	memcpy(to.sun_path, address->path, sizeof(to.sun_path));
	return connect_to((const struct sockaddr *)&to, sizeof(to),
			  now_ms() + seconds * INT64_C(1000));
}

/* To the first of a host's addresses that answers; each has its share of the time. */
static int connect_any(const struct addrinfo *found, unsigned seconds)
{
	int64_t until_ms = now_ms() + seconds * INT64_C(1000);
	int fd = -ECONNREFUSED, left = 0;

	for (const struct addrinfo *one = found; one; one = one->ai_next)
		left++;
	for (const struct addrinfo *one = found; one && fd < 0; one = one->ai_next) {
		int64_t now = now_ms();

		fd = connect_to(one->ai_addr, one->ai_addrlen, now + (until_ms - now) / left--);
	}
	return fd;
}

static int connect_tcp(const struct vd_address *address, unsigned seconds, struct vd_error *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	char shown[512];
	int yes = 1, fd;
	int r = getaddrinfo(address->host, address->port, &hints, &found);

	vd_escape(shown, sizeof(shown), address->host, strlen(address->host));
	if (r != 0)
		return vd_fail(err, EHOSTUNREACH, "the host '%s' is not known: %s", shown,
			       gai_strerror(r));
	fd = connect_any(found, seconds);
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
