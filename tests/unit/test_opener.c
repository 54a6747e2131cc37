/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image may make us open: the whole matrix of names and policies (house.h). */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "house.h"

static void check_all(const struct house *house, bool by_image, enum vd_backing policy,
		      const struct expectation *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check(house, by_image, policy, &list[i]);
}

static void same_dir_takes_what_lies_beneath(void **state)
{
	static const struct expectation list[] = {
		PLAIN("base", "images/base"),
		PLAIN("./base", "images/base"),
		PLAIN("sub/base", "images/sub/base"),
		PLAIN("sub//./base", "images/sub/base"),
		PLAIN("sub/../base", "images/base"),
		PLAIN("sub/../sub/../sub/base", "images/sub/base"),
		LINK("to-base", "images/base", "images/to-base"),
		LINK("to-sub", "images/sub/base", "images/to-sub"),
		PLAIN("down/base", "images/sub/base"),
		LINK("sub/to-base", "images/base", "images/sub/to-base"),
		PLAIN("./json:base", "images/json:base"),
		PLAIN("sub/a:b", "images/sub/a:b"),
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void same_dir_refuses_what_leads_out(void **state)
{
	static const struct expectation list[] = {
		REFUSED("../outside", -EXDEV),        REFUSED("../images/base", -EXDEV),
		REFUSED("sub/../../outside", -EXDEV), REFUSED("../imagesandmore/base", -EXDEV),
		REFUSED("to-outside", -EXDEV),        REFUSED("to-outside-absolute", -EXDEV),
		REFUSED("to-base-absolute", -EXDEV),  REFUSED("up-and-back", -EXDEV),
		REFUSED("up/outside", -EXDEV),        REFUSED("up/images/base", -EXDEV),
		REFUSED("root/etc/passwd", -EXDEV),
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void same_dir_judges_an_absolute_name_by_its_directory(void **state)
{
	static const struct expectation list[] = {
		PLAIN("%/images/base", "images/base"),
		PLAIN("%/images/sub/base", "images/sub/base"),
		PLAIN("%/images/sub/../base", "images/base"),
		REFUSED("%//images/base", -EXDEV), /* text decides */
		PLAIN("%/images//sub/base", "images/sub/base"),
		REFUSED("%/images/../images/base", -EXDEV),
		REFUSED("%/alias/base", -EXDEV),
		LINK("%/images/to-base", "images/base", "images/to-base"),
		PLAIN("%/images/down/base", "images/sub/base"),
		REFUSED("%/outside", -EXDEV),
		REFUSED("%/images/../outside", -EXDEV),
		REFUSED("%/images/up/outside", -EXDEV),
		REFUSED("%/imagesandmore/base", -EXDEV),
		REFUSED("%/images/to-outside", -EXDEV),
		REFUSED("%/images/to-outside-absolute", -EXDEV),
		LINK("%/images/sub/to-base", "images/base", "images/sub/to-base"),
		REFUSED("/etc/passwd", -EXDEV),
		REFUSED("/proc/self/exe", -EXDEV),
		REFUSED("//etc//passwd", -EXDEV),
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
}

static void what_is_not_there_is_told_as_such(void **state)
{
	static const struct expectation list[] = {
		REFUSED("nothing", -ENOENT),  REFUSED("nothing/base", -ENOENT),
		REFUSED("dangling", -ENOENT), REFUSED("", -ENOENT),
		REFUSED("base/x", -ENOTDIR),  REFUSED("loop", -ELOOP),
		REFUSED("base/", -ENOTDIR),   REFUSED("%/images/nothing", -ENOENT),
	};
	static const struct expectation absolute = { "%/nothing/base", -ENOENT, NULL, NULL };

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
	check(*state, true, VD_BACKING_ANY, &absolute);
	check(*state, false, VD_BACKING_NONE, &absolute);
	check_all(*state, false, VD_BACKING_NONE, list + 7, 1);
}

static void a_name_that_is_too_long_is_an_error_of_one_line(void **state)
{
	struct house *house = *state;
	char name[5000];

	memset(name, '\n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	for (int policy = 0; policy < 2; policy++)
		check(house, true, (enum vd_backing)policy,
		      &(struct expectation){ name, -ENAMETOOLONG, NULL, NULL });
	check(house, true, VD_BACKING_NONE, &(struct expectation){ name, -EACCES, NULL, NULL });
	check(house, false, VD_BACKING_NONE,
	      &(struct expectation){ name, -ENAMETOOLONG, NULL, NULL });
}

static void addresses_are_never_opened(void **state)
{
	static const struct expectation list[] = {
		REFUSED("json:base", -EINVAL),
		REFUSED("json:{\"driver\":\"file\"}", -EINVAL),
		REFUSED("nbd://host/export", -EINVAL),
		REFUSED("file:base", -EINVAL),
		REFUSED("FILE:///etc/passwd", -EINVAL),
		REFUSED("a+b-c.9:base", -EINVAL),
		REFUSED("c:\\base", -EINVAL),
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
}

static void only_files_are_opened_and_nothing_waits(void **state)
{
	static const struct expectation list[] = {
		REFUSED("fifo", -EINVAL),   REFUSED("sub", -EINVAL),
		REFUSED(".", -EINVAL),      REFUSED("%/images/fifo", -EINVAL),
		REFUSED("socket", -EINVAL),
	};
	static const struct expectation devices[] = {
		REFUSED("/dev/null", -EINVAL),
		REFUSED("/dev", -EINVAL),
		REFUSED("%/images/fifo", -EINVAL),
		REFUSED("%/images/socket", -EINVAL),
	};

	check_all(*state, true, VD_BACKING_SAME_DIR, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
	check_all(*state, true, VD_BACKING_ANY, devices, ARRAY_LENGTH(devices));
	check_all(*state, false, VD_BACKING_NONE, devices, ARRAY_LENGTH(devices));
}

static void any_takes_what_leads_out(void **state)
{
	static const struct expectation list[] = {
		PLAIN("base", "images/base"),
		PLAIN("../outside", "outside"),
		PLAIN("../images/base", "images/base"),
		LINK("to-outside", "outside", "images/to-outside"),
		LINK("to-outside-absolute", "outside", "images/to-outside-absolute"),
		LINK("to-base-absolute", "images/base", "images/to-base-absolute"),
		PLAIN("up/imagesandmore/base", "imagesandmore/base"),
		PLAIN("%/outside", "outside"),
		PLAIN("%/alias/base", "images/base"),
	};

	check_all(*state, true, VD_BACKING_ANY, list, ARRAY_LENGTH(list));
}

static void none_takes_nothing_that_an_image_names(void **state)
{
	static const struct expectation list[] = {
		REFUSED("base", -EACCES),
		REFUSED("nothing", -EACCES),
		REFUSED("json:base", -EACCES),
		REFUSED("%/images/base", -EACCES),
	};

	check_all(*state, true, VD_BACKING_NONE, list, ARRAY_LENGTH(list));
}

static void a_name_by_hand_stands_above_the_policy(void **state)
{
	struct house *house = *state;
	static const struct expectation list[] = {
		PLAIN("%/outside", "outside"),
		LINK("%/images/to-outside", "outside", "images/to-outside"),
		LINK("%/alias/sub/to-base", "images/base", "images/sub/to-base"),
	};
	int here = open(".", O_RDONLY);

	check_all(house, false, VD_BACKING_NONE, list, ARRAY_LENGTH(list));
	assert_true(here >= 0);
	assert_int_equal(chdir(in_folder(house->folder, "images")), 0);
	check(house, false, VD_BACKING_NONE,
	      &(struct expectation){ "base", 0, "images/base", NULL });
	check(house, false, VD_BACKING_NONE,
	      &(struct expectation){ "../outside", 0, "outside", NULL });
	check(house, false, VD_BACKING_NONE,
	      &(struct expectation){ "json:base", 0, "images/json:base", NULL });
	assert_int_equal(fchdir(here), 0);
	close(here);
}

static void a_file_of_another_owner_is_refused_under_same_dir(void **state)
{
	struct house *house = *state;
	struct vd_error err = { "" };
	int r;

	if (!give_away(house, "images/other"))
		return;
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation){ "other", -EPERM, NULL, NULL });
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation){ "%/images/other", -EPERM, NULL, NULL });
	check(house, true, VD_BACKING_ANY,
	      &(struct expectation){ "other", 0, "images/other", NULL });
	check(house, false, VD_BACKING_NONE,
	      &(struct expectation){ "%/images/other", 0, "images/other", NULL });
	try(house, true, VD_BACKING_SAME_DIR, "other", &r, &err);
	assert_non_null(strstr(err.text, "12345"));
}

static void the_owner_of_the_image_counts_and_not_ours(void **state)
{
	struct house *house = *state;
	struct vd_source *source = NULL;
	struct vd_error err = { "" };
	struct vd_open_request request = {
		.name = "other",
		.role = "data file",
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
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation){ "base", -ENOENT, NULL, NULL });
	check(house, true, VD_BACKING_ANY, &(struct expectation){ "base", -ENOENT, NULL, NULL });
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation){ "%/images/base", -EXDEV, NULL, NULL });
	check(house, true, VD_BACKING_ANY,
	      &(struct expectation){ "%/images/base", 0, "images/base", NULL });
}

static void a_refusal_names_both_files_and_the_reason(void **state)
{
	static const struct {
		enum vd_backing policy;
		const char *name, *says;
	} list[] = {
		{ VD_BACKING_SAME_DIR, "../outside", "outside the image's directory" },
		{ VD_BACKING_SAME_DIR, "nothing", "No such file" },
		{ VD_BACKING_NONE, "base", "--backing=none forbids it" },
		{ VD_BACKING_ANY, "nbd:x", "is an address" },
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
		IN_HOUSE(a_refusal_names_both_files_and_the_reason),
		IN_HOUSE(a_name_with_control_bytes_is_shown_escaped),
	};

	return cmocka_run_group_tests_name("opener", tests, NULL, NULL);
}
