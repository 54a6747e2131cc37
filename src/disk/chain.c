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

#include "disk/chain.h"
#include "source/address.h"

/* Bytes of metadata pages that all layers together keep. */
#define CACHE_BYTES ((size_t)32 << 20)
/* And while they are opened, when the search for shared tables needs memory, too. */
#define CACHE_BYTES_OPENING ((size_t)8 << 20)
/* Bytes of decoded clusters, unless --cache-memory says otherwise. */
#define UNIT_BYTES ((size_t)32 << 20)

struct chain {
	const struct vd_chain_options *options;
	const struct vd_opener *opener;
	struct vd_disk *disk;
};

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

/* Open a file through the opener, refuse it if the chain has it already, and lock it. */
static int chain_source(struct chain *chain, const struct vd_open_request *request,
			struct vd_source **out, struct vd_error *err)
{
	struct vd_source *source;
	int r = chain->opener->open(chain->opener->context, request, &source, err);

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

static struct vd_open_request chain_request(const struct chain *chain, const char *role,
					    const char *option)
{
	const struct vd_disk *disk = chain->disk;

	return (struct vd_open_request){
		.role = role,
		.option = option,
		.policy = chain->options->backing,
		.owner = disk->count ? disk->layers[0]->source->st.st_uid : 0,
		.patience = chain->options->patience,
	};
}

/* Open the external data file of an image that has one. */
static int chain_data(struct chain *chain, struct vd_image *image, const char *by_hand,
		      struct vd_error *err)
{
	const char *name = image->format->data_name ? image->format->data_name(image) : NULL;
	struct vd_open_request request = chain_request(chain, "data file", "--data-file");

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
	request.owner = chain->disk->count ? request.owner : image->source->st.st_uid;
	return chain_source(chain, &request, &image->data, err);
}

/*
 * Open one layer on the source, which is taken over, and its data file. `option` is the one that
 * names its format; uuid: what it must have, or NULL.
 */
static int chain_layer(struct chain *chain, struct vd_source *source, const char *format_name,
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

/* The parent's format is a guess. Does the file look like another format? */
static int guess_check(const struct vd_source *source, const struct vd_parent *parent,
		       struct vd_error *err)
{
	int r = parent->unless ? parent->unless->probe(source) : 0;

	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read what it is: %s", source->name, strerror(-r));
	if (r == 0)
		return 0;
	return vd_fail(err, EINVAL,
		       "%s: the image above it records no UUID for its parent, which means a %s disk, "
		       "but this looks like a %s image: say which it is with --backing-format=%s or "
		       "--backing-format=%s",
		       source->name, parent->format, parent->unless->name, parent->unless->name,
		       parent->format);
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

/* Open one candidate for the parent and see whether it is the right one. */
static int parent_try(struct chain *chain, const struct vd_parent *parent,
		      const struct vd_open_request *request, const char *format,
		      struct vd_image **out, struct vd_error *err)
{
	struct vd_source *source;
	int r = chain_source(chain, request, &source, err);

	if (r < 0)
		return r;
	r = guess_check(source, parent, err);
	if (r < 0) {
		vd_source_close(source);
		return r;
	}
	return chain_layer(chain, source, format, "--backing-format",
			   parent->check_uuid ? parent->uuid : NULL, out, err);
}

/* Why a name did not do, in a few words, for the list of all that were tried. */
static const char *short_reason(int r)
{
	switch (r) {
	case -EXDEV:
		return "outside the image's directory, which --backing=any allows";
	case -EPERM:
		return "of another owner, which --backing=any allows";
	case -ESTALE:
		return "has another UUID";
	case -EEXIST:
		return "already in the chain";
	case -EACCES:
		return "not permitted";
	case -EINVAL:
	case -ENOTSUP:
		return "not such an image";
	default:
		return strerror(-r);
	}
}

/* Was there a file, which is no good? Then that is what the user must hear. */
static bool is_telling(int r)
{
	return r == -EINVAL || r == -ENOTSUP || r == -EFBIG || r == -EIO;
}

/* Try the names that the image gives, in order. With one name its own message says enough. */
static int parent_search(struct chain *chain, const struct vd_image *child,
			 const struct vd_parent *parent, struct vd_open_request *request,
			 const char *format, struct vd_image **out, struct vd_error *err)
{
	struct vd_error tried = { "" }, telling = { "" };
	char shown[256];
	int r = -ENOENT, told = 0;

	request->base = child->source;
	for (unsigned i = 0; i < parent->count; i++) {
		request->name = parent->names[i];
		r = parent_try(chain, parent, request, format, out, err);
		if (r == 0 || r == -EBUSY || r == -ENOMEM || r == -E2BIG || parent->count == 1)
			return r;
		if (is_telling(r) && !told) {
			telling = *err;
			told = r;
		}
		vd_escape(shown, sizeof(shown), request->name, strlen(request->name));
		vd_error_add(&tried, "%s '%s' (%s)", i ? "," : "", shown, short_reason(r));
	}
	if (request->policy == VD_BACKING_NONE)
		return r; /* the last message says it for all names */
	if (told) {
		*err = telling;
		return told;
	}
	return vd_fail(err, ENOENT,
		       "%s: its parent was not found; name it with --backing-file=PATH; tried%s",
		       child->source->name, tried.text);
}

/* The recorded format of the parent of layer `index`, or the one given by hand. */
static int parent_format(const struct chain *chain, unsigned index, const struct vd_image *child,
			 struct vd_parent *parent, const char **format, struct vd_error *err)
{
	char shown[64];

	*format = parent->format;
	if (index < chain->options->backing_format_count) {
		*format = chain->options->backing_formats[index];
		parent->unless = NULL; /* it is no guess any more */
	}
	if (!*format || vd_format_find(*format))
		return 0;
	vd_escape(shown, sizeof(shown), *format, strlen(*format));
	return vd_fail(err, ENOTSUP,
		       "%s: the backing file's format is '%s', which vdifs does not read; if that "
		       "is wrong, say what it is with --backing-format=FORMAT",
		       child->source->name, shown);
}

/* Open the layer below the last one. 1: there is one more; 0: the chain is complete. */
static int chain_descend(struct chain *chain, struct vd_error *err)
{
	struct vd_disk *disk = chain->disk;
	unsigned index = disk->count - 1;
	const struct vd_image *child = disk->layers[index];
	struct vd_open_request request = chain_request(chain, "backing file", "--backing-file");
	struct vd_parent parent = { 0 };
	struct vd_image *image = NULL;
	const char *format;
	bool by_hand = index < chain->options->backing_file_count;
	int r = child->format->parent ? child->format->parent(child, &parent, err) : 0;

	/* A parent that the image does not name, or that cannot be read, may be named by hand. */
	if (r < 0 && r != -ENOMEM && by_hand)
		r = 0;
	else if (r == 0 && parent.count == 0 && by_hand)
		r = vd_fail(err, EINVAL,
			    "%s: the image has no backing file; leave --backing-file out",
			    child->source->name);
	else if (r == 0 && parent.count == 0)
		return 0;
	if (r == 0 && disk->count == VD_LAYERS_MAX)
		r = vd_fail(err, EMLINK,
			    "%s: the chain has more than %d layers; merge some with qemu-img "
			    "commit or rebase",
			    disk->layers[0]->source->name, VD_LAYERS_MAX);
	if (r == 0)
		r = parent_format(chain, index, child, &parent, &format, err);
	if (r == 0 && by_hand) {
		request.name = chain->options->backing_files[index];
		r = parent_try(chain, &parent, &request, format, &image, err);
	} else if (r == 0) {
		r = parent_search(chain, child, &parent, &request, format, &image, err);
	}
	if (r == 0)
		say_if_newer(child, &parent, image);
	vd_parent_clear(&parent);
	if (r < 0)
		return r;
	disk->layers[disk->count++] = image;
	return 1;
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
	int r = chain_source(chain, &request, &source, err);

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
	return false;
}

void vd_chain_prepare(const char *const *images, const struct vd_chain_options *options,
		      unsigned count)
{
	bool found = false;

	for (unsigned i = 0; i < count; i++)
		found = found || has_address(images[i], &options[i]);
	if (found)
		vd_source_load(NULL);
}

int vd_chain_open(const char *path, const struct vd_chain_options *options,
		  const struct vd_opener *opener, struct vd_disk **out, struct vd_error *err)
{
	struct vd_disk *disk = calloc(1, sizeof(*disk));
	struct chain chain = { .options = options, .opener = opener, .disk = disk };
	size_t unit_bytes = options->cache_memory ? options->cache_memory : UNIT_BYTES;
	unsigned threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	int r = 0;

	if (!disk || vd_cache_new(CACHE_BYTES_OPENING, &disk->cache) < 0 ||
	    vd_units_new(unit_bytes, threads, &disk->units) < 0)
		r = vd_fail(err, ENOMEM, "out of memory");
	else
		disk->budget.left = VD_BUDGET_WORK;
	if (r == 0)
		r = chain_top(&chain, path, err);
	if (r == 0 && !options->alone) {
		do
			r = chain_descend(&chain, err);
		while (r > 0);
	}
	if (r < 0) {
		vd_disk_close(disk);
		return r;
	}
	vd_cache_resize(disk->cache, CACHE_BYTES);
	*out = disk;
	return 0;
}
