/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parsing the command line: the table of vdimap's own options beside that of the chain's. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/standard.h"
#include "base/usage.h"
#include "vdimap/options.h"

enum { CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 62, COLUMNS_MIN = 20, COLUMNS_MAX = 500 };

/* What getopt_long() returns for an option of the table: its place, above all characters. */
enum { CODE_OWN = 256, CODE_CHAIN = 512 };

enum own {
	OPTION_FORM,
	OPTION_JSON,
	OPTION_CLUSTER_BITS,
	OPTION_DIFF,
	OPTION_COMPARE,
	OPTION_EXIT_CODE,
	OPTION_OLD,
	OPTION_BITMAP,
	OPTION_STOPPED_BITMAPS,
	OPTION_SANDBOX,
	OPTION_SELFTEST,
	OPTION_VERBOSE,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct row {
	const char *name;
	enum own option;
	enum form form;
	const char *value;
	const char *help; /* NULL: not in --help */
	char letter; /* its short name, or 0 */
} rows[] = {
	{ "clusters", OPTION_FORM, FORM_CLUSTERS, NULL, "list each cluster, not ranges", 0 },
	{ "qemu", OPTION_FORM, FORM_QEMU, NULL, "print what qemu-img map prints as JSON", 0 },
	{ "text", OPTION_FORM, FORM_TEXT, NULL, "print a table", 0 },
	{ "info", OPTION_FORM, FORM_INFO, NULL, "tell about the image, its chain and its map", 0 },
	{ "chart", OPTION_FORM, FORM_CHART, NULL, "draw the disk in the terminal", 0 },
	{ "svg", OPTION_FORM, FORM_SVG, NULL, "draw it as an SVG picture", 0 },
	{ "json", OPTION_JSON, 0, NULL, "with --info: as JSON, as qemu-img info prints it", 0 },
	{ "cluster-bits", OPTION_CLUSTER_BITS, 0, "N", "count in clusters of 2^N bytes", 0 },
	{ "diff", OPTION_DIFF, 0, "OLD", "list what may differ from the disk of OLD", 0 },
	{ "compare", OPTION_COMPARE, 0, NULL, "after --diff=OLD: read it, list what does differ",
	  0 },
	{ "exit-code", OPTION_EXIT_CODE, 0, NULL,
	  "after --diff=OLD: exit with status 4 if anything is listed", 0 },
	{ "old-format", OPTION_OLD, 0, "FORMAT", "OLD is vpc (or vhd), qcow2 or raw; do not look",
	  0 },
	{ "old-snapshot", OPTION_OLD, 0, "NAME|ID", "this internal snapshot of OLD", 0 },
	{ "old-backing-file", OPTION_OLD, 0, "PATH", "use this backing file of OLD", 0 },
	{ "old-backing-format", OPTION_OLD, 0, "FORMAT",
	  "the backing file of OLD is vpc (or vhd), qcow2 or raw", 0 },
	{ "old-data-file", OPTION_OLD, 0, "PATH", "use this external data file of OLD", 0 },
	{ "bitmap", OPTION_BITMAP, 0, "NAME", "list what is set in this dirty bitmap (again: union)",
	  0 },
	{ "stopped-bitmaps", OPTION_STOPPED_BITMAPS, 0, NULL,
	  "use bitmaps that do not record any more", 0 },
	{ "sandbox", OPTION_SANDBOX, 0, "MODE", "auto (default), strict or off", 0 },
	{ "sandbox-selftest", OPTION_SELFTEST, 0, NULL, NULL, 0 }, /* as in vdifs */
	{ "verbose", OPTION_VERBOSE, 0, NULL, "say on standard error what is done", 'v' },
	{ "help", OPTION_HELP, 0, NULL, "print this and exit", 'h' },
	{ "version", OPTION_VERSION, 0, NULL, "print the version and exit", 'V' },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void print_row(char letter, const char *name, const char *value, const char *help)
{
	int used = (int)(strlen(name) + (value ? strlen(value) + 1 : 0)) + (letter ? 4 : 0);

	printf("  ");
	if (letter)
		printf("-%c, ", letter);
	printf("--%s%s%s%*s %s\n", name, value ? "=" : "", value ? value : "",
	       used < 24 ? 24 - used : 0, "", help);
}

static void print_help(void)
{
	printf("Usage: vdimap [options] IMAGE\n"
	       "       vdimap [options] --diff=OLD NEW\n"
	       "Print the map of the data in a VHD or QCOW2 image as JSON.\n\n");
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].help)
			print_row(rows[i].letter, rows[i].name, rows[i].value, rows[i].help);
	}
	printf("\nHow the image is opened:\n");
	for (const struct vd_chain_option *o = vd_chain_option_table; o->name; o++)
		print_row(0, o->name, o->value, o->help);
	printf("  -U                         the same as --force-share\n");
}

static int take_form(struct options *options, const struct row *row, struct vd_error *err)
{
	if (options->form != FORM_JSON && options->form != row->form)
		return vd_fail(
			err, EINVAL,
			"--%s: --clusters, --qemu, --text, --info, --chart and --svg exclude "
			"each other",
			row->name);
	options->form = row->form;
	return 0;
}

static int take_cluster_bits(struct options *options, const char *value, struct vd_error *err)
{
	char *end;
	unsigned long bits = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || bits < CLUSTER_BITS_MIN ||
	    bits > CLUSTER_BITS_MAX)
		return vd_fail(err, EINVAL, "--cluster-bits=%s: it must be a number from %d to %d",
			       value, CLUSTER_BITS_MIN, CLUSTER_BITS_MAX);
	options->cluster_bits = (unsigned)bits;
	return 0;
}

static int take_bitmap(struct options *options, const char *value, struct vd_error *err)
{
	if (*value == '\0')
		return vd_fail(err, EINVAL, "--bitmap needs the name of a bitmap");
	if (options->bitmap_count == BITMAP_NAMES_MAX)
		return vd_fail(err, EINVAL, "--bitmap can be given %d times, not more",
			       BITMAP_NAMES_MAX);
	options->bitmaps[options->bitmap_count++] = value;
	return 0;
}

/* Options of the old image are those of a chain, with "old-" before them. */
static int take_old(struct options *options, const char *name, const char *value,
		    struct vd_error *err)
{
	int r = vd_chain_option_set(&options->chains[1], name + strlen("old-"), value, err);

	options->has_old = true;
	if (r < 0)
		options_rename_old(err);
	return r;
}

void options_rename_old(struct vd_error *err)
{
	struct vd_error said = *err;
	const char *from = said.text, *dashes;

	err->text[0] = '\0';
	while ((dashes = strstr(from, "--"))) {
		size_t length = 2 + strcspn(dashes + 2, " =,;):");
		bool is_old = false;

		for (size_t i = 0; i < ROWS && !is_old; i++)
			is_old =
				rows[i].option == OPTION_OLD &&
				strlen(rows[i].name) - strlen("old-") == length - 2 &&
				strncmp(rows[i].name + strlen("old-"), dashes + 2, length - 2) == 0;
		vd_error_add(err, "%.*s%s%.*s", (int)(dashes - from), from,
			     is_old ? "--old-" : "--", (int)length - 2, dashes + 2);
		from = dashes + length;
	}
	vd_error_add(err, "%s", from);
}

/* An option with a value that was given before is an error, unless both values count. */
static int count_row(struct options *options, const struct row *row, struct vd_error *err)
{
	uint64_t bit = UINT64_C(1) << (row - rows);

	if (options->given & bit && row->value && row->option != OPTION_BITMAP &&
	    row->option != OPTION_OLD) /* vd_chain_option_set() looks at those */
		return vd_fail(err, EINVAL, "--%s is given twice; give it once", row->name);
	options->given |= bit;
	return 0;
}

/* 1: all of it is written. */
static int printed(struct vd_error *err)
{
	int r = vd_standard_flush();

	if (r < 0)
		return vd_fail(err, -r, "cannot write to standard output: %s", strerror(-r));
	return 1;
}

static int take(struct options *options, const struct row *row, const char *value,
		struct vd_error *err)
{
	int r = count_row(options, row, err);

	if (r < 0)
		return r;
	switch (row->option) {
	case OPTION_FORM:
		return take_form(options, row, err);
	case OPTION_JSON:
		options->json = true;
		return 0;
	case OPTION_CLUSTER_BITS:
		return take_cluster_bits(options, value, err);
	case OPTION_DIFF:
		options->images[1] = value;
		return 0;
	case OPTION_COMPARE:
		options->compare = true;
		return 0;
	case OPTION_EXIT_CODE:
		options->exit_code = true;
		return 0;
	case OPTION_OLD:
		return take_old(options, row->name, value, err);
	case OPTION_BITMAP:
		return take_bitmap(options, value, err);
	case OPTION_STOPPED_BITMAPS:
		options->stopped_bitmaps = true;
		return 0;
	case OPTION_SANDBOX:
		return vd_sandbox_mode_parse(value, &options->sandbox, err);
	case OPTION_SELFTEST:
		options->selftest = true;
		return 0;
	case OPTION_VERBOSE:
		options->verbose = true;
		return 0;
	case OPTION_HELP:
		print_help();
		return printed(err);
	case OPTION_VERSION:
		printf("vdimap %s\n", PACKAGE_VERSION);
		return printed(err);
	}
	return -EINVAL;
}

/* What only makes sense with something else, or not with it. */
static int check(const struct options *options, struct vd_error *err)
{
	bool plain = options->form == FORM_QEMU || options->form == FORM_INFO;

	if (!options->images[1] && (options->compare || options->exit_code || options->has_old))
		return vd_fail(err, EINVAL,
			       "--compare, --exit-code and the --old- options need --diff=OLD");
	if (options->json && options->form != FORM_INFO)
		return vd_fail(err, EINVAL, "--json goes with --info; the map is JSON anyway");
	if (options->bitmap_count > 0 && options->images[1])
		return vd_fail(err, EINVAL, "--bitmap and --diff exclude each other");
	if (plain && (options->bitmap_count > 0 || options->images[1] || options->cluster_bits))
		return vd_fail(err, EINVAL,
			       "--qemu and --info tell about the whole image: leave --diff, "
			       "--bitmap and --cluster-bits out");
	if (options->cluster_bits && (options->form == FORM_CHART || options->form == FORM_SVG))
		return vd_fail(err, EINVAL,
			       "the grain of --chart and --svg is their block: leave "
			       "--cluster-bits out");
	if (options->stopped_bitmaps && options->bitmap_count == 0)
		return vd_fail(err, EINVAL, "--stopped-bitmaps goes with --bitmap=NAME");
	if (options->bitmap_count > 0 && options->chains[0].snapshot)
		return vd_fail(err, EINVAL,
			       "a bitmap is of the current disk: leave --snapshot out");
	return 0;
}

/* Forms that print nothing before they know all. */
static bool form_is_late(enum form form)
{
	return form == FORM_INFO || form == FORM_CHART || form == FORM_SVG;
}

static void terminal_ask(struct terminal *terminal, enum form form)
{
	const char *columns = getenv("COLUMNS"), *term = getenv("TERM");
	struct winsize size;

	terminal->in = isatty(STDOUT_FILENO);
	terminal->bar = isatty(STDERR_FILENO) && (!terminal->in || form_is_late(form));
	terminal->colour = terminal->in && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
	setlocale(LC_CTYPE, "");
	terminal->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	setlocale(LC_CTYPE, "C");
	terminal->columns = 80;
	terminal->rows = 24;
	if (terminal->in && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
		terminal->columns = size.ws_col;
		terminal->rows = size.ws_row;
	} else if (columns && atoi(columns) > 0) {
		terminal->columns = (unsigned)atoi(columns);
	}
	if (terminal->columns < COLUMNS_MIN)
		terminal->columns = COLUMNS_MIN;
	if (terminal->columns > COLUMNS_MAX)
		terminal->columns = COLUMNS_MAX;
}

/* Both tables as getopt_long() wants them. */
static void longs_fill(struct option *longs)
{
	size_t count = 0;

	for (size_t i = 0; i < ROWS; i++)
		longs[count++] = (struct option){
			rows[i].name,
			rows[i].value ? required_argument : no_argument,
			NULL,
			CODE_OWN + (int)i,
		};
	for (const struct vd_chain_option *o = vd_chain_option_table; o->name; o++)
		longs[count++] = (struct option){
			o->name,
			o->value ? required_argument : no_argument,
			NULL,
			CODE_CHAIN,
		};
	longs[count] = (struct option){ 0 };
}

/* The row of an option that getopt_long() found, or NULL. */
static const struct row *row_find(int c)
{
	if (c >= CODE_OWN && c < CODE_CHAIN)
		return &rows[c - CODE_OWN];
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].letter == c)
			return &rows[i];
	}
	return NULL;
}

int options_parse(int argc, char **argv, struct options *options, struct vd_error *err)
{
	enum { MAX = 40 };
	struct option longs[MAX];
	int c, index = 0, r = 0;

	longs_fill(longs);
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, ":UhVv", longs, &index)) != -1) {
		const struct row *row = row_find(c);

		if (row)
			r = take(options, row, optarg, err);
		else if (c == CODE_CHAIN)
			r = vd_chain_option_set(&options->chains[0], longs[index].name, optarg,
						err);
		else if (c == 'U')
			options->chains[0].force_share = true;
		else
			r = vd_usage_option(err, argv, c, longs);
	}
	if (r != 0)
		return r < 0 ? r : 0;
	if (options->selftest)
		return 1;
	if (argc == optind)
		return vd_fail(err, EINVAL, "give one image; see vdimap --help");
	if (argc - optind > 1)
		return vd_fail(err, EINVAL, "give one image, not %d names: one is read at a time",
			       argc - optind);
	options->images[0] = argv[optind];
	options->image_count = options->images[1] ? 2 : 1;
	options->chains[1].backing = options->chains[0].backing;
	memcpy(options->chains[1].search, options->chains[0].search,
	       sizeof(options->chains[0].search));
	options->chains[1].search_count = options->chains[0].search_count;
	options->chains[1].any_parent = options->chains[0].any_parent;
	options->chains[1].without_parent = options->chains[0].without_parent;
	options->chains[1].force_share = options->chains[0].force_share;
	options->chains[1].vhd_footer = options->chains[0].vhd_footer;
	options->chains[1].ignore_checksums = options->chains[0].ignore_checksums;
	options->chains[1].patience = options->chains[0].patience;
	options->reads_top = options->form == FORM_INFO;
	r = check(options, err);
	terminal_ask(&options->terminal, options->form);
	return r < 0 ? r : 1;
}
