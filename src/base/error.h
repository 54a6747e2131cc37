/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one error idiom of vdifs.
 *
 * A function that can fail returns 0 or a negative errno. One that a person should hear about
 * takes a caller-owned struct vd_error besides and fails with
 *
 *	return vd_fail(err, EINVAL, "%s: cluster_bits is %u; ...", name, bits);
 *
 * so that each check is one line. Reporting cannot fail and allocates nothing. A text is one line
 * without a newline and without the program's name; it says the file, the field, its value and
 * what to do. Every name in it that came from an image has been through vd_escape().
 */
#ifndef VD_BASE_ERROR_H
#define VD_BASE_ERROR_H

#include <stddef.h>

#define VD_ERROR_MAX 2048

struct vd_error {
	char text[VD_ERROR_MAX];
};

/* Put the message into err (which may be NULL) and return -code; code is a positive errno. */
int vd_fail(struct vd_error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Append to the message in err: ", " is not added. */
void vd_error_add(struct vd_error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Copy `bytes` bytes of a hostile name to out (capacity out_size > 0) so that it may be printed on
 * a terminal and in a log: control bytes, backslashes, quotes and bytes above 0x7e become \xNN. Too
 * long a name is cut and ends in "...". Returns out.
 */
char *vd_escape(char *out, size_t out_size, const char *name, size_t bytes);

/* The name that vd_escape() was given, unless it was cut. `out` has the room of `escaped`. */
char *vd_unescape(char *out, const char *escaped);

#endif
