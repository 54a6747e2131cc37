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
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/bytes.h"
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

/* Has the file the magic of a QCOW2 or a VHD image? A fixed VHD has it in its footer alone. */
static bool looks_like_image(int file, off_t size)
{
	static const char qcow2[] = "QFI\xfb", vhd[] = "conectix";
	char head[8] = "", foot[VD_SECTOR] = "";

	if (size < (off_t)sizeof(foot) || read(file, head, sizeof(head)) != sizeof(head) ||
	    lseek(file, -(off_t)sizeof(foot), SEEK_END) < 0 ||
	    read(file, foot, sizeof(foot)) != sizeof(foot))
		return false;
	return memcmp(head, qcow2, 4) == 0 || memcmp(head, vhd, 8) == 0 ||
	       memcmp(foot, vhd, 8) == 0 || memcmp(foot + 1, vhd, 8) == 0; /* or of 511 bytes */
}

/*
 * "vdifs *.qcow2": the second image would be hidden behind the first one. An image may be hidden
 * behind its own disk. A file of a FUSE mount is not read: it may be a disk that vdifs shows already.
 */
static int mountpoint_check(const struct vdifs_options *options, struct vd_error *err)
{
	struct stat place, image;
	struct statfs fs;
	char shown[512];
	bool is_image;
	int file;

	if (stat(options->mountpoint, &place) < 0 || !S_ISREG(place.st_mode) ||
	    statfs(options->mountpoint, &fs) < 0 || fs.f_type == FUSE_SUPER_MAGIC)
		return 0; /* whether it can be used is checked later */
	if (stat(options->image, &image) == 0 && image.st_dev == place.st_dev &&
	    image.st_ino == place.st_ino)
		return 0;
	file = open(options->mountpoint, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	is_image = file >= 0 && looks_like_image(file, place.st_size);
	if (file >= 0)
		close(file);
	if (!is_image)
		return 0;
	return vd_fail(err, EINVAL,
		       "%s is a disk image, too: one image is shown at a time, and the second name "
		       "must be a directory or an empty file",
		       vd_escape(shown, sizeof(shown), options->mountpoint,
				 strlen(options->mountpoint)));
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
	if (order_check(options, &err) < 0 || mountpoint_check(options, &err) < 0)
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
