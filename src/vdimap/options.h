/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of vdimap, and what is asked of the terminal. All of it happens before an image
 * is opened: in the sandbox neither the environment nor a terminal is there to be asked.
 */
#ifndef VD_VDIMAP_OPTIONS_H
#define VD_VDIMAP_OPTIONS_H

#include "disk/chain.h"
#include "sandbox/sandbox.h"

/* What is printed. */
enum form { FORM_JSON, FORM_CLUSTERS, FORM_QEMU, FORM_TEXT, FORM_INFO, FORM_CHART, FORM_SVG };

#define BITMAP_NAMES_MAX 64

struct terminal {
	bool in; /* stdout is one */
	bool bar; /* stderr is one, and nothing is printed on it meanwhile */
	bool colour, utf8;
	unsigned columns, rows;
};

/* Strings are those of argv. */
struct options {
	const char *images[2]; /* the image, and with --diff the old one */
	unsigned image_count;
	struct vd_chain_options chains[2]; /* how each is opened */
	enum vd_sandbox_mode sandbox;
	bool selftest;
	enum form form;
	bool json; /* with FORM_INFO */
	bool compare, verbose;
	bool exit_code; /* differences have an exit status of their own */
	bool reads_top; /* if its parents cannot be opened, the image alone will do */
	bool has_old; /* something was said about the old image */
	const char *bitmaps[BITMAP_NAMES_MAX];
	unsigned bitmap_count;
	bool stopped_bitmaps; /* those that do not record will do */
	unsigned cluster_bits; /* 0: the disk's, or the bitmaps' granularity */
	uint64_t given; /* rows of the table that were given: options.c */
	struct terminal terminal;
};

/*
 * A message about the old image names options by what they are called for the image; have it name
 * those of the old one, where there are such.
 */
void options_rename_old(struct vd_error *err);

/* 1: go on; 0: done, successfully (--help); -EINVAL with a message. */
int options_parse(int argc, char **argv, struct options *options, struct vd_error *err);

#endif
