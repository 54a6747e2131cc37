/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What must not be possible in the sandbox, tried. Each attempt would succeed outside of it, as root;
 * what it might have left behind there is its own process only.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/confined.h"

static long try_open(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long try_open_root(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static long try_open_fuse(void)
{
	return open("/dev/fuse", O_RDWR | O_CLOEXEC);
}

static long try_create(void)
{
	return open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static long try_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long try_socket_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long try_fork(void)
{
	long child = fork();

	if (child == 0)
		_exit(0);
	return child;
}

static long try_execve(void)
{
	char *none[] = { NULL };

	/* If it were possible, /bin/false would say so with its exit status. */
	return execve("/bin/false", none, none);
}

static long try_ptrace(void)
{
	return ptrace(PTRACE_SEIZE, getppid(), NULL, NULL);
}

static long try_kill(void)
{
	return kill(getppid(), SIGCONT);
}

/* A datagram to whoever listens, past the address that the filter can see. */
static long try_sendmsg(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	struct iovec nothing = { .iov_base = "", .iov_len = 0 };
	struct msghdr message = {
		.msg_name = &address,
		.msg_namelen = sizeof(address),
		.msg_iov = &nothing,
		.msg_iovlen = 1,
	};

	for (int fd = 3; fd < 16; fd++) {
		if (sendmsg(fd, &message, MSG_NOSIGNAL) >= 0 || errno == ENOENT)
			return 0;
	}
	return -1;
}

/* Signals for a process that reads from the terminal, and reads that fail there. */
static long try_flags(void)
{
	return fcntl(STDERR_FILENO, F_SETFL, O_RDWR | O_ASYNC | O_NONBLOCK);
}

/* Urgent bytes, to wake a reader that cannot read them. On a descriptor that is no socket. */
static long try_urgent(void)
{
	return send(STDIN_FILENO, "", 1, MSG_OOB) < 0 && errno != EPERM ? 0 : -1;
}

static long try_outlive(void)
{
	return prctl(PR_SET_PDEATHSIG, 0);
}

static long try_mount(void)
{
	return mount("none", "/tmp", "tmpfs", MS_RDONLY, NULL);
}

static const struct {
	const char *name;
	long (*attempt)(void);
} attempts[] = {
	{ "open a file", try_open },
	{ "open a directory", try_open_root },
	{ "open /dev/fuse", try_open_fuse },
	{ "create a file", try_create },
	{ "make an internet socket", try_socket },
	{ "make a socket", try_socket_unix },
	{ "start a process", try_fork },
	{ "start a program", try_execve },
	{ "trace the parent process", try_ptrace },
	{ "send a signal", try_kill },
	{ "send to a socket's name", try_sendmsg },
	{ "change a terminal", try_flags },
	{ "send an urgent byte", try_urgent },
	{ "outlive the parent process", try_outlive },
	{ "mount", try_mount },
};

/* In the sandbox. An exit status. */
static int try_all(void *context, struct vd_confined *confined)
{
	int status = EXIT_SUCCESS;

	(void)context;
	printf("layers: %s\n", confined->layers_text);
	if (!confined->layers) /* outside, an attempt might succeed */
		return EXIT_FAILURE;
	for (unsigned i = 0; i < sizeof(attempts) / sizeof(*attempts); i++) {
		bool possible;

		errno = 0;
		possible = attempts[i].attempt() >= 0;
		printf("%s: %s\n", attempts[i].name, possible ? "POSSIBLE" : strerror(errno));
		fflush(stdout);
		if (possible || errno == ENOENT) /* ENOENT: it was looked up */
			status = EXIT_FAILURE;
	}
	return status;
}

int vd_sandbox_selftest(enum vd_sandbox_mode mode)
{
	struct vd_confined_options options = { .mode = mode, .run = try_all };
	struct vd_error err = { "" };
	int socket, status = 0;
	pid_t child, ended;

	fflush(NULL);
	if (vd_confined_start(&options, &child, &socket, &err) < 0) {
		vd_log(LOG_ERR, "%s", err.text);
		return EXIT_FAILURE;
	}
	do
		ended = waitpid(child, &status, 0);
	while (ended < 0 && errno == EINTR);
	close(socket);
	return ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
