/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all byte sources share: whole reads, extents that never fail, changes, the end. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "source/source.h"

/* To ask for a hole costs as much as to copy this much, about. */
#define HOLE_MIN 16384

int vd_source_begin(struct vd_source *source, const struct vd_patience *patience,
		    struct vd_error *err)
{
	return source->ops->begin ? source->ops->begin(source, patience, err) : 0;
}

/*
 * What a file system fails with is its own. Some numbers mean to our callers that they should come again
 * (vdifs/node.h), which would be without end.
 */
static int storage_error(int r)
{
	return r == -EAGAIN || r == -EINPROGRESS || r == -EINTR ? -EIO : r;
}

int vd_source_read(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host)
{
	char *to = buffer;

	while (bytes > 0) {
		ssize_t got = source->ops->pread(source, to, bytes, host);

		if (got < 0)
			return storage_error((int)got);
		if (got == 0) /* the file is shorter than it was when it was opened */
			return -EIO;
		to += got;
		host += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

bool vd_source_can_splice(const struct vd_source *source)
{
	return source->ops->splice != NULL;
}

int vd_source_splice(const struct vd_source *source, int pipe, size_t bytes, uint64_t host)
{
	if (!source->ops->splice)
		return -EOPNOTSUPP;
	while (bytes > 0) {
		ssize_t got = source->ops->splice(source, pipe, bytes, host);

		if (got < 0)
			return (int)got;
		if (got == 0)
			return -EIO;
		host += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

bool vd_source_is_hole(const struct vd_source *source, uint64_t host, uint64_t bytes)
{
	return bytes >= HOLE_MIN && !source->dense && source->ops->is_hole &&
	       source->ops->is_hole(source, host, bytes);
}

void vd_source_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
{
	if (!source->dense && source->ops->extent &&
	    source->ops->extent(source, host, is_hole, end) == 0)
		return;
	*is_hole = false;
	*end = source->size;
}

int vd_source_set_name(struct vd_source *source, const char *escaped)
{
	char *copy = strdup(escaped);

	if (!copy)
		return -ENOMEM;
	free(source->name);
	source->name = copy;
	return 0;
}

bool vd_source_changed(const struct vd_source *source, struct stat *now)
{
	const struct timespec *then = &source->st.st_mtim;

	if (!source->ops->stat || source->ops->stat(source, now) < 0)
		return false;
	if ((uint64_t)now->st_size != source->size)
		return true;
	/* The time of a device node is not that of what the device holds. */
	return S_ISREG(now->st_mode) &&
	       (now->st_mtim.tv_sec != then->tv_sec || now->st_mtim.tv_nsec != then->tv_nsec);
}

bool vd_source_is_lost(const struct vd_source *source)
{
	return source->ops->is_lost && source->ops->is_lost(source);
}

void vd_source_close(struct vd_source *source)
{
	if (!source)
		return;
	source->ops->close(source);
	if (source->dir_fd >= 0)
		close(source->dir_fd);
	if (source->real_fd >= 0)
		close(source->real_fd);
	free(source->dir_text);
	free(source->name);
	free(source);
}
