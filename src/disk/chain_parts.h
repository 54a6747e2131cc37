/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What chain.c, which opens layers, and parent.c, which finds the next one, share. */
#ifndef VD_DISK_CHAIN_PARTS_H
#define VD_DISK_CHAIN_PARTS_H

#include "disk/chain.h"

/* A file in a --search directory. */
struct candidate {
	char *name; /* owned */
	unsigned directory;
	bool has_uuid;
	uint8_t uuid[VD_UUID_BYTES];
};

/* A chain while it is opened; on the heap. */
struct chain {
	const struct vd_chain_options *options;
	const struct vd_opener *opener;
	struct vd_disk *disk;
	struct vd_parent parents[VD_LAYERS_MAX]; /* what the layers name: parents[i] is layer i's */
	bool used[VD_LAYERS_MAX]; /* options->renamed[i] has replaced a name */
	struct candidate *candidates; /* those of all directories; NULL: no search yet */
	unsigned candidate_count;
};

struct vd_open_request chain_request(const struct chain *chain, const char *role);

/*
 * Open a file through the opener, refuse it if the chain has it already, and lock it. `option`: the
 * words that name such a file by hand, for the advice; NULL: none.
 */
int chain_source(struct chain *chain, const struct vd_open_request *request, const char *option,
		 struct vd_source **out, struct vd_error *err);

/*
 * Open one layer on the source, which is taken over, and its data file. `option` is the one that
 * names its format; uuid: what it must have, or NULL.
 */
int chain_layer(struct chain *chain, struct vd_source *source, const char *format_name,
		const char *option, const uint8_t *uuid, struct vd_image **out,
		struct vd_error *err);

/*
 * Does the error of an opening say that there is no file of that name where we may look, so that one
 * of the same name elsewhere may stand for it? One that is refused or in use is there.
 */
bool chain_is_missing(int r);

/*
 * The file that an option names as the parent of the last layer, or NULL: none. -EINVAL: two do.
 */
int parent_by_hand(struct chain *chain, const char **path, struct vd_error *err);

/* Find and open the parent of the last layer, which chain->parents has; path: given by hand. */
int parent_open(struct chain *chain, const char *path, struct vd_image **out, struct vd_error *err);

/* Is there a NAME=PATH that no image of the whole chain names? -EINVAL with a message. */
int parent_check_used(const struct chain *chain, struct vd_error *err);

void parent_free_candidates(struct chain *chain);

#endif
