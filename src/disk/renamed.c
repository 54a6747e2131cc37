/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See renamed.h. Names are any bytes, and messages are one line of ASCII. */
#include "config.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "disk/renamed.h"
#include "source/address.h"

/* The length of the character at `at` as NAME has it: 2 if it is escaped. */
static size_t step(const char *at)
{
	return at[0] == '\\' && (at[1] == '\\' || at[1] == '=') ? 2 : 1;
}

const char *vd_renamed_path(const char *value, bool *has_name)
{
	const char *at = value;

	*has_name = false;
	if (vd_address_is(value))
		return value;
	while (*at && *at != '=')
		at += step(at);
	if (!*at)
		return value;
	*has_name = at > value;
	return at + 1;
}

bool vd_renamed_is(const char *value, const char *name)
{
	while (*value != '=' && *name) {
		value += step(value) - 1;
		if (*value++ != *name++)
			return false;
	}
	return *value == '=' && !*name;
}

static bool is_plain(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_./-+,:@%";

	return *text && text[strspn(text, plain)] == '\0';
}

/* Is every byte a printable character of ASCII that stands for itself between quotes? */
static bool is_quotable(const char *text)
{
	for (; *text; text++) {
		if (*text < 0x20 || *text > 0x7e || *text == '\'')
			return false;
	}
	return true;
}

/* Append the text as one word for a shell. $'...' is that of bash, zsh and POSIX of 2024. */
static void add_word(struct vd_error *out, const char *text)
{
	if (is_plain(text)) {
		vd_error_add(out, "%s", text);
	} else if (is_quotable(text)) {
		vd_error_add(out, "'%s'", text);
	} else {
		vd_error_add(out, "$'");
		for (; *text; text++) {
			uint8_t byte = (uint8_t)*text;

			if (byte == '\\' || byte == '\'')
				vd_error_add(out, "\\%c", byte);
			else if (byte < 0x20 || byte > 0x7e)
				vd_error_add(out, "\\%03o",
					     byte); /* \xNN may swallow what follows */
			else
				vd_error_add(out, "%c", byte);
		}
		vd_error_add(out, "'");
	}
}

void vd_renamed_advise(struct vd_error *text, const char *name)
{
	char escaped[VD_ERROR_MAX];
	size_t used = 0;

	for (; *name && used + 3 < sizeof(escaped); name++) {
		if (*name == '=' || *name == '\\')
			escaped[used++] = '\\';
		escaped[used++] = *name;
	}
	escaped[used] = '\0';
	vd_error_add(text, "--backing-file=");
	add_word(text, escaped);
	vd_error_add(text, "=PATH");
}

void vd_renamed_advise_path(struct vd_error *text, const char *path)
{
	/* A PATH with '=' has an empty NAME before it. */
	vd_error_add(text, "--backing-file=%s", strchr(path, '=') ? "=" : "");
	add_word(text, path);
}
