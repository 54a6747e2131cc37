/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From options to a served mount.
 *
 * Order matters: the image and everything it names is opened before the mount (its paths might lead
 * through the mountpoint, and a refused image must leave nothing mounted), the index starts when
 * the mount answers. libfuse and fusermount3 print their complaints to stderr in their own words;
 * they are caught and become part of our one line.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <syslog.h>
#include <unistd.h>

#include "map/index.h"
#include "vdifs/fs.h"
#include "vdifs/mount.h"

/*
 * What the kernel asks for at a time. Through the page cache, where a reader's jumps end in holes
 * that are read ahead in vain, and each page of which has to be found first, 256 KiB is best; past
 * it, as much as an answer can have that is spliced (worker.c).
 */
#define READ_AHEAD_KIB 256
#define CACHED_REQUEST_KIB 256
#define DIRECT_REQUEST_KIB 512
/* Requests of read-ahead that may be under way; the kernel's 12 are for slow devices. */
#define BACKGROUND_MAX 64
/* Threads come as they are needed. Those that wait for the map must leave some for readers. */
#define WORKERS_MAX 32

struct server {
	const struct vdifs_options *options;
	int ready_fd;
	char mountpoint[PATH_MAX]; /* real path, as that of the image */
	char image[PATH_MAX];
	bool is_directory;
	struct vd_disk *disk;
	struct vd_index *index;
	struct vdifs_fs *fs;
	struct fuse_session *session;
};

/* Undo the octal escapes of /proc/self/mountinfo in place. */
static void octal_unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
				       (text[3] - '0'));
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

/* The "major:minor" of the last mount on the path. */
static bool find_device(const char *path, char *device, size_t size)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (mounts && getline(&line, &room, mounts) > 0) {
		char numbers[32], *place = malloc(room);

		if (place && sscanf(line, "%*d %*d %31s %*s %s", numbers, place) == 2) {
			octal_unescape(place);
			if (strcmp(place, path) == 0) {
				snprintf(device, size, "%s", numbers);
				found = true;
			}
		}
		free(place);
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return found;
}

/* The kernel's default is 128 KiB, and only root may raise it. Failing is fine. */
static void raise_read_ahead(const char *mountpoint)
{
	char device[32], path[96];
	FILE *file;

	if (!find_device(mountpoint, device, sizeof(device)))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", device);
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", READ_AHEAD_KIB);
	fclose(file);
}

/* The terminal is no longer ours: nothing of it may be kept open. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	vd_log_to_syslog();
	for (int fd = 0; fd <= 2 && null >= 0; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/* The most that one read asks for. libfuse wants to hear it twice: as mount option, and here. */
static unsigned request_bytes(const struct server *server)
{
	return (unsigned)(server->options->direct ? DIRECT_REQUEST_KIB : CACHED_REQUEST_KIB) << 10;
}

/* The kernel has sent its first request; our answer to it makes the mount usable. */
static void server_ready(void *context, struct fuse_conn_info *conn)
{
	struct server *server = context;

	int r;

	raise_read_ahead(server->mountpoint);
	conn->max_readahead = READ_AHEAD_KIB << 10;
	conn->max_read = request_bytes(server);
	conn->max_background = conn->congestion_threshold = BACKGROUND_MAX;
	if (server->ready_fd >= 0)
		leave_terminal();
	r = vd_index_start(
		server->index); /* it may find much to log: not to a terminal that is not ours */
	if (r < 0)
		vd_log(LOG_ERR, "cannot start a thread for the interval map: %s", strerror(-r));
	if (server->ready_fd < 0)
		return;
	if (write(server->ready_fd, "r", 1) != 1)
		vd_log(LOG_WARNING, "cannot tell the starting process that the mount is ready");
	close(server->ready_fd);
}

static bool server_ending(void *context)
{
	struct server *server = context;

	return fuse_session_exited(server->session) != 0;
}

static int check_mountpoint(struct server *server, struct vd_error *err)
{
	const char *given = server->options->mountpoint;
	char shown[512];
	struct statfs fs;
	struct stat st;

	vd_escape(shown, sizeof(shown), given, strlen(given));
	if (strncmp(given, "/dev/fd/", 8) == 0)
		return vd_fail(err, EINVAL,
			       "%s: vdifs mounts itself and drops what it does not need; leave out "
			       "the mount option drop_privileges",
			       shown);
	if (statfs(given, &fs) < 0 && errno == ENOTCONN) /* stat() might be answered from a cache */
		return vd_fail(err, ENOTCONN,
			       "%s: a dead mount is in the way (its program has died); remove it "
			       "with: fusermount3 -u %s",
			       shown, shown);
	if (!realpath(given, server->mountpoint) || stat(server->mountpoint, &st) < 0)
		return vd_fail(err, errno, "%s: cannot use the mountpoint: %s", shown,
			       strerror(errno));
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return vd_fail(err, EINVAL,
			       "%s: the mountpoint must be a directory or a regular file", shown);
	server->is_directory = S_ISDIR(st.st_mode);
	if (access("/dev/fuse", F_OK) < 0)
		return vd_fail(
			err, ENODEV,
			"/dev/fuse: %s; load the module with: modprobe fuse (in a container, "
			"start it with --device /dev/fuse)",
			strerror(errno));
	return 0;
}

/* Append text to out with commas and backslashes escaped, as libfuse wants them. */
static void put_escaped(char *out, size_t size, const char *text)
{
	size_t used = strlen(out);

	for (; *text && used + 3 < size; text++) {
		if (*text == ',' || *text == '\\')
			out[used++] = '\\';
		out[used++] = *text;
	}
	out[used] = '\0';
}

/* What libfuse gets. fsname is what mount(8) shows as the source; it may have commas. */
static void make_fuse_options(const struct server *server, char *out, size_t size)
{
	const struct vdifs_options *options = server->options;

	snprintf(out, size,
		 "ro,nosuid,nodev,default_permissions,subtype=vdifs,max_read=%u,%s%sfsname=",
		 request_bytes(server), options->fuse_options ? options->fuse_options : "",
		 options->fuse_options ? "," : "");
	put_escaped(out, size, options->fsname ? options->fsname : server->image);
}

/* Read what was caught, as one line, into text. */
static void caught_line(int fd, char *text, size_t size)
{
	ssize_t got = lseek(fd, 0, SEEK_SET) == 0 ? read(fd, text, size - 1) : 0;

	got = got < 0 ? 0 : got;
	while (got > 0 && text[got - 1] == '\n')
		got--;
	text[got] = '\0';
	for (char *p = text; *p; p++) {
		if (*p == '\n')
			*p = ';';
	}
}

/* Call libfuse with stderr caught in a file in memory; say in our words what went wrong. */
static int session_mount(struct server *server, struct vd_error *err)
{
	int caught = server->options->debug ? -1 : memfd_create("stderr", MFD_CLOEXEC);
	int saved = caught >= 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : -1;
	char text[1024] = "";
	int r;

	if (saved >= 0)
		dup2(caught, STDERR_FILENO);
	r = fuse_session_mount(server->session, server->mountpoint);
	if (saved >= 0) {
		dup2(saved, STDERR_FILENO);
		close(saved);
		caught_line(caught, text, sizeof(text));
	}
	if (caught >= 0)
		close(caught);
	if (r != 0)
		return vd_fail(err, EPERM, "%s: cannot mount: %s", server->mountpoint,
			       *text ? text : "see the messages above");
	return 0;
}

static int session_new(struct server *server, struct vd_error *err)
{
	char list[2 * PATH_MAX] = "";
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct vdifs_fs_options fs_options = {
		.image_name = strrchr(server->image, '/') + 1,
		.is_directory = server->is_directory,
		.direct = server->options->direct,
		.ready = server_ready,
		.ending = server_ending,
		.context = server,
	};

	if (vdifs_fs_new(server->index, &fs_options, &server->fs) < 0)
		return vd_fail(err, ENOMEM, "out of memory");
	make_fuse_options(server, list, sizeof(list));
	if (fuse_opt_add_arg(&args, "vdifs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, list) == 0 &&
	    (!server->options->debug || fuse_opt_add_arg(&args, "-d") == 0))
		server->session =
			fuse_session_new(&args, &vdifs_fs_ops, sizeof(vdifs_fs_ops), server->fs);
	fuse_opt_free_args(&args);
	if (!server->session)
		return vd_fail(err, EINVAL, "libfuse does not take the mount options: %s", list);
	return 0;
}

static int session_loop(struct server *server)
{
	int r;

	if (server->options->single_thread)
		return fuse_session_loop(server->session);
#if FUSE_USE_VERSION >= 312
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, WORKERS_MAX);
	r = fuse_session_loop_mt(server->session, config);
	fuse_loop_cfg_destroy(config);
#else
	struct fuse_loop_config config = { .clone_fd = 1, .max_idle_threads = WORKERS_MAX };

	r = fuse_session_loop_mt(server->session, &config);
#endif
	return r;
}

/* Mounted: serve until the end. A signal is a good end, too. */
static int server_run(struct server *server, struct vd_error *err)
{
	int r;

	if (server->ready_fd >= 0 && chdir("/") < 0)
		return vd_fail(err, errno, "cannot change to /: %s", strerror(errno));
	r = session_loop(server);
	return r < 0 ? vd_fail(err, -r, "%s: serving the mount failed: %s", server->mountpoint,
			       strerror(-r))
		     : 0;
}

static void server_free(struct server *server)
{
	if (server->session)
		fuse_session_destroy(server->session);
	vdifs_fs_free(server->fs);
	vd_index_free(server->index);
	vd_disk_close(server->disk);
}

int vdifs_mount_serve(const struct vdifs_options *options, int ready_fd, struct vd_error *err)
{
	struct server server = { .options = options, .ready_fd = ready_fd };
	int r = check_mountpoint(&server, err);

	if (r == 0)
		r = vd_chain_open(options->image, &options->chain, &vd_opener_here, &server.disk,
				  err);
	if (r == 0 && !realpath(options->image, server.image))
		r = vd_fail(err, errno, "%s: %s", options->image, strerror(errno));
	if (r == 0 && vd_index_new(server.disk, options->map_memory, &server.index) < 0)
		r = vd_fail(err, ENOMEM, "out of memory");
	if (r == 0)
		r = session_new(&server, err);
	if (r == 0 && fuse_set_signal_handlers(server.session) != 0)
		r = vd_fail(err, EINVAL, "cannot set signal handlers");
	if (r == 0)
		r = session_mount(&server, err);
	if (r == 0) {
		r = server_run(&server, err);
		fuse_session_unmount(server.session);
	}
	if (server.session)
		fuse_remove_signal_handlers(server.session);
	server_free(&server);
	return r;
}
