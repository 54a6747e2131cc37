/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One table. auto_unmount is what the supervisor does anyway. */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/statfs.h>

#include "vdifs/mount_words.h"

#define SELINUX_PLACE "/sys/fs/selinux"
#define SELINUX_TYPE 0xf97cff8c

enum value { NONE, MAY, MUST };

static const struct row {
	const char *name;
	enum vdifs_word word;
	enum value value;
	const char *reason; /* of a refusal */
} rows[] = {
	/* always on, or always off */
	{ "ro", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "rw", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nodev", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "dev", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nosuid", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "suid", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "default_permissions", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nonempty", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "subtype", VDIFS_WORD_IGNORED, MUST, NULL },
	/* a mount of vdifs has no symbolic links */
	{ "nosymfollow", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "symfollow", VDIFS_WORD_IGNORED, NONE, NULL },
	/* for mount(8), systemd and those who read /etc/fstab */
	{ "defaults", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "auto", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "noauto", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "user", VDIFS_WORD_IGNORED, MAY, NULL },
	{ "nouser", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "users", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nousers", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "owner", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "noowner", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "group", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nogroup", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "_netdev", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nofail", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "comment", VDIFS_WORD_IGNORED, MUST, NULL },
	{ "uhelper", VDIFS_WORD_IGNORED, MUST, NULL },
	{ "helper", VDIFS_WORD_IGNORED, MUST, NULL },
	/* about times and writes, of which there are none */
	{ "atime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "noatime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "diratime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nodiratime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "relatime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "norelatime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "strictatime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nostrictatime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "lazytime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nolazytime", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "iversion", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "noiversion", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "mand", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "nomand", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "silent", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "loud", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "sync", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "async", VDIFS_WORD_IGNORED, NONE, NULL },
	{ "dirsync", VDIFS_WORD_IGNORED, NONE, NULL },
	/* what libfuse or the kernel does */
	{ "allow_other", VDIFS_WORD_PASSED, NONE, NULL },
	{ "allow_root", VDIFS_WORD_PASSED, NONE, NULL },
	{ "auto_unmount", VDIFS_WORD_PASSED, NONE, NULL },
	{ "exec", VDIFS_WORD_PASSED, NONE, NULL },
	{ "noexec", VDIFS_WORD_PASSED, NONE, NULL },
	{ "context", VDIFS_WORD_CONTEXT, MUST, NULL },
	{ "fscontext", VDIFS_WORD_CONTEXT, MUST, NULL },
	{ "defcontext", VDIFS_WORD_CONTEXT, MUST, NULL },
	{ "rootcontext", VDIFS_WORD_CONTEXT, MUST, NULL },
	{ "remount", VDIFS_WORD_REMOUNT, NONE, NULL },
	/* what other programs have */
	{ "loop", VDIFS_WORD_REFUSED, MAY, "vdifs reads the image without a loop device" },
	{ "offset", VDIFS_WORD_REFUSED, MUST,
	  "vdifs shows the whole disk; losetup --partscan finds its partitions" },
	{ "sizelimit", VDIFS_WORD_REFUSED, MUST,
	  "vdifs shows the whole disk; losetup --partscan finds its partitions" },
	{ "uid", VDIFS_WORD_REFUSED, MUST, "the files shown belong to the owner of the image" },
	{ "gid", VDIFS_WORD_REFUSED, MUST, "the files shown have the group of the image" },
	{ "umask", VDIFS_WORD_REFUSED, MUST, "the files shown have the mode of the image" },
	{ "direct_io", VDIFS_WORD_REFUSED, NONE, "the option of vdifs is: direct" },
	{ NULL, VDIFS_WORD_UNKNOWN, NONE, NULL },
};

static bool has_selinux(void)
{
	struct statfs fs;

	return statfs(SELINUX_PLACE, &fs) == 0 && (unsigned long)fs.f_type == SELINUX_TYPE;
}

enum vdifs_word vdifs_word_find(const char *name, const char *value, struct vd_error *err)
{
	const struct row *row = rows;

	/* x-systemd.automount, X-mount.mkdir: anything may follow */
	if (strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0)
		return VDIFS_WORD_IGNORED;
	while (row->name && strcmp(row->name, name) != 0)
		row++;
	if (row->value == MUST && !value)
		vd_fail(err, EINVAL, "-o %s needs a value", name);
	else if (row->name && row->value == NONE && value)
		vd_fail(err, EINVAL, "-o %s takes no value", name);
	else if (row->word == VDIFS_WORD_REFUSED)
		vd_fail(err, EINVAL, "-o %s: %s", name, row->reason);
	else if (row->word == VDIFS_WORD_CONTEXT && !has_selinux())
		vd_fail(err, EINVAL, "-o %s: SELinux is not active here (no " SELINUX_PLACE ")",
			name);
	else if (row->word == VDIFS_WORD_CONTEXT && strchr(value, '"'))
		vd_fail(err, EINVAL, "-o %s: a context has no quotes in it", name);
	else
		return row->word;
	return VDIFS_WORD_REFUSED;
}

void vdifs_word_note(struct vdifs_word_list *list, const char *name)
{
	list->has_rw |= strcmp(name, "rw") == 0;
	list->has_dev |= strcmp(name, "dev") == 0 || strcmp(name, "nodev") == 0;
	list->has_suid |= strcmp(name, "suid") == 0 || strcmp(name, "nosuid") == 0;
}

int vdifs_word_list_check(const struct vdifs_word_list *list, struct vd_error *err)
{
	if (list->has_rw && !(list->has_dev && list->has_suid))
		return vd_fail(err, EINVAL, "-o rw: vdifs never writes to an image; leave rw out");
	return 0;
}

void vdifs_word_nearest(struct vd_nearest *nearest)
{
	for (const struct row *row = rows; row->name; row++)
		vd_nearest_try(nearest, row->name);
}
