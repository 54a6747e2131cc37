/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two halves of the QCOW2 driver share: qcow2_open.c reads the headers, qcow2.c maps. */
#ifndef VD_FORMAT_QCOW2_H
#define VD_FORMAT_QCOW2_H

#include "format/format.h"

#define QCOW2_MAGIC "QFI\xfb"

/* Names follow the specification (QEMU's docs/interop/qcow2). */
struct qcow2 {
	uint32_t version;
	uint64_t cluster_bytes;
	uint64_t incompatible, compatible, autoclear; /* feature bits */
	bool extended_l2; /* 16-byte L2 entries with subcluster bitmaps */
	bool has_data_file; /* guest data is in image->data, at its guest offset */
	bool data_file_raw; /* that file alone is the disk: nothing shows through */
	bool zstd; /* else deflate */
	uint64_t header_bytes;
	uint64_t active_size; /* virtual bytes of the active disk, whatever snapshot is in use */
	uint64_t l1_host; /* of the L1 table in use: active, or the snapshot's */
	uint32_t l1_size; /* entries */
	unsigned l2_bits; /* log2 of the entries of an L2 table */
	unsigned l2_entry_bytes; /* 8 or 16 */
	unsigned l2_page_bits; /* cache pages for L2 tables */
	uint64_t refcount_host; /* of the table; not checked, like what follows */
	uint32_t refcount_clusters, refcount_order;
	uint32_t snapshot_count;
	uint64_t snapshot_host; /* of their table, which is whole */
	uint64_t bitmap_bytes; /* of the bitmaps extension; 0: there is none. Not checked either */
	uint32_t bitmap_count;
	uint64_t bitmap_host, bitmap_directory_bytes; /* of their directory */
	uint8_t *l1_alias; /* a bit per L1 entry: another one has its table; or NULL */
	char *backing_name, *backing_format, *data_name; /* or NULL */
};

#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_PAGE_BITS 16

/* Bytes of the virtual disk that one L1 entry covers. */
static inline uint64_t qcow2_l1_span(const struct qcow2 *q)
{
	return q->cluster_bytes << q->l2_bits;
}

/* vd_format.open. */
int qcow2_open(struct vd_image *image, const struct vd_image_options *options,
	       struct vd_error *err);

/* vd_format.snapshot_open. The names of the copy are those of `of`. */
int qcow2_snapshot_open(struct vd_image *image, const struct vd_image *of,
			const struct vd_snapshot *snapshot, struct vd_error *err);

/* Has the file been given room for much more than it holds, as QEMU judges it? */
bool qcow2_is_preallocated(const struct vd_image *image);

/* The members of vd_format that have files of their own. */
int qcow2_facts(const struct vd_image *image, vd_fact_fn *fn, void *data);
int qcow2_snapshots(const struct vd_image *image, vd_snapshot_fn *fn, void *data,
		    struct vd_error *err);
int qcow2_bitmaps(const struct vd_image *image, vd_bitmap_fn *fn, void *data, struct vd_error *err);
int qcow2_bitmap_map(const struct vd_image *image, const struct vd_bitmap *bitmap, uint64_t virt,
		     enum vd_bits *bits, uint64_t *end);

#endif
