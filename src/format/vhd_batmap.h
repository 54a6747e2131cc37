/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* XenServer's batmap: which blocks of a VHD are complete, and whether they are encrypted. */
#ifndef VD_FORMAT_VHD_BATMAP_H
#define VD_FORMAT_VHD_BATMAP_H

#include "base/error.h"
#include "source/source.h"

/* Where to look, from the footer and the dynamic header. */
struct vhd_batmap_place {
	const uint8_t *footer;
	uint64_t host; /* of the batmap's header: behind the BAT */
	uint64_t data_end;
	uint64_t blocks; /* of the disk */
};

/*
 * Read the batmap. *full: a bit a block, the most significant one first, which the caller frees; NULL
 * if there is none or if it is not valid. 0; -ENOTSUP: the blocks are encrypted; -errno: the header
 * cannot be read, so that it is unknown whether they are.
 */
int vhd_batmap_read(const struct vd_source *source, const struct vhd_batmap_place *place,
		    uint8_t **full, struct vd_error *err);

#endif
