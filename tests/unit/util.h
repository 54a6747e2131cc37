/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the unit tests share: cmocka with the headers it wants before it, numbers that look random
 * but are the same in every run, files in a folder of their own, and the lines of the log.
 */
#ifndef VD_TESTS_UTIL_H
#define VD_TESTS_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "source/source.h"

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Numbers that depend on the seed alone, so that a failure can be seen again. */
struct dice {
	uint64_t state;
};

/* One of 0 to sides - 1. */
uint64_t dice_roll(struct dice *dice, uint64_t sides);

/* A number that depends on both and looks random. Any thread. */
uint64_t mix(uint64_t a, uint64_t b);

void put_be16(uint8_t *to, uint16_t value);
void put_be32(uint8_t *to, uint32_t value);
void put_be64(uint8_t *to, uint64_t value);

/* malloc() that fails the test. */
void *make(size_t bytes);

/* A cmocka setup and teardown: *state is the path of an empty folder, removed with all in it. */
int folder_make(void **state);
int folder_remove(void **state);

/* "folder/name", in one of some buffers that are used in turn. */
const char *in_folder(const char *folder, const char *name);

void file_write(const char *path, const void *bytes, size_t count);

/* Open it for reading as a source; the source's names are relative to the folder it is in. */
struct vd_source *file_source(const char *path);

/* How many descriptors this process has open. */
unsigned open_files(void);

/* Catch what is written to stderr, and give it back: the caller frees. */
void capture_begin(void);
char *capture_end(void);

unsigned count_lines(const char *text);

/*
 * Say why a test returns early. Not cmocka's skip(): the "not ok # SKIP" it prints in TAP is
 * taken for a failure.
 */
void say_skipped(const char *why);

#endif
