/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File names from what an image calls its snapshots, which may be anything. Pure.
 */
#ifndef VD_VDIFS_NAMES_H
#define VD_VDIFS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Write a file name of less than `room` (>= 8) bytes for a hostile name. "/", "%", control
 * characters and a leading "." become %XX as in a URL, so that unescaping gives the name back; what
 * is too long is cut, between characters if it is UTF-8. An empty name gives an empty one. False: it
 * has been cut.
 */
bool vdifs_name_escape(char *out, size_t room, const char *name);

#endif
