/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs say about a wrong command line. Pure but for a look at files in the last. */
#ifndef VD_BASE_USAGE_H
#define VD_BASE_USAGE_H

#include <stddef.h>

#include "base/error.h"

struct option;

/* Looks for the word that the user may have meant. Start with VD_NEAREST_TO(word). */
struct vd_nearest {
	const char *typed;
	const char *found; /* NULL: nothing is near enough */
	unsigned distance; /* of `found` */
};

#define VD_NEAREST_TO(word)     \
	{                       \
		.typed = (word) \
	}

/* Consider one more word. */
void vd_nearest_try(struct vd_nearest *nearest, const char *word);

/* Add "; did you mean PREFIXword?" to the message if a word was found. */
void vd_nearest_add(const struct vd_nearest *nearest, const char *prefix, struct vd_error *err);

/*
 * getopt_long() has just returned `c`, which is '?' or ':' (its option string has a colon at the
 * beginning). Fails with -EINVAL and says which option is unknown, needs a value or takes none.
 */
int vd_usage_option(struct vd_error *err, char *const *argv, int c, const struct option *longs);

#endif
