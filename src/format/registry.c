/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of formats, finding the right one by its magic, and what all drivers share.
 * A new format is a row in `formats`. Formats that vdifs knows but does not read are named, so that
 * the user learns more than "not a disk image".
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"

static const struct vd_format *const formats[] = {
	&vd_format_qcow2,
	&vd_format_vhd,
	&vd_format_raw,
};

#define FORMATS (sizeof(formats) / sizeof(formats[0]))

/* What vdifs does not read: disk images, and files that have an image inside. */
static const struct {
	uint64_t host;
	const char *magic;
	uint8_t bytes;
	const char *name;
	const char *advice; /* only what is right for every such file; NULL: none is */
} foreign[] = {
	{ 0, "QFI\xfb\0\0\0\1", 8, "QCOW version 1 image", NULL },
	{ 0, "vhdxfile", 8, "VHDX image", NULL },
	{ 0, "KDMV", 4, "VMDK image", NULL },
	{ 0, "COWD", 4, "VMDK image", NULL },
	{ 0, "# Disk Descriptor", 17, "VMDK descriptor", NULL },
	{ 0x40, "\x7f\x10\xda\xbe", 4, "VDI image", NULL },
	{ 0, "QED\0", 4, "QED image", NULL },
	{ 0, "LUKS\xba\xbe", 6, "LUKS volume", "--format=raw shows it as it is, still encrypted" },
	{ 0, "WithoutFreeSpace", 16, "Parallels image", NULL },
	{ 0, "WithouFreSpacExt", 16, "Parallels image", NULL },
	{ 0, "\x1f\x8b\x08", 3, "file compressed with gzip",
	  "unpack it, or serve it with nbdkit --filter=gzip" },
	{ 0, "\xfd" "7zXZ\0", 6, "file compressed with xz",
	  "unpack it, or serve it with nbdkit --filter=xz" },
	{ 0, "LZIP", 4, "file compressed with lzip",
	  "unpack it, or serve it with --filter=lzip of a recent nbdkit" },
	{ 0, "BZh", 3, "file compressed with bzip2",
	  "unpack it, or serve it with --filter=bzip2 of a recent nbdkit" },
	{ 0, "\x28\xb5\x2f\xfd", 4, "file compressed with zstd", "unpack it" },
	{ 0, "\x04\x22\x4d\x18", 4, "file compressed with lz4", "unpack it" },
	{ 0, "\x02\x21\x4c\x18", 4, "file compressed with lz4", "unpack it" },
	{ 0, "PK\3\4", 4, "zip archive", "unpack it" },
	{ 0, "7z\xbc\xaf\x27\x1c", 6, "7-Zip archive", "unpack it" },
	{ 257, "ustar", 5, "tar archive, as an OVA is one",
	  "unpack it, or serve the image in it with nbdkit --filter=tar tar-entry=NAME" },
};

const struct vd_format *vd_format_find(const char *name)
{
	if (strcmp(name, "vpc") == 0)
		name = "vhd";
	for (size_t i = 0; i < FORMATS; i++) {
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	}
	return NULL;
}

/* What cannot be read might be what tells: no other sign may decide instead. */
static int fail_unreadable(const struct vd_source *source, int r, struct vd_error *err)
{
	return vd_fail(err, -r, "%s: cannot read what it is: %s", source->name, strerror(-r));
}

/* Refuse a file of no format of ours and say what it is, as far as that is known. */
static int fail_foreign(const struct vd_source *source, const char *option, struct vd_error *err)
{
	char head[17];

	if (source->size == 0)
		return vd_fail(err, EINVAL, "%s: the file is empty", source->name);
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		int r;

		if (!vd_inside(foreign[i].host, foreign[i].bytes, source->size))
			continue;
		r = vd_source_read(source, head, foreign[i].bytes, foreign[i].host);
		if (r < 0)
			return fail_unreadable(source, r, err);
		if (memcmp(head, foreign[i].magic, foreign[i].bytes) == 0)
			return vd_fail(err, ENOTSUP, "%s: this is a %s, which vdifs does not read%s%s",
				       source->name, foreign[i].name, foreign[i].advice ? "; " : "",
				       foreign[i].advice ? foreign[i].advice : "");
	}
	return vd_fail(err, EINVAL,
		       "%s: neither a QCOW2 nor a VHD image (no magic found); a raw disk needs "
		       "%s=raw",
		       source->name, option);
}

int vd_format_probe(const struct vd_source *source, const char *option,
		    const struct vd_format **out, struct vd_error *err)
{
	const struct vd_format *found = NULL;
	int r;

	for (size_t i = 0; i < FORMATS; i++) {
		r = formats[i]->probe(source);
		if (r < 0)
			return fail_unreadable(source, r, err);
		if (r == 0)
			continue;
		if (found)
			return vd_fail(
				err, EINVAL,
				"%s: looks like %s and like %s at once, which is how attacks "
				"look; say which with %s=%s or %s=%s",
				source->name, found->name, formats[i]->name, option, found->name,
				option, formats[i]->name);
		found = formats[i];
	}
	if (!found)
		return fail_foreign(source, option, err);
	*out = found;
	return 0;
}

int vd_format_identify(const struct vd_source *source, uint8_t *uuid)
{
	int r = 0;

	for (size_t i = 0; i < FORMATS && r == 0; i++)
		r = formats[i]->identify ? formats[i]->identify(source, uuid) : 0;
	return r;
}

void vd_parent_clear(struct vd_parent *parent)
{
	for (unsigned i = 0; i < parent->count; i++)
		free(parent->names[i]);
	*parent = (struct vd_parent){ 0 };
}

int vd_parent_add(struct vd_parent *parent, const char *name)
{
	if (*name == '\0' || parent->count == VD_PARENT_NAMES_MAX)
		return 0;
	for (unsigned i = 0; i < parent->count; i++) {
		if (strcmp(parent->names[i], name) == 0)
			return 0;
	}
	parent->names[parent->count] = strdup(name);
	if (!parent->names[parent->count])
		return -ENOMEM;
	parent->count++;
	return 0;
}

int vd_image_open(struct vd_source *source, const struct vd_format *format,
		  const struct vd_image_options *options, struct vd_cache *cache,
		  struct vd_image **out, struct vd_error *err)
{
	struct vd_image *image = calloc(1, sizeof(*image));
	int r = -ENOMEM;

	if (!image) {
		vd_source_close(source);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	image->serial = vd_serial();
	image->source = source;
	image->cache = cache;
	image->budget = options->budget;
	image->corrupt = malloc(sizeof(*image->corrupt));
	image->changed = malloc(sizeof(*image->changed));
	if (image->corrupt) /* first: closing the image uses it, also if the other one is missing */
		*image->corrupt = (struct vd_log_once)VD_LOG_ONCE_INIT;
	if (!image->corrupt || !image->changed) {
		vd_fail(err, ENOMEM, "out of memory");
		goto fail;
	}
	*image->changed = (struct vd_log_once)VD_LOG_ONCE_INIT;
	image->format = format;
	r = format->open(image, options, err);
	if (r < 0)
		goto fail;
	image->budget = NULL;
	*out = image;
	return 0;
fail:
	vd_image_close(image);
	return r;
}

int vd_image_open_snapshot(const struct vd_image *of, const struct vd_snapshot *snapshot,
			   struct vd_budget *budget, struct vd_image **out, struct vd_error *err)
{
	struct vd_image *image = malloc(sizeof(*image));
	int r;

	if (!image)
		return vd_fail(err, ENOMEM, "out of memory");
	*image = *of;
	image->serial = vd_serial();
	image->date = (struct timespec){ 0 };
	image->borrows = true;
	image->state = NULL;
	image->budget = budget;
	r = of->format->snapshot_open(image, of, snapshot, err);
	image->budget = NULL;
	if (r < 0)
		vd_image_close(image);
	else
		*out = image;
	return r;
}

int vd_image_check_uuid(const struct vd_image *image, const struct vd_image_options *options,
			struct vd_error *err)
{
	if (!options->uuid || memcmp(options->uuid, image->uuid, VD_UUID_BYTES) == 0)
		return 0;
	return vd_fail(err, ESTALE,
		       "%s: this is not the parent of the image above it: its UUID differs",
		       image->source->name);
}

void vd_image_close(struct vd_image *image)
{
	if (!image)
		return;
	if (image->format)
		image->format->close(image);
	if (!image->borrows) {
		if (image->corrupt && image->source)
			vd_log_once_rest(image->corrupt, image->source->name);
		vd_source_close(image->data);
		vd_source_close(image->source);
		free(image->changed);
		free(image->corrupt);
	}
	free(image);
}
