/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file behind everything: reads are whole or an error, holes are what the file system says, and
 * what is not a file is refused. Locks are those that QEMU takes; two open file descriptions
 * of one process stand in conflict like two processes.
 *
 * pread(2) is wrapped by the linker (--wrap=pread), to be interrupted and cut short.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source/source.h"
#include "util.h"

#define KIB 1024

static unsigned eintr_left, preads;
static size_t pread_max = SIZE_MAX;

ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t host);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t host);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t host)
{
	preads++;
	if (eintr_left > 0) {
		eintr_left--;
		errno = EINTR;
		return -1;
	}
	return __real_pread(fd, buffer, bytes < pread_max ? bytes : pread_max, host);
}

/* A file of so many bytes, each of its own. */
static const char *plain_file(const char *folder, const char *name, size_t bytes)
{
	const char *path = in_folder(folder, name);
	uint8_t *contents = make(bytes + 1);

	for (size_t i = 0; i < bytes; i++)
		contents[i] = (uint8_t)mix(1, i);
	file_write(path, contents, bytes);
	free(contents);
	return path;
}

static void check_contents(const struct vd_source *source, uint64_t host, size_t bytes)
{
	uint8_t *buffer = make(bytes + 1);

	assert_int_equal(vd_source_read(source, buffer, bytes, host), 0);
	for (size_t i = 0; i < bytes; i++)
		assert_int_equal(buffer[i], (uint8_t)mix(1, host + i));
	free(buffer);
}

static void the_size_is_the_files_when_it_was_opened(void **state)
{
	static const size_t sizes[] = { 0, 1, 511, 512, 70001 };

	for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
		const char *path = plain_file(*state, "file", sizes[i]);
		struct vd_source *source = file_source(path);

		assert_true(source->size == sizes[i]);
		assert_int_equal(truncate(path, 1 << 20), 0);
		assert_true(source->size == sizes[i]);
		vd_source_close(source);
	}
}

static void every_byte_range_is_read_exactly(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "file", 1000));

	for (uint64_t start = 0; start <= 1000; start += 37) {
		for (size_t bytes = 0; start + bytes <= 1000; bytes += 41)
			check_contents(source, start, bytes);
		check_contents(source, start, (size_t)(1000 - start));
	}
	vd_source_close(source);
}

static void short_and_interrupted_reads_are_continued(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "file", 1000));

	pread_max = 7;
	eintr_left = 5;
	preads = 0;
	check_contents(source, 3, 990);
	pread_max = SIZE_MAX;
	vd_source_close(source);
	if (preads == 0) {
		say_skipped("pread has another name here");
		return;
	}
	assert_int_equal(eintr_left, 0);
	assert_int_equal(preads, 5 + (990 + 6) / 7);
}

static void reading_past_the_end_is_an_error(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "file", 1000));
	uint8_t buffer[16];

	assert_int_equal(vd_source_read(source, buffer, 1, 1000), -EIO);
	assert_int_equal(vd_source_read(source, buffer, 16, 985), -EIO);
	assert_int_equal(vd_source_read(source, buffer, 16, INT64_MAX - 16), -EIO);
	assert_int_equal(vd_source_read(source, buffer, 15, 985), 0);
	vd_source_close(source);
}

static void a_file_that_shrinks_gives_an_error_and_not_zeros(void **state)
{
	const char *path = plain_file(*state, "file", 100 * KIB);
	struct vd_source *source = file_source(path);
	uint8_t buffer[16];

	assert_int_equal(truncate(path, 50 * KIB), 0);
	check_contents(source, 0, 50 * KIB);
	assert_int_equal(vd_source_read(source, buffer, 16, 50 * KIB - 8), -EIO);
	assert_int_equal(vd_source_read(source, buffer, 16, 99 * KIB), -EIO);
	vd_source_close(source);
}

static void a_file_is_spliced_whole_or_not_at_all(void **state)
{
	const char *path = plain_file(*state, "file", 20 * KIB);
	struct vd_source *source = file_source(path);
	uint8_t *buffer = make(20 * KIB);
	int pipe[2];

	assert_int_equal(pipe2(pipe, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(vd_source_splice(source, pipe[1], 17 * KIB, 1001), 0);
	assert_int_equal(read(pipe[0], buffer, 20 * KIB), 17 * KIB);
	for (size_t i = 0; i < 17 * KIB; i++)
		assert_int_equal(buffer[i], (uint8_t)mix(1, 1001 + i));
	assert_int_equal(vd_source_splice(source, pipe[1], 17 * KIB, 4 * KIB), -EIO);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(vd_source_splice(source, pipe[1], 1, 0), -EIO);
	close(pipe[0]);
	close(pipe[1]);
	vd_source_close(source);
	free(buffer);
}

static void splicing_more_than_a_pipe_holds_does_not_block(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "file", 70 * KIB));
	int pipe[2];

	assert_int_equal(pipe2(pipe, O_NONBLOCK | O_CLOEXEC), 0);
	assert_true(fcntl(pipe[1], F_SETPIPE_SZ, 16 * KIB) >= 16 * KIB);
	assert_int_equal(vd_source_splice(source, pipe[1], 70 * KIB, 0), -EAGAIN);
	close(pipe[0]);
	close(pipe[1]);
	vd_source_close(source);
}

static void a_source_that_cannot_splice_says_so(void **state)
{
	static const struct vd_source_ops ops = { .close = NULL };
	struct vd_source source = { .ops = &ops, .fd = -1 };

	(void)state;
	assert_int_equal(vd_source_splice(&source, -1, 1, 0), -EOPNOTSUPP);
}

static void what_a_shrunken_file_lost_is_no_hole(void **state)
{
	const char *path = in_folder(*state, "file");
	struct vd_source *source;
	uint64_t end = 0;
	bool is_hole = true;

	file_write(path, "x", 1);
	assert_int_equal(truncate(path, 1 << 20), 0);
	source = file_source(path);
	assert_int_equal(truncate(path, 4 * KIB), 0);
	vd_source_extent(source, 100 * KIB, &is_hole, &end);
	assert_false(is_hole);
	assert_true(end > 100 * KIB && end <= source->size);
	vd_source_close(source);
}

static void a_change_is_one_of_size_or_mtime(void **state)
{
	const char *path = plain_file(*state, "file", 1000);
	struct vd_source *source = file_source(path);
	struct timespec times[2] = { source->st.st_atim, source->st.st_mtim };
	struct stat now;

	assert_false(vd_source_changed(source, &now));
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(rename(path, in_folder(*state, "other")), 0);
	plain_file(*state, "file", 7); /* another file of that name: not ours */
	assert_false(vd_source_changed(source, &now));
	path = in_folder(*state, "other");
	times[1].tv_nsec = (times[1].tv_nsec + 1) % 1000000000;
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	assert_true(vd_source_changed(source, &now));
	assert_int_equal(now.st_mtim.tv_nsec, times[1].tv_nsec);
	assert_int_equal(truncate(path, 999), 0);
	times[1] = source->st.st_mtim;
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	assert_true(vd_source_changed(source, &now));
	assert_int_equal(now.st_size, 999);
	vd_source_close(source);
}

static void what_cannot_tell_has_not_changed(void **state)
{
	static const struct vd_source_ops none = { .close = NULL };
	struct vd_source source = { .ops = &none, .fd = -1 };
	struct stat now;
	struct vd_source *closed = file_source(plain_file(*state, "file", 1000));
	int fd = closed->fd;

	assert_false(vd_source_changed(&source, &now));
	closed->fd = -1;
	assert_false(vd_source_changed(closed, &now));
	closed->fd = fd;
	vd_source_close(closed);
}

/* Data at 256 KiB for 64 KiB in a file of 1 MiB + 5; false: this file system has no holes. */
static bool sparse_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char block[64 * KIB];
	bool is_sparse;

	assert_true(fd >= 0);
	memset(block, 'd', sizeof(block));
	assert_int_equal(ftruncate(fd, (1 << 20) + 5), 0);
	assert_int_equal(pwrite(fd, block, sizeof(block), 256 * KIB), sizeof(block));
	is_sparse = lseek(fd, 0, SEEK_HOLE) == 0 && lseek(fd, 0, SEEK_DATA) == 256 * KIB;
	close(fd);
	return is_sparse;
}

static void extents_are_the_holes_of_the_file(void **state)
{
	static const struct {
		uint64_t host, end;
		bool is_hole;
	} expected[] = {
		{ 0, 256 * KIB, true },
		{ 1, 256 * KIB, true },
		{ 256 * KIB - 1, 256 * KIB, true },
		{ 256 * KIB, 320 * KIB, false },
		{ 320 * KIB - 1, 320 * KIB, false },
		{ 320 * KIB, (1 << 20) + 5, true },
		{ (1 << 20) + 4, (1 << 20) + 5, true },
	};
	const char *path = in_folder(*state, "file");
	struct vd_source *source;

	if (!sparse_file(path)) {
		say_skipped("this file system has no holes");
		return;
	}
	source = file_source(path);
	assert_false(source->dense);
	for (size_t i = 0; i < ARRAY_LENGTH(expected); i++) {
		uint64_t end = 0;
		bool is_hole = !expected[i].is_hole;

		vd_source_extent(source, expected[i].host, &is_hole, &end);
		assert_int_equal(is_hole, expected[i].is_hole);
		assert_true(end == expected[i].end);
	}
	vd_source_close(source);
}

static void a_hole_need_not_be_read(void **state)
{
	const char *path = in_folder(*state, "file");
	struct vd_source *source;

	if (!sparse_file(path)) {
		say_skipped("this file system has no holes");
		return;
	}
	source = file_source(path);
	assert_true(vd_source_is_hole(source, 0, 256 * KIB));
	assert_true(vd_source_is_hole(source, 100 * KIB, 100 * KIB));
	assert_true(vd_source_is_hole(source, 320 * KIB, (1 << 20) + 5 - 320 * KIB));
	assert_false(vd_source_is_hole(source, 0, 256 * KIB + 1));
	assert_false(vd_source_is_hole(source, 256 * KIB, 64 * KIB));
	assert_false(vd_source_is_hole(source, 0, 512)); /* to read it costs less */
	assert_int_equal(truncate(path, 512 * KIB), 0);
	assert_true(vd_source_is_hole(source, 320 * KIB, 192 * KIB));
	assert_false(vd_source_is_hole(source, 320 * KIB, 192 * KIB + 1)); /* lost */
	vd_source_close(source);
}

static void a_file_without_holes_is_dense(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "file", 100 * KIB + 1));
	uint64_t end = 0;
	bool is_hole = true;

	assert_true(source->dense);
	vd_source_extent(source, 7, &is_hole, &end);
	assert_false(is_hole);
	assert_true(end == 100 * KIB + 1);
	vd_source_close(source);
	source = file_source(plain_file(*state, "empty", 0));
	assert_true(source->dense);
	vd_source_close(source);
}

static int extent_fails(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
{
	(void)source;
	*is_hole = true;
	*end = host + 1;
	return -EINVAL;
}

static void an_extent_that_cannot_be_told_is_data_to_the_end(void **state)
{
	static const struct vd_source_ops fails = { .extent = extent_fails }, none = { 0 };
	struct vd_source source = { .ops = &fails, .size = 1000 };
	uint64_t end = 0;
	bool is_hole = true;

	(void)state;
	vd_source_extent(&source, 10, &is_hole, &end);
	assert_false(is_hole);
	assert_true(end == 1000);
	source.ops = &none;
	is_hole = true;
	vd_source_extent(&source, 10, &is_hole, &end);
	assert_false(is_hole);
	assert_true(end == 1000);
}

/* The descriptors must be closed, too. */
static void check_refused(int fd, const char *name)
{
	struct vd_source *source = NULL;
	struct vd_error err = { "" };
	int dir_fd = open("/", O_PATH);

	assert_true(fd >= 0 && dir_fd >= 0);
	assert_int_equal(vd_source_from_fd(fd, dir_fd, name, &source, &err), -EINVAL);
	assert_null(source);
	assert_non_null(strstr(err.text, "not a regular file"));
	assert_non_null(strstr(err.text, name));
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(fcntl(dir_fd, F_GETFD), -1);
}

static void what_is_no_file_is_refused_and_closed(void **state)
{
	const char *fifo = in_folder(*state, "fifo");
	int pipes[2];

	assert_int_equal(mkfifo(fifo, 0600), 0);
	check_refused(open(fifo, O_RDONLY | O_NONBLOCK), fifo);
	check_refused(open(*state, O_RDONLY), *state);
	check_refused(open("/dev/null", O_RDONLY), "/dev/null");
	assert_int_equal(pipe(pipes), 0);
	check_refused(pipes[0], "pipe");
	close(pipes[1]);
}

static void the_name_is_made_printable(void **state)
{
	struct vd_source *source = file_source(plain_file(*state, "a\nb", 1));

	assert_null(strchr(source->name, '\n'));
	assert_non_null(strstr(source->name, "a\\x0ab"));
	vd_source_close(source);
}

/* A file as opener.c opens it. */
static struct vd_source *identified(const char *path)
{
	struct vd_source *source = file_source(path);

	vd_identity_find(source->fd, &source->identity);
	return source;
}

/* Both answers at once: the file, and its bytes. */
static void check_same(const struct vd_source *a, const struct vd_source *b, bool file, bool bytes)
{
	assert_int_equal(vd_source_is_same_file(a, b), file);
	assert_int_equal(vd_source_is_same_file(b, a), file);
	assert_int_equal(vd_source_has_same_bytes(a, b), bytes);
	assert_int_equal(vd_source_has_same_bytes(b, a), bytes);
}

static void two_names_of_one_file_are_the_same(void **state)
{
	const char *path = plain_file(*state, "file", 10);
	const char *other = in_folder(*state, "link");
	struct vd_source *a, *b, *c;

	assert_int_equal(link(path, other), 0);
	a = identified(path);
	b = identified(other);
	c = identified(plain_file(*state, "copy", 10));
	check_same(a, a, true, true);
	check_same(a, b, true, true);
	check_same(a, c, false, false);
	vd_source_close(a);
	vd_source_close(b);
	vd_source_close(c);
}

/* Equal numbers, as of files behind bindfs: each of the other facts decides. */
static void equal_numbers_are_no_proof(void **state)
{
	const struct vd_source a = {
		.size = 10,
		.st = { .st_mode = S_IFREG,
			.st_dev = 5,
			.st_ino = 1,
			.st_mtim = { 100, 7 },
			.st_ctim = { 100, 8 } },
		.identity = { .mount = 3 },
	};
	struct vd_source b = a;

	(void)state;
	check_same(&a, &b, true, true);
	b.size = 11;
	check_same(&a, &b, false, false);
	b = a;
	b.st.st_mtim.tv_nsec++;
	check_same(&a, &b, false, false);
	b = a;
	b.st.st_ctim.tv_sec++;
	check_same(&a, &b, false, false);
	b = a;
	b.identity.mount++;
	check_same(&a, &b, false, false);
	b = a;
	b.identity.handle_bytes = 4;
	check_same(&a, &b, false, false);
	b = a;
	b.st.st_ino++;
	check_same(&a, &b, false, false);
	b = a;
	b.st.st_dev++;
	check_same(&a, &b, false, false);
}

/* With a handle it is certainly one file, whatever mount it is seen through and who writes to it. */
static void a_handle_proves_the_file_but_not_its_bytes(void **state)
{
	const struct vd_source a = {
		.size = 10,
		.st = { .st_mode = S_IFREG, .st_dev = 5, .st_ino = 1 },
		.identity = { .mount = 3, .handle_bytes = 4, .handle = { 1, 2, 3, 4 } },
	};
	struct vd_source b = a;

	(void)state;
	check_same(&a, &b, true, true);
	b.st.st_mtim.tv_sec++;
	check_same(&a, &b, true, false);
	b = a;
	b.identity.mount++;
	check_same(&a, &b, true, false);
	b = a;
	b.identity.handle[3]++;
	check_same(&a, &b, false, false);
	b = a;
	b.identity.handle_type++;
	check_same(&a, &b, false, false);
}

static void block_devices_are_the_same_by_their_number(void **state)
{
	struct vd_source a = {
		.st = { .st_mode = S_IFBLK, .st_dev = 5, .st_ino = 1, .st_rdev = 7 }
	};
	struct vd_source b = {
		.st = { .st_mode = S_IFBLK, .st_dev = 5, .st_ino = 2, .st_rdev = 7 }
	};

	(void)state;
	check_same(&a, &b, true, true);
	b.st.st_rdev = 8;
	check_same(&a, &b, false, false);
	b = a;
	b.st.st_mode = S_IFREG;
	check_same(&a, &b, false, false);
}

static void closing_nothing_is_fine(void **state)
{
	(void)state;
	vd_source_close(NULL);
}

/* Another program's lock on some bytes of the file, as an open file description of its own. */
static int lock_file(const char *path, short type, off_t byte)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

/* Does anybody hold a lock on the byte, as another program sees it? */
static bool is_locked(const char *path, off_t byte)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	close(fd);
	return lock.l_type != F_UNLCK;
}

/* All bytes that are locked, as text. */
static void check_locked(const char *path, const char *expected)
{
	char text[256] = "";

	for (off_t byte = 90; byte <= 210; byte++) {
		if (is_locked(path, byte))
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%d",
				 *text ? " " : "", (int)byte);
	}
	assert_string_equal(text, expected);
}

static void a_reader_takes_the_locks_that_keep_writers_away(void **state)
{
	const char *path = plain_file(*state, "file", 10);
	struct vd_source *source = file_source(path);
	struct vd_error err = { "" };

	check_locked(path, "");
	assert_int_equal(vd_source_lock(source, false, &err), 0);
	check_locked(path, "100 201 203");
	vd_source_close(source);
	check_locked(path, "");
	source = file_source(path);
	assert_int_equal(vd_source_lock(source, true, &err), 0);
	check_locked(path, "100");
	vd_source_close(source);
}

/* A writer that ends between the open and the lock has changed size and times. */
static void a_locked_source_has_the_size_of_now(void **state)
{
	const char *path = plain_file(*state, "file", 10);
	struct vd_source *source = file_source(path);
	struct vd_error err = { "" };

	assert_int_equal(source->size, 10);
	plain_file(*state, "file", 5000);
	assert_int_equal(vd_source_lock(source, false, &err), 0);
	assert_int_equal(source->size, 5000);
	assert_int_equal(source->st.st_size, 5000);
	check_contents(source, 0, 5000);
	vd_source_close(source);
}

static void readers_do_not_disturb_each_other(void **state)
{
	const char *path = plain_file(*state, "file", 10);
	struct vd_source *a = file_source(path), *b = file_source(path);
	struct vd_error err = { "" };

	assert_int_equal(vd_source_lock(a, false, &err), 0);
	assert_int_equal(vd_source_lock(b, false, &err), 0);
	vd_source_close(a);
	check_locked(path, "100 201 203");
	vd_source_close(b);
}

/* Lock a byte as QEMU does, then ask both ways. 0: this way it may be opened. */
static void check_conflict(const char *path, short type, off_t byte, int plain, int forced,
			   const char *text)
{
	static const char *const kept[] = { "100 201 203", "100" };
	int results[] = { plain, forced };
	char others[16], expected[64];
	int fd;

	snprintf(others, sizeof(others), "%d", (int)byte);
	for (int force = 0; force < 2; force++) {
		struct vd_source *source = file_source(path);
		struct vd_error err = { "" };

		fd = lock_file(path, type, byte);
		assert_int_equal(vd_source_lock(source, force, &err), results[force]);
		if (results[force] < 0) { /* nothing is kept after a refusal */
			check_locked(path, others);
			assert_non_null(strstr(err.text, path));
			assert_non_null(strstr(err.text, text));
		}
		close(fd);
		snprintf(expected, sizeof(expected), "%s", results[force] < 0 ? "" : kept[force]);
		check_locked(path, expected);
		vd_source_close(source);
	}
}

static void a_writer_is_seen_and_its_locks_respected(void **state)
{
	const char *path = plain_file(*state, "file", 10);

	check_conflict(path, F_RDLCK, 101, -EBUSY, 0, "--force-share"); /* it writes */
	check_conflict(path, F_RDLCK, 103, -EBUSY, 0, "--force-share"); /* it resizes */
	check_conflict(path, F_RDLCK, 200, -EBUSY, -EBUSY, "alone"); /* it lets nobody read */
	check_conflict(path, F_RDLCK, 100, 0, 0, ""); /* it reads */
	check_conflict(path, F_RDLCK, 102, 0, 0, ""); /* it writes what is there already */
	check_conflict(path, F_RDLCK, 201, 0, 0, ""); /* it wants no writers */
}

static void a_foreign_write_lock_on_our_bytes_is_seen(void **state)
{
	const char *path = plain_file(*state, "file", 10);

	check_conflict(path, F_WRLCK, 100, -EBUSY, -EBUSY, "locked");
	check_conflict(path, F_WRLCK, 201, -EBUSY, 0, "locked");
	check_conflict(path, F_WRLCK, 203, -EBUSY, 0, "locked");
}

static void a_source_without_a_descriptor_needs_no_locks(void **state)
{
	struct vd_source source = { .fd = -1 };
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(vd_source_lock(&source, false, &err), 0);
}

static void a_source_leaves_no_descriptor_open(void **state)
{
	const char *path = plain_file(*state, "file", 10);
	unsigned before = open_files();
	struct vd_source *source = file_source(path);

	assert_int_equal(open_files(), before + 2);
	vd_source_close(source);
	assert_int_equal(open_files(), before);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_remove)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_FOLDER(the_size_is_the_files_when_it_was_opened),
		IN_FOLDER(every_byte_range_is_read_exactly),
		IN_FOLDER(short_and_interrupted_reads_are_continued),
		IN_FOLDER(reading_past_the_end_is_an_error),
		IN_FOLDER(a_file_that_shrinks_gives_an_error_and_not_zeros),
		IN_FOLDER(a_file_is_spliced_whole_or_not_at_all),
		IN_FOLDER(splicing_more_than_a_pipe_holds_does_not_block),
		cmocka_unit_test(a_source_that_cannot_splice_says_so),
		IN_FOLDER(what_a_shrunken_file_lost_is_no_hole),
		IN_FOLDER(a_change_is_one_of_size_or_mtime),
		IN_FOLDER(what_cannot_tell_has_not_changed),
		IN_FOLDER(extents_are_the_holes_of_the_file),
		IN_FOLDER(a_hole_need_not_be_read),
		IN_FOLDER(a_file_without_holes_is_dense),
		cmocka_unit_test(an_extent_that_cannot_be_told_is_data_to_the_end),
		IN_FOLDER(what_is_no_file_is_refused_and_closed),
		IN_FOLDER(the_name_is_made_printable),
		IN_FOLDER(two_names_of_one_file_are_the_same),
		cmocka_unit_test(equal_numbers_are_no_proof),
		cmocka_unit_test(a_handle_proves_the_file_but_not_its_bytes),
		cmocka_unit_test(block_devices_are_the_same_by_their_number),
		cmocka_unit_test(closing_nothing_is_fine),
		IN_FOLDER(a_reader_takes_the_locks_that_keep_writers_away),
		IN_FOLDER(a_locked_source_has_the_size_of_now),
		IN_FOLDER(readers_do_not_disturb_each_other),
		IN_FOLDER(a_writer_is_seen_and_its_locks_respected),
		IN_FOLDER(a_foreign_write_lock_on_our_bytes_is_seen),
		cmocka_unit_test(a_source_without_a_descriptor_needs_no_locks),
		IN_FOLDER(a_source_leaves_no_descriptor_open),
	};

	return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
