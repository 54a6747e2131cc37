/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hash table and LRU list under one mutex, held for a few instructions only. An entry is in the
 * table from the moment somebody starts to read it (loading), so that others wait instead of
 * reading it again; it is in the LRU list only while nobody uses it.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/bytes.h"
#include "support/cache.h"

#define CACHE_BUCKETS 4096u /* a power of two */

struct cache_entry {
	struct vd_page page; /* first: vd_cache_put() gets a pointer to it */
	uint64_t serial; /* of the source */
	unsigned page_bits;
	unsigned users;
	bool loading;
	LIST_ENTRY(cache_entry) bucket_link;
	TAILQ_ENTRY(cache_entry) idle_link;
	uint8_t data[];
};

struct vd_cache {
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	size_t limit, used; /* bytes */
	LIST_HEAD(, cache_entry) buckets[CACHE_BUCKETS];
	TAILQ_HEAD(idle_list, cache_entry) idle; /* least recently used first */
};

int vd_cache_new(size_t limit, struct vd_cache **out)
{
	struct vd_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->loaded, NULL);
	cache->limit = limit;
	TAILQ_INIT(&cache->idle);
	*out = cache;
	return 0;
}

static unsigned cache_bucket(const struct vd_source *source, uint64_t host)
{
	uint64_t mixed = (host >> 9) * 0x9e3779b97f4a7c15u ^ source->serial;

	return (unsigned)((mixed >> 20) ^ mixed) & (CACHE_BUCKETS - 1);
}

/* Out of the table, the list and memory. The lock is held and the entry is idle or failed. */
static void cache_drop(struct vd_cache *cache, struct cache_entry *entry)
{
	LIST_REMOVE(entry, bucket_link);
	cache->used -= entry->page.bytes;
	free(entry);
}

static void cache_evict(struct vd_cache *cache, size_t room)
{
	struct cache_entry *entry;

	while (cache->used + room > cache->limit && (entry = TAILQ_FIRST(&cache->idle))) {
		TAILQ_REMOVE(&cache->idle, entry, idle_link);
		cache_drop(cache, entry);
	}
}

void vd_cache_resize(struct vd_cache *cache, size_t limit)
{
	pthread_mutex_lock(&cache->lock);
	cache->limit = limit;
	cache_evict(cache, 0);
	pthread_mutex_unlock(&cache->lock);
}

void vd_cache_free(struct vd_cache *cache)
{
	if (!cache)
		return;
	cache_evict(cache, SIZE_MAX / 2);
	pthread_cond_destroy(&cache->loaded);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct cache_entry *cache_find(struct vd_cache *cache, unsigned bucket,
				      const struct vd_source *source, unsigned page_bits,
				      uint64_t host)
{
	struct cache_entry *entry;

	LIST_FOREACH(entry, &cache->buckets[bucket], bucket_link)
	{
		if (entry->page.host == host && entry->serial == source->serial &&
		    entry->page_bits == page_bits)
			return entry;
	}
	return NULL;
}

/* Put a new entry into the table, in the state "loading". The lock is held. */
static struct cache_entry *cache_add(struct vd_cache *cache, unsigned bucket,
				     const struct vd_source *source, unsigned page_bits,
				     uint64_t host)
{
	size_t bytes = (size_t)vd_min((uint64_t)1 << page_bits, source->size - host);
	struct cache_entry *entry;

	cache_evict(cache, bytes);
	entry = malloc(sizeof(*entry) + bytes);
	if (!entry)
		return NULL;
	*entry = (struct cache_entry){
		.page = { .data = entry->data, .host = host, .bytes = bytes },
		.serial = source->serial,
		.page_bits = page_bits,
		.users = 1,
		.loading = true,
	};
	cache->used += bytes;
	LIST_INSERT_HEAD(&cache->buckets[bucket], entry, bucket_link);
	return entry;
}

/* Read the new entry's bytes without the lock, then wake those who wait for it. */
static int cache_load(struct vd_cache *cache, const struct vd_source *source,
		      struct cache_entry *entry)
{
	int r;

	pthread_mutex_unlock(&cache->lock);
	r = vd_source_read(source, entry->data, entry->page.bytes, entry->page.host);
	pthread_mutex_lock(&cache->lock);
	entry->loading = false;
	if (r < 0)
		cache_drop(cache, entry); /* those who wait look again and try themselves */
	pthread_cond_broadcast(&cache->loaded);
	return r;
}

int vd_cache_get(struct vd_cache *cache, const struct vd_source *source, unsigned page_bits,
		 uint64_t host, const struct vd_page **page)
{
	uint64_t start = host >> page_bits << page_bits;
	unsigned bucket = cache_bucket(source, start);
	struct cache_entry *entry;
	int r = 0;

	assert(source->serial != 0); /* whatever made it has forgotten this */
	pthread_mutex_lock(&cache->lock);
	while ((entry = cache_find(cache, bucket, source, page_bits, start)) && entry->loading)
		pthread_cond_wait(&cache->loaded, &cache->lock);
	if (entry) {
		if (entry->users++ == 0)
			TAILQ_REMOVE(&cache->idle, entry, idle_link);
	} else {
		entry = cache_add(cache, bucket, source, page_bits, start);
		r = entry ? cache_load(cache, source, entry) : -ENOMEM;
	}
	pthread_mutex_unlock(&cache->lock);
	if (r == 0)
		*page = &entry->page;
	return r;
}

void vd_cache_put(struct vd_cache *cache, const struct vd_page *page)
{
	struct cache_entry *entry = (struct cache_entry *)(uintptr_t)page;

	pthread_mutex_lock(&cache->lock);
	if (--entry->users == 0) {
		TAILQ_INSERT_TAIL(&cache->idle, entry, idle_link);
		cache_evict(cache, 0);
	}
	pthread_mutex_unlock(&cache->lock);
}

int vd_cache_read(struct vd_cache *cache, const struct vd_source *source, unsigned page_bits,
		  uint64_t host, void *buffer, size_t bytes)
{
	uint8_t *to = buffer;

	while (bytes > 0) {
		const struct vd_page *page;
		const uint8_t *from;
		size_t here;
		int r = vd_cache_get(cache, source, page_bits, host, &page);

		if (r < 0)
			return r;
		here = (size_t)vd_min(bytes, vd_page_end(page) - host);
		from = vd_page_at(page, host, here);
		if (from)
			memcpy(to, from, here);
		vd_cache_put(cache, page);
		if (!from || here == 0)
			return -EIO;
		to += here;
		host += here;
		bytes -= here;
	}
	return 0;
}

size_t vd_cache_bytes(struct vd_cache *cache)
{
	size_t used;

	pthread_mutex_lock(&cache->lock);
	used = cache->used;
	pthread_mutex_unlock(&cache->lock);
	return used;
}
