/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sandbox: what a process gives up before it looks at the first byte of an image.
 *
 * Both programs parse in a child process that has entered it. What such a process holds by then
 * (descriptors, memory) is all it will ever have; files it still needs come from its parent
 * (disk/broker.h). The layers do not depend on each other: where the kernel or the build lacks
 * one, the others hold.
 */
#ifndef VD_SANDBOX_SANDBOX_H
#define VD_SANDBOX_SANDBOX_H

#include <stdbool.h>

#include "base/error.h"

enum vd_sandbox_mode {
	VD_SANDBOX_AUTO, /* the layers that there are; a missing one is logged */
	VD_SANDBOX_STRICT, /* all layers, or no start */
	VD_SANDBOX_OFF,
};

enum vd_sandbox_layer {
	VD_LAYER_NO_NEW_PRIVS = 1 << 0, /* no set-user-ID program helps out */
	VD_LAYER_CAPABILITIES = 1 << 1, /* none, in no set */
	VD_LAYER_LANDLOCK = 1 << 2, /* no file, no TCP, no signal, no abstract socket */
	VD_LAYER_SECCOMP = 1 << 3, /* a short list of system calls */
	VD_LAYER_LIMITS = 1 << 4, /* no core file, few descriptors */
	VD_LAYERS_ALL = (1 << 5) - 1,
};

/* The mode that `word` names, in *mode. -EINVAL with a message. */
int vd_sandbox_mode_parse(const char *word, enum vd_sandbox_mode *mode, struct vd_error *err);

/*
 * Have the process load what it would otherwise open files for later: the library behind
 * pthread_cancel(), the time zone. Call before vd_sandbox_enter(), with one thread.
 */
void vd_sandbox_warm_up(void);

/*
 * Enter, for good. One thread, which all later ones inherit from. Returns the layers that
 * hold (> 0; 0 in mode OFF), or -EPERM with a message: in mode STRICT when a layer is missing, in any
 * when one fails half-way.
 */
int vd_sandbox_enter(enum vd_sandbox_mode mode, struct vd_error *err);

#define VD_LAYERS_TEXT 80

/* Put the names of the layers, separated by commas, into text; "off" for none. Returns text. */
const char *vd_sandbox_layers_text(int layers, char text[VD_LAYERS_TEXT]);

/*
 * Start a process, have it enter and try what must not be possible: open files, make sockets and
 * processes, start a program, trace, signal, change the terminal, outlive its parent, mount. Prints a line for each to stdout. An exit
 * status: EXIT_SUCCESS if nothing was possible.
 */
int vd_sandbox_selftest(enum vd_sandbox_mode mode);

#endif
