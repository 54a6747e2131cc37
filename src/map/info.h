/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is known of an image and its disk, as one JSON object: `vdimap --info --json` prints it, and
 * user.vdifs.info holds it. doc/info.schema.json describes it. The names and the nesting are those
 * of qemu-img info --output=json; what QEMU does not know is in the member "vdifs".
 */
#ifndef VD_MAP_INFO_H
#define VD_MAP_INFO_H

#include "disk/disk.h"
#include "map/index.h"

#define VD_INFO_SCHEMA 1

/* Set what is known and leave the rest zero. */
struct vd_info {
	const struct vd_disk *disk;
	const char *filename; /* as it was given; NULL: the name of the file that was opened */
	const char *fault; /* why the parents could not be opened: of the disk nothing is known */
	struct vd_parent parent; /* as the image names it; vd_info_clear() frees it */
	bool is_dirty;
	bool is_walked; /* compressed-bytes and the data of each layer are known */
	struct vd_index_totals totals;
	const struct vd_joined *unreadable; /* clusters of the disk; NULL: not named */
	uint64_t coded_bytes;
	uint64_t layer_bytes[VD_LAYERS_MAX]; /* of data that each layer gives */
	/* Of a mount: */
	bool is_mount; /* snapshots and bitmaps are left out: the image is not read for the object */
	bool has_no_paths; /* no names of files, and no messages, which have such names */
	const char *sandbox; /* the layers that hold */
};

void vd_info_clear(struct vd_info *info);

/* QEMU's name of a format: "vpc" for a VHD. */
const char *vd_info_format(const char *format);

/* Takes a part of the text. 0; anything else ends the writing. */
typedef int vd_info_write_fn(const char *text, size_t bytes, void *data);

/*
 * Write the object, indented, in ASCII. A table of snapshots or bitmaps that is damaged is logged and
 * left out. 0, or -ENOMEM, also if `write` ended it.
 */
int vd_info_write(const struct vd_info *info, vd_info_write_fn *write, void *data);

/*
 * The object in one line, padded with blanks: its length stays the same while the index grows,
 * messages come and unreadable places are found. At most VD_ATTRIBUTE_MAX characters. *text is the
 * caller's. 0 or -ENOMEM.
 */
int vd_info_attribute(const struct vd_info *info, char **text, size_t *length);

/* Have jansson find its random seed now; later no file may be opened. */
void vd_info_warm_up(void);

#endif
