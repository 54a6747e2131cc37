/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdimap: print the interval map of an image. The disk is walked once, by the threads of a scan, and
 * the text streamed, so that memory does not grow with the number of intervals. A child process does
 * all that in the sandbox, this one opens files for it. No FUSE; in this file there is one thread.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "map/json.h"
#include "sandbox/confined.h"

#define BUFFER_BYTES (64 << 10)
#define PROGRESS_AFTER_SECONDS 1

static void print_help(void)
{
	printf("Usage: vdimap [options] IMAGE\n"
	       "Print the map of the data in a VHD or QCOW2 image as JSON.\n\n");
	for (const struct vd_chain_option *row = vd_chain_option_table; row->name; row++)
		printf("  --%s%s%-*s %s\n", row->name, row->value ? "=" : "",
		       25 - (int)strlen(row->name) - (row->value ? 1 : 0),
		       row->value ? row->value : "", row->help);
	printf("  --sandbox=MODE             auto (default), strict or off\n"
	       "  -U                         the same as --force-share\n"
	       "  -h, --help                 print this and exit\n"
	       "  -V, --version              print the version and exit\n");
}

static int fail(const struct vd_error *err)
{
	fprintf(stderr, "vdimap: %s\n", err->text);
	return EXIT_FAILURE;
}

/* A line on the terminal that says how far it is, once it takes long. */
struct progress {
	bool wanted; /* there is a terminal, and nothing else is printed on it */
	bool shown;
	const struct vd_json_reader *reader;
	uint64_t disk_bytes;
	struct timespec due; /* of the next line */
};

static void progress_begin(struct progress *progress, const struct vd_json_reader *reader,
			   uint64_t disk_bytes)
{
	*progress = (struct progress){
		.wanted = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO),
		.reader = reader,
		.disk_bytes = disk_bytes,
	};
	clock_gettime(CLOCK_MONOTONIC, &progress->due);
	progress->due.tv_sec += PROGRESS_AFTER_SECONDS;
}

/* Asked again and again; draws ten times a second. Never interrupts: always false. */
static bool progress_draw(void *context)
{
	enum { CELLS = 40 };
	static const char full[CELLS + 1] = "########################################";
	struct progress *progress = context;
	struct timespec now;
	double share;

	if (!progress->wanted)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec < progress->due.tv_sec ||
	    (now.tv_sec == progress->due.tv_sec && now.tv_nsec < progress->due.tv_nsec))
		return false;
	share = (double)vd_json_reached(progress->reader) / (double)vd_max(progress->disk_bytes, 1);
	fprintf(stderr, "\rvdimap: [%-*.*s] %3.0f %%", CELLS, (int)(share * CELLS), full,
		share * 100);
	progress->shown = true;
	progress->due = now;
	progress->due.tv_nsec += 100000000;
	progress->due.tv_sec += progress->due.tv_nsec / 1000000000;
	progress->due.tv_nsec %= 1000000000;
	return false;
}

static void progress_end(struct progress *progress)
{
	if (progress->shown)
		fprintf(stderr, "\r\033[K");
}

/* Write the whole text to stdout. */
static int print_map(struct vd_json_reader *reader, uint64_t disk_bytes, struct vd_error *err)
{
	static char buffer[BUFFER_BYTES];
	struct progress progress;
	struct vd_interrupt draw = { .interrupted = progress_draw, .context = &progress };
	uint64_t at = 0;
	ssize_t got;

	progress_begin(&progress, reader, disk_bytes);
	while ((got = vd_json_read(reader, buffer, sizeof(buffer), at, &draw)) > 0) {
		if (fwrite(buffer, 1, (size_t)got, stdout) != (size_t)got)
			break;
		at += (uint64_t)got;
		progress_draw(&progress);
	}
	progress_end(&progress);
	if (got < 0)
		return vd_fail(err, (int)-got, "cannot make the map: %s", strerror((int)-got));
	if (isatty(STDOUT_FILENO))
		putchar('\n');
	if (fflush(stdout) != 0 || ferror(stdout))
		return vd_fail(err, EIO, "cannot write the map: %s", strerror(errno));
	return 0;
}

struct command {
	const char *image;
	struct vd_chain_options chain;
	enum vd_sandbox_mode sandbox;
	bool selftest;
};

static int run(const struct command *command, struct vd_confined *confined, struct vd_error *err)
{
	struct vd_json_reader *reader = NULL;
	struct vd_index *index = NULL;
	struct vd_disk *disk = NULL;
	int r = vd_chain_open(command->image, &command->chain, &confined->opener, &disk, err);

	vd_confined_opened(confined);
	if (r < 0)
		return r;
	r = vd_index_new(disk, 0, &index);
	if (r == 0)
		r = vd_json_reader_new(index, disk->cluster_bits, &reader);
	if (r == 0)
		vd_json_reader_scan(reader, vd_scan_threads()); /* without, it is only slower */
	if (r < 0)
		vd_fail(err, -r, "out of memory");
	if (r == 0)
		r = print_map(reader, disk->size, err);
	if (r == 0 && vd_json_bad_bytes(reader) > 0)
		r = vd_fail(err, EIO,
			    "%s: %" PRIu64
			    " bytes of the disk cannot be read; the map lists them as data",
			    disk->layers[0]->source->name, vd_json_bad_bytes(reader));
	vd_json_reader_free(reader);
	vd_index_free(index);
	vd_disk_close(disk);
	return r;
}

/* In the child, before the sandbox closes. */
static void prepare(void *context)
{
	(void)context;
	vd_json_warm_up();
}

static int run_confined(void *context, struct vd_confined *confined)
{
	struct vd_error err = { "" };

	return run(context, confined, &err) < 0 ? fail(&err) : EXIT_SUCCESS;
}

/* Parse the command line. 1: go on; 0: done, successfully. */
static int parse(int argc, char **argv, struct command *command, struct vd_error *err)
{
	enum { MAX = 32 };
	struct option longs[MAX] = { { "help", no_argument, NULL, 'h' },
				     { "version", no_argument, NULL, 'V' },
				     { "sandbox", required_argument, NULL, 's' },
				     { "sandbox-selftest", no_argument, NULL, 't' } };
	unsigned count = 4;
	int c, row = 0, r = 0;

	for (const struct vd_chain_option *o = vd_chain_option_table; o->name; o++)
		longs[count++] =
			(struct option){ o->name, o->value ? required_argument : no_argument, NULL,
					 1 };
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "UhV", longs, &row)) != -1) {
		if (c == 1)
			r = vd_chain_option_set(&command->chain, longs[row].name, optarg, err);
		else if (c == 's')
			r = vd_sandbox_mode_parse(optarg, &command->sandbox, err);
		else if (c == 't') /* not in --help, as in vdifs */
			command->selftest = true;
		else if (c == 'U')
			command->chain.force_share = true;
		else if (c == 'h')
			print_help();
		else if (c == 'V')
			printf("vdimap %s\n", PACKAGE_VERSION);
		else
			r = vd_fail(err, EINVAL,
				    "unknown option or missing value: %s; see vdimap --help",
				    argv[optind - 1]);
		if (c == 'h' || c == 'V')
			return 0;
	}
	if (r < 0 || command->selftest)
		return r < 0 ? r : 1;
	if (argc - optind != 1)
		return vd_fail(err, EINVAL, "give one image; see vdimap --help");
	command->image = argv[optind];
	return 1;
}

int main(int argc, char **argv)
{
	struct command command = { .image = NULL };
	struct vd_confined_options confined = {
		.alone = true,
		.prepare = prepare,
		.run = run_confined,
		.context = &command,
	};
	struct vd_error err = { "" };
	int r;

	vd_log_open("vdimap");
	r = parse(argc, argv, &command, &err);
	confined.mode = command.sandbox;
	if (r > 0 && command.selftest)
		r = vd_sandbox_selftest(command.sandbox, false);
	else if (r > 0)
		r = vd_confined_run(&confined, &command.image, 1, &command.chain, &err);
	return r < 0 ? fail(&err) : r;
}
