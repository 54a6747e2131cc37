/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The exit statuses of all programs. */
#ifndef VD_BASE_EXIT_H
#define VD_BASE_EXIT_H

enum vd_exit {
	VD_EXIT_DONE = 0,
	VD_EXIT_FAILED = 1, /* or not begun; what was printed is not complete */
	VD_EXIT_USAGE = 2, /* the command line is wrong; no file was opened */
	VD_EXIT_UNREADABLE = 3, /* done, but parts of the disk cannot be read */
	VD_EXIT_DIFFERENT = 4, /* with --exit-code: done, and there are differences */
};

#endif
