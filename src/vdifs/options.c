/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Command line and -o options, both through one function: option_set().
 *
 * mount(8) passes "rw,dev,suid" whatever the line in fstab says, and what else it knows; those
 * words are dropped, since vdifs always mounts ro,nosuid,nodev. libmount leaves quotes around a
 * value with a comma in place; a backslash before a comma means the same.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vdifs/options.h"

#define MAP_MEMORY_DEFAULT ((size_t)64 << 20)

static const struct vd_chain_option own_options[] = {
	{ "direct", NULL, "bypass the page cache (fast for large reads only)" },
	{ "layers", NULL, "show each layer of the chain as layers/N.raw" },
	{ "map-memory", "SIZE", "memory for the interval maps (default 64M)" },
	{ "qcow2", NULL, "show NAME.qcow2, the disk as one QCOW2 file" },
	{ "sandbox", "MODE", "auto (default), strict or off" },
	{ "cache-memory", "SIZE", "memory for decompressed clusters (default 32M)" },
	{ NULL, NULL, NULL },
};

/* Words of mount(8) that mean nothing here, or are forced. */
static const char *const ignored[] = {
	"ro",
	"rw",
	"dev",
	"nodev",
	"suid",
	"nosuid",
	"defaults",
	"auto",
	"noauto",
	"user",
	"nouser",
	"users",
	"owner",
	"group",
	"_netdev",
	"nofail",
	"default_permissions",
	"nonempty",
	"atime",
	"noatime",
	"diratime",
	"nodiratime",
	"relatime",
	"norelatime",
	"strictatime",
	"nostrictatime",
	"lazytime",
	"nolazytime",
	"iversion",
	"noiversion",
	"mand",
	"nomand",
	"silent",
	"loud",
	"sync",
	"async",
	"dirsync",
	NULL,
};

/* Words that libfuse or the kernel takes. auto_unmount is what the supervisor does anyway. */
static const char *const passed[] = {
	"allow_other", "allow_root", "auto_unmount", "exec", "noexec", NULL,
};

static bool is_in(const char *const *list, const char *name)
{
	while (*list && strcmp(*list, name) != 0)
		list++;
	return *list != NULL;
}

/* Keep a string until the end. NULL for want of memory. */
static char *keep(struct vdifs_options *options, const char *text, size_t length)
{
	char **kept = realloc(options->kept, (options->kept_count + 1) * sizeof(*kept));

	if (!kept)
		return NULL;
	options->kept = kept;
	kept[options->kept_count] = strndup(text, length);
	return kept[options->kept_count] ? kept[options->kept_count++] : NULL;
}

/* Append a word to the mount options. */
static int pass_on(struct vdifs_options *options, const char *word, struct vd_error *err)
{
	size_t had = options->mount_options ? strlen(options->mount_options) : 0;
	char *joined = realloc(options->mount_options, had + strlen(word) + 2);

	if (!joined)
		return vd_fail(err, ENOMEM, "out of memory");
	joined[had] = '\0';
	if (had)
		strcat(joined, ",");
	strcat(joined, word);
	options->mount_options = joined;
	return 0;
}

bool vdifs_options_has(const struct vdifs_options *options, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = options->mount_options; at && *at; at += *at == ',') {
		size_t here = strcspn(at, ",");

		if (here == length && strncmp(at, word, length) == 0)
			return true;
		at += here;
	}
	return false;
}

static int take_size(size_t *slot, const char *name, const char *value, struct vd_error *err)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long number;
	const char *unit;
	unsigned shift = 0;

	errno = 0;
	number = strtoull(value, &end, 10);
	unit = *end > ' ' ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (value[0] < '0' || value[0] > '9' || errno || *end || number > SIZE_MAX >> shift)
		return vd_fail(err, EINVAL, "--%s=%s: not a size; write it like 64M", name, value);
	*slot = (size_t)number << shift;
	return 0;
}

/* An option without a value. False: there is no such one. */
static bool take_switch(struct vdifs_options *options, const char *name)
{
	const struct {
		const char *name;
		bool *slot;
	} switches[] = {
		{ "direct", &options->direct },
		{ "layers", &options->layers },
		{ "qcow2", &options->qcow2 },
	};

	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
		if (strcmp(name, switches[i].name) == 0)
			return *switches[i].slot = true;
	}
	return false;
}

/* Note an option of the own table. It is an error if it has a value and was given before. */
static int count_option(struct vdifs_options *options, const char *name, const char *value,
			struct vd_error *err)
{
	for (unsigned i = 0; own_options[i].name; i++) {
		if (strcmp(own_options[i].name, name) != 0)
			continue;
		if (options->given & 1u << i && value)
			return vd_fail(err, EINVAL, "--%s is given twice; give it once", name);
		options->given |= 1u << i;
	}
	return 0;
}

/* Set one option by its long name; value NULL: it was given without one. */
static int option_set(struct vdifs_options *options, const char *name, const char *value,
		      struct vd_error *err)
{
	int r = vd_chain_option_set(&options->chain, name, value, err);

	if (r != -ENOENT)
		return r;
	r = count_option(options, name, value, err);
	if (r < 0)
		return r;
	if (!value && take_switch(options, name))
		return 0;
	if (strcmp(name, "map-memory") == 0 && value)
		return take_size(&options->map_memory, name, value, err);
	if (strcmp(name, "sandbox") == 0 && value)
		return vd_sandbox_mode_parse(value, &options->sandbox, err);
	if (strcmp(name, "cache-memory") == 0 && value)
		return take_size(&options->chain.cache_memory, name, value, err);
	return vd_fail(err, EINVAL,
		       "--%s: unknown option, or its value is missing or too much; see vdifs "
		       "--help",
		       name);
}

/* One word of -o, unquoted: NAME or NAME=value. Changes the word. */
static int word_set(struct vdifs_options *options, char *word, struct vd_error *err)
{
	char *value = strchr(word, '=');

	if (*word == '\0' || is_in(ignored, word) || strncmp(word, "x-", 2) == 0 ||
	    strncmp(word, "comment=", 8) == 0)
		return 0;
	if (is_in(passed, word))
		return pass_on(options, word, err);
	if (strcmp(word, "debug") == 0) {
		options->debug = options->foreground = true;
		return 0;
	}
	if (value)
		*value++ = '\0';
	if (strcmp(word, "fsname") == 0 && value) {
		if (options->fsname)
			return vd_fail(err, EINVAL, "-o fsname= is given twice; give it once");
		options->fsname = strdup(value);
		return options->fsname ? 0 : vd_fail(err, ENOMEM, "out of memory");
	}
	if (strcmp(word, "subtype") == 0)
		return 0;
	return option_set(options, word, value, err);
}

/* Copy one word of an -o list to `word`, without its quotes and escapes; returns what follows. */
static const char *word_cut(const char *from, char *word)
{
	bool quoted = false;

	while (*from && (quoted || *from != ',')) {
		if (*from == '\\' && from[1])
			*word++ = *++from;
		else if (*from == '"')
			quoted = !quoted;
		else
			*word++ = *from;
		from++;
	}
	*word = '\0';
	return *from ? from + 1 : from;
}

static int list_set(struct vdifs_options *options, const char *list, struct vd_error *err)
{
	int r = 0;

	while (*list && r == 0) {
		char *word = keep(options, list, strlen(list));

		if (!word)
			return vd_fail(err, ENOMEM, "out of memory");
		list = word_cut(list, word);
		r = word_set(options, word, err);
	}
	return r;
}

static void print_rows(const struct vd_chain_option *row)
{
	for (; row->name; row++)
		printf("  --%s%s%-*s %s\n", row->name, row->value ? "=" : "",
		       24 - (int)strlen(row->name) - (row->value ? 1 : 0),
		       row->value ? row->value : "", row->help);
}

void vdifs_options_print_help(void)
{
	printf("Usage: vdifs [options] IMAGE MOUNTPOINT\n"
	       "Show a VHD or QCOW2 image as a read-only sparse raw disk.\n"
	       "MOUNTPOINT is a directory, which then holds NAME.raw and NAME.intervals.json, or "
	       "a\n"
	       "file, which becomes the disk. Unmount with: fusermount3 -u MOUNTPOINT\n\n");
	print_rows(vd_chain_option_table);
	print_rows(own_options);
	printf("  -o OPTION[,OPTION...]      any of the above without dashes; allow_other,\n"
	       "                             allow_root, auto_unmount, fsname=NAME, noexec\n"
	       "  -f                         stay in the foreground, log to stderr\n"
	       "  -d                         the same, with libfuse's debug output\n"
	       "  -s                         one thread only\n"
	       "  -v                         say what is opened, and how it is confined\n"
	       "  -U                         the same as --force-share\n"
	       "  -h, --help                 print this and exit\n"
	       "  -V, --version              print the version and exit\n");
}

static unsigned add_longs(struct option *longs, unsigned count, const struct vd_chain_option *row)
{
	for (; row->name; row++)
		longs[count++] = (struct option){
			.name = row->name,
			.has_arg = row->value ? required_argument : no_argument,
			.val = 1,
		};
	return count;
}

static int take_short(struct vdifs_options *options, int c, char **argv, struct vd_error *err)
{
	switch (c) {
	case 'f':
		options->foreground = true;
		return 0;
	case 'd':
		options->foreground = options->debug = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case 's':
		options->single_thread = true;
		return 0;
	case 'U':
		options->chain.force_share = true;
		return 0;
	case 'o':
		return list_set(options, optarg, err);
	case 'h':
		options->help = true;
		return 0;
	case 'V':
		options->version = true;
		return 0;
	case 't': /* not in --help: for tests, and for who wants to see it */
		options->selftest = true;
		return 0;
	default:
		return vd_fail(err, EINVAL,
			       "unknown option, or its value is missing or too much: %s; see "
			       "vdifs --help",
			       argv[optind - 1]);
	}
}

int vdifs_options_parse(struct vdifs_options *options, int argc, char **argv, struct vd_error *err)
{
	struct option longs[32] = { { "help", no_argument, NULL, 'h' },
				    { "version", no_argument, NULL, 'V' },
				    { "sandbox-selftest", no_argument, NULL, 't' } };
	unsigned count = add_longs(longs, 3, vd_chain_option_table);
	int c, row = 0, r = 0;

	add_longs(longs, count, own_options);
	*options = (struct vdifs_options){ .map_memory = MAP_MEMORY_DEFAULT };
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "fdsvUo:hV", longs, &row)) != -1)
		r = c == 1 ? option_set(options, longs[row].name, optarg, err)
			   : take_short(options, c, argv, err);
	if (r < 0 || options->help || options->version || options->selftest)
		return r;
	if (argc - optind != 2)
		return vd_fail(err, EINVAL, "give an image and a mountpoint; see vdifs --help");
	options->image = argv[optind];
	options->mountpoint = argv[optind + 1];
	return 0;
}

void vdifs_options_free(struct vdifs_options *options)
{
	for (unsigned i = 0; i < options->kept_count; i++)
		free(options->kept[i]);
	free(options->kept);
	free(options->mount_options);
	free(options->fsname);
}
