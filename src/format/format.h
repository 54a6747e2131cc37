/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contract between a format driver (one image layer) and everything above it.
 *
 * A driver opens an image, checks its metadata, and from then on answers one question: what lies
 * at a virtual address? Reads, seeks and the interval map all derive from that answer, so that they
 * cannot disagree. A driver never reads guest data (but decodes what is compressed), never looks
 * into its parent and never clips to what was asked: disk/ does that once for all of them.
 *
 * After open() an image is frozen. A const struct vd_image may be used by any number of threads;
 * what changes behind it (the metadata cache, the record of what has been logged) locks itself.
 */
#ifndef VD_FORMAT_FORMAT_H
#define VD_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"
#include "source/source.h"
#include "support/budget.h"
#include "support/cache.h"
#include "support/codec.h"

enum __attribute__((packed)) vd_kind {
	VD_ABSENT, /* not in this layer: look below; at the bottom it reads as zeros */
	VD_ZERO, /* explicitly zero here, whatever lies below */
	VD_RAW, /* the bytes are in `from` at `where`, all of them inside that source */
	VD_CODED, /* one compressed unit: decode() expands it */
	VD_BAD, /* corrupt or unreadable metadata: counts as data, a read is EIO */
};

/* What [start, start + length) of the virtual disk is in one layer. */
struct vd_run {
	uint64_t start, length; /* virtual bytes; length > 0 */
	enum vd_kind kind;
	bool cut; /* ZERO because the file ends before `where` */
	uint32_t coded_bytes; /* CODED: bytes of input at `where`, at least 1 */
	/*
	 * RAW, CODED: the host byte that start lies at. ZERO, ABSENT: NULL, or the place that is
	 * kept for these bytes, which is told, never read, and has not been checked.
	 */
	const struct vd_source *from;
	uint64_t where;
};

/* Where a driver puts its answer: see vd_runs_add(). */
struct vd_runs {
	struct vd_run *runs;
	unsigned count, max;
};

#define VD_PARENT_NAMES_MAX 32
#define VD_UUID_BYTES 16

struct vd_format;

/* The layer below, as the image names it. Names are owned: vd_parent_clear(). */
struct vd_parent {
	char *names[VD_PARENT_NAMES_MAX]; /* to be tried in this order; '/' separates */
	unsigned count; /* 0: the image stands alone */
	const char *format; /* as recorded, maybe unknown to us, or NULL; not owned */
	bool check_uuid; /* the right parent has this uuid */
	uint8_t uuid[VD_UUID_BYTES];
	/* `format` is a guess: refuse a file that looks like this one instead. NULL: it is none. */
	const struct vd_format *unless;
	time_t recorded; /* the parent's time, as the image has recorded it; 0: it has not */
};

/* How qemu-img map tells a hole of the file that lies under RAW bytes. */
enum vd_host_hole {
	VD_HOLE_IS_DATA, /* it does not look */
	VD_HOLE_IS_ZERO_DATA, /* as data that is zero */
	VD_HOLE_IS_HOLE,
};


/* One open layer. `state` belongs to the driver, all else is set by vd_image_open() and open(). */
struct vd_image {
	const struct vd_format *format;
	uint64_t serial; /* vd_serial(): what caches know it by */
	struct vd_source *source; /* the container file; owned unless borrows */
	struct vd_source *data; /* QCOW2 external data file, or NULL; owned unless borrows */
	bool borrows; /* sources and logs are another image's: vd_image_open_snapshot() */
	struct vd_cache *cache; /* shared by all layers; not owned */
	struct vd_budget *budget; /* of the chain, while the image is opened; then NULL */
	uint64_t size; /* virtual bytes */
	unsigned cluster_bits; /* log2 of the cluster or block size */
	bool has_no_clusters; /* cluster_bits was chosen by us */
	const char *compression; /* of compressed clusters: "zlib", "zstd"; NULL: none possible */
	uint8_t uuid[VD_UUID_BYTES]; /* all zero when the format has none */
	struct timespec date; /* of the internal snapshot that this is; 0: of none, or not known */
	uint64_t snapshot; /* tells the internal snapshots of a file apart; 0: this is none */
	time_t made; /* when the image says that it was made; 0: it does not say */
	void *state;
	struct vd_log_once *corrupt; /* what has been logged of corrupt places */
	struct vd_log_once *changed; /* and of changes of the files; NULL: of none */
};

/* For vd_log_once(): of files that are lost there is no more to say. */
static inline struct vd_log_once *vd_image_log(const struct vd_image *image)
{
	bool is_lost =
		vd_source_is_lost(image->source) || (image->data && vd_source_is_lost(image->data));

	return is_lost ? NULL : image->corrupt;
}

/* Which of two valid footers of a VHD to believe if they belong to different disks. */
enum vd_vhd_footer { VD_FOOTER_ASK, VD_FOOTER_END, VD_FOOTER_START };

/* How the caller wants an image opened. */
struct vd_image_options {
	const char *snapshot; /* NAME or ID of an internal snapshot, or NULL: the active disk */
	const uint8_t *uuid; /* the one that it must have, unless it is raw; or NULL */
	enum vd_vhd_footer vhd_footer;
	bool ignore_checksums; /* read headers with a wrong checksum, and log that */
	struct vd_budget *budget; /* that the opening spends from, or NULL */
};

/*
 * What an image has besides the disk. Strings are valid during the call only, and not escaped. A
 * function that gets them returns 0 to go on; anything else ends the walk and is its result.
 */
struct vd_fact {
	const char *name; /* as in qemu-img info */
	enum { VD_FACT_BOOL, VD_FACT_NUMBER, VD_FACT_TEXT } kind;
	uint64_t number;
	const char *text;
	bool left_out; /* of no interest in this image: not told of */
};

struct vd_snapshot {
	uint64_t l1_host;
	uint32_t l1_size;
	uint64_t disk_bytes; /* the active disk's where the snapshot does not say */
	uint64_t vm_state_bytes, vm_clock_ns, icount;
	uint32_t date_sec, date_ns;
	bool has_icount;
	const char *id, *name;
};

struct vd_bitmap {
	const char *name;
	unsigned granularity_bits; /* a bit stands for 2^granularity_bits bytes */
	bool in_use; /* what is stored is not valid */
	bool is_auto; /* it goes on being written */
	const char *fault; /* why it cannot be used, or NULL */
	uint64_t table_host;
	uint32_t table_size;
};

enum vd_bits { VD_BITS_CLEAR, VD_BITS_SET, VD_BITS_BAD };

typedef int vd_fact_fn(const struct vd_fact *fact, void *data);
typedef int vd_snapshot_fn(const struct vd_snapshot *snapshot, void *data);
typedef int vd_bitmap_fn(const struct vd_bitmap *bitmap, void *data);

struct vd_format {
	const char *name;

	/* Does the source look like this format? 1, 0, or -errno: it cannot be read. */
	int (*probe)(const struct vd_source *source);

	/*
	 * The UUID of an image of this format, by which an image above it knows its parent: 1; 0: it
	 * has none, or is no such image; -errno: it cannot be read. NULL: images have no UUID.
	 */
	int (*identify)(const struct vd_source *source, uint8_t *uuid);

	/*
	 * Read and check the headers of image->source; set size, cluster_bits, uuid and state. On
	 * failure the caller calls close(), which therefore must bear a half-made image.
	 */
	int (*open)(struct vd_image *image, const struct vd_image_options *options,
		    struct vd_error *err);

	/*
	 * Say what lies below; NULL: this format has no parents. parent is zeroed by the caller and
	 * cleared by it, also after a failure. Called between open() and the first map().
	 */
	int (*parent)(const struct vd_image *image, struct vd_parent *parent, struct vd_error *err);

	/*
	 * The name of the external file that holds the guest data, or NULL: none is needed. NULL as
	 * a function: the format has no such thing. The name is owned by the image. When there is
	 * one, the caller opens it and sets image->data before the first map().
	 */
	const char *(*data_name)(const struct vd_image *image);

	/*
	 * Fill runs with 1 to runs->max adjacent runs, the first of which covers `virt` (< size).
	 * They may start before virt and end after virt + want, or cover less than want; the last
	 * may end past the size of the image. `want` (> 0) is a hint.
	 * Reads no more metadata than the byte at virt needs: one page of each table, so that a
	 * walk over the disk costs one call a page. Corrupt or unreadable metadata is a BAD run,
	 * logged once, never an error: only -ENOMEM is returned.
	 */
	int (*map)(const struct vd_image *image, uint64_t virt, uint64_t want,
		   struct vd_runs *runs);

	/*
	 * Expand the unit of a whole CODED run, as map() gave it, to run->length bytes at `unit`.
	 * NULL if map() makes none. A damaged stream is -EBADMSG and one logged line: it will be
	 * damaged the next time, too. A failed read is its errno and one logged line.
	 */
	int (*decode)(const struct vd_image *image, const struct vd_run *run, void *unit,
		      struct vd_scratch *scratch);

	/*
	 * What qemu-img map makes of holes of the file, for those who print what it prints; NULL:
	 * VD_HOLE_IS_DATA. May read as much metadata as it likes. Nothing else depends on it.
	 */
	enum vd_host_hole (*host_hole)(const struct vd_image *image);

	/*
	 * Tell of facts, internal snapshots and dirty bitmaps. NULL: the format has no such thing.
	 * 0, what fn returned, or -errno, the last two with a message when the table is damaged.
	 */
	int (*facts)(const struct vd_image *image, vd_fact_fn *fn, void *data);
	int (*snapshots)(const struct vd_image *image, vd_snapshot_fn *fn, void *data,
			 struct vd_error *err);
	/*
	 * Make `image` the internal snapshot of `of` that snapshots() has told of: image is a copy
	 * of it without state, and the file's headers need not be read again. close() is called after
	 * a failure, too. NULL: as snapshots().
	 */
	int (*snapshot_open)(struct vd_image *image, const struct vd_image *of,
			     const struct vd_snapshot *snapshot, struct vd_error *err);
	int (*bitmaps)(const struct vd_image *image, vd_bitmap_fn *fn, void *data,
		       struct vd_error *err);

	/*
	 * Whether a bitmap without fault that is not in use is set at virt, and up to where that
	 * holds at least: *end > virt. What cannot be read is VD_BITS_BAD, logged once; only
	 * -ENOMEM is returned. The strings of the bitmap are not looked at.
	 */
	int (*bitmap_map)(const struct vd_image *image, const struct vd_bitmap *bitmap,
			  uint64_t virt, enum vd_bits *bits, uint64_t *end);

	/* Free state; NULL state is fine. Does not close the sources. */
	void (*close)(struct vd_image *image);
};

/*
 * Copy a run field by field. A struct that was just written in words stalls the processor when it
 * is copied in larger pieces, as "=" does it; walks over large maps took twice as long.
 */
static inline void vd_run_copy(struct vd_run *to, const struct vd_run *from)
{
	to->start = from->start;
	to->length = from->length;
	to->kind = from->kind;
	to->cut = from->cut;
	to->coded_bytes = from->coded_bytes;
	to->from = from->from;
	to->where = from->where;
}

/* Does `run`, from `skip` bytes on, go on as `last`, which ends there, does? */
static inline bool vd_run_continues(const struct vd_run *last, const struct vd_run *run,
				    uint64_t skip)
{
	return last->kind == run->kind && run->kind != VD_CODED && last->from == run->from &&
	       last->cut == run->cut &&
	       (!run->from || last->where + last->length == run->where + skip);
}

/*
 * Append a run of `length` bytes at the end of what is there (the first one begins at `start`,
 * later ones must follow it). Neighbours of one kind that continue each other become one run.
 * False: there is no room, nothing was added, the driver stops here.
 */
static inline bool vd_runs_add(struct vd_runs *runs, const struct vd_run *run)
{
	struct vd_run *last = runs->count ? &runs->runs[runs->count - 1] : NULL;

	if (last && vd_run_continues(last, run, 0)) {
		last->length += run->length;
		return true;
	}
	if (runs->count == runs->max)
		return false;
	vd_run_copy(&runs->runs[runs->count++], run);
	return true;
}

/* Free the names and zero the parent. */
void vd_parent_clear(struct vd_parent *parent);

/* Add a copy of a name (at most VD_PARENT_NAMES_MAX; what is too much or empty is left out). */
int vd_parent_add(struct vd_parent *parent, const char *name);

/* The driver of that name, or NULL. "vpc", QEMU's name for it, is "vhd". */
const struct vd_format *vd_format_find(const char *name);

/*
 * Find the format of a source by its magic. raw is never the answer. A file of no format of ours is
 * refused with what it is, if that is known: a guest may write any magic into the first sector of a
 * fixed VHD. A file that looks like two formats is refused because it is an attack. `option` is
 * the one that names the format by hand, for the message: "--format" or "--backing-format".
 */
int vd_format_probe(const struct vd_source *source, const char *option,
		    const struct vd_format **out, struct vd_error *err);

/* The UUID of the image in the source, whatever its format: as the function above. */
int vd_format_identify(const struct vd_source *source, uint8_t *uuid);

/*
 * Open one layer. The image takes over the source; on failure the source is closed. cache must
 * outlive the image.
 */
int vd_image_open(struct vd_source *source, const struct vd_format *format,
		  const struct vd_image_options *options, struct vd_cache *cache,
		  struct vd_image **out, struct vd_error *err);

/*
 * Open an internal snapshot of an open image, on the sources of that image, which must outlive the
 * new one.
 */
int vd_image_open_snapshot(const struct vd_image *of, const struct vd_snapshot *snapshot,
			   struct vd_budget *budget, struct vd_image **out, struct vd_error *err);

/*
 * Is it the image that options->uuid asks for? 0, or -ESTALE with a message. For open(), as soon as
 * the UUID is known: an image names many files, whose tables are not to be looked at in vain.
 */
int vd_image_check_uuid(const struct vd_image *image, const struct vd_image_options *options,
			struct vd_error *err);

void vd_image_close(struct vd_image *image); /* NULL is fine */

extern const struct vd_format vd_format_vhd, vd_format_qcow2, vd_format_raw;

#endif
