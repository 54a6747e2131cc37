/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sources, drivers and disks for the tests: see fake.h. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fake.h"

void gate_init(struct gate *gate)
{
	*gate = (struct gate){ .maker = pthread_self() };
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->changed, NULL);
}

void gate_free(struct gate *gate)
{
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
}

void gate_pass(struct gate *gate)
{
	if (!gate || pthread_equal(gate->maker, pthread_self()))
		return;
	pthread_mutex_lock(&gate->lock);
	gate->arrived = true;
	pthread_cond_broadcast(&gate->changed);
	while (!gate->open)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

void gate_await(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	while (!gate->arrived)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->open = true;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

static struct fake_source *fake_source(const struct vd_source *source)
{
	return (struct fake_source *)(uintptr_t)source;
}

bool fake_source_is_hole(const struct vd_source *source, uint64_t host)
{
	const struct fake_source *fake = fake_source(source);

	return fake->hole_bits > 0 && mix(fake->seed, host >> fake->hole_bits) & 1;
}

uint8_t fake_source_byte(const struct vd_source *source, uint64_t host)
{
	if (fake_source_is_hole(source, host))
		return 0;
	return (uint8_t)(mix(fake_source(source)->seed + 1, host / 8) >> host % 8 * 8);
}

static ssize_t fake_pread(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host)
{
	struct fake_source *fake = fake_source(source);
	uint8_t *to = buffer;

	atomic_fetch_add(&fake->preads, 1);
	gate_pass(fake->gate);
	if (atomic_load(&fake->failures) > 0 && atomic_fetch_sub(&fake->failures, 1) > 0)
		return -EIO;
	if (host >= source->size)
		return 0;
	bytes = (size_t)vd_min(bytes, source->size - host);
	for (size_t i = 0; i < bytes; i++)
		to[i] = fake_source_byte(source, host + i);
	return (ssize_t)bytes;
}

/* Is the block told of as a hole? */
static bool fake_tells_hole(struct fake_source *fake, uint64_t block)
{
	uint64_t mood = atomic_load(&fake->mood);

	return fake_source_is_hole(&fake->source, block << fake->hole_bits) &&
	       !(mood && mix(mood, block) & 1);
}

/* Sometimes not as far as it could: the contract allows it. */
static int fake_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end)
{
	struct fake_source *fake = fake_source(source);
	uint64_t block = (host >> fake->hole_bits) + 1;

	atomic_fetch_add(&fake->extents, 1);
	*is_hole = fake_tells_hole(fake, block - 1);
	while (mix(fake->seed, ~block) & 3 && block << fake->hole_bits < source->size &&
	       fake_tells_hole(fake, block) == *is_hole)
		block++;
	*end = vd_min(block << fake->hole_bits, source->size);
	return 0;
}

static void fake_source_close(struct vd_source *source)
{
	(void)source;
}

static const struct vd_source_ops fake_source_ops = {
	.pread = fake_pread,
	.extent = fake_extent,
	.close = fake_source_close,
};

struct fake_source *fake_source_new(uint64_t size, uint64_t seed, unsigned hole_bits)
{
	struct fake_source *fake = calloc(1, sizeof(*fake));

	assert_non_null(fake);
	fake->source = (struct vd_source){
		.ops = &fake_source_ops,
		.serial = vd_serial(),
		.name = strdup("fake"),
		.size = size,
		.fd = -1,
		.dir_fd = -1,
		.real_fd = -1,
		.dense = hole_bits == 0,
	};
	assert_non_null(fake->source.name);
	fake->source.st.st_mode = S_IFREG;
	fake->source.st.st_blocks = (blkcnt_t)vd_div_up(size, VD_SECTOR);
	fake->seed = seed;
	fake->hole_bits = hole_bits;
	return fake;
}

void fake_source_renew(struct fake_source *fake, uint64_t size, uint64_t seed)
{
	struct fake_source *other = fake_source_new(size, seed, 0);

	free(fake->source.name);
	*fake = *other;
	free(other);
}

struct fake_layer *fake_layer(const struct vd_image *image)
{
	return image->state;
}

static unsigned span_find(const struct fake_layer *layer, uint64_t virt)
{
	unsigned low = 0, high = layer->count;

	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;

		if (layer->spans[middle].start <= virt)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The span as a run; only [start, end) of it, but all if it is CODED. */
static struct vd_run span_run(const struct fake_span *span, uint64_t start, uint64_t end)
{
	struct vd_run run = {
		.start = span->start,
		.length = span->length,
		.kind = span->kind,
		.coded_bytes = span->kind == VD_CODED,
		.from = span->from,
		.where = span->where,
	};

	if (span->kind != VD_CODED) {
		run.start = vd_max(span->start, start);
		run.length = vd_min(span->start + span->length, end) - run.start;
		run.where += run.start - span->start;
	}
	return run;
}

static int fake_map(const struct vd_image *image, uint64_t virt, uint64_t want,
		    struct vd_runs *runs)
{
	struct fake_layer *layer = image->state;
	enum fake_manner manner = layer->manner;
	unsigned i = span_find(layer, virt);
	uint64_t roll = mix(layer->seed, virt);
	uint64_t start = 0, end = UINT64_MAX;
	struct vd_run run;

	atomic_fetch_add(&layer->maps, 1);
	if (layer->error && virt >= layer->error_virt)
		return layer->error;
	if (manner == FAKE_MIXED)
		manner = (enum fake_manner)(roll % FAKE_MIXED);
	if (manner == FAKE_CLIPPED) {
		start = virt - vd_min(virt, roll >> 8 & 63);
		end = virt + 1 + (roll >> 16) % vd_min(want, 1000);
	}
	do {
		run = span_run(&layer->spans[i++], start, end);
	} while (vd_runs_add(runs, &run) && manner != FAKE_SINGLE && i < layer->count &&
		 layer->spans[i].start < end);
	return 0;
}

static uint8_t coded_byte(const struct fake_layer *layer, uint64_t start, uint64_t at)
{
	return (uint8_t)(mix(layer->seed + start, at / 8) >> at % 8 * 8);
}

static int fake_decode(const struct vd_image *image, const struct vd_run *run, void *unit,
		       struct vd_scratch *scratch)
{
	struct fake_layer *layer = image->state;
	const struct fake_span *span = &layer->spans[span_find(layer, run->start)];
	uint8_t *to = unit;

	(void)scratch;
	atomic_fetch_add(&layer->decodes, 1);
	if (run->from)
		gate_pass(fake_source(run->from)->gate);
	assert_true(run->kind == VD_CODED && run->start == span->start &&
		    run->length == span->length);
	memset(unit, 0xee, (size_t)run->length / 2);
	if (span->is_damaged)
		return -EBADMSG;
	for (uint64_t i = 0; i < run->length; i++)
		to[i] = coded_byte(layer, span->start, i);
	return 0;
}

static void fake_close(struct vd_image *image)
{
	struct fake_layer *layer = image->state;

	free(layer->spans);
	free(layer);
}

static const struct vd_format fake_format = {
	.name = "fake",
	.map = fake_map,
	.decode = fake_decode,
	.close = fake_close,
};

/* An image without a state. It gets its own record of what was logged, as vd_image_open() does. */
static struct vd_image *image_new(const struct vd_format *format, uint64_t size)
{
	struct vd_image *image = calloc(1, sizeof(*image));

	assert_non_null(image);
	image->format = format;
	image->serial = vd_serial();
	image->size = size;
	image->corrupt = make(sizeof(*image->corrupt));
	*image->corrupt = (struct vd_log_once)VD_LOG_ONCE_INIT;
	return image;
}

struct vd_image *fake_image_new(uint64_t size, enum fake_manner manner, struct dice *dice)
{
	struct vd_image *image = image_new(&fake_format, size);
	struct fake_layer *layer = calloc(1, sizeof(*layer));

	assert_non_null(layer);
	layer->manner = manner;
	layer->seed = dice_roll(dice, UINT64_MAX);
	image->state = layer;
	image->source = &fake_source_new(3 * size + 1, dice_roll(dice, UINT64_MAX), 0)->source;
	image->data = &fake_source_new(3 * size + 1, dice_roll(dice, UINT64_MAX),
				       (unsigned)(5 + dice_roll(dice, 6)))
			       ->source;
	return image;
}

struct fake_span *fake_span_add(struct vd_image *image, uint64_t length, enum vd_kind kind,
				const struct vd_source *from, uint64_t where)
{
	struct fake_layer *layer = image->state;
	struct fake_span *last = layer->count ? &layer->spans[layer->count - 1] : NULL;
	struct fake_span span = {
		.start = last ? last->start + last->length : 0,
		.length = length,
		.kind = kind,
		.from = from,
		.where = where,
	};

	if (layer->count == layer->room) {
		layer->room = 2 * layer->room + 16;
		layer->spans = realloc(layer->spans, layer->room * sizeof(span));
		assert_non_null(layer->spans);
	}
	layer->spans[layer->count] = span;
	return &layer->spans[layer->count++];
}

struct vd_image *fake_image_of(const char *spans, enum fake_manner manner, unsigned file)
{
	static const enum vd_kind kinds[] = {
		['A'] = VD_ABSENT, ['Z'] = VD_ZERO,  ['R'] = VD_RAW,
		['C'] = VD_CODED,  ['D'] = VD_CODED, ['B'] = VD_BAD,
	};
	struct dice dice = { file };
	struct vd_image *image = fake_image_new(0, manner, &dice);
	char kind, at;

	image->compression = "zlib";
	image->source->st.st_ino = file;
	image->source->size = 1 << 30; /* bytes follow from a formula */
	while (sscanf(spans, " %c", &kind) == 1) {
		uint64_t sectors, where = 0;
		int used = 0;

		assert_true(sscanf(spans, " %c%" SCNu64 "%n", &kind, &sectors, &used) == 2);
		spans += used;
		at = *spans;
		if (at == '@') {
			assert_true(sscanf(spans, "@%" SCNu64 "%n", &where, &used) == 1);
			spans += used;
		}
		fake_span_add(image, sectors * VD_SECTOR, kinds[(unsigned char)kind],
			      at == '@' ? image->source : NULL, where * VD_SECTOR)
			->is_damaged = kind == 'D';
		image->size += sectors * VD_SECTOR;
	}
	return image;
}

/* A raw span: one of four continues the last one, in the source if that was raw. */
static void add_random_raw(struct vd_image *image, uint64_t length, struct dice *dice)
{
	struct fake_layer *layer = image->state;
	const struct fake_span *last = layer->count ? &layer->spans[layer->count - 1] : NULL;
	const struct vd_source *from = dice_roll(dice, 2) ? image->source : image->data;
	uint64_t where = dice_roll(dice, from->size - length + 1);

	if (last && last->kind == VD_RAW && dice_roll(dice, 4) == 0 &&
	    vd_inside(last->where + last->length, length, last->from->size)) {
		from = last->from;
		where = last->where + last->length;
	}
	fake_span_add(image, length, VD_RAW, from, where);
}

struct vd_image *fake_image_random(uint64_t size, enum fake_manner manner, bool bad,
				   struct dice *dice)
{
	static const enum vd_kind kinds[] = {
		VD_ABSENT, VD_ABSENT, VD_ABSENT, VD_ZERO, VD_RAW, VD_RAW, VD_RAW, VD_CODED, VD_BAD,
	};
	struct vd_image *image = fake_image_new(size, manner, dice);
	uint64_t longest = UINT64_C(1) << dice_roll(dice, 11);

	for (uint64_t at = 0; at < size;) {
		uint64_t length = 1 + dice_roll(dice, longest);
		enum vd_kind kind = kinds[dice_roll(dice, ARRAY_LENGTH(kinds) - !bad)];

		if (kind == VD_RAW) /* all of it is inside the source: also behind the end */
			add_random_raw(image, vd_min(length, size), dice);
		else
			fake_span_add(image, length, kind, NULL, 0)->is_damaged =
				bad && dice_roll(dice, 3) == 0;
		at += fake_layer(image)->spans[fake_layer(image)->count - 1].length;
	}
	return image;
}

static bool cell_is_data(const struct fake_grid *grid, uint64_t cell)
{
	return mix(grid->seed, cell) % 8 < grid->data_of_8;
}

static int grid_map(const struct vd_image *image, uint64_t virt, uint64_t want,
		    struct vd_runs *runs)
{
	struct fake_grid *grid = image->state;
	uint64_t cell = virt >> grid->cell_bits, length = UINT64_C(1) << grid->cell_bits;
	struct vd_run run;

	(void)want;
	atomic_fetch_add(&grid->maps, 1);
	if (grid->gate && virt >= grid->gate_virt)
		gate_pass(grid->gate);
	if (grid->error && virt >= grid->error_virt)
		return grid->error;
	do {
		bool is_data = cell_is_data(grid, cell);

		run = (struct vd_run){
			.start = cell << grid->cell_bits,
			.length = length,
			.kind = is_data ? VD_RAW : VD_ABSENT,
			.from = is_data ? image->source : NULL,
			.where = (grid->scattered ? cell ^ 1 : cell) << grid->cell_bits,
		};
		cell++;
	} while (vd_runs_add(runs, &run) && cell << grid->cell_bits < image->size);
	return 0;
}

static void grid_close(struct vd_image *image)
{
	free(image->state);
}

static const struct vd_format grid_format = {
	.name = "grid",
	.map = grid_map,
	.close = grid_close,
};

struct vd_image *fake_grid_image(uint64_t size, const struct fake_grid *grid, unsigned cluster_bits)
{
	struct vd_image *image = image_new(&grid_format, size);

	image->cluster_bits = cluster_bits;
	image->state = make(sizeof(*grid));
	memcpy(image->state, grid, sizeof(*grid));
	image->source =
		&fake_source_new(size + (UINT64_C(2) << grid->cell_bits), grid->seed, 0)->source;
	return image;
}

struct fake_grid *fake_grid(const struct vd_disk *disk)
{
	return disk->layers[0]->state;
}

struct vd_disk *fake_disk_new(struct vd_image *const *images, unsigned count, unsigned cluster_bits)
{
	struct vd_disk *disk = calloc(1, sizeof(*disk));

	assert_non_null(disk);
	memcpy(disk->layers, images, count * sizeof(*images));
	assert_int_equal(vd_units_new(100000, 2, &disk->units), 0);
	disk->count = count;
	disk->size = images[0]->size;
	disk->cluster_bits = cluster_bits;
	return disk;
}

struct vd_disk *fake_disk_random(bool bad, struct dice *dice)
{
	struct vd_image *images[4];
	unsigned count = 1 + (unsigned)dice_roll(dice, ARRAY_LENGTH(images));
	uint64_t size = 1 + dice_roll(dice, 20000);

	for (unsigned i = 0; i < count; i++) {
		uint64_t own = i > 0 && dice_roll(dice, 2) ? 1 + dice_roll(dice, 30000) : size;

		images[i] = fake_image_random(own, (enum fake_manner)dice_roll(dice, FAKE_MANNERS),
					      bad, dice);
	}
	return fake_disk_new(images, count, 9 + (unsigned)dice_roll(dice, 4));
}

/* Look through the layers at one byte. */
static enum fake_class byte_truth(const struct vd_disk *disk, uint64_t virt, uint8_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < disk->count && virt < disk->layers[i]->size; i++) {
		const struct fake_layer *layer = disk->layers[i]->state;
		const struct fake_span *span = &layer->spans[span_find(layer, virt)];
		uint64_t inside = virt - span->start;

		switch (span->kind) {
		case VD_ABSENT:
			continue;
		case VD_ZERO:
			return FAKE_HOLE;
		case VD_RAW:
			*value = fake_source_byte(span->from, span->where + inside);
			return fake_source_is_hole(span->from, span->where + inside) ? FAKE_HOLE
										     : FAKE_DATA;
		case VD_CODED:
			*value = coded_byte(layer, span->start, inside);
			return span->is_damaged ? FAKE_DAMAGED : FAKE_DATA;
		case VD_BAD:
			return FAKE_UNREADABLE;
		}
	}
	return FAKE_HOLE;
}

struct fake_truth fake_truth(const struct vd_disk *disk)
{
	struct fake_truth truth = {
		.size = disk->size,
		.values = make((size_t)disk->size),
		.classes = make((size_t)disk->size),
	};

	for (uint64_t virt = 0; virt < disk->size; virt++)
		truth.classes[virt] = (uint8_t)byte_truth(disk, virt, &truth.values[virt]);
	return truth;
}

void fake_truth_free(struct fake_truth *truth)
{
	free(truth->values);
	free(truth->classes);
}

/* Append [end of the last one, end), merged with it if it is of one kind. */
static void pieces_add(struct fake_pieces *pieces, size_t *room, uint64_t end, bool is_data)
{
	uint64_t start = pieces->count ? pieces->pieces[pieces->count - 1].end : 0;

	if (pieces->count && pieces->pieces[pieces->count - 1].is_data == is_data) {
		pieces->pieces[pieces->count - 1].end = end;
		return;
	}
	if (pieces->count == *room) {
		*room = *room * 2 + 16;
		pieces->pieces = realloc(pieces->pieces, *room * sizeof(*pieces->pieces));
		assert_non_null(pieces->pieces);
	}
	pieces->pieces[pieces->count++] =
		(struct vd_piece){ .start = start, .end = end, .is_data = is_data };
}

struct fake_pieces fake_pieces(const struct vd_disk *disk)
{
	struct fake_pieces pieces = { .size = disk->size };
	struct fake_truth truth = fake_truth(disk);
	size_t room = 0;

	for (uint64_t virt = 0; virt < disk->size; virt++)
		pieces_add(&pieces, &room, virt + 1, truth.classes[virt] != FAKE_HOLE);
	fake_truth_free(&truth);
	return pieces;
}

struct fake_pieces fake_grid_pieces(const struct vd_disk *disk)
{
	const struct fake_grid *grid = fake_grid(disk);
	struct fake_pieces pieces = { .size = disk->size };
	size_t room = 0;

	for (uint64_t cell = 0; cell << grid->cell_bits < disk->size; cell++)
		pieces_add(&pieces, &room, vd_min((cell + 1) << grid->cell_bits, disk->size),
			   cell_is_data(grid, cell));
	return pieces;
}

void fake_pieces_free(struct fake_pieces *pieces)
{
	free(pieces->pieces);
}

void fake_pieces_expect(const struct fake_pieces *pieces, size_t *i, uint64_t *virt,
			const struct vd_piece *piece)
{
	assert_true(piece->start == *virt && piece->end > *virt);
	while (pieces->pieces[*i].end <= *virt)
		++*i;
	assert_int_equal(piece->is_data, pieces->pieces[*i].is_data);
	assert_true(piece->end <= pieces->pieces[*i].end);
	*virt = piece->end;
}
