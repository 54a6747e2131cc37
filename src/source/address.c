/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parsing is strict: what is not understood is refused and not ignored, since a parameter that
 * somebody took the trouble to write, for TLS say, must not be without effect.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "source/address.h"

#define TCP_SCHEME "nbd://"
#define UNIX_SCHEME "nbd+unix://"
#define DEFAULT_PORT "10809"

/* Schemes of the same family, and others that QEMU's programs take. */
static const struct {
	const char *scheme, *why;
} refused[] = {
	{ "nbds://", "encrypted connections (TLS) are not supported; use a tunnel, as of ssh -L" },
	{ "nbds+unix://", "encrypted connections (TLS) are not supported; use nbd+unix:" },
	{ "nbd+vsock://", "connections to virtual machines (vsock) are not supported" },
	{ "nbds+vsock://", "connections to virtual machines (vsock) are not supported" },
	{ "nbd+ssh://", "connections through SSH are not supported; use a tunnel, as of ssh -L" },
	{ "nbds+ssh://", "connections through SSH are not supported; use a tunnel, as of ssh -L" },
	{ "http://",
	  "web servers are not supported; nbdkit curl makes an NBD server of an address" },
	{ "https://",
	  "web servers are not supported; nbdkit curl makes an NBD server of an address" },
	{ "ssh://", "SSH is not supported; nbdkit ssh makes an NBD server of a file there" },
	{ "nbd:unix:", "write nbd+unix:///EXPORT?socket=PATH; a file of this name is ./nbd:..." },
	{ "nbd:", "write nbd://HOST:PORT/EXPORT; a file of this name is ./nbd:..." },
	{ "file:", "write the name without file:; a file of this name is ./file:..." },
	{ "rbd:", "Ceph is not supported; rbd map makes a block device of an image there; a file of "
		  "this name is ./rbd:..." },
	{ "json:{", "QEMU's JSON is not supported; name the file that it names, or ask qemu-nbd to "
		   "serve it; a file of this name is ./json:..." },
};

#define REFUSED (sizeof(refused) / sizeof(*refused))

static bool begins(const char *name, const char *with)
{
	return strncmp(name, with, strlen(with)) == 0;
}

/* LETTERS:// */
static bool has_scheme(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");

	return length > 0 && begins(name + length, "://");
}

static const char *why_refused(const char *name)
{
	if (begins(name, TCP_SCHEME) || begins(name, UNIX_SCHEME))
		return NULL;
	for (unsigned i = 0; i < REFUSED; i++) {
		if (begins(name, refused[i].scheme))
			return refused[i].why;
	}
	return has_scheme(name) ? "addresses of this kind are not supported; nbdkit makes an NBD server "
				  "of many; a file of this name is ./NAME" :
				  NULL;
}

bool vd_address_is(const char *name)
{
	return begins(name, TCP_SCHEME) || begins(name, UNIX_SCHEME) || why_refused(name);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Copy `bytes` bytes to out with %XX undone. -EINVAL; -ENAMETOOLONG. */
static int decode(const char *from, size_t bytes, char *out, size_t room)
{
	size_t used = 0;

	for (size_t i = 0; i < bytes; i++) {
		char c = from[i];

		if (c == '%') {
			int high = bytes - i > 2 ? hex_digit(from[i + 1]) : -1;
			int low = bytes - i > 2 ? hex_digit(from[i + 2]) : -1;

			if (high < 0 || low < 0 || (high | low) == 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (used + 1 == room)
			return -ENAMETOOLONG;
		out[used++] = c;
	}
	out[used] = '\0';
	return 0;
}

static int take(const char *shown, const char *what, const char *from, size_t bytes, char *out,
		size_t room, struct vd_error *err)
{
	int r = decode(from, bytes, out, room);

	if (r == -EINVAL)
		return vd_fail(err, EINVAL,
			       "%s: in the %s, %% must be followed by two hexadecimal digits, "
			       "and not by 00; write %% itself as %%25",
			       shown, what);
	if (r < 0)
		return vd_fail(err, EINVAL, "%s: the %s is longer than %zu bytes", shown, what,
			       room - 1);
	return 0;
}

/* HOST[:PORT], `bytes` long. */
static int take_host(struct vd_address *address, const char *shown, const char *from, size_t bytes,
		     struct vd_error *err)
{
	const char *end = from + bytes, *host = from, *host_end, *colon;
	unsigned long port;
	char *rest;

	if (memchr(from, '@', bytes))
		return vd_fail(err, EINVAL, "%s: a user's name is not supported; leave it out",
			       shown);
	if (bytes > 0 && *from == '[') {
		host++;
		host_end = memchr(from, ']', bytes);
		colon = host_end ? host_end + 1 : NULL;
	} else {
		host_end = colon = memchr(from, ':', bytes);
		if (!colon)
			host_end = colon = end;
	}
	if (!colon || host_end == host || (colon < end && *colon != ':'))
		return vd_fail(err, EINVAL,
			       "%s: write the address like nbd://HOST[:PORT]/EXPORT, or "
			       "nbd+unix:///EXPORT?socket=PATH",
			       shown);
	if (colon < end && end - colon > 1) {
		port = strtoul(colon + 1, &rest, 10);
		if (colon[1] < '0' || colon[1] > '9' || rest != end || port < 1 || port > 65535)
			return vd_fail(err, EINVAL, "%s: the port must be a number up to 65535",
				       shown);
		snprintf(address->port, sizeof(address->port), "%lu", port);
	}
	return take(shown, "host", host, (size_t)(host_end - host), address->host,
		    sizeof(address->host), err);
}

/* What follows the question mark. */
static int take_query(struct vd_address *address, const char *shown, const char *query,
		      struct vd_error *err)
{
	while (*query) {
		size_t bytes = strcspn(query, "&");
		int r;

		if (!address->is_unix || !begins(query, "socket="))
			return vd_fail(err, EINVAL,
				       "%s: after the ? there may be socket=PATH, for nbd+unix "
				       "only; write a ? in the export's name as %%3F",
				       shown);
		r = take(shown, "path of the socket", query + 7, bytes - 7, address->path,
			 sizeof(address->path), err);
		if (r < 0)
			return r;
		query += bytes + (query[bytes] == '&');
	}
	return 0;
}

int vd_address_parse(const char *name, struct vd_address *out, struct vd_error *err)
{
	const char *why = why_refused(name), *authority, *export, *query;
	char shown[512];
	int r = 0;

	vd_escape(shown, sizeof(shown), name, strlen(name));
	if (why)
		return vd_fail(err, ENOTSUP, "%s: %s", shown, why);
	memset(out, 0, sizeof(*out));
	strcpy(out->port, DEFAULT_PORT);
	out->is_unix = begins(name, UNIX_SCHEME);
	authority = name + strlen(out->is_unix ? UNIX_SCHEME : TCP_SCHEME);
	export = authority + strcspn(authority, "/?#");
	query = export + strcspn(export, "?#");
	if (query[strcspn(query, "#")])
		return vd_fail(err, EINVAL, "%s: write a # in the export's name as %%23", shown);
	if (!out->is_unix)
		r = take_host(out, shown, authority, (size_t)(export - authority), err);
	else if (export != authority)
		r = vd_fail(err, EINVAL, "%s: nbd+unix: is followed by three slashes", shown);
	if (r == 0 && export < query) /* the first slash is not part of it */
		r = take(shown, "export's name", export + 1, (size_t)(query - export) - 1,
			 out->export, sizeof(out->export), err);
	if (r == 0 && *query)
		r = take_query(out, shown, query + 1, err);
	if (r == 0 && out->is_unix && !*out->path)
		r = vd_fail(err, EINVAL, "%s: name the socket with ?socket=PATH at the end", shown);
	return r;
}

bool vd_address_same(const struct vd_address *a, const struct vd_address *b)
{
	return a->is_unix == b->is_unix && strcmp(a->export, b->export) == 0 &&
	       strcmp(a->path, b->path) == 0 && strcmp(a->host, b->host) == 0 &&
	       strcmp(a->port, b->port) == 0;
}

const char *vd_address_file_name(const struct vd_address *address)
{
	const char *slash = strrchr(address->export, '/');

	return slash ? slash + 1 : address->export;
}
