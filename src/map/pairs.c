/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rounding and merging of the JSON map, and its exact text: see pairs.h. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "map/pairs.h"

bool vd_pairs_add(struct vd_pairs *pairs, uint64_t start, uint64_t end, struct vd_pair *done)
{
	struct vd_pair fresh = {
		.first = start >> pairs->cluster_bits,
		.last = (end - 1) >> pairs->cluster_bits,
	};

	if (pairs->open && fresh.first <= pairs->pair.last + 1) {
		pairs->pair.last = fresh.last;
		return false;
	}
	*done = pairs->pair;
	pairs->pair = fresh;
	if (pairs->open)
		return true;
	pairs->open = true;
	return false;
}

bool vd_pairs_end(struct vd_pairs *pairs, struct vd_pair *done)
{
	bool was_open = pairs->open;

	*done = pairs->pair;
	pairs->open = false;
	return was_open;
}

size_t vd_json_head(char *text, uint64_t virtual_size, unsigned cluster_bits)
{
	return (size_t)snprintf(text, VD_JSON_PIECE_MAX,
				"{\"virtual_size\":%" PRIu64
				",\"cluster_bits\":%u,\"data_clusters\":[",
				virtual_size, cluster_bits);
}

/*
 * Decimal digits, backwards from `end`, two at a time. Millions of pairs are printed, and printf
 * takes ten times as long.
 */
static char *digits_put(char *end, uint64_t number)
{
	static const char pairs[] = "0001020304050607080910111213141516171819"
				    "2021222324252627282930313233343536373839"
				    "4041424344454647484950515253545556575859"
				    "6061626364656667686970717273747576777879"
				    "8081828384858687888990919293949596979899";

	while (number >= 100) {
		end -= 2;
		memcpy(end, pairs + 2 * (number % 100), 2);
		number /= 100;
	}
	if (number >= 10) {
		end -= 2;
		memcpy(end, pairs + 2 * number, 2);
	} else {
		*--end = (char)('0' + number);
	}
	return end;
}

size_t vd_json_pair(char *text, const struct vd_pair *pair, bool is_first)
{
	char buffer[48]; /* two numbers of 20 digits, "[,]" and a comma */
	char *end = buffer + sizeof(buffer), *at = end;
	size_t length;

	*--at = ']';
	at = digits_put(at, pair->last);
	*--at = ',';
	at = digits_put(at, pair->first);
	*--at = '[';
	if (!is_first)
		*--at = ',';
	length = (size_t)(end - at);
	memcpy(text, at, length);
	return length;
}

size_t vd_json_tail(char *text, bool is_exact)
{
	return (size_t)snprintf(text, VD_JSON_PIECE_MAX, "%s",
				is_exact ? "]}" : "],\"exact\":false}");
}
