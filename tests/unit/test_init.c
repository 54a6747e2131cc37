/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the file system agrees on with the kernel in FUSE's first exchange, INIT. The kernel is this
 * test, at the other end of a socket. The flags must hold all that libfuse chooses by itself, which
 * a wrong way of asking for more loses with libfuse 3.18: reads one after the other, for example.
 */
#include "config.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake.h"
#include "map/index.h"
#include "vdifs/fs.h"

enum { MINOR = 36 }; /* the kernel's version of the protocol is 7.36, the first with INIT_EXT */

#define OFFERED (UINT32_MAX >> 1) /* all flags, INIT_EXT among them, but the one that has no meaning */

struct question {
	struct fuse_in_header header;
	struct fuse_init_in init;
};

struct answer {
	struct fuse_out_header header;
	struct fuse_init_out init;
};

/* The flags that a session with these operations answers, if the kernel offers all of `offered`. */
static uint32_t agreed(const struct fuse_lowlevel_ops *ops, void *userdata, uint32_t offered)
{
	char *words[] = { "vdifs" };
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct fuse_session *session = fuse_session_new(&args, ops, sizeof(*ops), userdata);
	struct fuse_buf buffer = { .mem = NULL };
	struct question question = {
		.header = { .len = sizeof(question), .opcode = FUSE_INIT, .unique = 2 },
		.init = { .major = FUSE_KERNEL_VERSION,
			  .minor = MINOR,
			  .max_readahead = 131072,
			  .flags = offered },
	};
	struct answer answer;
	char place[32];
	int ends[2];

	assert_non_null(session);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	snprintf(place, sizeof(place), "/dev/fd/%d", ends[0]);
	assert_int_equal(fuse_session_mount(session, place), 0);
	assert_int_equal(write(ends[1], &question, sizeof(question)), sizeof(question));
	assert_true(fuse_session_receive_buf(session, &buffer) > 0);
	fuse_session_process_buf(session, &buffer);
	assert_true(read(ends[1], &answer, sizeof(answer)) >= (ssize_t)sizeof(answer.header) + 24);
	assert_int_equal(answer.header.error, 0);
	free(buffer.mem);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	close(ends[1]);
	return answer.init.flags;
}

/* The same with the operations of vdifs. */
static uint32_t agreed_by_vdifs(uint32_t offered)
{
	struct vdifs_fs_options options = { .tree = { .image_name = "image.raw" } };
	struct dice dice = { 1 };
	struct vd_image *image = fake_image_new(4096, FAKE_GENEROUS, &dice);
	struct vd_disk *disk = fake_disk_new(&image, 1, 9);
	struct vd_index *index;
	struct vdifs_fs *fs;
	struct vd_error err;
	uint32_t flags;

	assert_int_equal(vd_index_new(disk, 1 << 20, &index), 0);
	assert_int_equal(vdifs_fs_new(disk, index, &options, &fs, &err), 0);
	flags = agreed(&vdifs_fs_ops, fs, offered);
	vdifs_fs_free(fs);
	vd_index_free(index);
	vd_disk_close(disk);
	return flags;
}

static void what_libfuse_chooses_is_kept(void **state)
{
	static const struct fuse_lowlevel_ops plain = { .init = NULL };
	static const uint32_t offers[] = { OFFERED, UINT32_MAX >> 2, FUSE_ASYNC_READ };

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(offers); i++) {
		uint32_t chosen = agreed(&plain, NULL, offers[i]);
		uint32_t flags = agreed_by_vdifs(offers[i]);

		if (flags != (chosen | (FUSE_EXPORT_SUPPORT & offers[i])))
			fail_msg("offered %#x: libfuse alone chooses %#x, vdifs %#x", offers[i],
				 chosen, flags);
	}
}

/* By name, in case libfuse itself chose less. */
static void reads_are_parallel_and_nfs_works(void **state)
{
	const uint32_t wanted = FUSE_ASYNC_READ | FUSE_EXPORT_SUPPORT;
	uint32_t flags = agreed_by_vdifs(OFFERED);

	(void)state;
	if ((flags & wanted) != wanted)
		fail_msg("wanted %#x, got %#x", wanted, flags);
}

/* They would have the kernel keep what another process may change, or send what nobody answers. */
static void nothing_that_harms_is_asked_for(void **state)
{
	const uint32_t harmful = FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS |
				 FUSE_POSIX_ACL | FUSE_DONT_MASK;

	(void)state;
	assert_int_equal(agreed_by_vdifs(OFFERED) & harmful, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_libfuse_chooses_is_kept),
		cmocka_unit_test(reads_are_parallel_and_nfs_works),
		cmocka_unit_test(nothing_that_harms_is_asked_for),
	};

	return cmocka_run_group_tests_name("init", tests, NULL, NULL);
}
