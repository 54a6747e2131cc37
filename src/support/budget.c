/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See budget.h. Once it is spent it stays spent: smaller files that follow are refused as well. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>

#include "support/budget.h"

int vd_budget_spend(struct vd_budget *budget, uint64_t work, const char *name, const char *what,
		    uint64_t value, struct vd_error *err)
{
	if (!budget || work <= budget->left) {
		if (budget)
			budget->left -= work;
		return 0;
	}
	budget->left = 0;
	return vd_fail(err, E2BIG,
		       "%s: %s is %" PRIu64 ": with the files opened before it, the tables are more "
		       "than vdifs checks for one chain (the limit is %" PRIu64
		       " MiB); merge layers, or open a lower layer by itself",
		       name, what, value, VD_BUDGET_WORK >> 20);
}
