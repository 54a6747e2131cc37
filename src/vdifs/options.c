/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Command line and -o options, both through one function: option_set().
 *
 * libmount leaves quotes around a value with a comma in place; a backslash before a comma means the
 * same.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/usage.h"
#include "vdifs/mount_words.h"
#include "vdifs/options.h"

#define MAP_MEMORY_DEFAULT ((size_t)64 << 20)

enum kind {
	SWITCH, /* sets a bool */
	SIZE, /* bytes, with a suffix */
	TEXT,
	SANDBOX,
	NOTHING, /* is taken, and changes nothing */
};

#define SLOT(member) offsetof(struct vdifs_options, member)

/* The options of vdifs beside those of a chain. */
static const struct row {
	const char *name, *value, *help; /* help NULL: not in --help */
	char letter; /* its short name, or 0 */
	enum kind kind;
	size_t slot;
	bool in_line_only; /* it is not a word of -o */
} rows[] = {
	{ "direct", NULL, "bypass the page cache (fast for large reads only)", 0, SWITCH,
	  SLOT(direct), false },
	{ "layers", NULL, "show each layer of the chain as layers/N.raw", 0, SWITCH, SLOT(layers),
	  false },
	{ "map-memory", "SIZE", "memory for the interval maps (default 64M)", 0, SIZE,
	  SLOT(map_memory), false },
	{ "qcow2", NULL, "show NAME.qcow2, the disk as one QCOW2 file", 0, SWITCH, SLOT(qcow2),
	  false },
	{ "sandbox", "MODE", "auto (default), strict or off", 0, SANDBOX, SLOT(sandbox), false },
	{ "cache-memory", "SIZE", "memory for decompressed clusters (default 32M)", 0, SIZE,
	  SLOT(chain.cache_memory), false },
	{ "pid-file", "FILE", "write the process ID here when the mount is ready", 0, TEXT,
	  SLOT(pid_file), false },
	{ "read-only", NULL, "always on", 'r', NOTHING, 0, false },
	{ "unmount", NULL, "unmount MOUNTPOINT, and wait until the image is free", 0, SWITCH,
	  SLOT(unmount), true },
	{ "help", NULL, "print this and exit", 'h', SWITCH, SLOT(help), true },
	{ "version", NULL, "print the version and exit", 'V', SWITCH, SLOT(version), true },
	{ "sandbox-selftest", NULL, NULL, 0, SWITCH, SLOT(selftest), true },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What getopt_long() returns: CODE_LONG + place in its list, CODE_NAME for what is no option. */
enum { CODE_NAME = 1, CODE_LONG = 256, LONGS_MAX = 64 };

/* While the command line is read. */
struct parsing {
	struct vdifs_options *options;
	struct vd_error *err;
	unsigned given; /* a bit for each row that had a value */
	unsigned names; /* how many image, mountpoint and what is too much are */
};

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

static void *slot_of(struct vdifs_options *options, const struct row *row)
{
	return (char *)options + row->slot;
}

static int row_take(struct parsing *parsing, const struct row *row, const char *value)
{
	unsigned bit = 1u << (row - rows);
	void *slot = slot_of(parsing->options, row);

	if (row->value && !value)
		return vd_fail(parsing->err, EINVAL, "--%s needs a value", row->name);
	if (!row->value && value)
		return vd_fail(parsing->err, EINVAL, "--%s takes no value", row->name);
	if (value && (parsing->given & bit))
		return vd_fail(parsing->err, EINVAL, "--%s is given twice; give it once", row->name);
	if (value)
		parsing->given |= bit;
	switch (row->kind) {
	case SWITCH:
		*(bool *)slot = true;
		return 0;
	case SIZE:
		return take_size(slot, row->name, value, parsing->err);
	case TEXT:
		if (*value == '\0')
			return vd_fail(parsing->err, EINVAL, "--%s needs a value", row->name);
		*(const char **)slot = value;
		return 0;
	case SANDBOX:
		return vd_sandbox_mode_parse(value, slot, parsing->err);
	case NOTHING:
		break;
	}
	return 0;
}

/* Set one option by its long name; value NULL: it was given without one. -ENOENT: not an option. */
static int option_set(struct parsing *parsing, const char *name, const char *value, bool in_line)
{
	int r = vd_chain_option_set(&parsing->options->chain, name, value, parsing->err);

	for (size_t i = 0; i < ROWS && r == -ENOENT; i++) {
		if (strcmp(rows[i].name, name) == 0 && (in_line || !rows[i].in_line_only))
			return row_take(parsing, &rows[i], value);
	}
	return r;
}

/* --- mount options --------------------------------------------------------------------------- */

static int word_unknown(const char *word, struct vd_error *err)
{
	struct vd_nearest nearest = VD_NEAREST_TO(word);
	char shown[512];

	vd_fail(err, EINVAL, "unknown mount option: -o %s",
		vd_escape(shown, sizeof(shown), word, strlen(word)));
	vdifs_word_nearest(&nearest);
	for (const struct vd_chain_option *row = vd_chain_option_table; row->name; row++)
		vd_nearest_try(&nearest, row->name);
	for (size_t i = 0; i < ROWS; i++) {
		if (!rows[i].in_line_only)
			vd_nearest_try(&nearest, rows[i].name);
	}
	vd_nearest_add(&nearest, "", err);
	return -EINVAL;
}

/* What was typed as "-o name" is not to be called "--name". */
static void rename_option(struct vd_error *err)
{
	struct vd_error said = *err;

	if (strncmp(said.text, "--", 2) == 0)
		vd_fail(err, EINVAL, "-o %s", said.text + 2);
}

static int context_add(struct vdifs_options *options, const char *name, const char *value,
		       struct vd_error *err)
{
	if (options->context_count == VDIFS_CONTEXTS_MAX)
		return vd_fail(err, EINVAL, "-o %s is given twice", name);
	options->contexts[options->context_count++] =
		(struct vdifs_context){ .name = name, .value = value };
	return 0;
}

/* A word that is an option of vdifs. */
static int word_option(struct parsing *parsing, const char *name, const char *value)
{
	struct vdifs_options *options = parsing->options;
	int r;

	if (strcmp(name, "debug") == 0) {
		options->debug = options->foreground = true;
		return 0;
	}
	if (strcmp(name, "fsname") == 0 && value && *value) {
		if (options->fsname)
			return vd_fail(parsing->err, EINVAL,
				       "-o fsname= is given twice; give it once");
		options->fsname = value;
		return 0;
	}
	r = option_set(parsing, name, value, false);
	if (r == -ENOENT)
		return word_unknown(name, parsing->err);
	if (r < 0)
		rename_option(parsing->err);
	return r;
}

/* One word of -o, unquoted: NAME or NAME=value. Changes the word, which stays until the end. */
static int word_set(struct parsing *parsing, char *word, struct vdifs_word_list *list)
{
	char *value = strchr(word, '=');

	if (*word == '\0')
		return 0;
	if (value)
		*value++ = '\0';
	vdifs_word_note(list, word);
	switch (vdifs_word_find(word, value, parsing->err)) {
	case VDIFS_WORD_IGNORED:
		return 0;
	case VDIFS_WORD_PASSED:
		return pass_on(parsing->options, word, parsing->err);
	case VDIFS_WORD_CONTEXT:
		return context_add(parsing->options, word, value, parsing->err);
	case VDIFS_WORD_REMOUNT:
		parsing->options->remount = true;
		return 0;
	case VDIFS_WORD_REFUSED:
		return -EINVAL;
	case VDIFS_WORD_UNKNOWN:
		break;
	}
	return word_option(parsing, word, value);
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

static int list_set(struct parsing *parsing, const char *text)
{
	struct vdifs_word_list list = { .has_rw = false };
	int r = 0;

	while (*text && r == 0) {
		char *word = keep(parsing->options, text, strlen(text));

		if (!word)
			return vd_fail(parsing->err, ENOMEM, "out of memory");
		text = word_cut(text, word);
		r = word_set(parsing, word, &list);
	}
	return r < 0 ? r : vdifs_word_list_check(&list, parsing->err);
}

/* --- the command line ------------------------------------------------------------------------ */

static void print_row(const char *letter, const char *name, const char *value, const char *help)
{
	printf("  %s--%s%s%-*s %s\n", letter, name, value ? "=" : "",
	       24 - (int)strlen(letter) - (int)strlen(name) - (value ? 1 : 0), value ? value : "",
	       help);
}

void vdifs_options_print_help(void)
{
	printf("Usage: vdifs [options] IMAGE MOUNTPOINT [-- COMMAND...]\n"
	       "       vdifs --unmount MOUNTPOINT\n"
	       "Show a VHD or QCOW2 image as a read-only sparse raw disk.\n"
	       "MOUNTPOINT is a directory, which then holds NAME.raw and NAME.intervals.json, or a\n"
	       "file, which becomes the disk. With COMMAND: mount, run it, unmount, and exit with\n"
	       "its status.\n\n");
	for (const struct vd_chain_option *row = vd_chain_option_table; row->name; row++)
		print_row("", row->name, row->value, row->help);
	for (size_t i = 0; i < ROWS; i++) {
		char letter[] = { '-', rows[i].letter, ',', ' ', '\0' };

		if (rows[i].help)
			print_row(rows[i].letter ? letter : "", rows[i].name, rows[i].value,
				  rows[i].help);
	}
	printf("  -o OPTION[,OPTION...]      any of the above without dashes; allow_other,\n"
	       "                             allow_root, auto_unmount, fsname=NAME, noexec\n"
	       "  -f                         stay in the foreground, log to stderr\n"
	       "  -d                         the same, with libfuse's debug output\n"
	       "  -s                         one thread only\n"
	       "  -v                         say what is opened, and how it is confined\n"
	       "  -U                         the same as --force-share\n");
}

/* Both tables as getopt_long() wants them. */
static void longs_fill(struct option longs[LONGS_MAX])
{
	unsigned count = 0;

	for (const struct vd_chain_option *row = vd_chain_option_table; row->name; row++, count++)
		longs[count] = (struct option){ row->name,
						row->value ? required_argument : no_argument, NULL,
						CODE_LONG + (int)count };
	for (size_t i = 0; i < ROWS; i++, count++)
		longs[count] = (struct option){ rows[i].name,
						rows[i].value ? required_argument : no_argument,
						NULL, CODE_LONG + (int)count };
	longs[count] = (struct option){ NULL, 0, NULL, 0 };
}

/* Take what is neither an option nor the command. */
static void name_take(struct parsing *parsing, const char *name)
{
	struct vdifs_options *options = parsing->options;

	if (parsing->names == 0)
		options->image = name;
	else if (parsing->names == 1)
		options->mountpoint = name;
	parsing->names++;
}

static int letter_take(struct parsing *parsing, int c)
{
	struct vdifs_options *options = parsing->options;

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
		return list_set(parsing, optarg);
	case CODE_NAME:
		name_take(parsing, optarg);
		return 0;
	default:
		break;
	}
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].letter == c)
			return row_take(parsing, &rows[i], NULL);
	}
	return -EINVAL; /* a letter that only getopt_long() knows */
}

/* What stands behind "--": names that are still missing, and the command. */
static int rest_take(struct parsing *parsing, char **rest, bool has_dashes)
{
	bool has_name = false;

	while (*rest && parsing->names < 2) {
		name_take(parsing, *rest++);
		has_name = true;
	}
	if (has_name && *rest) {
		has_dashes = strcmp(*rest, "--") == 0;
		while (*rest && !has_dashes) /* too many */
			name_take(parsing, *rest++);
		rest += has_dashes;
	} else if (has_name) {
		has_dashes = false;
	}
	if (has_dashes && parsing->names >= 2 && !*rest)
		return vd_fail(parsing->err, EINVAL, "a command is missing behind --");
	if (*rest && parsing->options->remount)
		return vd_fail(parsing->err, EINVAL, "-o remount mounts nothing for a command");
	if (*rest)
		parsing->options->command = rest;
	return 0;
}

static int names_check(struct parsing *parsing)
{
	struct vdifs_options *options = parsing->options;

	if (options->unmount) {
		if (parsing->names != 1 || options->command)
			return vd_fail(parsing->err, EINVAL,
				       "--unmount: give one mountpoint, and no image");
		options->mountpoint = options->image;
		options->image = NULL;
		return 0;
	}
	if (parsing->names < 2)
		return vd_fail(parsing->err, EINVAL, "give an image and a mountpoint");
	if (parsing->names > 2)
		return vd_fail(parsing->err, EINVAL,
			       "give one image and a mountpoint, not %u names; a command stands "
			       "behind --",
			       parsing->names);
	return 0;
}

int vdifs_options_parse(struct vdifs_options *options, int argc, char **argv, struct vd_error *err)
{
	struct parsing parsing = { .options = options, .err = err };
	struct option longs[LONGS_MAX];
	int c, r = 0;

	longs_fill(longs);
	*options = (struct vdifs_options){ .map_memory = MAP_MEMORY_DEFAULT };
	opterr = 0;
	/* "-": names are returned in their place, so that a command keeps its options. */
	while (r == 0 && (c = getopt_long(argc, argv, "-:fdsvrUo:hV", longs, NULL)) != -1) {
		if (c == '?' || c == ':')
			r = vd_usage_option(err, argv, c, longs);
		else if (c >= CODE_LONG)
			r = option_set(&parsing, longs[c - CODE_LONG].name, optarg, true);
		else
			r = letter_take(&parsing, c);
	}
	if (r < 0 || options->help || options->version || options->selftest)
		return r;
	r = rest_take(&parsing, argv + optind, optind > 1 && strcmp(argv[optind - 1], "--") == 0);
	return r < 0 ? r : names_check(&parsing);
}

void vdifs_options_free(struct vdifs_options *options)
{
	for (unsigned i = 0; i < options->kept_count; i++)
		free(options->kept[i]);
	free(options->kept);
	free(options->mount_options);
}
