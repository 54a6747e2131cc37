/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The byte source over a descriptor: a regular file or a block device. The only caller of pread(2)
 * and, for answers that need not be looked at, of splice(2).
 * Never mmap: an image that is cut short under a live mount would kill the process with SIGBUS.
 * SEEK_DATA and SEEK_HOLE move the descriptor's position, which nobody else uses, so that threads
 * do not disturb each other.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "source/source.h"

static ssize_t file_pread(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host)
{
	ssize_t got;

	do
		got = pread(source->fd, buffer, bytes, (off_t)host);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static int file_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
{
	off_t data = lseek(source->fd, (off_t)host, SEEK_DATA);
	off_t hole;

	if (data < 0 && errno == ENXIO) { /* a hole up to the end, which may have come nearer */
		hole = lseek(source->fd, 0, SEEK_END);
		if (hole <= (off_t)host)
			return -EIO; /* cut off: not a hole but lost */
		*is_hole = true;
		*end = vd_min((uint64_t)hole, source->size);
		return 0;
	}
	if (data < 0)
		return -errno;
	if ((uint64_t)data > host) {
		*is_hole = true;
		*end = vd_min((uint64_t)data, source->size);
		return 0;
	}
	hole = lseek(source->fd, (off_t)host, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*is_hole = false;
	*end = (uint64_t)hole > host ? vd_min((uint64_t)hole, source->size) : source->size;
	return 0;
}

static ssize_t file_splice(const struct vd_source *source, int pipe, size_t bytes, uint64_t host)
{
	off_t at = (off_t)host;
	ssize_t got;

	do
		got = splice(source->fd, &at, pipe, NULL, bytes, SPLICE_F_NONBLOCK);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static int file_stat(const struct vd_source *source, struct stat *now)
{
	if (fstat(source->fd, now) < 0)
		return -errno;
	if (!S_ISREG(now->st_mode))
		now->st_size = lseek(source->fd, 0, SEEK_END);
	return now->st_size < 0 ? -errno : 0;
}

static void file_close(struct vd_source *source)
{
	if (source->fd >= 0)
		close(source->fd);
}

static const struct vd_source_ops file_ops = {
	.pread = file_pread,
	.extent = file_extent,
	.splice = file_splice,
	.stat = file_stat,
	.close = file_close,
};

int vd_source_examine(struct vd_source *source, struct vd_error *err)
{
	off_t end;

	if (fstat(source->fd, &source->st) < 0)
		return vd_fail(err, errno, "%s: fstat: %s", source->name, strerror(errno));
	if (!S_ISREG(source->st.st_mode) && !S_ISBLK(source->st.st_mode))
		return vd_fail(err, EINVAL, "%s: not a regular file or block device", source->name);
	end = lseek(source->fd, 0, SEEK_END);
	if (end < 0)
		return vd_fail(err, errno, "%s: cannot find its size: %s", source->name,
			       strerror(errno));
	source->size = (uint64_t)end;
	source->dense = !S_ISREG(source->st.st_mode) || source->size == 0 ||
			lseek(source->fd, 0, SEEK_HOLE) == end;
	return 0;
}

int vd_source_from_fd(int fd, int dir_fd, const char *name, struct vd_source **out,
		      struct vd_error *err)
{
	struct vd_source *source = calloc(1, sizeof(*source));
	size_t room = 4 * strlen(name) + 8;
	int r;

	if (source)
		source->name = malloc(room);
	if (!source || !source->name) {
		free(source);
		close(fd);
		if (dir_fd >= 0)
			close(dir_fd);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	vd_escape(source->name, room, name, strlen(name));
	source->ops = &file_ops;
	source->serial = vd_serial();
	source->fd = fd;
	source->dir_fd = dir_fd;
	source->real_fd = -1;
	r = vd_source_examine(source, err);
	if (r < 0) {
		vd_source_close(source);
		return r;
	}
	*out = source;
	return 0;
}
