/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory is opened first and the file in it, so that both belong together whatever is
 * renamed meanwhile. Only the directory of a symbolic link's target has to be found by its path; it
 * counts only if it holds the very file.
 *
 * A directory in /proc, as of /dev/fd/5, holds no files: the file's own directory stands for it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "disk/find.h"

#define FIND_FLAGS (O_PATH | O_CLOEXEC)
#define DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define READ_FLAGS (O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
#define OPENAT2_TRIES 100

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev &&
	       (a->st_mode & S_IFMT) == (b->st_mode & S_IFMT);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

void vd_found_clear(struct vd_found *found)
{
	if (found->fd >= 0)
		close(found->fd);
	if (found->dir_fd >= 0)
		close(found->dir_fd);
	if (found->real_fd >= 0)
		close(found->real_fd);
	free(found->base);
	*found = VD_FOUND_NONE;
}

bool vd_found_same(const struct vd_found *a, const struct vd_found *b)
{
	if (S_ISBLK(a->st.st_mode) && S_ISBLK(b->st.st_mode))
		return a->st.st_rdev == b->st.st_rdev;
	/* Two files may have one number (source/identity.h); then their times tell. */
	return same_file(&a->st, &b->st) && a->st.st_size == b->st.st_size &&
	       same_time(&a->st.st_mtim, &b->st.st_mtim) &&
	       same_time(&a->st.st_ctim, &b->st.st_ctim);
}

bool vd_find_path(int fd, char *path, size_t room)
{
	char link[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, room - 1);
	if (length <= 0 || path[0] != '/')
		return false;
	path[length] = '\0';
	return true;
}

const char *vd_find_inside(const char *directory, const char *name)
{
	size_t length = strlen(directory);

	while (length > 0 && directory[length - 1] == '/')
		length--;
	if (strncmp(name, directory, length) != 0 || name[length] != '/')
		return NULL;
	return name + length + strspn(name + length, "/");
}

/* --- one step -------------------------------------------------------------------------------- */

/* Open one part of a path. -ENOSYS: it leads up, or it is a symbolic link, which is not followed. */
static int step(int at, const char *part, size_t bytes, bool is_last, int flags)
{
	char name[NAME_MAX + 1];
	struct stat st;
	int fd, r = 0;

	if (bytes == 2 && memcmp(part, "..", 2) == 0)
		return -ENOSYS;
	if (bytes >= sizeof(name))
		return -ENAMETOOLONG;
	memcpy(name, part, bytes);
	name[bytes] = '\0';
	fd = openat(at, name, (is_last ? flags : FIND_FLAGS) | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (S_ISLNK(st.st_mode) && !(is_last && (flags & O_NOFOLLOW)))
		r = -ENOSYS;
	else if (!is_last && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* Without openat2(2): part by part, so that no symbolic link is followed. */
static int walk_beneath(int at_fd, const char *name, int flags)
{
	int at = openat(at_fd, ".", DIR_FLAGS);

	if (at < 0)
		return -errno;
	if (*name == '/' || *name == '\0') {
		close(at);
		return *name ? -EXDEV : -ENOENT;
	}
	while (at >= 0 && *name) {
		size_t bytes = strcspn(name, "/");
		int next = step(at, name, bytes, name[bytes] == '\0', flags);

		close(at);
		at = next;
		name += bytes;
		name += strspn(name, "/");
	}
	return at;
}

/* openat(2) that cannot leave at_fd. The descriptor or -errno. */
static int open_beneath(int at_fd, const char *name, int flags)
{
	struct open_how how = {
		.flags = (unsigned)flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	for (int i = 0; i < OPENAT2_TRIES; i++) {
		fd = syscall(SYS_openat2, at_fd, name, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN) /* EAGAIN: a rename raced with "..", try again */
			break;
	}
	/* Before Linux 5.6, or in a container whose rules do not know the call: some answer EPERM. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return walk_beneath(at_fd, name, flags);
	return fd < 0 ? -errno : (int)fd;
}

/* --- the whole way --------------------------------------------------------------------------- */

/* The directory of a file that was reached through a symbolic link, or -1. */
static int directory_of(int fd, const struct stat *st)
{
	char path[PATH_MAX];
	struct stat there;
	char *slash;
	int dir_fd;

	if (!vd_find_path(fd, path, sizeof(path)))
		return -1;
	slash = strrchr(path, '/');
	*slash = '\0';
	dir_fd = open(*path ? path : "/", DIR_FLAGS);
	if (dir_fd >= 0 && fstatat(dir_fd, slash + 1, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    same_file(&there, st))
		return dir_fd;
	if (dir_fd >= 0)
		close(dir_fd);
	return -1;
}

static bool is_in_proc(int dir_fd)
{
	struct statfs fs;

	return fstatfs(dir_fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* found->fd is a symbolic link in found->dir_fd. Put what it leads to in its place. */
static int follow_link(int at_fd, const char *name, struct vd_found *found)
{
	struct stat there;

	close(found->fd);
	if (found->is_beneath) {
		found->fd = open_beneath(at_fd, name, FIND_FLAGS);
	} else {
		found->fd = openat(found->dir_fd, found->base, FIND_FLAGS);
		found->fd = found->fd < 0 ? -errno : found->fd;
	}
	if (found->fd < 0)
		return found->fd;
	if (fstat(found->fd, &found->st) < 0)
		return -errno;
	if (found->is_beneath &&
	    (fstatat(found->dir_fd, found->base, &there, 0) < 0 || !same_file(&there, &found->st)))
		return -ESTALE;
	found->is_link = true;
	found->real_fd = directory_of(found->fd, &found->st);
	if (!is_in_proc(found->dir_fd))
		return 0;
	close(found->dir_fd);
	found->dir_fd = found->real_fd;
	found->real_fd = -1;
	found->is_elsewhere = true;
	return 0;
}

static int open_either(bool is_beneath, int at_fd, const char *name, int flags)
{
	int fd;

	if (is_beneath)
		return open_beneath(at_fd, name, flags);
	fd = openat(at_fd, name, flags);
	return fd < 0 ? -errno : fd;
}

/* Does the path end in a name, so that there is a directory to it? */
static bool ends_in_name(const char *base)
{
	return *base && strcmp(base, ".") != 0 && strcmp(base, "..") != 0;
}

static int find(int at_fd, const char *name, struct vd_found *found)
{
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
	char *directory = NULL;

	if (!ends_in_name(base)) { /* a directory, or nothing */
		found->fd = open_either(found->is_beneath, at_fd, name, FIND_FLAGS);
		if (found->fd < 0)
			return found->fd;
		return fstat(found->fd, &found->st) < 0 ? -errno : 0;
	}
	directory = slash ? strndup(name, (size_t)(base - name)) : strdup(".");
	found->base = strdup(base);
	if (directory && found->base)
		found->dir_fd = open_either(found->is_beneath, at_fd, directory, DIR_FLAGS);
	else
		found->dir_fd = -ENOMEM;
	free(directory);
	if (found->dir_fd < 0)
		return found->dir_fd;
	found->fd = openat(found->dir_fd, base, FIND_FLAGS | O_NOFOLLOW);
	if (found->fd < 0)
		return -errno;
	if (fstat(found->fd, &found->st) < 0)
		return -errno;
	return S_ISLNK(found->st.st_mode) ? follow_link(at_fd, name, found) : 0;
}

/* A descriptor of a failed search is -errno, which vd_found_clear() takes for none. */
static int find_or_clear(int at_fd, const char *name, bool is_beneath, struct vd_found *found)
{
	int r;

	*found = VD_FOUND_NONE;
	found->is_beneath = is_beneath;
	r = find(at_fd, name, found);
	if (r < 0)
		vd_found_clear(found);
	return r;
}

int vd_find(int at_fd, const char *name, struct vd_found *found)
{
	return find_or_clear(at_fd, name, false, found);
}

int vd_find_beneath(int at_fd, const char *name, struct vd_found *found)
{
	return find_or_clear(at_fd, name, true, found);
}

/* --- opening --------------------------------------------------------------------------------- */

/* Reading leaves no trace where that is allowed: to the owner, and to root. */
static int open_to_read(int at_fd, const char *name, int flags)
{
	int fd = openat(at_fd, name, flags | O_NOATIME);

	if (fd < 0 && errno == EPERM)
		fd = openat(at_fd, name, flags);
	return fd < 0 ? -errno : fd;
}

/*
 * The very file that was found, through /proc. A lease on it is given up while we wait, which a file
 * server does within /proc/sys/fs/lease-break-time.
 */
static int open_found(const struct vd_found *found, const char *path)
{
	int fd = open_to_read(AT_FDCWD, path, READ_FLAGS);

	if (fd == -EWOULDBLOCK && S_ISREG(found->st.st_mode))
		fd = open_to_read(AT_FDCWD, path, READ_FLAGS & ~O_NONBLOCK);
	return fd;
}

int vd_found_open(const struct vd_found *found)
{
	char path[64];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", found->fd);
	fd = open_found(found, path);
	if ((fd == -ENOENT || fd == -ENOTDIR) && found->dir_fd >= 0 &&
	    access("/proc/self/fd", F_OK) != 0) {
		if (found->is_link && found->is_beneath)
			return -EXDEV;
		fd = open_to_read(found->dir_fd, found->base,
				  READ_FLAGS | (found->is_link ? 0 : O_NOFOLLOW));
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) == 0 && same_file(&st, &found->st))
		return fd;
	close(fd);
	return -ESTALE;
}
