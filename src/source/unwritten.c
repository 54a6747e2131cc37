/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See unwritten.h. One question is for some extents at once, and the answers are kept (holes.h): a
 * walk asks for each cluster.
 *
 * Data that is still in memory only: ext4 and XFS have an extent for it that is marked as delayed, if
 * nothing was reserved there, and call it unwritten, if it was. So "unwritten" is believed where
 * SEEK_DATA finds nothing, either, or once FIEMAP_FLAG_SYNC has had the file's pages written. The
 * latter waits for the disk, and is needed only for reserved parts that have pages in the cache.
 * Why not FIEMAP alone: SEEK_HOLE is right about real holes at no cost. Why only these file systems:
 * that of btrfs looks for all that share an extent, which takes minutes, and its SEEK_HOLE is right.
 */
#include "config.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "source/holes.h"
#include "source/unwritten.h"

/* A question costs some microseconds, and a few more for each hundred extents. */
#define EXTENTS 128
/* With every second one a hole, and one at the end. */
#define RANGES (2 * EXTENTS + 1)

struct vd_unwritten {
	int fd;
	uint64_t size;
	struct vd_holes *holes;
};

/* The layout of struct fiemap, whose last member has no size. */
union question {
	struct fiemap map;
	char room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
};

/* The kernel looks at 32 bits of it. */
#ifdef __GLIBC__
typedef unsigned long ioctl_request;
#else
typedef int ioctl_request; /* as POSIX has it, and musl */
#endif

bool vd_unwritten_matters(unsigned long kind)
{
	switch (kind) {
	case EXT4_SUPER_MAGIC: /* that of ext2 and ext3, too */
	case XFS_SUPER_MAGIC:
	case OVERLAYFS_SUPER_MAGIC: /* of containers: asks the one below */
		return true;
	default:
		return false;
	}
}

static int ask(int fd, uint64_t start, uint64_t bytes, uint32_t flags, union question *question)
{
	memset(question, 0, sizeof(question->map));
	question->map.fm_start = start;
	question->map.fm_length = bytes;
	question->map.fm_flags = flags;
	question->map.fm_extent_count = EXTENTS;
	return ioctl(fd, (ioctl_request)FS_IOC_FIEMAP, &question->map) < 0 ? -errno : 0;
}

static bool is_written(const struct fiemap_extent *extent)
{
	return !(extent->fe_flags & FIEMAP_EXTENT_UNWRITTEN) ||
	       extent->fe_flags & FIEMAP_EXTENT_DELALLOC;
}

/* The extents as ranges, from `start`. Up to the end of the file, if the last one is among them. */
static void extents_add(const union question *question, uint64_t size, struct vd_answer *answer)
{
	const struct fiemap_extent *extents = question->map.fm_extents;
	bool is_last = question->map.fm_mapped_extents < EXTENTS;

	for (unsigned i = 0; i < question->map.fm_mapped_extents; i++) {
		const struct fiemap_extent *extent = &extents[i];
		uint64_t at = vd_answer_end(answer), start = vd_min(extent->fe_logical, size);
		uint64_t end = start + vd_min(extent->fe_length, size - start);

		if (start > at)
			vd_answer_add(answer, start - at, true);
		at = vd_answer_end(answer);
		if (end > at)
			vd_answer_add(answer, end - at, !is_written(extent));
		is_last = is_last || extent->fe_flags & FIEMAP_EXTENT_LAST;
	}
	if (is_last && vd_answer_end(answer) < size)
		vd_answer_add(answer, size - vd_answer_end(answer), true);
}

/* Does SEEK_DATA find nothing in any range of the answer that is said to be a hole? */
static bool holes_are_certain(int fd, uint64_t start, const struct vd_answer *answer)
{
	uint64_t end;
	bool is_hole;

	for (uint64_t at = start; at < vd_answer_end(answer); at = end) {
		off_t data;

		vd_answer_find(answer, at, &is_hole, &end);
		if (!is_hole)
			continue;
		data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0 ? errno != ENXIO : (uint64_t)data < end)
			return false;
	}
	return true;
}

static int answer_make(int fd, uint64_t start, uint64_t size, uint32_t flags,
		       struct vd_answer **answer)
{
	union question question;
	int r = ask(fd, start, size - start, flags, &question);

	if (r < 0)
		return r;
	*answer = vd_answer_new(start, RANGES);
	if (!*answer)
		return -ENOMEM;
	extents_add(&question, size, *answer);
	return 0;
}

/* Ask about what begins at `start`; *answer is freed by the caller, also after an error. */
static int answer_get(const struct vd_unwritten *unwritten, uint64_t start,
		      struct vd_answer **answer)
{
	int r = answer_make(unwritten->fd, start, unwritten->size, 0, answer);

	if (r == 0 && !holes_are_certain(unwritten->fd, start, *answer)) {
		vd_answer_free(*answer);
		*answer = NULL;
		r = answer_make(unwritten->fd, start, unwritten->size, FIEMAP_FLAG_SYNC, answer);
	}
	if (r < 0)
		return r;
	/* What was cut off is no hole but lost. */
	if (vd_answer_end(*answer) == start ||
	    lseek(unwritten->fd, 0, SEEK_END) < (off_t)unwritten->size)
		return -EIO;
	return 0;
}

bool vd_unwritten_none(int fd, uint64_t size)
{
	struct vd_answer *answer = NULL;
	uint64_t end = 0;
	bool is_hole = true;

	if (answer_make(fd, 0, size, 0, &answer) == 0 && vd_answer_end(answer) == size)
		vd_answer_find(answer, 0, &is_hole, &end);
	vd_answer_free(answer);
	return !is_hole && end == size;
}

int vd_unwritten_new(int fd, uint64_t size, struct vd_unwritten **out)
{
	struct vd_unwritten *unwritten = malloc(sizeof(*unwritten));

	if (!unwritten)
		return -ENOMEM;
	unwritten->fd = fd;
	unwritten->size = size;
	if (vd_holes_new(&unwritten->holes) < 0) {
		free(unwritten);
		return -ENOMEM;
	}
	*out = unwritten;
	return 0;
}

void vd_unwritten_free(struct vd_unwritten *unwritten)
{
	if (!unwritten)
		return;
	vd_holes_free(unwritten->holes);
	free(unwritten);
}

int vd_unwritten_find(struct vd_unwritten *unwritten, uint64_t host, bool *is_hole, uint64_t *end)
{
	struct vd_answer *answer = NULL;
	int r;

	if (vd_holes_find(unwritten->holes, host, is_hole, end))
		return 0;
	r = answer_get(unwritten, host, &answer);
	if (r < 0) {
		vd_answer_free(answer);
		return r;
	}
	vd_answer_find(answer, host, is_hole, end);
	vd_holes_keep(unwritten->holes, answer);
	return 0;
}
