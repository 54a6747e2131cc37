/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each read of an image's files fails once, in each way. Then the image is refused with EIO and a
 * message, or one reader gets EIO, which is logged, and everything else is right; and when the
 * fault is over, so are its traces.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/chain.h"
#include "disk/walk.h"
#include "harness.h"

#define DISK_MAX ((uint64_t)1 << 20)
#define PIECE ((uint64_t)2048)
#define PIECES (DISK_MAX / PIECE)

/* The disk as it is without faults. */
struct truth {
	uint8_t bytes[DISK_MAX];
	bool readable[PIECES];
};

static struct truth truth;

static int log_file = -1; /* what is logged goes here */

static void log_catch(void)
{
	int before = dup(STDERR_FILENO);

	log_file = memfd_create("log", MFD_CLOEXEC);
	CHECK(before >= 0 && log_file >= 0 && dup2(log_file, STDERR_FILENO) >= 0);
	vd_log_keep_stderr();
	CHECK(dup2(before, STDERR_FILENO) >= 0 && close(before) == 0);
}

static void log_clear(void)
{
	CHECK(ftruncate(log_file, 0) == 0 && lseek(log_file, 0, SEEK_SET) == 0);
}

static bool log_has_lines(void)
{
	return lseek(log_file, 0, SEEK_END) > 0;
}

static void fault_set(enum fuzz_fault_kind kind, long number)
{
	atomic_store(&fuzz_fault.left, number);
	atomic_store(&fuzz_fault.calls, 0);
	fuzz_fault.kind = kind;
}

static int disk_open(struct fuzz_files *files, struct vd_disk **disk)
{
	struct vd_opener opener = { .open = fuzz_open, .context = files };
	struct vd_chain_options options = { .cache_memory = 1 << 20 };
	struct vd_error err = { "" };
	int r = vd_chain_open(files->files[0].name, &options, &opener, disk, &err);

	CHECK(r <= 0);
	CHECK(r == 0 || *err.text);
	return r;
}

static void walk(const struct vd_disk *disk)
{
	struct vd_walk *walk = malloc(sizeof(*walk));
	struct vd_piece piece = { .end = 0 };
	uint64_t reached = 0;
	int r;

	CHECK(walk);
	vd_walk_init(walk, disk, 0);
	while ((r = vd_walk_next(walk, &piece)) > 0) {
		CHECK(piece.start == reached && piece.end > reached);
		reached = piece.end;
	}
	CHECK(r == 0 && reached == disk->size);
	free(walk);
}

/* Read the disk; returns how many pieces are an error that should not be. */
static unsigned read_all(const struct vd_disk *disk)
{
	struct vd_scratch *scratch;
	uint8_t buffer[PIECE];
	unsigned lost = 0;

	CHECK(vd_scratch_new(&scratch) == 0);
	for (uint64_t at = 0; at < disk->size; at += PIECE) {
		size_t bytes = (size_t)vd_min(PIECE, disk->size - at);
		int r = vd_disk_read(disk, buffer, bytes, at, scratch);

		CHECK(r == 0 || r == -EIO);
		if (!truth.readable[at / PIECE])
			CHECK(r == -EIO);
		else if (r < 0)
			lost++;
		else
			CHECK(memcmp(buffer, truth.bytes + at, bytes) == 0);
	}
	vd_scratch_free(scratch);
	return lost;
}

static void read_truth(const struct vd_disk *disk)
{
	struct vd_scratch *scratch;

	CHECK(vd_scratch_new(&scratch) == 0);
	for (uint64_t at = 0; at < disk->size; at += PIECE)
		truth.readable[at / PIECE] =
			vd_disk_read(disk, truth.bytes + at, (size_t)vd_min(PIECE, disk->size - at),
				     at, scratch) == 0;
	vd_scratch_free(scratch);
}

/* False: the fault came too late to be met. */
static bool with_fault(struct fuzz_files *files, enum fuzz_fault_kind kind, long number)
{
	struct vd_disk *disk;
	unsigned lost;
	int r;

	log_clear();
	fault_set(kind, number);
	r = disk_open(files, &disk);
	CHECK(r == 0 || (r == -EIO && kind != FUZZ_SHORT));
	if (r < 0) {
		fault_set(FUZZ_NO_FAULT, 0);
		return true;
	}
	walk(disk);
	lost = read_all(disk);
	CHECK(lost <= (kind == FUZZ_SHORT ? 0 : 1));
	CHECK(lost == 0 || log_has_lines());
	vd_disk_close(disk); /* with it go the threads that decode ahead */
	r = atomic_load(&fuzz_fault.left) <= 0;
	fault_set(FUZZ_NO_FAULT, 0);
	return r;
}

/* The same disk, left open: once the fault is over, all can be read again. */
static void after_fault(struct fuzz_files *files, enum fuzz_fault_kind kind, long number)
{
	struct vd_disk *disk;

	fault_set(FUZZ_NO_FAULT, 0);
	CHECK(disk_open(files, &disk) == 0);
	fault_set(kind, number);
	read_all(disk); /* it may need fewer reads than that, with what is decoded kept */
	fuzz_fault.kind = FUZZ_NO_FAULT;
	CHECK(read_all(disk) == 0);
	vd_disk_close(disk);
	fault_set(FUZZ_NO_FAULT, 0);
}

void fuzz_faults(struct fuzz_files *files)
{
	struct vd_disk *disk;
	long reads;

	if (log_file < 0)
		log_catch();
	fault_set(FUZZ_NO_FAULT, 0);
	if (disk_open(files, &disk) < 0)
		return;
	if (disk->size > DISK_MAX) {
		printf("(too large)\n");
		vd_disk_close(disk);
		return;
	}
	read_truth(disk);
	vd_disk_close(disk);
	for (int kind = FUZZ_EIO; kind < FUZZ_FAULT_KINDS; kind++) {
		for (reads = 1; with_fault(files, (enum fuzz_fault_kind)kind, reads); reads++)
			;
		printf("%ld faults of kind %d\n", reads - 1, kind);
		if (reads < 2)
			continue;
		for (long number = 1; number <= 3; number++)
			after_fault(files, (enum fuzz_fault_kind)kind, number);
	}
}
