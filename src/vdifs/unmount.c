/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection to the processes of the mount is made before the unmount: afterwards its device
 * number may soon be another mount's.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "vdifs/helper.h"
#include "vdifs/lifeline.h"
#include "vdifs/mountinfo.h"
#include "vdifs/probe.h"
#include "vdifs/unmount.h"

/* After so long a user at a terminal wants to know why the command waits. */
#define PATIENCE_MS 5000
/* A dead mount says so at once. */
#define DEAD_MS 1000

struct target {
	char path[PATH_MAX]; /* real */
	char shown[1024]; /* the same, for messages */
	int id;
	dev_t device;
	uid_t user;
	bool is_mount, is_vdifs, is_dead;
	int fds[VDIFS_LIFELINES_MAX]; /* connections to its processes */
	unsigned count;
	char elsewhere[PATH_MAX]; /* another place of the same mount */
};

/* vdifs_mount_fns */
static bool target_step(const struct vdifs_mount *mount, void *context)
{
	struct target *target = context;

	if (mount->id != target->id)
		return false;
	target->is_mount = strcmp(mount->path, target->path) == 0;
	target->is_vdifs = mount->is_vdifs;
	target->device = mount->device;
	target->user = mount->user;
	return true;
}

static bool elsewhere_step(const struct vdifs_mount *mount, void *context)
{
	struct target *target = context;

	if (mount->device == target->device && mount->is_vdifs)
		snprintf(target->elsewhere, sizeof(target->elsewhere), "%s", mount->path);
	return *target->elsewhere != '\0';
}

static bool is_dead(int fd)
{
	struct vdifs_probe probe = VDIFS_PROBE_NONE;

	return vdifs_probe_start(&probe, fd) == 0 &&
	       vdifs_probe_finish(&probe, DEAD_MS) == -ENOTCONN;
}

static int target_find(struct target *target, const char *mountpoint, struct vd_error *err)
{
	int fd = open(mountpoint, O_PATH | O_CLOEXEC);
	int r = fd < 0 ? -errno : vdifs_descriptor_path(fd, target->path);

	vd_escape(target->shown, sizeof(target->shown), r < 0 ? mountpoint : target->path,
		  strlen(r < 0 ? mountpoint : target->path));
	if (r == 0) {
		target->id = vdifs_mount_id(fd);
		vdifs_mounts_walk(target_step, target);
		/* Who asks a server that hangs is stuck, and keeps the mount in use. */
		if (target->is_mount && target->is_vdifs)
			target->count = vdifs_lifeline_connect(target->device, target->user,
							       target->fds);
		if (target->is_mount && target->is_vdifs && target->count == 0)
			target->is_dead = is_dead(fd);
	}
	if (fd >= 0)
		close(fd);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot unmount: %s", target->shown, strerror(-r));
	if (!target->is_mount)
		return vd_fail(err, EINVAL, "%s: nothing is mounted here", target->shown);
	if (!target->is_vdifs)
		return vd_fail(err, EINVAL,
			       "%s: this is not a mount of vdifs; unmount it with umount",
			       target->shown);
	return 0;
}

static int unmount_now(const struct target *target, struct vd_error *err)
{
	int r = vdifs_unmount_idle(target->path, target->id);

	if (r == -EPERM)
		return vdifs_helper_unmount(target->path, false, err);
	return r < 0 ? vd_fail(err, -r, "%s: cannot unmount: %s", target->shown, strerror(-r)) : 0;
}

static int wait_for_end(struct target *target)
{
	int r = vdifs_lifeline_wait(target->fds, target->count, PATIENCE_MS);

	if (r < 0)
		vd_log(LOG_WARNING,
		       "%s is unmounted; waiting for the image, which storage that does not answer "
		       "or another mount namespace keeps in use",
		       target->shown);
	return r < 0 ? vdifs_lifeline_wait(target->fds, target->count, -1) : 0;
}

int vdifs_unmount(const char *mountpoint, struct vd_error *err)
{
	struct target target = { .id = 0 };
	int r = target_find(&target, mountpoint, err);
	char shown[1024];

	if (r == 0)
		r = unmount_now(&target, err);
	if (r < 0)
		return r;
	vdifs_mounts_walk(elsewhere_step, &target);
	if (*target.elsewhere)
		return vd_fail(err, EBUSY,
			       "%s is unmounted, but the image stays in use: the same mount is at %s",
			       target.shown,
			       vd_escape(shown, sizeof(shown), target.elsewhere,
					 strlen(target.elsewhere)));
	if (target.count == 0 && !target.is_dead)
		return vd_fail(err, ESRCH,
			       "%s is unmounted, but the process that served it is not found (in "
			       "another network namespace?): the image may be in use a moment longer",
			       target.shown);
	return wait_for_end(&target);
}
