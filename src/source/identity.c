/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See identity.h. Two system calls more for each file that is opened. The process that opens files
 * makes them and passes the result on: the sandbox does not allow them.
 */
#include "config.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "source/identity.h"
#include "source/source.h"

/*
 * STATX_MNT_ID is enough, STATX_MNT_ID_UNIQUE is not needed: a mount lives as long as a file on it
 * is open, and its number is not used again before.
 */
static uint64_t mount_find(int fd)
{
#ifdef STATX_MNT_ID
	struct statx now;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &now) == 0 && now.stx_mask & STATX_MNT_ID)
		return now.stx_mnt_id;
#else
	(void)fd;
#endif
	return 0;
}

void vd_identity_find(int fd, struct vd_identity *identity)
{
	union {
		struct file_handle handle;
		char room[offsetof(struct file_handle, f_handle) + VD_HANDLE_BYTES_MAX];
	} found = { .handle.handle_bytes = VD_HANDLE_BYTES_MAX };
	int mount;

	*identity = (struct vd_identity){ .mount = mount_find(fd) };
	if (name_to_handle_at(fd, "", &found.handle, &mount, AT_EMPTY_PATH) < 0 ||
	    found.handle.handle_bytes > VD_HANDLE_BYTES_MAX)
		return;
	identity->handle_bytes = found.handle.handle_bytes;
	identity->handle_type = found.handle.handle_type;
	memcpy(identity->handle, found.room + offsetof(struct file_handle, f_handle),
	       identity->handle_bytes);
}

static bool times_are_equal(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Are size and times those of one state of one file? */
static bool states_are_equal(const struct vd_source *a, const struct vd_source *b)
{
	return a->size == b->size && times_are_equal(&a->st.st_mtim, &b->st.st_mtim) &&
	       times_are_equal(&a->st.st_ctim, &b->st.st_ctim);
}

static bool handles_are_equal(const struct vd_source *a, const struct vd_source *b)
{
	const struct vd_identity *one = &a->identity, *other = &b->identity;

	return one->handle_bytes == other->handle_bytes &&
	       one->handle_type == other->handle_type &&
	       memcmp(one->handle, other->handle, one->handle_bytes) == 0;
}

/* What both questions need. */
static bool numbers_are_equal(const struct vd_source *a, const struct vd_source *b)
{
	if (S_ISBLK(a->st.st_mode) || S_ISBLK(b->st.st_mode))
		return S_ISBLK(a->st.st_mode) && S_ISBLK(b->st.st_mode) &&
		       a->st.st_rdev == b->st.st_rdev;
	return a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino &&
	       handles_are_equal(a, b);
}

bool vd_source_is_same_file(const struct vd_source *a, const struct vd_source *b)
{
	if (a->is_server || b->is_server)
		return a->ops == b->ops && a->ops->same(a, b);
	if (!numbers_are_equal(a, b) || S_ISBLK(a->st.st_mode))
		return numbers_are_equal(a, b);
	return a->identity.handle_bytes > 0 ||
	       (a->identity.mount == b->identity.mount && states_are_equal(a, b));
}

bool vd_source_has_same_bytes(const struct vd_source *a, const struct vd_source *b)
{
	if (a->is_server || b->is_server || S_ISBLK(a->st.st_mode))
		return vd_source_is_same_file(a, b);
	return numbers_are_equal(a, b) && a->identity.mount == b->identity.mount &&
	       states_are_equal(a, b);
}
