/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers in order of use, the last one first; within one, ranges are found by bisection. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "source/holes.h"

/* As many as threads may walk at once, and some. */
#define ANSWERS_MAX 16

struct range {
	uint64_t end; /* it begins where the one before ends */
	bool is_hole;
};

struct vd_answer {
	uint64_t start;
	unsigned count, room;
	struct range ranges[];
};

struct vd_holes {
	pthread_mutex_t lock;
	struct vd_answer *answers[ANSWERS_MAX];
	unsigned count;
};

struct vd_answer *vd_answer_new(uint64_t start, unsigned room)
{
	struct vd_answer *answer = malloc(sizeof(*answer) + room * sizeof(answer->ranges[0]));

	if (answer) {
		answer->start = start;
		answer->count = 0;
		answer->room = room;
	}
	return answer;
}

uint64_t vd_answer_end(const struct vd_answer *answer)
{
	return answer->count ? answer->ranges[answer->count - 1].end : answer->start;
}

bool vd_answer_add(struct vd_answer *answer, uint64_t bytes, bool is_hole)
{
	uint64_t end = vd_answer_end(answer) + bytes;

	if (answer->count && answer->ranges[answer->count - 1].is_hole == is_hole) {
		answer->ranges[answer->count - 1].end = end;
		return true;
	}
	if (answer->count == answer->room)
		return false;
	answer->ranges[answer->count++] = (struct range){ .end = end, .is_hole = is_hole };
	return true;
}

void vd_answer_find(const struct vd_answer *answer, uint64_t host, bool *is_hole, uint64_t *end)
{
	unsigned low = 0, high = answer->count - 1;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (answer->ranges[middle].end > host)
			high = middle;
		else
			low = middle + 1;
	}
	*is_hole = answer->ranges[low].is_hole;
	*end = answer->ranges[low].end;
}

void vd_answer_free(struct vd_answer *answer)
{
	free(answer);
}

int vd_holes_new(struct vd_holes **out)
{
	struct vd_holes *holes = calloc(1, sizeof(*holes));

	if (!holes)
		return -ENOMEM;
	pthread_mutex_init(&holes->lock, NULL);
	*out = holes;
	return 0;
}

void vd_holes_free(struct vd_holes *holes)
{
	if (!holes)
		return;
	for (unsigned i = 0; i < holes->count; i++)
		vd_answer_free(holes->answers[i]);
	pthread_mutex_destroy(&holes->lock);
	free(holes);
}

/* Put the answer first; what is at `place` makes way. */
static void put_first(struct vd_holes *holes, unsigned place, struct vd_answer *answer)
{
	memmove(&holes->answers[1], &holes->answers[0], place * sizeof(struct vd_answer *));
	holes->answers[0] = answer;
}

void vd_holes_keep(struct vd_holes *holes, struct vd_answer *answer)
{
	pthread_mutex_lock(&holes->lock);
	if (holes->count == ANSWERS_MAX)
		vd_answer_free(holes->answers[holes->count - 1]);
	else
		holes->count++;
	put_first(holes, holes->count - 1, answer);
	pthread_mutex_unlock(&holes->lock);
}

bool vd_holes_find(struct vd_holes *holes, uint64_t host, bool *is_hole, uint64_t *end)
{
	bool found = false;

	pthread_mutex_lock(&holes->lock);
	for (unsigned i = 0; i < holes->count && !found; i++) {
		struct vd_answer *answer = holes->answers[i];

		found = host >= answer->start && host < vd_answer_end(answer);
		if (!found)
			continue;
		vd_answer_find(answer, host, is_hole, end);
		put_first(holes, i, answer);
	}
	pthread_mutex_unlock(&holes->lock);
	return found;
}
