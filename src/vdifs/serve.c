/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The serving process, from the image to the last answer.
 *
 * Order matters: the image and everything it names is opened before the mount (its paths might lead
 * through the mountpoint, and a refused image must leave nothing mounted); the index starts when
 * the mount answers. The descriptor of the mount comes through the socket, from the supervisor or
 * straight from fusermount3. When the supervisor is gone the socket is at its end: then the mount is
 * served until it is unmounted, if there is one. Should there be none, reading from the descriptor
 * fails.
 *
 * Threads: start-up is one thread, then libfuse's loop makes more.
 */
#include "config.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"
#include "base/passing.h"
#include "map/index.h"
#include "map/info.h"
#include "vdifs/fs.h"
#include "vdifs/place.h"
#include "vdifs/serve.h"

/* Requests of read-ahead that may be under way; the kernel's 12 are for slow devices. */
#define BACKGROUND_MAX 64
/* Threads come as they are needed. None of them waits, or works for long: see waiting.h. */
#define WORKERS_MAX 32

struct server {
	const struct vdifs_server_options *options;
	const struct vd_confined *confined;
	struct vd_disk *disk;
	struct vd_index *index;
	struct vdifs_fs *fs;
	_Atomic(struct fuse_session *) session; /* the threads of sources look at it */
	atomic_bool is_over; /* the mount; libfuse forgets it when its loop returns */
};

/* --- talking to the supervisor --------------------------------------------------------------- */

/* A supervisor that is gone does not hear it, which is fine. */
static void tell(const struct server *server, char what)
{
	send(server->options->socket, &what, 1, MSG_NOSIGNAL);
}

/* Wait for the mount. Its descriptor, or -1: there will be none, and the supervisor knows why. */
static int await_mount(const struct server *server)
{
	int device = -1, fd;
	char what;

	while (vd_pass_receive(server->options->socket, &what, 1, &fd) > 0) {
		if (fd >= 0 && device < 0)
			device = fd;
		else if (fd >= 0)
			close(fd);
		if (what == VDIFS_MOUNTED)
			break;
	}
	return device;
}

/* --- serving --------------------------------------------------------------------------------- */

/* The terminal is no longer ours: nothing of it may be kept open. */
static void leave_terminal(int null)
{
	vd_log_to_syslog(null);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	close(null);
}

/* The kernel has sent its first request; our answer to it makes the mount usable. */
static void server_ready(void *context, struct fuse_conn_info *conn)
{
	struct server *server = context;
	int r;

	conn->max_readahead = VDIFS_READ_AHEAD_KIB << 10;
	conn->max_read = vdifs_request_bytes(server->options->options);
	conn->max_background = conn->congestion_threshold = BACKGROUND_MAX;
	if (server->options->null >= 0)
		leave_terminal(server->options->null);
	/* after that: the index may find much to log */
	r = vd_index_start(server->index);
	if (r < 0)
		vd_log(LOG_ERR, "cannot start a thread for the interval map: %s", strerror(-r));
	tell(server, VDIFS_ANSWERED);
}

static bool server_ending(void *context)
{
	struct server *server = context;

	return server->is_over || fuse_session_exited(server->session) != 0;
}

static int session_new(struct server *server, struct vd_error *err)
{
	const struct vdifs_options *options = server->options->options;
	char list[64];
	char *arguments[] = { "vdifs", "-o", list, "-d", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(options->debug ? 4 : 3, arguments);
	struct vdifs_fs_options fs_options = {
		.tree = {
			.image_name = server->options->image_name,
			.is_directory = server->options->is_directory,
			.layers = options->layers,
			.qcow2 = options->qcow2,
			.for_others = vdifs_options_has(options, "allow_other"),
		},
		.direct = options->direct,
		.layers = server->confined->layers_text,
		.ready = server_ready,
		.ending = server_ending,
		.context = server,
	};
	int r = vdifs_fs_new(server->disk, server->index, &fs_options, &server->fs, err);

	if (r < 0)
		return r;
	/* The kernel has the other options from the supervisor; these libfuse acts on itself. */
	snprintf(list, sizeof(list), "max_read=%u%s", vdifs_request_bytes(options),
		 vdifs_options_has(options, "allow_root") ? ",allow_root" : "");
	server->session = fuse_session_new(&args, &vdifs_fs_ops, sizeof(vdifs_fs_ops), server->fs);
	fuse_opt_free_args(&args);
	if (!server->session)
		return vd_fail(err, EINVAL, "libfuse does not take the mount options: %s", list);
	return 0;
}

/*
 * All threads read from one descriptor. With clone_fd, one for each, libfuse loses interrupts: one that
 * overtakes its request is given back to the kernel, which looks for the request among those of the
 * descriptor that the interrupt came through.
 */
static int session_loop(struct server *server)
{
	int r;

	if (server->options->options->single_thread)
		return fuse_session_loop(server->session);
#if FUSE_USE_VERSION >= 312
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, false);
	fuse_loop_cfg_set_max_threads(config, WORKERS_MAX);
	r = fuse_session_loop_mt(server->session, config);
	fuse_loop_cfg_destroy(config);
#else
	struct fuse_loop_config config = { .max_idle_threads = WORKERS_MAX };

	r = fuse_session_loop_mt(server->session, &config);
#endif
	return r;
}

/* For -v: what was opened, by whom it is read. */
static void describe(const struct server *server)
{
	for (unsigned i = 0; i < server->disk->count; i++) {
		const struct vd_image *layer = server->disk->layers[i];

		vd_log(LOG_INFO, "%s %s: %s, %" PRIu64 " bytes%s%s", i ? "backing file" : "image",
		       layer->source->name, vd_info_format(layer->format->name), layer->size,
		       layer->data ? ", data file " : "", layer->data ? layer->data->name : "");
	}
	vd_log(LOG_INFO, "sandbox: %s", server->confined->layers_text);
}

/* Asked by sources that wait for a server, from before there is a session. */
static bool answers_are_unwanted(void *context)
{
	struct server *server = context;

	return server->is_over || (server->session && fuse_session_exited(server->session) != 0);
}

/* Everything that can be refused, before there is a mount. */
static int server_open(struct server *server, struct vd_confined *confined, struct vd_error *err)
{
	const struct vdifs_options *options = server->options->options;
	struct vd_chain_options chain = options->chain;
	int r;

	chain.patience.ending = answers_are_unwanted;
	chain.patience.context = server;
	r = vd_chain_open(options->image, &chain, &confined->opener, &server->disk, err);
	if (r == 0 && vd_index_new(server->disk, options->map_memory, &server->index) < 0)
		r = vd_fail(err, ENOMEM, "out of memory");
	if (r == 0)
		r = session_new(server, err);
	if (r == 0 && fuse_set_signal_handlers(server->session) != 0)
		r = vd_fail(err, EINVAL, "cannot set signal handlers");
	vd_confined_opened(confined);
	return r;
}

/* Mounted, or about to be: serve until the end. An exit status. */
static int server_run(struct server *server, struct vd_error *err)
{
	char device[32];
	int fd, r;

	tell(server, VDIFS_OPENED);
	fd = await_mount(server);
	if (fd < 0)
		return EXIT_FAILURE;
	snprintf(device, sizeof(device), "/dev/fd/%d", fd);
	if (fuse_session_mount(server->session, device) != 0) {
		vd_fail(err, EINVAL, "libfuse does not take the mount");
		return EXIT_FAILURE;
	}
	r = session_loop(server);
	server->is_over = true; /* what was deferred ends now */
	if (r == -ECONNABORTED) /* the mount ended while a thread was being given a request */
		r = 0;
	if (r < 0)
		vd_fail(err, -r, "serving the mount failed: %s", strerror(-r));
	if (r < 0)
		return EXIT_FAILURE;
	return r > 0 ? VDIFS_SIGNALLED : VDIFS_UNMOUNTED;
}

static void server_free(struct server *server)
{
	if (server->session)
		fuse_remove_signal_handlers(server->session);
	vdifs_fs_free(server->fs);
	vd_index_free(server->index);
	vd_disk_close(server->disk); /* its threads look at the session, see above */
	if (server->session)
		fuse_session_destroy(server->session);
}

/* libfuse writes to stderr on its own as well; what it says to this function is worth a line. */
__attribute__((format(printf, 2, 0)))
static void log_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[1024];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	vd_log((int)level, "%s", line); /* the levels are those of syslog */
}

void vdifs_serve_prepare(const struct vdifs_options *options, int null)
{
	dup2(null, STDOUT_FILENO); /* stdin has been left by now */
	if (!options->debug) {
		fuse_set_log_func(log_libfuse);
		vd_log_keep_stderr();
		dup2(null, STDERR_FILENO);
	}
	/* What a terminal sends goes to both processes: the supervisor unmounts first. */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	vd_info_warm_up();
}

int vdifs_serve(const struct vdifs_server_options *options, struct vd_confined *confined)
{
	struct server server = { .options = options, .confined = confined };
	struct vd_error err = { "" };
	int status = EXIT_FAILURE;

	if (server_open(&server, confined, &err) == 0) {
		err.text[0] = '\0'; /* it may say why one of several names of a parent was wrong */
		if (options->options->verbose || options->options->debug)
			describe(&server);
		status = server_run(&server, &err);
	}
	if (*err.text) /* to stderr as long as it is the user's, then to syslog */
		vd_log(LOG_ERR, "%s", err.text);
	server_free(&server);
	return status;
}
