/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two ways. fsopen(2), fsmount(2) and move_mount(2), since Linux 5.2, make the mount first and then
 * put it on a descriptor; it can be found and removed through a descriptor whatever happens to paths
 * meanwhile. mount(2) is for older kernels, and for containers that do not know the new calls.
 *
 * The calls are made by their numbers: C libraries got functions for them late.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/passing.h"
#include "vdifs/mounting.h"
#include "vdifs/mountinfo.h"

/* The same on all architectures, but for the offset of some. */
#ifndef SYS_fsopen
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif

/* From linux/mount.h, which older glibc does not let one include beside sys/mount.h. */
#define OPEN_CLOEXEC 1u /* of fsopen() and fsmount() */
#define SET_FLAG 0u
#define SET_STRING 1u
#define CREATE 6u
#define FROM_EMPTY_PATH 0x04u
#define TO_EMPTY_PATH 0x40u
#define ATTRIBUTE_RDONLY 0x01ul
#define ATTRIBUTE_NOSUID 0x02ul
#define ATTRIBUTE_NODEV 0x04ul
#define ATTRIBUTE_NOEXEC 0x08ul

#define OPTIONS_ROOM 2048

static const char *escape(char *out, size_t size, const char *path)
{
	return vd_escape(out, size, path, strlen(path));
}

static bool is_for_others(const struct vdifs_options *options)
{
	return vdifs_options_has(options, "allow_other") ||
	       vdifs_options_has(options, "allow_root");
}

void vdifs_kernel_options(const struct vdifs_options *options, char *out, size_t size)
{
	size_t used;

	snprintf(out, size, "default_permissions,max_read=%u%s", vdifs_request_bytes(options),
		 is_for_others(options) ? ",allow_other" : "");
	for (unsigned i = 0; i < options->context_count; i++) {
		used = strlen(out);
		snprintf(out + used, size - used, ",%s=\"%s\"", options->contexts[i].name,
			 options->contexts[i].value);
	}
}

/* --- the new calls --------------------------------------------------------------------------- */

/* A configuration; once a call has failed the others do nothing. */
struct config {
	int fd;
	bool has_failed;
};

static void set(struct config *config, const char *name, const char *value)
{
	config->has_failed = config->has_failed ||
			     syscall(SYS_fsconfig, config->fd, value ? SET_STRING : SET_FLAG, name,
				     value, 0) < 0;
}

static void set_number(struct config *config, const char *name, const char *format, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), *format == 'o' ? "%o" : "%u", value);
	set(config, name, text);
}

static void set_all(struct config *config, const struct vdifs_place *place,
		    const struct vdifs_options *options, const char *source, int device)
{
	set(config, "source", source);
	set(config, "subtype", "vdifs");
	set(config, "ro", NULL);
	set_number(config, "fd", "u", (unsigned)device);
	set_number(config, "rootmode", "o", place->is_directory ? S_IFDIR : S_IFREG);
	set_number(config, "user_id", "u", getuid());
	set_number(config, "group_id", "u", getgid());
	set_number(config, "max_read", "u", vdifs_request_bytes(options));
	set(config, "default_permissions", NULL);
	if (is_for_others(options))
		set(config, "allow_other", NULL);
	for (unsigned i = 0; i < options->context_count; i++)
		set(config, options->contexts[i].name, options->contexts[i].value);
}

/* Make a mount that is nowhere yet. Its descriptor, or -1: mount(2) will do it, or say why not. */
static int make_mount(const struct vdifs_place *place, const struct vdifs_options *options,
		      const char *source, int device)
{
	unsigned long attributes = ATTRIBUTE_RDONLY | ATTRIBUTE_NOSUID | ATTRIBUTE_NODEV;
	struct config config = { .fd = (int)syscall(SYS_fsopen, "fuse", OPEN_CLOEXEC) };
	int mount = -1;

	if (config.fd < 0)
		return -1;
	if (vdifs_options_has(options, "noexec"))
		attributes |= ATTRIBUTE_NOEXEC;
	set_all(&config, place, options, source, device);
	config.has_failed = config.has_failed ||
			    syscall(SYS_fsconfig, config.fd, CREATE, NULL, NULL, 0) < 0;
	if (!config.has_failed)
		mount = (int)syscall(SYS_fsmount, config.fd, OPEN_CLOEXEC, attributes);
	close(config.fd);
	return mount;
}

/* --- mount(2) -------------------------------------------------------------------------------- */

static int mount_old(const struct vdifs_place *place, const struct vdifs_options *options,
		     const char *source, int device)
{
	unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
	char kernel[OPTIONS_ROOM], data[OPTIONS_ROOM + 128], link[VDIFS_LINK_ROOM];

	if (vdifs_options_has(options, "noexec"))
		flags |= MS_NOEXEC;
	vdifs_kernel_options(options, kernel, sizeof(kernel));
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u,%s", device,
		 place->is_directory ? S_IFDIR : S_IFREG, getuid(), getgid(), kernel);
	if (mount(source, vdifs_descriptor_link(link, place->at), "fuse.vdifs", flags, data) < 0)
		return -errno;
	return 0;
}

/* --- both ------------------------------------------------------------------------------------ */

static int mount_fail(struct vd_error *err, int r, const char *path)
{
	char shown[512];

	escape(shown, sizeof(shown), path);
	if (r == -EPERM)
		return vd_fail(err, EPERM,
			       "%s: cannot mount: %s; it takes CAP_SYS_ADMIN and a mount namespace "
			       "of one's own (in a container: --cap-add SYS_ADMIN; elsewhere: "
			       "unshare -Urm)",
			       shown, strerror(-r));
	if (r == -ENODEV)
		return vd_fail(err, ENODEV,
			       "%s: cannot mount: the kernel has no FUSE; load the module with: "
			       "modprobe fuse",
			       shown);
	return vd_fail(err, -r, "%s: cannot mount: %s", shown, strerror(-r));
}

/*
 * The server gets the descriptor before the mount can be seen: a mount without a server would be left
 * behind if we were killed in between.
 */
int vdifs_mount_directly(const struct vdifs_place *place, const struct vdifs_options *options,
			 const char *source, int to, int *top, struct vd_error *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), r;

	*top = -1;
	if (fd < 0)
		return vd_fail(err, errno, "/dev/fuse: %s", strerror(errno));
	*top = make_mount(place, options, source, fd);
	r = vd_pass(to, "", 1, fd); /* a byte of zero, as fusermount3 does */
	if (r == 0 && *top < 0)
		r = mount_old(place, options, source, fd);
	else if (r == 0 && syscall(SYS_move_mount, *top, "", place->at, "",
				   FROM_EMPTY_PATH | TO_EMPTY_PATH) < 0)
		r = -errno;
	close(fd);
	return r < 0 ? mount_fail(err, r, place->path) : 0;
}
