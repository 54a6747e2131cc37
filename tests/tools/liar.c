/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked with all of vdifs in place of vdifs_serve() (--wrap): a serving process that somebody has
 * taken over, which does what $VD_LIE says and then stays, unless it says otherwise.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/passing.h"
#include "vdifs/serve.h"

int __wrap_vdifs_serve(const struct vdifs_server_options *options, struct vd_confined *confined);

static void tell(int socket, char what)
{
	send(socket, &what, 1, MSG_NOSIGNAL);
}

/* As the real one does up to here. Nobody answers the mount. */
static void have_mounted(int socket)
{
	char what = 0;
	int fd;

	tell(socket, VDIFS_OPENED);
	while (what != VDIFS_MOUNTED && vd_pass_receive(socket, &what, 1, &fd) > 0)
		;
}

/* Without a sandbox: what the owner of a directory above the mountpoint could do at this moment. */
static void exchange(void)
{
	if (renameat2(AT_FDCWD, getenv("VD_LIE_THIS"), AT_FDCWD, getenv("VD_LIE_THAT"),
		      RENAME_EXCHANGE) < 0)
		exit(EXIT_FAILURE);
}

int __wrap_vdifs_serve(const struct vdifs_server_options *options, struct vd_confined *confined)
{
	const char *lie = getenv("VD_LIE");
	bool early = strcmp(lie, "close early") == 0;

	if (strcmp(lie, "outlive") == 0)
		prctl(PR_SET_PDEATHSIG, 0);
	while (strcmp(lie, "outlive") == 0) /* and never open anything */
		poll(NULL, 0, -1);
	if (strncmp(lie, "exchange", 8) == 0)
		exchange();
	vd_confined_opened(confined);
	if (!early)
		have_mounted(options->socket);
	if (strcmp(lie, "urgent") == 0)
		send(options->socket, "u", 1, MSG_OOB | MSG_NOSIGNAL);
	if (strcmp(lie, "leave") == 0 || strcmp(lie, "exchange, leave") == 0) /* as if the mount had ended */
		return VDIFS_UNMOUNTED;
	if (early || strcmp(lie, "close") == 0)
		shutdown(options->socket, SHUT_RDWR);
	if (strcmp(lie, "answer") == 0 || strcmp(lie, "answer twice") == 0)
		tell(options->socket, VDIFS_ANSWERED);
	if (strcmp(lie, "answer twice") == 0)
		tell(options->socket, VDIFS_ANSWERED);
	for (;;)
		poll(NULL, 0, -1); /* which the sandbox allows; pause() it does not */
}
