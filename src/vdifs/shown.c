/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of one disk share: see shown.h. */
#include "config.h"

#include <stdlib.h>

#include "map/json.h"
#include "vdifs/shown.h"

void vdifs_shown_init(struct vdifs_shown *shown, struct vd_index *index)
{
	*shown = (struct vdifs_shown){ .disk = vd_index_disk(index), .index = index };
	pthread_mutex_init(&shown->lock, NULL);
}

void vdifs_shown_clear(struct vdifs_shown *shown)
{
	pthread_mutex_destroy(&shown->lock);
	free(shown->attribute);
}

int vdifs_shown_attribute(struct vdifs_shown *shown, const char **text, size_t *length,
			  const struct vd_interrupt *interrupt)
{
	int r = vd_index_wait(shown->index, interrupt); /* not under the lock */

	if (r < 0)
		return r;
	pthread_mutex_lock(&shown->lock);
	if (!shown->attribute)
		r = vd_json_attribute(shown->index, &shown->attribute, &shown->attribute_length,
				      interrupt);
	*text = shown->attribute;
	*length = shown->attribute_length;
	pthread_mutex_unlock(&shown->lock);
	return r;
}
