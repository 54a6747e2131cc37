/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bounded cache of metadata pages: pieces of L1 and L2 tables, BATs and sector bitmaps.
 *
 * A page is an aligned power-of-two piece of a source. It is read once, shared by all threads, and
 * dropped, least recently used first, when the cache would grow past its limit. It is known by the
 * serial number of its source, so that a source may be closed while its pages are here. The caller
 * chooses the size of the page by how its table lies in the file; a piece of a source must always
 * be asked for with the same size, or it is held twice.
 *
 * Self-locking. No lock is held while a page is read; threads that want the same page wait for
 * the one that reads it. A failed read is not remembered: the next caller tries again.
 */
#ifndef VD_SUPPORT_CACHE_H
#define VD_SUPPORT_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "source/source.h"

struct vd_cache;

/* Read it through vd_page_at(). */
struct vd_page {
	const uint8_t *data;
	uint64_t host; /* of data[0], in bytes */
	size_t bytes; /* less than the page size only at the end of the source */
};

/*
 * The `bytes` bytes at `host`, which must all be in the page. NULL: they are not, and the caller
 * treats them as unreadable. How many bytes of a table lie in one page follows from numbers of the
 * image, so that this is checked at the place where it counts.
 */
static inline const uint8_t *vd_page_at(const struct vd_page *page, uint64_t host, uint64_t bytes)
{
	if (host < page->host || !vd_inside(host - page->host, bytes, page->bytes))
		return NULL;
	return page->data + (host - page->host);
}

/* Where the page ends, in bytes of the source. */
static inline uint64_t vd_page_end(const struct vd_page *page)
{
	return page->host + page->bytes;
}

/* limit: bytes of pages to hold. Pages in use do not count against it. 0 or -ENOMEM. */
int vd_cache_new(size_t limit, struct vd_cache **out);

/* From now on hold so many bytes of pages. */
void vd_cache_resize(struct vd_cache *cache, size_t limit);

/* No page may be in use. NULL is fine. */
void vd_cache_free(struct vd_cache *cache);

/*
 * Give the page of 2^page_bits bytes that holds the byte at `host`, which must be inside the
 * source. It stays valid until vd_cache_put(). 0, -ENOMEM, or the errno of the read.
 */
int vd_cache_get(struct vd_cache *cache, const struct vd_source *source, unsigned page_bits,
		 uint64_t host, const struct vd_page **page);

void vd_cache_put(struct vd_cache *cache, const struct vd_page *page);

/*
 * Copy `bytes` bytes at `host`, which must be inside the source, from pages of 2^page_bits bytes: for
 * small records that follow each other. 0, -ENOMEM, or the errno of the read.
 */
int vd_cache_read(struct vd_cache *cache, const struct vd_source *source, unsigned page_bits,
		  uint64_t host, void *buffer, size_t bytes);

/* Bytes of pages held now; for tests and reports. */
size_t vd_cache_bytes(struct vd_cache *cache);

#endif
