/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening a chain. What a parent's name may lead to is decided in opener.c; here stand the order of
 * trying names, the check that the right parent was found, and the bounds: each file once (a loop
 * would never end) and at most VD_LAYERS_MAX layers. Start-up only, one thread.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/chain_parts.h"
#include "disk/renamed.h"
#include "source/address.h"

/* Bytes of metadata pages that all layers together keep. */
#define CACHE_BYTES ((size_t)32 << 20)
/* And while they are opened, when the search for shared tables needs memory, too. */
#define CACHE_BYTES_OPENING ((size_t)8 << 20)
/* Bytes of decoded clusters, unless --cache-memory says otherwise. */
#define UNIT_BYTES ((size_t)32 << 20)

static bool chain_has(const struct vd_disk *disk, const struct vd_source *source)
{
	for (unsigned i = 0; i < disk->count; i++) {
		const struct vd_image *image = disk->layers[i];

		if (vd_source_is_same_file(image->source, source) ||
		    (image->data && vd_source_is_same_file(image->data, source)))
			return true;
	}
	return false;
}

/* Append what to do when a file that an image names cannot be opened. */
static void advise(const struct vd_open_request *request, const char *option, int r,
		   struct vd_error *err)
{
	bool by_policy = r == -EXDEV || r == -EPERM || r == -ENOTBLK;

	if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return;
	if (request->policy == VD_BACKING_NONE)
		vd_error_add(err, "; allow it with --backing=same-dir or --backing=any");
	else if (request->base->is_server)
		vd_error_add(err, "; name a file or an address with %s", option);
	else if (by_policy && request->policy == VD_BACKING_SAME_DIR)
		vd_error_add(err, "; allow it with --backing=any or name it with %s", option);
	else
		vd_error_add(err, "; name it with %s", option);
}

int chain_source(struct chain *chain, const struct vd_open_request *request, const char *option,
		 struct vd_source **out, struct vd_error *err)
{
	struct vd_source *source;
	int r = chain->opener->open(chain->opener->context, request, &source, err);

	if (r < 0 && option)
		advise(request, option, r, err);
	if (r < 0)
		return r;
	r = vd_budget_spend(&chain->disk->budget, VD_COST_FILE, source->name, "its size",
			    source->size, err);
	if (r == 0 && chain_has(chain->disk, source))
		r = vd_fail(err, EEXIST,
			    "%s: the chain comes back to this file, as its %s; it has no end",
			    source->name, request->role);
	if (r == 0)
		r = vd_source_lock(source, chain->options->force_share, err);
	if (r < 0)
		vd_source_close(source);
	else
		*out = source;
	return r;
}

struct vd_open_request chain_request(const struct chain *chain, const char *role)
{
	const struct vd_disk *disk = chain->disk;

	return (struct vd_open_request){
		.role = role,
		.policy = chain->options->backing,
		.owner = disk->count ? disk->layers[0]->source->st.st_uid : 0,
		.patience = chain->options->patience,
	};
}

bool chain_is_missing(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -EXDEV;
}

/* A data file that is not where its name leads: look in the directories of --search. */
static int data_search(struct chain *chain, struct vd_open_request *request, struct vd_source **out,
		       struct vd_error *err)
{
	const char *slash = strrchr(request->name, '/');
	int r = -ENOENT;

	if (slash)
		request->name = slash + 1;
	for (unsigned i = 0; i < chain->options->search_count && chain_is_missing(r); i++) {
		request->directory = chain->options->search[i];
		r = chain_source(chain, request, NULL, out, err);
	}
	return r;
}

/* Open the external data file of an image that has one. */
static int chain_data(struct chain *chain, struct vd_image *image, const char *by_hand,
		      struct vd_error *err)
{
	const char *name = image->format->data_name ? image->format->data_name(image) : NULL;
	struct vd_open_request request = chain_request(chain, "data file");
	bool is_top = chain->disk->count == 0;
	struct vd_error other;
	int r, searched;

	if (!name && by_hand)
		return vd_fail(err, EINVAL,
			       "%s: the image has no external data file; leave --data-file out",
			       image->source->name);
	if (!name)
		return 0;
	if (!by_hand && !*name)
		return vd_fail(err, EINVAL,
			       "%s: the image needs an external data file and names none; name it "
			       "with --data-file=PATH",
			       image->source->name);
	request.name = by_hand ? by_hand : name;
	request.base = by_hand ? NULL : image->source;
	request.owner = is_top ? image->source->st.st_uid : request.owner;
	r = chain_source(chain, &request,
			 by_hand  ? NULL
			 : is_top ? "--data-file=PATH"
				  : "--search=DIR, which is for the directory that has it",
			 &image->data, err);
	if (!chain_is_missing(r) || by_hand)
		return r;
	searched = data_search(chain, &request, &image->data, &other);
	if (chain_is_missing(searched))
		return r; /* with the message that advises */
	if (searched < 0)
		*err = other;
	return searched;
}

int chain_layer(struct chain *chain, struct vd_source *source, const char *format_name,
		const char *option, const uint8_t *uuid, struct vd_image **out,
		struct vd_error *err)
{
	bool top = chain->disk->count == 0;
	struct vd_image_options options = {
		.snapshot = top ? chain->options->snapshot : NULL,
		.uuid = uuid,
		.vhd_footer = chain->options->vhd_footer,
		.ignore_checksums = chain->options->ignore_checksums,
		.budget = &chain->disk->budget,
	};
	const struct vd_format *format = format_name ? vd_format_find(format_name) : NULL;
	struct vd_image *image;
	int r;

	r = format ? 0 : vd_format_probe(source, option, &format, err);
	if (r < 0) {
		vd_source_close(source);
		return r;
	}
	r = vd_image_open(source, format, &options, chain->disk->cache, &image, err);
	if (r < 0)
		return r;
	r = chain_data(chain, image, top ? chain->options->data_file : NULL, err);
	if (r == 0 && image->data && vd_source_is_same_file(image->data, image->source))
		r = vd_fail(err, ELOOP, "%s: the image names itself as its data file",
			    image->source->name);
	if (r < 0)
		vd_image_close(image);
	else
		*out = image;
	return r;
}

/* How much later the times of a parent may be: the clocks of file systems are coarse. */
#define SLACK_SECONDS 2

/*
 * Say so if the parent is newer than the image above it knows: it may have been made anew, or
 * written to after the image, which shows wrong data then. A parent that was only written to before
 * the image is fine: XenServer marks a parent after it has recorded its time.
 */
static void say_if_newer(const struct vd_image *child, const struct vd_parent *parent,
			 const struct vd_image *image)
{
	time_t written = image->source->st.st_mtim.tv_sec;
	time_t above = child->source->st.st_mtim.tv_sec;
	bool are_files = S_ISREG(image->source->st.st_mode) && S_ISREG(child->source->st.st_mode) &&
			 !image->source->is_server && !child->source->is_server;
	bool is_newer = are_files && written > parent->recorded + SLACK_SECONDS &&
			written > above + SLACK_SECONDS;

	if (parent->recorded == 0 || (!is_newer && image->made <= parent->recorded))
		return;
	vd_log(LOG_WARNING,
	       "%s: the parent %s is newer than this image has recorded; if it was written to since, "
	       "and not only copied, the disk is wrong",
	       child->source->name, image->source->name);
}

/* The chain ends here although the last layer has a parent. */
static void leave_parent_out(struct vd_disk *disk)
{
	disk->lacks_parent = true;
	vd_log(LOG_WARNING,
	       "%s: is read without its parent (--without-parent): what it does not hold itself "
	       "reads as an error",
	       disk->layers[disk->count - 1]->source->name);
}

/* Open the layer below the last one. 1: there is one more; 0: the chain is complete. */
static int chain_descend(struct chain *chain, struct vd_error *err)
{
	struct vd_disk *disk = chain->disk;
	const struct vd_image *child = disk->layers[disk->count - 1];
	struct vd_parent *parent = &chain->parents[disk->count - 1];
	struct vd_error why;
	const char *path;
	/* Names that cannot be read may be given by hand. */
	int names = child->format->parent ? child->format->parent(child, parent, &why) : 0;
	int r = parent_by_hand(chain, &path, err);

	if (r < 0)
		return r;
	if (names == -ENOMEM || (names < 0 && !path && !chain->options->without_parent)) {
		*err = why;
		return names;
	}
	if (names == 0 && parent->count == 0)
		return path ? vd_fail(err, EINVAL,
				      "%s: the image has no backing file; leave --backing-file out",
				      child->source->name)
			    : 0;
	if (!path && chain->options->without_parent) {
		leave_parent_out(disk);
		return 0;
	}
	if (disk->count == VD_LAYERS_MAX)
		return vd_fail(err, EMLINK,
			       "%s: the chain has more than %d layers; merge some of them first "
			       "(qemu-img commit, or vhd-util coalesce)",
			       disk->layers[0]->source->name, VD_LAYERS_MAX);
	r = parent_open(chain, path, &disk->layers[disk->count], err);
	if (r < 0)
		return r;
	say_if_newer(child, parent, disk->layers[disk->count]);
	disk->count++;
	return 1;
}

/* Each --backing-format must have had its layer: one too many means that the user counts otherwise. */
static int check_formats(const struct chain *chain, struct vd_error *err)
{
	unsigned given = chain->options->backing_format_count, below = chain->disk->count - 1;

	if (given <= below)
		return 0;
	return vd_fail(err, EINVAL,
		       "%s: --backing-format is given %u times, but the chain has %u backing file%s; "
		       "leave out what is too much",
		       chain->disk->layers[0]->source->name, given, below, below == 1 ? "" : "s");
}

static int chain_top(struct chain *chain, const char *path, struct vd_error *err)
{
	struct vd_open_request request = {
		.name = path,
		.role = "image",
		.patience = chain->options->patience,
	};
	struct vd_disk *disk = chain->disk;
	struct vd_source *source;
	int r = chain_source(chain, &request, NULL, &source, err);

	if (r == 0)
		r = chain_layer(chain, source, chain->options->format, "--format", NULL,
				&disk->layers[0], err);
	if (r < 0)
		return r;
	disk->count = 1;
	disk->size = disk->layers[0]->size;
	disk->cluster_bits = disk->layers[0]->cluster_bits;
	return 0;
}

static bool has_address(const char *image, const struct vd_chain_options *options)
{
	if (vd_address_is(image) || (options->data_file && vd_address_is(options->data_file)))
		return true;
	for (unsigned i = 0; i < options->backing_file_count; i++) {
		if (vd_address_is(options->backing_files[i]))
			return true;
	}
	for (unsigned i = 0; i < options->renamed_count; i++) {
		bool has_name;

		if (vd_address_is(vd_renamed_path(options->renamed[i], &has_name)))
			return true;
	}
	return false;
}

void vd_chain_prepare(const char *const *images, const struct vd_chain_options *options,
		      unsigned count)
{
	bool found = false;

	vd_opener_raise_limit();
	for (unsigned i = 0; i < count; i++)
		found = found || has_address(images[i], &options[i]);
	if (found)
		vd_source_load(NULL);
}

static int disk_new(const struct vd_chain_options *options, struct vd_disk **out)
{
	size_t unit_bytes = options->cache_memory ? options->cache_memory : UNIT_BYTES;
	unsigned threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	struct vd_disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		return -ENOMEM;
	if (vd_cache_new(CACHE_BYTES_OPENING, &disk->cache) < 0 ||
	    vd_units_new(unit_bytes, threads, &disk->units) < 0) {
		vd_disk_close(disk);
		return -ENOMEM;
	}
	disk->budget.left = VD_BUDGET_WORK;
	*out = disk;
	return 0;
}

static void chain_free(struct chain *chain)
{
	for (unsigned i = 0; i < VD_LAYERS_MAX; i++)
		vd_parent_clear(&chain->parents[i]);
	parent_free_candidates(chain);
	free(chain);
}

int vd_chain_open(const char *path, const struct vd_chain_options *options,
		  const struct vd_opener *opener, struct vd_disk **out, struct vd_error *err)
{
	struct chain *chain = calloc(1, sizeof(*chain));
	int r = chain ? disk_new(options, &chain->disk) : -ENOMEM;

	if (r < 0) {
		free(chain);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	chain->options = options;
	chain->opener = opener;
	r = chain_top(chain, path, err);
	if (r == 0 && !options->alone) {
		do
			r = chain_descend(chain, err);
		while (r > 0);
		if (r == 0)
			r = parent_check_used(chain, err);
		if (r == 0)
			r = check_formats(chain, err);
	}
	if (r < 0) {
		vd_disk_close(chain->disk);
	} else {
		vd_cache_resize(chain->disk->cache, CACHE_BYTES);
		*out = chain->disk;
	}
	chain_free(chain);
	return r;
}
