/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_replay [--flips | --cuts | --faults] FILE...: run the fuzzer's check on inputs, with any compiler.
 *
 * --flips: with each bit of the QCOW2 header, or of the VHD footer and dynamic header, turned over;
 * of a VHD once with the checksum left wrong and once with it made right.
 * --cuts: with the opened file cut at each edge of what is in it, and one byte to both sides.
 * --faults: with each read of a file failing once (see faults.c).
 * A thirteenth of the bits and lengths; with VD_NIGHTLY in the environment all of them.
 *
 * No answer may take more than a second of processor time, and no image more than 128 MiB of memory
 * (sanitizers take more). Prints the number of inputs and the peak of memory.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/bytes.h"
#include "harness.h"

#define INPUT_MAX ((size_t)1 << 20)
#define SECONDS_MAX 1.0
#define KIB_MAX (128 << 10)

static unsigned long inputs;

/* Of all bits or lengths, every how many-th is tried: a step that meets each bit of a byte. */
static unsigned stride(void)
{
	return getenv("VD_NIGHTLY") ? 1 : 13;
}

static void run(const uint8_t *data, size_t bytes, const char *what, uint64_t number)
{
	clock_t before = clock();
	double took;

	fuzz_run(data, bytes);
	inputs++;
	took = (double)(clock() - before) / CLOCKS_PER_SEC;
	if (took <= SECONDS_MAX)
		return;
	printf("%s %ju: it took %.1f s\n", what, (uintmax_t)number, took);
	exit(EXIT_FAILURE);
}

static void run_files(const struct fuzz_files *files, const char *what, uint64_t number)
{
	static uint8_t data[INPUT_MAX];

	run(data, fuzz_files_print(files, data, sizeof(data)), what, number);
}

/* Turn over each bit of [host, host + bytes) of the first file. */
static void flip(struct fuzz_files *files, uint64_t host, uint64_t bytes, bool repaired)
{
	static uint8_t held[1024];
	struct fuzz_file *file = &files->files[0];

	fuzz_file_read(file, held, (size_t)bytes, host); /* with the zeros that the seed left out */
	if (file->count == FUZZ_RECORDS_MAX)
		file->count--;
	file->records[file->count++] = (struct fuzz_record){ host, (uint32_t)bytes, held };
	for (uint64_t bit = 0; bit < bytes * 8; bit += stride()) {
		uint8_t before, after;

		fuzz_file_read(file, &before, 1, host + bit / 8);
		after = before ^ (uint8_t)(1 << bit % 8);
		fuzz_file_write(file, &after, 1, host + bit / 8);
		if (repaired)
			fuzz_repair(file);
		run_files(files, repaired ? "repaired flip of bit" : "flip of bit", host * 8 + bit);
		fuzz_file_write(file, &before, 1, host + bit / 8);
		if (repaired)
			fuzz_repair(file);
	}
	file->count--;
}

static void flips(struct fuzz_files *files)
{
	struct fuzz_file *file = &files->files[0];
	char magic[4];

	fuzz_file_read(file, magic, sizeof(magic), 0);
	if (memcmp(magic, "QFI\xfb", 4) == 0) {
		flip(files, 0, 112, false);
		return;
	}
	for (int repaired = 0; repaired < 2 && file->size >= 2048; repaired++) {
		flip(files, file->size - 512, 512, repaired);
		flip(files, 512, 1024, repaired);
	}
}

static void cut(struct fuzz_files *files, uint64_t whole, uint64_t edge)
{
	for (int step = -1; step <= 1; step++) {
		uint64_t size = edge + (uint64_t)step;

		files->files[0].size = size < whole ? size : whole;
		run_files(files, "cut at", files->files[0].size);
	}
}

static void cuts(struct fuzz_files *files)
{
	struct fuzz_file *file = &files->files[0];
	uint64_t whole = file->size;

	for (uint64_t edge = 1; edge < 2048; edge += 3 * stride()) /* every length of the headers */
		cut(files, whole, edge);
	for (unsigned i = 0; i < file->count; i++) {
		const struct fuzz_record *record = &file->records[i];

		cut(files, whole, record->offset ? record->offset : 1);
		cut(files, whole, record->offset + record->length);
	}
	for (uint64_t sectors = 1; sectors < 64; sectors++)
		cut(files, whole, whole - vd_min(sectors * 512, whole - 1));
	file->size = whole;
}

static void replay(const char *path, const char *mode)
{
	static uint8_t data[INPUT_MAX];
	static struct fuzz_files files;
	FILE *file = fopen(path, "rbe");
	size_t bytes;

	if (!file) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	printf("%s\n", path);
	fflush(stdout); /* the last name is the one that broke */
	bytes = fread(data, 1, sizeof(data), file);
	fclose(file);
	if (!mode) {
		run(data, bytes, "input", 0);
		return;
	}
	fuzz_files_parse(&files, data, bytes);
	if (files.count > 0 && strcmp(mode, "--flips") == 0)
		flips(&files);
	else if (files.count > 0 && strcmp(mode, "--faults") == 0)
		fuzz_faults(&files);
	else if (files.count > 0)
		cuts(&files);
	fuzz_files_free(&files);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 && argv[1][0] == '-' ? argv[1] : NULL;
	struct rusage usage;

	for (int i = mode ? 2 : 1; i < argc; i++)
		replay(argv[i], mode);
	getrusage(RUSAGE_SELF, &usage);
	printf("%lu inputs, %ld KiB\n", inputs, usage.ru_maxrss);
#ifndef __SANITIZE_ADDRESS__
	if (usage.ru_maxrss > KIB_MAX)
		return EXIT_FAILURE;
#endif
	return EXIT_SUCCESS;
}
