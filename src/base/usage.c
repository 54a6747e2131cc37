/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * getopt_long() says little about what is wrong: `optind` is behind the argument when all of it has
 * been read, but still at it within a group of letters, and argv has been rearranged. What it leaves
 * open is found by looking at the arguments again.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/usage.h"

/* Longer words are not compared. */
#define WORD_MAX 40
/* One letter wrong, missing, too much, or two that changed places; twice in longer words. */
#define SHORT_WORD 4

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many letters one has to change, add, drop or exchange with the next one. */
static unsigned distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1], *row = rows[0], *above = rows[1], *before = rows[2];
	size_t a_length = strlen(a), b_length = strlen(b);

	if (a_length > WORD_MAX || b_length > WORD_MAX)
		return WORD_MAX;
	for (unsigned j = 0; j <= b_length; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a_length; i++) {
		unsigned *free_row = before;

		before = above;
		above = row;
		row = free_row;
		row[0] = i;
		for (unsigned j = 1; j <= b_length; j++) {
			row[j] = least(above[j], row[j - 1]) + 1;
			row[j] = least(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = least(row[j], before[j - 2] + 1);
		}
	}
	return row[b_length];
}

void vd_nearest_try(struct vd_nearest *nearest, const char *word)
{
	unsigned most = strlen(nearest->typed) <= SHORT_WORD ? 1 : 2;
	unsigned is = distance(nearest->typed, word);

	if (is > most || (nearest->found && nearest->distance <= is))
		return;
	nearest->found = word;
	nearest->distance = is;
}

void vd_nearest_add(const struct vd_nearest *nearest, const char *prefix, struct vd_error *err)
{
	if (nearest->found)
		vd_error_add(err, "; did you mean %s%s?", prefix, nearest->found);
}

/* The options that `name` may be an abbreviation of. *found: the only one, or the one itself. */
static unsigned longs_count(const struct option *longs, const char *name, size_t length,
			    const struct option **found)
{
	unsigned count = 0;

	for (; longs->name; longs++) {
		if (strncmp(longs->name, name, length) != 0)
			continue;
		*found = longs;
		count++;
		if (longs->name[length] == '\0')
			return 1;
	}
	return count;
}

/* The user meant a file whose name begins with a dash? */
static void add_file_hint(struct vd_error *err, const char *word)
{
	char shown[512];

	if (strchr(word, '.') || access(word, F_OK) == 0)
		vd_error_add(err, "; a file name that begins with a dash is given as ./%s",
			     vd_escape(shown, sizeof(shown), word, strlen(word)));
}

/* The first group of letters with this one in it. */
static const char *group_find(char *const *argv, int letter)
{
	for (unsigned i = 1; argv[i] && strcmp(argv[i], "--") != 0; i++) {
		const char *word = argv[i];

		if (word[0] == '-' && word[1] != '-' && word[1] && word[2] &&
		    strchr(word + 1, letter))
			return word;
	}
	return NULL;
}

static int letter_fail(struct vd_error *err, char *const *argv, int c)
{
	char letter = (char)optopt, shown[8];
	const char *group = letter ? group_find(argv, letter) : NULL;

	vd_escape(shown, sizeof(shown), &letter, 1);
	if (c == ':')
		return vd_fail(err, EINVAL, "-%s needs a value", shown);
	vd_fail(err, EINVAL, "unknown option -%s", shown);
	if (group)
		add_file_hint(err, group);
	return -EINVAL;
}

static int unknown_fail(struct vd_error *err, const char *word, const struct option *longs)
{
	char name[WORD_MAX + 1], shown[512];
	struct vd_nearest nearest = VD_NEAREST_TO(name);
	size_t length = strcspn(word + 2, "=");

	vd_fail(err, EINVAL, "unknown option %s",
		vd_escape(shown, sizeof(shown), word, length + 2));
	if (length <= WORD_MAX) {
		memcpy(name, word + 2, length);
		name[length] = '\0';
		for (; longs->name; longs++)
			vd_nearest_try(&nearest, longs->name);
		vd_nearest_add(&nearest, "--", err);
	}
	if (!nearest.found)
		add_file_hint(err, word);
	return -EINVAL;
}

/* "--ba" may be --backing, --backing-file, ... */
static int unclear_fail(struct vd_error *err, const char *word, const struct option *longs)
{
	size_t length = strcspn(word + 2, "=");
	const char *before = "";

	vd_fail(err, EINVAL, "unknown option %.*s; it may be ", (int)length + 2, word);
	for (; longs->name; longs++) {
		if (strncmp(longs->name, word + 2, length) != 0)
			continue;
		vd_error_add(err, "%s--%s", before, longs->name);
		before = " or ";
	}
	return -EINVAL;
}

int vd_usage_option(struct vd_error *err, char *const *argv, int c, const struct option *longs)
{
	const char *word = argv[optind - 1];
	const struct option *found = NULL;
	unsigned count;

	if (strncmp(word, "--", 2) != 0 || word[2] == '\0')
		return letter_fail(err, argv, c);
	count = longs_count(longs, word + 2, strcspn(word + 2, "="), &found);
	if (count == 0)
		return unknown_fail(err, word, longs);
	if (count > 1)
		return unclear_fail(err, word, longs);
	if (found->has_arg == no_argument && strchr(word, '='))
		return vd_fail(err, EINVAL, "--%s takes no value", found->name);
	if (found->has_arg == required_argument && !strchr(word, '='))
		return vd_fail(err, EINVAL, "--%s needs a value", found->name);
	return letter_fail(err, argv, c); /* that option is fine: a letter behind it is not */
}
