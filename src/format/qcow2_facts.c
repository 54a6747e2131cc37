/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: what there is to tell about an image besides its disk, under the names that qemu-img info
 * has for it. Threads: pure but for reading the source.
 */
#include "config.h"

#include "base/bytes.h"
#include "format/qcow2.h"

int qcow2_facts(const struct vd_image *image, vd_fact_fn *fn, void *data)
{
	const struct qcow2 *q = image->state;
	bool recent = q->version >= 3;
	const struct vd_fact facts[] = {
		{ .name = "dirty-flag", .kind = VD_FACT_BOOL, .number = q->incompatible & 1 },
		{ .name = "compat", .kind = VD_FACT_TEXT, .text = recent ? "1.1" : "0.10" },
		{ .name = "data-file",
		  .kind = VD_FACT_TEXT,
		  .text = q->data_name,
		  .left_out = !q->has_data_file || !q->data_name },
		{ .name = "data-file-raw",
		  .kind = VD_FACT_BOOL,
		  .number = q->data_file_raw,
		  .left_out = !q->has_data_file },
		{ .name = "compression-type", .kind = VD_FACT_TEXT, .text = image->compression },
		{ .name = "lazy-refcounts",
		  .kind = VD_FACT_BOOL,
		  .number = q->compatible & 1,
		  .left_out = !recent },
		{ .name = "refcount-bits",
		  .kind = VD_FACT_NUMBER,
		  .number = UINT64_C(1) << vd_min(q->refcount_order, 6) },
		{ .name = "corrupt",
		  .kind = VD_FACT_BOOL,
		  .number = q->incompatible >> 1 & 1,
		  .left_out = !recent },
		{ .name = "extended-l2",
		  .kind = VD_FACT_BOOL,
		  .number = q->extended_l2,
		  .left_out = !recent },
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]) && r == 0; i++) {
		if (!facts[i].left_out)
			r = fn(&facts[i], data);
	}
	return r;
}
