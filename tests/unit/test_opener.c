/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image may make us open: the whole matrix of names and policies, in a folder like this:
 *
 *	FOLDER/images/{disk,base,other,fifo,socket,json:base,links}, the image is "disk"
 *	FOLDER/images/sub/{base,a:b,to-base}
 *	FOLDER/imagesandmore/base, a name that begins like the image's folder
 *	FOLDER/outside, FOLDER/alias -> images
 */
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

#include "disk/opener.h"
#include "util.h"

#define OTHER_USER 12345

struct house {
	char *folder;
	struct vd_source *disk; /* the file that names others */
	unsigned files; /* open when all is set up */
};

static void put_file(const struct house *house, const char *name)
{
	file_write(in_folder(house->folder, name), name, strlen(name));
}

static void put_link(const struct house *house, const char *target, const char *name)
{
	assert_int_equal(symlink(target, in_folder(house->folder, name)), 0);
}

static void put_folder(const struct house *house, const char *name)
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

static int house_build(void **state)
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

static int house_tear_down(void **state)
{
	struct house *house = *state;
	void *folder = house->folder;
	int r;

	r = open_files() == house->files ? 0 : -1; /* nothing was left open */
	vd_source_close(house->disk);
	free(house);
	return folder_remove(&folder) < 0 ? -1 : r;
}

/* Open a name. `%` at its beginning stands for the folder. NULL after a failure. */
static struct vd_source *try(const struct house *house, bool by_image, enum vd_backing policy,
			     const char *name, int *result, struct vd_error *err)
{
	struct vd_source *source = NULL;
	struct vd_open_request request = {
		.name = *name == '%' ? in_folder(house->folder, name + 2) : name,
		.role = "backing file",
		.option = "--backing-file",
		.base = by_image ? house->disk : NULL,
		.policy = policy,
		.owner = geteuid(),
	};

	*result = vd_opener_here.open(vd_opener_here.context, &request, &source, err);
	return *result < 0 ? NULL : source;
}

/* 0: the name leads to the file `leads_to`; else the code of the refusal. */
static void check(const struct house *house, bool by_image, enum vd_backing policy,
		  const char *name, int expected, const char *leads_to)
{
	struct vd_error err = { "" };
	int r;
	struct vd_source *source = try(house, by_image, policy, name, &r, &err);
	struct stat st;

	if (r != expected)
		print_error("%s: %d (%s) and not %d\n", name, r, err.text, expected);
	assert_int_equal(r, expected);
	if (r < 0) {
		assert_true(*err.text != '\0');
		assert_null(strchr(err.text, '\n'));
		return;
	}
	assert_int_equal(stat(in_folder(house->folder, leads_to), &st), 0);
	assert_true(source->st.st_ino == st.st_ino && source->st.st_dev == st.st_dev);
	/* The source knows its whole path and its folder, whatever the name was. */
	assert_string_equal(source->name, in_folder(house->folder, leads_to));
	assert_int_equal(faccessat(source->dir_fd,
				   strrchr(leads_to, '/') ? strrchr(leads_to, '/') + 1 : leads_to,
				   R_OK, 0),
			 0);
	vd_source_close(source);
}

struct expectation {
	const char *name;
	int result;
	const char *leads_to;
};

static void check_all(const struct house *house, bool by_image, enum vd_backing policy,
		      const struct expectation *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check(house, by_image, policy, list[i].name, list[i].result, list[i].leads_to);
}

static void same_dir_takes_what_lies_beneath(void **state)
{
	static const struct expectation list[] = {
		{ "base", 0, "images/base" },
		{ "./base", 0, "images/base" },
		{ "sub/base", 0, "images/sub/base" },
		{ "sub//./base", 0, "images/sub/base" },
		{ "sub/../base", 0, "images/base" },
		{ "sub/../sub/../sub/base", 0, "images/sub/base" },
		{ "to-base", 0, "images/base" },
		{ "to-sub", 0, "images/sub/base" },
		{ "down/base", 0, "images/sub/base" },
		{ "sub/to-base", 0, "images/base" },
		{ "./json:base", 0, "images/json:base" },
		{ "sub/a:b", 0, "images/sub/a:b" },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void same_dir_refuses_what_leads_out(void **state)
{
	static const struct expectation list[] = {
		{ "../outside", -EXDEV, NULL },        { "../images/base", -EXDEV, NULL },
		{ "sub/../../outside", -EXDEV, NULL }, { "../imagesandmore/base", -EXDEV, NULL },
		{ "to-outside", -EXDEV, NULL },        { "to-outside-absolute", -EXDEV, NULL },
		{ "to-base-absolute", -EXDEV, NULL },  { "up-and-back", -EXDEV, NULL },
		{ "up/outside", -EXDEV, NULL },        { "up/images/base", -EXDEV, NULL },
		{ "root/etc/passwd", -EXDEV, NULL },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void same_dir_judges_an_absolute_name_by_its_directory(void **state)
{
	static const struct expectation list[] = {
		{ "%/images/base", 0, "images/base" },
		{ "%/images/sub/base", 0, "images/sub/base" },
		{ "%/images/sub/../base", 0, "images/base" },
		{ "%/images/../images/base", 0, "images/base" },
		{ "%/alias/base", 0, "images/base" },
		{ "%/images/to-base", 0, "images/base" },
		{ "%/images/down/base", 0, "images/sub/base" },
		{ "%/outside", -EXDEV, NULL },
		{ "%/images/../outside", -EXDEV, NULL },
		{ "%/images/up/outside", -EXDEV, NULL },
		{ "%/imagesandmore/base", -EXDEV, NULL },
		{ "%/images/to-outside", -EXDEV, NULL },
		{ "%/images/to-outside-absolute", -EXDEV, NULL },
		{ "%/images/sub/to-base", -EXDEV, NULL }, /* beneath sub it leads out */
		{ "/etc/passwd", -EXDEV, NULL },
		{ "/proc/self/exe", -EXDEV, NULL },
		{ "//etc//passwd", -EXDEV, NULL },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void what_is_not_there_is_told_as_such(void **state)
{
	static const struct expectation list[] = {
		{ "nothing", -ENOENT, NULL },        { "nothing/base", -ENOENT, NULL },
		{ "dangling", -ENOENT, NULL },       { "%/images/nothing", -ENOENT, NULL },
		{ "%/nothing/base", -ENOENT, NULL }, { "", -ENOENT, NULL },
		{ "base/x", -ENOTDIR, NULL },        { "loop", -ELOOP, NULL },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
	check_all(*state, false, VD_BACKING_NONE, list + 3, 2);
}

static void a_name_that_is_too_long_is_an_error_of_one_line(void **state)
{
	struct house *house = *state;
	char name[5000];

	memset(name, '\n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	for (int policy = 0; policy < 2; policy++)
		check(house, true, (enum vd_backing)policy, name, -ENAMETOOLONG, NULL);
	check(house, true, VD_BACKING_NONE, name, -EACCES, NULL);
	check(house, false, VD_BACKING_NONE, name, -ENAMETOOLONG, NULL);
}

static void addresses_are_never_opened(void **state)
{
	static const struct expectation list[] = {
		{ "json:base", -EINVAL, NULL },
		{ "json:{\"driver\":\"file\"}", -EINVAL, NULL },
		{ "nbd://host/export", -EINVAL, NULL },
		{ "file:base", -EINVAL, NULL },
		{ "FILE:///etc/passwd", -EINVAL, NULL },
		{ "a+b-c.9:base", -EINVAL, NULL },
		{ "c:\\base", -EINVAL, NULL },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
}

static void only_files_are_opened_and_nothing_waits(void **state)
{
	static const struct expectation list[] = {
		{ "fifo", -EINVAL, NULL },  { "sub", -EINVAL, NULL },
		{ ".", -EINVAL, NULL },     { "%/images/fifo", -EINVAL, NULL },
		{ "socket", -ENXIO, NULL },
	};
	static const struct expectation devices[] = {
		{ "/dev/null", -EINVAL, NULL },
		{ "/dev", -EINVAL, NULL },
		{ "%/images/fifo", -EINVAL, NULL },
		{ "%/images/socket", -ENXIO, NULL },
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, devices, ARRAY_LENGTH(devices));
	check_all(*state, false, VD_BACKING_NONE, devices, ARRAY_LENGTH(devices));
}

static void any_takes_what_leads_out(void **state)
{
	static const struct expectation list[] = {
		{ "base", 0, "images/base" },
		{ "../outside", 0, "outside" },
		{ "../images/base", 0, "images/base" },
		{ "to-outside", 0, "outside" },
		{ "to-outside-absolute", 0, "outside" },
		{ "to-base-absolute", 0, "images/base" },
		{ "up/imagesandmore/base", 0, "imagesandmore/base" },
		{ "%/outside", 0, "outside" },
		{ "%/alias/base", 0, "images/base" },
	};

	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
}

static void none_takes_nothing_that_an_image_names(void **state)
{
	static const struct expectation list[] = {
		{ "base", -EACCES, NULL },
		{ "nothing", -EACCES, NULL },
		{ "json:base", -EACCES, NULL },
		{ "%/images/base", -EACCES, NULL },
	};

	check_all(*state, true, VD_BACKING_NONE, list, ARRAY_LENGTH(list));
}

static void a_name_by_hand_stands_above_the_policy(void **state)
{
	struct house *house = *state;
	static const struct expectation list[] = {
		{ "%/outside", 0, "outside" },
		{ "%/images/to-outside", 0, "outside" },
		{ "%/alias/sub/to-base", 0, "images/base" },
	};
	int here = open(".", O_RDONLY);

	check_all(house, false, VD_BACKING_NONE, list, ARRAY_LENGTH(list));
	assert_true(here >= 0);
	assert_int_equal(chdir(in_folder(house->folder, "images")), 0);
	check(house, false, VD_BACKING_NONE, "base", 0, "images/base");
	check(house, false, VD_BACKING_NONE, "../outside", 0, "outside");
	check(house, false, VD_BACKING_NONE, "json:base", 0, "images/json:base");
	assert_int_equal(fchdir(here), 0);
	close(here);
}

/* Make the file another user's; false: we may not. */
static bool give_away(const struct house *house, const char *name)
{
	if (chown(in_folder(house->folder, name), OTHER_USER, (gid_t)-1) == 0)
		return true;
	say_skipped("only root can give a file away");
	return false;
}

static void a_file_of_another_owner_is_refused_under_same_dir(void **state)
{
	struct house *house = *state;
	struct vd_error err = { "" };
	int r;

	if (!give_away(house, "images/other"))
		return;
	check(house, true, VD_BACKING_SAME_DIR, "other", -EPERM, NULL);
	check(house, true, VD_BACKING_SAME_DIR, "%/images/other", -EPERM, NULL);
	check(house, true, VD_BACKING_ANY, "other", 0, "images/other");
	check(house, false, VD_BACKING_NONE, "%/images/other", 0, "images/other");
	try(house, true, VD_BACKING_SAME_DIR, "other", &r, &err);
	assert_non_null(strstr(err.text, "12345"));
	assert_non_null(strstr(err.text, "--backing=any"));
}

static void the_owner_of_the_image_counts_and_not_ours(void **state)
{
	struct house *house = *state;
	struct vd_source *source = NULL;
	struct vd_error err = { "" };
	struct vd_open_request request = {
		.name = "other",
		.role = "data file",
		.option = "--data-file",
		.base = house->disk,
		.policy = VD_BACKING_SAME_DIR,
		.owner = OTHER_USER,
	};

	if (!give_away(house, "images/other"))
		return;
	assert_int_equal(vd_opener_here.open(NULL, &request, &source, &err), 0);
	vd_source_close(source);
	request.name = "base";
	assert_int_equal(vd_opener_here.open(NULL, &request, &source, &err), -EPERM);
}

static void a_base_without_a_folder_names_nothing_relative(void **state)
{
	struct house *house = *state;

	close(house->disk->dir_fd);
	house->disk->dir_fd = -1;
	house->files--;
	check(house, true, VD_BACKING_SAME_DIR, "base", -ENOENT, NULL);
	check(house, true, VD_BACKING_ANY, "base", -ENOENT, NULL);
	check(house, true, VD_BACKING_SAME_DIR, "%/images/base", -EXDEV, NULL);
	check(house, true, VD_BACKING_ANY, "%/images/base", 0, "images/base");
}

static void a_refusal_names_the_file_and_the_way_out(void **state)
{
	static const struct {
		enum vd_backing policy;
		const char *name, *says;
	} list[] = {
		{ VD_BACKING_SAME_DIR, "../outside", "--backing=any" },
		{ VD_BACKING_SAME_DIR, "nothing", "--backing-file=PATH" },
		{ VD_BACKING_NONE, "base", "--backing=same-dir" },
		{ VD_BACKING_ANY, "nbd:x", "--backing-file=PATH" },
		{ VD_BACKING_ANY, "nothing\n\x1b[2J", "nothing\\x0a\\x1b[2J" },
	};
	struct house *house = *state;

	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		struct vd_error err = { "" };
		int r;

		assert_null(try(house, true, list[i].policy, list[i].name, &r, &err));
		assert_non_null(strstr(err.text, house->disk->name));
		assert_non_null(strstr(err.text, "backing file"));
		assert_non_null(strstr(err.text, list[i].says));
	}
}

static void a_name_with_control_bytes_is_shown_escaped(void **state)
{
	struct house *house = *state;
	struct vd_error err = { "" };
	int r;
	struct vd_source *source = try(house, true, VD_BACKING_SAME_DIR, "bad\nname", &r, &err);

	assert_int_equal(r, 0);
	assert_non_null(strstr(source->name, "/images/bad\\x0aname"));
	vd_source_close(source);
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, house_build, house_tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_HOUSE(same_dir_takes_what_lies_beneath),
		IN_HOUSE(same_dir_refuses_what_leads_out),
		IN_HOUSE(same_dir_judges_an_absolute_name_by_its_directory),
		IN_HOUSE(what_is_not_there_is_told_as_such),
		IN_HOUSE(a_name_that_is_too_long_is_an_error_of_one_line),
		IN_HOUSE(addresses_are_never_opened),
		IN_HOUSE(only_files_are_opened_and_nothing_waits),
		IN_HOUSE(any_takes_what_leads_out),
		IN_HOUSE(none_takes_nothing_that_an_image_names),
		IN_HOUSE(a_name_by_hand_stands_above_the_policy),
		IN_HOUSE(a_file_of_another_owner_is_refused_under_same_dir),
		IN_HOUSE(the_owner_of_the_image_counts_and_not_ours),
		IN_HOUSE(a_base_without_a_folder_names_nothing_relative),
		IN_HOUSE(a_refusal_names_the_file_and_the_way_out),
		IN_HOUSE(a_name_with_control_bytes_is_shown_escaped),
	};

	return cmocka_run_group_tests_name("opener", tests, NULL, NULL);
}
