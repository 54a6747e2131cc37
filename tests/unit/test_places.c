/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where names lead beside symbolic links, who notices, races, and searches (house.h). */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "house.h"

/* --- an image that is a symbolic link -------------------------------------------------------- */

/* FOLDER/links/disk -> ../images/disk, and some names beside it. */
static void put_linked_image(struct house *house)
{
	put_folder(house, "links");
	put_link(house, "../images/disk", "links/disk");
	put_file(house, "links/base");
	put_link(house, "../images/sub/base", "links/volume");
	put_link(house, "../images/json:base", "links/json:base");
	vd_source_close(house->disk);
	house->disk = NULL;
}

/* Open it by that path, and then a name in it. What was logged goes to *said; the caller frees. */
static struct vd_source *try_linked(struct house *house, const char *image, enum vd_backing policy,
				    const char *name, int *result, char **said)
{
	struct vd_error err = { "" };
	struct vd_source *source;

	vd_source_close(house->disk);
	house->disk = NULL;
	house->disk = try(house, false, VD_BACKING_NONE, image, result, &err);
	assert_non_null(house->disk);
	capture_begin();
	source = try(house, true, policy, name, result, &err);
	*said = capture_end();
	return source;
}

/* What the name must lead to, by its path, and what the log must say: both words, or nothing. */
static void check_linked(struct house *house, enum vd_backing policy, const char *name,
			 const char *found_at, const char *word, const char *other)
{
	struct vd_source *source;
	char *said;
	int r;

	source = try_linked(house, "%/links/disk", policy, name, &r, &said);
	assert_int_equal(r, 0);
	assert_string_equal(source->name, in_folder(house->folder, found_at));
	if (word) {
		assert_non_null(strstr(said, in_folder(house->folder, word)));
		assert_non_null(strstr(said, in_folder(house->folder, other)));
		assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
	} else {
		assert_string_equal(said, "");
	}
	free(said);
	vd_source_close(source);
}

static void names_are_looked_up_beside_the_link(void **state)
{
	struct house *house = *state;

	put_linked_image(house);
	for (int policy = 0; policy < 2; policy++) {
		/* Two different files: QEMU's is taken, and the line names both. */
		check_linked(house, (enum vd_backing)policy, "base", "links/base", "links/base",
			     "images/base");
		/* Nothing is there: the file beside the real image, and a line. */
		check_linked(house, (enum vd_backing)policy, "other", "images/other", "links/disk",
			     "images/other");
	}
	/* The path of the link's directory is the image's own. */
	check_linked(house, VD_BACKING_SAME_DIR, in_folder(house->folder, "links/base"),
		     "links/base", NULL, NULL);
	check_linked(house, VD_BACKING_SAME_DIR, in_folder(house->folder, "images/other"),
		     "images/other", NULL, NULL);
}

/*
 * links/disk -> images/disk names "middle", which is beside the real file alone; that one names
 * links/base by its path. It is that file or none, and not the one of the same name in images/.
 */
static void an_absolute_name_is_that_of_the_directory_it_came_from(void **state)
{
	struct house *house = *state;
	struct vd_source *middle;
	char *said;
	int r;

	put_linked_image(house);
	put_file(house, "images/middle");
	middle = try_linked(house, "%/links/disk", VD_BACKING_SAME_DIR, "middle", &r, &said);
	assert_int_equal(r, 0);
	free(said);
	vd_source_close(house->disk);
	house->disk = middle;
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation)REFUSED("%/links/base", -EXDEV));
	check(house, true, VD_BACKING_SAME_DIR,
	      &(struct expectation)PLAIN("%/images/base", "images/base"));
	check(house, true, VD_BACKING_ANY,
	      &(struct expectation)PLAIN("%/links/base", "links/base"));
}

static void links_beside_the_link_are_followed_under_any_alone(void **state)
{
	struct house *house = *state;
	char *said;
	int r;

	put_linked_image(house);
	check_linked(house, VD_BACKING_ANY, "volume", "links/volume", NULL, NULL);
	/* Both names lead to one file: there is nothing to say. */
	check_linked(house, VD_BACKING_ANY, "./json:base", "links/json:base", NULL, NULL);
	assert_null(try_linked(house, "%/links/disk", VD_BACKING_SAME_DIR, "volume", &r, &said));
	assert_int_equal(r, -EXDEV);
	free(said);
	/* It is refused, and not passed over for the file beside the real image. */
	put_link(house, "../outside", "links/other");
	assert_null(try_linked(house, "%/links/disk", VD_BACKING_SAME_DIR, "other", &r, &said));
	assert_int_equal(r, -EXDEV);
	free(said);
}

static void the_directory_as_it_was_given_counts_for_absolute_names(void **state)
{
	struct house *house = *state;
	struct vd_source *source;
	char *said;
	int r;

	source = try_linked(house, "%/alias/disk", VD_BACKING_SAME_DIR, "%/alias/base", &r, &said);
	assert_int_equal(r, 0);
	assert_string_equal(source->name, in_folder(house->folder, "images/base"));
	free(said);
	vd_source_close(source);
	assert_null(
		try_linked(house, "%/images/disk", VD_BACKING_SAME_DIR, "%/alias/base", &r, &said));
	assert_int_equal(r, -EXDEV);
	free(said);
}

/* --- who notices ----------------------------------------------------------------------------- */

static void what_is_refused_is_not_opened(void **state)
{
	static const char *const names[] = { "images/fifo", "images/socket", "images/other" };
	struct house *house = *state;
	struct vd_error err = { "" };
	char event[4096];
	int watch, r;

	if (!give_away(house, "images/other"))
		return;
	watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	assert_true(watch >= 0);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		assert_true(inotify_add_watch(watch, in_folder(house->folder, names[i]),
					      IN_OPEN | IN_ACCESS | IN_CLOSE) >= 0);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		assert_null(try(house, true, VD_BACKING_SAME_DIR, last_part(names[i]), &r, &err));
	for (size_t i = 0; i < 2; i++) {
		assert_null(try(house, true, VD_BACKING_ANY, last_part(names[i]), &r, &err));
		assert_null(try(house, false, VD_BACKING_ANY, in_folder(house->folder, names[i]),
				&r, &err));
	}
	assert_int_equal(read(watch, event, sizeof(event)), -1);
	assert_int_equal(errno, EAGAIN);
	/* The watch works. */
	close(open(in_folder(house->folder, names[2]), O_RDONLY));
	assert_true(read(watch, event, sizeof(event)) > 0);
	close(watch);
}

/* Another process, which has a lease on the file and gives it up when it is asked to. -1: there are none. */
static pid_t begin_lease(const char *path)
{
	int ready[2], fd;
	pid_t child;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		sigset_t signals;
		int signal;

		sigemptyset(&signals);
		sigaddset(&signals, SIGIO);
		sigprocmask(SIG_BLOCK, &signals, NULL);
		alarm(30);
		fd = open(path, O_RDWR);
		if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		sigwait(&signals, &signal);
		usleep(100000);
		_exit(fcntl(fd, F_SETLEASE, F_UNLCK) < 0);
	}
	close(ready[1]);
	fd = (int)read(ready[0], &byte, 1);
	close(ready[0]);
	if (fd == 1)
		return child;
	waitpid(child, NULL, 0);
	return -1;
}

/* As of a file that Samba or NFS has given to a client. */
static void a_lease_is_waited_for(void **state)
{
	struct house *house = *state;
	pid_t child = begin_lease(in_folder(house->folder, "images/base"));
	int status;

	if (child < 0) {
		say_skipped("this file system has no leases");
		return;
	}
	check(house, true, VD_BACKING_SAME_DIR, &(struct expectation)PLAIN("base", "images/base"));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void reading_is_not_recorded(void **state)
{
	struct house *house = *state;
	struct vd_source *source;
	struct vd_error err = { "" };
	int r;

	source = try(house, true, VD_BACKING_SAME_DIR, "base", &r, &err);
	assert_non_null(source);
	assert_int_equal(fcntl(source->fd, F_GETFL) & O_NOATIME, O_NOATIME);
	vd_source_close(source);
}

/* Only the owner may ask for O_NOATIME; what others may read they read all the same. */
static void a_file_that_is_not_ours_is_read_all_the_same(void **state)
{
	struct house *house = *state;
	struct vd_source *source = NULL;
	struct vd_error err = { "" };
	int r;

	if (!give_away(house, "images/other"))
		return;
	assert_int_equal(chmod(in_folder(house->folder, "images/other"), 0644), 0);
	assert_int_equal(chmod(in_folder(house->folder, "images"), 0755), 0);
	assert_int_equal(chmod(house->folder, 0755), 0);
	assert_int_equal(seteuid(OTHER_USER + 1), 0);
	source = try(house, false, VD_BACKING_NONE, "%/images/other", &r, &err);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, 0);
	assert_int_equal(fcntl(source->fd, F_GETFL) & O_NOATIME, 0);
	vd_source_close(source);
}

/* --- races and odd places -------------------------------------------------------------------- */

static const struct house *racing; /* once: exchange the directory behind our back */

ssize_t __real_readlink(const char *path, char *out, size_t room);
ssize_t __wrap_readlink(const char *path, char *out, size_t room);

ssize_t __wrap_readlink(const char *path, char *out, size_t room)
{
	ssize_t got = __real_readlink(path, out, room);
	char aside[512];

	if (racing) {
		strcpy(aside, in_folder(racing->folder, "aside"));
		assert_int_equal(rename(in_folder(racing->folder, "images"), aside), 0);
		put_folder(racing, "images");
		put_file(racing, "images/disk");
		put_file(racing, "images/secret");
		racing = NULL;
	}
	return got;
}

/* The path of a link's target is asked for, and then another directory has that path. */
static void a_directory_that_was_exchanged_counts_for_nothing(void **state)
{
	struct house *house = *state;
	struct vd_error err = { "" };
	char *said;
	int r;

	put_linked_image(house);
	racing = house;
	house->disk = try(house, false, VD_BACKING_NONE, "%/links/disk", &r, &err);
	assert_int_equal(r, 0);
	assert_int_equal(house->disk->real_fd, -1);
	capture_begin();
	assert_null(try(house, true, VD_BACKING_SAME_DIR, "secret", &r, &err));
	said = capture_end();
	assert_int_equal(r, -ENOENT);
	assert_string_equal(said, "");
	free(said);
}

static void a_descriptor_is_a_name_by_hand(void **state)
{
	struct house *house = *state;
	int fd = open(in_folder(house->folder, "images/base"), O_RDONLY);
	struct vd_source *source;
	struct vd_error err = { "" };
	char path[64], byte;
	int r;

	assert_true(fd >= 0);
	for (int deleted = 0; deleted < 2; deleted++) {
		snprintf(path, sizeof(path), "%s/%d", deleted ? "/proc/self/fd" : "/dev/fd", fd);
		if (deleted)
			unlink(in_folder(house->folder, "images/base"));
		source = try(house, false, VD_BACKING_NONE, path, &r, &err);
		assert_int_equal(r, 0);
		assert_int_equal(vd_source_read(source, &byte, 1, 0), 0);
		/* The names in it are looked up where the file is, if it is anywhere. */
		assert_int_equal(source->dir_fd < 0, deleted);
		assert_int_equal(source->real_fd, -1);
		vd_source_close(source);
	}
	close(fd);
}

static void names_in_a_directory_are_listed_in_order(void **state)
{
	struct house *house = *state;
	const struct vd_opener *opener = &vd_opener_here;
	char names[VD_LIST_BYTES];
	struct vd_error err = { "" };
	const char *sub = in_folder(house->folder, "images/sub");
	int bytes = opener->list(NULL, sub, "", names, &err);

	assert_int_equal(bytes, sizeof("a:b") + sizeof("base") + sizeof("to-base"));
	assert_memory_equal(names, "a:b\0base\0to-base", (size_t)bytes);
	assert_int_equal(opener->list(NULL, sub, "base", names, &err), sizeof("to-base"));
	assert_int_equal(opener->list(NULL, sub, "to-base", names, &err), 0);
	assert_int_equal(opener->list(NULL, in_folder(house->folder, "nothing"), "", names, &err),
			 -ENOENT);
}

/* A directory of --search takes the place of the image's, and the policy stays. */
static void a_search_is_bound_by_the_policy(void **state)
{
	struct house *house = *state;
	char directory[512];
	static const struct {
		const char *name;
		enum vd_backing policy;
		int result;
	} list[] = {
		{ "base", VD_BACKING_SAME_DIR, 0 },   { "to-base", VD_BACKING_SAME_DIR, -EXDEV },
		{ "to-base", VD_BACKING_ANY, 0 },     { "../base", VD_BACKING_ANY, -EINVAL },
		{ "base", VD_BACKING_NONE, -EACCES }, { "nothing", VD_BACKING_ANY, -ENOENT },
	};

	strcpy(directory, in_folder(house->folder, "images/sub"));
	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		struct vd_source *source = NULL;
		struct vd_error err = { "" };
		struct vd_open_request request = {
			.name = list[i].name,
			.role = "backing file",
			.base = house->disk,
			.directory = directory,
			.policy = list[i].policy,
			.owner = geteuid(),
		};

		assert_int_equal(vd_opener_here.open(NULL, &request, &source, &err),
				 list[i].result);
		vd_source_close(source);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_HOUSE(names_are_looked_up_beside_the_link),
		IN_HOUSE(an_absolute_name_is_that_of_the_directory_it_came_from),
		IN_HOUSE(links_beside_the_link_are_followed_under_any_alone),
		IN_HOUSE(the_directory_as_it_was_given_counts_for_absolute_names),
		IN_HOUSE(what_is_refused_is_not_opened),
		IN_HOUSE(a_lease_is_waited_for),
		IN_HOUSE(reading_is_not_recorded),
		IN_HOUSE(a_file_that_is_not_ours_is_read_all_the_same),
		IN_HOUSE(a_directory_that_was_exchanged_counts_for_nothing),
		IN_HOUSE(a_descriptor_is_a_name_by_hand),
		IN_HOUSE(names_in_a_directory_are_listed_in_order),
		IN_HOUSE(a_search_is_bound_by_the_policy),
	};

	return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}
