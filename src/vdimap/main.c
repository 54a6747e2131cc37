/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdimap: print the interval map of an image, or what has changed in it. The disk is walked once
 * and the text streamed, so that memory does not grow with the number of intervals. A child process
 * does all that in the sandbox, this one opens files for it. No FUSE. All images are opened before
 * anything is mapped, and nothing is opened after that.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "base/exit.h"
#include "base/log.h"
#include "sandbox/confined.h"
#include "vdimap/info.h"
#include "vdimap/print.h"

#define BUFFER_BYTES (64 << 10)

static int fail(const struct vd_error *err, enum vd_exit status)
{
	fprintf(stderr, "vdimap: %s\n", err->text);
	return (int)status;
}

/* With -v: what was opened, and what came of it. */
static void tell_chain(const struct vd_disk *disk)
{
	for (unsigned depth = 0; depth < disk->count; depth++) {
		const struct vd_image *image = disk->layers[depth];

		vd_log(LOG_INFO, "layer %u: %s: %s, %" PRIu64 " bytes, clusters of 2^%u%s%s", depth,
		       image->source->name, image->format->name, image->size, image->cluster_bits,
		       image->data ? ", data in " : "", image->data ? image->data->name : "");
	}
}

static void tell_feed(const struct feed *feed)
{
	if (feed->ranges > 0)
		vd_log(LOG_INFO, "%s: %" PRIu64 " bytes in %" PRIu64 " ranges", feed->ops->yes,
		       feed->yes_bytes, feed->ranges);
	if (feed->diff)
		vd_log(LOG_INFO, "compared: %" PRIu64 " bytes", vd_diff_compared_bytes(feed->diff));
}

/* A map of changes ends where the new disk does. */
static void tell_shorter(const struct vd_disk *disk, const struct vd_disk *old_disk)
{
	if (old_disk && old_disk->size > disk->size)
		vd_log(LOG_WARNING,
		       "%s: the old disk has %" PRIu64 " bytes more than this one, which "
		       "the map cannot tell of",
		       disk->layers[0]->source->name, old_disk->size - disk->size);
}

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Print what a feed answers, in the form that was asked for. */
static int print_feed(struct feed *feed, const struct options *options)
{
	switch (options->form) {
	case FORM_CLUSTERS:
		return print_clusters(feed);
	case FORM_TEXT:
		return print_text(feed);
	case FORM_CHART:
		return print_chart(feed, &options->terminal);
	case FORM_SVG:
		return print_svg(feed);
	default:
		return print_json(feed);
	}
}

static int print_info(const struct options *options, const struct vd_disk *disk,
		      uint64_t *bad_bytes, struct vd_error *err)
{
	struct info info = {
		.disk = disk,
		.filename = options->images[0],
		.alone = options->chains[0].alone,
	};
	struct progress progress;
	int r;

	progress_begin(&progress, options->terminal.bar, disk->size);
	r = info_gather(&info, &progress, err);
	progress_end(&progress);
	if (r == 0)
		r = options->json ? info_print_json(&info) : info_print_text(&info);
	*bad_bytes = info.bad_bytes;
	info_clear(&info);
	return r;
}

static int print(const struct options *options, const struct vd_disk *disk,
		 const struct vd_disk *old_disk, uint64_t *bad_bytes, struct vd_error *err)
{
	struct feed feed = { .ops = NULL };
	struct progress progress;
	int r;

	if (options->form == FORM_INFO) {
		r = print_info(options, disk, bad_bytes, err);
	} else if (options->form == FORM_QEMU) {
		progress_begin(&progress, options->terminal.bar, disk->size);
		r = print_qemu(disk, &progress, bad_bytes);
		progress_end(&progress);
	} else {
		r = feed_open(&feed, options, disk, old_disk, err);
		if (r == 0) {
			tell_shorter(disk, old_disk);
			r = print_feed(&feed, options);
			if (r == 0 && feed.bad_bytes > 0 && feed.scan && options->form == FORM_TEXT)
				r = print_unreadable(disk);
		}
		if (r == 0 && options->verbose)
			tell_feed(&feed);
		*bad_bytes = feed.bad_bytes;
		feed_close(&feed);
	}
	if (r < 0)
		return *err->text ? r : vd_fail(err, -r, "cannot make the map: %s", strerror(-r));
	if (options->terminal.in && (options->form == FORM_JSON || options->form == FORM_CLUSTERS))
		putchar('\n');
	if (fflush(stdout) != 0 || ferror(stdout))
		return vd_fail(err, EIO, "cannot write the map: %s", strerror(errno));
	return 0;
}

/*
 * Every file that vdimap opens is opened here. Where nothing is asked of the parents, an image whose
 * parents cannot be opened will do.
 */
static int open_disks(struct options *options, const struct vd_opener *opener,
		      struct vd_disk *disks[2], struct vd_error *err)
{
	int r = vd_chain_open(options->images[0], &options->chains[0], opener, &disks[0], err);
	struct vd_error said = *err;

	if (r < 0 && options->reads_top) {
		options->chains[0].alone = true;
		r = vd_chain_open(options->images[0], &options->chains[0], opener, &disks[0], err);
		if (r == 0) {
			vd_log(LOG_WARNING, "%s; what follows is of this image alone", said.text);
			err->text[0] = '\0'; /* what fails from here on is another thing */
		}
	}
	if (r < 0 || options->image_count == 1)
		return r;
	r = vd_chain_open(options->images[1], &options->chains[1], opener, &disks[1], err);
	if (r < 0)
		options_rename_old(err);
	return r;
}

/* Name what cannot be read. */
static void tell_bad(struct vd_disk *const disks[2], bool is_bitmap, uint64_t bad_bytes)
{
	const char *name = disks[0]->layers[0]->source->name;

	if (is_bitmap)
		vd_log(LOG_ERR,
		       "%s: a bitmap cannot be read for %" PRIu64
		       " bytes of the disk; they are listed as dirty",
		       name, bad_bytes);
	else if (disks[1])
		vd_log(LOG_ERR,
		       "%" PRIu64
		       " bytes cannot be read in %s or in %s; they are listed as changed",
		       bad_bytes, name, disks[1]->layers[0]->source->name);
	else
		vd_log(LOG_ERR,
		       "%s: %" PRIu64 " bytes of the disk cannot be read; they are listed as data",
		       name, bad_bytes);
}

/* The exit status. */
static int run(struct options *options, struct vd_confined *confined)
{
	static char buffer[BUFFER_BYTES];
	struct vd_disk *disks[2] = { NULL, NULL };
	double begin = seconds_now();
	struct vd_error err = { "" };
	uint64_t bad_bytes = 0;
	int r = open_disks(options, &confined->opener, disks, &err);

	vd_confined_opened(confined);
	if (r == 0 && options->verbose) {
		tell_chain(disks[0]);
		if (disks[1])
			tell_chain(disks[1]);
	}
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (r == 0)
		r = print(options, disks[0], disks[1], &bad_bytes, &err);
	if (r == 0 && bad_bytes > 0)
		tell_bad(disks, options->bitmap_count > 0, bad_bytes);
	if (options->verbose)
		vd_log(LOG_INFO, "sandbox: %s; %.3f seconds", confined->layers_text,
		       seconds_now() - begin);
	vd_disk_close(disks[0]);
	vd_disk_close(disks[1]);
	if (r < 0)
		return fail(&err, VD_EXIT_FAILED);
	if (bad_bytes > 0 || (options->form == FORM_INFO && options->chains[0].alone))
		return VD_EXIT_UNREADABLE;
	return VD_EXIT_DONE;
}

static int run_confined(void *context, struct vd_confined *confined)
{
	return run(context, confined);
}

/* In the child, before the sandbox closes. */
static void prepare(void *context)
{
	const struct options *options = context;

	vd_chain_prepare(options->images, options->chains, options->image_count);
}

int main(int argc, char **argv)
{
	struct options options = { .form = FORM_JSON };
	struct vd_confined_options confined = {
		.alone = true,
		.prepare = prepare,
		.run = run_confined,
		.context = &options,
	};
	enum vd_exit status = VD_EXIT_USAGE;
	struct vd_error err = { "" };
	int r;

	signal(SIGCHLD, SIG_DFL); /* inherited as ignored it would cost us the exit status */
	vd_log_open("vdimap");
	r = options_parse(argc, argv, &options, &err);
	confined.mode = options.sandbox;
	if (r > 0)
		status = VD_EXIT_FAILED;
	if (r > 0 && options.selftest)
		r = vd_sandbox_selftest(options.sandbox, false);
	else if (r > 0)
		r = vd_confined_run(&confined, options.images, options.chains, options.image_count,
				    &err);
	return r < 0 ? fail(&err, status) : r;
}
