/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdcat [options] [--chunk=BYTES] IMAGE OUT: what the tests see of a disk without FUSE.
 *
 * Writes the disk to OUT (sparse) and prints "size N", then in ascending order "data START LENGTH",
 * as SEEK_DATA and SEEK_HOLE give it through the index, then "eio START LENGTH": what cannot be read,
 * found sector by sector. Reads go in pieces of BYTES, so that every edge is met. The exit status is
 * 3 if parts could not be read, and the errno if the disk cannot be opened.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/exit.h"
#include "disk/chain.h"
#include "map/index.h"

#define CHUNK_BYTES (256u << 10)

struct job {
	struct vd_disk *disk;
	struct vd_index *index;
	struct vd_scratch *scratch;
	uint8_t *buffer;
	size_t chunk;
	int out;
	bool any_bad;
	uint64_t bad_start, bad_end; /* being collected; equal: none */
};

static void die_of(int r, const char *text)
{
	fprintf(stderr, "vdcat: %s\n", text);
	exit(-r);
}

static void die(const char *text)
{
	die_of(-EXIT_FAILURE, text);
}

static void print_bad(struct job *job)
{
	if (job->bad_end > job->bad_start)
		printf("eio %" PRIu64 " %" PRIu64 "\n", job->bad_start,
		       job->bad_end - job->bad_start);
}

static void note_bad(struct job *job, uint64_t start, uint64_t end)
{
	job->any_bad = true;
	if (job->bad_end != start || job->bad_end == job->bad_start) {
		print_bad(job);
		job->bad_start = start;
	}
	job->bad_end = end;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
	return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* Read [start, start + bytes); if that fails, its sectors one by one. */
static void copy(struct job *job, uint64_t start, size_t bytes)
{
	int r = vd_disk_read(job->disk, job->buffer, bytes, start, job->scratch);

	if (r == 0) {
		if (!is_zero(job->buffer, bytes) &&
		    pwrite(job->out, job->buffer, bytes, (off_t)start) != (ssize_t)bytes)
			die("cannot write");
		return;
	}
	if (r != -EIO)
		die(strerror(-r));
	if (start / VD_SECTOR == (start + bytes - 1) / VD_SECTOR) {
		note_bad(job, start, start + bytes);
		return;
	}
	for (uint64_t at = start; at < start + bytes;) {
		uint64_t end = vd_min((at / VD_SECTOR + 1) * VD_SECTOR, start + bytes);

		copy(job, at, (size_t)(end - at));
		at = end;
	}
}

/* All data intervals by seeking, as cp(1) does it. */
static void print_data(struct job *job)
{
	uint64_t size = job->disk->size, at = 0, end;

	while (at < size && vd_index_seek(job->index, at, true, &at, NULL) == 0) {
		if (vd_index_seek(job->index, at, false, &end, NULL) < 0 || end <= at)
			die("no hole after data");
		printf("data %" PRIu64 " %" PRIu64 "\n", at, end - at);
		at = end;
	}
}

static void run(struct job *job, const char *out)
{
	uint64_t size = job->disk->size;

	job->out = open(out, O_RDWR | O_CREAT | O_TRUNC, 0600);
	job->buffer = malloc(job->chunk);
	if (job->out < 0 || ftruncate(job->out, (off_t)size) < 0 || !job->buffer ||
	    vd_scratch_new(&job->scratch) < 0 ||
	    vd_index_new(job->disk, (size_t)64 << 20, &job->index) < 0)
		die("cannot make the output");
	printf("size %" PRIu64 "\n", size);
	print_data(job); /* walked lazily */
	if (vd_index_start(job->index) < 0 || vd_index_wait(job->index, NULL) < 0)
		die("no index");
	for (uint64_t at = 0; at < size; at += job->chunk) {
		uint64_t next; /* holes are read, too, but not those of terabytes */

		if (size > (UINT64_C(1) << 32) &&
		    vd_index_seek(job->index, at, true, &next, NULL) == -ENXIO)
			break;
		copy(job, at, (size_t)vd_min(job->chunk, size - at));
	}
	print_bad(job);
	close(job->out);
	free(job->buffer);
	vd_scratch_free(job->scratch);
	vd_index_free(job->index);
}

/* --name=value or --name; false: not an option. */
static bool take_option(struct job *job, struct vd_chain_options *options, char *arg)
{
	struct vd_error err = { "" };
	char *value;
	int r = 0;

	if (strcmp(arg, "-U") == 0)
		options->force_share = true;
	if (strncmp(arg, "--", 2) != 0)
		return arg[0] == '-';
	value = strchr(arg, '=');
	if (value)
		*value++ = '\0';
	if (strcmp(arg, "--chunk") == 0 && value)
		job->chunk = (size_t)strtoull(value, NULL, 0);
	else
		r = vd_chain_option_set(options, arg + 2, value, &err);
	if (r < 0)
		die_of(r, *err.text ? err.text : "unknown option");
	return true;
}

int main(int argc, char **argv)
{
	struct vd_chain_options options = { .format = NULL };
	struct job job = { .chunk = CHUNK_BYTES };
	struct vd_error err = { "" };
	int i = 1, r;

	vd_log_open("vdcat");
	while (i < argc && take_option(&job, &options, argv[i]))
		i++;
	if (argc - i != 2 || job.chunk == 0)
		die("usage: vdcat [options] [--chunk=BYTES] IMAGE OUT");
	r = vd_chain_open(argv[i], &options, &vd_opener_here, &job.disk, &err);
	if (r < 0)
		die_of(r, err.text);
	run(&job, argv[i + 1]);
	vd_disk_close(job.disk);
	return job.any_bad ? VD_EXIT_UNREADABLE : VD_EXIT_DONE;
}
