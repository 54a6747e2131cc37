/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The place in the file tree: checking it, mounting on it, unmounting it. Only the supervisor does
 * this: a sandboxed process can do neither. Paths and options are the user's, nothing here comes
 * from an image.
 */
#ifndef VD_VDIFS_PLACE_H
#define VD_VDIFS_PLACE_H

#include <limits.h>
#include <sys/types.h>

#include "vdifs/options.h"

struct vdifs_place {
	char path[PATH_MAX]; /* real path, when the place was found */
	bool is_directory; /* or a regular file */
	int at; /* O_PATH: what was found, on which nothing is mounted yet; -1 */
	int top; /* O_PATH: the mount, which is busy as long as this is open; -1 */
	dev_t device; /* of the mount; 0: not mounted by us yet */
};

#define VDIFS_PLACE_NONE        \
	{                       \
		.at = -1, .top = -1 \
	}

/* Check that the place can be mounted on. 0 or -errno with a message. */
int vdifs_place_find(struct vdifs_place *place, const char *mountpoint, struct vd_error *err);

/*
 * Is a mount of vdifs on top at the place already? Then its source is in `source`, as mount(8) shows
 * it.
 */
bool vdifs_place_has(const struct vdifs_place *place, char source[PATH_MAX]);

/*
 * Mount. The descriptor of the mount is sent through the socket `to`, a byte with it, whose other
 * end has its reader already: should this process be killed meanwhile, the mount has a server.
 * source: what mount(8) shows. 0 or -errno with a message; then, too, something may be mounted, and
 * vdifs_place_unmount() is to be called when the other end is gone.
 */
int vdifs_place_mount(struct vdifs_place *place, const struct vdifs_options *options,
		      const char *source, int to, struct vd_error *err);

/* The mount answers: let go of it, so that it can be unmounted. */
void vdifs_place_ready(struct vdifs_place *place);

/* The kernel's read-ahead for the mount, where we may: its default is 128 KiB. Failing is fine. */
void vdifs_place_raise_read_ahead(const struct vdifs_place *place);

/*
 * Take our mount away wherever it is by now, at once for newcomers and with the last close for
 * holders. dead: only if its server is gone. Somebody else's mount, or none, is left alone. 0 or
 * -errno with a message.
 */
int vdifs_place_unmount(const struct vdifs_place *place, bool dead, struct vd_error *err);

/* Take our mount away if it is not in use. -EBUSY or another -errno, with a message. */
int vdifs_place_unmount_idle(const struct vdifs_place *place, struct vd_error *err);

void vdifs_place_clear(struct vdifs_place *place);

/* The most that one read asks for, in bytes: the kernel and libfuse must be told the same. */
unsigned vdifs_request_bytes(const struct vdifs_options *options);

/*
 * What the kernel reads ahead. Through the page cache, where a reader's jumps end in holes
 * that are read ahead in vain, and each page of which has to be found first, 256 KiB is best.
 */
#define VDIFS_READ_AHEAD_KIB 256

#endif
