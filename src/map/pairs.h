/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From data intervals to the cluster pairs of the JSON, and the JSON's text piece by piece.
 *
 * Data is rounded outward to whole clusters; the last pair ends at the last cluster of the disk,
 * also when that is a partial one; neighbours are merged. Pure, no memory of its own.
 */
#ifndef VD_MAP_PAIRS_H
#define VD_MAP_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vd_pair {
	uint64_t first, last; /* clusters, both included */
};

/* Collects intervals; zero it but for cluster_bits. */
struct vd_pairs {
	unsigned cluster_bits;
	bool open; /* there is a pair that may still grow */
	struct vd_pair pair;
};

/*
 * Take the next data interval [start, end), which begins at or after the end of the last one.
 * True: *done is a pair that cannot grow any more.
 */
bool vd_pairs_add(struct vd_pairs *pairs, uint64_t start, uint64_t end, struct vd_pair *done);

/* There are no more intervals. True: *done is the last pair. */
bool vd_pairs_end(struct vd_pairs *pairs, struct vd_pair *done);

/*
 * A number by which pairs are known again: two lists of ascending pairs whose sums are equal, modulo
 * 2^64, are taken for the same. No protection against who wants to deceive.
 */
uint64_t vd_pair_sum(const struct vd_pair *pair);

/* The longest of the texts below. */
#define VD_JSON_PIECE_MAX 128

/*
 * The text of the JSON, in order: a head, for each pair its text, a tail (joined.h). Each returns the number
 * of characters put into text[VD_JSON_PIECE_MAX].
 */
size_t vd_json_head(char *text, uint64_t virtual_size, unsigned cluster_bits);
size_t vd_json_pair(char *text, const struct vd_pair *pair, bool is_first);
size_t vd_json_number(char *text, uint64_t cluster, bool is_first); /* instead of a pair */

/* The length of vd_json_pair()'s text, without making it. */
size_t vd_json_pair_bytes(const struct vd_pair *pair, bool is_first);

#endif
