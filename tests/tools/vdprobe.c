/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdprobe [--no-seek] [--readers] [--option=value...] IMAGE: what answers cost, for tests/limits.py.
 *
 * Opens the image, and its snapshots as vdifs does, which "opening" includes, and then, without an index, reads and seeks at some places of the disk; with
 * --readers, also reads with as many threads as vdifs may have. Prints the processor time of the
 * opening and of the slowest answer in milliseconds and the peak of memory in KiB: "open 12.3",
 * "read 0.1", "seek 3.0", "memory 4096"; "opened" is the peak of memory by the end of the opening.
 * Processor time, because a test must not fail when the machine is busy.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "disk/views.h"
#include "map/index.h"

#define PLACES 16u
#define READ_BYTES ((size_t)128 << 10) /* what the kernel asks for */

#define SNAPSHOTS 256u /* as many as vdifs shows */
#define READERS 32u /* as the workers of vdifs */
#define CLUSTER_BYTES_MAX ((uint64_t)2 << 20)

static bool no_seek;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *text)
{
	fprintf(stderr, "vdprobe: %s\n", text);
	exit(EXIT_FAILURE);
}

static void note(double *slowest, double since)
{
	double took = now() - since;

	if (took > *slowest)
		*slowest = took;
}

static void probe(const struct vd_disk *disk, uint64_t virt, double *read, double *seek)
{
	static uint8_t buffer[READ_BYTES];
	static struct vd_scratch *scratch;
	struct vd_index *index;
	double since = now();
	uint64_t found;
	int r;

	if (!scratch && vd_scratch_new(&scratch) < 0)
		die("no memory");
	r = vd_disk_read(disk, buffer, (size_t)vd_min(READ_BYTES, disk->size - virt), virt,
			 scratch);
	note(read, since);
	if (r < 0 && r != -EIO)
		die(strerror(-r));
	if (vd_index_new(disk, (size_t)64 << 20, &index) < 0)
		die("no memory");
	for (int data = 0; data < 2 && !no_seek; data++) {
		since = now();
		r = vd_index_seek(index, virt, data, &found, NULL);
		note(seek, since);
		if (r < 0 && r != -ENXIO)
			die(strerror(-r));
	}
	vd_index_free(index);
}

/* A vd_snapshot_fn; as in vdifs/tree.c, one that cannot be opened is left out. */
static int snapshot_open(const struct vd_snapshot *snapshot, void *data)
{
	static unsigned seen;
	struct vd_disk *disk = data;
	struct vd_error err = { "" };
	const struct vd_disk *view;

	if (seen++ == SNAPSHOTS)
		return 1;
	if (vd_disk_view_snapshot(disk, snapshot, &view, &err) < 0 && *err.text)
		fprintf(stderr, "%s\n", err.text);
	return 0;
}

static void snapshots_open(struct vd_disk *disk)
{
	const struct vd_image *image = disk->layers[0];
	struct vd_error err = { "" };

	if (image->format->snapshots && image->format->snapshots(image, snapshot_open, disk, &err) < 0)
		die(err.text);
}

struct reader {
	const struct vd_disk *disk;
	pthread_t thread;
	unsigned number;
};

/* A request in each of some clusters of its own. */
static void *reader_run(void *data)
{
	const struct reader *reader = data;
	uint8_t *buffer = malloc(READ_BYTES);
	struct vd_scratch *scratch;

	if (!buffer || vd_scratch_new(&scratch) < 0)
		die("no memory");
	for (unsigned i = 0; i < PLACES; i++) {
		uint64_t virt = (reader->number + i * READERS) * CLUSTER_BYTES_MAX;

		if (virt < reader->disk->size)
			vd_disk_read(reader->disk, buffer,
				     (size_t)vd_min(READ_BYTES, reader->disk->size - virt), virt,
				     scratch);
	}
	vd_scratch_free(scratch);
	free(buffer);
	return NULL;
}

static void read_with_many(const struct vd_disk *disk)
{
	struct reader readers[READERS];

	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = (struct reader){ .disk = disk, .number = i };
		if (pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]) != 0)
			die("no thread");
	}
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i].thread, NULL);
}

int main(int argc, char **argv)
{
	struct vd_chain_options options = { .format = NULL };
	struct vd_error err = { "" };
	double since, read = 0, seek = 0;
	struct vd_disk *disk;
	struct rusage usage;
	bool readers = false;
	int i = 1;

	vd_log_open("vdprobe");
	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		char *value = strchr(argv[i], '=');

		if (strcmp(argv[i], "--no-seek") == 0) {
			no_seek = true;
			continue;
		}
		if (strcmp(argv[i], "--readers") == 0) {
			readers = true;
			continue;
		}
		if (value)
			*value++ = '\0';
		if (vd_chain_option_set(&options, argv[i] + 2, value, &err) < 0)
			die(*err.text ? err.text : "unknown option");
	}
	if (argc - i != 1)
		die("usage: vdprobe [options] IMAGE");
	since = now();
	if (vd_chain_open(argv[i], &options, &vd_opener_here, &disk, &err) < 0)
		die(err.text);
	snapshots_open(disk);
	printf("open %.1f\n", now() - since);
	getrusage(RUSAGE_SELF, &usage);
	printf("opened %ld\n", usage.ru_maxrss);
	for (unsigned place = 0; place <= PLACES && disk->size > 0; place++)
		probe(disk, place == PLACES ? disk->size - 1 : disk->size / PLACES * place, &read,
		      &seek);
	if (readers)
		read_with_many(disk);
	vd_disk_close(disk);
	getrusage(RUSAGE_SELF, &usage);
	printf("read %.1f\nseek %.1f\nmemory %ld\n", read, seek, usage.ru_maxrss);
	return EXIT_SUCCESS;
}
