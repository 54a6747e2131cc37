/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --info for people. Names go through vd_escape(), times are UTC: the sandbox has no time zones. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "vdimap/info.h"
#include "vdimap/print.h"

enum { NAME_TEXT = 1024 };

static const char *escaped(char text[NAME_TEXT], const char *name)
{
	return vd_escape(text, NAME_TEXT, name, strlen(name));
}

static int put_fact(const struct vd_fact *fact, void *data)
{
	char text[NAME_TEXT];

	(void)data;
	if (fact->kind == VD_FACT_TEXT)
		printf("%s: %s\n", fact->name, escaped(text, fact->text));
	else if (fact->kind == VD_FACT_BOOL)
		printf("%s: %s\n", fact->name, fact->number ? "yes" : "no");
	else
		printf("%s: %" PRIu64 "\n", fact->name, fact->number);
	return 0;
}

/* A heading before the first row. */
static void head(bool *begun, const char *text)
{
	if (!*begun)
		puts(text);
	*begun = true;
}

static int put_snapshot(const struct vd_snapshot *snapshot, void *data)
{
	char id[NAME_TEXT], name[NAME_TEXT], disk[SIZE_TEXT], state[SIZE_TEXT], date[32];
	time_t seconds = (time_t)snapshot->date_sec;
	struct tm parts;

	head(data, "snapshots: (ID, name, date in UTC, size of the disk, of the machine's state)");
	if (!gmtime_r(&seconds, &parts) ||
	    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &parts) == 0)
		date[0] = '\0';
	printf("  %-4s %-20s %s %10s %10s\n", escaped(id, snapshot->id),
	       escaped(name, snapshot->name), date, size_text(disk, snapshot->disk_bytes),
	       size_text(state, snapshot->vm_state_bytes));
	return 0;
}

/* The bitmaps of all layers have one heading. */
struct bitmap_list {
	unsigned depth;
	bool begun;
};

static int put_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	struct bitmap_list *list = data;
	char name[NAME_TEXT], size[SIZE_TEXT];

	head(&list->begun, "bitmaps: (layer, name, granularity)");
	printf("  %2u %-20s %s%s%s%s%s\n", list->depth, escaped(name, bitmap->name),
	       size_text(size, UINT64_C(1) << (bitmap->granularity_bits & 63)),
	       bitmap->is_auto ? ", recording" : ", not recording",
	       bitmap->in_use ? ", in use: not valid" : "",
	       bitmap->fault ? ", damaged: " : "", bitmap->fault ? bitmap->fault : "");
	return 0;
}

static void put_snapshots(const struct vd_image *image)
{
	bool begun = false;
	struct vd_error err = { "" };

	if (image->format->snapshots &&
	    image->format->snapshots(image, put_snapshot, &begun, &err) < 0)
		vd_log(LOG_WARNING, "%s", err.text);
}

/* --bitmap looks at all layers. */
static void put_bitmaps(const struct vd_disk *disk)
{
	struct bitmap_list list = { .begun = false };

	for (; list.depth < disk->count; list.depth++) {
		const struct vd_image *image = disk->layers[list.depth];
		struct vd_error err = { "" };

		if (image->format->bitmaps &&
		    image->format->bitmaps(image, put_bitmap, &list, &err) < 0)
			vd_log(LOG_WARNING, "%s", err.text);
	}
}

static void put_chain(const struct vd_info *info)
{
	char size[SIZE_TEXT], data[SIZE_TEXT];

	puts("chain: (depth, format, size, data that it gives, file)");
	for (unsigned depth = 0; depth < info->disk->count; depth++) {
		const struct vd_image *image = info->disk->layers[depth];

		printf("  %2u %-5s %10s %10s  %s\n", depth, vd_info_format(image->format->name),
		       size_text(size, image->size), size_text(data, info->layer_bytes[depth]),
		       image->source->name);
		if (image->data)
			printf("     data file: %s\n", image->data->name);
	}
}

static void put_size(const char *name, uint64_t bytes)
{
	char text[SIZE_TEXT];

	printf("%s: %s (%" PRIu64 " bytes)\n", name, size_text(text, bytes), bytes);
}

static void put_map(const struct vd_info *info)
{
	put_chain(info);
	put_size("data", info->totals.data_bytes);
	put_size("compressed data", info->coded_bytes);
	if (info->totals.bad_bytes > 0)
		put_size("unreadable", info->totals.bad_bytes);
	printf("intervals: %" PRIu64 "\n", info->totals.intervals);
}

int info_print_text(const struct vd_info *info)
{
	const struct vd_image *top = info->disk->layers[0];
	char text[NAME_TEXT];

	printf("image: %s\n", escaped(text, info->filename));
	printf("format: %s\n", vd_info_format(top->format->name));
	put_size("virtual size", info->disk->size);
	put_size("file size", top->source->size);
	if (!top->source->is_server)
		put_size("disk space", (uint64_t)top->source->st.st_blocks * VD_SECTOR);
	if (!top->has_no_clusters)
		put_size("cluster size", UINT64_C(1) << top->cluster_bits);
	if (top->format->facts)
		top->format->facts(top, put_fact, NULL);
	if (info->parent.count > 0)
		printf("backing file: %s\n", escaped(text, info->parent.names[0]));
	if (info->parent.count > 0 && info->parent.format)
		printf("backing file format: %s\n", escaped(text, vd_info_format(info->parent.format)));
	put_snapshots(top);
	put_bitmaps(info->disk);
	if (!info->fault)
		put_map(info);
	return 0;
}
