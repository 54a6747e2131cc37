/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: what lies at a virtual address, and decoding compressed clusters.
 *
 * An L1 entry gives an L2 table of one cluster, an L2 entry a cluster ("Cluster mapping" in QEMU's
 * docs/interop/qcow2). Reserved bits are ignored, as QEMU does. With extended L2 entries a cluster
 * is 32 subclusters, each of which is here, zero, or absent. With an external data file the guest's
 * bytes lie there at their guest offset, and offset 0 with the COPIED bit is a real place.
 *
 * The one place that decodes a table entry is cluster_map(). Threads: all is const after open.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2.h"

#define ENTRY_COPIED (UINT64_C(1) << 63)
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define ENTRY_ZERO UINT64_C(1)
#define SUBCLUSTERS 32u

static int qcow2_probe(const struct vd_source *source)
{
	uint8_t head[8] = { 0 }; /* magic and version; version 1 is another format */
	int r;

	if (source->size < 4)
		return 0;
	r = vd_source_read(source, head, (size_t)vd_min(source->size, sizeof(head)), 0);
	return r < 0 ? r : memcmp(head, QCOW2_MAGIC, 4) == 0 && get_be32(head + 4) != 1;
}

static int qcow2_parent(const struct vd_image *image, struct vd_parent *parent,
			struct vd_error *err)
{
	const struct qcow2 *q = image->state;

	/* A raw data file is the whole disk: what lies below must never show through. */
	if (!q->backing_name || q->data_file_raw)
		return 0;
	parent->format = q->backing_format && *q->backing_format ? q->backing_format : NULL;
	if (vd_parent_add(parent, q->backing_name) < 0)
		return vd_fail(err, ENOMEM, "out of memory");
	return 0;
}

static const char *qcow2_data_name(const struct vd_image *image)
{
	const struct qcow2 *q = image->state;

	if (!q->has_data_file)
		return NULL;
	return q->data_name ? q->data_name : "";
}

/* Where we are in the tables, for messages; entry_host 0: at an L1 entry. */
struct position {
	const struct vd_image *image;
	uint64_t virt; /* of the cluster or the L2 table's span */
	uint64_t length; /* of it */
	uint64_t entry_host; /* where the entry stands in the file */
	uint64_t entry;
	bool is_lost; /* the entry could not be read */
};

/* Log why the entry cannot be right and add a BAD run for what it covers. */
static bool add_bad(const struct position *at, const char *table, const char *why,
		    struct vd_runs *runs)
{
	struct vd_run run = { .start = at->virt, .length = at->length, .kind = VD_BAD };
	struct vd_log_once *log = vd_image_log(at->image);
	const char *name = at->image->source->name;

	if (at->is_lost)
		vd_log_once(log, at->entry_host,
			    "%s: QCOW2 %s entry at byte 0x%" PRIx64 " of the file: %s; %" PRIu64
			    " bytes of the disk from %" PRIu64 " on read as an error",
			    name, table, at->entry_host, why, at->length, at->virt);
	else
		vd_log_once(log, at->entry_host,
			    "%s: QCOW2 %s entry 0x%016" PRIx64 " at byte 0x%" PRIx64
			    " of the file: %s; %" PRIu64 " bytes of the disk from %" PRIu64
			    " on read as an error",
			    name, table, at->entry, at->entry_host, why, at->length, at->virt);
	return vd_runs_add(runs, &run);
}

static bool add_plain(enum vd_kind kind, uint64_t virt, uint64_t length, struct vd_runs *runs)
{
	struct vd_run run = { .start = virt, .length = length, .kind = kind };

	return vd_runs_add(runs, &run);
}

/* Zero or absent, with a place in the file kept for it. */
static bool add_kept(enum vd_kind kind, const struct position *at, const struct vd_source *from,
		     uint64_t skip, uint64_t length, uint64_t host, struct vd_runs *runs)
{
	struct vd_run run = {
		.start = at->virt + skip,
		.length = length,
		.kind = kind,
		.from = from,
		.where = host + skip,
	};

	return vd_runs_add(runs, &run);
}

/* Bytes that are in `from` at `host`; where that file ends early the rest is zeros. */
static bool add_raw(const struct vd_source *from, uint64_t virt, uint64_t length, uint64_t host,
		    struct vd_runs *runs)
{
	uint64_t here = host < from->size ? vd_min(length, from->size - host) : 0;
	struct vd_run run = {
		.start = virt,
		.length = here,
		.kind = VD_RAW,
		.from = from,
		.where = host,
	};

	if (here > 0 && !vd_runs_add(runs, &run))
		return false;
	run.start += here;
	run.length = length - here;
	run.kind = VD_ZERO;
	run.cut = true;
	run.where += here;
	return run.length == 0 || vd_runs_add(runs, &run);
}

/* "Compressed Clusters Descriptor": offset in the low x bits, then the number of more sectors. */
static bool add_coded(const struct position *at, struct vd_runs *runs)
{
	const struct vd_image *image = at->image;
	const struct qcow2 *q = image->state;
	unsigned x = 62 - (image->cluster_bits - 8);
	uint64_t host = at->entry & ((UINT64_C(1) << x) - 1);
	uint64_t sectors = (at->entry >> x & ((UINT64_C(1) << (image->cluster_bits - 8)) - 1)) + 1;
	struct vd_run run = {
		.start = at->virt,
		.length = at->length,
		.kind = VD_CODED,
		.coded_bytes = (uint32_t)(sectors * VD_SECTOR - host % VD_SECTOR),
		.from = image->source,
		.where = host,
	};

	if (q->has_data_file)
		return add_bad(at, "L2",
			       "a compressed cluster in an image with an external data file", runs);
	if (host >= image->source->size)
		return add_bad(at, "L2", "the compressed cluster lies past the end of the file",
			       runs);
	return vd_runs_add(runs, &run);
}

/* Why an allocated cluster cannot be at `host`, or NULL. */
static const char *host_fault(const struct position *at, const struct vd_source *from,
			      uint64_t host)
{
	const struct qcow2 *q = at->image->state;

	if (host & (q->cluster_bytes - 1))
		return "the cluster offset is not aligned";
	if (q->has_data_file && host != at->virt)
		return "the cluster offset in the data file differs from the guest offset";
	if (host >= from->size)
		return "the cluster lies past the end of the file";
	return NULL;
}

/*
 * An extended L2 entry: `bitmap` has a bit "allocated" (low half) and "zero" (high) a subcluster.
 */
static bool subclusters_map(const struct position *at, bool allocated, uint64_t host,
			    uint64_t bitmap, struct vd_runs *runs)
{
	const struct qcow2 *q = at->image->state;
	const struct vd_source *from = q->has_data_file ? at->image->data : at->image->source;
	uint64_t bytes = q->cluster_bytes / SUBCLUSTERS;
	uint32_t here = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
	const char *fault = here ? host_fault(at, from, host) : NULL;

	if (here & zero)
		return add_bad(at, "L2", "a subcluster is both allocated and zero", runs);
	if (here && !allocated)
		return add_bad(at, "L2", "a subcluster is allocated in a cluster that is not",
			       runs);
	if (fault)
		return add_bad(at, "L2", fault, runs);
	for (unsigned i = 0; i < SUBCLUSTERS; i++) {
		uint64_t skip = i * bytes, virt = at->virt + skip;
		enum vd_kind kind = zero >> i & 1 ? VD_ZERO : VD_ABSENT;

		if (!(here >> i & 1 ? add_raw(from, virt, bytes, host + skip, runs)
		      : allocated   ? add_kept(kind, at, from, skip, bytes, host, runs)
				    : add_plain(kind, virt, bytes, runs)))
			return false;
	}
	return true;
}

/* Add what one L2 entry says. False: no room left. */
static bool cluster_map(const struct position *at, const uint8_t *bytes, struct vd_runs *runs)
{
	const struct qcow2 *q = at->image->state;
	const struct vd_source *from = q->has_data_file ? at->image->data : at->image->source;
	uint64_t host = at->entry & QCOW2_OFFSET_MASK;
	bool allocated = host != 0 || (q->has_data_file && (at->entry & ENTRY_COPIED));
	const char *fault;

	if (at->entry & ENTRY_COMPRESSED)
		return add_coded(at, runs);
	if (q->extended_l2)
		return subclusters_map(at, allocated, host, get_be64(bytes + 8), runs);
	if (at->entry & ENTRY_ZERO && q->version < 3)
		return add_bad(at, "L2", "a zero cluster in an image of version 2", runs);
	if (at->entry & ENTRY_ZERO && host != 0)
		return add_kept(VD_ZERO, at, from, 0, at->length, host, runs);
	if (at->entry & ENTRY_ZERO || !allocated)
		return add_plain(at->entry & ENTRY_ZERO ? VD_ZERO : VD_ABSENT, at->virt, at->length,
				 runs);
	fault = host_fault(at, from, host);
	if (fault)
		return add_bad(at, "L2", fault, runs);
	return add_raw(from, at->virt, at->length, host, runs);
}

/*
 * A page without entries ends at `at`. If the file has a hole from there to the end of the table, all
 * the rest is absent: a table of a large cluster has many pages, and hostile tables may lie in holes of
 * terabytes.
 */
static void l2_rest(const struct position *at, uint64_t table_end, struct vd_runs *runs)
{
	const struct qcow2 *q = at->image->state;
	const struct vd_run *run = &runs->runs[0];
	uint64_t bytes = table_end - at->entry_host;

	if (bytes > 0 && runs->count == 1 && run->kind == VD_ABSENT && !run->from &&
	    run->start + run->length == at->virt &&
	    vd_source_is_hole(at->image->source, at->entry_host, bytes))
		add_plain(VD_ABSENT, at->virt, bytes / q->l2_entry_bytes * q->cluster_bytes, runs);
}

/* Add the entries of one page of an L2 table, from the one for `virt` on. */
static int l2_map(const struct position *l1, uint64_t virt, uint64_t want, struct vd_runs *runs)
{
	const struct vd_image *image = l1->image;
	const struct qcow2 *q = image->state;
	uint64_t index = (virt - l1->virt) >> image->cluster_bits;
	uint64_t table = l1->entry & QCOW2_OFFSET_MASK;
	uint64_t end = table + q->cluster_bytes; /* host */
	struct position at = {
		.image = image,
		.virt = virt & ~(q->cluster_bytes - 1),
		.length = q->cluster_bytes,
		.entry_host = table + index * q->l2_entry_bytes,
	};
	const struct vd_page *page;
	const uint8_t *entries;
	int r = vd_cache_get(image->cache, image->source, q->l2_page_bits, at.entry_host, &page);

	if (r < 0)
		return r;
	end = vd_min(end, vd_page_end(page));
	entries = vd_page_at(page, at.entry_host, end - at.entry_host);
	while (entries && at.entry_host < end && (at.virt <= virt || at.virt - virt < want)) {
		at.entry = get_be64(entries);
		if (!cluster_map(&at, entries, runs))
			break;
		entries += q->l2_entry_bytes;
		at.virt += q->cluster_bytes;
		at.entry_host += q->l2_entry_bytes;
	}
	vd_cache_put(image->cache, page);
	if (entries && at.entry_host == end)
		l2_rest(&at, table + q->cluster_bytes, runs);
	return entries ? 0 : -EIO;
}

/*
 * Read the L1 entry number `index`; *absent: how many entries from it on, in its page, are zero. At
 * most as many are looked at.
 */
static int l1_read(struct position *l1, uint64_t index, uint64_t most, uint64_t *absent)
{
	const struct vd_image *image = l1->image;
	const struct qcow2 *q = image->state;
	const struct vd_page *page;
	const uint8_t *entries;
	uint64_t end = q->l1_host + (uint64_t)q->l1_size * 8, count;
	int r;

	*absent = 0;
	l1->entry_host = q->l1_host + index * 8;
	r = vd_cache_get(image->cache, image->source, QCOW2_L1_PAGE_BITS, l1->entry_host, &page);
	if (r < 0)
		return r;
	count = vd_min((vd_min(end, vd_page_end(page)) - l1->entry_host) / 8, most);
	entries = vd_page_at(page, l1->entry_host, count * 8);
	if (entries && count > 0) {
		l1->entry = get_be64(entries);
		while (*absent < count && !(get_be64(entries + *absent * 8) & QCOW2_OFFSET_MASK))
			++*absent;
	} else {
		r = -EIO;
	}
	vd_cache_put(image->cache, page);
	return r;
}

/* Why the L2 table of an L1 entry cannot be used, or NULL. */
static const char *l2_fault(const struct position *l1, uint64_t index)
{
	const struct qcow2 *q = l1->image->state;
	uint64_t host = l1->entry & QCOW2_OFFSET_MASK;

	if (host & (q->cluster_bytes - 1))
		return "the L2 table offset is not aligned";
	if (!vd_inside(host, q->cluster_bytes, l1->image->source->size))
		return "the L2 table ends past the end of the file";
	if (q->l1_alias && q->l1_alias[index / 8] >> index % 8 & 1)
		return "another L1 entry has the same L2 table";
	return NULL;
}

static int qcow2_map(const struct vd_image *image, uint64_t virt, uint64_t want,
		     struct vd_runs *runs)
{
	const struct qcow2 *q = image->state;
	uint64_t span = qcow2_l1_span(q), index = virt / span, absent;
	struct position l1 = { .image = image, .virt = index * span, .length = span };
	const char *fault;
	int r = l1_read(&l1, index, (virt - l1.virt + want - 1) / span + 1, &absent);

	if (r == 0 && absent > 0) {
		add_plain(VD_ABSENT, l1.virt, absent * span, runs);
		return 0;
	}
	l1.is_lost = r < 0;
	fault = l1.is_lost ? "the L1 table cannot be read" : l2_fault(&l1, index);
	if (!fault) {
		r = l2_map(&l1, virt, want, runs);
		fault = r < 0 ? "the L2 table cannot be read" : NULL;
	}
	if (r == -ENOMEM)
		return r;
	if (fault)
		add_bad(&l1, "L1", fault, runs);
	return 0;
}

/*
 * The input of a compressed cluster, which may claim twice the size of the cluster. No writer needs
 * that much: what does not shrink is not compressed, and deflate at its worst takes 9 bits a byte.
 */
static size_t input_bytes(const struct vd_run *run)
{
	return (size_t)vd_min(run->coded_bytes, run->length + run->length / 8 + 2 * VD_SECTOR);
}

static int unit_decode(const struct vd_image *image, const struct vd_run *run, void *unit,
		       struct vd_scratch *scratch)
{
	const struct qcow2 *q = image->state;
	size_t bytes = input_bytes(run);
	/* A file may end before the last sector does: the codec gets no more than there is. */
	size_t here = (size_t)vd_min(bytes, run->from->size - run->where);
	uint8_t *in = vd_scratch_input(scratch, here);
	int r;

	if (!in)
		return -ENOMEM;
	r = vd_source_read(run->from, in, here, run->where);
	if (r < 0) {
		vd_log_once(vd_image_log(image), run->where,
			    "%s: cannot read the compressed cluster of %zu bytes at byte %" PRIu64
			    " of the file: %s",
			    image->source->name, here, run->where,
			    r == -EIO ? "input/output error, or the file was cut short"
				      : strerror(-r));
		return r;
	}
	r = q->zstd ? vd_unzstd(scratch, in, here, unit, (size_t)run->length)
		    : vd_inflate(scratch, in, here, unit, (size_t)run->length);
	if (r == -EIO) {
		r = -EBADMSG;
		vd_log_once(vd_image_log(image), run->where,
			    "%s: the compressed cluster at byte 0x%" PRIx64
			    " of the file (disk offset %" PRIu64
			    ") cannot be decompressed to %" PRIu64 " bytes%s; it reads as an error",
			    image->source->name, run->where, run->start, run->length,
			    here < bytes ? " (the file ends inside it)" : "");
	}
	return r;
}

static int qcow2_decode(const struct vd_image *image, const struct vd_run *run, void *unit,
			struct vd_scratch *scratch)
{
	int r = unit_decode(image, run, unit, scratch);

	vd_scratch_rest(scratch);
	return r;
}

static enum vd_host_hole qcow2_host_hole(const struct vd_image *image)
{
	return qcow2_is_preallocated(image) ? VD_HOLE_IS_ZERO_DATA : VD_HOLE_IS_DATA;
}

static void qcow2_close(struct vd_image *image)
{
	struct qcow2 *q = image->state;

	if (!q)
		return;
	free(q->l1_alias);
	if (!image->borrows) {
		free(q->backing_name);
		free(q->backing_format);
		free(q->data_name);
	}
	free(q);
}

const struct vd_format vd_format_qcow2 = {
	.name = "qcow2",
	.probe = qcow2_probe,
	.open = qcow2_open,
	.parent = qcow2_parent,
	.data_name = qcow2_data_name,
	.map = qcow2_map,
	.decode = qcow2_decode,
	.host_hole = qcow2_host_hole,
	.facts = qcow2_facts,
	.snapshots = qcow2_snapshots,
	.snapshot_open = qcow2_snapshot_open,
	.bitmaps = qcow2_bitmaps,
	.bitmap_map = qcow2_bitmap_map,
	.close = qcow2_close,
};
