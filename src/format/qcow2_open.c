/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: opening an image. Header, extensions and the choice of an L1 table; each field is
 * checked once, here. Section names are those of QEMU's docs/interop/qcow2.
 *
 * Oddities: version 2 images may carry the rest of a version 3 header after byte 72, which means
 * nothing. Refcounts are not looked at: a reader has no use for them. The size may be any number of
 * bytes. A disk's L1 table may be longer than the disk (saved machine states lie after it).
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/bytes.h"
#include "format/qcow2.h"
#include "support/collisions.h"

/* Offsets in the header ("Header"). */
enum {
	HEADER_VERSION = 4,
	HEADER_BACKING_OFFSET = 8,
	HEADER_BACKING_LENGTH = 16,
	HEADER_CLUSTER_BITS = 20,
	HEADER_SIZE = 24,
	HEADER_CRYPT = 32,
	HEADER_L1_SIZE = 36,
	HEADER_L1_OFFSET = 40,
	HEADER_REFCOUNTS = 48,
	HEADER_REFCOUNTS_CLUSTERS = 56,
	HEADER_SNAPSHOTS = 60,
	HEADER_SNAPSHOTS_OFFSET = 64,
	HEADER_BYTES_V2 = 72,
	HEADER_INCOMPATIBLE = 72,
	HEADER_COMPATIBLE = 80,
	HEADER_AUTOCLEAR = 88,
	HEADER_REFCOUNT_ORDER = 96,
	HEADER_LENGTH = 100,
	HEADER_COMPRESSION = 104,
	HEADER_BYTES_V3 = 104,
	HEADER_BYTES_KNOWN = 112,
};

enum {
	INCOMPATIBLE_CORRUPT = 1 << 1,
	INCOMPATIBLE_DATA_FILE = 1 << 2,
	INCOMPATIBLE_COMPRESSION = 1 << 3,
	INCOMPATIBLE_EXTENDED_L2 = 1 << 4,
	INCOMPATIBLE_KNOWN = 0x1f,
	AUTOCLEAR_DATA_FILE_RAW = 1 << 1,
};

/* Header extensions. */
#define EXTENSION_END 0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURES 0x6803f857u
#define EXTENSION_DATA_FILE 0x44415441u
#define EXTENSION_BITMAPS 0x23852875u

enum {
	BACKING_NAME_MAX = 1023,
	FORMAT_NAME_MAX = 15,
	FEATURE_BYTES = 48,
	EXTENSION_BITMAPS_BYTES = 24,
	CLUSTER_BITS_MIN = 9,
	CLUSTER_BITS_MAX = 21,
	EXTENDED_L2_CLUSTER_BITS_MIN = 14,
	HEADER_PAGE_BITS = 16,
	EXTENSIONS_MAX = 1024, /* QEMU writes five kinds */
	FEATURES_MAX = 192, /* rows of the table of names: three kinds of 64 bits */
};

#define NANOSECONDS 1000000000u /* of a second */
#define L1_BYTES_MAX (UINT64_C(32) << 20)

/* The header as read, zero-padded where the file or the header is shorter. */
struct header {
	uint8_t bytes[HEADER_BYTES_KNOWN];
};

static int header_read(struct vd_image *image, struct header *header, struct vd_error *err)
{
	const struct vd_source *source = image->source;
	uint64_t bytes = vd_min(source->size, HEADER_BYTES_KNOWN);
	struct qcow2 *q = image->state;
	int r;

	memset(header, 0, sizeof(*header));
	if (bytes < HEADER_BYTES_V2)
		return vd_fail(err, EINVAL,
			       "%s: the file has %" PRIu64 " bytes, less than a QCOW2 header (72)",
			       source->name, source->size);
	r = vd_source_read(source, header->bytes, (size_t)bytes, 0);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the QCOW2 header: %s", source->name,
			       strerror(-r));
	if (memcmp(header->bytes, QCOW2_MAGIC, 4) != 0)
		return vd_fail(err, EINVAL, "%s: not a QCOW2 image (no magic at byte 0)",
			       source->name);
	q->version = get_be32(header->bytes + HEADER_VERSION);
	if (q->version != 2 && q->version != 3)
		return vd_fail(err, ENOTSUP,
			       "%s: QCOW2 version is %" PRIu32 "; vdifs reads 2 and 3",
			       source->name, q->version);
	if (q->version == 3 && bytes < HEADER_BYTES_V3)
		return vd_fail(err, EINVAL,
			       "%s: the file has %" PRIu64
			       " bytes, less than a QCOW2 version 3 header (104)",
			       source->name, bytes);
	return 0;
}

/* Everything in the header that stands for itself. */
static int header_check(struct vd_image *image, const struct header *header, struct vd_error *err)
{
	const char *name = image->source->name;
	const uint8_t *bytes = header->bytes;
	struct qcow2 *q = image->state;
	uint32_t crypt = get_be32(bytes + HEADER_CRYPT);

	image->cluster_bits = get_be32(bytes + HEADER_CLUSTER_BITS);
	if (image->cluster_bits < CLUSTER_BITS_MIN || image->cluster_bits > CLUSTER_BITS_MAX)
		return vd_fail(err, EINVAL, "%s: QCOW2 cluster_bits is %u; it must be 9 to 21",
			       name, image->cluster_bits);
	q->cluster_bytes = (uint64_t)1 << image->cluster_bits;
	q->header_bytes = q->version == 3 ? get_be32(bytes + HEADER_LENGTH) : HEADER_BYTES_V2;
	if (q->version == 3 && q->header_bytes < HEADER_BYTES_V3)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 header_length is %" PRIu64 "; it must be at least 104",
			       name, q->header_bytes);
	if (q->header_bytes > q->cluster_bytes)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 header_length is %" PRIu64
			       ", more than a cluster (%" PRIu64 ")",
			       name, q->header_bytes, q->cluster_bytes);
	image->size = get_be64(bytes + HEADER_SIZE);
	if (image->size > INT64_MAX)
		return vd_fail(err, EFBIG,
			       "%s: QCOW2 size is %" PRIu64 " bytes, more than a file can have",
			       name, image->size);
	q->active_size = image->size;
	q->refcount_host = get_be64(bytes + HEADER_REFCOUNTS);
	q->refcount_clusters = get_be32(bytes + HEADER_REFCOUNTS_CLUSTERS);
	q->refcount_order = q->version == 3 ? get_be32(bytes + HEADER_REFCOUNT_ORDER) : 4;
	q->snapshot_count = get_be32(bytes + HEADER_SNAPSHOTS);
	q->snapshot_host = get_be64(bytes + HEADER_SNAPSHOTS_OFFSET);
	if (crypt == 1 || crypt == 2)
		return vd_fail(err, ENOTSUP,
			       "%s: the image is encrypted with %s (crypt_method %" PRIu32
			       "); decrypt it first with qemu-img convert",
			       name, crypt == 1 ? "AES" : "LUKS", crypt);
	if (crypt != 0)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 crypt_method is %" PRIu32 "; the image is damaged", name,
			       crypt);
	if (q->version == 3) {
		q->incompatible = get_be64(bytes + HEADER_INCOMPATIBLE);
		q->compatible = get_be64(bytes + HEADER_COMPATIBLE);
		q->autoclear = get_be64(bytes + HEADER_AUTOCLEAR);
	}
	return 0;
}

/* Bytes of the first cluster. Pages, because a cluster of 2 MiB is much to read for a few of them. */
static int header_bytes_read(const struct vd_image *image, uint64_t host, uint8_t *buffer,
			     size_t bytes, struct vd_error *err)
{
	int r = vd_cache_read(image->cache, image->source, HEADER_PAGE_BITS, host, buffer, bytes);

	if (r == -ENOMEM)
		return vd_fail(err, ENOMEM, "out of memory");
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the first cluster: %s",
			       image->source->name, strerror(-r));
	return 0;
}

/* Copy a string of the header; one with a NUL inside is an attack on those who print it. */
static int string_take(const struct vd_image *image, const char *field, const uint8_t *from,
		       size_t bytes, char **out, struct vd_error *err)
{
	if (memchr(from, '\0', bytes))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 %s has a NUL byte in it; the image is damaged",
			       image->source->name, field);
	free(*out);
	*out = strndup((const char *)from, bytes);
	return *out ? 0 : vd_fail(err, ENOMEM, "out of memory");
}

/* Name the unknown incompatible bits from the feature name table (which may be missing). */
static int features_refuse(const struct vd_image *image, uint64_t unknown, const uint8_t *table,
			   size_t table_bytes, struct vd_error *err)
{
	const char *between = " ";
	int r = vd_fail(err, ENOTSUP,
			"%s: the image needs QCOW2 features that vdifs does not know:",
			image->source->name);

	for (unsigned bit = 0; bit < 64; bit++) {
		const uint8_t *row = table;
		char name[160] = "";

		if (!(unknown >> bit & 1))
			continue;
		for (size_t at = 0; at + FEATURE_BYTES <= table_bytes; at += FEATURE_BYTES) {
			row = table + at;
			if (row[0] == 0 && row[1] == bit)
				vd_escape(name, sizeof(name), (const char *)row + 2,
					  strnlen((const char *)row + 2, FEATURE_BYTES - 2));
		}
		vd_error_add(err, "%sbit %u%s%s%s", between, bit, *name ? " (" : "", name,
			     *name ? ")" : "");
		between = ", ";
	}
	return r;
}

/* Where the bitmaps are; whether that can be true is asked when somebody wants one. */
static void bitmaps_take(struct qcow2 *q, const uint8_t *data, uint32_t length)
{
	q->bitmap_bytes = length;
	if (length < EXTENSION_BITMAPS_BYTES)
		return;
	q->bitmap_count = get_be32(data);
	q->bitmap_directory_bytes = get_be64(data + 8);
	q->bitmap_host = get_be64(data + 16);
}

/* Take the extension whose `length` bytes of data are at `host`. */
static int extension_take(struct vd_image *image, uint32_t type, uint64_t host, uint32_t length,
			  struct vd_error *err)
{
	struct qcow2 *q = image->state;
	uint8_t data[BACKING_NAME_MAX];
	int r;

	if (type != EXTENSION_BITMAPS && type != EXTENSION_BACKING_FORMAT &&
	    type != EXTENSION_DATA_FILE)
		return 0;
	if (type == EXTENSION_BACKING_FORMAT && length > FORMAT_NAME_MAX)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 backing format name has %" PRIu32
			       " bytes; at most 15 are allowed",
			       image->source->name, length);
	if (type == EXTENSION_DATA_FILE && length > BACKING_NAME_MAX)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 data file name has %" PRIu32
			       " bytes; at most 1023 are allowed",
			       image->source->name, length);
	r = header_bytes_read(image, host, data, (size_t)vd_min(length, sizeof(data)), err);
	if (r < 0)
		return r;
	if (type == EXTENSION_BITMAPS) {
		bitmaps_take(q, data, length);
		return 0;
	}
	if (type == EXTENSION_BACKING_FORMAT)
		return string_take(image, "backing format name", data, length, &q->backing_format,
				   err);
	return string_take(image, "data file name", data, length, &q->data_name, err);
}

/* Refuse the image for its features, whose names may be in the table at `host`. */
static int features_name(const struct vd_image *image, uint64_t unknown, uint64_t host,
			 uint32_t length, struct vd_error *err)
{
	uint8_t table[FEATURES_MAX * FEATURE_BYTES];
	size_t bytes = (size_t)vd_min(length, sizeof(table));
	int r = header_bytes_read(image, host, table, bytes, err);

	return r < 0 ? r : features_refuse(image, unknown, table, bytes, err);
}

/*
 * Walk the header extensions, which lie between the header and the backing file name (or the end
 * of the first cluster).
 */
static int extensions_read(struct vd_image *image, uint64_t end, struct vd_error *err)
{
	struct qcow2 *q = image->state;
	uint64_t at = q->header_bytes, unknown = q->incompatible & ~(uint64_t)INCOMPATIBLE_KNOWN;
	uint64_t bytes = vd_min(vd_min(q->cluster_bytes, image->source->size), end);
	uint64_t features_host = 0;
	uint32_t features_bytes = 0;

	for (unsigned count = 0; at + 8 <= bytes; count++) {
		uint8_t head[8];
		uint32_t type, length;
		int r = header_bytes_read(image, at, head, sizeof(head), err);

		if (r < 0)
			return r;
		type = get_be32(head);
		length = get_be32(head + 4);
		if (type == EXTENSION_END)
			break;
		if (!vd_inside(at + 8, length, bytes))
			return vd_fail(err, EINVAL,
				       "%s: QCOW2 header extension 0x%08" PRIx32
				       " has length %" PRIu32
				       ", more than its place; the image is damaged",
				       image->source->name, type, length);
		if (count == EXTENSIONS_MAX)
			return vd_fail(err, EFBIG,
				       "%s: QCOW2 header has more than %d extensions; the image is "
				       "damaged",
				       image->source->name, EXTENSIONS_MAX);
		if (type == EXTENSION_FEATURES) {
			features_host = at + 8;
			features_bytes = length;
		}
		r = extension_take(image, type, at + 8, length, err);
		if (r < 0)
			return r;
		at += 8 + vd_div_up(length, 8) * 8;
	}
	return unknown ? features_name(image, unknown, features_host, features_bytes, err) : 0;
}

/* The first cluster holds extensions and the backing file name. */
static int first_cluster_read(struct vd_image *image, const struct header *header,
			      struct vd_error *err)
{
	const char *name = image->source->name;
	struct qcow2 *q = image->state;
	uint64_t backing = get_be64(header->bytes + HEADER_BACKING_OFFSET);
	uint32_t length = get_be32(header->bytes + HEADER_BACKING_LENGTH);
	uint64_t bytes = vd_min(q->cluster_bytes, image->source->size);
	uint8_t text[BACKING_NAME_MAX];
	int r;

	if (backing > q->cluster_bytes)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 backing_file_offset is 0x%" PRIx64
			       ", outside the first cluster; the image is damaged",
			       name, backing);
	if (backing != 0 && length > BACKING_NAME_MAX)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 backing_file_size is %" PRIu32
			       "; at most 1023 bytes are allowed",
			       name, length);
	if (backing != 0 && !vd_inside(backing, length, bytes))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 backing_file_size is %" PRIu32 " at 0x%" PRIx64
			       ": the name leaves the first cluster; the image is damaged",
			       name, length, backing);
	r = extensions_read(image, backing ? backing : q->cluster_bytes, err);
	if (r < 0 || backing == 0 || length == 0)
		return r;
	r = header_bytes_read(image, backing, text, length, err);
	if (r == 0)
		r = string_take(image, "backing file name", text, length, &q->backing_name, err);
	return r;
}

static int features_check(struct vd_image *image, const struct header *header,
			  struct vd_error *err)
{
	const char *name = image->source->name;
	struct qcow2 *q = image->state;
	bool has_type = q->version == 3 && q->header_bytes > HEADER_COMPRESSION;
	uint8_t compression = has_type ? header->bytes[HEADER_COMPRESSION] : 0;
	bool bit = q->incompatible & INCOMPATIBLE_COMPRESSION;

	if (compression > 1)
		return vd_fail(err, ENOTSUP,
			       "%s: QCOW2 compression_type is %u; vdifs knows 0 (zlib) and 1 "
			       "(zstd)",
			       name, compression);
	if (bit != (compression != 0))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 compression_type is %u, but its incompatible feature bit "
			       "3 is %sset; the image is damaged",
			       name, compression, bit ? "" : "not ");
	q->zstd = compression == 1;
	image->compression = q->zstd ? "zstd" : "zlib";
	q->extended_l2 = q->incompatible & INCOMPATIBLE_EXTENDED_L2;
	if (q->extended_l2 && image->cluster_bits < EXTENDED_L2_CLUSTER_BITS_MIN)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 cluster_bits is %u; with extended L2 entries it must be "
			       "14 to 21",
			       name, image->cluster_bits);
	q->has_data_file = q->incompatible & INCOMPATIBLE_DATA_FILE;
	q->data_file_raw = q->has_data_file && (q->autoclear & AUTOCLEAR_DATA_FILE_RAW);
	if (q->incompatible & INCOMPATIBLE_CORRUPT)
		vd_log(LOG_WARNING,
		       "%s: the image is marked as corrupt; reading what can be read (qemu-img "
		       "check -r all mends it)",
		       name);
	q->l2_entry_bytes = q->extended_l2 ? 16 : 8;
	q->l2_bits = image->cluster_bits - (q->extended_l2 ? 4 : 3);
	q->l2_page_bits = image->cluster_bits < 12   ? 12
			  : image->cluster_bits > 16 ? 16
						     : image->cluster_bits;
	return 0;
}

/* Check the L1 table that will be used; `which` is "" or "snapshot ". */
static int l1_check(struct vd_image *image, const char *which, struct vd_error *err)
{
	const char *name = image->source->name;
	struct qcow2 *q = image->state;
	uint64_t bytes = (uint64_t)q->l1_size * 8;
	uint64_t need = vd_div_up(image->size, qcow2_l1_span(q));

	if (bytes > L1_BYTES_MAX)
		return vd_fail(err, EFBIG,
			       "%s: QCOW2 %sl1_size is %" PRIu32 " entries; the limit is 4194304 "
			       "(32 MiB)",
			       name, which, q->l1_size);
	if (need > q->l1_size)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 %sl1_size is %" PRIu32 " entries, but a disk of %" PRIu64
			       " bytes needs %" PRIu64 "; the image is damaged",
			       name, which, q->l1_size, image->size, need);
	if (q->l1_size > 0 && q->l1_host % q->cluster_bytes != 0)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 %sl1_table_offset is 0x%" PRIx64
			       ", not aligned to a cluster; the image is damaged",
			       name, which, q->l1_host);
	if (!vd_inside(q->l1_host, bytes, image->source->size))
		return vd_fail(
			err, EINVAL,
			"%s: QCOW2 %sl1_table_offset is 0x%" PRIx64 " with l1_size %" PRIu32
			": the table ends past the end of the file; the image is damaged or cut "
			"short",
			name, which, q->l1_host, q->l1_size);
	q->l1_size = (uint32_t)need; /* what lies behind the disk is no part of it */
	return 0;
}

/* Looking for L1 entries that share an L2 table. */
struct l1_search {
	struct vd_image *image;
	uint64_t last; /* host, of the last table so far */
	uint32_t present; /* tables */
	bool disordered;
	struct vd_collisions set; /* without room for tables: they are counted */
};

/* Look at `count` entries from number `first` on. 0; 1: there are more than were counted. */
static int l1_search_page(struct l1_search *search, const uint8_t *entries, uint32_t first,
			  uint32_t count)
{
	const struct vd_image *image = search->image;
	const struct qcow2 *q = image->state;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t host = get_be64(entries + (size_t)i * 8) & QCOW2_OFFSET_MASK;

		/* An entry that is wrong by itself takes no table from others. */
		if (host == 0 || host % q->cluster_bytes != 0 ||
		    !vd_inside(host, q->cluster_bytes, image->source->size))
			continue;
		if (search->set.pieces && !vd_collisions_add(&search->set, host, first + i))
			return 1;
		search->present++;
		search->disordered = search->disordered || host <= search->last;
		search->last = host;
	}
	return 0;
}

static int l1_search(struct l1_search *search)
{
	const struct vd_image *image = search->image;
	const struct qcow2 *q = image->state;
	uint32_t done = 0;
	int r = 0;

	while (done < q->l1_size && r == 0) {
		const struct vd_page *page;
		const uint8_t *entries;
		uint64_t host = q->l1_host + (uint64_t)done * 8;
		uint32_t count;

		r = vd_cache_get(image->cache, image->source, QCOW2_L1_PAGE_BITS, host, &page);
		if (r < 0)
			break;
		count = (uint32_t)vd_min((vd_page_end(page) - host) / 8, q->l1_size - done);
		entries = vd_page_at(page, host, (uint64_t)count * 8);
		r = entries && count > 0 ? l1_search_page(search, entries, done, count) : -EIO;
		vd_cache_put(image->cache, page);
		done += count;
	}
	return r;
}

static int l1_spend(const struct vd_image *image, uint64_t work, struct vd_error *err)
{
	const struct qcow2 *q = image->state;

	return vd_budget_spend(image->budget, work, image->source->name, "QCOW2 l1_size",
			       q->l1_size, err);
}

/* The tables, which were counted, are not in order: mark all entries whose table has another one. */
static int l1_search_shared(struct l1_search *search, struct vd_error *err)
{
	struct qcow2 *q = search->image->state;
	int r = l1_spend(search->image, (uint64_t)search->present * VD_COST_SORTED, err);

	if (r == 0)
		r = vd_collisions_init(&search->set, search->present);
	if (r == 0)
		r = l1_search(search);
	if (r == 0)
		r = vd_collisions_find(&search->set, q->cluster_bytes, q->l1_size, &q->l1_alias);
	vd_collisions_free(&search->set);
	return r;
}

/*
 * Find L1 entries that share an L2 table. A valid image has none; a hostile one could have four
 * million, so that walking the disk would read the same table for hours. All of them read as errors,
 * because nothing says whose table it is. Done here, not when such an entry is met, so that the
 * answer does not depend on what was read before. Where the tables lie in order, none is shared.
 */
static int l1_scan(struct vd_image *image, struct vd_error *err)
{
	const struct qcow2 *q = image->state;
	struct l1_search search = { .image = image };
	int r = l1_spend(image, (uint64_t)q->l1_size * 8, err);

	if (r == 0)
		r = l1_search(&search);
	if (r == 0 && search.disordered)
		r = l1_search_shared(&search, err);
	if (r == -E2BIG)
		return r;
	if (r == -ENOMEM)
		return vd_fail(err, ENOMEM, "out of memory");
	if (r > 0)
		return vd_fail(err, EIO,
			       "%s: the QCOW2 L1 table was written to while it was read; try again",
			       image->source->name);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the QCOW2 L1 table: %s",
			       image->source->name, strerror(-r));
	return q->l1_alias ? l1_spend(image, (uint64_t)(q->l1_size / 8) * VD_COST_KEPT, err) : 0;
}

/* Whom --snapshot means, and whom there is. */
struct snapshot_search {
	const char *wanted;
	struct vd_image *image;
	bool by_name; /* look for a name; else for an ID */
	struct vd_error *seen; /* collects the names that do not match */
};

static void snapshot_use(struct vd_image *image, const struct vd_snapshot *snapshot)
{
	struct qcow2 *q = image->state;

	q->l1_host = snapshot->l1_host;
	q->l1_size = snapshot->l1_size;
	image->size = snapshot->disk_bytes;
	if (snapshot->date_sec)
		image->date = (struct timespec){
			.tv_sec = (time_t)snapshot->date_sec,
			.tv_nsec = (long)(snapshot->date_ns < NANOSECONDS ? snapshot->date_ns : 0),
		};
	/* IDs are used again after a snapshot was deleted, hence the date. */
	image->snapshot = vd_mix_text(vd_mix(snapshot->date_sec, snapshot->date_ns), snapshot->id) | 1;
}

static int snapshot_match(const struct vd_snapshot *snapshot, void *data)
{
	struct snapshot_search *search = data;
	char id[80], name[160];

	if (!search->wanted)
		return 0;
	if (strcmp(search->by_name ? snapshot->name : snapshot->id, search->wanted) != 0) {
		if (search->by_name)
			vd_error_add(search->seen, " %s=%s",
				     vd_escape(id, sizeof(id), snapshot->id, strlen(snapshot->id)),
				     vd_escape(name, sizeof(name), snapshot->name,
					       strlen(snapshot->name)));
		return 0;
	}
	snapshot_use(search->image, snapshot);
	return 1;
}

/*
 * Walk the snapshot table, which proves that it is whole, and switch to the wanted snapshot's L1
 * table. An ID counts before a name, as in QEMU.
 */
static int snapshot_choose(struct vd_image *image, const char *wanted, struct vd_error *err)
{
	const struct qcow2 *q = image->state;
	struct vd_error seen = { "" };
	struct snapshot_search search = { .wanted = wanted, .image = image, .seen = &seen };
	char name[160];
	int r;

	r = qcow2_snapshots(image, snapshot_match, &search, err);
	if (r != 0 || !wanted)
		return r < 0 ? r : 0;
	search.by_name = true;
	r = qcow2_snapshots(image, snapshot_match, &search, err);
	if (r != 0)
		return r < 0 ? r : 0;
	vd_escape(name, sizeof(name), wanted, strlen(wanted));
	return vd_fail(err, ENOENT,
		       "%s: no snapshot has the ID or name '%s' (--snapshot); the image has%s",
		       image->source->name, name, q->snapshot_count ? seen.text : " none");
}

int qcow2_open(struct vd_image *image, const struct vd_image_options *options, struct vd_error *err)
{
	struct header header;
	struct qcow2 *q = calloc(1, sizeof(*q));
	int r;

	image->state = q;
	if (!q)
		return vd_fail(err, ENOMEM, "out of memory");
	r = header_read(image, &header, err);
	if (r == 0)
		r = vd_image_check_uuid(image, options, err);
	if (r == 0)
		r = header_check(image, &header, err);
	if (r == 0)
		r = first_cluster_read(image, &header, err);
	if (r == 0)
		r = features_check(image, &header, err);
	if (r < 0)
		return r;
	q->l1_host = get_be64(header.bytes + HEADER_L1_OFFSET);
	q->l1_size = get_be32(header.bytes + HEADER_L1_SIZE);
	r = snapshot_choose(image, options->snapshot, err);
	if (r == 0)
		r = l1_check(image, options->snapshot ? "snapshot " : "", err);
	return r < 0 ? r : l1_scan(image, err);
}

int qcow2_snapshot_open(struct vd_image *image, const struct vd_image *of,
			const struct vd_snapshot *snapshot, struct vd_error *err)
{
	struct qcow2 *q = malloc(sizeof(*q));
	int r;

	image->state = q;
	if (!q)
		return vd_fail(err, ENOMEM, "out of memory");
	*q = *(const struct qcow2 *)of->state;
	q->l1_alias = NULL;
	snapshot_use(image, snapshot);
	r = l1_check(image, "snapshot ", err);
	return r < 0 ? r : l1_scan(image, err);
}
