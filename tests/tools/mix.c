/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Eight threads that do everything at once, for ThreadSanitizer and for anybody who doubts:
 *
 *	mix library IMAGE WANTED MILLISECONDS	against libvd, while the map is made and taken down
 *	mix mount FOLDER WANTED MILLISECONDS	against a mount, until told by SIGUSR1 that it ends
 *
 * WANTED is the disk's contents, of which a cluster that begins with a zero is a hole and any other
 * one is data, or "-" for `fragmented.py IMAGE SIZE 16 512 2` of tests/mount, which is computed. All
 * bytes and all answers of seeks are compared. The exit status is 1 if one was wrong.
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
#include "map/info.h"
#include "map/json.h"

#define THREADS 8
#define PIECE ((size_t)256 << 10)
#define CLUSTER ((size_t)64 << 10)

/* The formula: of the tables that the disk needs FORMULA_TABLES are there, evenly spread. */
#define FORMULA_ENTRIES (CLUSTER / 8)
#define FORMULA_TABLES 512
#define FORMULA_EVERY 2

static atomic_bool stop, ending; /* all is over; the mount may be gone at any moment */
static atomic_uint wrong;
static atomic_ulong answers;

static const uint8_t *wanted; /* NULL: a formula */
static uint8_t kinds[2][CLUSTER]; /* a cluster of it: a hole, data */
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

static bool is_in_formula(uint64_t cluster)
{
	uint64_t table = cluster / FORMULA_ENTRIES;
	uint64_t tables = (disk_bytes - 1) / CLUSTER / FORMULA_ENTRIES + 1;
	/* the first one of them that is not before this table */
	uint64_t number = (table * FORMULA_TABLES + tables - 1) / tables;

	return number * tables / FORMULA_TABLES == table && cluster % FORMULA_EVERY == 0;
}

static bool is_data(uint64_t at)
{
	return wanted ? wanted[at & ~(uint64_t)(CLUSTER - 1)] != 0 : is_in_formula(at / CLUSTER);
}

/* Where data, or a hole, is next; the end of the disk if nowhere. */
static uint64_t next_of(uint64_t at, bool want_data)
{
	while (at < disk_bytes && is_data(at) != want_data)
		at = (at | (CLUSTER - 1)) + 1;
	return vd_min(at, disk_bytes);
}

static void check_formula(const uint8_t *bytes, size_t count, uint64_t at)
{
	for (size_t done = 0, part; done < count; done += part) {
		uint64_t virt = at + done;

		part = (size_t)vd_min(CLUSTER - virt % CLUSTER, count - done);
		if (memcmp(bytes + done, kinds[is_data(virt)], part) != 0) {
			complain("read", virt, 0);
			return;
		}
	}
}

static void check(const uint8_t *bytes, size_t count, uint64_t at)
{
	atomic_fetch_add(&answers, 1);
	if (!wanted)
		check_formula(bytes, count, at);
	else if (memcmp(bytes, wanted + at, count) != 0)
		complain("read", at, 0);
}

/* `found` is the size of the disk if there was nothing. */
static void check_seek(uint64_t at, bool want_data, uint64_t found)
{
	if (found != next_of(at, want_data))
		complain(want_data ? "seek to data" : "seek to a hole", at, 0);
}

/* --- a mount --------------------------------------------------------------------------------- */

/* What is fine only once the mount ends, which may be told a little later. */
static void check_ending(const char *what, uint64_t at, int error)
{
	for (unsigned i = 0; i < 1000 && !atomic_load(&ending); i++)
		usleep(1000);
	if (!atomic_load(&ending))
		complain(what, at, error);
}

static void check_error(const char *what, uint64_t at)
{
	check_ending(what, at, errno);
}

/* A short answer is as wrong as an error: a reader takes it for the end of the disk. */
static void mount_read(int fd, uint64_t at, uint8_t *buffer)
{
	size_t count = (size_t)vd_min(PIECE, disk_bytes - at);
	ssize_t got = pread(fd, buffer, PIECE, (off_t)at);

	if (got < 0)
		check_error("read", at);
	else if ((size_t)got != count)
		check_ending("short read", at, 0);
	if (got > 0)
		check(buffer, vd_min((size_t)got, count), at);
	posix_fadvise(fd, (off_t)at, (off_t)PIECE, POSIX_FADV_DONTNEED);
}

static void mount_seek(int fd, uint64_t at, bool want_data)
{
	off_t found = lseek(fd, (off_t)at, want_data ? SEEK_DATA : SEEK_HOLE);

	if (found >= 0)
		check_seek(at, want_data, (uint64_t)found);
	else if (errno == ENXIO && want_data) /* the end of the disk is a hole */
		check_seek(at, want_data, disk_bytes);
	else
		check_error("seek", at);
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
		mount_seek(fd, at, i % 2);
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

static void library_seek(uint64_t at, bool want_data, const struct vd_interrupt *interrupt)
{
	uint64_t found = disk_bytes;
	int r = vd_index_seek(vd_index, at, want_data, &found, interrupt);

	if (r == 0 || r == -ENXIO)
		check_seek(at, want_data, r == 0 ? found : disk_bytes);
	else if (r != -EINTR)
		complain("seek", at, -r);
}

static void library_turn(uint64_t *dice, uint8_t *buffer, struct vd_scratch *scratch)
{
	struct vd_interrupt interrupt = { .interrupted = is_stopped };
	uint64_t at = roll(dice, disk_bytes);
	size_t bytes = (size_t)vd_min(1 + roll(dice, PIECE), disk_bytes - at);
	struct vd_info info = { .disk = disk, .is_mount = true, .sandbox = "" };
	char *text = NULL;
	size_t length;
	int r = vd_disk_read(disk, buffer, bytes, at, scratch);

	if (r < 0)
		complain("read", at, -r);
	else
		check(buffer, bytes, at);
	library_seek(at, roll(dice, 2), &interrupt);
	if (roll(dice, 16) == 0)
		vd_disk_changed(disk);
	if (roll(dice, 16) == 0 && vd_info_attribute(&info, &text, &length) == 0)
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

	memset(kinds[true], 'A', CLUSTER);
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
