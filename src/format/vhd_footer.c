/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the footer of a VHD. 512 bytes end the file; old Virtual PC wrote 511. A dynamic or
 * differencing image has a copy at 0, which is trusted only if the tail is damaged: a guest can
 * write a footer to the first sector of a fixed disk. Threads: pure but for reading the source.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "format/vhd_footer.h"

uint32_t vhd_checksum(const uint8_t *bytes, size_t count, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < count; i++) {
		if (i < field || i >= field + 4)
			sum += bytes[i];
	}
	return ~sum;
}

/* Early XenServer set `hidden` and left the checksum as it was. */
static bool footer_is_hidden_tap(const uint8_t *footer)
{
	uint32_t version = get_be32(footer + FOOTER_CREATOR_VERSION);
	uint8_t copy[FOOTER_BYTES];

	if (memcmp(footer + FOOTER_CREATOR, "tap", 4) != 0 || footer[FOOTER_HIDDEN] == 0 ||
	    (version != TAP_VERSION(0, 1) && version != TAP_VERSION(1, 1)))
		return false;
	memcpy(copy, footer, sizeof(copy));
	copy[FOOTER_HIDDEN] = 0;
	return vhd_checksum(copy, FOOTER_BYTES, FOOTER_CHECKSUM) ==
	       get_be32(footer + FOOTER_CHECKSUM);
}

static bool footer_has_cookie(const uint8_t *footer)
{
	return memcmp(footer, "conectix", 8) == 0 || memcmp(footer, "v_poison", 8) == 0;
}

static const struct {
	const char *name;
	uint16_t bytes;
	bool at_end;
} footer_places[] = {
	{ "footer at the end", FOOTER_BYTES, true },
	{ "511-byte footer at the end", FOOTER_BYTES_OLD, true },
	{ "footer copy at byte 0", FOOTER_BYTES, false },
};

#define FOOTER_PLACES (sizeof(footer_places) / sizeof(footer_places[0]))

/*
 * Read the place-th candidate, zero-padded. *host: where it begins. 1; 0: it is none; -errno. A
 * place that cannot be read must end the search: whoever wrote the next one may be the guest.
 */
static int footer_read(const struct vd_source *source, size_t place, uint8_t *footer,
		       uint64_t *host)
{
	uint16_t bytes = footer_places[place].bytes;
	int r;

	if (source->size < bytes)
		return 0;
	*host = footer_places[place].at_end ? source->size - bytes : 0;
	memset(footer, 0, FOOTER_BYTES);
	r = vd_source_read(source, footer, bytes, *host);
	return r < 0 ? r : footer_has_cookie(footer);
}

int vhd_footer_probe(const struct vd_source *source)
{
	uint8_t footer[FOOTER_BYTES];
	uint64_t host;
	int r = 0;

	for (size_t place = 0; place < FOOTER_PLACES && r == 0; place++)
		r = footer_read(source, place, footer, &host);
	return r;
}

int vhd_footer_find(const struct vd_source *source, uint8_t *footer, uint64_t *data_end,
		    struct vd_error *err)
{
	int r = vd_fail(err, EINVAL,
			"%s: no VHD footer (cookie \"conectix\") in its last 512 or 511 "
			"bytes, nor a copy at byte 0",
			source->name);
	bool complained = false;

	for (size_t place = 0; place < FOOTER_PLACES; place++) {
		uint64_t host;
		uint32_t stored, computed, type;
		int found = footer_read(source, place, footer, &host);

		if (found < 0)
			return vd_fail(err, -found, "%s: cannot read the VHD %s: %s", source->name,
				       footer_places[place].name, strerror(-found));
		if (found == 0)
			continue;
		stored = get_be32(footer + FOOTER_CHECKSUM);
		computed = vhd_checksum(footer, FOOTER_BYTES, FOOTER_CHECKSUM);
		type = get_be32(footer + FOOTER_TYPE);
		if (stored != computed && !footer_is_hidden_tap(footer)) {
			if (!complained)
				r = vd_fail(err, EINVAL,
					    "%s: VHD %s has a wrong checksum (0x%08" PRIx32
					    ", the bytes give 0x%08" PRIx32
					    ") and no valid copy exists; "
					    "the image is damaged",
					    source->name, footer_places[place].name, stored,
					    computed);
			complained = true;
			continue;
		}
		if (!footer_places[place].at_end && type != TYPE_DYNAMIC &&
		    type != TYPE_DIFFERENCING)
			continue;
		*data_end = footer_places[place].at_end ? host : source->size;
		return 0;
	}
	return r;
}
