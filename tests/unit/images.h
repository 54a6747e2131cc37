/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest QCOW2 and VHD images that use most of what a driver allocates memory for. Written by
 * hand from the specifications, into memory.
 */
#ifndef VD_TESTS_IMAGES_H
#define VD_TESTS_IMAGES_H

#include "util.h"

#define IMAGE_BYTES_MAX 65536u

struct image {
	uint8_t bytes[IMAGE_BYTES_MAX];
	size_t count;
};

/* Clusters of 512 bytes, so that an L1 entry covers 32 KiB; the disk has nearly three of these. */
#define QCOW2_SIZE (3 * 32768u - 100)

struct qcow2_facts {
	bool zstd; /* else deflate */
	bool alias; /* two L1 entries share a table */
	const char *backing; /* name of the backing file, or NULL */
	const char *backing_format; /* with it */
	const char *data_file; /* name of an external data file, or NULL */
	const char *snapshot; /* name of a snapshot, or NULL; it has the disk's tables */
};

void qcow2_make(struct image *image, const struct qcow2_facts *facts);

/* Blocks of 4 KiB; the disk has five. */
#define VHD_SIZE (5 * 4096u)

struct vhd_facts {
	uint8_t uuid; /* its first byte; the others are 0 */
	const char *parent; /* a path: the image is differencing; else it is dynamic */
	uint8_t parent_uuid;
	bool overlap; /* two blocks lie on each other */
	const char *creator; /* of four bytes, version 1.3; or NULL */
};

void vhd_make(struct image *image, const struct vhd_facts *facts);

/* Write it to a file. */
void image_write(const struct image *image, const char *path);

#endif
