/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The broker: a chain is opened through it as it is without it, and a child that lies gets nothing.
 * A thread plays the child. The folder: FOLDER/images/{disk,base,secret -> ../outside}, FOLDER/outside.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/broker.h"
#include "util.h"

/* The packet of a question, as broker.c has it; a test below notices when they differ. */
struct question {
	uint32_t role, base, beside_real, is_candidate;
	char name[4096], directory[4096];
};

enum { IMAGE, BACKING, DATA, LIST };

struct fixture {
	char *folder;
	char image[512], base[512];
	const char *images[1];
	struct vd_chain_options options;
	struct vd_broker *broker;
	int sockets[2];
	pthread_t answering;
	int ended_with; /* what the answering side ended with */
	unsigned files; /* open when all is set up */
};

static void *answer_all(void *context)
{
	struct fixture *f = context;
	int r;

	do
		r = vd_broker_answer(f->broker, f->sockets[0]);
	while (r > 0);
	f->ended_with = r;
	close(f->sockets[0]);
	return NULL;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	void *folder;
	struct vd_error err;

	if (folder_make(&folder) != 0)
		return -1;
	f->folder = folder;
	assert_int_equal(mkdir(in_folder(f->folder, "images"), 0755), 0);
	file_write(in_folder(f->folder, "images/disk"), "disk", 4);
	file_write(in_folder(f->folder, "images/base"), "base", 4);
	file_write(in_folder(f->folder, "outside"), "outside", 7);
	assert_int_equal(symlink("../outside", in_folder(f->folder, "images/secret")), 0);
	strcpy(f->image, in_folder(f->folder, "images/disk"));
	strcpy(f->base, in_folder(f->folder, "images/base"));
	f->images[0] = f->image;
	f->files = open_files();
	assert_int_equal(vd_broker_sockets(f->sockets, &err), 0);
	assert_int_equal(vd_broker_new(f->images, &f->options, 1, &f->broker), 0);
	assert_int_equal(pthread_create(&f->answering, NULL, answer_all, f), 0);
	*state = f;
	return 0;
}

static void end(struct fixture *f, int wanted)
{
	shutdown(f->sockets[1], SHUT_RDWR);
	pthread_join(f->answering, NULL);
	close(f->sockets[1]);
	vd_broker_free(f->broker);
	f->broker = NULL;
	assert_int_equal(f->ended_with, wanted);
	assert_int_equal(open_files(), f->files);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	void *folder = f->folder;

	free(f);
	return folder_remove(&folder);
}

static int ask(struct fixture *f, const char *role, const char *name, const struct vd_source *base,
	       struct vd_source **out, struct vd_error *err)
{
	struct vd_opener opener = vd_broker_opener(&f->sockets[1]);
	struct vd_open_request request = { .role = role, .name = name, .base = base };

	return opener.open(opener.context, &request, out, err);
}

static void test_files_come_through(void **state)
{
	struct fixture *f = *state;
	struct vd_source *disk, *base;
	struct vd_identity identity;
	struct vd_error err = { "" };
	char bytes[4];

	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	assert_string_equal(disk->name, f->image);
	assert_int_equal(ask(f, "backing file", "base", disk, &base, &err), 0);
	assert_string_equal(base->name, f->base);
	assert_int_equal(vd_source_read(base, bytes, 4, 0), 0);
	assert_memory_equal(bytes, "base", 4);
	assert_int_equal(base->dir_fd, -1); /* a directory is a way to other files */
	assert_int_equal(fcntl(base->fd, F_GETFD), FD_CLOEXEC);
	vd_identity_find(base->fd, &identity);
	assert_memory_equal(&base->identity, &identity, sizeof(identity));
	vd_source_close(disk);
	vd_source_close(base);
	end(f, 0);
}

static void test_refusals_come_through(void **state)
{
	struct fixture *f = *state;
	struct vd_source *disk, *other;
	struct vd_error err = { "" };

	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	assert_int_equal(ask(f, "backing file", "none", disk, &other, &err), -ENOENT);
	assert_non_null(strstr(err.text, "cannot open backing file 'none'"));
	assert_int_equal(ask(f, "backing file", "secret", disk, &other, &err), -EXDEV);
	assert_non_null(strstr(err.text, "outside the image's directory"));
	assert_int_equal(ask(f, "data file", "json:{}", disk, &other, &err), -EINVAL);
	vd_source_close(disk);
	end(f, 0);
}

/* A name without a base is one that the user gave, for just that. */
static void test_by_hand_is_by_hand(void **state)
{
	struct fixture *f = *state;
	struct vd_source *source;
	struct vd_error err = { "" };

	assert_int_equal(ask(f, "image", f->base, NULL, &source, &err), -EACCES);
	assert_int_equal(ask(f, "backing file", f->image, NULL, &source, &err), -EACCES);
	assert_int_equal(ask(f, "data file", "/etc/passwd", NULL, &source, &err), -EACCES);
	f->options.backing_files[0] = f->base;
	f->options.backing_file_count = 1;
	assert_int_equal(ask(f, "data file", f->base, NULL, &source, &err), -EACCES);
	assert_int_equal(ask(f, "backing file", f->base, NULL, &source, &err), 0);
	vd_source_close(source);
	end(f, 0);
}

/* The policy is that of the answering side, whatever the asking one would like. */
static void test_policy_is_the_parents(void **state)
{
	struct fixture *f = *state;
	struct vd_opener opener = vd_broker_opener(&f->sockets[1]);
	struct vd_source *disk, *other;
	struct vd_error err = { "" };
	struct vd_open_request request = {
		.role = "backing file",
		.name = "../outside",
		.policy = VD_BACKING_ANY,
	};

	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	request.base = disk;
	assert_int_equal(opener.open(opener.context, &request, &other, &err), -EXDEV);
	vd_source_close(disk);
	end(f, 0);
}

static void send_raw(struct fixture *f, const void *bytes, size_t count)
{
	assert_int_equal(send(f->sockets[1], bytes, count, MSG_NOSIGNAL), count);
}

static void test_base_that_was_not_opened(void **state)
{
	struct question lie = { .role = BACKING, .base = 7, .name = "base" };

	send_raw(*state, &lie, sizeof(lie));
	end(*state, -EPROTO);
}

/* The image is the user's choice and no file's. */
static void test_image_that_a_file_names(void **state)
{
	struct fixture *f = *state;
	struct vd_source *disk;
	struct vd_error err = { "" };
	struct question lie = { .role = IMAGE, .base = 1, .name = "none" };

	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	send_raw(f, &lie, sizeof(lie));
	vd_source_close(disk);
	end(f, -EPROTO);
}

static void test_role_that_is_none(void **state)
{
	struct question lie = { .role = 4, .name = "base" };

	send_raw(*state, &lie, sizeof(lie));
	end(*state, -EPROTO);
}

static void test_name_without_end(void **state)
{
	struct question lie = { .role = IMAGE };

	memset(lie.name, 'a', sizeof(lie.name));
	send_raw(*state, &lie, sizeof(lie));
	end(*state, -EPROTO);
}

static void test_packet_too_short(void **state)
{
	struct question lie = { .role = DATA };

	send_raw(*state, &lie, sizeof(lie) - 1);
	end(*state, -EPROTO);
}

/* Who asks without end gets an end. */
static void test_files_are_counted(void **state)
{
	struct fixture *f = *state;
	struct vd_source *source;
	struct vd_error err = { "" };
	unsigned opened = 0, asked = 0;
	int r;

	do {
		r = ask(f, "image", f->image, NULL, &source, &err);
		if (r == 0)
			vd_source_close(source);
		opened += r == 0;
		asked++;
	} while (r == 0 || r == -EMFILE);
	assert_int_equal(opened, 5 * 256);
	assert_int_equal(asked, 65536 + 1);
	end(f, -EPROTO);
}

/* A directory is listed and looked through only if the user named it. */
static void test_search_is_by_hand(void **state)
{
	struct fixture *f = *state;
	struct vd_opener opener = vd_broker_opener(&f->sockets[1]);
	struct vd_source *disk, *other;
	struct vd_error err = { "" };
	char images[512], names[VD_LIST_BYTES];
	struct vd_open_request request = { .role = "backing file", .name = "base" };

	strcpy(images, in_folder(f->folder, "images"));
	request.directory = images;
	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	request.base = disk;
	assert_int_equal(opener.list(opener.context, images, "", names, &err), -EACCES);
	assert_int_equal(opener.open(opener.context, &request, &other, &err), -EACCES);
	f->options.search[0] = images;
	f->options.search_count = 1;
	assert_int_equal(opener.list(opener.context, images, "base", names, &err),
			 sizeof("disk") + sizeof("secret"));
	assert_memory_equal(names, "disk\0secret", sizeof("disk") + sizeof("secret"));
	request.is_candidate = true; /* it can name no other file */
	assert_int_equal(opener.open(opener.context, &request, &other, &err), 0);
	assert_int_equal(other->number, UINT32_MAX);
	vd_source_close(other);
	request.name = "secret";
	assert_int_equal(opener.open(opener.context, &request, &other, &err), -EXDEV);
	vd_source_close(disk);
	end(f, 0);
}

/* What is only looked at is not counted, and so comes from a directory of --search alone. */
static void test_candidate_that_is_the_image(void **state)
{
	struct fixture *f = *state;
	struct question lie = { .role = IMAGE, .is_candidate = 1 };

	strcpy(lie.name, f->image);
	send_raw(f, &lie, sizeof(lie));
	end(f, -EPROTO);
}

static void test_candidate_in_no_directory(void **state)
{
	struct fixture *f = *state;
	struct question lie = { .role = BACKING, .base = 1, .is_candidate = 1, .name = "base" };
	struct vd_source *disk;
	struct vd_error err = { "" };

	assert_int_equal(ask(f, "image", f->image, NULL, &disk, &err), 0);
	send_raw(f, &lie, sizeof(lie));
	vd_source_close(disk);
	end(f, -EPROTO);
}

static void test_directory_without_end(void **state)
{
	struct question lie = { .role = LIST };

	memset(lie.directory, 'a', sizeof(lie.directory));
	send_raw(*state, &lie, sizeof(lie));
	end(*state, -EPROTO);
}

static void test_nobody_answers(void **state)
{
	struct fixture *f = *state;
	struct vd_source *source;
	struct vd_error err = { "" };
	struct question lie = { .role = 9 };

	send_raw(f, &lie, sizeof(lie));
	pthread_join(f->answering, NULL);
	assert_int_equal(ask(f, "image", f->image, NULL, &source, &err), -EPIPE);
	assert_non_null(strstr(err.text, "the process that opens files is gone"));
	close(f->sockets[1]);
	vd_broker_free(f->broker);
}

#define BROKER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BROKER_TEST(test_files_come_through),
		BROKER_TEST(test_refusals_come_through),
		BROKER_TEST(test_by_hand_is_by_hand),
		BROKER_TEST(test_policy_is_the_parents),
		BROKER_TEST(test_image_that_a_file_names),
		BROKER_TEST(test_base_that_was_not_opened),
		BROKER_TEST(test_role_that_is_none),
		BROKER_TEST(test_name_without_end),
		BROKER_TEST(test_packet_too_short),
		BROKER_TEST(test_files_are_counted),
		BROKER_TEST(test_search_is_by_hand),
		BROKER_TEST(test_candidate_that_is_the_image),
		BROKER_TEST(test_candidate_in_no_directory),
		BROKER_TEST(test_directory_without_end),
		BROKER_TEST(test_nobody_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
