/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing image files with some knowledge of their formats: table entries that point to where
 * something is, header fields at their limits, and VHD checksums that are right again.
 */
#include "config.h"

#include <string.h>

#include "base/bytes.h"
#include "harness.h"

struct dice {
	uint64_t state;
};

static uint64_t roll(struct dice *dice, uint64_t sides)
{
	dice->state = dice->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return sides ? (dice->state >> 20) % sides : 0;
}

static bool begins_with(const struct fuzz_file *file, uint64_t host, const char *magic)
{
	char found[8];
	size_t length = strlen(magic);

	fuzz_file_read(file, found, length, host);
	return memcmp(found, magic, length) == 0;
}

static uint64_t load(const struct fuzz_file *file, uint64_t host, unsigned bytes)
{
	uint8_t raw[8];
	uint64_t value = 0;

	fuzz_file_read(file, raw, bytes, host);
	for (unsigned i = 0; i < bytes; i++)
		value = value << 8 | raw[i];
	return value;
}

static void store(struct fuzz_file *file, uint64_t host, unsigned bytes, uint64_t value)
{
	uint8_t raw[8];

	for (unsigned i = bytes; i-- > 0; value >>= 8)
		raw[i] = (uint8_t)value;
	fuzz_file_write(file, raw, bytes, host);
}

/* An aligned place in what the file holds. */
static uint64_t any_word(const struct fuzz_file *file, unsigned bytes, struct dice *dice)
{
	const struct fuzz_record *record = &file->records[roll(dice, file->count)];

	return (record->offset + roll(dice, record->length)) & ~(uint64_t)(bytes - 1);
}

/* A number of a kind that breaks readers: where something lies, where the file ends, a limit. */
static uint64_t any_number(const struct fuzz_file *file, struct dice *dice)
{
	static const uint64_t limits[] = {
		0,          1,           2,          9,          16,
		21,         512,         UINT8_MAX,  UINT16_MAX, INT32_MAX,
		UINT32_MAX, 1u << 31,    INT64_MAX,  UINT64_MAX, 1ull << 62,
		1ull << 63, 32ull << 20, 2ull << 40, 1ull << 56, 0x7ffffffffffffe00,
	};

	switch (roll(dice, 5)) {
	case 0:
		return limits[roll(dice, sizeof(limits) / sizeof(*limits))];
	case 1:
		return file->records[roll(dice, file->count)].offset;
	case 2:
		return file->size - roll(dice, 3) * 512 - roll(dice, 2);
	case 3:
		return roll(dice, file->size) & ~(uint64_t)511;
	default:
		return load(file, any_word(file, 8, dice), 8) ^ (uint64_t)1 << roll(dice, 64);
	}
}

static void change_qcow2(struct fuzz_file *file, struct dice *dice)
{
	static const struct {
		uint8_t host, bytes;
	} fields[] = { { 4, 4 },  { 8, 8 },  { 16, 4 }, { 20, 4 }, { 24, 8 },  { 36, 4 }, { 40, 8 },
		       { 60, 4 }, { 64, 8 }, { 72, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 } };
	unsigned bits = (unsigned)load(file, 20, 4) & 31;
	uint64_t value = any_number(file, dice), flags = roll(dice, 16);
	size_t i;

	if (roll(dice, 6) == 0) {
		i = (size_t)roll(dice, sizeof(fields) / sizeof(*fields));
		store(file, fields[i].host, fields[i].bytes, value);
		return;
	}
	if (flags & 8) /* an entry of a table: a cluster's offset and flags */
		value = (value & ~(((uint64_t)1 << bits) - 1) & INT64_MAX) | (flags & 1) << 63 |
			(flags >> 1 & 1) << 62 | (flags >> 2 & 1);
	store(file, any_word(file, 8, dice), 8, value);
}

static void change_vhd(struct fuzz_file *file, struct dice *dice)
{
	static const uint16_t fields[] = { 16, 20, 40, 44, 48, 52, 56, 60 };
	static const uint16_t header_fields[] = { 8, 16, 20, 24, 28, 32, 576, 580, 584, 588, 592 };
	uint64_t value = any_number(file, dice), footer = file->size - 512, header;

	switch (roll(dice, 6)) {
	case 0:
		store(file, footer + fields[roll(dice, 8)], 4, value);
		return;
	case 1:
		header = load(file, footer + 16, 8);
		store(file, header + header_fields[roll(dice, 11)], 4, value);
		return;
	case 2: /* bits of a sector bitmap, perhaps */
		store(file, any_word(file, 1, dice), 1, value);
		return;
	default: /* a BAT entry, perhaps: sectors */
		store(file, any_word(file, 4, dice), 4, value / 512);
		return;
	}
}

void fuzz_change(struct fuzz_file *file, unsigned seed)
{
	struct dice dice = { seed };

	if (file->count == 0)
		return;
	if (begins_with(file, 0, "QFI\xfb"))
		change_qcow2(file, &dice);
	else
		change_vhd(file, &dice);
}

/* Make the checksum at `host` + place right, over so many bytes. */
static void repair_sum(struct fuzz_file *file, uint64_t host, unsigned bytes, unsigned place)
{
	uint8_t raw[1024];
	uint32_t sum = 0;

	fuzz_file_read(file, raw, bytes, host);
	for (unsigned i = 0; i < bytes; i++)
		sum += i >= place && i < place + 4 ? 0 : raw[i];
	store(file, host + place, 4, ~sum);
}

void fuzz_repair(struct fuzz_file *file)
{
	uint64_t ends[] = { 0, file->size - 512 };

	if (file->size < 512)
		return;
	for (int i = 0; i < 2; i++) {
		uint64_t header;

		if (!begins_with(file, ends[i], "conectix"))
			continue;
		repair_sum(file, ends[i], 512, 64);
		header = load(file, ends[i] + 16, 8);
		if (header < file->size && begins_with(file, header, "cxsparse"))
			repair_sum(file, header, 1024, 36);
	}
}
