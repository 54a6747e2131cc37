/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The descriptors that a program is started with. */
#ifndef VD_BASE_STANDARD_H
#define VD_BASE_STANDARD_H

/*
 * Open those of the descriptors 0 to 2 that are closed. The first thing a program does: an image or
 * a socket that becomes descriptor 1 or 2 would get the output written into it. What is opened here
 * cannot be read from or written to, so that output that goes nowhere is an error. 0 or -errno.
 */
int vd_standard_open(void);

/* Write what stdout has buffered. -errno if any of the output could not be written. */
int vd_standard_flush(void);

/*
 * Note which others are open. Call it before this program opens any. An image may be named by them, as
 * /dev/fd/5.
 */
void vd_inherited_note(void);

/* Close them: a lock or a pipe of the caller is not to stay open for as long as a mount lives. */
void vd_inherited_close(void);

#endif
