/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The entry points of libFuzzer. Half of the mutations are libFuzzer's own, inside one record, so
 * that the frame of the input stays whole; the others know the format.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "harness.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What libFuzzer's own figures lack: on a busy machine seconds say little. */
static void print_time(void)
{
	printf("stat::processor_seconds:        %ld\n", (long)(clock() / CLOCKS_PER_SEC));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	atexit(print_time);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	fuzz_run(data, bytes);
	return 0;
}

/* Let libFuzzer change a piece of a record, in its place. */
static void change_bytes(struct fuzz_file *file, unsigned seed)
{
	struct fuzz_record *record;
	uint8_t window[64];
	size_t at, bytes;

	if (file->count == 0)
		return;
	record = &file->records[seed % file->count];
	if (record->length == 0)
		return;
	at = seed / 256 % record->length;
	bytes = (size_t)vd_min(record->length - at, 1 + seed / 7 % sizeof(window));
	memcpy(window, record->bytes + at, bytes);
	LLVMFuzzerMutate(window, bytes, bytes);
	memcpy(record->bytes + at, window, bytes);
}

/* Cut the file, let it grow, or move a record. */
static void change_frame(struct fuzz_file *file, unsigned seed)
{
	struct fuzz_record *record = file->count ? &file->records[seed / 4 % file->count] : NULL;
	uint64_t step = (uint64_t)1 << seed / 64 % 40;

	if (seed % 4 == 0)
		file->size = file->size > step ? file->size - step : file->size / 2;
	else if (seed % 4 == 1)
		file->size = (file->size + step) & INT64_MAX;
	else if (record && seed % 4 == 2)
		record->offset = record->offset > step ? record->offset - step : 0;
	else if (record)
		record->length -= (uint32_t)vd_min(record->length, step);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max, unsigned seed)
{
	static struct fuzz_files files;
	struct fuzz_file *file;
	size_t length;

	if (seed % 64 == 0)
		return LLVMFuzzerMutate(data, bytes, max);
	fuzz_files_parse(&files, data, bytes);
	if (files.count == 0) {
		fuzz_files_free(&files);
		return LLVMFuzzerMutate(data, bytes, max);
	}
	file = &files.files[seed / 64 % files.count];
	for (unsigned i = 0; i <= seed / 128 % 4; i++) {
		unsigned next = (seed + i) * 2654435761u;

		if (next % 8 < 4)
			change_bytes(file, next / 8);
		else if (next % 8 == 4)
			change_frame(file, next / 8);
		else
			fuzz_change(file, next / 8);
	}
	fuzz_repair(file);
	length = fuzz_files_print(&files, data, max);
	fuzz_files_free(&files);
	return length ? length : LLVMFuzzerMutate(data, bytes, max);
}
