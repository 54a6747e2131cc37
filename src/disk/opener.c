/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backing policy. What an image may make us open is the oldest hole of image readers:
 * by default only a file below the directory of the file that names it, owned by the owner of the
 * image. The kernel's openat2(RESOLVE_BENEATH) decides that, not string comparison.
 *
 * A file is found first (find.h) and examined. Only a regular file, or a block device that the user
 * named or allowed with --backing=any, is then opened for reading: nothing else notices us.
 *
 * Names are looked up as QEMU does it, beside the path that was given: /dev/VG/LV is a symbolic
 * link, and the names of other volumes are links beside it.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/find.h"
#include "disk/opener.h"
#include "source/address.h"

/* For a chain of VD_LAYERS_MAX layers with two directories each, twice, and some room. */
#define DESCRIPTORS 4096

/* A name that a program might take for an address: letters, then a colon, before any slash. */
static bool name_has_scheme(const char *name)
{
	size_t letters = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789+.-");

	return letters > 0 && name[letters] == ':';
}

/* The path by which the file was found, for messages; `given` where the kernel cannot say. */
static void found_path(const struct vd_found *found, const char *given, char *path, size_t room)
{
	bool has_directory = found->base && !(found->is_link && found->real_fd < 0) &&
			     vd_find_path(found->dir_fd, path, room);
	size_t used = has_directory ? strlen(path) : 0;

	if (has_directory && used + 1 + strlen(found->base) < room) {
		if (path[used - 1] != '/') /* not the root */
			path[used++] = '/';
		strcpy(path + used, found->base);
	} else if (!vd_find_path(found->fd, path, room)) {
		strncpy(path, given, room - 1);
		path[room - 1] = '\0';
	}
}

/*
 * Is this the number that stands for all users whom a user namespace, as of a container, does not know?
 * Two files of that owner may belong to two.
 */
static bool is_unknown(uid_t owner)
{
	unsigned first = 0, outside = 0, count = 0, overflow = 65534;
	FILE *file = fopen("/proc/sys/kernel/overflowuid", "re");

	if (file) {
		if (fscanf(file, "%u", &overflow) != 1)
			overflow = 65534;
		fclose(file);
	}
	if (owner != overflow)
		return false;
	file = fopen("/proc/self/uid_map", "re");
	if (!file)
		return true;
	if (fscanf(file, "%u %u %u", &first, &outside, &count) != 3)
		count = 0;
	fclose(file);
	return first != 0 || outside != 0 || count != UINT32_MAX;
}

/* What the policy says about the file itself, before it is opened. */
static int check_file(const struct vd_open_request *request, const char *shown, const char *path,
		      const struct stat *st, struct vd_error *err)
{
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return vd_fail(err, EINVAL, "%s: not a regular file or block device", path);
	if (!request->base || request->policy == VD_BACKING_ANY)
		return 0;
	if (S_ISBLK(st->st_mode))
		return vd_fail(err, ENOTBLK, "%s: %s '%s' is a block device", request->base->name,
			       request->role, shown);
	if (st->st_uid != request->owner)
		return vd_fail(err, EPERM, "%s: %s '%s' belongs to user %u, the image to user %u",
			       request->base->name, request->role, shown, st->st_uid,
			       request->owner);
	if (is_unknown(st->st_uid))
		return vd_fail(err, EPERM,
			       "%s: whether %s '%s' has the same owner cannot be told in this user "
			       "namespace",
			       request->base->name, request->role, shown);
	return 0;
}

/* The directory of the path as it was given, as absolute text; owned, or NULL. */
static char *directory_text(const char *given)
{
	const char *slash = strrchr(given, '/');
	int bytes = slash ? (int)(slash - given) : 0;
	char *here, *text = NULL;

	if (*given == '/')
		return strndup(given, bytes ? (size_t)bytes : 1);
	here = get_current_dir_name();
	if (here && asprintf(&text, "%s/%.*s", here, bytes, given) < 0)
		text = NULL;
	free(here);
	return text;
}

/*
 * Examine what was found, open it and make a source of it. `shown`: its name, escaped; `given`: the
 * path that was followed, or NULL.
 */
static int accept_found(const struct vd_open_request *request, const char *shown, const char *given,
			struct vd_found *found, struct vd_source **out, struct vd_error *err)
{
	char path[PATH_MAX], path_shown[1024];
	struct vd_source *source;
	int fd, r;

	found_path(found, request->name, path, sizeof(path));
	vd_escape(path_shown, sizeof(path_shown), path, strlen(path));
	r = check_file(request, shown, path_shown, &found->st, err);
	if (r < 0)
		return r;
	fd = vd_found_open(found);
	if (fd < 0)
		return vd_fail(err, -fd, "%s: cannot open the %s: %s", path_shown, request->role,
			       strerror(-fd));
	r = vd_source_from_fd(fd, found->dir_fd, path, &source, err);
	found->dir_fd = -1;
	if (r < 0)
		return r;
	vd_identity_find(fd, &source->identity);
	source->real_fd = found->real_fd;
	found->real_fd = -1;
	source->dir_text = given && !found->is_elsewhere ? directory_text(given) : NULL;
	*out = source;
	return 0;
}

/* --- names from images ----------------------------------------------------------------------- */

static int find_by_policy(const struct vd_open_request *request, int dir_fd, const char *name,
			  struct vd_found *found)
{
	if (dir_fd < 0)
		return -ENOENT;
	return request->policy == VD_BACKING_ANY ? vd_find(dir_fd, name, found)
						 : vd_find_beneath(dir_fd, name, found);
}

/* Log where else there is a file of that name, and which one is taken. */
static void log_both(const struct vd_open_request *request, const char *shown,
		     const struct vd_found *taken, const struct vd_found *other)
{
	char path[PATH_MAX], one[1024], two[1024];

	found_path(taken, request->name, path, sizeof(path));
	vd_escape(one, sizeof(one), path, strlen(path));
	found_path(other, request->name, path, sizeof(path));
	vd_escape(two, sizeof(two), path, strlen(path));
	vd_log(LOG_WARNING,
	       "%s is a symbolic link, and there are two files '%s': %s, which comes first, as for "
	       "QEMU, and %s",
	       request->base->name, shown, one, two);
}

static void log_real(const struct vd_open_request *request, const char *shown,
		     const struct vd_found *found)
{
	char path[PATH_MAX], where[1024];

	found_path(found, request->name, path, sizeof(path));
	vd_escape(where, sizeof(where), path, strlen(path));
	vd_log(LOG_WARNING,
	       "%s is a symbolic link and has no %s '%s' beside it; there is one beside the real "
	       "file, %s",
	       request->base->name, request->role, shown, where);
}

/* Look beside the path that led to the base, then beside the real file. */
static int find_relative(const struct vd_open_request *request, const char *shown,
			 struct vd_found *found)
{
	const struct vd_source *base = request->base;
	int first = request->beside_real ? base->real_fd : base->dir_fd;
	int r = find_by_policy(request, first, request->name, found);
	struct vd_found other = VD_FOUND_NONE;

	if (request->beside_real) {
		found->is_elsewhere = true;
		return r;
	}
	if (base->real_fd < 0 || (r < 0 && r != -ENOENT && r != -ENOTDIR) ||
	    find_by_policy(request, base->real_fd, request->name, &other) < 0)
		return r;
	if (r < 0) {
		*found = other;
		found->is_elsewhere = true;
		log_real(request, shown, found);
		return 0;
	}
	if (!vd_found_same(found, &other))
		log_both(request, shown, found, &other);
	vd_found_clear(&other);
	return 0;
}

/*
 * An absolute name under same-dir: it must begin with the path of the base's directory. Anything
 * else is refused untouched, since a file system that does not answer would hold us.
 */
static int find_absolute_beneath(const struct vd_open_request *request, struct vd_found *found)
{
	const struct vd_source *base = request->base;
	const char *rest = base->dir_text ? vd_find_inside(base->dir_text, request->name) : NULL;
	const int fds[] = { base->dir_fd, base->real_fd };
	int fd = base->dir_fd;
	char path[PATH_MAX];

	for (unsigned i = 0; i < 2 && !rest; i++) {
		fd = fds[i];
		if (fd >= 0 && vd_find_path(fd, path, sizeof(path)))
			rest = vd_find_inside(path, request->name);
	}
	return rest ? find_by_policy(request, fd, rest, found) : -EXDEV;
}

/* In a directory that the user gave. The name is one part of a path. */
static int find_in_directory(const struct vd_open_request *request, struct vd_found *found)
{
	int fd = open(request->directory, O_PATH | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = strchr(request->name, '/') ? -EINVAL
				       : find_by_policy(request, fd, request->name, found);
	close(fd);
	return r;
}

static int find_named_by_image(const struct vd_open_request *request, const char *shown,
			       struct vd_found *found)
{
	if (request->directory)
		return find_in_directory(request, found);
	if (*request->name != '/')
		return find_relative(request, shown, found);
	if (request->beside_real)
		return -ENOENT;
	if (request->policy == VD_BACKING_ANY)
		return vd_find(AT_FDCWD, request->name, found);
	return find_absolute_beneath(request, found);
}

/* The text of the directory in which a name of this file leads to a file; owned, or NULL. */
static char *path_given(const struct vd_open_request *request)
{
	char *path = NULL;

	if (request->directory) {
		if (asprintf(&path, "%s/%s", request->directory, request->name) < 0)
			path = NULL;
	} else if (*request->name == '/') {
		path = strdup(request->name);
	} else if (request->base->dir_text) {
		if (asprintf(&path, "%s/%s", request->base->dir_text, request->name) < 0)
			path = NULL;
	}
	return path;
}

/* A file that an image names. */
static int open_named_by_image(const struct vd_open_request *request, struct vd_source **out,
			       struct vd_error *err)
{
	const char *from = request->base->name;
	struct vd_found found = VD_FOUND_NONE;
	char shown[512], *given;
	int r;

	vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
	if (request->policy == VD_BACKING_NONE)
		return vd_fail(err, EACCES, "%s: needs the %s '%s', but --backing=none forbids it",
			       from, request->role, shown);
	if (name_has_scheme(request->name) && !request->directory)
		return vd_fail(err, EINVAL,
			       "%s: %s '%s' is an address, not a file name, and never opened", from,
			       request->role, shown);
	if (request->base->is_server && !request->directory &&
	    (request->policy != VD_BACKING_ANY || *request->name != '/'))
		return vd_fail(err, EXDEV,
			       "%s: names the %s '%s', but an image on a server is in no directory",
			       from, request->role, shown);
	if (S_ISBLK(request->base->st.st_mode) && !request->directory &&
	    request->policy != VD_BACKING_ANY)
		return vd_fail(err, EXDEV,
			       "%s: names the %s '%s', but a guest may have written what is on a block "
			       "device",
			       from, request->role, shown);
	r = find_named_by_image(request, shown, &found);
	if (r == -EXDEV)
		return vd_fail(err, EXDEV, "%s: %s '%s' lies outside the image's directory", from,
			       request->role, shown);
	if (r == -ENOSYS)
		return vd_fail(err, EXDEV,
			       "%s: %s '%s' has a symbolic link or '..' in it, and openat2(2), which "
			       "keeps it in the image's directory, is missing here",
			       from, request->role, shown);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot open %s '%s': %s", from, request->role, shown,
			       strerror(-r));
	given = path_given(request);
	r = accept_found(request, shown, given, &found, out, err);
	free(given);
	vd_found_clear(&found);
	return r;
}

/* --- names by hand --------------------------------------------------------------------------- */

/* A server that the user names. */
static int open_address(const struct vd_open_request *request, struct vd_source **out,
			struct vd_error *err)
{
	unsigned seconds = request->patience.seconds;
	struct vd_error why = { "" };
	struct vd_address address;
	char shown[1024];
	int r = vd_address_parse(request->name, &address, err);

	if (r < 0)
		return r;
	r = vd_address_connect(&address, seconds ? seconds : VD_PATIENCE_SECONDS, &why);
	vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot open the %s: %s", shown, request->role,
			       why.text);
	return vd_source_from_socket(r, request->name, out, err);
}

/* A file that the user names. */
static int open_named_by_hand(const struct vd_open_request *request, struct vd_source **out,
			      struct vd_error *err)
{
	struct vd_found found = VD_FOUND_NONE;
	char shown[1024];
	int r = vd_find(AT_FDCWD, request->name, &found);

	vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot open the %s: %s", shown, request->role,
			       strerror(-r));
	r = accept_found(request, shown, request->name, &found, out, err);
	vd_found_clear(&found);
	return r;
}

int vd_opener_open(const struct vd_open_request *request, struct vd_source **out,
		   struct vd_error *err)
{
	int r;

	if (request->base)
		r = open_named_by_image(request, out, err);
	else if (vd_address_is(request->name))
		r = open_address(request, out, err);
	else
		r = open_named_by_hand(request, out, err);
	/* Of a file server or a race. To callers it means another UUID. */
	return r == -ESTALE ? -EIO : r;
}

/* --- lists ----------------------------------------------------------------------------------- */

struct list {
	char **names; /* owned */
	size_t count, room;
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_add(struct list *list, const char *name)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		char **names = reallocarray(list->names, room, sizeof(*names));

		if (!names)
			return -ENOMEM;
		list->names = names;
		list->room = room;
	}
	list->names[list->count] = strdup(name);
	if (!list->names[list->count])
		return -ENOMEM;
	list->count++;
	return 0;
}

/* Can it be a disk image, as far as the directory says? */
static bool may_be_file(const struct dirent *entry)
{
	return entry->d_type == DT_REG || entry->d_type == DT_BLK || entry->d_type == DT_LNK ||
	       entry->d_type == DT_UNKNOWN;
}

/* Add all names after `after`. */
static int list_fill(struct list *list, DIR *directory, const char *after)
{
	struct dirent *entry;
	int r = 0;

	errno = 0;
	while (r == 0 && (entry = readdir(directory))) {
		if (may_be_file(entry) && strcmp(entry->d_name, after) > 0)
			r = list_add(list, entry->d_name);
		errno = 0;
	}
	if (r == 0 && errno != 0)
		r = -errno;
	if (list->count > 0) /* without any there is no array */
		qsort(list->names, list->count, sizeof(*list->names), compare_names);
	return r;
}

static void list_free(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->names[i]);
	free(list->names);
}

int vd_opener_list(const char *directory, const char *after, char *names, struct vd_error *err)
{
	DIR *open_directory = opendir(directory);
	int r = open_directory ? 0 : -errno;
	struct list list = { 0 };
	char shown[1024];
	size_t used = 0;

	if (r == 0) {
		r = list_fill(&list, open_directory, after);
		closedir(open_directory);
	}
	for (size_t i = 0; i < list.count && r == 0; i++) {
		size_t bytes = strlen(list.names[i]) + 1;

		if (used + bytes > VD_LIST_BYTES)
			break;
		memcpy(names + used, list.names[i], bytes);
		used += bytes;
	}
	list_free(&list);
	if (r == 0)
		return (int)used;
	vd_escape(shown, sizeof(shown), directory, strlen(directory));
	return vd_fail(err, -r, "%s: cannot look through this directory: %s", shown, strerror(-r));
}

/* --- this process ---------------------------------------------------------------------------- */

void vd_opener_raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= DESCRIPTORS)
		return;
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_here(void *context, const struct vd_open_request *request, struct vd_source **out,
		     struct vd_error *err)
{
	struct vd_source *source;
	int r = vd_opener_open(request, &source, err);

	(void)context;
	if (r < 0)
		return r;
	r = vd_source_begin(source, &request->patience, err);
	if (r < 0)
		vd_source_close(source);
	else
		*out = source;
	return r;
}

static int list_here(void *context, const char *directory, const char *after, char *names,
		     struct vd_error *err)
{
	(void)context;
	return vd_opener_list(directory, after, names, err);
}

const struct vd_opener vd_opener_here = { .open = open_here, .list = list_here };
