/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backing policy. What an image may make us open is the oldest hole of image readers:
 * by default only a file below the directory of the file that names it, owned by the owner of the
 * image. The kernel's openat2(RESOLVE_BENEATH) decides that, not string comparison.
 *
 * All files are opened without blocking (a FIFO would hang us) and then checked to be regular;
 * block devices only where the user named them or said --backing=any.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "disk/opener.h"
#include "source/address.h"

#define OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
#define DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define OPENAT2_TRIES 100

/* A name that a program might take for an address: letters, then a colon, before any slash. */
static bool name_has_scheme(const char *name)
{
	size_t letters = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789+.-");

	return letters > 0 && name[letters] == ':';
}

/* openat(2) that cannot leave dir_fd. -errno, or the descriptor. */
static int open_beneath(int dir_fd, const char *name)
{
	struct open_how how = {
		.flags = OPEN_FLAGS,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	for (int i = 0; i < OPENAT2_TRIES; i++) {
		fd = syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN) /* EAGAIN: a rename raced with "..", try again */
			break;
	}
	if (fd < 0 && errno == ENOSYS) { /* before Linux 5.6 */
		if (strchr(name, '/'))
			return -EXDEV;
		fd = openat(dir_fd, name, OPEN_FLAGS | O_NOFOLLOW);
	}
	return fd < 0 ? -errno : (int)fd;
}

static bool same_directory(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* Is the directory fd at or below base_fd? Walks up to the root. */
static bool directory_is_beneath(int fd, int base_fd)
{
	int at = openat(fd, ".", DIR_FLAGS);
	bool beneath = false;

	while (at >= 0 && !beneath) {
		int up;

		beneath = same_directory(at, base_fd);
		up = beneath ? -1 : openat(at, "..", DIR_FLAGS);
		if (up >= 0 && same_directory(up, at)) { /* the root */
			close(up);
			up = -1;
		}
		close(at);
		at = up;
	}
	return beneath;
}

/* An absolute name is fine if its directory lies at or below the base directory. */
static int open_absolute_beneath(int base_fd, const char *name)
{
	const char *file = strrchr(name, '/') + 1;
	char *directory = strndup(name, (size_t)(file - name));
	int dir_fd = directory ? open(directory, DIR_FLAGS) : -1;
	int fd = dir_fd < 0 ? -errno : -EXDEV;

	free(directory);
	if (dir_fd < 0)
		return fd;
	if (directory_is_beneath(dir_fd, base_fd))
		fd = open_beneath(dir_fd, file);
	close(dir_fd);
	return fd;
}

/* The directory that names in the file will be relative to, and the file's full path. */
static int find_directory(int fd, char *path, size_t path_size)
{
	char link[64];
	char *slash;
	ssize_t length;
	int dir_fd;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, path_size - 1);
	if (length <= 0 || path[0] != '/')
		return -1;
	path[length] = '\0';
	slash = strrchr(path, '/');
	*slash = '\0';
	dir_fd = open(*path ? path : "/", DIR_FLAGS);
	*slash = '/';
	return dir_fd;
}

/* Turn the descriptor into a source and check what the policy says about the file itself. */
static int accept_file(const struct vd_open_request *request, const char *shown, int fd,
		       struct vd_source **out, struct vd_error *err)
{
	char path[PATH_MAX];
	int dir_fd = find_directory(fd, path, sizeof(path));
	struct vd_source *source;
	int r = vd_source_from_fd(fd, dir_fd, dir_fd >= 0 ? path : request->name, &source, err);

	if (r < 0)
		return r;
	vd_identity_find(fd, &source->identity);
	if (request->base && S_ISBLK(source->st.st_mode) && request->policy != VD_BACKING_ANY)
		r = vd_fail(err, EINVAL,
			    "%s: %s '%s' is a block device; allow it with --backing=any or name "
			    "it with %s=PATH",
			    request->base->name, request->role, shown, request->option);
	else if (request->base && request->policy == VD_BACKING_SAME_DIR &&
		 source->st.st_uid != request->owner)
		r = vd_fail(err, EPERM,
			    "%s: %s '%s' belongs to user %u, the image to user %u; allow it with "
			    "--backing=any or name it with %s=PATH",
			    request->base->name, request->role, shown, source->st.st_uid,
			    request->owner, request->option);
	if (r < 0)
		vd_source_close(source);
	else
		*out = source;
	return r;
}

static int open_by_policy(const struct vd_open_request *request)
{
	int base_fd = request->base->dir_fd, fd;

	if (base_fd < 0 && request->name[0] != '/')
		return -ENOENT;
	if (request->policy == VD_BACKING_ANY) {
		fd = openat(base_fd, request->name, OPEN_FLAGS);
		return fd < 0 ? -errno : fd;
	}
	if (request->name[0] == '/')
		return open_absolute_beneath(base_fd, request->name);
	return open_beneath(base_fd, request->name);
}

/* A file that an image names. */
static int open_named_by_image(const struct vd_open_request *request, struct vd_source **out,
			       struct vd_error *err)
{
	const char *from = request->base->name;
	char shown[512];
	int fd;

	vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
	if (request->policy == VD_BACKING_NONE)
		return vd_fail(
			err, EACCES,
			"%s: needs the %s '%s', but --backing=none forbids it; allow it with "
			"--backing=same-dir or --backing=any",
			from, request->role, shown);
	if (name_has_scheme(request->name))
		return vd_fail(err, EINVAL,
			       "%s: %s '%s' is an address, not a file name, and never opened; "
			       "name a file with %s=PATH",
			       from, request->role, shown, request->option);
	if (request->base->is_server &&
	    (request->policy != VD_BACKING_ANY || *request->name != '/'))
		return vd_fail(
			err, EXDEV,
			"%s: names the %s '%s', but an image on a server is in no directory; "
			"name a file or an address with %s=PATH",
			from, request->role, shown, request->option);
	fd = open_by_policy(request);
	if (fd == -EXDEV)
		return vd_fail(err, EXDEV,
			       "%s: %s '%s' lies outside the image's directory; allow it with "
			       "--backing=any or name it with %s=PATH",
			       from, request->role, shown, request->option);
	if (fd < 0)
		return vd_fail(err, -fd, "%s: cannot open %s '%s': %s; name it with %s=PATH", from,
			       request->role, shown, strerror(-fd), request->option);
	return accept_file(request, shown, fd, out, err);
}

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
	char shown[1024];
	char *path = realpath(request->name, NULL);
	int fd = path ? open(path, OPEN_FLAGS) : -1;
	int code = errno;

	free(path);
	vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
	if (fd < 0)
		return vd_fail(err, code, "%s: cannot open the %s: %s", shown, request->role,
			       strerror(code));
	return accept_file(request, shown, fd, out, err);
}

int vd_opener_open(const struct vd_open_request *request, struct vd_source **out,
		   struct vd_error *err)
{
	if (request->base)
		return open_named_by_image(request, out, err);
	if (vd_address_is(request->name))
		return open_address(request, out, err);
	return open_named_by_hand(request, out, err);
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

const struct vd_opener vd_opener_here = { .open = open_here };
