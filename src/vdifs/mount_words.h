/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The words of -o that are not options of vdifs: those of mount(8), of /etc/fstab, of libfuse and of
 * the kernel. mount(8) passes on "rw,dev,suid" whatever the line in fstab says, and much else.
 */
#ifndef VD_VDIFS_MOUNT_WORDS_H
#define VD_VDIFS_MOUNT_WORDS_H

#include <stdbool.h>

#include "base/usage.h"

enum vdifs_word {
	VDIFS_WORD_UNKNOWN,
	VDIFS_WORD_IGNORED, /* it means nothing here, or is always so */
	VDIFS_WORD_PASSED, /* for libfuse or the kernel */
	VDIFS_WORD_CONTEXT, /* one of SELinux, for the kernel */
	VDIFS_WORD_REMOUNT,
	VDIFS_WORD_REFUSED, /* the message says why */
};

/* What the word NAME, or NAME=value, is. value: NULL if there is none. */
enum vdifs_word vdifs_word_find(const char *name, const char *value, struct vd_error *err);

/* The words in a list that begins with "rw" and comes from mount(8). */
struct vdifs_word_list {
	bool has_rw, has_dev, has_suid; /* the last two in either form */
};

void vdifs_word_note(struct vdifs_word_list *list, const char *name);

/*
 * mount(8) passes "rw" unless the user gives "ro", and always dev or nodev, suid or nosuid. In another
 * list "rw" is a wish of the user. 0, or -EINVAL with a message.
 */
int vdifs_word_list_check(const struct vdifs_word_list *list, struct vd_error *err);

/* Consider all words for the one that the user may have meant. */
void vdifs_word_nearest(struct vd_nearest *nearest);

#endif
