/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bar: see progress.h. */
#include "config.h"

#include <stdio.h>

#include "base/bytes.h"
#include "vdimap/progress.h"

#define AFTER_SECONDS 1
#define STEP_NANOSECONDS 100000000

void progress_begin(struct progress *progress, bool wanted, uint64_t disk_bytes)
{
	*progress = (struct progress){ .wanted = wanted, .disk_bytes = disk_bytes };
	clock_gettime(CLOCK_MONOTONIC, &progress->due);
	progress->due.tv_sec += AFTER_SECONDS;
}

void progress_draw(struct progress *progress, uint64_t reached)
{
	enum { CELLS = 40 };
	static const char full[CELLS + 1] = "########################################";
	struct timespec now;
	double share;

	if (!progress->wanted)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec < progress->due.tv_sec ||
	    (now.tv_sec == progress->due.tv_sec && now.tv_nsec < progress->due.tv_nsec))
		return;
	share = (double)reached / (double)vd_max(progress->disk_bytes, 1);
	fprintf(stderr, "\rvdimap: [%-*.*s] %3.0f %%", CELLS, (int)(share * CELLS), full,
		share * 100);
	progress->shown = true;
	progress->due = now;
	progress->due.tv_nsec += STEP_NANOSECONDS;
	progress->due.tv_sec += progress->due.tv_nsec / 1000000000;
	progress->due.tv_nsec %= 1000000000;
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fprintf(stderr, "\r\033[K");
	progress->shown = false;
}
