/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --info --json: the names and the nesting are those of qemu-img info --output=json, "children" as
 * QEMU 8.0 has it. What QEMU does not tell stands under "vdifs".
 */
#include "config.h"

#include <string.h>
#include <syslog.h>

#include "base/bytes.h"
#include "base/log.h"
#include "vdimap/info.h"
#include "vdimap/object.h"

/* An array that begins with its first element. */
struct list {
	struct object *object;
	const char *name;
	bool begun;
};

static void list_next(struct list *list)
{
	if (!list->begun)
		object_begin(list->object, list->name, '[');
	list->begun = true;
}

static void list_end(const struct list *list)
{
	if (list->begun)
		object_end(list->object, ']');
}

static int put_fact(const struct vd_fact *fact, void *data)
{
	struct object *object = data;

	if (strcmp(fact->name, "dirty-flag") == 0)
		return 0; /* it stands elsewhere */
	if (fact->kind == VD_FACT_TEXT)
		object_text(object, fact->name, fact->text);
	else if (fact->kind == VD_FACT_BOOL)
		object_bool(object, fact->name, fact->number);
	else
		object_number(object, fact->name, fact->number);
	return 0;
}

static int put_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	struct list *list = data;

	if (bitmap->fault)
		return 0;
	list_next(list);
	object_begin(list->object, NULL, '{');
	object_begin(list->object, "flags", '[');
	if (bitmap->in_use)
		object_text(list->object, NULL, "in-use");
	if (bitmap->is_auto)
		object_text(list->object, NULL, "auto");
	object_end(list->object, ']');
	object_text(list->object, "name", bitmap->name);
	object_number(list->object, "granularity", UINT64_C(1) << bitmap->granularity_bits);
	object_end(list->object, '}');
	return 0;
}

static int put_snapshot(const struct vd_snapshot *snapshot, void *data)
{
	struct list *list = data;

	list_next(list);
	object_begin(list->object, NULL, '{');
	if (snapshot->has_icount)
		object_number(list->object, "icount", snapshot->icount);
	object_number(list->object, "vm-clock-nsec", snapshot->vm_clock_ns % 1000000000);
	object_text(list->object, "name", snapshot->name);
	object_number(list->object, "date-sec", snapshot->date_sec);
	object_number(list->object, "date-nsec", snapshot->date_ns);
	object_number(list->object, "vm-clock-sec", snapshot->vm_clock_ns / 1000000000);
	object_text(list->object, "id", snapshot->id);
	object_number(list->object, "vm-state-size", snapshot->vm_state_bytes);
	object_end(list->object, '}');
	return 0;
}

static void put_specific(struct object *object, const struct vd_image *image)
{
	struct list bitmaps = { .object = object, .name = "bitmaps" };
	struct vd_error err = { "" };

	if (!image->format->facts)
		return;
	object_begin(object, "format-specific", '{');
	object_text(object, "type", info_qemu_format(image));
	object_begin(object, "data", '{');
	image->format->facts(image, put_fact, object);
	if (image->format->bitmaps && image->format->bitmaps(image, put_bitmap, &bitmaps, &err) < 0)
		vd_log(LOG_WARNING, "%s", err.text);
	list_end(&bitmaps);
	object_end(object, '}');
	object_end(object, '}');
}

/* QEMU's name of what the bytes come through. */
static const char *protocol(const struct vd_source *source)
{
	if (source->is_server)
		return "nbd";
	return S_ISBLK(source->st.st_mode) ? "host_device" : "file";
}

/* How much of the medium it takes, which a server does not say. */
static void put_actual_size(struct object *object, const struct vd_source *source)
{
	if (!source->is_server)
		object_number(object, "actual-size", (uint64_t)source->st.st_blocks * VD_SECTOR);
}

/* A file that the image lies in. QEMU counts its bytes in whole sectors. */
static void put_child(struct object *object, const char *name, const struct vd_source *source)
{
	object_begin(object, NULL, '{');
	object_text(object, "name", name);
	object_begin(object, "info", '{');
	object_begin(object, "children", '[');
	object_end(object, ']');
	object_number(object, "virtual-size", vd_div_up(source->size, VD_SECTOR) * VD_SECTOR);
	object_name(object, "filename", source->name);
	object_text(object, "format", protocol(source));
	put_actual_size(object, source);
	if (!source->is_server) {
		object_begin(object, "format-specific", '{');
		object_text(object, "type", "file");
		object_begin(object, "data", '{');
		object_end(object, '}');
		object_end(object, '}');
	}
	object_bool(object, "dirty-flag", false);
	object_end(object, '}');
	object_end(object, '}');
}

static void put_parent(struct object *object, const struct info *info)
{
	const struct vd_disk *disk = info->disk;

	if (info->parent.count > 0) {
		if (info->parent.format)
			object_text(object, "backing-filename-format", info->parent.format);
		object_text(object, "backing-filename", info->parent.names[0]);
	}
	if (disk->count > 1)
		object_name(object, "full-backing-filename", disk->layers[1]->source->name);
}

static void put_chain(struct object *object, const struct info *info)
{
	object_begin(object, "chain", '[');
	for (unsigned depth = 0; depth < info->disk->count; depth++) {
		const struct vd_image *image = info->disk->layers[depth];

		object_begin(object, NULL, '{');
		object_number(object, "depth", depth);
		object_name(object, "filename", image->source->name);
		object_text(object, "format", info_qemu_format(image));
		object_number(object, "virtual-size", image->size);
		object_number(object, "cluster-bits", image->cluster_bits);
		object_number(object, "data-bytes", info->layer_bytes[depth]);
		object_end(object, '}');
	}
	object_end(object, ']');
}

/* The bitmaps of one layer. */
struct layer_bitmaps {
	struct object *object;
	unsigned depth;
};

static int put_layer_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	const struct layer_bitmaps *layer = data;

	object_begin(layer->object, NULL, '{');
	object_number(layer->object, "depth", layer->depth);
	object_text(layer->object, "name", bitmap->name);
	object_number(layer->object, "granularity",
		      UINT64_C(1) << (bitmap->granularity_bits & 63));
	object_bool(layer->object, "recording", bitmap->is_auto);
	object_bool(layer->object, "valid", !bitmap->in_use && !bitmap->fault);
	object_end(layer->object, '}');
	return 0;
}

/* Those of all layers: vdimap --bitmap=NAME lists the union. */
static void put_layer_bitmaps(struct object *object, const struct vd_disk *disk)
{
	object_begin(object, "bitmaps", '[');
	for (unsigned depth = 0; depth < disk->count; depth++) {
		const struct vd_image *image = disk->layers[depth];
		struct layer_bitmaps layer = { .object = object, .depth = depth };
		struct vd_error err = { "" };

		if (image->format->bitmaps &&
		    image->format->bitmaps(image, put_layer_bitmap, &layer, &err) < 0 && depth > 0)
			vd_log(LOG_WARNING, "%s", err.text);
	}
	object_end(object, ']');
}

static void put_map(struct object *object, const struct info *info)
{
	object_begin(object, "vdifs", '{');
	put_chain(object, info);
	put_layer_bitmaps(object, info->disk);
	object_number(object, "data-bytes", info->data_bytes);
	object_number(object, "compressed-bytes", info->coded_bytes);
	object_number(object, "unreadable-bytes", info->bad_bytes);
	object_number(object, "intervals", info->ranges);
	object_end(object, '}');
}

int info_print_json(const struct info *info)
{
	const struct vd_image *top = info->disk->layers[0];
	struct object object = { .depth = 0 };
	struct list snapshots = { .object = &object, .name = "snapshots" };
	struct vd_error err = { "" };

	object_begin(&object, NULL, '{');
	if (top->format->snapshots &&
	    top->format->snapshots(top, put_snapshot, &snapshots, &err) < 0)
		vd_log(LOG_WARNING, "%s", err.text);
	list_end(&snapshots);
	object_number(&object, "virtual-size", info->disk->size);
	object_text(&object, "filename", info->filename);
	if (!top->has_no_clusters)
		object_number(&object, "cluster-size", UINT64_C(1) << top->cluster_bits);
	object_text(&object, "format", info_qemu_format(top));
	put_actual_size(&object, top->source);
	put_specific(&object, top);
	put_parent(&object, info);
	object_bool(&object, "dirty-flag", info->is_dirty);
	object_begin(&object, "children", '[');
	put_child(&object, "file", top->source);
	if (top->data)
		put_child(&object, "data-file", top->data);
	object_end(&object, ']');
	if (!info->alone)
		put_map(&object, info);
	object_end(&object, '}');
	return 0;
}
