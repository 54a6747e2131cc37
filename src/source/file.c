/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The byte source over a descriptor: a regular file or a block device. The only caller of pread(2)
 * and, for answers that need not be looked at, of splice(2).
 * Never mmap: an image that is cut short under a live mount would kill the process with SIGBUS.
 * Holes are found by SEEK_HOLE, or by FIEMAP where that depends on the page cache (unwritten.h).
 * SEEK_DATA and SEEK_HOLE move the descriptor's position, which nobody else uses, so that threads
 * do not disturb each other.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "source/source.h"
#include "source/unwritten.h"

#define TRIES_MAX 100 /* after that EINTR is no signal but how the file system fails */

struct file {
	struct vd_source source;
	struct vd_unwritten *unwritten; /* or NULL: SEEK_HOLE is right, or there is no hole */
	bool is_near; /* to seek in it needs no other machine and no other process */
};

static const struct file *file_of(const struct vd_source *source)
{
	return (const struct file *)source;
}

static ssize_t file_pread(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host)
{
	ssize_t got = -1;

	for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
		got = pread(source->fd, buffer, bytes, (off_t)host);
		if (got >= 0 || errno != EINTR)
			break;
	}
	return got < 0 ? -errno : got;
}

static int seek_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
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

static int file_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
{
	struct vd_unwritten *unwritten = file_of(source)->unwritten;

	if (unwritten && vd_unwritten_find(unwritten, host, is_hole, end) == 0)
		return 0;
	return seek_extent(source, host, is_hole, end);
}

static bool file_is_hole(const struct vd_source *source, uint64_t host, uint64_t bytes)
{
	off_t data = -1;

	if (!file_of(source)->is_near)
		return false;
	data = lseek(source->fd, (off_t)host, SEEK_DATA);
	if (data >= 0)
		return (uint64_t)data >= host + bytes;
	return errno == ENXIO && lseek(source->fd, 0, SEEK_END) >= (off_t)(host + bytes);
}

static ssize_t file_splice(const struct vd_source *source, int pipe, size_t bytes, uint64_t host)
{
	off_t at = (off_t)host;
	ssize_t got = -1;

	for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
		got = splice(source->fd, &at, pipe, NULL, bytes, SPLICE_F_NONBLOCK);
		if (got >= 0 || errno != EINTR)
			break;
	}
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
	vd_unwritten_free(file_of(source)->unwritten);
	if (source->fd >= 0)
		close(source->fd);
}

static const struct vd_source_ops file_ops = {
	.pread = file_pread,
	.extent = file_extent,
	.is_hole = file_is_hole,
	.splice = file_splice,
	.stat = file_stat,
	.close = file_close,
};

/*
 * Does the file system itself know its holes? Through NFS or FUSE a question takes as long as a read,
 * waits as long, does not end with a signal, and has everybody else wait who seeks in the file.
 */
static bool is_near(unsigned long kind)
{
	return kind == EXT4_SUPER_MAGIC || kind == XFS_SUPER_MAGIC || kind == BTRFS_SUPER_MAGIC ||
	       kind == F2FS_SUPER_MAGIC || kind == TMPFS_MAGIC;
}

/* Find out whether the file has holes, and whether SEEK_HOLE is right about them. */
static int holes_prepare(struct vd_source *source)
{
	struct file *file = (struct file *)source;
	off_t end = (off_t)source->size;
	struct statfs fs;
	unsigned long kind = fstatfs(source->fd, &fs) < 0 ? 0 : (unsigned long)fs.f_type;
	bool matters = S_ISREG(source->st.st_mode) && vd_unwritten_matters(kind);

	file->is_near = is_near(kind);
	source->dense = !S_ISREG(source->st.st_mode) || end == 0 ||
			(lseek(source->fd, 0, SEEK_HOLE) == end &&
			 (!matters || vd_unwritten_none(source->fd, source->size)));
	vd_unwritten_free(file->unwritten);
	file->unwritten = NULL;
	return matters && !source->dense
		       ? vd_unwritten_new(source->fd, source->size, &file->unwritten)
		       : 0;
}

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
	return holes_prepare(source) < 0 ? vd_fail(err, ENOMEM, "out of memory") : 0;
}

int vd_source_from_fd(int fd, int dir_fd, const char *name, struct vd_source **out,
		      struct vd_error *err)
{
	struct file *file = calloc(1, sizeof(*file));
	struct vd_source *source = file ? &file->source : NULL;
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
