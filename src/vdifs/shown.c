/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of one disk share: see shown.h. Nothing is made with a lock held. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "map/json.h"
#include "vdifs/shown.h"

static void take_later(struct timespec *latest, const struct timespec *time)
{
	if (time->tv_sec > latest->tv_sec ||
	    (time->tv_sec == latest->tv_sec && time->tv_nsec > latest->tv_nsec))
		*latest = *time;
}

/* The times of the disk are not older than those of this file, which may be NULL. */
static void take_times(struct vdifs_shown *shown, const struct vd_source *source)
{
	struct timespec now;

	if (!source)
		return;
	take_later(&shown->written, &source->st.st_mtim);
	take_later(&shown->changed, &source->st.st_ctim);
	if (!S_ISBLK(source->st.st_mode))
		return;
	/* The node of a device keeps its times when the device is written to by another way. */
	clock_gettime(CLOCK_REALTIME, &now);
	take_later(&shown->written, &now);
	take_later(&shown->changed, &now);
}

void vdifs_shown_init(struct vdifs_shown *shown, struct vd_index *index, struct vdifs_turns *turns)
{
	const struct vd_disk *disk = vd_index_disk(index);
	const struct timespec *date = &disk->layers[0]->date;

	*shown = (struct vdifs_shown){ .disk = disk, .index = index, .turns = turns };
	pthread_mutex_init(&shown->lock, NULL);
	if (date->tv_sec) {
		shown->written = shown->changed = *date;
		return;
	}
	for (unsigned i = 0; i < disk->count; i++) {
		take_times(shown, disk->layers[i]->source);
		take_times(shown, disk->layers[i]->data);
	}
}

uint64_t vdifs_shown_identity(const struct vdifs_shown *shown)
{
	const struct vd_image *image = shown->disk->layers[0];
	const struct vd_source *source = image->source;
	uint64_t sum = vd_mix(S_ISBLK(source->st.st_mode), source->is_server);

	if (source->is_server)
		sum = vd_mix_text(sum, source->name);
	else if (S_ISBLK(source->st.st_mode))
		sum = vd_mix(sum, source->st.st_rdev);
	else
		sum = vd_mix(vd_mix(sum, source->st.st_dev), source->st.st_ino);
	return vd_mix(sum, image->snapshot);
}

/*
 * Who of those that are owner, group and others to the image may surely read that file. Who is not
 * its owner may be in its group or not, and who is no owner of the image may be that of the file.
 */
static mode_t readers_of(const struct stat *file, const struct stat *image)
{
	bool own = file->st_mode & S_IRUSR, group = file->st_mode & S_IRGRP;
	bool other = file->st_mode & S_IROTH;
	bool same_user = file->st_uid == image->st_uid, same_group = file->st_gid == image->st_gid;
	mode_t mode = 0;

	if (same_user ? own : group && other)
		mode |= S_IRUSR;
	if (group && (same_group || other) && (same_user || own))
		mode |= S_IRGRP;
	if (other && (same_group || group) && (same_user || own))
		mode |= S_IROTH;
	return mode;
}

void vdifs_shown_permit(struct vdifs_shown *shown, const struct stat *image, bool for_others)
{
	mode_t all = S_IRUSR | S_IRGRP | S_IROTH;
	mode_t maker = getuid() == image->st_uid ? S_IRUSR : S_IRGRP | S_IROTH;

	shown->mode = image->st_mode & all;
	for (unsigned i = 0; i < shown->disk->count; i++) {
		const struct vd_image *layer = shown->disk->layers[i];

		shown->mode &= readers_of(&layer->source->st, image);
		if (layer->data)
			shown->mode &= readers_of(&layer->data->st, image);
	}
	/*
	 * An access control list may let the user read what the mode does not. No other user gets in.
	 * Root reads in any case, so that copies which root makes get no wider mode than the image has.
	 */
	if (!for_others)
		shown->mode |= getuid() == 0 ? image->st_mode & maker : maker;
	shown->mode |= image->st_mode & (S_IWUSR | S_IWGRP | S_IWOTH);
}

void vdifs_shown_clear(struct vdifs_shown *shown)
{
	if (!shown->disk)
		return;
	pthread_mutex_destroy(&shown->lock);
	vd_view_free(shown->view);
	free(shown->attribute);
}

/* Start the index if it is its turn. 0: it has been started; -EAGAIN; or why it cannot be. */
static int take_turn(struct vdifs_shown *shown)
{
	struct vdifs_turns *turns = shown->turns;
	int r = 0;

	if (!turns)
		return vd_index_start(shown->index);
	pthread_mutex_lock(&turns->lock);
	if (!shown->is_started && turns->latest && !vd_index_has_ended(turns->latest->index))
		r = -EAGAIN;
	else if (!shown->is_started)
		r = vd_index_start(shown->index);
	if (!shown->is_started && r == 0) {
		turns->latest = shown;
		shown->is_started = true;
	}
	pthread_mutex_unlock(&turns->lock);
	return r;
}

void vdifs_shown_wanted(struct vdifs_shown *shown)
{
	take_turn(shown);
}

int vdifs_shown_wait(struct vdifs_shown *shown)
{
	int r = take_turn(shown);

	return r < 0 ? r : vd_index_poll(shown->index);
}

/* Makes something of the complete index. 0 or -errno. */
typedef int making_fn(struct vdifs_shown *shown, const struct vd_interrupt *interrupt);

/* Make it, unless that was done. */
static int once_have(struct vdifs_shown *shown, struct vdifs_once *once, making_fn *make,
		     const struct vd_interrupt *interrupt)
{
	bool is_mine = false;
	int r = vdifs_shown_wait(shown);

	if (r < 0)
		return r;
	pthread_mutex_lock(&shown->lock);
	if (once->is_done)
		r = once->result;
	else if (once->is_begun)
		r = -EAGAIN;
	else if (!interrupt)
		r = -EINPROGRESS;
	else
		is_mine = once->is_begun = true;
	pthread_mutex_unlock(&shown->lock);
	if (!is_mine)
		return r;
	r = make(shown, interrupt);
	pthread_mutex_lock(&shown->lock);
	once->is_begun = false;
	once->is_done = r == 0 || r == -EFBIG; /* else the next one may have more luck */
	once->result = once->is_done ? r : 0;
	pthread_mutex_unlock(&shown->lock);
	return r;
}

static int attribute_make(struct vdifs_shown *shown, const struct vd_interrupt *interrupt)
{
	return vd_json_attribute(shown->index, &shown->attribute, &shown->attribute_length,
				 interrupt);
}

int vdifs_shown_attribute(struct vdifs_shown *shown, const char **text, size_t *length,
			  const struct vd_interrupt *interrupt)
{
	int r = once_have(shown, &shown->attribute_once, attribute_make, interrupt);

	if (r == 0) {
		*text = shown->attribute;
		*length = shown->attribute_length;
	}
	return r;
}

static int view_make(struct vdifs_shown *shown, const struct vd_interrupt *interrupt)
{
	return vd_view_new(shown->index, interrupt, &shown->view);
}

int vdifs_shown_view(struct vdifs_shown *shown, const struct vd_view **view,
		     const struct vd_interrupt *interrupt)
{
	int r = once_have(shown, &shown->view_once, view_make, interrupt);

	*view = r == 0 ? shown->view : NULL;
	return r;
}
