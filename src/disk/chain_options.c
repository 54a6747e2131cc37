/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of a chain, set by name: a command line and "-o name=value" mean the same. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/chain.h"
#include "disk/renamed.h"

#define SECONDS_MAX 86400

const struct vd_chain_option vd_chain_option_table[] = {
	{ "format", "FORMAT", "the image is vpc (or vhd), qcow2 or raw; do not look" },
	{ "backing", "POLICY", "files an image may name: same-dir (default), any, none" },
	{ "backing-file", "[NAME=]PATH",
	  "use this backing file, where an image names NAME (without NAME: the image's, again for "
	  "the one below it)" },
	{ "backing-format", "FORMAT",
	  "the backing file is vpc (or vhd), qcow2 or raw (again, likewise)" },
	{ "data-file", "PATH", "use this external data file" },
	{ "search", "DIR", "look here, too, for backing files that are missing (again for more)" },
	{ "any-parent", NULL, "take a parent although its UUID is not the recorded one" },
	{ "without-parent", NULL, "open no backing file; what the image does not hold is an error" },
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
		return vd_fail(err, EINVAL, "--%s=%s: the formats are vpc (or vhd), qcow2 and raw",
			       name, value);
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
	static const char *const lists[] = { "backing-file", "backing-format", "search" };

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

/* Append to a list that has room for `max`. */
static int take_listed(const char **list, unsigned *count, unsigned max, const char *name,
		       const char *value, struct vd_error *err)
{
	int r;

	if (*count == max)
		return vd_fail(err, EINVAL, "--%s: may be given %u times at most", name, max);
	r = take_string(&list[*count], name, value, err);
	*count += r == 0; /* one that was refused leaves no gap */
	return r;
}

static int take_backing_file(struct vd_chain_options *options, const char *name, const char *value,
			     struct vd_error *err)
{
	bool has_name;
	const char *path = vd_renamed_path(value, &has_name);

	if (*path == '\0')
		return vd_fail(err, EINVAL, "--%s needs a path: --%s=[NAME=]PATH", name, name);
	if (has_name)
		return take_listed(options->renamed, &options->renamed_count, VD_LAYERS_MAX - 1,
				   name, value, err);
	return take_listed(options->backing_files, &options->backing_file_count, VD_LAYERS_MAX - 1,
			   name, path, err);
}

static int take_backing_format(struct vd_chain_options *options, const char *name,
			       const char *value, struct vd_error *err)
{
	unsigned *count = &options->backing_format_count;
	int r;

	if (*count == VD_LAYERS_MAX - 1)
		return vd_fail(err, EINVAL, "--%s: a chain has at most %d layers", name,
			       VD_LAYERS_MAX);
	r = take_format(&options->backing_formats[*count], name, value, err);
	*count += r == 0;
	return r;
}

int vd_chain_option_set(struct vd_chain_options *options, const char *name, const char *value,
			struct vd_error *err)
{
	const struct vd_chain_option *row = vd_chain_option_table;
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
	if (strcmp(name, "backing-file") == 0)
		return take_backing_file(options, name, value, err);
	if (strcmp(name, "backing-format") == 0)
		return take_backing_format(options, name, value, err);
	if (strcmp(name, "search") == 0)
		return take_listed(options->search, &options->search_count, VD_SEARCH_MAX, name,
				   value, err);
	options->force_share |= strcmp(name, "force-share") == 0;
	options->any_parent |= strcmp(name, "any-parent") == 0;
	options->without_parent |= strcmp(name, "without-parent") == 0;
	return 0;
}
