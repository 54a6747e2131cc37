/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling a struct vd_error, and making hostile names printable. No state, any thread. */
#include "config.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

int vd_fail(struct vd_error *err, int code, const char *format, ...)
{
	va_list args;

	if (err) {
		va_start(args, format);
		vsnprintf(err->text, sizeof(err->text), format, args);
		va_end(args);
	}
	return -code;
}

void vd_error_add(struct vd_error *err, const char *format, ...)
{
	size_t used = strlen(err->text);
	va_list args;

	va_start(args, format);
	vsnprintf(err->text + used, sizeof(err->text) - used, format, args);
	va_end(args);
}

static bool plain(uint8_t byte)
{
	return byte >= 0x20 && byte < 0x7f && byte != '\\' && byte != '"' && byte != '\'';
}

char *vd_escape(char *out, size_t out_size, const char *name, size_t bytes)
{
	static const char hex[] = "0123456789abcdef";
	size_t used = 0;

	for (size_t i = 0; i < bytes; i++) {
		uint8_t byte = (uint8_t)name[i];
		size_t need = plain(byte) ? 1 : 4;

		if (used + need + sizeof("...") > out_size) {
			snprintf(out + used, out_size - used, "...");
			return out;
		}
		if (need == 1) {
			out[used] = (char)byte;
		} else {
			memcpy(out + used, "\\x", 2);
			out[used + 2] = hex[byte >> 4];
			out[used + 3] = hex[byte & 15];
		}
		used += need;
	}
	out[used] = '\0';
	return out;
}

static uint8_t nibble(char digit)
{
	return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

char *vd_unescape(char *out, const char *escaped)
{
	char *at = out;

	for (; *escaped; escaped++) {
		if (escaped[0] == '\\' && escaped[1] == 'x' && escaped[2] && escaped[3]) {
			*at++ = (char)(nibble(escaped[2]) << 4 | nibble(escaped[3]));
			escaped += 3;
		} else {
			*at++ = *escaped;
		}
	}
	*at = '\0';
	return out;
}
