/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vdifs/pid_file.h"

static int file_fail(struct vd_error *err, int code, const char *name)
{
	char shown[512];

	return vd_fail(err, code, "%s: cannot write the file of --pid-file: %s",
		       vd_escape(shown, sizeof(shown), name, strlen(name)), strerror(code));
}

int vdifs_pid_file_find(struct vdifs_pid_file *file, const char *name, struct vd_error *err)
{
	char copy[PATH_MAX], directory[PATH_MAX];
	const char *last;

	if (strlen(name) >= sizeof(copy))
		return file_fail(err, ENAMETOOLONG, name);
	if (!realpath(dirname(strcpy(copy, name)), directory) || access(directory, W_OK) < 0)
		return file_fail(err, errno, name);
	last = basename(strcpy(copy, name));
	if (snprintf(file->path, sizeof(file->path), "%s/%s", directory, last) >=
	    (int)sizeof(file->path))
		return file_fail(err, ENAMETOOLONG, name);
	return 0;
}

int vdifs_pid_file_write(struct vdifs_pid_file *file, struct vd_error *err)
{
	char fresh[PATH_MAX + 16];
	struct stat st;
	int fd, r = 0;

	if (!*file->path)
		return 0;
	snprintf(fresh, sizeof(fresh), "%s.%ld", file->path, (long)getpid());
	unlink(fresh); /* of an earlier process with this ID */
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return file_fail(err, errno, file->path);
	if (dprintf(fd, "%ld\n", (long)getpid()) < 0 || fstat(fd, &st) < 0 ||
	    rename(fresh, file->path) < 0)
		r = -errno;
	close(fd);
	if (r < 0) {
		unlink(fresh);
		return file_fail(err, -r, file->path);
	}
	file->is_there = true;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	return 0;
}

void vdifs_pid_file_remove(const struct vdifs_pid_file *file)
{
	struct stat st;

	if (file->is_there && lstat(file->path, &st) == 0 && st.st_dev == file->device &&
	    st.st_ino == file->inode)
		unlink(file->path);
}
