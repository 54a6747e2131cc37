/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a file name to a disk: open the image, its data file and everything below it, each once,
 * all before anything is shown. Also the options that say how, which both programs have.
 */
#ifndef VD_DISK_CHAIN_H
#define VD_DISK_CHAIN_H

#include "disk/disk.h"
#include "disk/opener.h"

#define VD_SEARCH_MAX 32

/* Strings are not owned. */
struct vd_chain_options {
	const char *format; /* of the image; NULL: probe */
	enum vd_backing backing;
	const char *backing_files[VD_LAYERS_MAX]; /* [0] is the image's backing file */
	unsigned backing_file_count;
	const char *renamed[VD_LAYERS_MAX]; /* NAME=PATH (renamed.h) */
	unsigned renamed_count;
	const char *backing_formats[VD_LAYERS_MAX]; /* in the same order */
	unsigned backing_format_count;
	const char *data_file;
	const char *snapshot;
	const char *search[VD_SEARCH_MAX]; /* directories to look through for what is missing */
	unsigned search_count;
	bool any_parent; /* a parent with a wrong UUID will do */
	bool without_parent; /* open none but those by hand; what the layers lack is an error */
	bool force_share;
	enum vd_vhd_footer vhd_footer;
	bool ignore_checksums;
	bool alone; /* only the image: what reads of the disk would need its parents */
	struct vd_patience patience; /* with servers */
	size_t cache_memory; /* bytes of decoded clusters; 0: the default */
	uint32_t given; /* rows of the table that have been set: vd_chain_option_set() */
};

/* A row of the table of chain options; it ends with a NULL name. */
struct vd_chain_option {
	const char *name; /* of the long option, without dashes */
	const char *value; /* what --help calls its value; NULL: it has none */
	const char *help;
};

extern const struct vd_chain_option vd_chain_option_table[];

/*
 * Set one option by its long name. -ENOENT: not a chain option; -EINVAL with a message, also if it
 * has been set before and is not a list.
 */
int vd_chain_option_set(struct vd_chain_options *options, const char *name, const char *value,
			struct vd_error *err);

/*
 * Before a sandbox closes: load what the images and the files named by hand take; options[i] is for
 * images[i]. What is missing is said when the chain is opened.
 */
void vd_chain_prepare(const char *const *images, const struct vd_chain_options *options,
		      unsigned count);

/*
 * Open the chain. On failure nothing stays open. All files keep their locks until
 * vd_disk_close().
 */
int vd_chain_open(const char *path, const struct vd_chain_options *options,
		  const struct vd_opener *opener, struct vd_disk **out, struct vd_error *err);

#endif
