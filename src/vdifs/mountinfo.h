/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is mounted, as /proc/self/mountinfo says. No server of a mount is asked. */
#ifndef VD_VDIFS_MOUNTINFO_H
#define VD_VDIFS_MOUNTINFO_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct vdifs_mount {
	int id, parent; /* used again when a mount is gone */
	dev_t device; /* likewise */
	bool is_vdifs;
	uid_t user; /* of a FUSE mount: who made it */
	const char *path, *source;
};

/* Called for each mount. Return true to end the walk. The strings live until then. */
typedef bool vdifs_mount_fn(const struct vdifs_mount *mount, void *context);

void vdifs_mounts_walk(vdifs_mount_fn *each, void *context);

/* The id of the mount that a descriptor, which may be O_PATH, is in; 0 if that is not known. */
int vdifs_mount_id(int fd);

/* A descriptor (O_PATH) of the mount with this id if the path leads to it, or -1. */
int vdifs_mount_reach(const char *path, int id);

/*
 * Unmount the mount with this id, which is at `path`, if it is not in use. 0 or -errno; -ESTALE: it is
 * not there. This works through a descriptor of the directory that the mount is in: the owner of a
 * directory above can exchange that directory, but nobody can rename a mountpoint. A descriptor of the
 * mount itself would keep the mount in use.
 */
int vdifs_unmount_idle(const char *path, int id);

/* The path of what a descriptor leads to. 0 or -errno. */
int vdifs_descriptor_path(int fd, char path[PATH_MAX]);

/* The name by which system calls that want a path reach what a descriptor leads to. */
#define VDIFS_LINK_ROOM 32
const char *vdifs_descriptor_link(char link[VDIFS_LINK_ROOM], int fd);

#endif
