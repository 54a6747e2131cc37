/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The answer comes through a pipe, so that it can be waited for together with other things. A
 * process that hangs is killed and left behind: it ends when the mount does.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdifs/probe.h"

/* In the process that asks. The descriptor of the answer becomes 3, that of the mount 4. */
static _Noreturn void ask(int mount, int fd)
{
	struct statfs fs;
	sigset_t none;
	int r;

	prctl(PR_SET_NAME, "vdifs-probe"); /* or ps(1) shows two servers for a moment */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	mount = fcntl(mount, F_DUPFD, 5);
	fd = fcntl(fd, F_DUPFD, 5);
	if (dup2(fd, 3) < 0 || dup2(mount, 4) < 0)
		_exit(1);
	syscall(SYS_close_range, 5, ~0u, 0); /* before Linux 5.9: they stay open */
	r = fstatfs(4, &fs) < 0 ? -errno : 0;
	if (write(3, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(0);
}

int vdifs_probe_start(struct vdifs_probe *probe, int fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	probe->pid = fork();
	if (probe->pid == 0)
		ask(fd, fds[1]);
	close(fds[1]);
	probe->fd = fds[0];
	if (probe->pid > 0)
		return 0;
	probe->pid = 0;
	close(probe->fd);
	probe->fd = -1;
	return -EAGAIN;
}

int vdifs_probe_finish(struct vdifs_probe *probe, int wait_ms)
{
	struct pollfd wait = { .fd = probe->fd, .events = POLLIN };
	int r = -ETIMEDOUT, answer;

	if (probe->pid == 0)
		return -EINVAL;
	if (poll(&wait, 1, wait_ms) > 0)
		r = read(probe->fd, &answer, sizeof(answer)) == sizeof(answer) ? answer : -EINTR;
	kill(probe->pid, SIGKILL);
	waitpid(probe->pid, NULL, r == -ETIMEDOUT ? WNOHANG : 0);
	close(probe->fd);
	*probe = (struct vdifs_probe)VDIFS_PROBE_NONE;
	return r;
}
