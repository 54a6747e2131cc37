/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line on the terminal that says how far it is, once it takes over a second. One thread. */
#ifndef VD_VDIMAP_PROGRESS_H
#define VD_VDIMAP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct progress {
	bool wanted, shown;
	uint64_t disk_bytes;
	struct timespec due; /* of the next line */
};

void progress_begin(struct progress *progress, bool wanted, uint64_t disk_bytes);

/* Asked again and again; draws ten times a second. reached: bytes of the disk. */
void progress_draw(struct progress *progress, uint64_t reached);

/* Take the line away. */
void progress_end(struct progress *progress);

#endif
