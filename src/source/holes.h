/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a server or a file system has said about holes, kept for a while: it answers for many ranges
 * at once, and a walk over the disk asks for them one by one.
 *
 * An answer is a row of neighbouring ranges. The last few answers are kept, the one that was used
 * longest ago goes first. Self-locking.
 */
#ifndef VD_SOURCE_HOLES_H
#define VD_SOURCE_HOLES_H

#include <stdbool.h>
#include <stdint.h>

/* Ranges in an answer of a server; what comes after them is asked for again. */
#define VD_HOLES_MAX 4096

/* An answer, made by one thread. */
struct vd_answer;
struct vd_holes;

/* An answer of up to `room` ranges that begins at byte `start`. NULL for want of memory. */
struct vd_answer *vd_answer_new(uint64_t start, unsigned room);

/* Add the next `bytes` (> 0) bytes. False: there is no room, and the answer ends before them. */
bool vd_answer_add(struct vd_answer *answer, uint64_t bytes, bool is_hole);

/* The byte behind the answer. */
uint64_t vd_answer_end(const struct vd_answer *answer);

/* Is this byte of the answer in a hole, and up to where (> host) does that hold? */
void vd_answer_find(const struct vd_answer *answer, uint64_t host, bool *is_hole, uint64_t *end);

/* NULL is fine. */
void vd_answer_free(struct vd_answer *answer);

/* 0 or -ENOMEM. */
int vd_holes_new(struct vd_holes **out);

/* NULL is fine. */
void vd_holes_free(struct vd_holes *holes);

/* Keep the answer, which is taken over. */
void vd_holes_keep(struct vd_holes *holes, struct vd_answer *answer);

/* Is this byte in a hole, and up to where (> host) does that hold? False: it must be asked. */
bool vd_holes_find(struct vd_holes *holes, uint64_t host, bool *is_hole, uint64_t *end);

#endif
