/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forking the child and closing the door behind it. One thread on both sides.
 *
 * In a build with sanitizers the mode AUTO means OFF: their run-time opens files and traces
 * itself. The two processes and the broker are the same there.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/confined.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define AUTO_MODE VD_SANDBOX_OFF
#else
#define AUTO_MODE VD_SANDBOX_AUTO
#endif

/* What the caller of the program has open besides is not for who reads an image. */
static void leave_alone(int *socket)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (*socket != 3 && dup3(*socket, 3, O_CLOEXEC) == 3)
		*socket = 3;
	if (*socket == 3)
		syscall(SYS_close_range, 4, ~0u, 0); /* before Linux 5.9: they stay open */
}

/* What the user types, or pipes in, is not for who reads an image. */
static void leave_input(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0) {
		close(STDIN_FILENO);
		return;
	}
	dup2(null, STDIN_FILENO);
	if (null != STDIN_FILENO)
		close(null);
}

static int child(const struct vd_confined_options *options, int socket)
{
	enum vd_sandbox_mode mode = options->mode == VD_SANDBOX_AUTO ? AUTO_MODE : options->mode;
	struct vd_confined confined = { .socket = socket };
	struct vd_error err = { "" };

	confined.opener = vd_broker_opener(&confined.socket);
	if (options->alone)
		leave_alone(&confined.socket);
	leave_input(); /* after that: the socket may have been in stdin's place */
	if (options->prepare)
		options->prepare(options->context);
	vd_sandbox_warm_up();
	confined.layers = vd_sandbox_enter(mode, &err);
	if (confined.layers < 0) {
		vd_log(LOG_ERR, "%s", err.text);
		return EXIT_FAILURE;
	}
	vd_sandbox_layers_text(confined.layers, confined.layers_text);
	return options->run(options->context, &confined);
}

int vd_confined_start(const struct vd_confined_options *options, pid_t *pid, int *socket,
		      struct vd_error *err)
{
	int sockets[2], r = vd_broker_sockets(sockets, err);

	if (r < 0)
		return r;
	*pid = fork();
	if (*pid == 0) {
		close(sockets[0]);
		exit(child(options, sockets[1]));
	}
	close(sockets[1]);
	*socket = sockets[0];
	if (*pid < 0) {
		r = -errno;
		close(sockets[0]);
		return vd_fail(err, -r, "cannot start a process: %s", strerror(-r));
	}
	return 0;
}

void vd_confined_opened(struct vd_confined *confined)
{
	if (confined->socket >= 0)
		close(confined->socket);
	confined->socket = -1;
}

int vd_confined_run(const struct vd_confined_options *options, const char *const *images,
		    const struct vd_chain_options *chains, unsigned count, struct vd_error *err)
{
	struct vd_broker *broker;
	int socket, status = 0, r = vd_broker_new(images, chains, count, &broker);
	pid_t pid;

	if (r < 0)
		return vd_fail(err, -r, "out of memory");
	r = vd_confined_start(options, &pid, &socket, err);
	if (r < 0) {
		vd_broker_free(broker);
		return r;
	}
	while (vd_broker_answer(broker, socket) > 0)
		;
	close(socket);
	vd_broker_free(broker);
	do
		r = waitpid(pid, &status, 0) < 0 ? -errno : 0;
	while (r == -EINTR);
	if (r < 0)
		return vd_fail(err, -r,
			       "cannot tell how the process that reads the image ended: %s",
			       strerror(-r));
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	return vd_fail(err, EIO, "the process that reads the image was ended by signal %d",
		       WTERMSIG(status));
}
