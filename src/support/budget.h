/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the opening of a whole chain may cost. Limits for each file do not bound it: 256 layers, each
 * with the largest tables that a file may have, would take minutes before the mount is made or
 * refused. So all files, snapshots and parents that are tried on the way spend from one budget.
 *
 * The unit is the work of checking one byte of a table that is in order, below a nanosecond on a
 * machine of today; what costs more than a pass over its bytes is counted as more bytes. Ordinary
 * images spend little: a disk of 1 TiB has 16 KiB (QCOW2) or 2 MiB (VHD) of such tables.
 *
 * Counting, and not measuring time, makes the answer the same on each machine and each time.
 * One thread.
 */
#ifndef VD_SUPPORT_BUDGET_H
#define VD_SUPPORT_BUDGET_H

#include <stdint.h>

#include "base/error.h"

#define VD_BUDGET_WORK ((uint64_t)640 << 20)

/* What else costs as many bytes of a table. */
#define VD_COST_FILE (64u << 10) /* opening a file, whether it is of use or not */
#define VD_COST_RECORD 128u /* reading one record of a table of variable ones */
#define VD_COST_SORTED 96u /* a block or L2 table, where they are sorted */
#define VD_COST_KEPT 4u /* a byte of memory that is kept while the image is open */

struct vd_budget {
	uint64_t left;
};

/*
 * Spend `work`. 0, or -E2BIG with a message: "name: WHAT is VALUE: ...". NULL: there is no budget, as
 * after the opening.
 */
int vd_budget_spend(struct vd_budget *budget, uint64_t work, const char *name, const char *what,
		    uint64_t value, struct vd_error *err);

#endif
