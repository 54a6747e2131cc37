/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The batmap follows the BAT in images of XenServer (blktap's include/libvhd.h). A set bit says that
 * all of a block is in this file. XenServer does not read the sector bitmap of such a block, and
 * does not always write it. So the bitmap cannot be believed where a valid batmap says "full".
 *
 * Its checksum covers the bits that the batmap has room for in older versions, and those for the
 * size of the disk in newer ones. Version 1.1 adds them as signed bytes. A batmap whose checksum is
 * wrong or does not cover all blocks is ignored, as XenServer does. Start-up only, one thread.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "format/vhd_batmap.h"
#include "format/vhd_footer.h"

enum {
	BATMAP_OFFSET = 8,
	BATMAP_SECTORS = 16,
	BATMAP_VERSION = 20,
	BATMAP_CHECKSUM = 24,
	BATMAP_KEYHASH = 29,
	BATMAP_BYTES = 30,
};

/* The bits of eight million blocks. XenServer's largest disk has a million. */
#define BITS_BYTES_MAX ((uint64_t)1 << 20)
/* XenServer knows blocks of 2 MiB only: so many bytes of the disk are one byte of the batmap. */
#define DISK_BYTES_PER_BYTE ((uint64_t)16 << 20)

static uint32_t bits_sum(const uint8_t *bits, uint64_t bytes, bool is_signed)
{
	uint32_t sum = 0;

	for (uint64_t i = 0; i < bytes; i++)
		sum += is_signed && bits[i] > 127 ? bits[i] - UINT32_C(256) : bits[i];
	return ~sum;
}

/* Is one of the two sums right, and does it cover all blocks? */
static bool bits_are_valid(const uint8_t *header, const struct vhd_batmap_place *place,
			   const uint8_t *bits, uint64_t bytes)
{
	uint64_t disk_bytes = get_be64(place->footer + FOOTER_CURRENT_SIZE);
	uint64_t sectors = vd_div_up(disk_bytes / DISK_BYTES_PER_BYTE, VD_SECTOR);
	uint64_t for_disk = vd_min(sectors, BITS_BYTES_MAX) * VD_SECTOR;
	bool is_signed = get_be32(header + BATMAP_VERSION) == TAP_VERSION(1, 1);
	uint32_t stored = get_be32(header + BATMAP_CHECKSUM);
	uint64_t need = vd_div_up(place->blocks, 8);

	for_disk = for_disk ? for_disk : VD_SECTOR;
	if (bytes >= need && bits_sum(bits, bytes, is_signed) == stored)
		return true;
	return for_disk <= bytes && for_disk >= need &&
	       bits_sum(bits, for_disk, is_signed) == stored;
}

/* Read the bits that the header tells of. 0; 1: they are not valid; -errno. */
static int bits_read(const struct vd_source *source, const struct vhd_batmap_place *place,
		     const uint8_t *header, uint8_t **full)
{
	uint64_t host = get_be64(header + BATMAP_OFFSET);
	uint64_t bytes = (uint64_t)get_be32(header + BATMAP_SECTORS) * VD_SECTOR;
	int r;

	if (get_be32(header + BATMAP_VERSION) > TAP_VERSION(1, 2) || host == 0 ||
	    host % VD_SECTOR != 0 || bytes == 0 || bytes > BITS_BYTES_MAX ||
	    !vd_inside(host, bytes, place->data_end))
		return 1;
	*full = malloc((size_t)bytes);
	if (!*full)
		return -ENOMEM;
	r = vd_source_read(source, *full, (size_t)bytes, host);
	return r < 0 ? r : !bits_are_valid(header, place, *full, bytes);
}

int vhd_batmap_read(const struct vd_source *source, const struct vhd_batmap_place *place,
		    uint8_t **full, struct vd_error *err)
{
	uint8_t header[BATMAP_BYTES];
	int r;

	*full = NULL;
	if (memcmp(place->footer + FOOTER_CREATOR, "tap", 4) != 0 ||
	    get_be32(place->footer + FOOTER_CREATOR_VERSION) < TAP_VERSION(1, 1) ||
	    !vd_inside(place->host, BATMAP_BYTES, place->data_end))
		return 0;
	r = vd_source_read(source, header, BATMAP_BYTES, place->host);
	if (r < 0)
		return vd_fail(err, -r,
			       "%s: cannot read the VHD batmap, which says whether the disk is "
			       "encrypted: %s",
			       source->name, strerror(-r));
	if (memcmp(header, "tdbatmap", 8) != 0)
		return 0;
	if (header[BATMAP_KEYHASH] == 1)
		return vd_fail(err, ENOTSUP,
			       "%s: this VHD is encrypted (tdbatmap key hash is set); vdifs has no "
			       "key",
			       source->name);
	r = bits_read(source, place, header, full);
	if (r == 0)
		return 0;
	free(*full);
	*full = NULL;
	if (r > 0)
		return 0;
	return r == -ENOMEM ? vd_fail(err, ENOMEM, "out of memory") :
			      vd_fail(err, -r, "%s: cannot read the bits of the VHD batmap: %s",
				      source->name, strerror(-r));
}
