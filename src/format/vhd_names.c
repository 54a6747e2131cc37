/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parent names of a differencing VHD (specification, "Parent Locator Entry", and what writers do).
 *
 * Locators are UTF-16LE without BOM or NUL; the name in the header is UTF-16BE, but early XenServer
 * wrote a BOM and the other order, and some writers the other order without a BOM. Wi2r and Wi2k, of
 * old systems, have 8-bit characters. data_space counts bytes or sectors depending on the writer; only
 * data_offset and data_len matter to a reader. W2ku, "absolute", may hold a relative path, and
 * blktap puts the relative path into all three kinds. MacX is a file URL, %-escaped or not.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/vhd_names.h"

enum {
	HEADER_PARENT_NAME = 64,
	HEADER_PARENT_NAME_BYTES = 512,
	HEADER_LOCATORS = 576,
	LOCATORS = 8,
	LOCATOR_BYTES = 24,
	LOCATOR_LENGTH = 8,
	LOCATOR_OFFSET = 16,
	NAME_BYTES_MAX = 4096, /* of UTF-16 or URL; longer names exist only in attacks */
};

/* Append one code point as UTF-8. out has room. A lone surrogate becomes three bytes as it is. */
static size_t utf8_put(char *out, uint32_t code)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/*
 * The byte order of UTF-16: what a BOM says, else the one in which more characters are Latin, of
 * which a path has some ("\\", ".vhd"); `usual` where both have as many.
 */
static bool utf16_is_big_endian(const uint8_t *in, size_t bytes, bool usual)
{
	unsigned big = 0, little = 0;

	if (bytes >= 2 && get_be16(in) == 0xfeff)
		return true;
	if (bytes >= 2 && get_be16(in) == 0xfffe)
		return false;
	for (size_t i = 0; i + 2 <= bytes && get_be16(in + i) != 0; i += 2) {
		big += get_be16(in + i) < 0x100;
		little += get_le16(in + i) < 0x100;
	}
	return big == little ? usual : big > little;
}

/* UTF-16 up to a NUL or the end, to UTF-8. out holds at least bytes * 3 / 2 + 1. */
static void utf16_to_utf8(const uint8_t *in, size_t bytes, bool usually_big_endian, char *out)
{
	bool big_endian = utf16_is_big_endian(in, bytes, usually_big_endian);
	size_t used = 0;

	for (size_t i = 0; i + 2 <= bytes; i += 2) {
		uint32_t code = big_endian ? get_be16(in + i) : get_le16(in + i);

		if (code == 0)
			break;
		if (code == 0xfeff && i == 0)
			continue;
		if (code >> 10 == 0xd800 >> 10 && i + 4 <= bytes) {
			uint32_t low = big_endian ? get_be16(in + i + 2) : get_le16(in + i + 2);

			if (low >> 10 == 0xdc00 >> 10) {
				code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
				i += 2;
			}
		}
		used += utf8_put(out + used, code);
	}
	out[used] = '\0';
}

/* Add the three places where a file of that path may be. Changes the path. */
static int add_path(struct vd_parent *parent, char *path)
{
	const char *relative, *slash;
	int r;

	for (char *p = path; *p; p++) {
		if (*p == '\\')
			*p = '/';
	}
	if (((path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z') && path[1] == ':')
		path += 2;
	relative = path + strspn(path, "/");
	slash = strrchr(path, '/');
	r = vd_parent_add(parent, relative);
	if (r == 0 && path[0] == '/')
		r = vd_parent_add(parent, path);
	if (r == 0 && slash)
		r = vd_parent_add(parent, slash + 1);
	return r;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undo %-escapes in place; true when there were any. %00 ends the name, as a NUL does. */
static bool url_unescape(char *url)
{
	char *to = url;
	bool changed = false;

	while (*url) {
		int high = url[0] == '%' ? hex_digit(url[1]) : -1;
		int low = high >= 0 ? hex_digit(url[2]) : -1;

		if (low >= 0) {
			*to++ = (char)(high << 4 | low);
			url += 3;
			changed = true;
		} else {
			*to++ = *url++;
		}
	}
	*to = '\0';
	return changed;
}

/* Add the path of a file URL, first as it stands, then unescaped. */
static int add_url(struct vd_parent *parent, const char *url)
{
	char path[NAME_BYTES_MAX + 1];
	int r;

	if (strncmp(url, "file://", 7) == 0)
		url += 7;
	if (strncmp(url, "localhost/", 10) == 0)
		url += 9;
	strcpy(path, url); /* url came from a buffer of this size */
	r = add_path(parent, path);
	strcpy(path, url);
	if (r == 0 && url_unescape(path))
		r = add_path(parent, path);
	return r;
}

/* How the text of a locator is written. */
enum coding { UTF16, URL, BYTES };

static const struct {
	char code[5];
	enum coding coding;
} locator_kinds[] = {
	{ "W2ru", UTF16 }, { "W2ku", UTF16 }, { "MacX", URL }, { "Wi2r", BYTES }, { "Wi2k", BYTES },
};

#define LOCATOR_KINDS (sizeof(locator_kinds) / sizeof(locator_kinds[0]))

/* Add the names of one locator, if its bytes are inside the file. */
static int add_locator(struct vd_parent *parent, const struct vd_source *source, uint64_t data_end,
		       const uint8_t *locator, enum coding coding)
{
	uint32_t bytes = get_be32(locator + LOCATOR_LENGTH);
	uint64_t host = get_be64(locator + LOCATOR_OFFSET);
	uint8_t raw[NAME_BYTES_MAX + 1];
	char path[NAME_BYTES_MAX * 3 / 2 + 1];
	int r;

	if (bytes > NAME_BYTES_MAX || !vd_inside(host, bytes, data_end))
		return 0;
	r = vd_source_read(source, raw, bytes, host);
	if (r < 0)
		return r;
	raw[bytes] = '\0';
	if (coding == URL)
		return add_url(parent, (const char *)raw);
	if (coding == UTF16)
		utf16_to_utf8(raw, bytes, false, path);
	else
		strcpy(path, (const char *)raw); /* path is the longer one */
	return add_path(parent, path);
}

int vhd_names_collect(const struct vd_source *source, const uint8_t *header, uint64_t data_end,
		      struct vd_parent *parent)
{
	char path[HEADER_PARENT_NAME_BYTES * 3 / 2 + 1];
	int r = 0;

	for (size_t kind = 0; kind < LOCATOR_KINDS && r == 0; kind++) {
		for (size_t i = 0; i < LOCATORS && r == 0; i++) {
			const uint8_t *locator = header + HEADER_LOCATORS + i * LOCATOR_BYTES;

			if (memcmp(locator, locator_kinds[kind].code, 4) == 0)
				r = add_locator(parent, source, data_end, locator,
						locator_kinds[kind].coding);
		}
	}
	if (r < 0)
		return r;
	utf16_to_utf8(header + HEADER_PARENT_NAME, HEADER_PARENT_NAME_BYTES, true, path);
	return add_path(parent, path);
}
