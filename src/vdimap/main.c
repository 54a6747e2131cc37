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
#include "base/standard.h"
#include "sandbox/confined.h"
#include "vdimap/info.h"
#include "vdimap/print.h"

#define BUFFER_BYTES (64 << 10)
#define BAD_LINES_MAX 8

/* What came of printing. */
struct outcome {
	uint64_t bad_bytes; /* that cannot be read */
	struct vd_joined unreadable; /* the clusters that they are in */
	unsigned cluster_bits;
	bool differs; /* something is not as in the old disk */
};

static enum vd_exit fail(const struct vd_error *err, enum vd_exit status)
{
	vd_log(LOG_ERR, "%s", err->text);
	return status;
}

/* With -v: what was opened, and what came of it. */
static void tell_chain(const struct vd_disk *disk)
{
	for (unsigned depth = 0; depth < disk->count; depth++) {
		const struct vd_image *image = disk->layers[depth];

		vd_log(LOG_INFO, "layer %u: %s: %s, %" PRIu64 " bytes, clusters of 2^%u%s%s", depth,
		       image->source->name, vd_info_format(image->format->name), image->size,
		       image->cluster_bits, image->data ? ", data in " : "",
		       image->data ? image->data->name : "");
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
static int print_feed(struct feed *feed, const struct options *options, struct vd_error *err)
{
	switch (options->form) {
	case FORM_CLUSTERS:
		return print_clusters(feed, err);
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
		      const char *fault, struct outcome *outcome, struct vd_error *err)
{
	struct vd_info info = { .disk = disk, .filename = options->images[0], .fault = fault };
	struct progress progress;
	int r;

	progress_begin(&progress, options->terminal.bar, disk->size);
	r = info_gather(&info, &progress, &outcome->unreadable, err);
	progress_end(&progress);
	if (r == 0)
		r = options->json ? info_print_json(&info) : info_print_text(&info);
	outcome->bad_bytes = info.totals.bad_bytes;
	outcome->cluster_bits = disk->cluster_bits;
	vd_info_clear(&info);
	return r;
}

/* Print what a feed answers, and take from it what that means. */
static int print_answers(const struct options *options, const struct vd_disk *disk,
			 const struct vd_disk *old_disk, struct outcome *outcome,
			 struct vd_error *err)
{
	struct feed feed = { .ops = NULL };
	int r = feed_open(&feed, options, disk, old_disk, err);

	if (r == 0) {
		tell_shorter(disk, old_disk);
		r = print_feed(&feed, options, err);
	}
	if (r == 0 && feed.unreadable.count > 0 && options->form == FORM_TEXT)
		print_unreadable(&feed);
	if (r == 0 && options->verbose)
		tell_feed(&feed);
	if (r == 0)
		r = vd_joined_add_all(&outcome->unreadable, &feed.unreadable);
	outcome->bad_bytes = feed.bad_bytes;
	outcome->cluster_bits = feed.cluster_bits;
	outcome->differs = old_disk && (feed.exact_bytes > 0 || old_disk->size != disk->size);
	feed_close(&feed);
	return r;
}

static int print(const struct options *options, struct vd_disk *const disks[2], const char *fault,
		 struct outcome *outcome, struct vd_error *err)
{
	const struct vd_disk *disk = disks[0];
	struct progress progress;
	int r;

	if (options->form == FORM_INFO) {
		r = print_info(options, disk, fault, outcome, err);
	} else if (options->form == FORM_QEMU) {
		progress_begin(&progress, options->terminal.bar, disk->size);
		r = print_qemu(disk, &progress, &outcome->bad_bytes, &outcome->unreadable);
		progress_end(&progress);
		outcome->cluster_bits = disk->cluster_bits;
	} else {
		r = print_answers(options, disk, disks[1], outcome, err);
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
		      struct vd_disk *disks[2], struct vd_error *said, struct vd_error *err)
{
	int r = vd_chain_open(options->images[0], &options->chains[0], opener, &disks[0], err);

	*said = *err;

	if (r < 0 && options->reads_top) {
		options->chains[0].alone = true;
		r = vd_chain_open(options->images[0], &options->chains[0], opener, &disks[0], err);
		if (r == 0) {
			vd_log(LOG_WARNING, "%s; what follows is of this image alone", said->text);
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

/* Name what cannot be read, range by range. */
static void tell_bad(const struct outcome *outcome, struct vd_disk *const disks[2],
		     bool is_bitmap)
{
	const char *name = disks[0]->layers[0]->source->name;
	const char *what = is_bitmap ? "of the bitmap" : "of the disk", *listed = "data";
	size_t count = outcome->unreadable.count;

	if (is_bitmap || disks[1])
		listed = is_bitmap ? "dirty" : "changed";
	for (size_t i = 0; i < count && i < BAD_LINES_MAX; i++) {
		struct range range = range_of(&outcome->unreadable.pairs[i], outcome->cluster_bits,
					      disks[0]->size);

		vd_log(LOG_ERR,
		       "%s: bytes %" PRIu64 " to %" PRIu64 " %s cannot be read%s%s; they are "
		       "listed as %s",
		       name, range.start, range.end - 1, what, disks[1] ? ", here or in " : "",
		       disks[1] ? disks[1]->layers[0]->source->name : "", listed);
	}
	if (count > BAD_LINES_MAX)
		vd_log(LOG_ERR, "%s: %zu ranges %s, %" PRIu64 " bytes in all, cannot be read", name,
		       count, what, outcome->bad_bytes);
}

/* What is to be said at the end of a run that printed all. */
static enum vd_exit conclude(const struct options *options, const struct outcome *outcome,
			     struct vd_disk *const disks[2])
{
	if (outcome->bad_bytes > 0) {
		tell_bad(outcome, disks, options->bitmap_count > 0);
		return VD_EXIT_UNREADABLE;
	}
	if (options->form == FORM_INFO && options->chains[0].alone)
		return VD_EXIT_UNREADABLE;
	return options->exit_code && outcome->differs ? VD_EXIT_DIFFERENT : VD_EXIT_DONE;
}

/* The exit status. */
static enum vd_exit run(struct options *options, struct vd_confined *confined)
{
	static char buffer[BUFFER_BYTES];
	struct vd_disk *disks[2] = { NULL, NULL };
	enum vd_exit status = VD_EXIT_FAILED;
	double begin = seconds_now();
	struct outcome outcome = { .bad_bytes = 0 };
	struct vd_error err = { "" }, said;
	int r = open_disks(options, &confined->opener, disks, &said, &err);

	vd_joined_init(&outcome.unreadable, VD_UNREADABLE_MAX);
	vd_confined_opened(confined);
	if (r == 0 && options->verbose) {
		tell_chain(disks[0]);
		if (disks[1])
			tell_chain(disks[1]);
	}
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (r == 0)
		r = print(options, disks, options->chains[0].alone ? said.text : NULL, &outcome,
			  &err);
	if (r == 0)
		status = conclude(options, &outcome, disks);
	if (options->verbose)
		vd_log(LOG_INFO, "sandbox: %s; %.3f seconds", confined->layers_text,
		       seconds_now() - begin);
	vd_joined_clear(&outcome.unreadable);
	vd_disk_close(disks[0]);
	vd_disk_close(disks[1]);
	return r < 0 ? fail(&err, VD_EXIT_FAILED) : status;
}

static int run_confined(void *context, struct vd_confined *confined)
{
	return (int)run(context, confined);
}

/* In the child, before the sandbox closes. */
static void prepare(void *context)
{
	const struct options *options = context;

	vd_info_warm_up();
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
	if (vd_standard_open() < 0)
		return EXIT_FAILURE;
	vd_log_open("vdimap");
	r = options_parse(argc, argv, &options, &err);
	confined.mode = options.sandbox;
	if (r > 0)
		status = VD_EXIT_FAILED;
	if (r > 0 && options.selftest)
		r = vd_sandbox_selftest(options.sandbox);
	else if (r > 0)
		r = vd_confined_run(&confined, options.images, options.chains, options.image_count,
				    &err);
	return r < 0 ? (int)fail(&err, status) : r;
}
