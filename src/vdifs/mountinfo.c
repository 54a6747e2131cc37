/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vdifs/mountinfo.h"

/* Undo the octal escapes in place. */
static void octal_unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
				       (text[3] - '0'));
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

/* Cut the next word off, in which blanks are escaped. NULL: there is none. */
static char *word_take(char **rest)
{
	char *word = strsep(rest, " \n");

	return word && *word ? word : NULL;
}

/* Take a line apart, which is changed. False: it makes no sense. */
static bool line_parse(char *line, struct vdifs_mount *out)
{
	unsigned major_number, minor_number;
	char *rest, *type, *source, *path, *user;
	int at = 0;

	if (sscanf(line, "%d %d %u:%u %*s %n", &out->id, &out->parent, &major_number,
		   &minor_number, &at) != 4 ||
	    at == 0)
		return false;
	out->device = makedev(major_number, minor_number);
	rest = strstr(line + at, " - ");
	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	path = line + at;
	path[strcspn(path, " ")] = '\0';
	type = word_take(&rest);
	source = word_take(&rest);
	if (!type || !source)
		return false;
	out->is_vdifs = strcmp(type, "fuse.vdifs") == 0;
	user = rest ? strstr(rest, "user_id=") : NULL;
	out->user = user ? (uid_t)strtoul(user + strlen("user_id="), NULL, 10) : 0;
	octal_unescape(path);
	octal_unescape(source);
	out->path = path;
	out->source = source;
	return true;
}

void vdifs_mounts_walk(vdifs_mount_fn *each, void *context)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	struct vdifs_mount mount;
	char *line = NULL;
	size_t room = 0;

	while (mounts && getline(&line, &room, mounts) > 0) {
		if (line_parse(line, &mount) && each(&mount, context))
			break;
	}
	free(line);
	if (mounts)
		fclose(mounts);
}

int vdifs_mount_id(int fd)
{
	char line[64];
	FILE *info;
	int id = 0;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	info = fopen(line, "re");
	while (info && fgets(line, sizeof(line), info) && sscanf(line, "mnt_id: %d", &id) != 1)
		;
	if (info)
		fclose(info);
	return id;
}

int vdifs_mount_reach(const char *path, int id)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || vdifs_mount_id(fd) == id)
		return fd;
	close(fd);
	return -1;
}

int vdifs_unmount_idle(const char *path, int id)
{
	const char *slash = strrchr(path, '/');
	char above[PATH_MAX], there[VDIFS_LINK_ROOM + NAME_MAX];
	int directory, fd, r = 0;

	if (!slash || strlen(slash) > NAME_MAX)
		return -EINVAL;
	snprintf(above, sizeof(above), "%.*s", (int)(slash - path + 1), path);
	directory = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return -errno;
	snprintf(there, sizeof(there), "/proc/self/fd/%d%s", directory, slash);
	fd = vdifs_mount_reach(there, id);
	if (fd >= 0)
		close(fd);
	if (fd < 0)
		r = -ESTALE;
	else if (umount2(there, UMOUNT_NOFOLLOW) < 0)
		r = -errno;
	close(directory);
	return r;
}

const char *vdifs_descriptor_link(char link[VDIFS_LINK_ROOM], int fd)
{
	snprintf(link, VDIFS_LINK_ROOM, "/proc/self/fd/%d", fd);
	return link;
}

int vdifs_descriptor_path(int fd, char path[PATH_MAX])
{
	char link[VDIFS_LINK_ROOM];
	ssize_t length = readlink(vdifs_descriptor_link(link, fd), path, PATH_MAX);

	if (length < 0)
		return -errno;
	if (length == PATH_MAX)
		return -ENAMETOOLONG;
	path[length] = '\0';
	return 0;
}
