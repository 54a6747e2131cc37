/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counting the JSON's characters and keeping marks in it: see marks.h. */
#include "config.h"

#include "map/marks.h"

#define FIRST_STEP 1024

void vd_marks_init(struct vd_marks *marks, uint64_t virtual_size, unsigned cluster_bits)
{
	char text[VD_JSON_PIECE_MAX];

	marks->pairs = (struct vd_pairs){ .cluster_bits = cluster_bits };
	marks->head = vd_json_head(text, virtual_size, cluster_bits);
	marks->json = marks->head;
	marks->number = marks->sum = 0;
	marks->step = FIRST_STEP;
	marks->count = 0;
}

static void marks_thin(struct vd_marks *marks)
{
	for (unsigned i = 0; i < VD_MARKS_MAX / 2; i++)
		marks->marks[i] = marks->marks[2 * i];
	marks->count = VD_MARKS_MAX / 2;
	marks->step *= 2;
}

static void marks_pair(struct vd_marks *marks, const struct vd_pair *pair)
{
	if (marks->number % marks->step == 0) {
		if (marks->count == VD_MARKS_MAX)
			marks_thin(marks);
		if (marks->number % marks->step == 0)
			marks->marks[marks->count++] = (struct vd_json_mark){
				.virt = pair->first << marks->pairs.cluster_bits,
				.json = marks->json,
				.number = marks->number,
				.sum = marks->sum,
			};
	}
	marks->sum += vd_pair_sum(pair);
	marks->json += vd_json_pair_bytes(pair, marks->number == 0);
	marks->number++;
}

void vd_marks_add(struct vd_marks *marks, uint64_t start, uint64_t end)
{
	struct vd_pair done;

	if (vd_pairs_add(&marks->pairs, start, end, &done))
		marks_pair(marks, &done);
}

void vd_marks_end(struct vd_marks *marks, const struct vd_joined *unreadable)
{
	struct vd_pair done;

	if (vd_pairs_end(&marks->pairs, &done))
		marks_pair(marks, &done);
	marks->json += vd_json_tail_bytes(true, unreadable);
}

struct vd_json_mark vd_marks_find(const struct vd_marks *marks, uint64_t json)
{
	unsigned low = 0, high = marks->count;

	if (marks->count == 0 || marks->marks[0].json > json)
		return (struct vd_json_mark){ .json = marks->head };
	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;

		if (marks->marks[middle].json <= json)
			low = middle;
		else
			high = middle;
	}
	return marks->marks[low];
}

bool vd_marks_stretch(const struct vd_marks *marks, uint64_t number, struct vd_stretch_mark *mark)
{
	uint64_t i = number / marks->step; /* marks[i].number is i * step */
	bool is_last = i + 1 >= marks->count;

	if (number >= marks->number)
		return false;
	*mark = (struct vd_stretch_mark){
		.virt = marks->marks[i].virt,
		.number = marks->marks[i].number,
		.count = (is_last ? marks->number : marks->marks[i + 1].number) -
			 marks->marks[i].number,
		.sum = (is_last ? marks->sum : marks->marks[i + 1].sum) - marks->marks[i].sum,
	};
	return true;
}
