/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount(2) where we may, fusermount3 where we may not: it is set-user-ID root and does for an
 * ordinary user what he is allowed to have. Its complaints are caught and become part of our line.
 *
 * Which mount is ours is decided by device number and path, in /proc/self/mountinfo: at the same
 * place there may be somebody else's by now. One thread.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/passing.h"
#include "vdifs/place.h"

/* Requests through the page cache, and past it: as much as an answer can have that is spliced. */
#define CACHED_REQUEST_KIB 256
#define DIRECT_REQUEST_KIB 512

extern char **environ;

unsigned vdifs_request_bytes(const struct vdifs_options *options)
{
	return (unsigned)(options->direct ? DIRECT_REQUEST_KIB : CACHED_REQUEST_KIB) << 10;
}

int vdifs_place_find(struct vdifs_place *place, const char *mountpoint, struct vd_error *err)
{
	char shown[512];
	struct statfs fs;
	struct stat st;

	*place = (struct vdifs_place){ .device = 0 };
	vd_escape(shown, sizeof(shown), mountpoint, strlen(mountpoint));
	if (strncmp(mountpoint, "/dev/fd/", 8) == 0)
		return vd_fail(err, EINVAL,
			       "%s: vdifs mounts itself and drops what it does not need; leave out "
			       "the mount option drop_privileges",
			       shown);
	/* stat() might be answered from a cache */
	if (statfs(mountpoint, &fs) < 0 && errno == ENOTCONN)
		return vd_fail(err, ENOTCONN,
			       "%s: a dead mount is in the way (its program has died); remove it "
			       "with: fusermount3 -u %s",
			       shown, shown);
	if (!realpath(mountpoint, place->path) || stat(place->path, &st) < 0)
		return vd_fail(err, errno, "%s: cannot use the mountpoint: %s", shown,
			       strerror(errno));
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return vd_fail(err, EINVAL,
			       "%s: the mountpoint must be a directory or a regular file", shown);
	place->is_directory = S_ISDIR(st.st_mode);
	if (access("/dev/fuse", F_OK) < 0)
		return vd_fail(
			err, ENODEV,
			"/dev/fuse: %s; load the module with: modprobe fuse (in a container, "
			"start it with --device /dev/fuse)",
			strerror(errno));
	return 0;
}

/* --- what is mounted ------------------------------------------------------------------------- */

/* Undo the octal escapes of /proc/self/mountinfo in place. */
static void octal_unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
				       (text[3] - '0'));
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

/* The device of the mount that is on top at the place; 0: there is none. Asks no server. */
static dev_t mounted_device(const char *path)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	dev_t device = 0;

	while (mounts && getline(&line, &room, mounts) > 0) {
		unsigned major_number, minor_number;
		char *at = malloc(room);

		if (at &&
		    sscanf(line, "%*d %*d %u:%u %*s %s", &major_number, &minor_number, at) == 3) {
			octal_unescape(at);
			if (strcmp(at, path) == 0)
				device = makedev(major_number, minor_number);
		}
		free(at);
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return device;
}

/* --- mounting -------------------------------------------------------------------------------- */

/* Read what was caught, as one line, into text. */
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
	sigset_t none;
	int status = 0, r;
	pid_t pid;

	*said = '\0';
	if (to >= 0) {
		snprintf(number, sizeof(number), "%d", to);
		setenv("_FUSE_COMMFD", number, 1);
		fcntl(to, F_SETFD, 0);
	}
	sigemptyset(&none);
	posix_spawnattr_init(&attributes); /* the supervisor blocks signals; others should not */
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
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

/* Append text to out with commas and backslashes escaped, as fusermount3 wants them. */
static void put_escaped(char *out, size_t size, const char *text)
{
	size_t used = strlen(out);

	for (; *text && used + 3 < size; text++) {
		if (*text == ',' || *text == '\\')
			out[used++] = '\\';
		out[used++] = *text;
	}
	out[used] = '\0';
}

/* What both ways say to the kernel. */
static void kernel_options(const struct vdifs_options *options, char *out, size_t size)
{
	bool others = vdifs_options_has(options, "allow_other") ||
		      vdifs_options_has(options, "allow_root");

	snprintf(out, size, "default_permissions,max_read=%u%s", vdifs_request_bytes(options),
		 others ? ",allow_other" : "");
}

/* Through fusermount3. It asks for the same rights that we would need. */
static int mount_by_helper(const struct vdifs_place *place, const struct vdifs_options *options,
			   const char *source, int to, struct vd_error *err)
{
	char list[3 * PATH_MAX], kernel[128], said[1024], path[PATH_MAX];
	char *const arguments[] = { "fusermount3", "-o", list, "--", path, NULL };
	int r;

	kernel_options(options, kernel, sizeof(kernel));
	snprintf(list, sizeof(list), "ro,nosuid,nodev,%s%s,subtype=vdifs,fsname=",
		 vdifs_options_has(options, "noexec") ? "noexec," : "", kernel);
	put_escaped(list, sizeof(list), source);
	memcpy(path, place->path, sizeof(path));
	r = fusermount(arguments, to, said, sizeof(said));
	if (r == -ENOENT)
		return vd_fail(err, ENOENT,
			       "%s: cannot mount: the program fusermount3 is missing; install the "
			       "package fuse3",
			       place->path);
	if (r < 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && geteuid() != 0)
		return vd_fail(err, EPERM,
			       "%s: cannot mount: the flag no_new_privs keeps fusermount3 from "
			       "getting the rights it needs; mount as root or in a user namespace "
			       "(unshare -Urm)",
			       place->path);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot mount: %s", place->path,
			       *said ? said : strerror(-r));
	return 0;
}

/*
 * As root, or root of a user namespace. The server gets the descriptor first: a mount that nobody
 * answers would be left behind if we were killed in between.
 */
static int mount_directly(const struct vdifs_place *place, const struct vdifs_options *options,
			  const char *source, int to, struct vd_error *err)
{
	unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
	char kernel[128], data[256];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0)
		return vd_fail(err, errno, "/dev/fuse: %s", strerror(errno));
	if (vdifs_options_has(options, "noexec"))
		flags |= MS_NOEXEC;
	kernel_options(options, kernel, sizeof(kernel));
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u,%s", fd,
		 place->is_directory ? S_IFDIR : S_IFREG, getuid(), getgid(), kernel);
	r = vd_pass(to, "", 1, fd); /* a byte of zero, as fusermount3 does */
	if (r == 0 && mount(source, place->path, "fuse.vdifs", flags, data) < 0)
		r = -errno;
	close(fd);
	if (r == -EPERM)
		return vd_fail(err, EPERM,
			       "%s: cannot mount: %s; it takes CAP_SYS_ADMIN and a mount namespace "
			       "of one's own (in a container: --cap-add SYS_ADMIN; elsewhere: "
			       "unshare -Urm)",
			       place->path, strerror(-r));
	if (r == -ENODEV)
		return vd_fail(err, ENODEV,
			       "%s: cannot mount: the kernel has no FUSE; load the module with: "
			       "modprobe fuse",
			       place->path);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot mount: %s", place->path, strerror(-r));
	return 0;
}

int vdifs_place_mount(struct vdifs_place *place, const struct vdifs_options *options,
		      const char *source, int to, struct vd_error *err)
{
	struct vd_error ignored = { "" };
	dev_t before = mounted_device(place->path), after;
	int r = geteuid() == 0 ? mount_directly(place, options, source, to, err)
			       : mount_by_helper(place, options, source, to, err);

	after = mounted_device(place->path);
	if (after != before)
		place->device = after;
	/* fusermount3 mounts first; if the server is dead by then it fails and leaves the mount. */
	if (r < 0)
		vdifs_place_unmount(place, true, &ignored);
	return r;
}

/* The kernel's default is 128 KiB, and only root may raise it. Failing is fine. */
static void raise_read_ahead(dev_t device)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(device),
		 minor(device));
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", VDIFS_READ_AHEAD_KIB);
	fclose(file);
}

int vdifs_place_answers(const struct vdifs_place *place, struct vd_error *err)
{
	struct statfs fs;

	if (statfs(place->path, &fs) < 0)
		return vd_fail(err, errno, "%s: the mount does not answer: %s", place->path,
			       strerror(errno));
	raise_read_ahead(place->device);
	return 0;
}

/* --- unmounting ------------------------------------------------------------------------------ */

int vdifs_place_unmount(const struct vdifs_place *place, bool dead, struct vd_error *err)
{
	char path[PATH_MAX], said[1024];
	char *const arguments[] = { "fusermount3", "-u", "-z", "--", path, NULL };
	struct statfs fs;
	int r;

	if (!place->device || mounted_device(place->path) != place->device)
		return 0;
	/* Device numbers are used again: a living mount here would be somebody else's. */
	if (dead &&
	    (statfs(place->path, &fs) == 0 ||
	     (errno != ENOTCONN && errno != ECONNABORTED))) /* the latter: it is just dying */
		return 0;
	if (umount2(place->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	memcpy(path, place->path, sizeof(path));
	r = fusermount(arguments, -1, said, sizeof(said));
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot unmount: %s; do it with: fusermount3 -u %s",
			       place->path, *said ? said : strerror(-r), place->path);
	return 0;
}
