/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decoded units: a bounded cache of decompressed clusters and the threads that fill it.
 *
 * A reader first asks for all units that its request needs (and, when it reads in order, for
 * the next ones), then gets them one after the other: what the threads have not begun by then
 * it decodes itself. Nothing is decoded twice at once, and no lock is held while decoding.
 *
 * All functions may be called by any thread.
 */
#ifndef VD_DISK_UNITS_H
#define VD_DISK_UNITS_H

#include "format/format.h"

struct vd_units;
struct vd_unit;

/*
 * memory: bytes of decoded data to keep; a unit in use counts but is never dropped. threads: how
 * many to decode with besides the callers; they start when first asked for something. 0 or -ENOMEM.
 */
int vd_units_new(size_t memory, unsigned threads, struct vd_units **out);

/* No unit may be in use. Ends the threads. NULL is fine. */
void vd_units_free(struct vd_units *units);

/* Have the unit of a CODED run decoded soon, if there is room and it is not there already. */
void vd_units_ask(struct vd_units *units, const struct vd_image *image, const struct vd_run *run);

/*
 * Get the run->length decoded bytes of a CODED run; they stay until vd_units_put(). 0,
 * -EIO for damage, or what else the driver's decode() returned, or -ENOMEM. Damage is returned again
 * for a second or two without decoding: a reader that goes through a damaged unit in small steps
 * would otherwise have it decoded for each of them. A read that failed is tried again each time.
 */
int vd_units_get(struct vd_units *units, const struct vd_image *image, const struct vd_run *run,
		 struct vd_scratch *scratch, struct vd_unit **unit, const uint8_t **bytes);

void vd_units_put(struct vd_units *units, struct vd_unit *unit);

/* Bytes of decoded data held now; for tests and reports. */
size_t vd_units_bytes(struct vd_units *units);

/*
 * Tell of a read of [virt, end). Returns how many bytes from `end` on are worth asking for: some
 * when this read goes on where an earlier one ended, else 0.
 */
uint64_t vd_units_ahead(struct vd_units *units, uint64_t virt, uint64_t end);

#endif
