/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QCOW2: the snapshot table. Entries have variable length, so that the table's end is known only
 * after a walk; the limits are QEMU's. Threads: pure but for the metadata cache.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2.h"

/* Offsets in an entry ("Snapshots"). */
enum {
	ENTRY_L1_OFFSET = 0,
	ENTRY_L1_SIZE = 8,
	ENTRY_ID_BYTES = 12,
	ENTRY_NAME_BYTES = 14,
	ENTRY_DATE_SEC = 16,
	ENTRY_DATE_NS = 20,
	ENTRY_VM_CLOCK = 24,
	ENTRY_VM_STATE_BYTES = 32,
	ENTRY_EXTRA_BYTES = 36,
	ENTRY_BYTES = 40,
	EXTRA_VM_STATE_BYTES = 0,
	EXTRA_DISK_SIZE = 8,
	EXTRA_ICOUNT = 16,
	EXTRA_BYTES_MAX = 1024,
	SNAPSHOTS_MAX = 65536,
	PAGE_BITS = 16,
};

#define TABLE_BYTES_MAX (UINT64_C(64) << 20)

/* Room for the extra data and two strings with their NULs. */
#define VARIABLE_BYTES_MAX (EXTRA_BYTES_MAX + 2 * (UINT16_MAX + 1))

/* Entries are small and lie side by side: a page holds hundreds of them. */
static int table_read(const struct vd_image *image, uint64_t host, uint8_t *buffer, size_t bytes)
{
	return vd_cache_read(image->cache, image->source, PAGE_BITS, host, buffer, bytes);
}

/* Read entry `index` at *host, call fn, and move *host to the next. buffer: VARIABLE_BYTES_MAX. */
static int entry_visit(const struct vd_image *image, uint32_t index, uint64_t *host,
		       uint8_t *buffer, vd_snapshot_fn *fn, void *data, struct vd_error *err)
{
	const struct vd_source *source = image->source;
	const struct qcow2 *q = image->state;
	uint8_t entry[ENTRY_BYTES];
	uint32_t id_bytes, name_bytes, extra_bytes, variable;
	struct vd_snapshot snapshot;
	char *id, *name;
	int r;

	if (!vd_inside(*host, ENTRY_BYTES, source->size))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 snapshot table entry %" PRIu32 " at 0x%" PRIx64
			       " ends past the end of the file; the image is damaged or cut short",
			       source->name, index, *host);
	r = table_read(image, *host, entry, ENTRY_BYTES);
	if (r < 0)
		goto fail;
	id_bytes = get_be16(entry + ENTRY_ID_BYTES);
	name_bytes = get_be16(entry + ENTRY_NAME_BYTES);
	extra_bytes = get_be32(entry + ENTRY_EXTRA_BYTES);
	if (extra_bytes > EXTRA_BYTES_MAX)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 snapshot table entry %" PRIu32
			       " has extra_data_size %" PRIu32 "; at most 1024 are allowed",
			       source->name, index, extra_bytes);
	variable = extra_bytes + id_bytes + name_bytes;
	if (!vd_inside(*host + ENTRY_BYTES, variable, source->size))
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 snapshot table entry %" PRIu32 " at 0x%" PRIx64
			       " ends past the end of the file; the image is damaged or cut short",
			       source->name, index, *host);
	r = vd_budget_spend(image->budget, ENTRY_BYTES + variable + VD_COST_RECORD, source->name,
			    "QCOW2 nb_snapshots", q->snapshot_count, err);
	if (r < 0)
		return r;
	r = table_read(image, *host + ENTRY_BYTES, buffer, variable);
	if (r < 0)
		goto fail;
	/* The name first: making room for the NUL of the ID moves it by one. */
	id = (char *)buffer + extra_bytes;
	name = id + id_bytes + 1;
	memmove(name, id + id_bytes, name_bytes);
	name[name_bytes] = '\0';
	id[id_bytes] = '\0';
	snapshot = (struct vd_snapshot){
		.l1_host = get_be64(entry + ENTRY_L1_OFFSET),
		.l1_size = get_be32(entry + ENTRY_L1_SIZE),
		.disk_bytes = extra_bytes >= EXTRA_DISK_SIZE + 8
				      ? get_be64(buffer + EXTRA_DISK_SIZE)
				      : q->active_size,
		.vm_state_bytes = extra_bytes >= EXTRA_VM_STATE_BYTES + 8
					  ? get_be64(buffer + EXTRA_VM_STATE_BYTES)
					  : get_be32(entry + ENTRY_VM_STATE_BYTES),
		.vm_clock_ns = get_be64(entry + ENTRY_VM_CLOCK),
		.icount = extra_bytes >= EXTRA_ICOUNT + 8 ? get_be64(buffer + EXTRA_ICOUNT)
							  : UINT64_MAX,
		.date_sec = get_be32(entry + ENTRY_DATE_SEC),
		.date_ns = get_be32(entry + ENTRY_DATE_NS),
		.id = id,
		.name = name,
	};
	snapshot.has_icount = snapshot.icount != UINT64_MAX;
	*host += vd_div_up(ENTRY_BYTES + variable, 8) * 8;
	if (snapshot.disk_bytes > INT64_MAX)
		return vd_fail(err, EFBIG,
			       "%s: QCOW2 snapshot table entry %" PRIu32 " has disk size %" PRIu64
			       " bytes, more than a file can have",
			       source->name, index, snapshot.disk_bytes);
	return fn(&snapshot, data);
fail:
	return vd_fail(err, -r, "%s: cannot read the QCOW2 snapshot table: %s", source->name,
		       strerror(-r));
}

int qcow2_snapshots(const struct vd_image *image, vd_snapshot_fn *fn, void *data,
		    struct vd_error *err)
{
	const struct qcow2 *q = image->state;
	uint64_t table_host = q->snapshot_host, host = table_host;
	uint32_t count = q->snapshot_count;
	uint8_t *buffer;
	int r = 0;

	if (count > SNAPSHOTS_MAX)
		return vd_fail(err, EFBIG,
			       "%s: QCOW2 nb_snapshots is %" PRIu32 "; the limit is 65536",
			       image->source->name, count);
	if (count > 0 && table_host % q->cluster_bytes != 0)
		return vd_fail(err, EINVAL,
			       "%s: QCOW2 snapshots_offset is 0x%" PRIx64
			       ", not aligned to a cluster; the image is damaged",
			       image->source->name, table_host);
	buffer = malloc(VARIABLE_BYTES_MAX);
	if (!buffer)
		return vd_fail(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < count && r == 0; i++) {
		if (host - table_host > TABLE_BYTES_MAX)
			r = vd_fail(err, EFBIG,
				    "%s: QCOW2 snapshot table has more than 64 MiB; the image is "
				    "damaged",
				    image->source->name);
		else
			r = entry_visit(image, i, &host, buffer, fn, data, err);
	}
	free(buffer);
	return r;
}
