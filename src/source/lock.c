/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU's image locks (its block/file-posix.c): open-file-description locks, always shared, one
 * byte each. Byte 100 + i says "I hold permission i", byte 200 + i "I do not share permission i".
 * Permissions: 0 consistent-read, 1 write, 2 write-unchanged, 3 resize.
 *
 * Whether somebody holds a byte is asked with F_OFD_GETLK for a write lock, which works on a
 * read-only descriptor. Own locks come first, the look second, as QEMU does it, so that two
 * programs starting at once cannot both see a free image.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>

#include "source/source.h"

enum { HELD = 100, UNSHARED = 200, CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3 };

static int lock_byte(int fd, int command, short type, off_t byte, struct flock *lock)
{
	*lock = (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	return fcntl(fd, command, lock) < 0 ? -errno : 0;
}

/* 1: somebody else holds the byte. 0: nobody, or the file system cannot say. */
static int lock_is_held(int fd, off_t byte)
{
	struct flock lock;

	return lock_byte(fd, F_OFD_GETLK, F_WRLCK, byte, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void lock_release(int fd)
{
	struct flock lock;

	for (off_t byte = 0; byte <= RESIZE; byte++) {
		lock_byte(fd, F_OFD_SETLK, F_UNLCK, HELD + byte, &lock);
		lock_byte(fd, F_OFD_SETLK, F_UNLCK, UNSHARED + byte, &lock);
	}
}

static int locks_take(const struct vd_source *source, bool force, struct vd_error *err)
{
	static const off_t take[] = { HELD + CONSISTENT_READ, UNSHARED + WRITE, UNSHARED + RESIZE };
	static const off_t look[] = { UNSHARED + CONSISTENT_READ, HELD + WRITE, HELD + RESIZE };
	unsigned count = force ? 1 : 3;
	struct flock lock;

	for (unsigned i = 0; i < count; i++) {
		int r = lock_byte(source->fd, F_OFD_SETLK, F_RDLCK, take[i], &lock);

		if (r == -EAGAIN || r == -EACCES) {
			lock_release(source->fd);
			return vd_fail(err, EBUSY,
				       "%s: another process has locked the image; stop it first",
				       source->name);
		}
		if (r < 0) /* no such locks on this file system: nothing to respect */
			return 0;
	}
	for (unsigned i = 0; i < count; i++) {
		if (!lock_is_held(source->fd, look[i]))
			continue;
		lock_release(source->fd);
		if (look[i] == UNSHARED + CONSISTENT_READ)
			return vd_fail(err, EBUSY,
				       "%s: another process holds the image for itself alone; "
				       "stop it first",
				       source->name);
		return vd_fail(err, EBUSY,
			       "%s: the image is in use for writing by another process; "
			       "stop it, or read it all the same with -U (--force-share)",
			       source->name);
	}
	return 0;
}

int vd_source_lock(struct vd_source *source, bool force, struct vd_error *err)
{
	int r;

	if (source->fd < 0)
		return 0;
	r = locks_take(source, force, err);
	return r < 0 ? r : vd_source_examine(source, err);
}
