/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of a chain, set by name: a command line and "-o name=value" mean the same. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/chain.h"

#define SECONDS_MAX 86400

const struct vd_chain_option vd_chain_option_table[] = {
	{ "format", "FORMAT", "the image is vhd, qcow2 or raw; do not look" },
	{ "backing", "POLICY", "files an image may name: same-dir (default), any, none" },
	{ "backing-file", "PATH", "use this backing file (again for the one below it)" },
	{ "backing-format", "FORMAT", "the backing file is vhd, qcow2 or raw (again, likewise)" },
	{ "data-file", "PATH", "use this external data file" },
	{ "snapshot", "NAME|ID", "show this internal snapshot" },
	{ "vhd-footer", "PLACE", "of two VHD footers of different disks, believe that at the end or start" },
	{ "ignore-checksums", NULL, "read VHD headers with a wrong checksum anyway" },
	{ "nbd-timeout", "SECONDS", "give up a server that is silent for so long (default 60)" },
	{ "force-share", NULL, "read the image although somebody writes to it (-U)" },
	{ NULL, NULL, NULL },
};

static int take_format(const char **slot, const char *name, const char *value, struct vd_error *err)
{
	if (!vd_format_find(value))
		return vd_fail(err, EINVAL, "--%s=%s: the formats are vhd, qcow2 and raw", name,
			       value);
	*slot = value;
	return 0;
}

static int take_policy(enum vd_backing *slot, const char *value, struct vd_error *err)
{
	static const char *const names[] = {
		[VD_BACKING_SAME_DIR] = "same-dir",
		[VD_BACKING_ANY] = "any",
		[VD_BACKING_NONE] = "none",
	};

	for (unsigned i = 0; i < 3; i++) {
		if (strcmp(names[i], value) == 0) {
			*slot = (enum vd_backing)i;
			return 0;
		}
	}
	return vd_fail(err, EINVAL, "--backing=%s: the policies are same-dir, any and none", value);
}

static int take_footer(enum vd_vhd_footer *slot, const char *value, struct vd_error *err)
{
	if (strcmp(value, "end") == 0)
		*slot = VD_FOOTER_END;
	else if (strcmp(value, "start") == 0)
		*slot = VD_FOOTER_START;
	else
		return vd_fail(err, EINVAL, "--vhd-footer=%s: the places are end and start", value);
	return 0;
}

static int take_string(const char **slot, const char *name, const char *value, struct vd_error *err)
{
	if (*value == '\0')
		return vd_fail(err, EINVAL, "--%s needs a value", name);
	*slot = value;
	return 0;
}

static int take_seconds(unsigned *slot, const char *name, const char *value, struct vd_error *err)
{
	char *end;
	unsigned long seconds = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || seconds < 1 || seconds > SECONDS_MAX)
		return vd_fail(err, EINVAL, "--%s=%s: must be a number of seconds from 1 to %d",
			       name, value, SECONDS_MAX);
	*slot = (unsigned)seconds;
	return 0;
}

/* May the option be given again, because all values count? */
static bool is_list(const char *name)
{
	static const char *const lists[] = { "backing-file", "backing-format" };

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		if (strcmp(lists[i], name) == 0)
			return true;
	}
	return false;
}

/* Note that the option is set. It is an error if a value that counts alone was set before. */
static int count_option(struct vd_chain_options *options, const struct vd_chain_option *row,
			struct vd_error *err)
{
	uint32_t bit = UINT32_C(1) << (row - vd_chain_option_table);

	if (options->given & bit && row->value && !is_list(row->name))
		return vd_fail(err, EINVAL, "--%s is given twice; give it once", row->name);
	options->given |= bit;
	return 0;
}

int vd_chain_option_set(struct vd_chain_options *options, const char *name, const char *value,
			struct vd_error *err)
{
	const struct vd_chain_option *row = vd_chain_option_table;
	unsigned *count;
	bool is_file;
	int r;

	while (row->name && strcmp(row->name, name) != 0)
		row++;
	if (!row->name)
		return -ENOENT;
	if (row->value && !value)
		return vd_fail(err, EINVAL, "--%s needs a value: --%s=%s", name, name, row->value);
	if (!row->value && value)
		return vd_fail(err, EINVAL, "--%s takes no value", name);
	r = count_option(options, row, err);
	if (r < 0)
		return r;
	if (strcmp(name, "format") == 0)
		return take_format(&options->format, name, value, err);
	if (strcmp(name, "backing") == 0)
		return take_policy(&options->backing, value, err);
	if (strcmp(name, "data-file") == 0)
		return take_string(&options->data_file, name, value, err);
	if (strcmp(name, "snapshot") == 0)
		return take_string(&options->snapshot, name, value, err);
	if (strcmp(name, "vhd-footer") == 0)
		return take_footer(&options->vhd_footer, value, err);
	if (strcmp(name, "ignore-checksums") == 0) {
		options->ignore_checksums = true;
		return 0;
	}
	if (strcmp(name, "nbd-timeout") == 0)
		return take_seconds(&options->patience.seconds, name, value, err);
	if (strcmp(name, "force-share") == 0) {
		options->force_share = true;
		return 0;
	}
	is_file = strcmp(name, "backing-file") == 0;
	count = is_file ? &options->backing_file_count : &options->backing_format_count;
	if (*count == VD_LAYERS_MAX - 1)
		return vd_fail(err, EINVAL, "--%s: a chain has at most %d layers", name,
			       VD_LAYERS_MAX);
	r = is_file ? take_string(&options->backing_files[*count], name, value, err)
		    : take_format(&options->backing_formats[*count], name, value, err);
	*count += r == 0; /* one that was refused leaves no gap */
	return r;
}
