/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing JSON: see object.h. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "vdimap/object.h"

/* The length of the UTF-8 character at p, or 0 if that is none. The string ends with a NUL. */
static unsigned character_bytes(const unsigned char *p)
{
	static const struct {
		unsigned char low, high; /* of the first byte */
		unsigned char second_low, second_high;
		unsigned bytes;
	} rows[] = {
		{ 0x20, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (p[0] < rows[i].low || p[0] > rows[i].high)
			continue;
		for (unsigned at = 1; at < rows[i].bytes; at++) {
			unsigned char low = at == 1 ? rows[i].second_low : 0x80;
			unsigned char high = at == 1 ? rows[i].second_high : 0xbf;

			if (p[at] < low || p[at] > high)
				return 0;
		}
		return rows[i].bytes;
	}
	return 0;
}

static void put_string(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	putchar('"');
	while (*p) {
		unsigned bytes = character_bytes(p);

		if (*p == '"' || *p == '\\')
			putchar('\\');
		if (bytes > 0)
			fwrite(p, 1, bytes, stdout);
		else if (*p < 0x20)
			printf("\\u%04x", *p);
		else
			fputs("\\ufffd", stdout);
		p += bytes ? bytes : 1;
	}
	putchar('"');
}

static void member_begin(struct object *object, const char *name)
{
	if (object->depth > 0)
		printf("%s\n%*s", object->is_first ? "" : ",", (int)object->depth * 4, "");
	object->is_first = false;
	if (name) {
		put_string(name);
		fputs(": ", stdout);
	}
}

void object_begin(struct object *object, const char *name, char bracket)
{
	member_begin(object, name);
	putchar(bracket);
	object->depth++;
	object->is_first = true;
}

void object_end(struct object *object, char bracket)
{
	object->depth--;
	printf("\n%*s%c", (int)object->depth * 4, "", bracket);
	object->is_first = false;
	if (object->depth == 0)
		putchar('\n');
}

void object_text(struct object *object, const char *name, const char *text)
{
	member_begin(object, name);
	put_string(text);
}

void object_name(struct object *object, const char *name, const char *escaped)
{
	char *text = malloc(strlen(escaped) + 1);

	object_text(object, name, text ? vd_unescape(text, escaped) : escaped);
	free(text);
}

void object_number(struct object *object, const char *name, uint64_t number)
{
	member_begin(object, name);
	printf("%" PRIu64, number);
}

void object_bool(struct object *object, const char *name, bool yes)
{
	member_begin(object, name);
	fputs(yes ? "true" : "false", stdout);
}
