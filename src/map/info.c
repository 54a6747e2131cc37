/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The object is built in memory with jansson, which only this file knows.
 *
 * jansson fails only if there is no memory. Members are set without a check of the result: the
 * setter notes a failure in `bad`, and the object is dropped at the end.
 *
 * A string of JSON is Unicode, and names of files, snapshots and bitmaps are bytes. A name that is
 * not UTF-8 has U+FFFD for each byte that is wrong, and the member beside it whose name ends in
 * "-hex" has the true bytes.
 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/bytes.h"
#include "base/log.h"
#include "map/info.h"
#include "map/json.h"

/* What a number that grows may take in the text, and all that may appear later. */
enum { DIGITS_MAX = 19, LATER_MAX = 4096 };

struct maker {
	const struct vd_info *info;
	bool bad; /* there was no memory */
};

/* Snapshots or bitmaps: the array begins with its first element. */
struct list {
	struct maker *maker;
	json_t *array;
};

void vd_info_clear(struct vd_info *info)
{
	vd_parent_clear(&info->parent);
}

const char *vd_info_format(const char *format)
{
	return strcmp(format, "vhd") == 0 ? "vpc" : format;
}

void vd_info_warm_up(void)
{
	json_object_seed(0);
}

/* --- members --------------------------------------------------------------------------------- */

/*
 * Takes over the value. A NULL object or value means that there is no memory. Returns the value for
 * those who put something into it, or NULL: then it is gone.
 */
static json_t *put(struct maker *maker, json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value) == 0)
		return value;
	maker->bad = true;
	return NULL;
}

static json_t *append(struct maker *maker, json_t *array, json_t *value)
{
	if (json_array_append_new(array, value) == 0)
		return value;
	maker->bad = true;
	return NULL;
}

/* JSON's integers end where jansson's do; no honest image has more. */
static void put_number(struct maker *maker, json_t *object, const char *name, uint64_t number)
{
	put(maker, object, name,
	    number > INT64_MAX ? json_real((double)number) : json_integer((json_int_t)number));
}

/* The length of the UTF-8 character at p, or 0 if that is none. The string ends with a NUL. */
static unsigned character_bytes(const unsigned char *p)
{
	static const struct {
		unsigned char low, high; /* of the first byte */
		unsigned char second_low, second_high;
		unsigned bytes;
	} rows[] = {
		{ 0x01, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (p[0] < rows[i].low || p[0] > rows[i].high)
			continue;
		for (unsigned at = 1; at < rows[i].bytes; at++) {
			unsigned char low = at == 1 ? rows[i].second_low : 0x80;
			unsigned char high = at == 1 ? rows[i].second_high : 0xbf;

			if (p[at] < low || p[at] > high)
				return 0;
		}
		return rows[i].bytes;
	}
	return 0;
}

/* Copy the text with U+FFFD for what is not UTF-8, and its bytes in hexadecimal digits. */
static bool is_utf8(const char *text, char *replaced, char *hex)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = (const unsigned char *)text;
	bool good = true;

	for (const unsigned char *byte = p; *byte; byte++) {
		*hex++ = digits[*byte >> 4];
		*hex++ = digits[*byte & 15];
	}
	*hex = '\0';
	while (*p) {
		unsigned bytes = character_bytes(p);

		memcpy(replaced, bytes ? (const char *)p : "\xef\xbf\xbd", bytes ? bytes : 3);
		replaced += bytes ? bytes : 3;
		good = good && bytes > 0;
		p += bytes ? bytes : 1;
	}
	*replaced = '\0';
	return good;
}

static void put_text(struct maker *maker, json_t *object, const char *name, const char *text)
{
	size_t bytes = strlen(text);
	char *replaced = malloc(3 * bytes + 1), *hex = malloc(2 * bytes + 1), beside[64];

	if (!replaced || !hex) {
		maker->bad = true;
	} else if (is_utf8(text, replaced, hex)) {
		put(maker, object, name, json_string(text));
	} else {
		snprintf(beside, sizeof(beside), "%s-hex", name);
		put(maker, object, name, json_string(replaced));
		put(maker, object, beside, json_string(hex));
	}
	free(replaced);
	free(hex);
}

/* The name of a file, which went through vd_escape(), as it was before. */
static void put_name(struct maker *maker, json_t *object, const char *name, const char *escaped)
{
	char *text;

	if (maker->info->has_no_paths)
		return;
	text = malloc(strlen(escaped) + 1);
	if (text)
		put_text(maker, object, name, vd_unescape(text, escaped));
	else
		maker->bad = true;
	free(text);
}

/* --- what qemu-img info prints ---------------------------------------------------------------- */

static int put_fact(const struct vd_fact *fact, void *data)
{
	struct list *list = data;

	if (strcmp(fact->name, "dirty-flag") == 0) /* it is elsewhere */
		return 0;
	if (fact->kind == VD_FACT_BOOL)
		put(list->maker, list->array, fact->name, json_boolean(fact->number));
	else if (fact->kind == VD_FACT_NUMBER)
		put_number(list->maker, list->array, fact->name, fact->number);
	else if (strcmp(fact->name, "data-file") != 0 || !list->maker->info->has_no_paths)
		put_text(list->maker, list->array, fact->name, fact->text);
	return 0;
}

static json_t *list_next(struct list *list)
{
	json_t *element = json_object();

	if (!list->array)
		list->array = json_array();
	return append(list->maker, list->array, element);
}

static int put_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	struct list *list = data;
	json_t *element, *flags;

	if (bitmap->fault)
		return 0;
	element = list_next(list);
	flags = put(list->maker, element, "flags", json_array());
	if (bitmap->in_use)
		append(list->maker, flags, json_string("in-use"));
	if (bitmap->is_auto)
		append(list->maker, flags, json_string("auto"));
	put_text(list->maker, element, "name", bitmap->name);
	put_number(list->maker, element, "granularity", UINT64_C(1) << bitmap->granularity_bits);
	return list->maker->bad ? -ENOMEM : 0;
}

static int put_snapshot(const struct vd_snapshot *snapshot, void *data)
{
	struct list *list = data;
	struct maker *maker = list->maker;
	json_t *element = list_next(list);

	if (snapshot->has_icount)
		put_number(maker, element, "icount", snapshot->icount);
	put_number(maker, element, "vm-clock-nsec", snapshot->vm_clock_ns % 1000000000);
	put_text(maker, element, "name", snapshot->name);
	put_number(maker, element, "date-sec", snapshot->date_sec);
	put_number(maker, element, "date-nsec", snapshot->date_ns);
	put_number(maker, element, "vm-clock-sec", snapshot->vm_clock_ns / 1000000000);
	put_text(maker, element, "id", snapshot->id);
	put_number(maker, element, "vm-state-size", snapshot->vm_state_bytes);
	return maker->bad ? -ENOMEM : 0;
}

static void put_snapshots(struct maker *maker, json_t *object, const struct vd_image *image)
{
	struct list list = { .maker = maker };
	struct vd_error err = { "" };

	if (!image->format->snapshots || maker->info->is_mount)
		return;
	if (image->format->snapshots(image, put_snapshot, &list, &err) < 0 && !maker->bad)
		vd_log(LOG_WARNING, "%s", err.text);
	if (list.array)
		put(maker, object, "snapshots", list.array);
}

static void put_bitmaps(struct maker *maker, json_t *object, const struct vd_image *image)
{
	struct list list = { .maker = maker };
	struct vd_error err = { "" };

	if (!image->format->bitmaps || maker->info->is_mount)
		return;
	if (image->format->bitmaps(image, put_bitmap, &list, &err) < 0 && !maker->bad)
		vd_log(LOG_WARNING, "%s", err.text);
	if (list.array)
		put(maker, object, "bitmaps", list.array);
}

static void put_specific(struct maker *maker, json_t *object, const struct vd_image *image)
{
	json_t *specific, *data;
	struct list list = { .maker = maker };

	if (!image->format->facts)
		return;
	specific = json_object();
	data = json_object();
	specific = put(maker, object, "format-specific", specific);
	put(maker, specific, "type", json_string(vd_info_format(image->format->name)));
	data = put(maker, specific, "data", data);
	list.array = data;
	image->format->facts(image, put_fact, &list);
	put_bitmaps(maker, data, image);
}

/* QEMU's name of what the bytes come through. */
static const char *protocol(const struct vd_source *source)
{
	if (source->is_server)
		return "nbd";
	return S_ISBLK(source->st.st_mode) ? "host_device" : "file";
}

/* How much of the medium it takes, which a server does not say. */
static void put_actual_size(struct maker *maker, json_t *object, const struct vd_source *source)
{
	if (!source->is_server)
		put_number(maker, object, "actual-size",
			   (uint64_t)source->st.st_blocks * VD_SECTOR);
}

/* A file that the image lies in. QEMU counts its bytes in whole sectors. */
static void put_child(struct maker *maker, json_t *children, const char *name,
		      const struct vd_source *source)
{
	json_t *child = json_object(), *info = json_object(), *specific;

	child = append(maker, children, child);
	put(maker, child, "name", json_string(name));
	info = put(maker, child, "info", info);
	put(maker, info, "children", json_array());
	put_number(maker, info, "virtual-size", vd_div_up(source->size, VD_SECTOR) * VD_SECTOR);
	put_name(maker, info, "filename", source->name);
	put(maker, info, "format", json_string(protocol(source)));
	put_actual_size(maker, info, source);
	if (!source->is_server) {
		specific = json_object();
		specific = put(maker, info, "format-specific", specific);
		put(maker, specific, "type", json_string("file"));
		put(maker, specific, "data", json_object());
	}
	put(maker, info, "dirty-flag", json_false());
}

static void put_parent(struct maker *maker, json_t *object)
{
	const struct vd_info *info = maker->info;

	if (info->parent.count > 0) {
		if (info->parent.format)
			put_text(maker, object, "backing-filename-format",
				 vd_info_format(info->parent.format));
		put_text(maker, object, "backing-filename", info->parent.names[0]);
	}
	if (info->disk->count > 1)
		put_name(maker, object, "full-backing-filename",
			 info->disk->layers[1]->source->name);
}

static void put_image(struct maker *maker, json_t *object)
{
	const struct vd_info *info = maker->info;
	const struct vd_image *top = info->disk->layers[0];
	json_t *children = json_array();

	put_snapshots(maker, object, top);
	put_number(maker, object, "virtual-size", info->disk->size);
	if (info->filename)
		put_text(maker, object, "filename", info->filename);
	else
		put_name(maker, object, "filename", top->source->name);
	if (!top->has_no_clusters)
		put_number(maker, object, "cluster-size", UINT64_C(1) << top->cluster_bits);
	put(maker, object, "format", json_string(vd_info_format(top->format->name)));
	put_actual_size(maker, object, top->source);
	put_specific(maker, object, top);
	put_parent(maker, object);
	put(maker, object, "dirty-flag", json_boolean(info->is_dirty));
	put(maker, object, "children", children);
	put_child(maker, children, "file", top->source);
	if (top->data)
		put_child(maker, children, "data-file", top->data);
}

/* --- what it does not ------------------------------------------------------------------------- */

static void put_chain(struct maker *maker, json_t *object)
{
	const struct vd_info *info = maker->info;
	json_t *chain = json_array();

	chain = put(maker, object, "chain", chain);
	for (unsigned depth = 0; depth < info->disk->count; depth++) {
		const struct vd_image *image = info->disk->layers[depth];
		json_t *layer = json_object();

		layer = append(maker, chain, layer);
		put_number(maker, layer, "depth", depth);
		put_name(maker, layer, "filename", image->source->name);
		if (image->data)
			put_name(maker, layer, "data-filename", image->data->name);
		put(maker, layer, "format", json_string(vd_info_format(image->format->name)));
		put_number(maker, layer, "virtual-size", image->size);
		put_number(maker, layer, "cluster-bits", image->cluster_bits);
		if (info->is_walked)
			put_number(maker, layer, "data-bytes", info->layer_bytes[depth]);
	}
}

/* The bitmaps of one layer. */
struct layer_bitmaps {
	struct maker *maker;
	json_t *array;
	unsigned depth;
};

static int put_layer_bitmap(const struct vd_bitmap *bitmap, void *data)
{
	const struct layer_bitmaps *layer = data;
	struct maker *maker = layer->maker;
	json_t *element = json_object();

	element = append(maker, layer->array, element);
	put_number(maker, element, "depth", layer->depth);
	put_text(maker, element, "name", bitmap->name);
	put_number(maker, element, "granularity", UINT64_C(1) << (bitmap->granularity_bits & 63));
	put(maker, element, "recording", json_boolean(bitmap->is_auto));
	put(maker, element, "valid", json_boolean(!bitmap->in_use && !bitmap->fault));
	return maker->bad ? -ENOMEM : 0;
}

/* Those of all layers: vdimap --bitmap=NAME lists the union. */
static void put_layer_bitmaps(struct maker *maker, json_t *object)
{
	const struct vd_disk *disk = maker->info->disk;
	json_t *array = json_array();

	array = put(maker, object, "bitmaps", array);
	for (unsigned depth = 0; depth < disk->count; depth++) {
		const struct vd_image *image = disk->layers[depth];
		struct layer_bitmaps layer = { .maker = maker, .array = array, .depth = depth };
		struct vd_error err = { "" };

		if (image->format->bitmaps &&
		    image->format->bitmaps(image, put_layer_bitmap, &layer, &err) < 0 &&
		    depth > 0 && !maker->bad)
			vd_log(LOG_WARNING, "%s", err.text);
	}
}

static void put_totals(struct maker *maker, json_t *object)
{
	const struct vd_index_totals *totals = &maker->info->totals;
	json_t *map;

	put_number(maker, object, "data-bytes", totals->data_bytes);
	if (maker->info->is_walked)
		put_number(maker, object, "compressed-bytes", maker->info->coded_bytes);
	put_number(maker, object, "unreadable-bytes", totals->bad_bytes);
	put_number(maker, object, "intervals", totals->intervals);
	if (!maker->info->is_mount)
		return;
	map = json_object();
	map = put(maker, object, "map", map);
	put(maker, map, "complete", json_boolean(totals->complete));
	put_number(maker, map, "mapped-bytes", totals->mapped_bytes);
}

static json_t *vdifs_object(struct maker *maker)
{
	const struct vd_info *info = maker->info;
	const struct vd_image *top = info->disk->layers[0];
	json_t *object = json_object();

	put_number(maker, object, "schema", VD_INFO_SCHEMA);
	put_number(maker, object, "cluster-bits", info->disk->cluster_bits);
	if (top->compression)
		put(maker, object, "compression", json_string(top->compression));
	if (info->fault) {
		put_text(maker, object, "chain-error", info->fault);
		return object;
	}
	put_chain(maker, object);
	if (!info->is_mount)
		put_layer_bitmaps(maker, object);
	put_totals(maker, object);
	if (info->sandbox)
		put(maker, object, "sandbox", json_string(info->sandbox));
	return object;
}

/* Clusters that cannot be read. */
static json_t *pairs_array(struct maker *maker, const struct vd_joined *joined)
{
	json_t *array = json_array();

	for (size_t i = 0; i < joined->count; i++) {
		json_t *pair = json_array();

		pair = append(maker, array, pair);
		append(maker, pair, json_integer((json_int_t)joined->pairs[i].first));
		append(maker, pair, json_integer((json_int_t)joined->pairs[i].last));
	}
	return array;
}

static void put_unreadable(struct maker *maker, json_t *object, const struct vd_joined *unreadable)
{
	if (!unreadable || unreadable->count == 0)
		return;
	put(maker, object, "unreadable", pairs_array(maker, unreadable));
	if (!unreadable->is_exact)
		put(maker, object, "unreadable-exact", json_false());
}

/* The whole object, with the member `vdifs` for those who add to it. */
static json_t *info_object(struct maker *maker, json_t **vdifs)
{
	json_t *object = json_object();

	put_image(maker, object);
	*vdifs = vdifs_object(maker);
	*vdifs = put(maker, object, "vdifs", *vdifs);
	return object;
}

/* --- the text --------------------------------------------------------------------------------- */

struct writer {
	vd_info_write_fn *write;
	void *data;
};

/* jansson leaves DEL as it is, which a terminal may act on. It is only in strings. */
static int write_escaped(const char *text, size_t bytes, void *data)
{
	const struct writer *writer = data;
	int r = 0;

	while (bytes > 0 && r == 0) {
		const char *del = memchr(text, 0x7f, bytes);
		size_t here = del ? (size_t)(del - text) : bytes;

		r = here ? writer->write(text, here, writer->data) : 0;
		if (r == 0 && del)
			r = writer->write("\\u007f", 6, writer->data);
		text += here + (del ? 1 : 0);
		bytes -= here + (del ? 1 : 0);
	}
	return r ? -1 : 0;
}

static int object_write(const json_t *object, size_t flags, vd_info_write_fn *write, void *data)
{
	struct writer writer = { .write = write, .data = data };

	if (json_dump_callback(object, write_escaped, &writer, flags | JSON_ENSURE_ASCII) < 0)
		return -ENOMEM;
	return 0;
}

int vd_info_write(const struct vd_info *info, vd_info_write_fn *write, void *data)
{
	struct maker maker = { .info = info };
	json_t *vdifs, *object = info_object(&maker, &vdifs);
	int r = -ENOMEM;

	put_unreadable(&maker, vdifs, info->unreadable);
	if (!maker.bad)
		r = object_write(object, JSON_INDENT(4), write, data);
	if (r == 0 && write("\n", 1, data) != 0)
		r = -ENOMEM;
	json_decref(object);
	return r;
}

static int count_text(const char *text, size_t bytes, void *data)
{
	(void)text;
	*(size_t *)data += bytes;
	return 0;
}

/* Its length as an attribute; 0: there is no memory. */
static size_t object_bytes(const json_t *object)
{
	size_t bytes = 0;

	return object_write(object, JSON_COMPACT, count_text, &bytes) < 0 ? 0 : bytes;
}

struct buffer {
	char *text;
	size_t used;
};

static int keep_text(const char *text, size_t bytes, void *data)
{
	struct buffer *buffer = data;

	memcpy(buffer->text + buffer->used, text, bytes);
	buffer->used += bytes;
	return 0;
}

/* The last messages, the newest last, as many as fit into `room`. */
static void put_messages(struct maker *maker, json_t *vdifs, const json_t *object, size_t room)
{
	struct vd_log_line lines[VD_LOG_KEPT];
	unsigned count = maker->info->has_no_paths ? 0 : vd_log_last(lines);
	json_t *array = json_array();

	for (unsigned i = 0; i < count; i++) {
		json_t *message = json_object();

		message = append(maker, array, message);
		put(maker, message, "date-sec", json_integer((json_int_t)lines[i].seconds));
		put_text(maker, message, "text", lines[i].text);
	}
	array = put(maker, vdifs, "messages", array);
	while (json_array_size(array) > 0 && object_bytes(object) > room)
		json_array_remove(array, 0);
	if (count == 0 || json_array_size(array) == 0)
		json_object_del(vdifs, "messages");
}

/* As many of the unreadable clusters as fit: neighbours are joined until they do. */
static void put_some_unreadable(struct maker *maker, json_t *vdifs)
{
	struct vd_joined some;

	if (!maker->info->unreadable)
		return;
	vd_joined_init(&some, VD_UNREADABLE_MAX);
	if (vd_joined_add_all(&some, maker->info->unreadable) < 0 ||
	    vd_joined_fit(&some, LATER_MAX / 4) < 0)
		maker->bad = true;
	put_unreadable(maker, vdifs, &some);
	vd_joined_clear(&some);
}

/* A chain with long names may not fit: its last layers are left out then, and that is said. */
static void shorten(struct maker *maker, const json_t *object, json_t *vdifs)
{
	json_t *chain = json_object_get(vdifs, "chain");

	while (json_array_size(chain) > 1 && object_bytes(object) > VD_ATTRIBUTE_MAX - LATER_MAX) {
		size_t more = json_array_size(chain) / 8 + 1;

		while (more-- > 0)
			json_array_remove(chain, json_array_size(chain) - 1);
		put(maker, vdifs, "chain-complete", json_false());
	}
}

/* What the numbers that grow may become longer by. */
static size_t growth(const struct vd_index_totals *totals)
{
	const uint64_t numbers[] = { totals->data_bytes, totals->bad_bytes, totals->intervals,
				     totals->mapped_bytes };
	size_t more = totals->complete ? 1 : 0; /* "true" may be "false" */

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct vd_pair pair = { .first = numbers[i] };

		more += DIGITS_MAX - (vd_json_pair_bytes(&pair, true) - strlen("[,0]"));
	}
	return more;
}

int vd_info_attribute(const struct vd_info *info, char **text, size_t *length)
{
	struct maker maker = { .info = info };
	json_t *vdifs, *object = info_object(&maker, &vdifs);
	struct buffer buffer = { NULL, 0 };
	size_t bytes;
	int r = -ENOMEM;

	shorten(&maker, object, vdifs);
	bytes = object_bytes(object);
	*length = (size_t)vd_min(bytes + growth(&info->totals) + LATER_MAX, VD_ATTRIBUTE_MAX);
	put_some_unreadable(&maker, vdifs);
	put_messages(&maker, vdifs, object, *length);
	if (!maker.bad && bytes > 0)
		bytes = object_bytes(object);
	if (!maker.bad && bytes > 0 && bytes <= *length)
		buffer.text = malloc(*length);
	if (buffer.text)
		r = object_write(object, JSON_COMPACT, keep_text, &buffer);
	json_decref(object);
	if (r < 0) {
		free(buffer.text);
		return r;
	}
	memset(buffer.text + buffer.used, ' ', *length - buffer.used);
	*text = buffer.text;
	return 0;
}
