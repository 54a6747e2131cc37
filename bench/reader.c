/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the benchmarks measure with. It reads into a buffer, so that the source is measured and not
 * a destination, and it is small, so that starting a command from it costs next to nothing.
 *
 *	reader seq FILE BYTES LIMIT RANGES	data ranges in pieces, for LIMIT seconds at most
 *	reader rand FILE BYTES THREADS SECONDS RANGES MODE	aligned pieces of the data, at random
 *	reader seek FILE SECONDS ORDER		SEEK_DATA and SEEK_HOLE in turns
 *	reader trip FILE SECONDS		fstatfs(): the least that a FUSE daemon can be asked
 *	reader first FILE OFFSET KIND COMMAND...	start COMMAND, which mounts FILE; read a byte
 *	reader run COMMAND...			run COMMAND, its output thrown away
 *	reader touch MIB			write to so much memory and give it back
 *
 * RANGES is the file whose SEEK_DATA and SEEK_HOLE say where the data is: FILE itself, or another
 * one if FILE does not know. MODE is direct (O_DIRECT) or cached. ORDER is up (from range to range
 * as they lie) or any (each pair at a random place). KIND: COMMAND returns when the mount is there,
 * or stays.
 *
 * One line of numbers is printed: seq: MB/s, bytes; rand, seek, trip: calls a second; first:
 * milliseconds from exec; run: seconds, peak memory in KiB, bytes read; touch: none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define BATCH 64		/* calls between two looks at the clock */
#define PATIENCE_SECONDS 60.0	/* for a command that is to mount something */

extern char **environ;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die_errno(const char *what, int number)
{
	fprintf(stderr, "reader: %s: %s\n", what, strerror(number));
	exit(EXIT_FAILURE);
}

static void die(const char *what)
{
	die_errno(what, errno);
}

static void fail(const char *what)
{
	fprintf(stderr, "reader: %s\n", what);
	exit(EXIT_FAILURE);
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);

	if (fd < 0)
		die(path);
	return fd;
}

static char *new_buffer(size_t bytes)
{
	char *buffer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);

	if (!buffer)
		die("memory");
	memset(buffer, 0, bytes);
	return buffer;
}

/* The next data range at or behind `at`; false: there is none. */
static bool next_range(int fd, off_t *at, off_t *end)
{
	*at = lseek(fd, *at, SEEK_DATA);
	if (*at < 0 && errno == ENXIO)
		return false;
	if (*at < 0)
		die("SEEK_DATA");
	*end = lseek(fd, *at, SEEK_HOLE);
	if (*end < 0)
		die("SEEK_HOLE");
	return true;
}

/* Sequential reading. */

struct pass {
	int fd;
	char *buffer;
	size_t bytes;
	double deadline;
	uint64_t total, calls;
};

/* False: the time is over. */
static bool read_range(struct pass *pass, off_t at, off_t end)
{
	while (at < end) {
		size_t want = (size_t)(end - at) < pass->bytes ? (size_t)(end - at) : pass->bytes;
		ssize_t got = pread(pass->fd, pass->buffer, want, at);

		if (got < 0)
			die("pread");
		if (got == 0)
			fail("the file ends too soon");
		at += got;
		pass->total += (uint64_t)got;
		if (++pass->calls % BATCH == 0 && now() > pass->deadline)
			return false;
	}
	return true;
}

static void run_seq(const char *path, size_t bytes, double limit, const char *ranges_path)
{
	int ranges = open_file(ranges_path, 0);
	struct pass pass = { open_file(path, 0), new_buffer(bytes), bytes, 0, 0, 0 };
	double start = now();
	off_t at = 0, end;

	pass.deadline = start + limit;
	while (next_range(ranges, &at, &end) && read_range(&pass, at, end))
		at = end;
	printf("%.1f %ju\n", (double)pass.total / 1e6 / (now() - start), (uintmax_t)pass.total);
}

/* Random reading. */

struct job {
	const char *path;
	int flags;
	size_t bytes;
	double seconds;
	const uint32_t *places;		/* piece numbers */
	size_t count;
	uint64_t seed;
	double rate;			/* the result */
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 24;
}

static uint32_t *list_places(const char *path, size_t bytes, size_t *count)
{
	int fd = open_file(path, 0);
	size_t room = 1 << 16;
	uint32_t *places = malloc(room * sizeof(*places));
	off_t at = 0, end;

	for (*count = 0; next_range(fd, &at, &end); at = end) {
		uint64_t piece = ((uint64_t)at + bytes - 1) / bytes;

		for (; places && piece < (uint64_t)end / bytes; piece++) {
			if (*count == room)
				places = realloc(places, (room *= 2) * sizeof(*places));
			if (places)
				places[(*count)++] = (uint32_t)piece;
		}
	}
	if (!places)
		die("memory");
	if (*count == 0)
		fail("no data");
	close(fd);
	return places;
}

static void *rand_run(void *data)
{
	struct job *job = data;
	int fd = open_file(job->path, job->flags);
	char *buffer = new_buffer(job->bytes);
	uint64_t state = job->seed, done = 0;
	double start = now(), end;

	do {
		for (int i = 0; i < BATCH; i++) {
			uint64_t piece = job->places[next_random(&state) % job->count];

			if (pread(fd, buffer, job->bytes, (off_t)(piece * job->bytes)) < 0)
				die("pread");
		}
		done += BATCH;
		end = now();
	} while (end < start + job->seconds);
	job->rate = (double)done / (end - start);
	return NULL;
}

static void run_rand(char **argv)
{
	int threads = atoi(argv[4]);
	struct job jobs[MAX_THREADS];
	pthread_t ids[MAX_THREADS];
	size_t count, bytes = strtoul(argv[3], NULL, 0);
	const uint32_t *places = list_places(argv[6], bytes, &count);
	double rate = 0;

	if (threads < 1 || threads > MAX_THREADS)
		fail("threads: 1 to 64");
	for (int i = 0; i < threads; i++) {
		jobs[i] = (struct job){ argv[2], strcmp(argv[7], "direct") == 0 ? O_DIRECT : 0, bytes,
					atof(argv[5]), places, count, (uint64_t)i * 7919 + 1, 0 };
		if (pthread_create(&ids[i], NULL, rand_run, &jobs[i]) != 0)
			fail("cannot make a thread");
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		rate += jobs[i].rate;
	}
	printf("%.0f\n", rate);
}

/* Questions. */

static void run_seek(const char *path, double seconds, bool any)
{
	int fd = open_file(path, 0);
	uint64_t state = 1, calls = 0, size = (uint64_t)lseek(fd, 0, SEEK_END);
	double start = now(), end;
	off_t at = 0;

	do {
		for (int i = 0; i < BATCH; i += 2) {
			if (any)
				at = (off_t)(next_random(&state) * 4096 % size);
			at = lseek(fd, at, SEEK_DATA);
			at = at < 0 ? 0 : at;
			at = lseek(fd, at, SEEK_HOLE);
			at = at < 0 ? 0 : at;
		}
		calls += BATCH;
		end = now();
	} while (end < start + seconds);
	printf("%.0f\n", (double)calls / (end - start));
}

static void run_trip(const char *path, double seconds)
{
	int fd = open_file(path, 0);
	double start = now(), end;
	uint64_t calls = 0;
	struct statfs st;

	do {
		for (int i = 0; i < BATCH; i++) {
			if (fstatfs(fd, &st) < 0)
				die("fstatfs");
		}
		calls += BATCH;
		end = now();
	} while (end < start + seconds);
	printf("%.0f\n", (double)calls / (end - start));
}

/* Commands. */

/* lasting: it may live on in the background, and must not hold on to our stderr. */
static pid_t start_command(char **command, bool lasting)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (lasting)
		posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
	r = posix_spawnp(&pid, command[0], &actions, NULL, command, environ);
	if (r != 0)
		die_errno(command[0], r);
	posix_spawn_file_actions_destroy(&actions);
	return pid;
}

static dev_t device_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		die(path);
	return st.st_dev;
}

/* Wait until `file` is a mount of its own (stays) or the command has ended well (returns). */
static void wait_for_mount(const char *file, dev_t plain, bool stays, pid_t pid)
{
	double deadline = now() + PATIENCE_SECONDS;
	int status;

	while (now() < deadline) {
		pid_t ended = waitpid(pid, &status, WNOHANG);

		if (ended == pid && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
			fail("the command failed");
		if (ended == pid || (stays && device_of(file) != plain))
			return;
		usleep(100);
	}
	kill(pid, SIGTERM);
	fail("no mount came");
}

static void run_first(const char *file, off_t offset, bool stays, char **command)
{
	dev_t plain = device_of(file);
	double start = now();
	pid_t pid = start_command(command, true);
	char byte;
	int fd;

	wait_for_mount(file, plain, stays, pid);
	fd = open_file(file, 0);
	if (pread(fd, &byte, 1, offset) != 1)
		fail("there is no byte to read");
	printf("%.3f\n", (now() - start) * 1e3);
}

/* How much a process that has ended, but was not yet waited for, has read; 0 if unknown. */
static uintmax_t bytes_read_by(pid_t pid)
{
	char name[64];
	uintmax_t bytes = 0;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/io", (int)pid);
	file = fopen(name, "r");
	if (!file)
		return 0;
	if (fscanf(file, "rchar: %ju", &bytes) != 1)
		bytes = 0;
	fclose(file);
	return bytes;
}

static void run_run(char **command)
{
	double start = now(), seconds;
	pid_t pid = start_command(command, false);
	struct rusage usage;
	uintmax_t bytes;
	siginfo_t info;
	int status;

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0)
		die("waitid");
	seconds = now() - start;
	bytes = bytes_read_by(pid);
	if (wait4(pid, &status, 0, &usage) < 0)
		die("wait4");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail("the command failed");
	printf("%.6f %ld %ju\n", seconds, usage.ru_maxrss, bytes);
}

/* Pages that a hypervisor has taken back cost a fault of its own when they are used again. */
static void run_touch(size_t bytes)
{
	volatile char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	madvise((void *)memory, bytes, MADV_HUGEPAGE); /* only faster */
	for (size_t at = 0; at < bytes; at += 4096)
		memory[at] = 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc == 6 && strcmp(what, "seq") == 0)
		run_seq(argv[2], strtoul(argv[3], NULL, 0), atof(argv[4]), argv[5]);
	else if (argc == 8 && strcmp(what, "rand") == 0)
		run_rand(argv);
	else if (argc == 5 && strcmp(what, "seek") == 0)
		run_seek(argv[2], atof(argv[3]), strcmp(argv[4], "any") == 0);
	else if (argc == 4 && strcmp(what, "trip") == 0)
		run_trip(argv[2], atof(argv[3]));
	else if (argc > 5 && strcmp(what, "first") == 0)
		run_first(argv[2], (off_t)strtoull(argv[3], NULL, 0),
			  strcmp(argv[4], "stays") == 0, argv + 5);
	else if (argc > 2 && strcmp(what, "run") == 0)
		run_run(argv + 2);
	else if (argc == 3 && strcmp(what, "touch") == 0)
		run_touch(strtoul(argv[2], NULL, 0) << 20);
	else
		fail("usage: see the top of reader.c");
	return EXIT_SUCCESS;
}
