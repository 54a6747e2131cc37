/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Eight threads that do everything at once, for ThreadSanitizer and for anybody who doubts:
 *
 *	mix library IMAGE WANTED MILLISECONDS	against libvd, while the map is made and taken down
 *	mix mount FOLDER WANTED MILLISECONDS	against a mount, until told by SIGUSR1 that it ends
 *
 * WANTED is the disk's contents, or "-" for an image of tests/mount/fragmented.py: zeros, and 'A' in
 * every second cluster. The exit status is 1 if an answer was wrong.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "map/json.h"

#define THREADS 8
#define PIECE ((size_t)256 << 10)

static atomic_bool stop, ending; /* all is over; the mount may be gone at any moment */
static atomic_uint wrong;
static atomic_ulong answers;

static const uint8_t *wanted; /* NULL: a formula */
static uint64_t disk_bytes;

/* The mount's paths. */
static char disk_path[PATH_MAX], map_path[PATH_MAX];
static const char *folder;
/* The library's. */
static struct vd_disk *disk;
static struct vd_index *vd_index;

static uint64_t roll(uint64_t *state, uint64_t below)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*state >> 16) % below;
}

static void complain(const char *what, uint64_t at, int error)
{
	atomic_fetch_add(&wrong, 1);
	fprintf(stderr, "%s at %llu: %s\n", what, (unsigned long long)at,
		error ? strerror(error) : "wrong");
}

static void check(const uint8_t *bytes, size_t count, uint64_t at)
{
	atomic_fetch_add(&answers, 1);
	if (wanted && memcmp(bytes, wanted + at, count) != 0)
		complain("read", at, 0);
	for (size_t i = 0; !wanted && i < count; i++) {
		if (bytes[i] != 0 && bytes[i] != 'A') {
			complain("read", at + i, 0);
			return;
		}
	}
}

/* --- a mount --------------------------------------------------------------------------------- */

/* An error of a call: fine once the mount ends, which may be told a little later; ENXIO from a seek. */
static void check_error(const char *what, uint64_t at)
{
	int error = errno;

	if (error == ENXIO)
		return;
	for (unsigned i = 0; i < 1000 && !atomic_load(&ending); i++)
		usleep(1000);
	if (!atomic_load(&ending))
		complain(what, at, error);
}

static void mount_read(int fd, uint64_t at, uint8_t *buffer)
{
	ssize_t got = pread(fd, buffer, PIECE, (off_t)at);

	if (got < 0)
		check_error("read", at);
	else
		check(buffer, (size_t)got, at);
	posix_fadvise(fd, (off_t)at, (off_t)PIECE, POSIX_FADV_DONTNEED);
}

static void mount_list(void)
{
	DIR *dir = opendir(folder);
	struct stat st;

	if (!dir || stat(disk_path, &st) < 0)
		check_error("readdir", 0);
	while (dir && readdir(dir))
		continue;
	if (dir)
		closedir(dir);
}

static void mount_sidecar(uint8_t *buffer)
{
	int fd = open(map_path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, buffer, PIECE) < 0)
		check_error("sidecar", 0);
	if (fd >= 0)
		close(fd);
}

static void mount_turn(uint64_t *dice, uint8_t *buffer)
{
	int flags = O_RDONLY | O_CLOEXEC | (roll(dice, 3) == 0 ? O_DIRECT : 0);
	int fd = open(disk_path, flags);

	if (fd < 0) {
		check_error("open", 0);
		usleep(1000);
		return;
	}
	for (unsigned i = 0; i < 8 && !atomic_load(&stop); i++) {
		uint64_t at = roll(dice, disk_bytes) & ~UINT64_C(4095);

		mount_read(fd, at, buffer);
		if (lseek(fd, (off_t)at, i % 2 ? SEEK_DATA : SEEK_HOLE) < 0)
			check_error("seek", at);
	}
	/* The attribute waits for the map: two of eight threads, so that the others go on. */
	if (roll(dice, 4) == 0 && getxattr(disk_path, "user.intervals", buffer, PIECE) < 0)
		check_error("getxattr", 0);
	if (getxattr(disk_path, "user.vdifs.info", buffer, PIECE) < 0)
		check_error("getxattr", 1);
	mount_list();
	if (roll(dice, 8) == 0)
		mount_sidecar(buffer);
	close(fd);
}

/* --- the library ----------------------------------------------------------------------------- */

static bool is_stopped(void *context)
{
	(void)context;
	return atomic_load(&stop);
}

static void library_turn(uint64_t *dice, uint8_t *buffer, struct vd_scratch *scratch)
{
	struct vd_interrupt interrupt = { .interrupted = is_stopped };
	uint64_t at = roll(dice, disk_bytes), found;
	size_t bytes = (size_t)vd_min(1 + roll(dice, PIECE), disk_bytes - at);
	char *text = NULL;
	size_t length;
	int r = vd_disk_read(disk, buffer, bytes, at, scratch);

	if (r < 0)
		complain("read", at, -r);
	else
		check(buffer, bytes, at);
	r = vd_index_seek(vd_index, at, roll(dice, 2), &found, &interrupt);
	if (r < 0 && r != -ENXIO && r != -EINTR)
		complain("seek", at, -r);
	if (roll(dice, 16) == 0)
		vd_disk_changed(disk);
	if (roll(dice, 16) == 0 && vd_json_info(vd_index, "", &text, &length) == 0)
		free(text);
	if (roll(dice, 64) == 0) {
		r = vd_json_attribute(vd_index, &text, &length, &interrupt);
		if (r == 0)
			free(text);
		else if (r != -EINTR)
			complain("attribute", 0, -r);
	}
}

/* --- both ------------------------------------------------------------------------------------ */

static void *run(void *data)
{
	uint64_t dice = (uint64_t)(uintptr_t)data * UINT64_C(0x9e3779b97f4a7c15) + 1;
	uint8_t *buffer = aligned_alloc(4096, PIECE);
	struct vd_scratch *scratch = NULL;

	if (!buffer || vd_scratch_new(&scratch) < 0)
		atomic_fetch_add(&wrong, 1);
	else
		while (!atomic_load(&stop)) {
			if (disk)
				library_turn(&dice, buffer, scratch);
			else
				mount_turn(&dice, buffer);
		}
	vd_scratch_free(scratch);
	free(buffer);
	return NULL;
}

static void on_ending(int number)
{
	(void)number;
	atomic_store(&ending, true);
}

static void run_all(long milliseconds)
{
	struct timespec left = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	pthread_t threads[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, run, (void *)(i + 1)) != 0)
			exit(99);
	}
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		continue;
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static bool use_image(const char *path, long milliseconds)
{
	struct vd_chain_options options = { .cache_memory = 1 << 20, .force_share = true };
	struct vd_error err;

	if (vd_chain_open(path, &options, &vd_opener_here, &disk, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return false;
	}
	disk_bytes = disk->size;
	if (vd_index_new(disk, (size_t)64 << 20, &vd_index) == 0 && vd_index_start(vd_index) == 0)
		run_all(milliseconds);
	else
		atomic_fetch_add(&wrong, 1);
	vd_index_free(vd_index);
	vd_disk_close(disk);
	return true;
}

/* The two files of the folder: the disk, and its map. */
static bool use_mount(const char *path, long milliseconds)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	struct stat st;

	folder = path;
	while (dir && (entry = readdir(dir))) {
		bool is_map = strstr(entry->d_name, ".intervals.json") != NULL;

		if (entry->d_name[0] != '.')
			snprintf(is_map ? map_path : disk_path, PATH_MAX, "%s/%s", path,
				 entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (!*disk_path || stat(disk_path, &st) < 0)
		return false;
	disk_bytes = (uint64_t)st.st_size;
	signal(SIGUSR1, on_ending);
	run_all(milliseconds);
	return true;
}

int main(int argc, char **argv)
{
	bool done;
	int fd;

	if (argc != 5)
		return 99;
	if (strcmp(argv[3], "-") != 0) {
		struct stat st;

		fd = open(argv[3], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			return 99;
		wanted = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (wanted == MAP_FAILED)
			return 99;
	}
	done = strcmp(argv[1], "library") == 0 ? use_image(argv[2], atol(argv[4]))
					       : use_mount(argv[2], atol(argv[4]));
	printf("%lu reads, %u wrong\n", atomic_load(&answers), atomic_load(&wrong));
	return done && atomic_load(&wrong) == 0 ? 0 : 1;
}
