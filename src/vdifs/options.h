/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of vdifs. Every long option NAME is also "-o NAME[=value]", which is how
 * mount(8) and /etc/fstab pass it.
 */
#ifndef VD_VDIFS_OPTIONS_H
#define VD_VDIFS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "disk/chain.h"
#include "sandbox/sandbox.h"

/* A label of SELinux for the kernel. */
struct vdifs_context {
	const char *name, *value;
};

#define VDIFS_CONTEXTS_MAX 4

struct vdifs_options {
	const char *image, *mountpoint; /* image: NULL with `unmount` */
	char *const *command; /* to run while the image is mounted, with a NULL at its end; or NULL */
	const char *pid_file; /* NULL: none is wanted */
	struct vd_chain_options chain;
	bool foreground, debug, single_thread, direct, verbose;
	bool layers, qcow2; /* more files to show */
	size_t map_memory; /* bytes */
	enum vd_sandbox_mode sandbox;
	char *mount_options; /* words for the kernel and libfuse, with commas; owned, or NULL */
	const char *fsname; /* given with -o fsname=, or NULL */
	struct vdifs_context contexts[VDIFS_CONTEXTS_MAX];
	unsigned context_count;
	bool unmount; /* in place of mounting */
	bool remount; /* given with -o remount */
	char **kept; /* strings that the rest points into; owned */
	unsigned kept_count;
	bool help, version, selftest; /* do that and exit */
};

/*
 * Parse. A value that is given twice is an error, but for lists. 0; -EINVAL: the command line is wrong;
 * -ENOMEM.
 */
int vdifs_options_parse(struct vdifs_options *options, int argc, char **argv, struct vd_error *err);

/* Is this word among the mount options? */
bool vdifs_options_has(const struct vdifs_options *options, const char *word);

void vdifs_options_print_help(void);
void vdifs_options_free(struct vdifs_options *options);

#endif
