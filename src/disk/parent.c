/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the layer below. Names by hand come first: they stand above what the image says. Then the
 * names that the image gives, in its order, and then the directories of --search: for a file of the
 * same name, and, if the parent is known by its UUID, for any file that has it. So it does not
 * matter how names are written there, in capitals or in another form of Unicode.
 *
 * A message that a layer is missing ends in the very option that mends this layer. In the middle of
 * a chain that is --backing-file=NAME=PATH: without NAME it would replace the name in the image,
 * and the layers in between would be left out silently.
 */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/log.h"
#include "disk/chain_parts.h"
#include "disk/renamed.h"

/* Files that --search looks at, in all directories together. */
#define CANDIDATES_MAX 16384
/* A name longer than this is in no advice: the message must have room for it. */
#define ADVICE_NAME_MAX 400
/* So many layers at most are listed in an advice. */
#define ADVICE_LAYERS_MAX 8

/* --- by hand --------------------------------------------------------------------------------- */

static bool parent_names(const struct vd_parent *parent, const char *name)
{
	for (unsigned i = 0; i < parent->count; i++) {
		if (strcmp(parent->names[i], name) == 0)
			return true;
	}
	return false;
}

/* Does the NAME of this option stand in the layer? */
static bool is_renamed(const struct vd_parent *parent, const char *value)
{
	for (unsigned i = 0; i < parent->count; i++) {
		if (vd_renamed_is(value, parent->names[i]))
			return true;
	}
	return false;
}

int parent_by_hand(struct chain *chain, const char **path, struct vd_error *err)
{
	const struct vd_chain_options *options = chain->options;
	unsigned index = chain->disk->count - 1;
	bool has_name;

	*path = index < options->backing_file_count ? options->backing_files[index] : NULL;
	for (unsigned i = 0; i < options->renamed_count; i++) {
		if (!is_renamed(&chain->parents[index], options->renamed[i]))
			continue;
		if (*path)
			return vd_fail(err, EINVAL,
				       "%s: two --backing-file options replace the name of its "
				       "backing file; leave one out",
				       chain->disk->layers[index]->source->name);
		*path = vd_renamed_path(options->renamed[i], &has_name);
		chain->used[i] = true;
	}
	return 0;
}

int parent_check_used(const struct chain *chain, struct vd_error *err)
{
	const struct vd_chain_options *options = chain->options;
	char shown[1024];

	for (unsigned i = 0; i < options->renamed_count; i++) {
		if (chain->used[i])
			continue;
		vd_escape(shown, sizeof(shown), options->renamed[i], strlen(options->renamed[i]));
		return vd_fail(err, EINVAL,
			       "%s: no layer names the backing file of --backing-file=%s; give the "
			       "name as the image has it, or a PATH with = in it as "
			       "--backing-file==PATH",
			       chain->disk->layers[0]->source->name, shown);
	}
	return 0;
}

/* --- advice ---------------------------------------------------------------------------------- */

/* A name of the last layer that no layer above has, for NAME=PATH replaces it everywhere; or NULL. */
static const char *own_name(const struct chain *chain)
{
	unsigned index = chain->disk->count - 1;
	const struct vd_parent *parent = &chain->parents[index];

	for (unsigned i = 0; i < parent->count; i++) {
		bool is_own = strlen(parent->names[i]) <= ADVICE_NAME_MAX;

		for (unsigned above = 0; above < index && is_own; above++)
			is_own = !parent_names(&chain->parents[above], parent->names[i]);
		if (is_own)
			return parent->names[i];
	}
	return NULL;
}

/* The option that names the parent of the last layer, and of no other. */
static void advise_option(const struct chain *chain, struct vd_error *text)
{
	unsigned index = chain->disk->count - 1;
	const char *name = index > 0 ? own_name(chain) : NULL;

	text->text[0] = '\0';
	if (name) {
		vd_renamed_advise(text, name);
	} else if (index <= ADVICE_LAYERS_MAX) {
		for (unsigned i = 1; i <= index; i++) {
			char *path = strdup(chain->disk->layers[i]->source->name);

			vd_renamed_advise_path(text, path ? vd_unescape(path, path) : "PATH");
			vd_error_add(text, " ");
			free(path);
		}
		vd_error_add(text, "--backing-file=PATH");
	} else {
		vd_error_add(text,
			     "--backing-file=PATH, after one --backing-file for each of the %u "
			     "layers above it",
			     index);
	}
}

/*
 * The words before "=FORMAT" that say what the parent of the last layer is, and no other: the option
 * has no name, so that one for each layer above stands first.
 */
static void advise_format(const struct chain *chain, struct vd_error *text)
{
	unsigned index = chain->disk->count - 1;

	text->text[0] = '\0';
	if (index > ADVICE_LAYERS_MAX)
		vd_error_add(text, "(after one --backing-format for each of the %u layers above it) ",
			     index);
	for (unsigned i = 1; i <= index && index <= ADVICE_LAYERS_MAX; i++)
		vd_error_add(text, "--backing-format=%s ", chain->disk->layers[i]->format->name);
	vd_error_add(text, "--backing-format");
}

/* --- trying one file ------------------------------------------------------------------------- */

/* The parent's format is a guess. Does the file look like another format? */
static int guess_check(const struct vd_source *source, const struct vd_parent *parent,
		       const char *option, struct vd_error *err)
{
	int r = parent->unless ? parent->unless->probe(source) : 0;

	if (r < 0)
		return vd_fail(err, -r, "%s: cannot read what it is: %s", source->name, strerror(-r));
	if (r == 0)
		return 0;
	return vd_fail(err, EINVAL,
		       "%s: the image above it records no UUID for its parent, which means a %s disk, "
		       "but this looks like a %s image: say which it is with %s=%s or %s=%s",
		       source->name, parent->format, parent->unless->name, option,
		       parent->unless->name, option, parent->format);
}

/* Open one candidate for the parent and see whether it is the right one. */
static int parent_try(struct chain *chain, const struct vd_open_request *request,
		      const char *option, bool check_uuid, struct vd_image **out,
		      struct vd_error *err)
{
	unsigned index = chain->disk->count - 1;
	const struct vd_parent *parent = &chain->parents[index];
	const char *format = index < chain->options->backing_format_count
				     ? chain->options->backing_formats[index]
				     : parent->format;
	struct vd_source *source;
	struct vd_error by_hand;
	int r = chain_source(chain, request, option, &source, err);

	if (r < 0)
		return r;
	advise_format(chain, &by_hand);
	if (index >= chain->options->backing_format_count) { /* else it is no guess */
		r = guess_check(source, parent, by_hand.text, err);
		if (r < 0) {
			vd_source_close(source);
			return r;
		}
	}
	r = chain_layer(chain, source, format, by_hand.text,
			check_uuid && parent->check_uuid ? parent->uuid : NULL, out, err);
	if (r == -ESTALE && option)
		vd_error_add(err,
			     "; name the right one with %s, or take this one with --any-parent",
			     option);
	else if (r == -ESTALE)
		vd_error_add(err, "; --any-parent accepts it");
	return r;
}

/* The parent is taken although something is not as it should be. */
static void log_taken(const struct chain *chain, const struct vd_image *image, const char *although)
{
	const struct vd_disk *disk = chain->disk;

	vd_log(LOG_WARNING, "%s: is taken as the parent of %s although %s", image->source->name,
	       disk->layers[disk->count - 1]->source->name, although);
}

static void log_any(const struct chain *chain, const struct vd_image *image)
{
	log_taken(chain, image, "its UUID is not the recorded one (--any-parent)");
}

/* A file of a format without UUIDs can have none that is wrong: the user says what it is. */
static int open_by_hand(struct chain *chain, struct vd_open_request *request, const char *path,
			struct vd_image **out, struct vd_error *err)
{
	struct vd_error unheard;
	int r, anyway;

	request->name = path;
	r = parent_try(chain, request, NULL, true, out, err);
	if (r != -ESTALE)
		return r;
	anyway = parent_try(chain, request, NULL, false, out, &unheard);
	if (anyway < 0 || !(*out)->format->identify)
		return anyway < 0 ? r : 0;
	if (chain->options->any_parent) {
		log_any(chain, *out);
		return 0;
	}
	vd_image_close(*out);
	return r;
}

/* --- names from the image -------------------------------------------------------------------- */

/* Why a name did not do, in a few words, for the list of all that were tried. */
static const char *short_reason(int r)
{
	switch (r) {
	case -EXDEV:
		return "outside the image's directory, which --backing=any allows";
	case -EPERM:
		return "of another owner, which --backing=any allows";
	case -ENOTBLK:
		return "a block device, which --backing=any allows";
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

/* Does no other name help? */
static bool is_final(int r)
{
	return r == 0 || r == -EBUSY || r == -ENOMEM || r == -E2BIG;
}

/*
 * May another file than that of the name, which gave `r`, be the parent? By a UUID the right one is
 * known. Without one, a file that is refused is not passed over for one that only has the same name.
 * What an absolute name leads to outside the directory is not looked at; it is mostly that of another
 * machine.
 */
static bool may_go_on(const struct vd_parent *parent, bool check_uuid, const char *name, int r)
{
	if (parent->check_uuid && check_uuid)
		return true;
	return r == -EXDEV ? parent->check_uuid || *name == '/' : chain_is_missing(r);
}

/*
 * Try one name that the image gives. Beside the link that led to the image another disk may have it,
 * while the right one, as its UUID shows, is beside the real file.
 */
static int try_name(struct chain *chain, struct vd_open_request *request, const char *option,
		    bool check_uuid, struct vd_image **out, struct vd_error *err)
{
	int r = parent_try(chain, request, option, check_uuid, out, err), beside;
	struct vd_error other;

	if (r != -ESTALE)
		return r;
	request->beside_real = true;
	beside = parent_try(chain, request, option, check_uuid, out, &other);
	request->beside_real = false;
	if (!is_final(beside))
		return r;
	*err = other;
	return beside;
}

/* Try the names that the image gives, in order. `err` then says why none will do. */
static int try_names(struct chain *chain, struct vd_open_request *request, const char *option,
		     bool check_uuid, struct vd_image **out, struct vd_error *err)
{
	const struct vd_disk *disk = chain->disk;
	const struct vd_parent *parent = &chain->parents[disk->count - 1];
	struct vd_error tried = { "" }, telling = { "" };
	char shown[256];
	int r = -ENOENT, told = 0;

	request->directory = NULL;
	for (unsigned i = 0; i < parent->count; i++) {
		request->name = parent->names[i];
		r = try_name(chain, request, option, check_uuid, out, err);
		if (r == 0 && i > 0 && !parent->check_uuid)
			log_taken(chain, *out,
				  "another name is recorded first, which leads to no usable file, and "
				  "no UUID is recorded");
		if (is_final(r) || parent->count == 1 ||
		    !may_go_on(parent, check_uuid, request->name, r))
			return r; /* its own message says enough */
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
	return vd_fail(err, ENOENT, "%s: its parent was not found; name it with %s; tried%s",
		       disk->layers[disk->count - 1]->source->name, option, tried.text);
}

/* --- directories of --search ----------------------------------------------------------------- */

static const char *last_part(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* Try the last part of each name in each directory. */
static int search_names(struct chain *chain, struct vd_open_request *request, bool check_uuid,
			struct vd_image **out, struct vd_error *err)
{
	const struct vd_parent *parent = &chain->parents[chain->disk->count - 1];
	int r = -ENOENT;

	for (unsigned i = 0; i < chain->options->search_count; i++) {
		for (unsigned j = 0; j < parent->count; j++) {
			request->directory = chain->options->search[i];
			request->name = last_part(parent->names[j]);
			r = parent_try(chain, request, NULL, check_uuid, out, err);
			if (is_final(r) || !may_go_on(parent, check_uuid, request->name, r))
				return r;
		}
	}
	return r;
}

/* A directory that cannot be read was given in error: that must be heard. */
static int search_check(struct chain *chain, char *names, struct vd_error *err)
{
	const struct vd_opener *opener = chain->opener;
	int r = 0;

	for (unsigned i = 0; i < chain->options->search_count && r >= 0; i++)
		r = opener->list(opener->context, chain->options->search[i], "", names, err);
	return r < 0 ? r : 0;
}

/* Look at one file: has it a UUID? */
static void candidate_look(struct chain *chain, struct candidate *candidate)
{
	struct vd_open_request request = chain_request(chain, "backing file");
	struct vd_source *source;
	struct vd_error unheard;

	request.base = chain->disk->layers[chain->disk->count - 1]->source;
	request.directory = chain->options->search[candidate->directory];
	request.name = candidate->name;
	request.is_candidate = true;
	if (chain->opener->open(chain->opener->context, &request, &source, &unheard) < 0)
		return;
	candidate->has_uuid = vd_format_identify(source, candidate->uuid) > 0;
	vd_source_close(source);
}

/* Add a name to the candidates. -ENOSPC: there are too many. */
static int candidate_add(struct chain *chain, unsigned directory, const char *name)
{
	struct candidate *one = &chain->candidates[chain->candidate_count];

	if (chain->candidate_count == CANDIDATES_MAX)
		return -ENOSPC;
	*one = (struct candidate){ .directory = directory, .name = strdup(name) };
	if (!one->name)
		return -ENOMEM;
	chain->candidate_count++;
	candidate_look(chain, one);
	return 0;
}

/* All files of one directory. */
static int candidates_list(struct chain *chain, unsigned directory, char *names,
			   struct vd_error *err)
{
	const struct vd_opener *opener = chain->opener;
	char after[NAME_MAX + 1] = "";
	int bytes;

	for (;;) {
		int at = 0, r = 0;

		bytes = opener->list(opener->context, chain->options->search[directory], after,
				     names, err);
		if (bytes <= 0)
			return bytes;
		while (at < bytes && r == 0) {
			r = candidate_add(chain, directory, names + at);
			snprintf(after, sizeof(after), "%s", names + at);
			at += (int)strlen(names + at) + 1;
		}
		if (r == -ENOSPC)
			return vd_fail(err, ENOSPC,
				       "--search: more than %d files in the directories; name "
				       "smaller ones",
				       CANDIDATES_MAX);
		if (r < 0)
			return vd_fail(err, -r, "out of memory");
	}
}

/* Once for the whole chain, when the first parent is missing. */
static int candidates_find(struct chain *chain, struct vd_error *err)
{
	char *names = malloc(VD_LIST_BYTES);
	int r = 0;

	chain->candidates = calloc(CANDIDATES_MAX, sizeof(*chain->candidates));
	if (!names || !chain->candidates)
		r = vd_fail(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < chain->options->search_count && r == 0; i++)
		r = candidates_list(chain, i, names, err);
	free(names);
	return r;
}

void parent_free_candidates(struct chain *chain)
{
	for (unsigned i = 0; i < chain->candidate_count; i++)
		free(chain->candidates[i].name);
	free(chain->candidates);
}

/* Any file that has the UUID, whatever its name. */
static int search_uuid(struct chain *chain, struct vd_open_request *request, struct vd_image **out,
		       struct vd_error *err)
{
	const struct vd_parent *parent = &chain->parents[chain->disk->count - 1];
	int r = chain->candidates ? 0 : candidates_find(chain, err);

	if (r < 0)
		return r;
	r = -ENOENT;
	for (unsigned i = 0; i < chain->candidate_count; i++) {
		const struct candidate *one = &chain->candidates[i];

		if (!one->has_uuid || memcmp(one->uuid, parent->uuid, VD_UUID_BYTES) != 0)
			continue;
		request->directory = chain->options->search[one->directory];
		request->name = one->name;
		r = parent_try(chain, request, NULL, true, out, err);
		if (is_final(r))
			break;
	}
	return r;
}

/*
 * 0: found; -ENOENT: not; else a failure, with a message, that ends the search. `check_uuid` false:
 * a file of that name will do.
 */
static int search(struct chain *chain, struct vd_open_request *request, bool check_uuid,
		  struct vd_image **out, struct vd_error *err)
{
	const struct vd_parent *parent = &chain->parents[chain->disk->count - 1];
	char *names = malloc(VD_LIST_BYTES);
	int r = names ? search_check(chain, names, err) : vd_fail(err, ENOMEM, "out of memory");

	free(names);
	if (r < 0)
		return r == -ENOENT ? -ENOTDIR : r;
	r = search_names(chain, request, check_uuid, out, err);
	if (!is_final(r) && check_uuid && parent->check_uuid)
		r = search_uuid(chain, request, out, err);
	if (is_final(r) || r == -ENOSPC || !may_go_on(parent, check_uuid, request->name, r))
		return r;
	return -ENOENT;
}

/* --- all of it ------------------------------------------------------------------------------- */

/* Is the format of the layer below, as recorded or given by hand, one that we read? */
static int check_format(const struct chain *chain, struct vd_error *err)
{
	unsigned index = chain->disk->count - 1;
	const char *format = chain->parents[index].format;
	struct vd_error option;
	char shown[64];

	if (index < chain->options->backing_format_count || !format || vd_format_find(format))
		return 0;
	vd_escape(shown, sizeof(shown), format, strlen(format));
	advise_format(chain, &option);
	return vd_fail(err, ENOTSUP,
		       "%s: the backing file's format is '%s', which vdifs does not read; if that "
		       "is wrong, say what it is with %s=FORMAT",
		       chain->disk->layers[index]->source->name, shown, option.text);
}

int parent_open(struct chain *chain, const char *path, struct vd_image **out, struct vd_error *err)
{
	const struct vd_chain_options *options = chain->options;
	unsigned index = chain->disk->count - 1;
	struct vd_open_request request = chain_request(chain, "backing file");
	struct vd_error option, other;
	int r = check_format(chain, err), searched = -ENOENT;

	if (r < 0)
		return r;
	if (path)
		return open_by_hand(chain, &request, path, out, err);
	advise_option(chain, &option);
	request.base = chain->disk->layers[index]->source;
	r = try_names(chain, &request, option.text, true, out, err);
	if (is_final(r) || request.policy == VD_BACKING_NONE ||
	    !(chain->parents[index].check_uuid || chain_is_missing(r)))
		return r;
	if (options->search_count > 0)
		searched = search(chain, &request, true, out, &other);
	if (searched == -ENOENT && options->any_parent && chain->parents[index].check_uuid) {
		searched = try_names(chain, &request, option.text, false, out, &other);
		if (chain_is_missing(searched) && options->search_count > 0)
			searched = search(chain, &request, false, out, &other);
		if (searched == 0)
			log_any(chain, *out);
	}
	if (searched < 0 && searched != -ENOENT) {
		*err = other;
		return searched;
	}
	return searched == 0 ? 0 : r;
}
