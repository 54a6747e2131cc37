/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pieces of the whole disk in order, found by several threads ahead of whoever asks for them.
 *
 * The disk is cut into sections. Each thread takes the next one and walks it; what it finds waits
 * in a buffer until its turn has come. There are a few more buffers than threads, of fixed size, so
 * that memory does not grow with the disk.
 */
#ifndef VD_MAP_SCAN_H
#define VD_MAP_SCAN_H

#include "disk/walk.h"
#include "map/joined.h"

struct vd_scan;

/*
 * Begin, with up to VD_SCAN_THREADS_MAX threads, as far as they can be had; without any the walk is
 * done by who asks. The disk must outlive the scan. 0 or -ENOMEM.
 */
#define VD_SCAN_THREADS_MAX 4
int vd_scan_new(const struct vd_disk *disk, unsigned threads, struct vd_scan **out);

/* As many threads as help on this machine. */
unsigned vd_scan_threads(void);

/* End the threads, wait for them, free. NULL is fine. */
void vd_scan_free(struct vd_scan *scan);

/*
 * The next piece; neighbours may be of one kind. One thread at a time.
 * 1; 0: the end of the disk; -ENOMEM from a driver, or -ECANCELED after vd_scan_stop().
 */
int vd_scan_next(struct vd_scan *scan, struct vd_piece *piece);

/* May the next call have to wait? Then this is the time to pass on what there is. Same thread. */
bool vd_scan_would_wait(const struct vd_scan *scan);

/*
 * Bytes that cannot be read, in what was given out and what is at hand behind it; exact whenever
 * vd_scan_would_wait(). The thread that calls vd_scan_next().
 */
uint64_t vd_scan_bad_bytes(const struct vd_scan *scan);

/* The clusters of the disk that these bytes are in. Likewise. */
const struct vd_joined *vd_scan_unreadable(const struct vd_scan *scan);

/* From any thread: whoever waits in vd_scan_next() need wait no longer. */
void vd_scan_stop(struct vd_scan *scan);

#endif
