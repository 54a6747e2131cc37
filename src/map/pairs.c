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

/* The last step of SplitMix64: each bit of the number changes each bit of the result. */
static uint64_t bits_mix(uint64_t number)
{
	number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
	return number ^ number >> 31;
}

uint64_t vd_pair_sum(const struct vd_pair *pair)
{
	return bits_mix(pair->first ^ bits_mix(pair->last + UINT64_C(0x9e3779b97f4a7c15)));
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

/* How many decimal digits: about 0.30103 for each bit, then compared with the exact power of ten. */
static unsigned digits_of(uint64_t number)
{
	static const uint64_t powers[] = {
		0,    1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
		1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
	};
	unsigned guess = (64 - (unsigned)__builtin_clzll(number | 1)) * 1233 >> 12;

	return guess + (number >= powers[guess]);
}

size_t vd_json_pair_bytes(const struct vd_pair *pair, bool is_first)
{
	return digits_of(pair->first) + digits_of(pair->last) + 3 + !is_first;
}

size_t vd_json_pair(char *text, const struct vd_pair *pair, bool is_first)
{
	size_t length = vd_json_pair_bytes(pair, is_first);
	char *at = text + length;

	*--at = ']';
	at = digits_put(at, pair->last);
	*--at = ',';
	at = digits_put(at, pair->first);
	*--at = '[';
	if (!is_first)
		*--at = ',';
	return length;
}

size_t vd_json_number(char *text, uint64_t cluster, bool is_first)
{
	size_t length = digits_of(cluster) + !is_first;

	digits_put(text + length, cluster);
	if (!is_first)
		*text = ',';
	return length;
}
