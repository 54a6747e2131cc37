/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON for programs and eyes, written to stdout while it is made, indented as QEMU does it. Strings
 * may be any bytes: what is not UTF-8 becomes U+FFFD. One thread.
 */
#ifndef VD_VDIMAP_OBJECT_H
#define VD_VDIMAP_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

struct object {
	unsigned depth;
	bool is_first; /* nothing stands in the innermost object or array yet */
};

/* name NULL: an element of an array, or the outermost object. bracket: '{' or '['. */
void object_begin(struct object *object, const char *name, char bracket);
void object_end(struct object *object, char bracket);

void object_text(struct object *object, const char *name, const char *text);
/* A name that went through vd_escape(), as it was before. */
void object_name(struct object *object, const char *name, const char *escaped);
void object_number(struct object *object, const char *name, uint64_t number);
void object_bool(struct object *object, const char *name, bool yes);

#endif
