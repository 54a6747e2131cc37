/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks without image files: sources whose bytes follow a formula, and two format drivers that
 * answer map() from an array or a formula, in all the ways that the contract allows. What the disk
 * then is, byte by byte, is worked out here by itself, to be compared.
 */
#ifndef VD_TESTS_FAKE_H
#define VD_TESTS_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#include "disk/disk.h"
#include "disk/walk.h"
#include "util.h"

/* Holds other threads up until the test opens it; the thread that made it passes. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t maker;
	bool arrived, open;
};

void gate_init(struct gate *gate);
void gate_pass(struct gate *gate); /* by a fake; NULL is fine */
void gate_await(struct gate *gate); /* until a thread stands before it */
void gate_open(struct gate *gate);
void gate_free(struct gate *gate);

/* A source; byte by byte its contents depend on the seed. vd_source_close() frees it. */
struct fake_source {
	struct vd_source source;
	uint64_t seed;
	unsigned hole_bits; /* each block of 2^hole_bits is a hole or data; 0: no holes */
	_Atomic uint64_t mood; /* which half of the holes it does not tell of; 0: none */
	atomic_uint preads, extents; /* how often it was asked */
	atomic_int failures; /* so many reads fail from now on */
	struct gate *gate; /* that reads go through, and decoding, or NULL */
};

struct fake_source *fake_source_new(uint64_t size, uint64_t seed, unsigned hole_bits);

/* Close it and make a new one in its memory, as malloc() may do. */
void fake_source_renew(struct fake_source *fake, uint64_t size, uint64_t seed);
bool fake_source_is_hole(const struct vd_source *source, uint64_t host);
uint8_t fake_source_byte(const struct vd_source *source, uint64_t host);

/* How map() answers. */
enum fake_manner {
	FAKE_GENEROUS, /* whole spans to the end of the layer, or of the room */
	FAKE_SINGLE, /* one whole span */
	FAKE_CLIPPED, /* a piece of a span around what was asked */
	FAKE_MIXED, /* one of these, by the place */
	FAKE_MANNERS
};

struct fake_span {
	uint64_t start, length;
	enum vd_kind kind;
	const struct vd_source *from;
	uint64_t where;
	bool is_damaged; /* CODED: decoding fails */
};

/* A layer made of spans; the state of an image. */
struct fake_layer {
	struct fake_span *spans;
	unsigned count, room;
	enum fake_manner manner;
	uint64_t seed; /* of decoded bytes, and of FAKE_MIXED */
	int error; /* what map() returns at or behind error_virt, or 0 */
	uint64_t error_virt;
	atomic_uint maps, decodes;
};

/* A layer of that size without spans, standing on two sources. */
struct vd_image *fake_image_new(uint64_t size, enum fake_manner manner, struct dice *dice);
struct fake_layer *fake_layer(const struct vd_image *image);

/* Append a span; `from` and `where` of a RAW one as given, nothing of the others. */
struct fake_span *fake_span_add(struct vd_image *image, uint64_t length, enum vd_kind kind,
				const struct vd_source *from, uint64_t where);

/*
 * A layer written down: "A2 Z1 R3@8", each a kind, a number of sectors, and maybe the sector of
 * image->source that it has: A absent, Z zero, R raw, C coded, D coded and damaged, B bad. Equal
 * files are the same file; what bytes a file has follows from its number.
 */
struct vd_image *fake_image_of(const char *spans, enum fake_manner manner, unsigned file);

/* A layer full of spans of all kinds; bad: of BAD and damaged ones, too. */
struct vd_image *fake_image_random(uint64_t size, enum fake_manner manner, bool bad,
				   struct dice *dice);

/* A layer whose every cell of 2^cell_bits bytes is raw or absent, by a formula. */
struct fake_grid {
	unsigned cell_bits;
	unsigned data_of_8; /* so many of eight cells are data */
	bool scattered; /* neighbouring cells do not lie side by side in the source */
	uint64_t seed;
	int error; /* as in fake_layer */
	uint64_t error_virt;
	struct gate *gate; /* that map() goes through at or behind gate_virt, or NULL */
	uint64_t gate_virt;
	atomic_uint maps;
};

struct vd_image *fake_grid_image(uint64_t size, const struct fake_grid *grid,
				 unsigned cluster_bits);
struct fake_grid *fake_grid(const struct vd_disk *disk); /* of the first layer */

/* Lay the images on each other, the first on top. The disk owns them. */
struct vd_disk *fake_disk_new(struct vd_image *const *images, unsigned count,
			      unsigned cluster_bits);
struct vd_disk *fake_disk_random(bool bad, struct dice *dice);

enum fake_class { FAKE_HOLE, FAKE_DATA, FAKE_UNREADABLE, FAKE_DAMAGED };

/* What the disk is, byte by byte. FAKE_UNREADABLE: BAD; FAKE_DAMAGED: cannot be decoded. */
struct fake_truth {
	uint64_t size;
	uint8_t *values, *classes;
};

struct fake_truth fake_truth(const struct vd_disk *disk);
void fake_truth_free(struct fake_truth *truth);

/* The same as maximal holes and data. */
struct fake_pieces {
	uint64_t size;
	struct vd_piece *pieces;
	size_t count;
};

struct fake_pieces fake_pieces(const struct vd_disk *disk);
struct fake_pieces fake_grid_pieces(const struct vd_disk *disk);
void fake_pieces_free(struct fake_pieces *pieces);

/* A part of the expected piece number *i, or of a later one, that begins at *virt; moves both on. */
void fake_pieces_expect(const struct fake_pieces *pieces, size_t *i, uint64_t *virt,
			const struct vd_piece *piece);

#endif
