/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interval index of a disk: where its data lies, found fast.
 *
 * A background thread walks the disk once and stores what it finds, up to a bound of memory. Nobody
 * has to wait for it: what is not stored (not yet, or for want of room: the mixed run from there to
 * the end of the disk) is walked on the spot, so that all answers are exact at all times. What only
 * a whole walk can tell (the totals, the length of the JSON) is had by waiting.
 *
 * All functions may be called by any thread. An iterator belongs to one.
 */
#ifndef VD_MAP_INDEX_H
#define VD_MAP_INDEX_H

#include "disk/walk.h"
#include "map/intervals.h"
#include "map/joined.h"
#include "map/pairs.h"
#include "map/scan.h"

struct vd_index;

/* Asked now and then during long work: true ends it with -EINTR. */
typedef bool vd_interrupted_fn(void *context);

struct vd_interrupt {
	vd_interrupted_fn *interrupted; /* NULL: never */
	void *context;
};

static inline bool vd_is_interrupted(const struct vd_interrupt *interrupt)
{
	return interrupt && interrupt->interrupted && interrupt->interrupted(interrupt->context);
}

/* map_memory: the bound in bytes. The disk must outlive the index. 0 or -ENOMEM. */
int vd_index_new(const struct vd_disk *disk, size_t map_memory, struct vd_index **out);

/*
 * An index whose memory counts against the bound of another one, which must outlive it: first come,
 * first served. 0 or -ENOMEM.
 */
int vd_index_new_sharing(const struct vd_disk *disk, struct vd_index *other, struct vd_index **out);

/*
 * Start the background threads, unless they have been. Without them everything but waiting works. 0
 * or -errno, after which it may be tried again.
 */
int vd_index_start(struct vd_index *index);

/* Stop the threads, wait for them, free. NULL is fine. */
void vd_index_free(struct vd_index *index);

const struct vd_disk *vd_index_disk(const struct vd_index *index);

/* What is known so far. Once complete, all of it is exact and stays. */
struct vd_index_totals {
	bool complete;
	uint64_t mapped_bytes; /* virtual bytes walked */
	uint64_t data_bytes; /* data among them */
	uint64_t intervals; /* of data */
	uint64_t bad_bytes; /* that cannot be read */
	uint64_t json_bytes; /* length of the exact JSON; 0 until complete */
};

/* The clusters that cannot be read. Only once the index is complete; they stay. */
const struct vd_joined *vd_index_unreadable(const struct vd_index *index);

void vd_index_totals(struct vd_index *index, struct vd_index_totals *totals);

/*
 * What st_blocks is to be: data bytes / 512, but not 0 where there is data (GNU tar takes a file of
 * 0 blocks for one hole) and less than size / 512 where there is a hole (else cp and tar do not
 * look for holes). *is_exact false: an estimate within these bounds, since the walk is not
 * complete.
 */
uint64_t vd_index_blocks(struct vd_index *index, bool *is_exact);

/* Has the walk been started and is over, complete or not, or pauses? */
bool vd_index_has_ended(struct vd_index *index);

/*
 * Wait until the walk is complete. 0, -EINTR, or the error that ended it. -ENOMEM is not for good: the
 * walk goes on after a while.
 */
int vd_index_wait(struct vd_index *index, const struct vd_interrupt *interrupt);

/* The same without waiting: -EAGAIN while the walk is under way, or has not been started. */
int vd_index_poll(struct vd_index *index);

/*
 * Find the next data (or hole) at or after virt (< size of the disk). 0; -ENXIO: there is none
 * before the end of the disk; -EINTR: not before *found, from where it may go on; -ENOMEM.
 */
int vd_index_seek(struct vd_index *index, uint64_t virt, bool want_data, uint64_t *found,
		  const struct vd_interrupt *interrupt);

/* The pieces of the disk from a place on. Large: not for the stack of a deep call. */
struct vd_index_iter {
	struct vd_index *index;
	uint64_t virt; /* the next byte to tell of */
	bool in_list; /* `at` is the stored interval before virt */
	struct vd_interval at;
	bool in_walk; /* `walk` stands at virt */
	struct vd_walk walk;
	struct vd_scan *scan; /* where all comes from; NULL: none */
};

void vd_index_iter_init(struct vd_index_iter *iter, struct vd_index *index, uint64_t virt);

/*
 * Take all pieces from a fresh scan of the disk, with its threads, instead of from the index. The
 * iter has just been placed at 0; it does not own the scan.
 */
void vd_index_iter_scan(struct vd_index_iter *iter, struct vd_scan *scan);

/* 1: a piece (neighbours may be of one kind); 0: the end of the disk; -ENOMEM. */
int vd_index_iter_next(struct vd_index_iter *iter, struct vd_piece *piece);

/*
 * Find the next pair of clusters that hold data. The iter and `pairs`, which the caller has zeroed
 * but for its cluster_bits, go together. 1; 0: there are no more; -EINTR, after which it may be
 * called again; -ENOMEM.
 */
int vd_index_iter_pair(struct vd_index_iter *iter, struct vd_pairs *pairs, struct vd_pair *pair,
		       const struct vd_interrupt *interrupt);

/*
 * A place in the JSON text from which it can be made: the pairs that begin at virtual byte `virt`
 * are written from character `json` on; `number` pairs come before.
 */
struct vd_json_mark {
	uint64_t virt, json, number;
	uint64_t sum; /* of the pairs before, see vd_pair_sum() */
};

/* The last mark at or before the character. Only once the index is complete. */
struct vd_json_mark vd_index_json_mark(struct vd_index *index, uint64_t json);

struct vd_stretch_mark;

/* Which stretch (stretch.h) of the text's pairs that one is in. Likewise. False: it has none. */
bool vd_index_json_stretch(struct vd_index *index, uint64_t number, struct vd_stretch_mark *mark);

/* The disk, walked over again, is not what it was when the index was made: -EIO, logged once. */
int vd_index_differs(struct vd_index *index);

#endif
