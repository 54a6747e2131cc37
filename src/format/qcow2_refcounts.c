/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: counting the clusters that have a reference count, as far as it takes to see that the
 * file has room for much less, since its metadata was made in advance ("preallocation=metadata").
 * QEMU looks for holes of the file only then, and who prints what it prints must know. Nothing
 * else of vdifs looks at reference counts. Threads: pure but for the metadata cache.
 */
#include "config.h"

#include "base/bytes.h"
#include "format/qcow2.h"

enum { PAGE_BITS = 16, BLOCKS_SPARE = 16 };

#define TABLE_BYTES_MAX (UINT64_C(8) << 20)
#define TABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00)

/* The number of entries that are not 0, of 2^order bits each. */
static uint64_t entries_count(const uint8_t *bytes, uint64_t count, unsigned order)
{
	unsigned bits = 1u << order, width = bits / 8, mask = (1u << (bits & 7)) - 1;
	uint64_t used = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint8_t any = 0;

		if (bits < 8)
			any = (uint8_t)((unsigned)bytes[i * bits / 8] >> i * bits % 8 & mask);
		for (unsigned byte = 0; byte < width; byte++)
			any |= bytes[i * width + byte];
		used += any != 0;
	}
	return used;
}

/* Count what the block at `host` has in its first `count` entries, page by page, as far as it can be read. */
static uint64_t block_count(const struct vd_image *image, uint64_t host, uint64_t count)
{
	const struct qcow2 *q = image->state;
	uint64_t used = 0;

	while (count > 0) {
		const struct vd_page *page;
		const uint8_t *counts;
		uint64_t bytes, here;

		if (vd_cache_get(image->cache, image->source, PAGE_BITS, host, &page) < 0)
			return used;
		bytes = vd_page_end(page) - host;
		here = vd_min(count, bytes * 8 >> q->refcount_order);
		counts = vd_page_at(page, host, bytes);
		if (counts)
			used += entries_count(counts, here, q->refcount_order);
		vd_cache_put(image->cache, page);
		if (!counts)
			return used;
		host += bytes;
		count -= here;
	}
	return used;
}

/* The offset of a block of reference counts, or 0. */
static uint64_t table_entry(const struct vd_image *image, uint64_t host)
{
	const struct qcow2 *q = image->state;
	const struct vd_page *page;
	const uint8_t *bytes;
	uint64_t entry;

	if (!vd_inside(host, 8, image->source->size) ||
	    vd_cache_get(image->cache, image->source, PAGE_BITS, host, &page) < 0)
		return 0;
	bytes = vd_page_at(page, host, 8);
	entry = bytes ? get_be64(bytes) & TABLE_OFFSET_MASK : 0;
	vd_cache_put(image->cache, page);
	return entry % q->cluster_bytes == 0 &&
			       vd_inside(entry, q->cluster_bytes, image->source->size)
		       ? entry
		       : 0;
}

bool qcow2_is_preallocated(const struct vd_image *image)
{
	const struct qcow2 *q = image->state;
	uint64_t clusters = vd_div_up(image->source->size, q->cluster_bytes);
	uint64_t real = (uint64_t)image->source->st.st_blocks * VD_SECTOR / q->cluster_bytes;
	uint64_t enough = vd_max(real + real / 9, real + 2);
	uint64_t per_block = q->refcount_order > 6 ? 0 : q->cluster_bytes * 8 >> q->refcount_order;
	uint64_t table_bytes = (uint64_t)q->refcount_clusters * q->cluster_bytes;
	uint64_t used = 0, blocks = 0;

	if (per_block == 0 || table_bytes > TABLE_BYTES_MAX ||
	    q->refcount_host % q->cluster_bytes != 0)
		return false;
	/*
	 * No more blocks than the file really holds. Hostile ones are all equal, or in holes, and
	 * the size of the file is only a claim. BLOCKS_SPARE: parts of a large block may be a hole.
	 */
	for (uint64_t i = 0; i < table_bytes / 8 && i * per_block < clusters && used < enough;
	     i++) {
		uint64_t host = table_entry(image, q->refcount_host + i * 8);

		if (host != 0 && ++blocks <= real + BLOCKS_SPARE)
			used += block_count(image, host,
					    vd_min(per_block, clusters - i * per_block));
	}
	return used >= enough;
}
