/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing small images: see images.h. Offsets are those of the specifications. */
#include "config.h"

#include <libdeflate.h>
#include <string.h>
#include <zstd.h>

#include "images.h"

enum {
	CLUSTER = 512,
	L1_HOST = 1 * CLUSTER,
	L2_HOST = 2 * CLUSTER, /* two tables */
	SNAPSHOTS_HOST = 4 * CLUSTER,
	DATA_HOST = 6 * CLUSTER,
};

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

static void image_begin(struct image *image, size_t count)
{
	memset(image, 0, sizeof(*image));
	image->count = count;
}

/* Make room for so many bytes at the end, at a multiple of `align`. */
static size_t image_grow(struct image *image, size_t bytes, size_t align)
{
	size_t at = (image->count + align - 1) / align * align;

	assert_true(at + bytes <= IMAGE_BYTES_MAX);
	image->count = at + bytes;
	return at;
}

void image_write(const struct image *image, const char *path)
{
	file_write(path, image->bytes, image->count);
}

/* Header extensions, then the name of the backing file. */
static void put_extension(struct image *image, size_t *at, uint32_t type, const char *text)
{
	size_t length = strlen(text);

	put_be32(image->bytes + *at, type);
	put_be32(image->bytes + *at + 4, (uint32_t)length);
	memcpy(image->bytes + *at + 8, text, length);
	*at += 8 + (length + 7) / 8 * 8;
}

static void qcow2_header(struct image *image, const struct qcow2_facts *facts)
{
	uint8_t *header = image->bytes;
	size_t at = 112;

	memcpy(header, "QFI\xfb", 4);
	put_be32(header + 4, 3);
	put_be32(header + 20, 9); /* cluster_bits */
	put_be64(header + 24, QCOW2_SIZE);
	put_be32(header + 36, 3); /* l1_size */
	put_be64(header + 40, L1_HOST);
	if (facts->snapshot) {
		put_be32(header + 60, 1);
		put_be64(header + 64, SNAPSHOTS_HOST);
	}
	put_be64(header + 72, (facts->data_file ? 4 : 0) | (facts->zstd ? 8 : 0));
	put_be32(header + 96, 4); /* refcount_order */
	put_be32(header + 100, 112);
	header[104] = facts->zstd;
	if (facts->backing_format)
		put_extension(image, &at, 0xe2792aca, facts->backing_format);
	if (facts->data_file)
		put_extension(image, &at, 0x44415441, facts->data_file);
	put_extension(image, &at, 0, "");
	if (facts->backing) {
		put_be64(header + 8, at);
		put_be32(header + 16, (uint32_t)strlen(facts->backing));
		memcpy(header + at, facts->backing, strlen(facts->backing));
	}
}

static void qcow2_snapshot(struct image *image, const struct qcow2_facts *facts)
{
	uint8_t *entry = image->bytes + SNAPSHOTS_HOST;

	put_be64(entry, L1_HOST);
	put_be32(entry + 8, 3);
	put_be16(entry + 12, 1);
	put_be16(entry + 14, (uint16_t)strlen(facts->snapshot));
	put_be32(entry + 36, 16); /* extra data */
	put_be64(entry + 48, QCOW2_SIZE);
	entry[56] = '1';
	memcpy(entry + 57, facts->snapshot, strlen(facts->snapshot));
}

/* A compressed cluster; gives its L2 entry. */
static uint64_t qcow2_compressed(struct image *image, bool zstd)
{
	uint8_t cluster[CLUSTER], packed[CLUSTER];
	size_t bytes, at;

	for (size_t i = 0; i < CLUSTER; i++)
		cluster[i] = (uint8_t)(i / 7);
	if (zstd) {
		bytes = ZSTD_compress(packed, sizeof(packed), cluster, CLUSTER, 1);
		assert_false(ZSTD_isError(bytes));
	} else {
		struct libdeflate_compressor *deflate = libdeflate_alloc_compressor(6);

		assert_non_null(deflate);
		bytes = libdeflate_deflate_compress(deflate, cluster, CLUSTER, packed,
						    sizeof(packed));
		libdeflate_free_compressor(deflate);
		assert_true(bytes > 0);
	}
	at = image_grow(image, CLUSTER, CLUSTER);
	memcpy(image->bytes + at + 3, packed, bytes); /* it need not be aligned */
	return COMPRESSED | (at + 3); /* one sector: the number of more is 0 */
}

/* A plain cluster at that place of the disk; gives its L2 entry. */
static uint64_t qcow2_plain(struct image *image, const struct qcow2_facts *facts, uint64_t virt)
{
	size_t at;

	if (facts->data_file)
		return COPIED | virt;
	at = image_grow(image, CLUSTER, CLUSTER);
	memset(image->bytes + at, (uint8_t)(virt / CLUSTER + 1), CLUSTER);
	return COPIED | at;
}

void qcow2_make(struct image *image, const struct qcow2_facts *facts)
{
	uint8_t *l1 = image->bytes + L1_HOST, *l2 = image->bytes + L2_HOST;

	image_begin(image, DATA_HOST);
	qcow2_header(image, facts);
	if (facts->snapshot)
		qcow2_snapshot(image, facts);
	put_be64(l1, COPIED | L2_HOST);
	if (facts->alias)
		put_be64(l1 + 8, COPIED | L2_HOST);
	put_be64(l1 + 16, COPIED | (L2_HOST + CLUSTER));
	put_be64(l2, qcow2_plain(image, facts, 0));
	if (!facts->data_file)
		put_be64(l2 + 8, qcow2_compressed(image, facts->zstd));
	put_be64(l2 + 16, 1); /* zero; the next is unallocated */
	put_be64(l2 + 32, qcow2_plain(image, facts, 4 * CLUSTER));
	put_be64(l2 + CLUSTER + 8, qcow2_plain(image, facts, 2 * 32768 + CLUSTER));
}

/* What footer and header have: the sum of all bytes, inverted. */
static void vhd_sum(uint8_t *bytes, size_t count, size_t field)
{
	uint32_t sum = 0;

	put_be32(bytes + field, 0);
	for (size_t i = 0; i < count; i++)
		sum += bytes[i];
	put_be32(bytes + field, ~sum);
}

static void vhd_footer(uint8_t *footer, const struct vhd_facts *facts)
{
	memset(footer, 0, 512);
	memcpy(footer, "conectix", 8);
	put_be32(footer + 8, 2);
	put_be32(footer + 12, 0x00010000);
	put_be64(footer + 16, 512); /* data_offset */
	memcpy(footer + 28, facts->creator ? facts->creator : "test", 4);
	put_be32(footer + 32, 0x00010003);
	put_be64(footer + 40, VHD_SIZE);
	put_be64(footer + 48, VHD_SIZE);
	put_be32(footer + 60, facts->parent ? 4 : 3);
	footer[68] = facts->uuid;
	vhd_sum(footer, 512, 64);
}

enum { BAT_HOST = 1536, LOCATOR_HOST = 2048, BLOCKS_HOST = 4096, BLOCK = 4096, BITMAP = 512 };

/* The path as a W2ku locator, and its last part as the name in the header. */
static void vhd_parent(struct image *image, const struct vhd_facts *facts)
{
	uint8_t *header = image->bytes + 512, *locator = header + 576;
	const char *name = strrchr(facts->parent, '/');
	size_t length = strlen(facts->parent);

	name = name ? name + 1 : facts->parent;
	for (size_t i = 0; name[i]; i++)
		put_be16(header + 64 + 2 * i, (uint8_t)name[i]);
	for (size_t i = 0; i < length; i++)
		image->bytes[LOCATOR_HOST + 2 * i] = (uint8_t)facts->parent[i];
	header[40] = facts->parent_uuid;
	memcpy(locator, "W2ku", 4);
	put_be32(locator + 4, 2048);
	put_be32(locator + 8, (uint32_t)(2 * length));
	put_be64(locator + 16, LOCATOR_HOST);
}

/* A block with that byte in each byte of its bitmap. */
static void vhd_block(struct image *image, size_t number, uint8_t bitmap)
{
	size_t at = image_grow(image, BITMAP + BLOCK, 512);

	put_be32(image->bytes + BAT_HOST + 4 * number, (uint32_t)(at / 512));
	memset(image->bytes + at, bitmap, 1); /* eight sectors */
	memset(image->bytes + at + BITMAP, (uint8_t)(number + 1), BLOCK);
}

void vhd_make(struct image *image, const struct vhd_facts *facts)
{
	uint8_t *header = image->bytes + 512, *bat = image->bytes + BAT_HOST;

	image_begin(image, BLOCKS_HOST);
	vhd_footer(image->bytes, facts);
	memcpy(header, "cxsparse", 8);
	put_be64(header + 8, UINT64_MAX);
	put_be64(header + 16, BAT_HOST);
	put_be32(header + 24, 0x00010000);
	put_be32(header + 28, VHD_SIZE / BLOCK);
	put_be32(header + 32, BLOCK);
	if (facts->parent)
		vhd_parent(image, facts);
	vhd_sum(header, 1024, 36);
	memset(bat, 0xff, 4 * VHD_SIZE / BLOCK);
	vhd_block(image, 0, 0xa5);
	vhd_block(image, 2, 0xff);
	vhd_block(image, 4, 0x0f);
	if (facts->overlap) /* on block 4, a sector later */
		put_be32(bat + 4 * 3, (uint32_t)(image->count / 512 - 8));
	vhd_footer(image->bytes + image_grow(image, 512, 512), facts);
}
