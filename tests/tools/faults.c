/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked with all of vdifs: storage and memory that fail when a test says so.
 *
 * The linker redirects what allocates and what reads images (--wrap), so that libfuse and libc go on as
 * usual. The test and every process of the mount share the file $VD_FAULTS, mapped before there is
 * a sandbox; all numbers in it are 64 bits of this machine. Without it nothing fails.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libdeflate.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

struct faults {
	atomic_llong allocations; /* so far */
	atomic_llong fail_at; /* the allocation of this number fails; 0: none */
	atomic_llong failed; /* allocations that did */
	atomic_llong reads; /* so far */
	atomic_llong error_ppm, short_ppm, delay_ppm; /* of a million reads: EIO, cut short, late */
	atomic_llong delay_us;
	atomic_llong errors, shorts, delays; /* so far */
};

static struct faults nothing, *faults = &nothing;

__attribute__((constructor)) static void faults_map(void)
{
	const char *path = getenv("VD_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = fd >= 0 ? mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
			   : MAP_FAILED;

	if (at != MAP_FAILED)
		faults = at;
	if (fd >= 0)
		close(fd);
}

/* --- memory ---------------------------------------------------------------------------------- */

static bool fails(void)
{
	long long number = atomic_fetch_add(&faults->allocations, 1) + 1;

	if (number != atomic_load(&faults->fail_at))
		return false;
	atomic_fetch_add(&faults->failed, 1);
	errno = ENOMEM;
	return true;
}

#define WRAP(type, name, parameters, arguments)                  \
	type __real_##name parameters;                           \
	type __wrap_##name parameters;                           \
	type __wrap_##name parameters                            \
	{                                                        \
		return fails() ? NULL : __real_##name arguments; \
	}

WRAP(void *, malloc, (size_t bytes), (bytes))
WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, (void *old, size_t bytes), (old, bytes))
WRAP(void *, aligned_alloc, (size_t alignment, size_t bytes), (alignment, bytes))
WRAP(char *, strdup, (const char *text), (text))
WRAP(char *, strndup, (const char *text, size_t bytes), (text, bytes))
WRAP(struct libdeflate_decompressor *, libdeflate_alloc_decompressor, (void), ())
WRAP(ZSTD_DCtx *, ZSTD_createDCtx, (void), ())

/* jansson asks libc by itself, unless it is told. */
__attribute__((constructor)) static void faults_of_jansson(void)
{
	json_set_alloc_funcs(__wrap_malloc, free);
}

/* --- storage --------------------------------------------------------------------------------- */

/* One of so many of a million times; the same for the same number of the read. */
static bool is_hit(long long number, unsigned salt, long long ppm)
{
	uint64_t mixed = ((uint64_t)number + salt) * UINT64_C(0x9e3779b97f4a7c15);

	mixed = (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (long long)((mixed ^ mixed >> 32) % 1000000) < ppm;
}

/* What becomes of the next read of an image: false is EIO; it may be late, and of fewer bytes. */
static bool read_works(size_t *bytes)
{
	long long number = atomic_fetch_add(&faults->reads, 1);

	if (is_hit(number, 1, atomic_load(&faults->delay_ppm))) {
		long long us = atomic_load(&faults->delay_us);
		struct timespec late = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

		atomic_fetch_add(&faults->delays, 1);
		nanosleep(&late, NULL);
	}
	if (*bytes > 1 && is_hit(number, 2, atomic_load(&faults->short_ppm))) {
		atomic_fetch_add(&faults->shorts, 1);
		*bytes = 1 + *bytes / 3;
	}
	if (!is_hit(number, 3, atomic_load(&faults->error_ppm)))
		return true;
	atomic_fetch_add(&faults->errors, 1);
	errno = EIO;
	return false;
}

ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t host);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t host);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t host)
{
	return read_works(&bytes) ? __real_pread(fd, buffer, bytes, host) : -1;
}

ssize_t __real_splice(int in, off_t *in_at, int out, off_t *out_at, size_t bytes, unsigned flags);
ssize_t __wrap_splice(int in, off_t *in_at, int out, off_t *out_at, size_t bytes, unsigned flags);

ssize_t __wrap_splice(int in, off_t *in_at, int out, off_t *out_at, size_t bytes, unsigned flags)
{
	return read_works(&bytes) ? __real_splice(in, in_at, out, out_at, bytes, flags) : -1;
}
