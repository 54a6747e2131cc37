/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The footer of a VHD: what is in it, and which one to believe. */
#ifndef VD_FORMAT_VHD_FOOTER_H
#define VD_FORMAT_VHD_FOOTER_H

#include <stdbool.h>

#include "format/format.h"

/* Offsets in the footer (specification, "Hard Disk Footer Format"). */
enum {
	FOOTER_VERSION = 12,
	FOOTER_DATA_OFFSET = 16,
	FOOTER_TIMESTAMP = 24,
	FOOTER_CREATOR = 28,
	FOOTER_CREATOR_VERSION = 32,
	FOOTER_CURRENT_SIZE = 48,
	FOOTER_TYPE = 60,
	FOOTER_CHECKSUM = 64,
	FOOTER_UUID = 68,
	FOOTER_UUID_BYTES = 16,
	FOOTER_HIDDEN = 85, /* blktap's */
	FOOTER_BYTES = 512,
	FOOTER_BYTES_OLD = 511,
};

enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4 };

/* FOOTER_CREATOR_VERSION of a footer whose creator is "tap". */
#define TAP_VERSION(major, minor) ((uint32_t)(major) << 16 | (minor))

/* The sum that both footer and header carry, taken with the four bytes at `field` as zero. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t count, size_t field);

/* Is there a footer, good or not? 1, 0, or -errno: a place where it may be cannot be read. */
int vhd_footer_probe(const struct vd_source *source);

struct vhd_footer {
	uint8_t bytes[FOOTER_BYTES];
	uint64_t data_end; /* the host byte before which all headers, tables and data lie */
	bool end_is_lost; /* the copy at 0 is used: the end of the file is missing or damaged */
	bool sum_is_wrong; /* the user insists on a footer with a wrong checksum */
};
/* The UUID in the footer that is believed: as vd_format's function. */
int vhd_footer_identify(const struct vd_source *source, uint8_t *uuid);

/*
 * Find the footer to believe. The copy at 0 counts only for the types that have one: on a fixed
 * disk these bytes are the guest's. Logs nothing, because the file may be one of several in which a
 * parent is searched for.
 */
int vhd_footer_find(const struct vd_source *source, const struct vd_image_options *options,
		    struct vhd_footer *footer, struct vd_error *err);

#endif
