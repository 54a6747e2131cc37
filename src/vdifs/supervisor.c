/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread, one loop, five things to wait for: questions of the server for files, bytes from it
 * (serve.h), the first answer of the mount (probe.h), the end of the process that was started, and
 * signals, which come through a descriptor so that none is missed.
 *
 * The server's end of the socket closes when it dies, however it dies, and then the mount is taken
 * away. If this process is killed, the server goes on until somebody unmounts; only both killed at
 * once leave a dead mount. A signal ends the mount first, so that no newcomer meets a dead one, and
 * then the server; a server that does not end in time, because storage does not answer, is killed.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/exit.h"
#include "base/log.h"
#include "base/standard.h"
#include "disk/broker.h"
#include "source/address.h"
#include "vdifs/helper.h"
#include "vdifs/lifeline.h"
#include "vdifs/pid_file.h"
#include "vdifs/place.h"
#include "vdifs/probe.h"
#include "vdifs/serve.h"
#include "vdifs/supervisor.h"
#include "vdifs/tether.h"

/* From a signal until the server is killed, and from there until we go without it. */
#define GRACE_MS 3000
#define KILLED_MS 1000
/* A mount may be in use for a moment by a program that looks at new mounts. */
#define BUSY_MS 1000

/* -o remount: all is as it should be. */
#define NOTHING_TO_DO 1

struct supervisor {
	const struct vdifs_options *options;
	int ready_fd;
	char image[PATH_MAX]; /* real path, or the address of a server */
	char image_shown[1024]; /* the same, for messages */
	char image_name[PATH_MAX]; /* what the disk is named after; may be empty */
	struct vdifs_place place;
	struct vd_broker *broker;
	pid_t server;
	int questions; /* socket of the broker; -1: all are answered */
	int socket; /* to the server */
	int far_socket; /* the server's end, until it has been forked */
	int signals;
	int null;
	int lifeline; /* held by both processes until they end */
	struct vdifs_tether tether; /* to the server, until there may be a mount */
	struct vdifs_pid_file pid_file;
	struct vdifs_probe probe; /* the first answer of the mount is waited for */
	bool mounted, answered, is_ready, stopping;
	bool has_left_users; /* the command is over, but the mount was still in use */
	int64_t deadline; /* while stopping: ms of the monotonic clock */
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void notify_systemd(const char *what)
{
#ifdef HAVE_SYSTEMD
	sd_notify(0, what);
#else
	(void)what;
#endif
}

/* A mount must not keep the caller's directory busy. */
static void leave_directory(void)
{
	if (chdir("/") < 0)
		vd_log(LOG_WARNING, "cannot change to /: %s", strerror(errno));
}

/* --- beginning ------------------------------------------------------------------------------- */

/*
 * From here on there is something to clean up. Before, a signal ends us as it ends any program, also
 * while the image is being opened on storage that does not answer, and the server goes with us; and
 * so does the end of the starting process (main.c). What whoever started us had us ignore (nohup)
 * would come through the descriptor all the same, and is left out.
 */
static int catch_signals(struct supervisor *supervisor, struct vd_error *err)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	struct sigaction is;
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		if (sigaction(signals[i], NULL, &is) == 0 && is.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	}
	prctl(PR_SET_PDEATHSIG, 0);
	sigprocmask(SIG_BLOCK, &set, NULL);
	supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return supervisor->signals < 0
		       ? vd_fail(err, errno, "cannot wait for signals: %s", strerror(errno))
		       : 0;
}

/* In the child, before the sandbox closes: what is the supervisor's is not the server's. */
static void server_prepare(void *context)
{
	struct supervisor *supervisor = context;

	close(supervisor->socket);
	vdifs_place_clear(&supervisor->place); /* the descriptors; its form is still wanted */
	vd_inherited_close();
	if (supervisor->ready_fd >= 0) {
		close(supervisor->ready_fd);
		leave_directory();
	}
	vd_chain_prepare(&supervisor->options->image, &supervisor->options->chain, 1);
	vdifs_serve_prepare(supervisor->options, supervisor->null);
}

/* In the background messages go to syslog, but a command has the user's attention. */
static bool leaves_terminal(const struct supervisor *supervisor)
{
	return supervisor->ready_fd >= 0 && !supervisor->options->command;
}

static int server_main(void *context, struct vd_confined *confined)
{
	const struct supervisor *supervisor = context;
	struct vdifs_server_options options = {
		.options = supervisor->options,
		.image_name = supervisor->image_name,
		.is_directory = supervisor->place.is_directory,
		.socket = supervisor->far_socket,
		.null = leaves_terminal(supervisor) ? supervisor->null : -1,
	};

	return vdifs_serve(&options, confined);
}

static int start_server(struct supervisor *supervisor, struct vd_error *err)
{
	struct vd_confined_options confined = {
		.mode = supervisor->options->sandbox,
		.prepare = server_prepare,
		.run = server_main,
		.context = supervisor,
	};
	int sockets[2], r;

	/* Packets: a stream would have urgent bytes, which one is woken by and cannot read. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return vd_fail(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
	supervisor->socket = sockets[0];
	supervisor->far_socket = sockets[1];
	r = vd_confined_start(&confined, &supervisor->server, &supervisor->questions, err);
	close(supervisor->far_socket);
	if (r == 0)
		vdifs_tether_tie(&supervisor->tether, supervisor->server);
	return r;
}

/* Fill in image and image_name. */
static int find_image(struct supervisor *supervisor, struct vd_error *err)
{
	const char *given = supervisor->options->image;
	struct vd_address address;
	char shown[512];
	int r = 0;

	vd_escape(shown, sizeof(shown), given, strlen(given));
	if (vd_address_is(given)) {
		r = vd_address_parse(given, &address, err);
		if (r == 0 && strlen(given) >= sizeof(supervisor->image))
			r = vd_fail(err, ENAMETOOLONG, "%s: the address is too long", shown);
		if (r < 0)
			return r;
		strcpy(supervisor->image, given);
		strcpy(supervisor->image_shown, shown);
		snprintf(supervisor->image_name, sizeof(supervisor->image_name), "%s",
			 vd_address_file_name(&address));
		return 0;
	}
	if (!realpath(given, supervisor->image)) {
		struct stat st;

		/* The file of a descriptor may have no name any more. */
		if (stat(given, &st) < 0 || strlen(given) >= sizeof(supervisor->image))
			return vd_fail(err, errno, "%s: cannot open the image: %s", shown,
				       strerror(errno));
		strcpy(supervisor->image, given);
	}
	vd_escape(supervisor->image_shown, sizeof(supervisor->image_shown), supervisor->image,
		  strlen(supervisor->image));
	/* As it was given: /dev/VG/LV is a symbolic link to dm-7, a name that says nothing. */
	snprintf(supervisor->image_name, sizeof(supervisor->image_name), "%s",
		 strrchr(given, '/') ? strrchr(given, '/') + 1 : given);
	return 0;
}

static const char *mount_source(const struct supervisor *supervisor)
{
	return supervisor->options->fsname ? supervisor->options->fsname : supervisor->image;
}

/* Twice the same image at the same place is a mistake: of "mount -a", say. */
static int check_mounted(const struct supervisor *supervisor, struct vd_error *err)
{
	char shown[1024], source[PATH_MAX], what[1024], word[1024];
	bool is_taken = vdifs_place_has(&supervisor->place, source);
	bool is_there = is_taken && strcmp(source, mount_source(supervisor)) == 0;

	vd_escape(shown, sizeof(shown), supervisor->place.path, strlen(supervisor->place.path));
	if (supervisor->options->remount && !is_there)
		return vd_fail(err, EINVAL, "%s: cannot remount: %s is not mounted here", shown,
			       supervisor->image_shown);
	if (is_there && supervisor->options->remount)
		return NOTHING_TO_DO;
	if (!is_taken)
		return 0;
	return vd_fail(err, EBUSY,
		       "%s: %s is already mounted here; to unmount it: vdifs --unmount %s", shown,
		       vd_escape(what, sizeof(what), source, strlen(source)),
		       vdifs_shell_word(word, sizeof(word), supervisor->place.path));
}

/* -o remount: all is as it was, which is all that there is to say. */
static void say_done(struct supervisor *supervisor)
{
	supervisor->stopping = true;
	if (supervisor->ready_fd >= 0 && write(supervisor->ready_fd, "r", 1) != 1)
		vd_log(LOG_WARNING, "the command that started the mount has ended");
}

/* 0; NOTHING_TO_DO; -errno with a message. */
static int begin(struct supervisor *supervisor, struct vd_error *err)
{
	const struct vdifs_options *options = supervisor->options;
	int r = vdifs_place_find(&supervisor->place, options->mountpoint, err);

	if (r == 0)
		r = find_image(supervisor, err);
	if (r == 0)
		r = check_mounted(supervisor, err);
	if (r == 0 && options->pid_file)
		r = vdifs_pid_file_find(&supervisor->pid_file, options->pid_file, err);
	if (r == 0 && vd_broker_new(&options->image, &options->chain, 1, &supervisor->broker) < 0)
		r = vd_fail(err, ENOMEM, "out of memory");
	if (r == 0) {
		supervisor->null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (supervisor->null < 0)
			r = vd_fail(err, errno, "/dev/null: %s", strerror(errno));
	}
	if (r != 0)
		return r;
	supervisor->lifeline = vdifs_lifeline_new();
	return start_server(supervisor, err);
}

/* --- what happens ---------------------------------------------------------------------------- */

/* A signal, so there may be a mount: unmount, tell the server to end, and give it some time. */
static void stop(struct supervisor *supervisor)
{
	struct vd_error err = { "" };
	int r;

	notify_systemd("STOPPING=1");
	r = vdifs_place_unmount(&supervisor->place, false, &err);
	kill(supervisor->server, SIGTERM);
	if (!supervisor->stopping)
		supervisor->deadline = now_ms() + GRACE_MS;
	supervisor->stopping = true;
	if (r < 0)
		vd_log(LOG_ERR, "%s", err.text);
}

/* Unmount, but wait for those who have the disk open. -EBUSY: too long. */
static int unmount_gently(struct supervisor *supervisor, struct vd_error *err)
{
	int64_t until = now_ms() + BUSY_MS;
	int r;

	do {
		r = vdifs_place_unmount_idle(&supervisor->place, err);
		if (r == -EBUSY)
			poll(NULL, 0, 10);
	} while (r == -EBUSY && now_ms() < until);
	return r;
}

/* The command has ended: unmount, and have the server end by itself. */
static void finish(struct supervisor *supervisor)
{
	struct vd_error err = { "" };

	if (unmount_gently(supervisor, &err) < 0) {
		vd_log(LOG_ERR,
		       "%s; the command has ended: processes that still use the disk get errors",
		       err.text);
		supervisor->has_left_users = true;
		stop(supervisor);
	}
	if (!supervisor->stopping)
		supervisor->deadline = now_ms() + GRACE_MS;
	supervisor->stopping = true;
}

/*
 * The starting process has ended before it heard that the mount is ready, or it has run its command. 1:
 * there is no mount yet.
 */
static int on_abandoned(struct supervisor *supervisor)
{
	close(supervisor->ready_fd);
	supervisor->ready_fd = -1;
	if (supervisor->is_ready)
		finish(supervisor);
	else if (supervisor->mounted)
		stop(supervisor);
	supervisor->stopping = true;
	return !supervisor->mounted;
}

/* The terminal is no longer ours. */
static void leave_terminal(struct supervisor *supervisor)
{
	vd_log_to_syslog(supervisor->null);
	for (int fd = 0; fd <= 2; fd++)
		dup2(supervisor->null, fd);
	close(supervisor->null);
	supervisor->null = -1;
}

/*
 * The server says that the kernel's first request is being answered. Whether it is we learn in another
 * process: the server may have been taken over, or stopped.
 */
static int on_answered(struct supervisor *supervisor, struct vd_error *err)
{
	int r = vdifs_probe_start(&supervisor->probe, supervisor->place.top);

	supervisor->answered = true;
	return r < 0 ? vd_fail(err, -r, "cannot start a process: %s", strerror(-r)) : 0;
}

/* The mount has answered, or the process that asked has ended. */
static int on_probe(struct supervisor *supervisor, struct vd_error *err)
{
	int r = vdifs_probe_finish(&supervisor->probe, 0);

	if (supervisor->stopping)
		return 0;
	if (r < 0)
		return vd_fail(err, -r, "%s: the mount does not answer: %s",
			       supervisor->image_shown, strerror(-r));
	vdifs_place_raise_read_ahead(&supervisor->place);
	vdifs_lifeline_announce(supervisor->lifeline, supervisor->place.device);
	vdifs_place_ready(&supervisor->place);
	r = vdifs_pid_file_write(&supervisor->pid_file, err);
	if (r < 0)
		return r;
	notify_systemd("READY=1");
	if (supervisor->ready_fd < 0)
		return 0;
	if (leaves_terminal(supervisor))
		leave_terminal(supervisor);
	leave_directory();
	if (write(supervisor->ready_fd, "r", 1) != 1)
		return on_abandoned(supervisor);
	supervisor->is_ready = true;
	if (supervisor->options->command) /* its end is waited for */
		return 0;
	close(supervisor->ready_fd);
	supervisor->ready_fd = -1;
	return 0;
}

static void close_questions(struct supervisor *supervisor)
{
	if (supervisor->questions >= 0)
		close(supervisor->questions);
	supervisor->questions = -1;
}

/* Is nobody waiting for the mount any more? */
static bool is_abandoned(const struct supervisor *supervisor)
{
	struct pollfd starter = { .fd = supervisor->ready_fd };

	return poll(&starter, 1, 0) > 0;
}

/* The server has opened all files. 1: the mount is not wanted any more. */
static int on_opened(struct supervisor *supervisor, struct vd_error *err)
{
	char mounted = VDIFS_MOUNTED;
	int r;

	/* After this the mountpoint may hide the paths that led to the files. */
	close_questions(supervisor); /* also of a server that says one thing and does another */
	vd_broker_free(supervisor->broker);
	supervisor->broker = NULL;
	vd_inherited_close();
	r = catch_signals(supervisor, err);
	if (r < 0)
		return r;
	if (is_abandoned(supervisor))
		return on_abandoned(supervisor);
	vdifs_tether_loosen(&supervisor->tether); /* a mount must not lose its server with us */
	r = vdifs_place_mount(&supervisor->place, supervisor->options, mount_source(supervisor),
			      supervisor->socket, err);
	if (r < 0)
		return r;
	supervisor->mounted = true;
	send(supervisor->socket, &mounted, 1, MSG_NOSIGNAL);
	return 0;
}

/* A byte from the server. 1: the server is gone. */
static int on_byte(struct supervisor *supervisor, struct vd_error *err)
{
	ssize_t got;
	char what;

	do
		got = recv(supervisor->socket, &what, 1, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0)
		return 1;
	if (supervisor->stopping) /* what it was about to do is not wanted any more */
		return 0;
	if (what == VDIFS_OPENED && !supervisor->mounted && supervisor->broker)
		return on_opened(supervisor, err);
	if (what == VDIFS_ANSWERED && supervisor->mounted && !supervisor->answered)
		return on_answered(supervisor, err);
	return vd_fail(err, EPROTO, "the serving process says what makes no sense");
}

static int on_question(struct supervisor *supervisor)
{
	int r = vd_broker_answer(supervisor->broker, supervisor->questions);

	if (r <= 0)
		close_questions(supervisor);
	return r < 0 ? r : 0;
}

static void on_signal(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;

	if (read(supervisor->signals, &info, sizeof(info)) == sizeof(info))
		stop(supervisor);
}

/* The server has had its time. It is killed first: a line for the log may have to wait. */
static void on_deadline(const struct supervisor *supervisor)
{
	kill(supervisor->server, SIGKILL);
	vd_log(LOG_WARNING, "%s: the serving process does not end and is killed",
	       supervisor->image_shown);
}

/* Wait for the next thing and handle it. 1: the server is gone, or must be. */
static int turn(struct supervisor *supervisor, struct vd_error *err)
{
	enum { SIGNALS, SOCKET, QUESTIONS, PROBE, STARTER, FDS };
	struct pollfd fds[] = {
		[SIGNALS] = { .fd = supervisor->signals, .events = POLLIN },
		[SOCKET] = { .fd = supervisor->socket, .events = POLLIN },
		[QUESTIONS] = { .fd = supervisor->questions, .events = POLLIN },
		[PROBE] = { .fd = supervisor->probe.fd, .events = POLLIN },
		[STARTER] = { .fd = supervisor->ready_fd }, /* an error: nobody reads from it */
	};
	int64_t left = supervisor->stopping ? supervisor->deadline - now_ms() : -1;
	int r;

	if (supervisor->stopping && left <= 0) {
		on_deadline(supervisor);
		return 1;
	}
	r = poll(fds, FDS, (int)left);
	if (r < 0)
		return errno == EINTR ? 0 : vd_fail(err, errno, "poll: %s", strerror(errno));
	if (fds[SIGNALS].revents) {
		on_signal(supervisor);
		return 0;
	}
	if (fds[STARTER].revents)
		return on_abandoned(supervisor);
	/* Questions before the byte that says that there are no more. */
	if (fds[QUESTIONS].revents && on_question(supervisor) < 0)
		return vd_fail(err, EPROTO, "the serving process asks what makes no sense");
	if (fds[QUESTIONS].revents)
		return 0;
	if (fds[PROBE].revents)
		return on_probe(supervisor, err);
	return fds[SOCKET].revents ? on_byte(supervisor, err) : 0;
}

/* --- the end --------------------------------------------------------------------------------- */

/*
 * Have the server gone, whatever it was about to do: one that only closed its socket lives on. To
 * one that is ending already the signal means nothing. False: it hangs.
 */
static bool reap(const struct supervisor *supervisor, int *status)
{
	int64_t until = now_ms() + KILLED_MS;
	pid_t pid;

	kill(supervisor->server, SIGKILL);
	do {
		pid = waitpid(supervisor->server, status, WNOHANG);
		if (pid == 0)
			poll(NULL, 0, 1);
	} while ((pid == 0 && now_ms() < until) || (pid < 0 && errno == EINTR));
	if (pid < 0)
		*status = -1; /* neither an exit nor a signal */
	return pid != 0;
}

/* The server is gone, or must go because of an error here. Clean up; an exit status. */
static int end(struct supervisor *supervisor, bool failed)
{
	struct vd_error err = { "" };
	int status = 0, r;
	bool good;

	if (supervisor->server > 0 && !reap(supervisor, &status)) {
		vd_log(LOG_ERR,
		       "%s: the serving process hangs, and will end when the storage of the image "
		       "answers",
		       supervisor->image_shown);
		failed = true;
	}
	good = WIFEXITED(status) &&
	       (WEXITSTATUS(status) == VDIFS_UNMOUNTED || WEXITSTATUS(status) == VDIFS_SIGNALLED);
	/* Whatever the server's status says: it may lie, and the connection may have been aborted. */
	r = vdifs_place_unmount(&supervisor->place, true, &err);
	if (r < 0)
		vd_log(LOG_ERR, "%s", err.text);
	if (supervisor->probe.pid > 0)
		vdifs_probe_finish(&supervisor->probe, 0);
	if (WIFSIGNALED(status) && !failed && !supervisor->stopping)
		vd_log(LOG_ERR, "%s: the serving process was ended by signal %d%s",
		       supervisor->image_shown, WTERMSIG(status),
		       supervisor->mounted && r == 0 ? "; the mount has been removed" : "");
	if (good && supervisor->ready_fd >= 0 && !failed && !supervisor->stopping)
		vd_log(LOG_ERR, "%s: the mount was ended before it was ready",
		       supervisor->image_shown);
	if (failed || supervisor->has_left_users)
		return VD_EXIT_FAILED;
	return good || supervisor->stopping ? VD_EXIT_DONE : VD_EXIT_FAILED;
}

static void close_all(const struct supervisor *supervisor)
{
	const int fds[] = { supervisor->questions, supervisor->socket, supervisor->signals,
			    supervisor->null, supervisor->lifeline };

	for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

int vdifs_supervise(const struct vdifs_options *options, int ready_fd)
{
	struct supervisor supervisor = {
		.options = options,
		.ready_fd = ready_fd,
		.questions = -1,
		.socket = -1,
		.signals = -1,
		.null = -1,
		.lifeline = -1,
		.place = VDIFS_PLACE_NONE,
		.tether = VDIFS_TETHER_NONE,
		.probe = VDIFS_PROBE_NONE,
	};
	struct vd_error err = { "" };
	int r, status;

	signal(SIGPIPE, SIG_IGN); /* nobody who has gone ends a mount */
	r = begin(&supervisor, &err);
	if (r == NOTHING_TO_DO)
		say_done(&supervisor);
	while (r == 0)
		r = turn(&supervisor, &err);
	if (r < 0)
		vd_log(LOG_ERR, "%s", err.text);
	status = end(&supervisor, r < 0);
	vdifs_tether_loosen(&supervisor.tether);
	vdifs_place_clear(&supervisor.place);
	vdifs_pid_file_remove(&supervisor.pid_file);
	vd_broker_free(supervisor.broker);
	close_all(&supervisor);
	return status;
}
