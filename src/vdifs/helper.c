/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdifs/helper.h"

extern char **environ;

const char *vdifs_shell_word(char *out, size_t size, const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "_-+=.,:@%/";

	if (strlen(path) < size && strspn(path, plain) == strlen(path))
		return strcpy(out, path);
	strcpy(out, "$'"); /* in which the escapes of vd_escape() mean the same */
	vd_escape(out + 2, size - 3, path, strlen(path));
	return strcat(out, "'");
}

/* Read what was caught, as one line, into text. It may have names in it. */
static void caught_line(int fd, char *text, size_t size)
{
	ssize_t got = lseek(fd, 0, SEEK_SET) == 0 ? read(fd, text, size - 1) : 0;

	got = got < 0 ? 0 : got;
	while (got > 0 && text[got - 1] == '\n')
		got--;
	text[got] = '\0';
	for (char *p = text; *p; p++) {
		if (*p == '\n')
			*p = ';';
		else if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
}

/*
 * Run fusermount3 with its stderr caught in a file in memory. to: the socket it is to send the
 * mount through, or -1. 0 or -errno; what it said is in `said`.
 */
static int fusermount(char *const *arguments, int to, char *said, size_t size)
{
	int caught = memfd_create("stderr", MFD_CLOEXEC);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char number[16];
	sigset_t none, usual;
	int status = 0, r;
	pid_t pid;

	*said = '\0';
	if (to >= 0) {
		snprintf(number, sizeof(number), "%d", to);
		setenv("_FUSE_COMMFD", number, 1);
		fcntl(to, F_SETFD, 0);
	}
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	posix_spawnattr_init(&attributes); /* what the supervisor does with signals is its own */
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &usual);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&actions);
	if (caught >= 0)
		posix_spawn_file_actions_adddup2(&actions, caught, STDERR_FILENO);
	r = -posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	if (to >= 0) {
		unsetenv("_FUSE_COMMFD");
		fcntl(to, F_SETFD, FD_CLOEXEC);
	}
	while (r == 0 && waitpid(pid, &status, 0) < 0)
		r = errno == EINTR ? 0 : -errno;
	if (r == 0 && status != 0)
		r = -EPERM;
	if (caught >= 0) {
		caught_line(caught, said, size);
		close(caught);
	}
	return r;
}

void vdifs_helper_escape(char *out, size_t size, const char *text)
{
	size_t used = strlen(out);

	for (; *text && used + 3 < size; text++) {
		if (*text == ',' || *text == '\\')
			out[used++] = '\\';
		out[used++] = *text;
	}
	out[used] = '\0';
}

int vdifs_helper_mount(const char *at, const char *options, int to, struct vd_error *err)
{
	char path[PATH_MAX], list[4 * PATH_MAX], said[1024], shown[512];
	char *const arguments[] = { "fusermount3", "-o", list, "--", path, NULL };
	int r;

	snprintf(path, sizeof(path), "%s", at);
	snprintf(list, sizeof(list), "%s", options);
	r = fusermount(arguments, to, said, sizeof(said));
	vd_escape(shown, sizeof(shown), at, strlen(at));
	if (r == -ENOENT)
		return vd_fail(err, ENOENT,
			       "%s: cannot mount: the program fusermount3 is missing; install the "
			       "package fuse3",
			       shown);
	if (r < 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && geteuid() != 0)
		return vd_fail(err, EPERM,
			       "%s: cannot mount: the flag no_new_privs keeps fusermount3 from "
			       "getting the rights it needs; mount as root or in a user namespace "
			       "(unshare -Urm)",
			       shown);
	if (r == 0)
		return 0;
	vd_fail(err, -r, "%s: cannot mount: %s", shown, *said ? said : strerror(-r));
	if (geteuid() != 0 && strstr(said, "Operation not permitted"))
		vd_error_add(err, "; is fusermount3 set-user-ID root?");
	return r;
}

int vdifs_helper_unmount(const char *at, bool lazy, struct vd_error *err)
{
	char path[PATH_MAX], said[1024], shown[1024], word[1024];
	char *const arguments[] = { "fusermount3", lazy ? "-uz" : "-u", "--", path, NULL };
	int r;

	snprintf(path, sizeof(path), "%s", at);
	r = fusermount(arguments, -1, said, sizeof(said));
	if (r == 0)
		return 0;
	vd_escape(shown, sizeof(shown), at, strlen(at));
	if (r == -ENOENT)
		return vd_fail(err, ENOENT,
			       "%s: cannot unmount: the program fusermount3 is missing; install "
			       "the package fuse3",
			       shown);
	return vd_fail(err, strstr(said, "busy") ? EBUSY : -r,
		       "%s: cannot unmount: %s; do it with: fusermount3 -u %s", shown,
		       *said ? said : strerror(-r), vdifs_shell_word(word, sizeof(word), at));
}
