/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names under which a differencing VHD looks for its parent. Pure but for reading the source.
 */
#ifndef VD_FORMAT_VHD_NAMES_H
#define VD_FORMAT_VHD_NAMES_H

#include "format/format.h"

/*
 * Add to `parent` every name that the dynamic header (1024 bytes) and its parent locators give,
 * in the order in which they are to be tried: locators W2ru, W2ku, MacX, Wi2r, Wi2k, then the parent
 * unicode name; of each the path relative to the child's directory, the absolute path, and the file
 * name in the child's directory. '\' is '/', a drive letter is dropped. A locator that does not lie
 * before data_end or is of an unknown kind is skipped. 0, -ENOMEM, or the -errno of a read.
 */
int vhd_names_collect(const struct vd_source *source, const uint8_t *header, uint64_t data_end,
		      struct vd_parent *parent);

#endif
