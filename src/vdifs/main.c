/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdifs: show a disk image as a read-only sparse raw disk.
 *
 * Three processes in the background form: this one waits until the mount answers, so that
 * "vdifs IMAGE DIR && cp DIR/..." works and a failure has an exit status; the supervisor
 * (supervisor.c) mounts and stays; the server (serve.c) reads the image in a sandbox. In the
 * foreground this process is the supervisor.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "vdifs/supervisor.h"

static int fail(const struct vd_error *err)
{
	fprintf(stderr, "vdifs: %s\n", err->text);
	return EXIT_FAILURE;
}

/*
 * An image opened as descriptor 2 would get our messages written into it. And what the caller has
 * open besides (a lock, a pipe) is not to stay open for as long as the mount lives.
 */
static void keep_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		syscall(SYS_close_range, 3, ~0u, 0); /* before Linux 5.9: they stay open */
}

/* In the parent: wait for the byte that says "ready". */
static int await(pid_t child, int ready_fd)
{
	char byte;
	ssize_t got;
	int status;

	do
		got = read(ready_fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	if (got == 1)
		return EXIT_SUCCESS;
	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		fprintf(stderr, "vdifs: the supervising process was ended by signal %d\n",
			WTERMSIG(status));
	return EXIT_FAILURE; /* it has said why */
}

static int background(const struct vdifs_options *options)
{
	struct vd_error err = { "" };
	pid_t self = getpid(), child;
	int ready[2];

	if (pipe2(ready, O_CLOEXEC) < 0) {
		vd_fail(&err, errno, "cannot make a pipe: %s", strerror(errno));
		return fail(&err);
	}
	fflush(NULL);
	child = fork();
	if (child < 0) {
		vd_fail(&err, errno, "cannot start a process: %s", strerror(errno));
		return fail(&err);
	}
	if (child == 0) {
		close(ready[0]);
		setsid();
		/* Who gives up waiting wants no mount; the supervisor goes on from here. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			return EXIT_FAILURE;
		return vdifs_supervise(options, ready[1]);
	}
	close(ready[1]);
	return await(child, ready[0]);
}

int main(int argc, char **argv)
{
	struct vdifs_options options;
	struct vd_error err = { "" };
	int status = EXIT_SUCCESS;

	signal(SIGCHLD, SIG_DFL); /* inherited as ignored it would cost us the exit statuses */
	keep_standard_descriptors();
	vd_log_open("vdifs");
	if (vdifs_options_parse(&options, argc, argv, &err) < 0)
		status = fail(&err);
	else if (options.help)
		vdifs_options_print_help();
	else if (options.version)
		printf("vdifs %s\n", PACKAGE_VERSION);
	else if (options.selftest)
		status = vd_sandbox_selftest(options.sandbox, true);
	else
		status = options.foreground ? vdifs_supervise(&options, -1) : background(&options);
	vdifs_options_free(&options);
	return status;
}
