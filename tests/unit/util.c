/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Helpers of the unit tests: see util.h. */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

/* splitmix64 */
static uint64_t scramble(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t dice_roll(struct dice *dice, uint64_t sides)
{
	dice->state += UINT64_C(0x9e3779b97f4a7c15);
	return scramble(dice->state) % sides;
}

uint64_t mix(uint64_t a, uint64_t b)
{
	return scramble(scramble(a + UINT64_C(0x9e3779b97f4a7c15)) + b);
}

void put_be16(uint8_t *to, uint16_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

void put_be32(uint8_t *to, uint32_t value)
{
	put_be16(to, (uint16_t)(value >> 16));
	put_be16(to + 2, (uint16_t)value);
}

void put_be64(uint8_t *to, uint64_t value)
{
	put_be32(to, (uint32_t)(value >> 32));
	put_be32(to + 4, (uint32_t)value);
}

void *make(size_t bytes)
{
	void *memory = malloc(bytes);

	assert_non_null(memory);
	return memory;
}

int folder_make(void **state)
{
	const char *parent = getenv("TMPDIR");
	char path[512];

	snprintf(path, sizeof(path), "%s/vdifs-unit-XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(path))
		return -1;
	*state = realpath(path, NULL);
	return *state ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
	(void)st;
	(void)type;
	(void)place;
	return remove(path);
}

int folder_remove(void **state)
{
	int r = nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);

	free(*state);
	return r;
}

const char *in_folder(const char *folder, const char *name)
{
	static char paths[8][1024];
	static unsigned turn;
	char *path = paths[turn++ % ARRAY_LENGTH(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

void file_write(const char *path, const void *bytes, size_t count)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, count), (ssize_t)count);
	assert_int_equal(close(fd), 0);
}

struct vd_source *file_source(const char *path)
{
	struct vd_error err = { "" };
	struct vd_source *source = NULL;
	char *folder = strdup(path);
	int fd = open(path, O_RDONLY), dir_fd;

	assert_true(fd >= 0);
	assert_non_null(folder);
	*strrchr(folder, '/') = '\0';
	dir_fd = open(folder, O_PATH | O_DIRECTORY);
	free(folder);
	assert_true(dir_fd >= 0);
	assert_int_equal(vd_source_from_fd(fd, dir_fd, path, &source, &err), 0);
	return source;
}

unsigned open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static int capture_stderr = -1;
static FILE *capture_file;

void capture_begin(void)
{
	fflush(stderr);
	capture_stderr = dup(STDERR_FILENO);
	capture_file = tmpfile();
	assert_true(capture_stderr >= 0);
	assert_non_null(capture_file);
	dup2(fileno(capture_file), STDERR_FILENO);
}

char *capture_end(void)
{
	size_t bytes;
	long end;
	char *text;

	fflush(stderr);
	dup2(capture_stderr, STDERR_FILENO);
	close(capture_stderr);
	fseek(capture_file, 0, SEEK_END); /* the descriptors share their position */
	end = ftell(capture_file);
	assert_true(end >= 0);
	rewind(capture_file);
	text = make((size_t)end + 1);
	bytes = fread(text, 1, (size_t)end, capture_file);
	text[bytes] = '\0';
	fclose(capture_file);
	return text;
}

void say_skipped(const char *why)
{
	printf("# skipped: %s\n", why);
}

unsigned count_lines(const char *text)
{
	unsigned lines = 0;

	while ((text = strchr(text, '\n'))) {
		lines++;
		text++;
	}
	return lines;
}
