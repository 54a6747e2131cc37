/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount(2) where we may, fusermount3 where we may not: it is set-user-ID root and does for an
 * ordinary user what he is allowed to have. Its complaints are caught and become part of our line.
 *
 * Which mount is ours is decided by its device number and type, in /proc/self/mountinfo: at the same
 * place there may be somebody else's by now, and ours may be at another. One thread.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
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
#include "vdifs/probe.h"

/* Requests through the page cache, and past it: as much as an answer can have that is spliced. */
#define CACHED_REQUEST_KIB 256
#define DIRECT_REQUEST_KIB 512

/* A dead mount says so at once. */
#define DEAD_MS 1000
/* Where our mount has been bound to. */
#define PLACES_MAX 64

extern char **environ;

unsigned vdifs_request_bytes(const struct vdifs_options *options)
{
	return (unsigned)(options->direct ? DIRECT_REQUEST_KIB : CACHED_REQUEST_KIB) << 10;
}

static const char *escape(char *out, size_t size, const char *path)
{
	return vd_escape(out, size, path, strlen(path));
}

/* The path as a word that can be pasted into a shell. */
static const char *shell_word(char *out, size_t size, const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "_-+=.,:@%/";

	if (strlen(path) < size && strspn(path, plain) == strlen(path))
		return strcpy(out, path);
	strcpy(out, "$'"); /* in which the escapes of vd_escape() mean the same */
	escape(out + 2, size - 3, path);
	return strcat(out, "'");
}

/* A dead mount at the place or above it. True: *at is where. */
static bool find_dead(const char *mountpoint, char at[PATH_MAX])
{
	struct statfs fs;
	char above[PATH_MAX];

	/* stat() might be answered from a cache */
	if (strlen(mountpoint) >= PATH_MAX || statfs(mountpoint, &fs) == 0 || errno != ENOTCONN)
		return false;
	strcpy(at, mountpoint);
	for (;;) {
		const char *up = dirname(strcpy(above, at));

		if (strcmp(up, at) == 0 || statfs(up, &fs) == 0 || errno != ENOTCONN)
			return true;
		strcpy(at, up);
	}
}

int vdifs_place_find(struct vdifs_place *place, const char *mountpoint, struct vd_error *err)
{
	char shown[512], word[512], dead[PATH_MAX];
	struct stat st;

	*place = (struct vdifs_place){ .device = 0 };
	escape(shown, sizeof(shown), mountpoint);
	if (strncmp(mountpoint, "/dev/fd/", 8) == 0)
		return vd_fail(err, EINVAL,
			       "%s: vdifs mounts itself and drops what it does not need; leave out "
			       "the mount option drop_privileges",
			       shown);
	if (find_dead(mountpoint, dead))
		return vd_fail(err, ENOTCONN,
			       "%s: a dead mount is in the way (its program has died); remove it "
			       "with: fusermount3 -u %s",
			       shown, shell_word(word, sizeof(word), dead));
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

struct mount {
	int id;
	dev_t device;
	bool is_vdifs;
	const char *path;
};

/* Take a line of /proc/self/mountinfo apart, which is changed. False: it makes no sense. */
static bool mount_parse(char *line, struct mount *out)
{
	unsigned major_number, minor_number;
	char *path, *rest;
	int at = 0;

	if (sscanf(line, "%d %*d %u:%u %*s %n", &out->id, &major_number, &minor_number, &at) != 3 ||
	    at == 0)
		return false;
	path = line + at;
	rest = strchr(path, ' '); /* blanks in names are escaped */
	if (!rest)
		return false;
	out->is_vdifs = strstr(rest, " - fuse.vdifs ") != NULL;
	out->device = makedev(major_number, minor_number);
	*rest = '\0';
	octal_unescape(path);
	out->path = path;
	return true;
}

/* The device of the mount that is on top at the place; 0: there is none. Asks no server. */
static dev_t mounted_device(const char *path)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	dev_t device = 0;
	struct mount mount;

	while (mounts && getline(&line, &room, mounts) > 0) {
		if (mount_parse(line, &mount) && strcmp(mount.path, path) == 0)
			device = mount.device;
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return device;
}

/*
 * Where our mount is now: a directory above it may have another name, and others may have bound it
 * to a second place, which comes after the first. Its id, and the path; 0: nowhere.
 */
static int mount_find(const struct vdifs_place *place, char path[PATH_MAX])
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	int id = 0;
	bool at_home = false;
	struct mount mount;

	while (mounts && getline(&line, &room, mounts) > 0) {
		if (!mount_parse(line, &mount) || mount.device != place->device || !mount.is_vdifs)
			continue;
		if (at_home && strcmp(mount.path, place->path) != 0)
			continue;
		at_home = strcmp(mount.path, place->path) == 0;
		snprintf(path, PATH_MAX, "%s", mount.path);
		id = mount.id;
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return id;
}

/* A descriptor of the mount with this id, if that is what the path leads to. Asks no server. */
static int mount_reach(const char *path, int id)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), found = 0;
	char line[64];
	FILE *info;

	if (fd < 0)
		return -1;
	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	info = fopen(line, "re");
	while (info && fgets(line, sizeof(line), info) && sscanf(line, "mnt_id: %d", &found) != 1)
		;
	if (info)
		fclose(info);
	if (found == id)
		return fd;
	close(fd);
	return -1;
}

/* --- mounting -------------------------------------------------------------------------------- */

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
	char list[3 * PATH_MAX], kernel[128], said[1024], path[PATH_MAX], shown[512];
	char *const arguments[] = { "fusermount3", "-o", list, "--", path, NULL };
	int r;

	kernel_options(options, kernel, sizeof(kernel));
	snprintf(list, sizeof(list), "ro,nosuid,nodev,%s%s,subtype=vdifs,fsname=",
		 vdifs_options_has(options, "noexec") ? "noexec," : "", kernel);
	put_escaped(list, sizeof(list), source);
	memcpy(path, place->path, sizeof(path));
	r = fusermount(arguments, to, said, sizeof(said));
	escape(shown, sizeof(shown), place->path);
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
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot mount: %s", shown, *said ? said : strerror(-r));
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
	char kernel[128], data[256], shown[512];
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
	escape(shown, sizeof(shown), place->path);
	if (r == -EPERM)
		return vd_fail(err, EPERM,
			       "%s: cannot mount: %s; it takes CAP_SYS_ADMIN and a mount namespace "
			       "of one's own (in a container: --cap-add SYS_ADMIN; elsewhere: "
			       "unshare -Urm)",
			       shown, strerror(-r));
	if (r == -ENODEV)
		return vd_fail(err, ENODEV,
			       "%s: cannot mount: the kernel has no FUSE; load the module with: "
			       "modprobe fuse",
			       shown);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot mount: %s", shown, strerror(-r));
	return 0;
}

/* By fusermount3, as an ordinary user. */
static int unmount_by_helper(const char *at, struct vd_error *err)
{
	char path[PATH_MAX], said[1024], shown[1024], word[1024];
	char *const arguments[] = { "fusermount3", "-u", "-z", "--", path, NULL };
	int r;

	snprintf(path, sizeof(path), "%s", at);
	r = fusermount(arguments, -1, said, sizeof(said));
	if (r == 0)
		return 0;
	return vd_fail(err, -r, "%s: cannot unmount: %s; do it with: fusermount3 -u %s",
		       escape(shown, sizeof(shown), at), *said ? said : strerror(-r),
		       shell_word(word, sizeof(word), at));
}

int vdifs_place_mount(struct vdifs_place *place, const struct vdifs_options *options,
		      const char *source, int to, struct vd_error *err)
{
	char shown[1024];
	dev_t before = mounted_device(place->path), after;
	int r = geteuid() == 0 ? mount_directly(place, options, source, to, err)
			       : mount_by_helper(place, options, source, to, err);

	after = mounted_device(place->path);
	if (after != before)
		place->device = after;
	if (r < 0 || place->device)
		return r;
	/* Later we could not tell it from somebody else's. */
	if (umount2(place->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		unmount_by_helper(place->path, err);
	return vd_fail(
		err, EIO,
		"%s: the mount is not in /proc/self/mountinfo; is /proc mounted, and has the "
		"place just got another name?",
		escape(shown, sizeof(shown), place->path));
}

void vdifs_place_raise_read_ahead(const struct vdifs_place *place)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(place->device),
		 minor(place->device));
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", VDIFS_READ_AHEAD_KIB);
	fclose(file);
}

/* --- unmounting ------------------------------------------------------------------------------ */

/* Is the server of the mount gone? If it lives, the mount is another's: numbers are used again. */
static bool is_dead(const char *path)
{
	struct vdifs_probe probe = VDIFS_PROBE_NONE;
	int r = vdifs_probe_start(&probe, path);

	if (r == 0)
		r = vdifs_probe_finish(&probe, DEAD_MS);
	return r == -ENOTCONN || r == -ECONNABORTED; /* the latter: it is just dying */
}

/*
 * Through a descriptor of the mount: between a look at a path and its use it may come to lead to
 * somebody else's. 1: it is to be left alone.
 */
static int unmount_at(const char *path, int id, bool dead, struct vd_error *err)
{
	char link[32], shown[1024], word[1024];
	int fd = mount_reach(path, id), r;

	if (fd < 0)
		return vd_fail(err, EBUSY,
			       "%s: cannot unmount: another mount lies over it; when that is gone: "
			       "fusermount3 -u %s",
			       escape(shown, sizeof(shown), path),
			       shell_word(word, sizeof(word), path));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (dead && !is_dead(path))
		r = 1;
	else
		r = umount2(link, MNT_DETACH);
	close(fd);
	return r < 0 ? unmount_by_helper(path, err) : r;
}

int vdifs_place_unmount(const struct vdifs_place *place, bool dead, struct vd_error *err)
{
	char path[PATH_MAX];
	int id, r = 0;

	for (unsigned i = 0; i < PLACES_MAX && place->device && r == 0; i++) {
		id = mount_find(place, path);
		r = id ? unmount_at(path, id, dead, err) : 1;
	}
	return r < 0 ? r : 0;
}
