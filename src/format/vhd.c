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
 * Threads: everything is set in open() and only read afterwards.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/vhd_batmap.h"
#include "format/vhd_footer.h"
#include "format/vhd_names.h"
#include "support/collisions.h"

/* Offsets in the dynamic disk header ("Dynamic Disk Header Format"). */
enum {
	HEADER_TABLE_OFFSET = 16,
	HEADER_VERSION = 24,
	HEADER_ENTRIES = 28,
	HEADER_BLOCK_SIZE = 32,
	HEADER_CHECKSUM = 36,
	HEADER_PARENT_UUID = 40,
	HEADER_PARENT_TIME = 56,
	HEADER_BYTES = 1024,
};

/* Seconds from 1970 to 2000, where VHD begins to count. */
#define VHD_EPOCH ((time_t)946684800)

#define BAT_ABSENT UINT32_MAX
enum { BAT_PAGE_BITS = 16, BITMAP_PAGE_BITS_MAX = 12, FIXED_CLUSTER_BITS = 16 };
/*
 * 2 TiB in blocks of 512 KiB, or 8 TiB in the usual ones of 2 MiB. It bounds the memory of the search
 * for overlaps. The format's own limit of 2040 GiB is none: VirtualBox and blktap write larger ones.
 */
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
	uint8_t *overlaps; /* a bit per block: it shares bytes with another one; or NULL */
	bool header_is_suspect; /* its checksum is wrong, and the user insists */
	uint8_t *full; /* the batmap: a bit per block, the most significant first; or NULL */
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
	if (vhd->type != TYPE_FIXED && memcmp(footer + FOOTER_CREATOR, "tap", 4) == 0 &&
	    get_be32(footer + FOOTER_CREATOR_VERSION) == TAP_VERSION(0, 1))
		return vd_fail(err, ENOTSUP,
			       "%s: this VHD was written by XenServer \"tap\" 0.1, whose sector "
			       "bitmaps have another order of bits; vdifs does not read it",
			       name);
	if (get_be32(footer + FOOTER_TIMESTAMP) != 0)
		image->made = VHD_EPOCH + (time_t)get_be32(footer + FOOTER_TIMESTAMP);
	return 0;
}

/* Read the dynamic header and check what it holds by itself. */
static int header_read(struct vd_image *image, uint64_t host, bool ignore_sum, struct vd_error *err)
{
	const char *name = image->source->name;
	struct vhd *vhd = image->state;
	uint8_t *header = vhd->header;
	uint32_t stored, computed, block;
	int r;

	if (!vd_inside(host, HEADER_BYTES, vhd->data_end))
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
	if (stored != computed && !ignore_sum)
		return vd_fail(err, EINVAL,
			       "%s: VHD dynamic header has a wrong checksum (0x%08" PRIx32
			       ", the bytes give 0x%08" PRIx32
			       "); the image is damaged; --ignore-checksums reads it anyway",
			       name, stored, computed);
	vhd->header_is_suspect = stored != computed;
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
	if (!vd_inside(vhd->table_host, vhd->table_bytes, vhd->data_end))
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

static int batmap_read(struct vd_image *image, const uint8_t *footer, struct vd_error *err)
{
	struct vhd *vhd = image->state;
	struct vhd_batmap_place place = {
		.footer = footer,
		.host = vhd->table_host + vd_div_up(vhd->table_bytes, VD_SECTOR) * VD_SECTOR,
		.data_end = vhd->data_end,
		.blocks = vd_div_up(image->size, vhd->block_bytes),
	};

	return vhd_batmap_read(image->source, &place, &vhd->full, err);
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

/* Looking for blocks that share bytes. */
struct bat_search {
	struct vd_image *image;
	uint64_t blocks;
	uint64_t end; /* of the last block so far */
	uint64_t present; /* blocks */
	bool disordered;
	struct vd_collisions set; /* without room for blocks: they are counted */
};

/* Look at `count` entries from number `first` on. 0; 1: there are more than were counted. */
static int bat_search_page(struct bat_search *search, const uint8_t *entries, uint64_t first,
			   uint64_t count)
{
	const struct vhd *vhd = search->image->state;

	for (uint64_t i = 0; i < count; i++) {
		uint32_t entry = get_be32(entries + i * 4);
		uint64_t host = (uint64_t)entry * VD_SECTOR;

		/* An entry that is wrong by itself takes no place from others. */
		if (entry == BAT_ABSENT || place_fault(search->image, host))
			continue;
		if (search->set.pieces &&
		    !vd_collisions_add(&search->set, entry, (uint32_t)(first + i)))
			return 1;
		search->present++;
		search->disordered = search->disordered || host < search->end;
		search->end = host + vhd->bitmap_bytes + vhd->block_bytes;
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
		const uint8_t *entries;

		r = vd_cache_get(image->cache, image->source, BAT_PAGE_BITS, host, &page);
		if (r < 0)
			break;
		count = vd_min((vd_page_end(page) - host) / 4, search->blocks - done);
		entries = vd_page_at(page, host, count * 4);
		r = entries && count > 0 ? bat_search_page(search, entries, done, count) : -EIO;
		vd_cache_put(image->cache, page);
		done += count;
	}
	return r;
}

static int bat_spend(const struct bat_search *search, uint64_t work, struct vd_error *err)
{
	const struct vd_image *image = search->image;
	const struct vhd *vhd = image->state;

	return vd_budget_spend(image->budget, work, image->source->name, "VHD max_table_entries",
			       vhd->entries, err);
}

/* Collect all blocks, which were counted, and mark those that share bytes with another one. */
static int bat_search_overlaps(struct bat_search *search, struct vd_error *err)
{
	struct vhd *vhd = search->image->state;
	uint64_t sectors = (vhd->bitmap_bytes + vhd->block_bytes) / VD_SECTOR;
	int r = bat_spend(search, search->present * VD_COST_SORTED, err);

	if (r == 0)
		r = vd_collisions_init(&search->set, (size_t)search->present);
	if (r == 0)
		r = bat_search(search);
	if (r == 0)
		r = vd_collisions_find(&search->set, sectors, (size_t)search->blocks,
				       &vhd->overlaps);
	vd_collisions_free(&search->set);
	return r;
}

/*
 * Find blocks that lie on other blocks. None of them is believed: the data of one may be the sector
 * bitmap of the other. Done here, so that the answer does not depend on what was read before.
 * Mostly the blocks are in order, which is seen at a third of the cost.
 */
static int bat_scan(struct vd_image *image, struct vd_error *err)
{
	const struct vhd *vhd = image->state;
	struct bat_search search = {
		.image = image,
		.blocks = vd_div_up(image->size, vhd->block_bytes),
	};
	uint64_t kept = search.blocks / 8 * VD_COST_KEPT;
	int r = bat_spend(&search, search.blocks * 4, err);

	if (r == 0)
		r = bat_search(&search);
	if (r == 0 && search.disordered)
		r = bat_search_overlaps(&search, err);
	if (r == -E2BIG)
		return r;
	if (r == -ENOMEM)
		return vd_fail(err, ENOMEM, "out of memory");
	if (r > 0)
		return vd_fail(err, EIO, "%s: the VHD BAT was written to while it was read; try again",
			       image->source->name);
	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read the VHD BAT: %s", image->source->name,
			       strerror(-r));
	return bat_spend(&search, (vhd->overlaps ? kept : 0) + (vhd->full ? kept : 0), err);
}

/* What the user should know of the headers, now that the image is the one that is wanted. */
static void headers_log(const struct vd_image *image, const struct vhd_footer *footer)
{
	const struct vhd *vhd = image->state;

	if (footer->end_is_lost)
		vd_log(LOG_WARNING,
		       "%s: no valid VHD footer at the end of the file, which is missing or damaged; "
		       "the copy at byte 0 is used",
		       image->source->name);
	if (footer->sum_is_wrong || vhd->header_is_suspect)
		vd_log(LOG_WARNING,
		       "%s: the VHD %s a wrong checksum, which is ignored; the disk may be wrong",
		       image->source->name,
		       !footer->sum_is_wrong	? "dynamic header has" :
		       vhd->header_is_suspect ? "footer and dynamic header have" :
						"footer has");
}

/* The header, the tables and the blocks of an image that is not fixed. */
static int dynamic_open(struct vd_image *image, const struct vhd_footer *footer,
			const struct vd_image_options *options, struct vd_error *err)
{
	int r = header_read(image, get_be64(footer->bytes + FOOTER_DATA_OFFSET),
			    options->ignore_checksums, err);

	if (r == 0)
		r = table_check(image, err);
	if (r == 0)
		r = batmap_read(image, footer->bytes, err);
	return r < 0 ? r : bat_scan(image, err);
}

static int vhd_open(struct vd_image *image, const struct vd_image_options *options,
		    struct vd_error *err)
{
	struct vhd *vhd = calloc(1, sizeof(*vhd));
	struct vhd_footer footer;
	int r;

	image->state = vhd;
	if (!vhd)
		return vd_fail(err, ENOMEM, "out of memory");
	if (options->snapshot)
		return vd_fail(err, EINVAL,
			       "%s: a VHD image has no internal snapshots; leave --snapshot out",
			       image->source->name);
	r = vhd_footer_find(image->source, options, &footer, err);
	if (r < 0)
		return r;
	vhd->data_end = footer.data_end;
	r = footer_check(image, footer.bytes, err);
	if (r == 0)
		r = vd_image_check_uuid(image, options, err);
	if (r < 0)
		return r;
	if (vhd->type == TYPE_FIXED) {
		image->cluster_bits = FIXED_CLUSTER_BITS;
		image->has_no_clusters = true;
	} else {
		r = dynamic_open(image, &footer, options, err);
	}
	if (r == 0)
		headers_log(image, &footer);
	return r;
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
	/* No UUID means a raw disk to XenServer, but QEMU once made VHDs without a UUID. */
	parent->format = parent->check_uuid ? "vhd" : "raw";
	parent->unless = parent->check_uuid ? NULL : &vd_format_vhd;
	if (get_be32(vhd->header + HEADER_PARENT_TIME) != 0)
		parent->recorded = VHD_EPOCH + (time_t)get_be32(vhd->header + HEADER_PARENT_TIME);
	r = vhd_names_collect(image->source, vhd->header, vhd->data_end, parent);
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
		return "the block lies on another one";
	return fault;
}

/* Log that the end of the file cuts the block whose data begins at data_host. */
static void log_cut(const struct vd_image *image, uint64_t block, uint64_t data_host)
{
	const struct vhd *vhd = image->state;
	uint64_t start = block * vhd->block_bytes;
	uint64_t end = vd_min(start + vhd->block_bytes, image->size);

	vd_log_once(vd_image_log(image), block,
		    "%s: the file ends inside VHD block %" PRIu64
		    ": what is missing between byte %" PRIu64 " and byte %" PRIu64
		    " of the disk reads as an error",
		    image->source->name, block, start + (vhd->data_end - data_host), end);
}

/*
 * Sectors that are here: raw. What the end of the file cuts off cannot be read: a VHD ends with its
 * footer, so that a block without its end is a damaged one.
 */
static bool sectors_add(const struct vd_image *image, uint64_t virt, uint64_t length,
			uint64_t data_host, struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t block = virt / vhd->block_bytes, host = data_host + virt % vhd->block_bytes;
	uint64_t here = host < vhd->data_end ? vd_min(length, vhd->data_end - host) : 0;
	struct vd_run raw = {
		.start = virt,
		.length = here,
		.kind = VD_RAW,
		.from = image->source,
		.where = host,
	};
	struct vd_run cut = { .start = virt + here, .length = length - here, .kind = VD_BAD };

	if (here > 0 && !vd_runs_add(runs, &raw))
		return false;
	if (here == length)
		return true;
	if (virt + here < image->size)
		log_cut(image, block, data_host);
	return vd_runs_add(runs, &cut);
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

/* Does the batmap say that all of the block is here, whatever its sector bitmap says? */
static bool block_is_full(const struct vhd *vhd, uint64_t block)
{
	return vhd->full && bit_is_set(vhd->full, block);
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
	const uint8_t *bitmap;
	uint64_t first, end; /* sectors of the block that the page covers: [first, end) */
	int r;

	if (block_is_full(vhd, virt / vhd->block_bytes)) {
		sectors_add(image, block_virt + sector * VD_SECTOR,
			    vhd->block_bytes - sector * VD_SECTOR, data_host, runs);
		return 0;
	}
	r = vd_cache_get(image->cache, image->source, vhd->bitmap_page_bits, byte, &page);
	if (r < 0)
		return r;
	first = page->host > block_host ? (page->host - block_host) * 8 : 0;
	end = vd_min((vd_page_end(page) - block_host) * 8, vhd->block_bytes / VD_SECTOR);
	bitmap = vd_page_at(page, block_host + first / 8, vd_div_up(end - first, 8));
	while (bitmap && sector < end) {
		uint64_t count = bits_alike(bitmap, sector - first, end - first);
		struct vd_run absent = {
			.start = block_virt + sector * VD_SECTOR,
			.length = count * VD_SECTOR,
			.kind = vhd->absent,
		};
		bool set = bit_is_set(bitmap, sector - first);

		if (!(set ? sectors_add(image, absent.start, absent.length, data_host, runs)
			  : vd_runs_add(runs, &absent)))
			break;
		sector += count;
	}
	vd_cache_put(image->cache, page);
	return bitmap ? 0 : -EIO;
}

/*
 * Read the BAT entry of the block; *absent: how many entries from it on, in its page, are absent. At
 * most as many are looked at.
 */
static int bat_read(const struct vd_image *image, uint64_t block, uint64_t most, uint32_t *entry,
		    uint64_t *absent)
{
	const struct vhd *vhd = image->state;
	uint64_t host = vhd->table_host + block * 4;
	uint64_t end = vd_min(vhd->table_host + vhd->table_bytes, host + most * 4);
	const struct vd_page *page;
	const uint8_t *entries;
	uint64_t count;
	int r = vd_cache_get(image->cache, image->source, BAT_PAGE_BITS, host, &page);

	*absent = 0;
	if (r < 0)
		return r;
	count = (vd_min(end, vd_page_end(page)) - host) / 4;
	entries = vd_page_at(page, host, count * 4);
	if (entries && count > 0) {
		*entry = get_be32(entries);
		while (*absent < count && get_be32(entries + *absent * 4) == BAT_ABSENT)
			++*absent;
	} else {
		r = -EIO;
	}
	vd_cache_put(image->cache, page);
	return r;
}

static int vhd_map(const struct vd_image *image, uint64_t virt, uint64_t want, struct vd_runs *runs)
{
	const struct vhd *vhd = image->state;
	uint64_t block, absent;
	const char *fault;
	uint32_t entry;
	int r;

	if (vhd->type == TYPE_FIXED)
		return fixed_map(image, runs);
	block = virt / vhd->block_bytes;
	r = bat_read(image, block, (virt % vhd->block_bytes + want - 1) / vhd->block_bytes + 1,
		     &entry, &absent);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		block_is_bad(image, block, NULL, "the BAT cannot be read", runs);
		return 0;
	}
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

	if (vhd) {
		free(vhd->overlaps);
		free(vhd->full);
	}
	free(vhd);
}

const struct vd_format vd_format_vhd = {
	.name = "vhd",
	.probe = vhd_footer_probe,
	.identify = vhd_footer_identify,
	.open = vhd_open,
	.parent = vhd_parent,
	.map = vhd_map,
	.host_hole = vhd_host_hole,
	.close = vhd_close,
};
