/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image files in memory, as a fuzzer's input: a few sparse files, each with a name. Sparse, so that
 * an input of some hundred bytes can be an image of gigabytes with something at its end.
 *
 * The input is a sequence of files: u8 length and name, u64 size, u16 count of records, and for
 * each record u64 offset, u32 length, bytes; little-endian. Where records overlap, the later holds.
 * A cut or senseless input is as many files and records as can be made out.
 *
 * The first file is the one that is opened. A later one of the name "options" holds the options of
 * the chain.
 */
#ifndef VD_FUZZ_FILES_H
#define VD_FUZZ_FILES_H

#include <stdatomic.h>

#include "disk/opener.h"

#define FUZZ_FILES_MAX 40 /* more than a chain may have */
#define FUZZ_RECORDS_MAX 256
#define FUZZ_NAME_MAX 32

struct fuzz_record {
	uint64_t offset;
	uint32_t length;
	uint8_t *bytes; /* inside fuzz_files.pool */
};

struct fuzz_file {
	char name[FUZZ_NAME_MAX + 1];
	uint64_t size;
	unsigned count;
	struct fuzz_record records[FUZZ_RECORDS_MAX];
};

struct fuzz_files {
	unsigned count;
	struct fuzz_file files[FUZZ_FILES_MAX];
	size_t used;
	uint8_t *pool;
};

/* Take an input apart; *files keeps copies. To be freed with fuzz_files_free(). */
void fuzz_files_parse(struct fuzz_files *files, const uint8_t *data, size_t bytes);
void fuzz_files_free(struct fuzz_files *files);

/* The other way; returns the length, or 0 if it does not fit. */
size_t fuzz_files_print(const struct fuzz_files *files, uint8_t *data, size_t max);

/* Copy what lies at [host, host + bytes) of the file, zeros where nothing does. */
void fuzz_file_read(const struct fuzz_file *file, void *buffer, size_t bytes, uint64_t host);

/* Is the byte at host in a record? *end: how far that holds, at most to the end of the file. */
bool fuzz_file_is_data(const struct fuzz_file *file, uint64_t host, uint64_t *end);

/*
 * A fault: the read of any file that brings `left` to 0 fails. `calls` counts reads in any case.
 * Threads may read meanwhile; set it when none does.
 */
enum fuzz_fault_kind {
	FUZZ_NO_FAULT,
	FUZZ_EIO,
	FUZZ_SHORT, /* fewer bytes than asked for, which is no error */
	FUZZ_END, /* the file is suddenly over */
	FUZZ_FAULT_KINDS
};

struct fuzz_fault {
	enum fuzz_fault_kind kind;
	atomic_long left, calls;
};

extern struct fuzz_fault fuzz_fault;

/* Put bytes over what is there, inside one record; false: there is no such record. */
bool fuzz_file_write(struct fuzz_file *file, const void *bytes, size_t count, uint64_t host);

/*
 * An opener that finds the files by the last part of their names, whatever the policy but "none";
 * "../" lies outside. context: struct fuzz_files.
 */
int fuzz_open(void *context, const struct vd_open_request *request, struct vd_source **out,
	      struct vd_error *err);

#endif
