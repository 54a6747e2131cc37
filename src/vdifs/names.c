/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Percent signs rather than the backslashes of vd_escape(): the names are typed into shells. Bytes
 * above 0x7f stay, they are letters of some language; but the control characters among them
 * (U+0080 to U+009F, which are 0xc2 and a byte in UTF-8) can drive a terminal.
 */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "vdifs/names.h"

/* Is the first byte of `at` to be escaped? */
static bool is_odd(const char *at, bool is_first, uint8_t before)
{
	uint8_t byte = (uint8_t)*at, next = (uint8_t)at[1];

	if (byte < 0x20 || byte == 0x7f || byte == '/' || byte == '%' || (is_first && byte == '.'))
		return true;
	return (byte == 0xc2 && next >= 0x80 && next < 0xa0) ||
	       (before == 0xc2 && byte >= 0x80 && byte < 0xa0);
}

bool vdifs_name_escape(char *out, size_t room, const char *name)
{
	size_t used = 0, whole = 0; /* whole: up to the last character's beginning */
	unsigned behind = 0; /* bytes since then; a character has no more than three */

	for (size_t i = 0; name[i]; i++) {
		bool odd = is_odd(name + i, i == 0, i ? (uint8_t)name[i - 1] : 0);
		size_t need = odd ? 3 : 1;

		behind = ((uint8_t)name[i] & 0xc0) == 0x80 ? behind + 1 : 0;
		if (behind == 0 || behind > 3)
			whole = used;
		if (used + need >= room) {
			out[whole] = '\0';
			return false;
		}
		if (odd)
			snprintf(out + used, 4, "%%%02x", (uint8_t)name[i]);
		else
			out[used] = name[i];
		used += need;
	}
	out[used] = '\0';
	return true;
}
