/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program is started with closed descriptors by `program >&-`, and by some services. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/standard.h"

/* Written before threads start. */
static int *inherited;
static unsigned inherited_count;

int vd_standard_open(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		int opened;

		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		opened = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
		if (opened < 0) /* an almost empty chroot */
			opened = open("/", O_PATH);
		if (opened < 0)
			return -errno;
		if (opened != fd) { /* never: it is the lowest one that is free */
			close(opened);
			return -EBADF;
		}
	}
	return 0;
}

int vd_standard_flush(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return errno ? -errno : -EIO;
}

static void inherited_add(int fd)
{
	int *more = realloc(inherited, (inherited_count + 1) * sizeof(*more));

	if (!more) {
		close(fd);
		return;
	}
	inherited = more;
	inherited[inherited_count++] = fd;
}

void vd_inherited_note(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!directory) { /* without /proc nothing can be named by them */
		syscall(SYS_close_range, 3, ~0u, 0); /* before Linux 5.9: they stay open */
		return;
	}
	while ((entry = readdir(directory))) {
		int fd = atoi(entry->d_name);

		if (fd > 2 && fd != dirfd(directory))
			inherited_add(fd);
	}
	closedir(directory);
}

void vd_inherited_close(void)
{
	for (unsigned i = 0; i < inherited_count; i++)
		close(inherited[i]);
	inherited_count = 0;
	free(inherited);
	inherited = NULL;
}
