/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A list in order of use, the last one first; a mutex that is never held while something is made. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "vdifs/readers.h"

/* More than threads read at once (vdifs/serve.c, waiting.c): there is always one that is not taken. */
#define READERS_MAX 64

struct vdifs_readers {
	pthread_mutex_t lock;
	TAILQ_HEAD(, vdifs_reader) list;
	struct vdifs_reader readers[READERS_MAX];
};

int vdifs_readers_new(struct vdifs_readers **out)
{
	struct vdifs_readers *readers = calloc(1, sizeof(*readers));

	if (!readers)
		return -ENOMEM;
	pthread_mutex_init(&readers->lock, NULL);
	TAILQ_INIT(&readers->list);
	for (unsigned i = 0; i < READERS_MAX; i++)
		TAILQ_INSERT_TAIL(&readers->list, &readers->readers[i], link);
	*out = readers;
	return 0;
}

static void reader_empty(struct vdifs_reader *reader)
{
	vd_json_reader_free(reader->json);
	vd_view_reader_free(reader->view);
	reader->json = NULL;
	reader->view = NULL;
}

void vdifs_readers_free(struct vdifs_readers *readers)
{
	if (!readers)
		return;
	for (unsigned i = 0; i < READERS_MAX; i++)
		reader_empty(&readers->readers[i]);
	pthread_mutex_destroy(&readers->lock);
	free(readers);
}

struct vdifs_reader *vdifs_readers_take(struct vdifs_readers *readers, const void *of, uint64_t at)
{
	struct vdifs_reader *reader, *found = NULL;

	pthread_mutex_lock(&readers->lock);
	TAILQ_FOREACH(reader, &readers->list, link)
	{
		if (reader->is_taken)
			continue;
		found = reader;
		if (reader->of == of && reader->next == at)
			break;
	}
	if (found)
		found->is_taken = true;
	pthread_mutex_unlock(&readers->lock);
	if (found && found->of != of) {
		reader_empty(found);
		found->of = of;
	}
	return found;
}

void vdifs_readers_put(struct vdifs_readers *readers, struct vdifs_reader *reader, uint64_t next)
{
	pthread_mutex_lock(&readers->lock);
	reader->next = next;
	reader->is_taken = false;
	TAILQ_REMOVE(&readers->list, reader, link);
	TAILQ_INSERT_HEAD(&readers->list, reader, link);
	pthread_mutex_unlock(&readers->lock);
}
