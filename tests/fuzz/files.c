/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image files in memory: see files.h. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "files.h"

struct cursor {
	const uint8_t *data;
	size_t left;
};

/* Take a little-endian number of so many bytes. False: the input ends before. */
static bool take(struct cursor *in, unsigned bytes, uint64_t *number)
{
	*number = 0;
	if (in->left < bytes)
		return false;
	for (unsigned i = bytes; i-- > 0;)
		*number = *number << 8 | in->data[i];
	in->data += bytes;
	in->left -= bytes;
	return true;
}

/* What lies past the end of the file is left out. */
static bool take_record(struct cursor *in, struct fuzz_files *files, struct fuzz_file *file)
{
	struct fuzz_record *record = &file->records[file->count];
	uint64_t offset, length, inside;

	if (file->count == FUZZ_RECORDS_MAX || !take(in, 8, &offset) || !take(in, 4, &length))
		return false;
	length = vd_min(length, in->left);
	if (offset < file->size) {
		inside = vd_min(length, file->size - offset);
		*record =
			(struct fuzz_record){ offset, (uint32_t)inside, files->pool + files->used };
		memcpy(record->bytes, in->data, (size_t)inside);
		files->used += (size_t)inside;
		file->count++;
	}
	in->data += length;
	in->left -= (size_t)length;
	return true;
}

static bool take_file(struct cursor *in, struct fuzz_files *files)
{
	struct fuzz_file *file = &files->files[files->count];
	uint64_t length, count;

	if (files->count == FUZZ_FILES_MAX || !take(in, 1, &length) || length > FUZZ_NAME_MAX ||
	    in->left < length)
		return false;
	memset(file->name, 0, sizeof(file->name));
	memcpy(file->name, in->data, (size_t)length);
	in->data += length;
	in->left -= (size_t)length;
	if (!take(in, 8, &file->size) || !take(in, 2, &count))
		return false;
	file->size &= INT64_MAX;
	file->count = 0;
	files->count++;
	while (count-- > 0) {
		if (!take_record(in, files, file))
			return false;
	}
	return true;
}

void fuzz_files_parse(struct fuzz_files *files, const uint8_t *data, size_t bytes)
{
	struct cursor in = { data, bytes };

	files->count = 0;
	files->used = 0;
	files->pool = malloc(bytes + 1);
	if (!files->pool)
		abort();
	while (take_file(&in, files))
		;
}

void fuzz_files_free(struct fuzz_files *files)
{
	free(files->pool);
}

static uint8_t *put(uint8_t *at, unsigned bytes, uint64_t number)
{
	for (unsigned i = 0; i < bytes; i++)
		*at++ = (uint8_t)(number >> 8 * i);
	return at;
}

static size_t printed_bytes(const struct fuzz_files *files)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < files->count; i++) {
		const struct fuzz_file *file = &files->files[i];

		bytes += 11 + strlen(file->name);
		for (unsigned j = 0; j < file->count; j++)
			bytes += 12 + file->records[j].length;
	}
	return bytes;
}

size_t fuzz_files_print(const struct fuzz_files *files, uint8_t *data, size_t max)
{
	uint8_t *at = data;

	if (printed_bytes(files) > max)
		return 0;
	for (unsigned i = 0; i < files->count; i++) {
		const struct fuzz_file *file = &files->files[i];
		size_t length = strlen(file->name);

		at = put(at, 1, length);
		memcpy(at, file->name, length);
		at = put(at + length, 8, file->size);
		at = put(at, 2, file->count);
		for (unsigned j = 0; j < file->count; j++) {
			const struct fuzz_record *record = &file->records[j];

			at = put(put(at, 8, record->offset), 4, record->length);
			memcpy(at, record->bytes, record->length);
			at += record->length;
		}
	}
	return (size_t)(at - data);
}

void fuzz_file_read(const struct fuzz_file *file, void *buffer, size_t bytes, uint64_t host)
{
	memset(buffer, 0, bytes);
	for (unsigned i = 0; i < file->count; i++) {
		const struct fuzz_record *record = &file->records[i];
		uint64_t past = host + bytes >= host ? host + bytes : UINT64_MAX;
		uint64_t start = vd_max(host, record->offset);
		uint64_t end = vd_min(past, record->offset + record->length);

		if (start < end)
			memcpy((uint8_t *)buffer + (start - host),
			       record->bytes + (start - record->offset), (size_t)(end - start));
	}
}

bool fuzz_file_is_data(const struct fuzz_file *file, uint64_t host, uint64_t *end)
{
	bool is_data = false;

	*end = file->size;
	for (unsigned i = 0; i < file->count; i++) {
		const struct fuzz_record *record = &file->records[i];
		uint64_t record_end = record->offset + record->length;

		if (host >= record->offset && host < record_end) {
			*end = is_data ? vd_max(*end, record_end) : record_end;
			is_data = true;
		} else if (!is_data && record->offset > host) {
			*end = vd_min(*end, record->offset);
		}
	}
	return is_data;
}

bool fuzz_file_write(struct fuzz_file *file, const void *bytes, size_t count, uint64_t host)
{
	for (unsigned i = file->count; i-- > 0;) {
		struct fuzz_record *record = &file->records[i];

		if (host >= record->offset &&
		    vd_inside(host - record->offset, count, record->length)) {
			memcpy(record->bytes + (host - record->offset), bytes, count);
			return true;
		}
	}
	return false;
}

/* The source over a file. */

struct memory_source {
	struct vd_source source;
	const struct fuzz_file *file;
};

struct fuzz_fault fuzz_fault;

static const struct fuzz_file *file_of(const struct vd_source *source)
{
	return ((const struct memory_source *)(const void *)source)->file;
}

static ssize_t memory_pread(const struct vd_source *source, void *buffer, size_t bytes,
			    uint64_t host)
{
	if (host >= source->size)
		return 0;
	bytes = (size_t)vd_min(bytes, source->size - host);
	atomic_fetch_add(&fuzz_fault.calls, 1);
	if (fuzz_fault.kind != FUZZ_NO_FAULT && atomic_fetch_sub(&fuzz_fault.left, 1) == 1) {
		if (fuzz_fault.kind == FUZZ_EIO)
			return -EIO;
		bytes = fuzz_fault.kind == FUZZ_SHORT ? (bytes + 1) / 2 : 0;
	}
	fuzz_file_read(file_of(source), buffer, bytes, host);
	return (ssize_t)bytes;
}

static int memory_extent(const struct vd_source *source, uint64_t host, bool *is_hole,
			 uint64_t *end)
{
	*is_hole = !fuzz_file_is_data(file_of(source), host, end);
	return 0;
}

static void memory_close(struct vd_source *source)
{
	(void)source; /* vd_source_close() frees it, which is why `source` comes first */
}

static const struct vd_source_ops memory_ops = {
	.pread = memory_pread,
	.extent = memory_extent,
	.close = memory_close,
};

int fuzz_open(void *context, const struct vd_open_request *request, struct vd_source **out,
	      struct vd_error *err)
{
	const struct fuzz_files *files = context;
	const char *slash = strrchr(request->name, '/');
	const char *name = slash ? slash + 1 : request->name;

	if (request->base && request->policy == VD_BACKING_NONE)
		return vd_fail(err, EACCES, "the policy forbids the %s", request->role);
	if (request->base && request->policy != VD_BACKING_ANY &&
	    strncmp(request->name, "../", 3) == 0)
		return vd_fail(err, EXDEV, "the %s lies outside", request->role);
	for (unsigned i = 0; i < files->count; i++) {
		struct memory_source *memory;
		char shown[4 * FUZZ_NAME_MAX + 1];

		if (strcmp(files->files[i].name, name) != 0)
			continue;
		memory = calloc(1, sizeof(*memory));
		if (!memory)
			abort();
		memory->file = &files->files[i];
		vd_escape(shown, sizeof(shown), name, strlen(name));
		memory->source = (struct vd_source){
			.ops = &memory_ops,
			.serial = vd_serial(),
			.name = strdup(shown),
			.size = files->files[i].size,
			.st = { .st_mode = S_IFREG | 0600, .st_ino = i + 1 },
			.fd = -1,
			.dir_fd = -1,
			.real_fd = -1,
		};
		*out = &memory->source;
		return 0;
	}
	return vd_fail(err, ENOENT, "there is no such %s", request->role);
}
