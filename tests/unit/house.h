/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A folder with images and names of all kinds, for the tests of the opener:
 *
 *	FOLDER/images/{disk,base,other,fifo,socket,json:base,links}, the image is "disk"
 *	FOLDER/images/sub/{base,a:b,to-base}
 *	FOLDER/imagesandmore/base, a name that begins like the image's folder
 *	FOLDER/outside, FOLDER/alias -> images
 */
#ifndef VD_UNIT_HOUSE_H
#define VD_UNIT_HOUSE_H

#include "disk/opener.h"
#include "util.h"

#define OTHER_USER 12345

struct house {
	char *folder;
	struct vd_source *disk; /* the file that names others */
	unsigned files; /* open when all is set up */
};

struct expectation {
	const char *name;
	int result; /* 0, or the code of the refusal */
	const char *leads_to;
	const char *found_at; /* the symbolic link that leads there; NULL: there is none */
};

#define PLAIN(name, leads_to)               \
	{                                   \
		(name), 0, (leads_to), NULL \
	}
#define LINK(name, leads_to, found_at)            \
	{                                         \
		(name), 0, (leads_to), (found_at) \
	}
#define REFUSED(name, code)                \
	{                                  \
		(name), (code), NULL, NULL \
	}

void put_file(const struct house *house, const char *name);
void put_link(const struct house *house, const char *target, const char *name);
void put_folder(const struct house *house, const char *name);

int house_build(void **state);
int house_tear_down(void **state);

const char *last_part(const char *name);

/* Open a name. `%` at its beginning stands for the folder. NULL after a failure. */
struct vd_source *try(const struct house *house, bool by_image, enum vd_backing policy,
		      const char *name, int *result, struct vd_error *err);

/* Open a name, and see whether it does what is expected of it. */
void check(const struct house *house, bool by_image, enum vd_backing policy,
	   const struct expectation *expected);

/* Make the file another user's; false: we may not. */
bool give_away(const struct house *house, const char *name);

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, house_build, house_tear_down)

#endif
