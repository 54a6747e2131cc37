/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: dirty bitmaps ("Bitmaps extension"). The header extension names a directory, an entry of
 * it a table, an entry of that a cluster of bits, the lowest bit of a byte first, each for
 * 2^granularity bytes of the disk. All of it is hostile, and read only when somebody asks: an image
 * whose bitmaps are damaged is still a disk. The limits are QEMU's.
 *
 * A bitmap can be wrong without being damaged: a program that does not know bitmaps clears the
 * autoclear bit when it writes, and one that holds the bits in memory marks the entry as in use.
 * Both are refused: a backup that believed such a bitmap would leave data out.
 *
 * The one place that decodes a table entry is cluster_find(). Threads: as the image.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2.h"

/* Offsets in an entry of the directory ("Bitmap directory"). */
enum {
	ENTRY_TABLE_OFFSET = 0,
	ENTRY_TABLE_SIZE = 8,
	ENTRY_FLAGS = 12,
	ENTRY_TYPE = 16,
	ENTRY_GRANULARITY = 17,
	ENTRY_NAME_BYTES = 18,
	ENTRY_EXTRA_BYTES = 20,
	ENTRY_BYTES = 24,
	NAME_BYTES_MAX = 1023,
	GRANULARITY_MIN = 9,
	GRANULARITY_MAX = 31,
	TYPE_DIRTY = 1,
};

enum { FLAG_IN_USE = 1, FLAG_AUTO = 2, FLAG_EXTRA_MAY_BE_IGNORED = 4, FLAGS_KNOWN = 7 };

#define AUTOCLEAR_BITMAPS 1u
#define EXTENSION_BYTES 24
#define BITMAPS_MAX 65535
#define DIRECTORY_BYTES_MAX (UINT64_C(64) << 20)
#define TABLE_SIZE_MAX UINT32_C(0x8000000)
#define BITS_BYTES_MAX (UINT64_C(512) << 20)
#define PAGE_BITS 16

#define TABLE_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define TABLE_ALL_ONES UINT64_C(1)

/* What the extension says about the directory. 1: there is one; 0: there are no bitmaps. */
static int directory_check(const struct vd_image *image, struct vd_error *err)
{
	const struct qcow2 *q = image->state;
	const char *name = image->source->name;

	if (q->bitmap_bytes == 0)
		return 0;
	if (!(q->autoclear & AUTOCLEAR_BITMAPS))
		return vd_fail(err, EINVAL,
			       "%s: the bitmaps are not valid any more: a program that does not "
			       "know bitmaps has written to the image (autoclear bit 0 is clear); "
			       "remove them and make a full backup",
			       name);
	if (q->bitmap_bytes != EXTENSION_BYTES || q->bitmap_count == 0)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 bitmaps extension has %" PRIu64 " bytes and %" PRIu32
			       " bitmaps; the image is damaged",
			       name, q->bitmap_bytes, q->bitmap_count);
	if (q->bitmap_count > BITMAPS_MAX || q->bitmap_directory_bytes > DIRECTORY_BYTES_MAX)
		return vd_fail(err, EFBIG,
			       "%s: QCOW2 nb_bitmaps is %" PRIu32 ", bitmap_directory_size %" PRIu64
			       "; the limits are 65535 and 64 MiB",
			       name, q->bitmap_count, q->bitmap_directory_bytes);
	if (q->bitmap_host == 0 || q->bitmap_host % q->cluster_bytes != 0 ||
	    !vd_inside(q->bitmap_host, q->bitmap_directory_bytes, image->source->size))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 bitmap_directory_offset is 0x%" PRIx64 " with %" PRIu64
			       " bytes: not aligned, or past the end of the file; the image is "
			       "damaged",
			       name, q->bitmap_host, q->bitmap_directory_bytes);
	return 1;
}

/* Why the entry cannot be right, or NULL. */
static const char *entry_fault(const struct vd_image *image, const uint8_t *entry,
			       const struct vd_bitmap *bitmap)
{
	const struct qcow2 *q = image->state;
	uint32_t flags = get_be32(entry + ENTRY_FLAGS);
	uint32_t name_bytes = get_be16(entry + ENTRY_NAME_BYTES);
	uint64_t bits = (uint64_t)bitmap->table_size * q->cluster_bytes * 8;

	if (entry[ENTRY_TYPE] != TYPE_DIRTY)
		return "its type is not 1 (dirty tracking)";
	if (flags & ~(uint32_t)FLAGS_KNOWN)
		return "reserved flags are set";
	if (name_bytes == 0 || name_bytes > NAME_BYTES_MAX)
		return "its name has no or more than 1023 bytes";
	if (bitmap->granularity_bits < GRANULARITY_MIN ||
	    bitmap->granularity_bits > GRANULARITY_MAX)
		return "granularity_bits is not 9 to 31";
	if (get_be32(entry + ENTRY_EXTRA_BYTES) > 0 && !(flags & FLAG_EXTRA_MAY_BE_IGNORED))
		return "it has extra data that must not be ignored";
	if (bitmap->table_size == 0 || bitmap->table_size > TABLE_SIZE_MAX)
		return "bitmap_table_size is 0 or too large";
	if (bitmap->table_host == 0 || bitmap->table_host % q->cluster_bytes != 0 ||
	    !vd_inside(bitmap->table_host, (uint64_t)bitmap->table_size * 8, image->source->size))
		return "its table is not aligned or ends past the end of the file";
	if (bitmap->in_use)
		return NULL; /* then its length may be that of another disk size */
	if ((uint64_t)bitmap->table_size * q->cluster_bytes > BITS_BYTES_MAX)
		return "it has more than 512 MiB of bits";
	if (bits < vd_div_up(q->active_size, UINT64_C(1) << bitmap->granularity_bits))
		return "it is shorter than the disk";
	return NULL;
}

/* Visit the entry at *at of the directory, which has `bytes` bytes, and move on. */
static int entry_visit(const struct vd_image *image, uint8_t *directory, uint64_t bytes,
		       uint64_t *at, vd_bitmap_fn *fn, void *data, struct vd_error *err)
{
	uint8_t *entry = directory + *at;
	char name[NAME_BYTES_MAX + 1];
	struct vd_bitmap bitmap;
	uint64_t extra, name_bytes;
	const uint8_t *from;

	if (!vd_inside(*at, ENTRY_BYTES, bytes))
		return vd_fail(err, EINVAL,
			       "%s: the QCOW2 bitmap directory ends in the middle; the image is "
			       "damaged",
			       image->source->name);
	extra = get_be32(entry + ENTRY_EXTRA_BYTES);
	name_bytes = get_be16(entry + ENTRY_NAME_BYTES);
	if (!vd_inside(*at + ENTRY_BYTES, extra + name_bytes, bytes))
		return vd_fail(err, EINVAL,
			       "%s: an entry of the QCOW2 bitmap directory leaves it; the image is "
			       "damaged",
			       image->source->name);
	from = entry + ENTRY_BYTES + extra;
	name_bytes = vd_min(name_bytes, NAME_BYTES_MAX);
	memcpy(name, from, (size_t)name_bytes);
	name[name_bytes] = '\0';
	bitmap = (struct vd_bitmap){
		.name = name,
		.granularity_bits = entry[ENTRY_GRANULARITY],
		.in_use = get_be32(entry + ENTRY_FLAGS) & FLAG_IN_USE,
		.is_auto = get_be32(entry + ENTRY_FLAGS) & FLAG_AUTO,
		.table_host = get_be64(entry + ENTRY_TABLE_OFFSET),
		.table_size = get_be32(entry + ENTRY_TABLE_SIZE),
	};
	bitmap.fault = entry_fault(image, entry, &bitmap);
	*at += vd_div_up(ENTRY_BYTES + extra + get_be16(entry + ENTRY_NAME_BYTES), 8) * 8;
	return fn(&bitmap, data);
}

int qcow2_bitmaps(const struct vd_image *image, vd_bitmap_fn *fn, void *data, struct vd_error *err)
{
	const struct qcow2 *q = image->state;
	uint64_t bytes = q->bitmap_directory_bytes, at = 0;
	uint8_t *directory;
	int r = directory_check(image, err);

	if (r <= 0)
		return r;
	directory = malloc((size_t)vd_max(bytes, 1));
	if (!directory)
		return vd_fail(err, ENOMEM, "out of memory");
	r = vd_source_read(image->source, directory, (size_t)bytes, q->bitmap_host);
	if (r < 0)
		vd_fail(err, -r, "%s: cannot read the QCOW2 bitmap directory: %s",
			image->source->name, strerror(-r));
	for (uint32_t i = 0; i < q->bitmap_count && r == 0; i++)
		r = entry_visit(image, directory, bytes, &at, fn, data, err);
	free(directory);
	return r;
}

/* The cluster of bits that a table entry gives: at *host, or 0: all alike, *ones says how. */
static const char *cluster_find(const struct vd_image *image, uint64_t entry, uint64_t *host,
				bool *ones)
{
	const struct qcow2 *q = image->state;

	*host = entry & TABLE_OFFSET_MASK;
	*ones = entry & TABLE_ALL_ONES;
	if (entry & ~(TABLE_OFFSET_MASK | TABLE_ALL_ONES) || (*host != 0 && *ones))
		return "reserved bits are set";
	if (*host % q->cluster_bytes != 0)
		return "the offset is not aligned";
	if (*host != 0 && !vd_inside(*host, q->cluster_bytes, image->source->size))
		return "the bits end past the end of the file";
	return NULL;
}

/* Bits from number `bit` of the page on, below `end`, that are like it; *set: what they are. */
static uint64_t bits_alike(const uint8_t *bytes, uint64_t bit, uint64_t end, bool *set)
{
	uint64_t at = bit + 1;
	uint8_t whole;

	*set = bytes[bit / 8] >> bit % 8 & 1;
	whole = *set ? 0xff : 0;
	while (at < end) {
		if (at % 8 == 0 && end - at >= 8 && bytes[at / 8] == whole)
			at += 8;
		else if ((bytes[at / 8] >> at % 8 & 1) == *set)
			at++;
		else
			break;
	}
	return at - bit;
}

/* Read the entry of the table for a bit. */
static int table_read(const struct vd_image *image, uint64_t host, uint64_t *entry)
{
	const struct vd_page *page;
	const uint8_t *bytes;
	int r = vd_cache_get(image->cache, image->source, PAGE_BITS, host, &page);

	if (r < 0)
		return r;
	bytes = vd_page_at(page, host, 8);
	if (bytes)
		*entry = get_be64(bytes);
	vd_cache_put(image->cache, page);
	return bytes ? 0 : -EIO;
}

int qcow2_bitmap_map(const struct vd_image *image, const struct vd_bitmap *bitmap, uint64_t virt,
		     enum vd_bits *bits, uint64_t *end)
{
	const struct qcow2 *q = image->state;
	uint64_t bit = virt >> bitmap->granularity_bits, per_cluster = q->cluster_bytes * 8;
	uint64_t entry_host = bitmap->table_host + bit / per_cluster * 8;
	uint64_t count = per_cluster - bit % per_cluster; /* that the entry speaks of */
	uint64_t entry = 0, host = 0;
	const struct vd_page *page;
	const uint8_t *bytes = NULL;
	const char *fault;
	bool set = false;
	int r = table_read(image, entry_host, &entry);

	fault = r < 0 ? "the table cannot be read" : cluster_find(image, entry, &host, &set);
	if (r == 0 && !fault && host != 0) {
		host += bit % per_cluster / 8;
		r = vd_cache_get(image->cache, image->source, PAGE_BITS, host, &page);
		if (r == 0) {
			uint64_t last = vd_min((vd_page_end(page) - host) * 8, bit % 8 + count);

			bytes = vd_page_at(page, host, vd_div_up(last, 8));
			if (bytes)
				count = bits_alike(bytes, bit % 8, last, &set);
			vd_cache_put(image->cache, page);
			r = bytes ? 0 : -EIO;
		}
		fault = r < 0 ? "the bits cannot be read" : NULL;
	}
	if (r == -ENOMEM)
		return r;
	if (fault)
		vd_log_once(image->corrupt, entry_host,
			    "%s: QCOW2 bitmap table entry 0x%016" PRIx64 " at byte 0x%" PRIx64
			    " of the file: %s; its part of the disk counts as dirty",
			    image->source->name, entry, entry_host, fault);
	*bits = fault ? VD_BITS_BAD : set ? VD_BITS_SET : VD_BITS_CLEAR;
	*end = vd_min((bit + count) << bitmap->granularity_bits, image->size);
	return 0;
}
