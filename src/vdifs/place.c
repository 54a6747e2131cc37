/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount(2) and its successors where we may, fusermount3 where we may not.
 *
 * The place is looked up once, and what was found is held by a descriptor: the owner of a directory
 * above it may exchange it for a link to anything of root's at any moment. The mount then lies on what
 * was examined. Until it answers it is held by a descriptor, too, and asked and removed through that.
 * Later it cannot be held, or umount(8) would find it in use; then it is found by its device number and
 * type in /proc/self/mountinfo: at the same place there may be another mount by now, and ours may be at
 * another place. One thread.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vdifs/helper.h"
#include "vdifs/mounting.h"
#include "vdifs/mountinfo.h"
#include "vdifs/place.h"
#include "vdifs/probe.h"

/* Requests through the page cache, and past it: as much as an answer can have that is spliced. */
#define CACHED_REQUEST_KIB 256
#define DIRECT_REQUEST_KIB 512

/* A dead mount says so at once. */
#define DEAD_MS 1000
/* Where our mount has been bound to. */
#define PLACES_MAX 64
/* A path is looked up so often while others rename what is above it, with a pause of 1 ms. */
#define TRIES_MAX 50

unsigned vdifs_request_bytes(const struct vdifs_options *options)
{
	return (unsigned)(options->direct ? DIRECT_REQUEST_KIB : CACHED_REQUEST_KIB) << 10;
}

static const char *escape(char *out, size_t size, const char *path)
{
	return vd_escape(out, size, path, strlen(path));
}

/* --- finding the place ----------------------------------------------------------------------- */

/* A dead mount at the place or above it. True: *at is where. */
static bool find_dead(const char *mountpoint, char at[PATH_MAX])
{
	struct statfs fs;
	char above[PATH_MAX];

	/* stat() might be answered from a cache */
	if (strlen(mountpoint) >= PATH_MAX || statfs(mountpoint, &fs) == 0 || errno != ENOTCONN)
		return false;
	strcpy(at, mountpoint);
	for (;;) {
		const char *up = dirname(strcpy(above, at));

		if (strcmp(up, at) == 0 || statfs(up, &fs) == 0 || errno != ENOTCONN)
			return true;
		strcpy(at, up);
	}
}

/* Is /dev/fuse there, and may we use it? fusermount3 and the server open it as the user. */
static int device_check(struct vd_error *err)
{
	if (access("/dev/fuse", R_OK | W_OK) == 0)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return vd_fail(err, EACCES,
			       "/dev/fuse: %s; users may mount if its mode is 0666, which udev "
			       "gives it: chmod 666 /dev/fuse",
			       strerror(errno));
	return vd_fail(err, ENODEV,
		       "/dev/fuse: %s; load the module with: modprobe fuse (in a container, "
		       "start it with --device /dev/fuse)",
		       strerror(errno));
}

/* Open it and look at it. 0 or -errno, of which the caller makes a message. */
static int place_open(struct vdifs_place *place, const char *mountpoint, struct stat *st)
{
	place->at = open(mountpoint, O_PATH | O_CLOEXEC);
	if (place->at < 0 || fstat(place->at, st) < 0)
		return -errno;
	return vdifs_descriptor_path(place->at, place->path);
}

int vdifs_place_find(struct vdifs_place *place, const char *mountpoint, struct vd_error *err)
{
	char shown[512], word[512], dead[PATH_MAX];
	struct stat st;
	int r;

	escape(shown, sizeof(shown), mountpoint);
	if (strncmp(mountpoint, "/dev/fd/", 8) == 0)
		return vd_fail(err, EINVAL,
			       "%s: vdifs mounts itself and drops what it does not need; leave out "
			       "the mount option drop_privileges",
			       shown);
	if (find_dead(mountpoint, dead))
		return vd_fail(err, ENOTCONN,
			       "%s: a dead mount is in the way (its program has died); remove it "
			       "with: fusermount3 -u %s",
			       shown, vdifs_shell_word(word, sizeof(word), dead));
	r = place_open(place, mountpoint, &st);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot use the mountpoint: %s%s", shown, strerror(-r),
			       place->at >= 0 ? " (is /proc mounted?)" : "");
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return vd_fail(err, EINVAL,
			       "%s: the mountpoint must be a directory or a regular file", shown);
	place->is_directory = S_ISDIR(st.st_mode);
	return device_check(err);
}

/* --- what is mounted ------------------------------------------------------------------------- */

/* Which mount is looked for; what is zero does not matter. */
struct search {
	int id;
	dev_t device;
	const char *wanted; /* the source of the mount */
	/* found */
	int found; /* its id, or 0 */
	dev_t found_device;
	char path[PATH_MAX], source[PATH_MAX];
	bool at_home; /* at `home`, where that is given */
	const char *home;
	/* those that were there before are not looked for */
	const int *before;
	unsigned before_count;
};

static bool was_there(const struct search *search, int id)
{
	for (unsigned i = 0; i < search->before_count; i++) {
		if (search->before[i] == id)
			return true;
	}
	return false;
}

/* A vdifs_mount_fn. The last one wins, which is on top; but one at home is preferred. */
static bool search_step(const struct vdifs_mount *mount, void *context)
{
	struct search *search = context;
	bool at_home = search->home && strcmp(mount->path, search->home) == 0;

	if (!mount->is_vdifs || (search->id && mount->id != search->id) ||
	    (search->device && mount->device != search->device) ||
	    (search->wanted && strcmp(mount->source, search->wanted) != 0) ||
	    was_there(search, mount->id) || (search->at_home && !at_home))
		return false;
	search->found = mount->id;
	search->found_device = mount->device;
	search->at_home = at_home;
	snprintf(search->path, sizeof(search->path), "%s", mount->path);
	snprintf(search->source, sizeof(search->source), "%s", mount->source);
	return false;
}

bool vdifs_place_has(const struct vdifs_place *place, char source[PATH_MAX])
{
	struct search search = { .id = vdifs_mount_id(place->at), .home = place->path };

	if (search.id)
		vdifs_mounts_walk(search_step, &search);
	snprintf(source, PATH_MAX, "%s", search.source);
	return search.found && search.at_home;
}

/* --- mounting -------------------------------------------------------------------------------- */

/* The ids of all mounts. */
struct ids {
	int *ids; /* owned */
	unsigned count;
	bool has_failed; /* for want of memory */
};

static bool ids_step(const struct vdifs_mount *mount, void *context)
{
	struct ids *all = context;
	int *ids = realloc(all->ids, (all->count + 1) * sizeof(*ids));

	all->has_failed = !ids;
	if (!ids)
		return true;
	all->ids = ids;
	ids[all->count++] = mount->id;
	return false;
}

/* Through fusermount3. It asks for the same rights that we would need. */
static int mount_by_helper(const struct vdifs_place *place, const struct vdifs_options *options,
			   const char *source, int to, struct vd_error *err)
{
	char list[4 * PATH_MAX], kernel[2048];

	vdifs_kernel_options(options, kernel, sizeof(kernel));
	snprintf(list, sizeof(list), "ro,nosuid,nodev,%s%s,subtype=vdifs,fsname=",
		 vdifs_options_has(options, "noexec") ? "noexec," : "", kernel);
	vdifs_helper_escape(list, sizeof(list), source);
	return vdifs_helper_mount(place->path, list, to, err);
}

/* Find the mount that has just been made in another way than by its descriptor. */
static void find_new(struct vdifs_place *place, const char *source, const struct ids *before)
{
	struct search search = { .found = 0 };

	for (unsigned i = 0; i < TRIES_MAX && place->top < 0; i++) {
		search = (struct search){ .wanted = source,
					  .home = place->path,
					  .before = before->ids,
					  .before_count = before->count };
		vdifs_mounts_walk(search_step, &search);
		if (!search.found)
			return;
		place->device = search.found_device;
		place->top = vdifs_mount_reach(search.path, search.found);
		if (place->top < 0)
			poll(NULL, 0, 1);
	}
}

/* The device of the mount that place->top is in. */
static void find_device(struct vdifs_place *place)
{
	struct search search = { .id = vdifs_mount_id(place->top) };

	if (search.id)
		vdifs_mounts_walk(search_step, &search);
	if (search.found)
		place->device = search.found_device;
}

int vdifs_place_mount(struct vdifs_place *place, const struct vdifs_options *options,
		      const char *source, int to, struct vd_error *err)
{
	struct ids before = { .ids = NULL };
	char shown[1024];
	int r;

	vdifs_mounts_walk(ids_step, &before);
	if (before.has_failed)
		r = vd_fail(err, ENOMEM, "out of memory");
	else if (geteuid() == 0)
		r = vdifs_mount_directly(place, options, source, to, &place->top, err);
	else
		r = mount_by_helper(place, options, source, to, err);
	if (place->top >= 0)
		find_device(place);
	else if (!before.has_failed)
		find_new(place, source, &before);
	free(before.ids);
	close(place->at);
	place->at = -1;
	if (r < 0 || (place->device && place->top >= 0))
		return r;
	return vd_fail(err, EIO,
		       "%s: the mount is not in /proc/self/mountinfo; is /proc mounted, and has "
		       "the place just got another name?",
		       escape(shown, sizeof(shown), place->path));
}

void vdifs_place_ready(struct vdifs_place *place)
{
	if (place->top >= 0)
		close(place->top);
	place->top = -1;
}

void vdifs_place_clear(struct vdifs_place *place)
{
	vdifs_place_ready(place);
	if (place->at >= 0)
		close(place->at);
	place->at = -1;
}

void vdifs_place_raise_read_ahead(const struct vdifs_place *place)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(place->device),
		 minor(place->device));
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", VDIFS_READ_AHEAD_KIB);
	fclose(file);
}

/* --- unmounting ------------------------------------------------------------------------------ */

/* Is the server of the mount gone? If it lives, the mount is another's: numbers are used again. */
static bool is_dead(int fd)
{
	struct vdifs_probe probe = VDIFS_PROBE_NONE;
	int r = vdifs_probe_start(&probe, fd);

	if (r == 0)
		r = vdifs_probe_finish(&probe, DEAD_MS);
	return r == -ENOTCONN || r == -ECONNABORTED; /* the latter: it is just dying */
}

/*
 * Through a descriptor of the mount: between a look at a path and its use it may come to lead to
 * somebody else's. 1: it is to be left alone.
 */
static int unmount_through(int fd, const char *path, bool dead, struct vd_error *err)
{
	char link[VDIFS_LINK_ROOM];

	if (dead && !is_dead(fd))
		return 1;
	if (umount2(vdifs_descriptor_link(link, fd), MNT_DETACH) == 0)
		return 0;
	return vdifs_helper_unmount(path, true, err);
}

/* Where our mount is now. True: it is in search->path, and its id is known. */
static bool find_ours(const struct vdifs_place *place, struct search *search)
{
	*search = (struct search){ .device = place->device, .home = place->path };
	vdifs_mounts_walk(search_step, search);
	return search->found != 0;
}

/* Take one of the places away where it is. 0; 1: there is none that is to go; -errno. */
static int unmount_one(const struct vdifs_place *place, bool dead, struct vd_error *err)
{
	char shown[1024], word[1024];
	struct search search;
	int fd = -1, r;

	for (unsigned i = 0; i < TRIES_MAX && fd < 0; i++) {
		if (i)
			poll(NULL, 0, 1);
		if (!find_ours(place, &search))
			return 1;
		fd = vdifs_mount_reach(search.path, search.found);
	}
	if (fd < 0)
		return vd_fail(err, EBUSY,
			       "%s: cannot unmount: another mount lies over it; when that is gone: "
			       "fusermount3 -u %s",
			       escape(shown, sizeof(shown), search.path),
			       vdifs_shell_word(word, sizeof(word), search.path));
	r = unmount_through(fd, search.path, dead, err);
	close(fd);
	return r;
}

int vdifs_place_unmount(const struct vdifs_place *place, bool dead, struct vd_error *err)
{
	char link[VDIFS_LINK_ROOM];
	int r = 0;

	/* Not ready yet: it is ours, whatever paths lead to it by now. */
	if (place->top >= 0)
		umount2(vdifs_descriptor_link(link, place->top), MNT_DETACH);
	for (unsigned i = 0; i < PLACES_MAX && place->device && r == 0; i++)
		r = unmount_one(place, dead, err);
	return r < 0 ? r : 0;
}

int vdifs_place_unmount_idle(const struct vdifs_place *place, struct vd_error *err)
{
	char shown[1024];
	struct search search;
	int r = 0;

	for (unsigned i = 0; i < PLACES_MAX && r == 0 && find_ours(place, &search); i++) {
		r = vdifs_unmount_idle(search.path, search.found);
		if (r == -EPERM)
			r = vdifs_helper_unmount(search.path, false, err);
		else if (r < 0)
			vd_fail(err, -r, "%s: cannot unmount: %s",
				escape(shown, sizeof(shown), search.path), strerror(-r));
	}
	return r;
}
