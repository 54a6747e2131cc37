/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See house.h. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "house.h"

void put_file(const struct house *house, const char *name)
{
	file_write(in_folder(house->folder, name), name, strlen(name));
}

void put_link(const struct house *house, const char *target, const char *name)
{
	assert_int_equal(symlink(target, in_folder(house->folder, name)), 0);
}

void put_folder(const struct house *house, const char *name)
{
	assert_int_equal(mkdir(in_folder(house->folder, name), 0700), 0);
}

static void put_socket(const struct house *house, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", in_folder(house->folder, name));
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
}

static void put_links(const struct house *house)
{
	put_link(house, "base", "images/to-base");
	put_link(house, "sub/../sub/base", "images/to-sub");
	put_link(house, "../images/base", "images/up-and-back");
	put_link(house, "../outside", "images/to-outside");
	put_link(house, in_folder(house->folder, "outside"), "images/to-outside-absolute");
	put_link(house, in_folder(house->folder, "images/base"), "images/to-base-absolute");
	put_link(house, "..", "images/up");
	put_link(house, "sub", "images/down");
	put_link(house, "loop", "images/loop");
	put_link(house, "nothing", "images/dangling");
	put_link(house, "/proc/self/root", "images/root");
	put_link(house, "../base", "images/sub/to-base");
	put_link(house, "images", "alias");
}

int house_build(void **state)
{
	struct house *house = calloc(1, sizeof(*house));
	void *folder;

	if (!house || folder_make(&folder) < 0)
		return -1;
	house->folder = folder;
	put_folder(house, "images");
	put_folder(house, "images/sub");
	put_folder(house, "imagesandmore");
	put_file(house, "images/disk");
	put_file(house, "images/base");
	put_file(house, "images/other");
	put_file(house, "images/json:base");
	put_file(house, "images/sub/base");
	put_file(house, "images/sub/a:b");
	put_file(house, "images/bad\nname");
	put_file(house, "imagesandmore/base");
	put_file(house, "outside");
	assert_int_equal(mkfifo(in_folder(folder, "images/fifo"), 0600), 0);
	put_socket(house, "images/socket");
	put_links(house);
	house->disk = file_source(in_folder(folder, "images/disk"));
	house->files = open_files();
	*state = house;
	return 0;
}

int house_tear_down(void **state)
{
	struct house *house = *state;
	void *folder = house->folder;
	int r;

	if (house->disk && house->disk->real_fd >= 0) /* the image was opened anew, by a link */
		house->files++;
	r = open_files() == house->files ? 0 : -1; /* nothing was left open */
	vd_source_close(house->disk);
	free(house);
	return folder_remove(&folder) < 0 ? -1 : r;
}

struct vd_source *try(const struct house *house, bool by_image, enum vd_backing policy,
		      const char *name, int *result, struct vd_error *err)
{
	struct vd_source *source = NULL;
	struct vd_open_request request = {
		.name = *name == '%' ? in_folder(house->folder, name + 2) : name,
		.role = "backing file",
		.base = by_image ? house->disk : NULL,
		.policy = policy,
		.owner = geteuid(),
	};

	*result = vd_opener_here.open(vd_opener_here.context, &request, &source, err);
	return *result < 0 ? NULL : source;
}

const char *last_part(const char *name)
{
	return strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
}

/* Does the name, in that directory, belong to this file? */
static void check_directory(int dir_fd, const char *name, int flags, const struct stat *wanted)
{
	struct stat st;

	assert_true(dir_fd >= 0);
	assert_int_equal(fstatat(dir_fd, last_part(name), &st, flags), 0);
	assert_true(st.st_ino == wanted->st_ino && st.st_dev == wanted->st_dev);
}

void check(const struct house *house, bool by_image, enum vd_backing policy,
	   const struct expectation *expected)
{
	const char *found_at = expected->found_at ? expected->found_at : expected->leads_to;
	struct vd_error err = { "" };
	int r;
	struct vd_source *source = try(house, by_image, policy, expected->name, &r, &err);
	struct stat st;

	if (r != expected->result)
		print_error("%s: %d (%s) and not %d\n", expected->name, r, err.text,
			    expected->result);
	assert_int_equal(r, expected->result);
	if (r < 0) {
		assert_true(*err.text != '\0');
		assert_null(strchr(err.text, '\n'));
		return;
	}
	assert_int_equal(stat(in_folder(house->folder, expected->leads_to), &st), 0);
	assert_true(source->st.st_ino == st.st_ino && source->st.st_dev == st.st_dev);
	/* The source knows the whole path that led to it, and the folder, whatever the name was. */
	assert_string_equal(source->name, in_folder(house->folder, found_at));
	check_directory(source->dir_fd, found_at, 0, &st);
	if (expected->found_at)
		check_directory(source->real_fd, expected->leads_to, AT_SYMLINK_NOFOLLOW, &st);
	else
		assert_int_equal(source->real_fd, -1);
	vd_source_close(source);
}

bool give_away(const struct house *house, const char *name)
{
	if (chown(in_folder(house->folder, name), OTHER_USER, (gid_t)-1) == 0)
		return true;
	say_skipped("only root can give a file away");
	return false;
}
