/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the footer of a VHD. 512 bytes end the file; old Virtual PC wrote 511. A dynamic or
 * differencing image has a copy at 0, which is trusted only if the end is damaged: a guest can
 * write a footer to the first sector of a fixed disk.
 *
 * Both may be whole and belong to different disks: a logical volume ends with the footer of the
 * disk that it held before, and a fixed disk may begin with another image. Only the user knows
 * which of the two is meant. Threads: pure but for reading the source.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
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

enum { AT_END, AT_END_OLD, AT_START, PLACES };

static const struct {
	const char *name;
	uint16_t bytes;
	bool at_end;
} footer_places[PLACES] = {
	[AT_END] = { "footer at the end", FOOTER_BYTES, true },
	[AT_END_OLD] = { "511-byte footer at the end", FOOTER_BYTES_OLD, true },
	[AT_START] = { "footer copy at byte 0", FOOTER_BYTES, false },
};

/* What stands in one of the places. */
struct candidate {
	uint8_t bytes[FOOTER_BYTES];
	uint64_t host;
	bool has_cookie; /* and may be what it seems: a fixed disk has no copy at 0 */
	bool is_valid; /* its checksum is right, too */
};

/*
 * Read the place-th candidate, zero-padded. 0 or -errno. A place that cannot be read must end the
 * search: the next one may have been written by the guest.
 */
static int candidate_read(const struct vd_source *source, size_t place, struct candidate *found)
{
	uint16_t bytes = footer_places[place].bytes;
	int r;

	memset(found, 0, sizeof(*found));
	if (source->size < bytes)
		return 0;
	found->host = footer_places[place].at_end ? source->size - bytes : 0;
	r = vd_source_read(source, found->bytes, bytes, found->host);
	found->has_cookie = r == 0 && footer_has_cookie(found->bytes);
	return r;
}

int vhd_footer_probe(const struct vd_source *source)
{
	struct candidate found = { .has_cookie = false };
	int r = 0;

	for (size_t place = 0; place < PLACES && r == 0 && !found.has_cookie; place++)
		r = candidate_read(source, place, &found);
	return r < 0 ? r : found.has_cookie;
}

static void candidate_check(size_t place, struct candidate *found)
{
	uint32_t type = get_be32(found->bytes + FOOTER_TYPE);
	bool is_right = vhd_checksum(found->bytes, FOOTER_BYTES, FOOTER_CHECKSUM) ==
				get_be32(found->bytes + FOOTER_CHECKSUM) ||
			footer_is_hidden_tap(found->bytes);

	/* If the checksum is wrong the type may be. But nothing may become a fixed disk by that. */
	if (place == AT_START && type != TYPE_DYNAMIC && type != TYPE_DIFFERENCING &&
	    (is_right || type == TYPE_FIXED))
		found->has_cookie = false;
	found->is_valid = found->has_cookie && is_right;
}

/* Read all places. If one cannot be read, --vhd-footer=end may do without the copy at 0. */
static int candidates_read(const struct vd_source *source, const struct vd_image_options *options,
			   struct candidate *found, struct vd_error *err)
{
	for (size_t place = 0; place < PLACES; place++) {
		int r = candidate_read(source, place, &found[place]);
		bool spare = place == AT_START &&
			     (found[AT_END].is_valid || found[AT_END_OLD].is_valid);

		if (r < 0 && spare && options->vhd_footer == VD_FOOTER_END)
			continue;
		if (r < 0)
			return vd_fail(err, -r, "%s: cannot read the VHD %s: %s%s", source->name,
				       footer_places[place].name, strerror(-r),
				       spare ? "; --vhd-footer=end does without it" : "");
		candidate_check(place, &found[place]);
	}
	return 0;
}

/* The disk of a footer, in words. */
static void describe(char *words, size_t size, const struct candidate *found)
{
	static const char *const kinds[] = { "disk of unknown type", "disk of unknown type",
					     "fixed disk", "dynamic disk", "differencing disk" };
	uint32_t type = get_be32(found->bytes + FOOTER_TYPE);
	const uint8_t *uuid = found->bytes + FOOTER_UUID;

	snprintf(words, size, "a %s of %" PRIu64 " bytes, UUID %08" PRIx32 "%08" PRIx32 "%08" PRIx32
		 "%08" PRIx32,
		 kinds[type <= TYPE_DIFFERENCING ? type : 0],
		 get_be64(found->bytes + FOOTER_CURRENT_SIZE), get_be32(uuid), get_be32(uuid + 4),
		 get_be32(uuid + 8), get_be32(uuid + 12));
}

/* Two valid footers of different disks, and the user has not said which one to believe. */
static int fail_ambiguous(const struct vd_source *source, const struct candidate *at_end,
			  const struct candidate *at_start, struct vd_error *err)
{
	char end[128], start[128];

	describe(end, sizeof(end), at_end);
	describe(start, sizeof(start), at_start);
	return vd_fail(err, EINVAL,
		       "%s: two VHD footers belong to different disks: at the end %s; at byte 0 %s; "
		       "one may be left from a former disk: say which one to believe with "
		       "--vhd-footer=end or --vhd-footer=start",
		       source->name, end, start);
}

/* No footer is valid. The first one with a cookie is what the user may insist on. */
static int find_invalid(const struct vd_source *source, const struct vd_image_options *options,
			const struct candidate *found, size_t *place, struct vd_error *err)
{
	*place = 0;
	while (*place < PLACES && !found[*place].has_cookie)
		++*place;
	if (*place == PLACES)
		return vd_fail(err, EINVAL,
			       "%s: no VHD footer (cookie \"conectix\") in its last 512 or 511 "
			       "bytes, nor a copy at byte 0",
			       source->name);
	if (options->ignore_checksums)
		return 0;
	return vd_fail(err, EINVAL,
		       "%s: VHD %s has a wrong checksum (0x%08" PRIx32 ", the bytes give 0x%08" PRIx32
		       ") and no valid copy exists; the image is damaged; --ignore-checksums reads "
		       "it anyway",
		       source->name, footer_places[*place].name,
		       get_be32(found[*place].bytes + FOOTER_CHECKSUM),
		       vhd_checksum(found[*place].bytes, FOOTER_BYTES, FOOTER_CHECKSUM));
}

/* The place of the footer to believe. */
static int choose(const struct vd_source *source, const struct vd_image_options *options,
		  const struct candidate *found, size_t *place, struct vd_error *err)
{
	const struct candidate *start = &found[AT_START];

	*place = found[AT_END].is_valid ? AT_END : AT_END_OLD;
	if (!found[*place].is_valid && !start->is_valid)
		return find_invalid(source, options, found, place, err);
	if (found[*place].is_valid && start->is_valid && options->vhd_footer == VD_FOOTER_ASK &&
	    memcmp(found[*place].bytes + FOOTER_UUID, start->bytes + FOOTER_UUID, VD_UUID_BYTES) != 0)
		return fail_ambiguous(source, &found[*place], start, err);
	if (start->is_valid &&
	    (!found[*place].is_valid || options->vhd_footer == VD_FOOTER_START))
		*place = AT_START;
	return 0;
}

int vhd_footer_find(const struct vd_source *source, const struct vd_image_options *options,
		    struct vhd_footer *footer, struct vd_error *err)
{
	struct candidate found[PLACES];
	size_t place = 0;
	int r = candidates_read(source, options, found, err);

	if (r == 0)
		r = choose(source, options, found, &place, err);
	if (r < 0)
		return r;
	memcpy(footer->bytes, found[place].bytes, FOOTER_BYTES);
	footer->sum_is_wrong = !found[place].is_valid;
	footer->end_is_lost = place == AT_START && !found[AT_END].is_valid &&
			      !found[AT_END_OLD].is_valid;
	/* What looks like a footer at the end is not the disk's, even where it is not believed. */
	footer->data_end = found[AT_END].has_cookie	? found[AT_END].host :
			   found[AT_END_OLD].has_cookie ? found[AT_END_OLD].host :
							  source->size;
	return 0;
}

int vhd_footer_identify(const struct vd_source *source, uint8_t *uuid)
{
	struct vd_image_options options = { .snapshot = NULL };
	struct vhd_footer footer;
	int r = vhd_footer_probe(source);

	if (r <= 0 || vhd_footer_find(source, &options, &footer, NULL) < 0)
		return r < 0 ? r : 0;
	memcpy(uuid, footer.bytes + FOOTER_UUID, FOOTER_UUID_BYTES);
	return 1;
}
