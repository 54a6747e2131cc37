/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loading integers from bytes, and arithmetic that cannot overflow unseen.
 *
 * A number that came from an image goes through get_*() once and through the helpers below
 * whenever it is added or multiplied. Everything here is pure and may be called by any thread.
 */
#ifndef VD_BASE_BYTES_H
#define VD_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VD_SECTOR 512u

static inline uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t get_be64(const uint8_t *p)
{
	return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}

static inline uint16_t get_le16(const uint8_t *p)
{
	return (uint16_t)(p[1] << 8 | p[0]);
}

static inline uint32_t get_le32(const uint8_t *p)
{
	return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline uint64_t vd_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t vd_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ceil(a / b) for b > 0; never overflows. */
static inline uint64_t vd_div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static inline bool vd_is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/* floor(log2(n)) for n > 0. */
static inline unsigned vd_log2(uint64_t n)
{
	return 63u - (unsigned)__builtin_clzll(n);
}

/* Stir a number into a sum. Every bit of both changes about half of the bits of the result. */
static inline uint64_t vd_mix(uint64_t sum, uint64_t number)
{
	uint64_t mixed = sum * UINT64_C(0x9e3779b97f4a7c15) + number + 1;

	mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
	return mixed ^ mixed >> 31;
}

/* Stir a text into a sum. */
static inline uint64_t vd_mix_text(uint64_t sum, const char *text)
{
	for (; *text; text++)
		sum = vd_mix(sum, (unsigned char)*text);
	return sum;
}

/* Is [start, start + length) inside [0, size)? False, too, when start + length overflows. */
static inline bool vd_inside(uint64_t start, uint64_t length, uint64_t size)
{
	return start <= size && length <= size - start;
}

/* Do [a, a + a_length) and [b, b + b_length) share a byte? The sums must not overflow. */
static inline bool vd_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

#endif
