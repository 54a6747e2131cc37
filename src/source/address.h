/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of NBD servers, given by hand in place of a file's name:
 *
 *	nbd://HOST[:PORT]/EXPORT		TCP; a HOST with colons stands in brackets
 *	nbd+unix:///EXPORT?socket=PATH		a socket in the file system
 *
 * as in the NBD project's doc/uri.md. Whether a name is an address is decided here and nowhere
 * else. A name that came from an image must never get this far.
 */
#ifndef VD_SOURCE_ADDRESS_H
#define VD_SOURCE_ADDRESS_H

#include <stdbool.h>

#include "base/error.h"

#define VD_EXPORT_MAX 4096 /* bytes; the protocol's limit */

struct vd_address {
	bool is_unix;
	char host[256]; /* TCP: a name or a number, without brackets */
	char port[6]; /* TCP: decimal */
	char path[108]; /* of the socket: what the kernel takes */
	char export[VD_EXPORT_MAX + 1]; /* may be empty */
};

/* Is it an address, also one of a kind that is refused? A file of that name is given as ./NAME. */
bool vd_address_is(const char *name);

/* Take the address apart. 0, -EINVAL, or -ENOTSUP for kinds that vdifs does not speak. */
int vd_address_parse(const char *name, struct vd_address *out, struct vd_error *err);

/* Do both lead to the same export? */
bool vd_address_same(const struct vd_address *a, const struct vd_address *b);

/* The last part of the export's name, as of a path; may be empty. Points into the address. */
const char *vd_address_file_name(const struct vd_address *address);

/*
 * Connect to the server and say nothing yet. Looks names of hosts up, which has no limit but the
 * resolver's own; then gives up after `seconds`, however many addresses the host has. Signals do
 * what they do to the caller. The socket, or -errno with a message.
 */
int vd_address_connect(const struct vd_address *address, unsigned seconds, struct vd_error *err);

#endif
