/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdifs: show a disk image as a read-only sparse raw disk.
 *
 * Three processes in the background form: this one waits until the mount answers, so that
 * "vdifs IMAGE DIR && cp DIR/..." works and a failure has an exit status; the supervisor
 * (supervisor.c) mounts and stays; the server (serve.c) reads the image in a sandbox. In the
 * foreground this process is the supervisor. With a command this process runs it (command.c) and the
 * supervisor unmounts when it has ended.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/standard.h"
#include "vdifs/command.h"
#include "vdifs/supervisor.h"
#include "vdifs/unmount.h"

static int fail(const struct vd_error *err, enum vd_exit status)
{
	vd_log(LOG_ERR, "%s", err->text);
	return (int)status;
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
		return VD_EXIT_DONE;
	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		vd_log(LOG_ERR, "the supervising process was ended by signal %d", WTERMSIG(status));
	return VD_EXIT_FAILED; /* it has said why */
}

static int background(const struct vdifs_options *options, const struct vdifs_inherited *inherited)
{
	struct vd_error err = { "" };
	pid_t self = getpid(), child;
	int ready[2], status;

	if (pipe2(ready, O_CLOEXEC) < 0) {
		vd_fail(&err, errno, "cannot make a pipe: %s", strerror(errno));
		return fail(&err, VD_EXIT_FAILED);
	}
	fflush(NULL);
	child = fork();
	if (child < 0) {
		vd_fail(&err, errno, "cannot start a process: %s", strerror(errno));
		return fail(&err, VD_EXIT_FAILED);
	}
	if (child == 0) {
		close(ready[0]);
		setsid();
		/* Who gives up waiting wants no mount; the supervisor goes on from here. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			return VD_EXIT_FAILED;
		return vdifs_supervise(options, ready[1]);
	}
	close(ready[1]);
	status = await(child, ready[0]);
	if (status == VD_EXIT_DONE && options->command)
		status = vdifs_command_run(options->command, inherited, child, ready[0]);
	return status;
}

/* "vdifs MOUNTPOINT IMAGE": a directory is no image. */
static int order_check(const struct vdifs_options *options, struct vd_error *err)
{
	struct stat st;
	char shown[512];

	if (stat(options->mountpoint, &st) < 0 || !S_ISREG(st.st_mode) ||
	    stat(options->image, &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	return vd_fail(err, EINVAL,
		       "%s is a directory, and what follows it a file: the image comes first, then "
		       "the mountpoint",
		       vd_escape(shown, sizeof(shown), options->image, strlen(options->image)));
}

static int print(const struct vdifs_options *options, struct vd_error *err)
{
	int r;

	if (options->help)
		vdifs_options_print_help();
	else
		printf("vdifs %s\n", PACKAGE_VERSION);
	r = vd_standard_flush();
	return r < 0 ? vd_fail(err, -r, "cannot write to standard output: %s", strerror(-r)) : 0;
}

/* Do what the options say. An exit status. */
static int act(const struct vdifs_options *options, const struct vdifs_inherited *inherited)
{
	struct vd_error err = { "" };

	if (options->help || options->version)
		return print(options, &err) < 0 ? fail(&err, VD_EXIT_FAILED) : VD_EXIT_DONE;
	if (options->selftest)
		return vd_sandbox_selftest(options->sandbox);
	if (options->unmount)
		return vdifs_unmount(options->mountpoint, &err) < 0 ? fail(&err, VD_EXIT_FAILED)
								    : VD_EXIT_DONE;
	if (order_check(options, &err) < 0)
		return fail(&err, VD_EXIT_USAGE);
	if (options->foreground && !options->command)
		return vdifs_supervise(options, -1);
	return background(options, inherited);
}

int main(int argc, char **argv)
{
	struct vdifs_options options;
	struct vdifs_inherited inherited;
	struct vd_error err = { "" };
	int status, r;

	vdifs_inherited_keep(&inherited);
	signal(SIGCHLD, SIG_DFL); /* inherited as ignored it would cost us the exit statuses */
	if (vd_standard_open() < 0)
		return VD_EXIT_FAILED;
	vd_inherited_note();
	vd_log_open("vdifs");
	r = vdifs_options_parse(&options, argc, argv, &err);
	if (r == 0)
		status = act(&options, &inherited);
	else
		status = fail(&err, r == -ENOMEM ? VD_EXIT_FAILED : VD_EXIT_USAGE);
	vdifs_options_free(&options);
	return status;
}
