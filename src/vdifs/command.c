/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command runs in the process group of vdifs: what a terminal sends reaches it without us, and is
 * not passed on a second time. The supervisor is in a session of its own and hears nothing of that. If
 * this process is killed, the pipe to the supervisor closes anyway.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/error.h"
#include "base/exit.h"
#include "base/log.h"
#include "vdifs/command.h"

/* As shells and env(1) have it. */
#define CANNOT_RUN 126
#define NOT_FOUND 127
#define BY_SIGNAL 128

struct running {
	pid_t command, supervisor;
	int signals;
	int status; /* of the command, as waitpid() gives it */
	bool has_ended, is_alone; /* alone: without a supervisor */
};

void vdifs_inherited_keep(struct vdifs_inherited *inherited)
{
	sigprocmask(SIG_SETMASK, NULL, &inherited->mask);
	sigaction(SIGCHLD, NULL, &inherited->child);
}

static _Noreturn void become(char *const *command, const struct vdifs_inherited *inherited)
{
	char shown[512];
	int r;

	sigaction(SIGCHLD, &inherited->child, NULL);
	sigprocmask(SIG_SETMASK, &inherited->mask, NULL);
	execvp(command[0], command);
	r = errno;
	vd_log(LOG_ERR, "%s: cannot run the command: %s",
	       vd_escape(shown, sizeof(shown), command[0], strlen(command[0])), strerror(r));
	_exit(r == ENOENT ? NOT_FOUND : CANNOT_RUN);
}

/* Those that were ignored at start stay ignored, for both. */
static int catch_signals(void)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	struct sigaction is;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		if (sigaction(signals[i], NULL, &is) == 0 && is.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void on_child(struct running *running)
{
	if (!running->is_alone && waitpid(running->supervisor, NULL, WNOHANG) != 0)
		running->is_alone = true; /* it has said why */
	if (waitpid(running->command, &running->status, WNOHANG) != 0)
		running->has_ended = true;
}

static void await_command(struct running *running)
{
	struct signalfd_siginfo info;

	while (!running->has_ended) {
		if (read(running->signals, &info, sizeof(info)) != sizeof(info)) {
			if (errno != EINTR)
				return;
		} else if (info.ssi_signo == SIGCHLD) {
			on_child(running);
		} else if (info.ssi_code != SI_KERNEL) {
			kill(running->command, (int)info.ssi_signo);
		}
	}
}

static int status_of(const struct running *running)
{
	if (WIFSIGNALED(running->status))
		return BY_SIGNAL + WTERMSIG(running->status);
	return WIFEXITED(running->status) ? WEXITSTATUS(running->status) : VD_EXIT_FAILED;
}

int vdifs_command_run(char *const *command, const struct vdifs_inherited *inherited,
		      pid_t supervisor, int ready_fd)
{
	struct running running = { .supervisor = supervisor };
	int status, end = 0;

	running.signals = catch_signals();
	fflush(NULL);
	running.command = running.signals < 0 ? -1 : fork();
	if (running.command == 0)
		become(command, inherited);
	if (running.command < 0)
		vd_log(LOG_ERR, "cannot run the command: %s", strerror(errno));
	else
		await_command(&running);
	close(ready_fd);
	while (!running.is_alone && waitpid(supervisor, &end, 0) < 0 && errno == EINTR)
		;
	status = running.command < 0 ? VD_EXIT_FAILED : status_of(&running);
	/* The command may have read less than all, or has left something behind. */
	if (status == 0 && (running.is_alone || !WIFEXITED(end) || WEXITSTATUS(end) != 0))
		status = VD_EXIT_FAILED;
	return status;
}
