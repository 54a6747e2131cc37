/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHD (Virtual Hard Disk, "vpc" in QEMU): fixed, dynamic and differencing images, after
 * Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 and what its writers really do.
 *
 * All integers are big-endian, but the UTF-16 names in parent locators are little-endian. It is
 * vhd_footer.c that finds the footer. The virtual size is current_size, whatever the geometry says.
 *
 * The block allocation table (BAT) gives the first sector of each block: a sector bitmap, rounded
 * up to whole sectors, then the data. A clear bit (most significant bit first) means zeros in a
 * dynamic image (ZERO, nothing lies below it) and "see the parent" in a differencing one (ABSENT).
 *
 * Threads: everything is set in open() and only read afterwards.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/vhd_footer.h"
#include "format/vhd_names.h"
#include "support/overlap.h"

/* Offsets in the dynamic disk header ("Dynamic Disk Header Format"). */
enum {
	HEADER_TABLE_OFFSET = 16,
	HEADER_VERSION = 24,
	HEADER_ENTRIES = 28,
	HEADER_BLOCK_SIZE = 32,
	HEADER_CHECKSUM = 36,
	HEADER_PARENT_UUID = 40,
	HEADER_BYTES = 1024,
};

#define BAT_ABSENT UINT32_MAX
enum { BAT_PAGE_BITS = 16, BITMAP_PAGE_BITS_MAX = 12, FIXED_CLUSTER_BITS = 16 };
/* 2040 GiB, the format's limit for images with a BAT; it also bounds the work of a hostile one. */
#define DYNAMIC_SIZE_MAX ((uint64_t)0xff000000 * VD_SECTOR)
/* What the largest disk has in blocks of 512 KiB. It bounds the memory of the search for overlaps. */
#define BLOCKS_MAX ((uint64_t)4 << 20)

struct vhd {
	uint32_t type;
	enum vd_kind absent; /* what blocks and sectors are that are not here */
	uint64_t data_end; /* host: guest data ends here, at the footer or the end of file */
	uint64_t header_host; /* of the dynamic header */
	uint64_t table_host; /* of the BAT */
	uint64_t table_bytes;
	uint32_t entries;
	uint64_t block_bytes;
	uint64_t bitmap_bytes; /* of one block's bitmap, whole sectors */
	unsigned bitmap_page_bits; /* bitmaps lie far apart: pages no larger than one */
	uint8_t *overlaps; /* a bit per block: it lies on an earlier one; or NULL */
	uint8_t header[HEADER_BYTES];
};

static int footer_check(struct vd_image *image, const uint8_t *footer, struct vd_error *err)
{
	const char *name = image->source->name;
	struct vhd *vhd = image->state;
	uint32_t version = get_be32(footer + FOOTER_VERSION);

	if (memcmp(footer, "v_poison", 8) == 0)
		return vd_fail(err, EINVAL,
			       "%s: this VHD is marked as disabled (cookie \"v_poison\"): its "
			       "writer was interrupted",
			       name);
	if (version >> 16 != 1)
		return vd_fail(err, ENOTSUP,
			       "%s: VHD file format version is 0x%08" PRIx32
			       "; vdifs reads 0x00010000",
			       name, version);
	vhd->type = get_be32(footer + FOOTER_TYPE);
	if (vhd->type != TYPE_FIXED && vhd->type != TYPE_DYNAMIC && vhd->type != TYPE_DIFFERENCING)
		return vd_fail(err, EINVAL,
			       "%s: VHD disk type is %" PRIu32 "; vdifs reads 2 (fixed), 3 "
			       "(dynamic) and 4 (differencing)",
			       name, vhd->type);
	vhd->absent = vhd->type == TYPE_DIFFERENCING ? VD_ABSENT : VD_ZERO;
	image->size = get_be64(footer + FOOTER_CURRENT_SIZE);
	memcpy(image->uuid, footer + FOOTER_UUID, VD_UUID_BYTES);
	if (image->size > INT64_MAX)
		return vd_fail(err, EFBIG,
			       "%s: VHD current_size is %" PRIu64 " bytes, more than a file can "
			       "have",
			       name, image->size);
	if (vhd->type != TYPE_FIXED && image->size > DYNAMIC_SIZE_MAX)
		return vd_fail(err, EFBIG,
			       "%s: VHD current_size is %" PRIu64 " bytes; the format's limit is "
			       "%" PRIu64 " (2040 GiB)",
			       name, image->size, DYNAMIC_SIZE_MAX);
	return 0;
}

/* Read the dynamic header and check what it holds by itself. */
static int header_read(struct vd_image *image, uint64_t host, struct vd_error *err)
{
	const char *name = image->source->name;
	struct vhd *vhd = image->state;
	uint8_t *header = vhd->header;
	uint32_t stored, computed, block;
	int r;

	if (!vd_inside(host, HEADER_BYTES, image->source->size))
		return vd_fail(err, EINVAL,
			       "%s: VHD data_offset is 0x%" PRIx64 ": the dynamic header would "
			       "end past the end of the file; the image is damaged or cut short",
			       name, host);
	r = vd_source_read(image->source, header, HEADER_BYTES, host);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the VHD dynamic header: %s", name,
			       strerror(-r));
	if (memcmp(header, "cxsparse", 8) != 0)
		return vd_fail(err, EINVAL,
			       "%s: no VHD dynamic header (cookie \"cxsparse\") at data_offset "
			       "0x%" PRIx64,
			       name, host);
	stored = get_be32(header + HEADER_CHECKSUM);
	computed = vhd_checksum(header, HEADER_BYTES, HEADER_CHECKSUM);
	if (stored != computed)
		return vd_fail(err, EINVAL,
			       "%s: VHD dynamic header has a wrong checksum (0x%08" PRIx32
			       ", the bytes give 0x%08" PRIx32 "); the image is damaged",
			       name, stored, computed);
	if (get_be32(header + HEADER_VERSION) >> 16 != 1)
		return vd_fail(err, ENOTSUP,
			       "%s: VHD dynamic header version is 0x%08" PRIx32
			       "; vdifs reads 0x00010000",
			       name, get_be32(header + HEADER_VERSION));
	block = get_be32(header + HEADER_BLOCK_SIZE);
	if (!vd_is_power_of_two(block) || block < VD_SECTOR)
		return vd_fail(err, EINVAL,
			       "%s: VHD block_size is %" PRIu32 "; it must be a power of two, at "
			       "least 512",
			       name, block);
	vhd->header_host = host;
	vhd->block_bytes = block;
	vhd->bitmap_bytes = vd_div_up(block / VD_SECTOR, 8 * VD_SECTOR) * VD_SECTOR;
	vhd->bitmap_page_bits = (unsigned)vd_min(vd_log2(vhd->bitmap_bytes), BITMAP_PAGE_BITS_MAX);
	image->cluster_bits = vd_log2(block);
	return 0;
}

/* The BAT must be whole and long enough: half a table read as absent is silent loss. */
static int table_check(struct vd_image *image, struct vd_error *err)
{
	const char *name = image->source->name;
	struct vhd *vhd = image->state;
	uint64_t need = vd_div_up(image->size, vhd->block_bytes);

	vhd->entries = get_be32(vhd->header + HEADER_ENTRIES);
	vhd->table_host = get_be64(vhd->header + HEADER_TABLE_OFFSET);
	vhd->table_bytes = (uint64_t)vhd->entries * 4;
	if (need > vhd->entries)
		return vd_fail(err, EINVAL,
			       "%s: VHD max_table_entries is %" PRIu32 ", but the disk of %" PRIu64
			       " bytes has %" PRIu64 " blocks; the image is damaged",
			       name, vhd->entries, image->size, need);
	if (need > BLOCKS_MAX)
		return vd_fail(err, EFBIG,
			       "%s: the VHD has %" PRIu64 " blocks of %" PRIu64
			       " bytes; the limit is %" PRIu64,
			       name, need, vhd->block_bytes, BLOCKS_MAX);
	if (!vd_inside(vhd->table_host, vhd->table_bytes, image->source->size))
		return vd_fail(err, EINVAL,
			       "%s: VHD table_offset is 0x%" PRIx64 " with %" PRIu32
			       " entries: the BAT would end past the end of the file; the image is "
			       "damaged "
			       "or cut short",
			       name, vhd->table_host, vhd->entries);
	if (vhd->table_host % 4 != 0)
		return vd_fail(err, EINVAL,
			       "%s: VHD table_offset is 0x%" PRIx64 ", which is not aligned; the "
			       "image is damaged",
			       name, vhd->table_host);
	return 0;
}

/*
 * XenServer's batmap follows the BAT. It only repeats what the bitmaps say, so that it is not used,
 * but its key hash tells that the blocks are encrypted (blktap's include/libvhd.h).
 */
static int batmap_check(struct vd_image *image, const uint8_t *footer, struct vd_error *err)
{
	enum { KEYHASH = 29, BATMAP_BYTES = 30 };
	const struct vhd *vhd = image->state;
	uint64_t host = vhd->table_host + vd_div_up(vhd->table_bytes, VD_SECTOR) * VD_SECTOR;
	uint8_t batmap[BATMAP_BYTES];
	int r;

	if (memcmp(footer + FOOTER_CREATOR, "tap", 4) != 0 ||
	    get_be32(footer + FOOTER_CREATOR_VERSION) < TAP_VERSION(1, 1) ||
	    !vd_inside(host, BATMAP_BYTES, image->source->size))
		return 0;
	r = vd_source_read(image->source, batmap, BATMAP_BYTES, host);
	if (r < 0)
		return vd_fail(err, -r,
			       "%s: cannot read the VHD batmap, which says whether the disk is "
			       "encrypted: %s",
			       image->source->name, strerror(-r));
	if (memcmp(batmap, "tdbatmap", 8) == 0 && batmap[KEYHASH] == 1)
		return vd_fail(err, ENOTSUP,
			       "%s: this VHD is encrypted (tdbatmap key hash is set); vdifs has no "
			       "key",
			       image->source->name);
	return 0;
}

/* Why no block can be at `host`, or NULL. */
static const char *place_fault(const struct vd_image *image, uint64_t host)
{
	const struct vhd *vhd = image->state;
	uint64_t bytes = vhd->bitmap_bytes + vhd->block_bytes;

	if (vd_overlap(host, bytes, 0, FOOTER_BYTES) ||
	    vd_overlap(host, bytes, vhd->header_host, HEADER_BYTES))
		return "the block lies on the headers";
	if (vd_overlap(host, bytes, vhd->table_host, vhd->table_bytes))
		return "the block lies on the BAT";
	if (!vd_inside(host, vhd->bitmap_bytes, vhd->data_end))
		return "its sector bitmap lies past the end of the file";
	if (host + vhd->bitmap_bytes >= vhd->data_end)
		return "the block lies past the end of the file";
	return NULL;
}

/* Looking for blocks that lie on others. */
struct bat_search {
	struct vd_image *image;
	uint64_t blocks;
	uint64_t end; /* of the last block so far */
	struct vd_overlap set; /* blocks so far; without slots: are they in order? */
};

/* Look at `count` entries from number `first` on. 0; 1: they are not in order; -ENOMEM. */
static int bat_search_page(struct bat_search *search, const uint8_t *entries, uint64_t first,
			   uint64_t count)
{
	struct vhd *vhd = search->image->state;

	for (uint64_t i = 0; i < count; i++) {
		uint32_t entry = get_be32(entries + i * 4);
		uint64_t host = (uint64_t)entry * VD_SECTOR;

		/* An entry that is wrong by itself takes no place from others. */
		if (entry == BAT_ABSENT || place_fault(search->image, host))
			continue;
		if (!search->set.slots && host < search->end)
			return 1;
		search->end = host + vhd->bitmap_bytes + vhd->block_bytes;
		if (!search->set.slots || !vd_overlap_add(&search->set, host))
			continue;
		if (!vhd->overlaps)
			vhd->overlaps = calloc(1, (size_t)(search->blocks / 8 + 1));
		if (!vhd->overlaps)
			return -ENOMEM;
		vhd->overlaps[(first + i) / 8] |= (uint8_t)(1 << (first + i) % 8);
	}
	return 0;
}

static int bat_search(struct bat_search *search)
{
	struct vd_image *image = search->image;
	struct vhd *vhd = image->state;
	uint64_t done = 0;
	int r = 0;

	while (done < search->blocks && r == 0) {
		uint64_t host = vhd->table_host + done * 4, count;
		const struct vd_page *page;

		r = vd_cache_get(image->cache, image->source, BAT_PAGE_BITS, host, &page);
		if (r < 0)
			break;
		count = vd_min((page->host + page->bytes - host) / 4, search->blocks - done);
		r = bat_search_page(search, page->data + (host - page->host), done, count);
		vd_cache_put(image->cache, page);
		done += count;
	}
	return r;
}

/*
 * Find blocks that lie on an earlier block: what one of the two shows is not its own. Done here, so
 * that the answer does not depend on what was read before. Mostly the blocks are in order, which is
 * seen at a third of the cost.
 */
static int bat_scan(struct vd_image *image, struct vd_error *err)
{
	struct vhd *vhd = image->state;
	struct bat_search search = {
		.image = image,
		.blocks = vd_div_up(image->size, vhd->block_bytes),
	};
	int r = bat_search(&search);

	if (r > 0) {
		if (vd_overlap_init(&search.set, vhd->bitmap_bytes + vhd->block_bytes,
				    search.blocks) < 0)
			return vd_fail(err, ENOMEM, "out of memory");
		r = bat_search(&search);
		vd_overlap_free(&search.set);
	}
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the VHD BAT: %s", image->source->name,
			       strerror(-r));
	return 0;
}

static int vhd_open(struct vd_image *image, const struct vd_image_options *options,
		    struct vd_error *err)
{
	uint8_t footer[FOOTER_BYTES];
	struct vhd *vhd = calloc(1, sizeof(*vhd));
	int r;

	image->state = vhd;
	if (!vhd)
		return vd_fail(err, ENOMEM, "out of memory");
	if (options->snapshot)
		return vd_fail(err, EINVAL,
			       "%s: a VHD image has no internal snapshots; leave --snapshot out",
			       image->source->name);
	r = vhd_footer_find(image->source, footer, &vhd->data_end, err);
	if (r == 0)
		r = footer_check(image, footer, err);
	if (r == 0)
		r = vd_image_check_uuid(image, options, err);
	if (r < 0)
		return r;
	if (vhd->type == TYPE_FIXED) {
		image->cluster_bits = FIXED_CLUSTER_BITS;
		image->has_no_clusters = true;
		return 0;
	}
	r = header_read(image, get_be64(footer + FOOTER_DATA_OFFSET), err);
	if (r < 0)
		return r;
	r = table_check(image, err);
	if (r == 0)
		r = batmap_check(image, footer, err);
	return r < 0 ? r : bat_scan(image, err);
}

static int vhd_parent(const struct vd_image *image, struct vd_parent *parent, struct vd_error *err)
{
	static const uint8_t no_uuid[VD_UUID_BYTES];
	const struct vhd *vhd = image->state;
	int r;

	if (vhd->type != TYPE_DIFFERENCING)
		return 0;
	memcpy(parent->uuid, vhd->header + HEADER_PARENT_UUID, VD_UUID_BYTES);
	parent->check_uuid = memcmp(parent->uuid, no_uuid, VD_UUID_BYTES) != 0;
	parent->format = parent->check_uuid ? "vhd" : "raw";
	r = vhd_names_collect(image->source, vhd->header, parent);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the names of its parent: %s",
			       image->source->name, strerror(-r));
	if (parent->count == 0)
		return vd_fail(err, EINVAL,
			       "%s: a differencing VHD that names no parent; name it with "
			       "--backing-file=PATH",
			       image->source->name);
	return 0;
}

/* A fixed disk: all that lies before the footer; a place past it cannot be read. */
static int fixed_map(const struct vd_image *image, struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t here = vd_min(image->size, vhd->data_end);
	struct vd_run run = { .length = here, .kind = VD_RAW, .from = image->source };

	if (here > 0)
		vd_runs_add(runs, &run);
	if (here == image->size)
		return 0;
	vd_log_once(vd_image_log(image), here,
		    "%s: the fixed VHD ends at byte %" PRIu64 " of a disk of %" PRIu64
		    " bytes; what is missing reads as an error",
		    image->source->name, here, image->size);
	run = (struct vd_run){ .start = here, .length = image->size - here, .kind = VD_BAD };
	vd_runs_add(runs, &run);
	return 0;
}

/* Add one BAD run for the block and log why. `entry`: NULL if it could not be read. */
static void block_is_bad(const struct vd_image *image, uint64_t block, const uint32_t *entry,
			 const char *why, struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	struct vd_run run = {
		.start = block * vhd->block_bytes,
		.length = vhd->block_bytes,
		.kind = VD_BAD,
	};

	if (entry)
		vd_log_once(vd_image_log(image), block,
			    "%s: VHD BAT entry %" PRIu64 " is 0x%08" PRIx32
			    ": %s; its block reads as an error",
			    image->source->name, block, *entry, why);
	else
		vd_log_once(vd_image_log(image), block,
			    "%s: VHD BAT entry %" PRIu64 ": %s; its block reads as an error",
			    image->source->name, block, why);
	vd_runs_add(runs, &run);
}

/* Why the block at `host` cannot be the one that it is to be, or NULL. */
static const char *block_fault(const struct vd_image *image, uint64_t block, uint64_t host)
{
	const struct vhd *vhd = image->state;
	const char *fault = place_fault(image, host);

	if (!fault && vhd->overlaps && vhd->overlaps[block / 8] >> block % 8 & 1)
		return "the block lies on an earlier one";
	return fault;
}

/* Sectors that are here: raw, but zeros where the file ends early. */
static bool sectors_add(const struct vd_image *image, uint64_t virt, uint64_t length, uint64_t host,
			struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t here = host < vhd->data_end ? vd_min(length, vhd->data_end - host) : 0;
	struct vd_run raw = {
		.start = virt,
		.length = here,
		.kind = VD_RAW,
		.from = image->source,
		.where = host,
	};
	struct vd_run cut = {
		.start = virt + here,
		.length = length - here,
		.kind = VD_ZERO,
		.cut = true,
		.from = image->source,
		.where = host + here,
	};

	if (here > 0 && !vd_runs_add(runs, &raw))
		return false;
	return here == length || vd_runs_add(runs, &cut);
}

static bool bit_is_set(const uint8_t *bitmap, uint64_t bit)
{
	return bitmap[bit / 8] >> (7 - bit % 8) & 1;
}

/* The number of bits from `bit` on, below `end`, that are like it. Bytes of one kind go at once. */
static uint64_t bits_alike(const uint8_t *bitmap, uint64_t bit, uint64_t end)
{
	bool set = bit_is_set(bitmap, bit);
	uint8_t whole = set ? 0xff : 0;
	uint64_t at = bit + 1;

	while (at < end) {
		if (at % 8 == 0 && end - at >= 8 && bitmap[at / 8] == whole)
			at += 8;
		else if (bit_is_set(bitmap, at) == set)
			at++;
		else
			break;
	}
	return at - bit;
}

/* Runs of one present block from the sector of `virt` on, as far as one page of its bitmap goes. */
static int block_map(const struct vd_image *image, uint64_t virt, uint64_t block_host,
		     struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t block_virt = virt & ~(vhd->block_bytes - 1);
	uint64_t sector = (virt - block_virt) / VD_SECTOR;
	uint64_t data_host = block_host + vhd->bitmap_bytes;
	uint64_t byte = block_host + sector / 8; /* of the bitmap */
	const struct vd_page *page;
	uint64_t first, end; /* sectors of the block that the page covers: [first, end) */
	int r = vd_cache_get(image->cache, image->source, vhd->bitmap_page_bits, byte, &page);

	if (r < 0)
		return r;
	first = page->host > block_host ? (page->host - block_host) * 8 : 0;
	end = vd_min((page->host + page->bytes - block_host) * 8, vhd->block_bytes / VD_SECTOR);
	while (sector < end) {
		const uint8_t *bitmap = page->data + (block_host + first / 8 - page->host);
		uint64_t count = bits_alike(bitmap, sector - first, end - first);
		struct vd_run absent = {
			.start = block_virt + sector * VD_SECTOR,
			.length = count * VD_SECTOR,
			.kind = vhd->absent,
		};
		bool set = bit_is_set(bitmap, sector - first);

		if (!(set ? sectors_add(image, absent.start, absent.length,
					data_host + sector * VD_SECTOR, runs)
			  : vd_runs_add(runs, &absent)))
			break;
		sector += count;
	}
	vd_cache_put(image->cache, page);
	return 0;
}

/* The number of absent BAT entries from the one at entry_host on, in this page and table. */
static uint64_t absent_entries(const struct vhd *vhd, const struct vd_page *page,
			       uint64_t entry_host, uint64_t most)
{
	uint64_t table_end = vhd->table_host + vhd->table_bytes;
	uint64_t end = vd_min(vd_min(page->host + page->bytes, table_end), entry_host + most * 4);
	uint64_t at = entry_host;

	while (at + 4 <= end && get_be32(page->data + (at - page->host)) == BAT_ABSENT)
		at += 4;
	return (at - entry_host) / 4;
}

static int vhd_map(const struct vd_image *image, uint64_t virt, uint64_t want, struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t block, entry_host, absent;
	const struct vd_page *page;
	const char *fault;
	uint32_t entry;
	int r;

	if (vhd->type == TYPE_FIXED)
		return fixed_map(image, runs);
	block = virt / vhd->block_bytes;
	entry_host = vhd->table_host + block * 4;
	r = vd_cache_get(image->cache, image->source, BAT_PAGE_BITS, entry_host, &page);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		block_is_bad(image, block, NULL, "the BAT cannot be read", runs);
		return 0;
	}
	entry = get_be32(page->data + (entry_host - page->host));
	absent = absent_entries(vhd, page, entry_host,
				(virt % vhd->block_bytes + want - 1) / vhd->block_bytes + 1);
	vd_cache_put(image->cache, page);
	if (absent > 0) {
		struct vd_run run = {
			.start = block * vhd->block_bytes,
			.length = absent * vhd->block_bytes,
			.kind = vhd->absent,
		};

		vd_runs_add(runs, &run);
		return 0;
	}
	fault = block_fault(image, block, (uint64_t)entry * VD_SECTOR);
	r = fault ? 0 : block_map(image, virt, (uint64_t)entry * VD_SECTOR, runs);
	fault = r < 0 && r != -ENOMEM ? "its sector bitmap cannot be read" : fault;
	if (fault)
		block_is_bad(image, block, &entry, fault, runs);
	return r == -ENOMEM ? r : 0;
}

static enum vd_host_hole vhd_host_hole(const struct vd_image *image)
{
	const struct vhd *vhd = image->state;

	return vhd->type == TYPE_FIXED ? VD_HOLE_IS_ZERO_DATA : VD_HOLE_IS_DATA;
}

static void vhd_close(struct vd_image *image)
{
	struct vhd *vhd = image->state;

	if (vhd)
		free(vhd->overlaps);
	free(vhd);
}

const struct vd_format vd_format_vhd = {
	.name = "vhd",
	.probe = vhd_footer_probe,
	.open = vhd_open,
	.parent = vhd_parent,
	.map = vhd_map,
	.host_hole = vhd_host_hole,
	.close = vhd_close,
};
