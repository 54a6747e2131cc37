/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a name to a file, without opening it for reading: the open alone would let a FIFO's writer
 * go on, arm a watchdog or rewind a tape. What is found is an O_PATH descriptor, which the caller
 * examines first. Start-up only, one thread.
 *
 * Each function returns 0 or -errno: -ENOENT and its like; -EXDEV: the name leads out of the
 * directory; -ENOSYS: it has a symbolic link or "..", and whether it stays there only openat2(2) could
 * tell; -ESTALE: the directory was exchanged meanwhile.
 */
#ifndef VD_DISK_FIND_H
#define VD_DISK_FIND_H

#include <stdbool.h>
#include <sys/stat.h>

/* A file, and where it is. All is owned: vd_found_clear(). */
struct vd_found {
	int fd; /* O_PATH of the file; symbolic links have been followed */
	struct stat st;
	int dir_fd; /* O_PATH of the directory of the path that led here, or -1 */
	int real_fd; /* that path is a symbolic link: of the file's own directory; else -1 */
	char *base; /* the last part of the path, which is in dir_fd; or NULL */
	bool is_link, is_beneath; /* how to find it again */
	bool is_elsewhere; /* dir_fd is not the directory of the path that was followed */
};

#define VD_FOUND_NONE ((struct vd_found){ .fd = -1, .dir_fd = -1, .real_fd = -1 })

/* Follow the name from the directory (or AT_FDCWD), wherever it leads. */
int vd_find(int at_fd, const char *name, struct vd_found *found);

/*
 * Follow the relative name, but never out of the directory: no "..", no symbolic link, no path
 * below /proc leads there. Nothing outside is touched.
 */
int vd_find_beneath(int at_fd, const char *name, struct vd_found *found);

/*
 * If the absolute name begins with the path of the directory, return what follows, relative to it.
 * NULL: it does not. Only text is compared: no file system is asked, for one may not answer.
 */
const char *vd_find_inside(const char *directory, const char *name);

/* The path that the kernel has for a descriptor, as text. False: there is no /proc, or no path. */
bool vd_find_path(int fd, char *path, size_t room);

/*
 * Open for reading what was found, and nothing else. The descriptor or -errno. It is opened through
 * /proc; where that is missing by its name once more, and then it must be the same file.
 */
int vd_found_open(const struct vd_found *found);

/* Are both the same file or block device? */
bool vd_found_same(const struct vd_found *a, const struct vd_found *b);

/* Nothing found is fine. */
void vd_found_clear(struct vd_found *found);

#endif
