/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the fuzzers share, and what each of them gives. */
#ifndef VD_FUZZ_HARNESS_H
#define VD_FUZZ_HARNESS_H

#include "files.h"

/* Do everything that can be done with an input (see files.h). Aborts if a promise is broken. */
void fuzz_run(const uint8_t *data, size_t bytes);

/* Run an input with each read failing once. */
void fuzz_faults(struct fuzz_files *files);

/* What vdimap asks of a disk besides its map. */
struct vd_disk;
void fuzz_extras(const struct vd_disk *disk);

/* A promise; broken, it ends the program. */
#define CHECK(claim)                                                                        \
	do {                                                                                \
		if (!(claim)) {                                                             \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #claim); \
			abort();                                                            \
		}                                                                           \
	} while (0)

/*
 * Change a file in the way of its format, by dice; and make right again what
 * every image must have right, or nothing behind it is ever reached.
 */
void fuzz_change(struct fuzz_file *file, unsigned seed);
void fuzz_repair(struct fuzz_file *file);

#endif
