/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The byte source over a server that speaks NBD, by libnbd: Ceph, S3, HTTP, SSH, VMware and what
 * else nbdkit and qemu-nbd can read.
 *
 * The server is a stranger like the maker of an image. All it says is heard in the sandbox; the
 * socket comes from another process.
 *
 * Threads: any number send requests, which libnbd puts on the one connection at once. A thread of
 * ours waits for the answers and tells the senders; it also looks whether the server is silent for
 * too long or nobody wants its answers any more, and then shuts the connection down, which ends all
 * that is under way with an error. So nobody waits for ever. A lost connection stays lost:
 * in the sandbox there are no new ones. One connection is what there is: servers answer the requests
 * on it in parallel (nbdkit 16 of them, as many as are read ahead), and whether they bear several is
 * only known here, where no socket can be made.
 *
 * The thread polls a duplicate of the socket: libnbd closes its own when the connection breaks, in
 * whatever thread sees that first, and the number might be another file's by then.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "source/address.h"
#include "source/source.h"

#ifdef HAVE_LIBNBD

#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "source/ahead.h"
#include "source/holes.h"
#include "source/waiter.h"

#define READ_MAX ((size_t)4 << 20) /* bytes in one request */
#define AHEAD_BYTES ((size_t)256 << 10) /* a block of read-ahead: the kernel's largest request */
#define ALIGN_MAX (64u << 10) /* the protocol's limit for the smallest block */
#define STATUS_FIRST (UINT64_C(64) << 20) /* bytes to ask for holes at once; doubled while few */
#define STATUS_MAX (UINT64_C(2) << 30)
#define REFUSED "%s: the server refuses, or is none: %s"
#define PARTING_MS 200
#define TICK_MS 250 /* between two looks whether to go on waiting */
#define SAY_MS 500 /* before the log hears of the end of the connection */

/*
 * libnbd brings GnuTLS, libxml2 and more: 24 libraries, which linked would cost each start 7 to 16 ms
 * and a few MiB, also where there is no server. So it is loaded, and only when there is one.
 */
#define LIBRARY "libnbd.so.0"
#define FUNCTIONS(DO)                \
	DO(nbd_add_meta_context)     \
	DO(nbd_aio_block_status)     \
	DO(nbd_aio_connect_socket)   \
	DO(nbd_aio_disconnect)       \
	DO(nbd_aio_get_direction)    \
	DO(nbd_aio_in_flight)        \
	DO(nbd_aio_is_closed)        \
	DO(nbd_aio_is_dead)          \
	DO(nbd_aio_is_ready)         \
	DO(nbd_aio_notify_read)      \
	DO(nbd_aio_notify_write)     \
	DO(nbd_aio_pread_structured) \
	DO(nbd_can_meta_context)     \
	DO(nbd_close)                \
	DO(nbd_create)               \
	DO(nbd_get_block_size)       \
	DO(nbd_get_error)            \
	DO(nbd_get_size)             \
	DO(nbd_set_export_name)      \
	DO(nbd_set_tls)

#define POINTER(name) typeof(name) *name;
static struct {
	void *handle; /* NULL: not loaded */
	FUNCTIONS(POINTER)
} library;

int vd_source_load(struct vd_error *err)
{
	void *handle;

	if (library.handle)
		return 0;
	handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return vd_fail(err, ENOTSUP,
			       "images on servers need the library libnbd, which cannot be "
			       "loaded: %s; install the package libnbd0",
			       dlerror());
#define FIND(name)                                                                            \
	library.name = (typeof(name) *)(uintptr_t)dlsym(handle, #name);                       \
	if (!library.name) {                                                                  \
		dlclose(handle);                                                              \
		return vd_fail(err, ENOTSUP, "%s has no function %s; it is too old", LIBRARY, \
			       #name);                                                        \
	}
	FUNCTIONS(FIND)
	library.handle = handle;
	return 0;
}

struct nbd {
	struct vd_source source; /* first: freed as that */
	struct vd_address address;
	struct vd_patience patience;
	struct nbd_handle *handle; /* NULL before begin() */
	int socket; /* our own duplicate, or -1 */
	size_t align; /* requests begin and end at multiples of this */
	size_t most; /* bytes of the largest request; a multiple of align */
	struct vd_ahead *ahead;
	struct vd_holes *holes;
	_Atomic uint64_t status_bytes; /* to ask for holes next time */
	int wake[2]; /* a pipe: wakes the thread */
	pthread_t thread;
	bool has_thread;
	atomic_bool stopping; /* close() wants the thread to end */
	atomic_bool dead; /* the connection is lost or given up */
	atomic_bool silent; /* because the server said nothing for too long */
	atomic_bool failed; /* because of that a request failed; dead may be set a moment later */
	atomic_bool asleep; /* the thread waits without a limit: wake it for a request */
	atomic_bool status_failed; /* and that was said */
};

static struct nbd *nbd_of(const struct vd_source *source)
{
	return (struct nbd *)(uintptr_t)source;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* What libnbd says, which may be the server's words. */
static const char *reason(char shown[512])
{
	const char *text = library.nbd_get_error();

	return text ? vd_escape(shown, 512, text, strlen(text)) : "no reason is known";
}

/* --- the thread ------------------------------------------------------------------------------ */

static void wake(const struct nbd *nbd)
{
	ssize_t wrote = write(nbd->wake[1], "", 1);

	(void)wrote; /* when the pipe is full it is awake */
}

/* After a request was sent, or not: see that the thread waits for the right thing. */
static void wake_if_needed(struct nbd *nbd)
{
	if (atomic_load(&nbd->asleep) ||
	    library.nbd_aio_get_direction(nbd->handle) != LIBNBD_AIO_DIRECTION_READ)
		wake(nbd);
}

/* Wait for the socket (or for what wakes, if >= 0) and have libnbd do what can be done. 1: it did,
 * 0: nothing happened in that time. */
static int turn(struct nbd *nbd, int wake_fd, int timeout_ms)
{
	unsigned direction = library.nbd_aio_get_direction(nbd->handle);
	struct pollfd fds[2] = { { .fd = nbd->socket }, { .fd = wake_fd, .events = POLLIN } };
	char bytes[64];

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[0].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[0].events |= POLLOUT;
	if (poll(fds, 2, timeout_ms) <= 0)
		return 0;
	if (fds[1].revents && read(wake_fd, bytes, sizeof(bytes)) < 0)
		return 0;
	if (!fds[0].revents)
		return 0;
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && fds[0].revents != POLLOUT)
		library.nbd_aio_notify_read(nbd->handle);
	else if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		library.nbd_aio_notify_write(nbd->handle);
	return 1;
}

static bool is_over(const struct nbd *nbd)
{
	return library.nbd_aio_is_dead(nbd->handle) > 0 ||
	       library.nbd_aio_is_closed(nbd->handle) > 0;
}

static bool is_ending(const struct nbd *nbd)
{
	return nbd->patience.ending && nbd->patience.ending(nbd->patience.context);
}

/* No more of this: reading meets the end of the connection, and all that is under way fails. */
static void give_up(struct nbd *nbd)
{
	atomic_store(&nbd->dead, true);
	shutdown(nbd->socket, SHUT_RDWR);
}

/* Say why there are no more answers. A start that fails of it tells that itself, and closes us. */
static void say_why(struct nbd *nbd)
{
	bool was_dead = atomic_exchange(&nbd->dead, true);
	int64_t end = now_ms() + SAY_MS;
	char shown[512];

	while (!atomic_load(&nbd->stopping) && now_ms() < end)
		poll(NULL, 0, 10);
	if (atomic_load(&nbd->stopping))
		return;
	if (atomic_load(&nbd->silent))
		vd_log(LOG_ERR,
		       "%s: the server has said nothing for %u seconds; from now on reading it is "
		       "an error",
		       nbd->source.name, nbd->patience.seconds);
	else if (!was_dead)
		vd_log(LOG_ERR,
		       "%s: the connection to the server is lost (%s); from now on reading it is "
		       "an error",
		       nbd->source.name, reason(shown));
}

static void *hear(void *context)
{
	struct nbd *nbd = context;
	int64_t heard = now_ms(); /* when it last said something, or had nothing to do */
	bool was_idle = false;

	while (!atomic_load(&nbd->stopping) && !is_over(nbd)) {
		bool idle;

		/* Each time: a server that says a word now and then must not keep us. */
		if (!atomic_load(&nbd->dead) && is_ending(nbd))
			give_up(nbd);
		/* Asleep only after some time without work, so that few requests must wake us. It
		 * is said before looking: a request that is not seen here will see it. */
		atomic_store(&nbd->asleep, was_idle);
		idle = library.nbd_aio_in_flight(nbd->handle) == 0;
		atomic_store(&nbd->asleep, idle && was_idle);
		if (turn(nbd, nbd->wake[0], idle && was_idle ? -1 : TICK_MS) || idle)
			heard = now_ms();
		else if (!atomic_load(&nbd->dead) &&
			 now_ms() - heard >= nbd->patience.seconds * INT64_C(1000)) {
			atomic_store(&nbd->silent, true);
			give_up(nbd);
		}
		was_idle = idle;
	}
	say_why(nbd);
	return NULL;
}

/* --- reading --------------------------------------------------------------------------------- */

/* A piece of an answer. libnbd takes an answer for good that leaves bytes out. */
static int transfer_piece(void *user_data, const void *piece, size_t bytes, uint64_t host,
			  unsigned kind, int *error)
{
	struct vd_transfer *transfer = user_data;

	(void)piece;
	(void)host;
	(void)error;
	if (kind != LIBNBD_READ_ERROR)
		transfer->arrived += bytes;
	return 0;
}

static int transfer_done(void *user_data, int *error)
{
	struct vd_transfer *transfer = user_data;
	int r = *error || transfer->arrived != transfer->bytes ? -EIO : 0;

	/* libnbd says ENOTCONN of requests that die with the connection. */
	transfer->done(transfer, *error == ENOTCONN ? -ENOTCONN : r);
	return 1; /* libnbd may forget the request */
}

static void begin_transfer(void *context, struct vd_transfer *transfer)
{
	struct nbd *nbd = context;
	nbd_chunk_callback piece = { .callback = transfer_piece, .user_data = transfer };
	nbd_completion_callback done = { .callback = transfer_done, .user_data = transfer };

	/* If this fails the callbacks are not called. */
	if (library.nbd_aio_pread_structured(nbd->handle, transfer->buffer, transfer->bytes,
					     transfer->host, piece, done, 0) < 0)
		transfer->done(transfer, is_over(nbd) ? -ENOTCONN : -EIO);
	wake_if_needed(nbd);
}

static void read_done(struct vd_transfer *transfer, int r)
{
	vd_waiter_done(transfer->owner, r);
}

/* Read what may be asked for as it is. */
static int read_aligned(struct nbd *nbd, void *buffer, size_t bytes, uint64_t host)
{
	struct vd_waiter waiter;
	struct vd_transfer transfer = {
		.buffer = buffer,
		.bytes = bytes,
		.host = host,
		.done = read_done,
		.owner = &waiter,
	};
	int r;

	vd_waiter_init(&waiter);
	begin_transfer(nbd, &transfer);
	r = vd_waiter_wait(&waiter);
	if (r != -ENOTCONN)
		return r;
	atomic_store(&nbd->failed, true);
	return atomic_load(&nbd->silent) ? -ETIMEDOUT : -EIO;
}

static ssize_t nbd_source_pread(const struct vd_source *source, void *buffer, size_t bytes,
				uint64_t host)
{
	struct nbd *nbd = nbd_of(source);
	uint64_t start = host - host % nbd->align, end;
	size_t skip = (size_t)(host - start), copied;
	char *bounce;
	int r;

	if (host >= source->size)
		return 0;
	bytes = (size_t)vd_min(bytes, source->size - host);
	copied = vd_ahead_read(nbd->ahead, buffer, &bytes, host);
	if (copied > 0)
		return (ssize_t)copied;
	/* The size is a multiple of align, too. */
	end = vd_min(vd_div_up(host + bytes, nbd->align) * nbd->align, start + nbd->most);
	bytes = (size_t)vd_min(bytes, end - host);
	if (end - start == bytes) {
		r = read_aligned(nbd, buffer, bytes, host);
		return r < 0 ? r : (ssize_t)bytes;
	}
	bounce = malloc((size_t)(end - start));
	if (!bounce)
		return -ENOMEM;
	r = read_aligned(nbd, bounce, (size_t)(end - start), start);
	if (r == 0)
		memcpy(buffer, bounce + skip, bytes);
	free(bounce);
	return r < 0 ? r : (ssize_t)bytes;
}

/* --- holes ----------------------------------------------------------------------------------- */

struct status {
	struct vd_waiter waiter;
	struct vd_answer *answer;
	uint64_t start, size;
	bool full; /* there was more than fits */
};

/* What the server says of [offset, ...). It may say too little, too much, and nonsense. */
static int status_take(void *user_data, const char *context, uint64_t offset, uint32_t *entries,
		       size_t count, int *error)
{
	struct status *status = user_data;
	uint64_t at = offset;

	if (*error || offset != status->start || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    vd_answer_end(status->answer) != status->start)
		return 0;
	for (size_t i = 0; i + 1 < count && at < status->size && !status->full; i += 2) {
		uint64_t bytes = vd_min(entries[i], status->size - at);

		if (bytes == 0)
			break;
		status->full = !vd_answer_add(status->answer, bytes,
					      (entries[i + 1] & LIBNBD_STATE_ZERO) != 0);
		at += bytes;
	}
	return 0;
}

static int status_done(void *user_data, int *error)
{
	struct status *status = user_data;

	vd_waiter_done(&status->waiter, *error ? -EIO : 0);
	return 1;
}

/* Ask about `bytes` at `start`. */
static int status_ask(struct nbd *nbd, struct status *status, uint64_t bytes)
{
	nbd_extent_callback take = { .callback = status_take, .user_data = status };
	nbd_completion_callback done = { .callback = status_done, .user_data = status };

	vd_waiter_init(&status->waiter);
	if (library.nbd_aio_block_status(nbd->handle, bytes, status->start, take, done, 0) < 0)
		vd_waiter_done(&status->waiter, -EIO);
	wake_if_needed(nbd);
	return vd_waiter_wait(&status->waiter);
}

/* Ask as much next time as an answer can tell, and more while it has room. */
static void status_adapt(struct nbd *nbd, const struct status *status, uint64_t asked)
{
	uint64_t told = vd_answer_end(status->answer) - status->start;
	uint64_t next = asked;

	if (status->full)
		next = vd_max(told - told % nbd->align, nbd->align);
	else if (told >= asked)
		next = vd_min(asked * 2, STATUS_MAX);
	atomic_store(&nbd->status_bytes, next);
}

/* Not to be told: everything is data, but only up to where the next question would begin. */
static void status_failed(struct nbd *nbd, uint64_t start, uint64_t *end)
{
	*end = vd_min(start + STATUS_FIRST, nbd->source.size);
	if (atomic_load(&nbd->dead))
		*end = nbd->source.size;
	else if (!atomic_exchange(&nbd->status_failed, true))
		vd_log(LOG_WARNING,
		       "%s: the server does not say where holes are, at byte %" PRIu64
		       "; what it does not say is taken for data",
		       nbd->source.name, start);
}

static int nbd_source_extent(const struct vd_source *source, uint64_t host, bool *is_hole,
			     uint64_t *end)
{
	struct nbd *nbd = nbd_of(source);
	uint64_t asked = atomic_load(&nbd->status_bytes);
	struct status status = { .start = host - host % nbd->align, .size = source->size };
	int r = -EIO;

	if (vd_holes_find(nbd->holes, host, is_hole, end))
		return 0;
	status.answer = vd_answer_new(status.start, VD_HOLES_MAX);
	asked = vd_min(asked, source->size - status.start);
	if (status.answer && !atomic_load(&nbd->dead))
		r = status_ask(nbd, &status, asked);
	if (r == 0 && vd_answer_end(status.answer) > host) {
		status_adapt(nbd, &status, asked);
		vd_answer_find(status.answer, host, is_hole, end);
		vd_holes_keep(nbd->holes, status.answer);
		return 0;
	}
	vd_answer_free(status.answer);
	*is_hole = false;
	status_failed(nbd, status.start, end);
	return 0;
}

/* --- beginning and end ----------------------------------------------------------------------- */

static bool nbd_source_same(const struct vd_source *source, const struct vd_source *other)
{
	return vd_address_same(&nbd_of(source)->address, &nbd_of(other)->address);
}

/* Say goodbye, unless the server does not listen. What is being read ahead comes first, if soon. */
static void part(struct nbd *nbd)
{
	int64_t end = now_ms() + PARTING_MS;

	while (library.nbd_aio_in_flight(nbd->handle) > 0 && !is_over(nbd) && now_ms() < end)
		turn(nbd, -1, PARTING_MS);
	if (library.nbd_aio_is_ready(nbd->handle) > 0)
		library.nbd_aio_disconnect(nbd->handle, 0);
}

static bool nbd_source_is_lost(const struct vd_source *source)
{
	return atomic_load(&nbd_of(source)->dead) || atomic_load(&nbd_of(source)->failed);
}

static void nbd_source_close(struct vd_source *source)
{
	struct nbd *nbd = nbd_of(source);

	if (nbd->has_thread) {
		atomic_store(&nbd->stopping, true);
		wake(nbd);
		pthread_join(nbd->thread, NULL);
	}
	if (nbd->has_thread)
		part(nbd);
	if (nbd->handle)
		library.nbd_close(nbd->handle);
	vd_ahead_free(nbd->ahead);
	vd_holes_free(nbd->holes);
	for (unsigned i = 0; i < 2; i++) {
		if (nbd->wake[i] >= 0)
			close(nbd->wake[i]);
	}
	if (nbd->socket >= 0)
		close(nbd->socket);
	if (source->fd >= 0)
		close(source->fd);
}

/* Make the handle, and have it take the socket over. */
static int handle_make(struct nbd *nbd, struct vd_error *err)
{
	char shown[512];
	int r = vd_source_load(err);

	if (r < 0)
		return r;
	nbd->handle = library.nbd_create();
	nbd->socket = fcntl(nbd->source.fd, F_DUPFD_CLOEXEC, 0);
	if (!nbd->handle || nbd->socket < 0 || pipe2(nbd->wake, O_CLOEXEC | O_NONBLOCK) < 0)
		return vd_fail(err, ENOMEM, "%s: cannot prepare the connection: %s",
			       nbd->source.name, strerror(errno));
	if (library.nbd_set_export_name(nbd->handle, nbd->address.export) < 0 ||
	    library.nbd_add_meta_context(nbd->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	    library.nbd_set_tls(nbd->handle, LIBNBD_TLS_DISABLE) < 0)
		r = -EINVAL;
	if (r == 0) {
		if (library.nbd_aio_connect_socket(nbd->handle, nbd->source.fd) < 0)
			r = -EIO;
		nbd->source.fd = -1; /* libnbd's, also if the first words on it were an error */
	}
	if (r < 0)
		return vd_fail(err, -r, REFUSED, nbd->source.name, reason(shown));
	return 0;
}

/* Agree with the server on how to talk. */
static int negotiate(struct nbd *nbd, struct vd_error *err)
{
	int64_t end = now_ms() + nbd->patience.seconds * INT64_C(1000);
	char shown[512];

	while (library.nbd_aio_is_ready(nbd->handle) <= 0) {
		if (is_over(nbd))
			return vd_fail(err, EIO, REFUSED, nbd->source.name, reason(shown));
		if (now_ms() >= end || is_ending(nbd))
			return vd_fail(err, ETIMEDOUT, "%s: the server does not answer",
				       nbd->source.name);
		turn(nbd, -1, TICK_MS);
	}
	return 0;
}

/* A limit that the server gives, or what to take if it gives none. */
static uint64_t block_size(const struct nbd *nbd, int which, uint64_t otherwise)
{
	int64_t bytes = library.nbd_get_block_size(nbd->handle, which);

	return bytes > 0 ? (uint64_t)bytes : otherwise;
}

static int ask_sizes(struct nbd *nbd, struct vd_error *err)
{
	int64_t size = library.nbd_get_size(nbd->handle);
	uint64_t align = block_size(nbd, LIBNBD_SIZE_MINIMUM, 1);
	uint64_t most = block_size(nbd, LIBNBD_SIZE_MAXIMUM, READ_MAX);
	char shown[512];

	if (size < 0)
		return vd_fail(err, EFBIG, "%s: the server gives no size that can be used: %s",
			       nbd->source.name, reason(shown));
	if (!vd_is_power_of_two(align) || align > ALIGN_MAX || most < align)
		return vd_fail(err, EPROTO,
			       "%s: the server wants requests of %" PRIu64 " to %" PRIu64
			       " bytes, which the protocol does not allow",
			       nbd->source.name, align, most);
	if ((uint64_t)size % align != 0)
		return vd_fail(err, EPROTO,
			       "%s: the size is %" PRIi64 ", which the server's smallest request "
			       "of %" PRIu64 " bytes does not divide",
			       nbd->source.name, size, align);
	most = vd_min(most, READ_MAX);
	nbd->align = (size_t)align;
	nbd->most = (size_t)(most - most % align);
	nbd->source.size = (uint64_t)size;
	nbd->source.st.st_size = size;
	nbd->source.st.st_blocks = (blkcnt_t)vd_div_up((uint64_t)size, VD_SECTOR);
	nbd->source.dense =
		library.nbd_can_meta_context(nbd->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) <= 0;
	return 0;
}

static int nbd_source_begin(struct vd_source *source, const struct vd_patience *patience,
			    struct vd_error *err)
{
	struct nbd *nbd = nbd_of(source);
	sigset_t all, before;
	int r;

	nbd->patience = *patience;
	if (nbd->patience.seconds == 0)
		nbd->patience.seconds = VD_PATIENCE_SECONDS;
	r = handle_make(nbd, err);
	if (r == 0)
		r = negotiate(nbd, err);
	if (r == 0)
		r = ask_sizes(nbd, err);
	if (r < 0)
		return r;
	if (vd_holes_new(&nbd->holes) < 0 ||
	    vd_ahead_new((size_t)vd_min(AHEAD_BYTES, nbd->most), source->size, begin_transfer, nbd,
			 &nbd->ahead) < 0)
		return vd_fail(err, ENOMEM, "out of memory");
	sigfillset(&all); /* signals are for the thread that waits for them */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&nbd->thread, NULL, hear, nbd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	nbd->has_thread = r == 0;
	return r < 0 ? vd_fail(err, -r, "cannot start a thread: %s", strerror(-r)) : 0;
}

static const struct vd_source_ops nbd_source_ops = {
	.begin = nbd_source_begin,
	.pread = nbd_source_pread,
	.extent = nbd_source_extent,
	.same = nbd_source_same,
	.is_lost = nbd_source_is_lost,
	.close = nbd_source_close,
};

/* To the kernel and to the policy: a file of the user's, which nobody else may read. */
static void status_invent(struct stat *st)
{
	st->st_mode = S_IFREG | S_IRUSR | S_IWUSR;
	st->st_uid = getuid();
	st->st_gid = getgid();
	clock_gettime(CLOCK_REALTIME, &st->st_mtim);
}

int vd_source_from_socket(int socket, const char *name, struct vd_source **out,
			  struct vd_error *err)
{
	struct nbd *nbd = calloc(1, sizeof(*nbd));
	size_t room = 4 * strlen(name) + 8;
	int r = -ENOMEM;

	if (nbd)
		nbd->source.name = malloc(room);
	if (nbd && nbd->source.name)
		r = vd_address_parse(name, &nbd->address, err);
	else
		vd_fail(err, ENOMEM, "out of memory");
	if (r < 0) {
		free(nbd ? nbd->source.name : NULL);
		free(nbd);
		close(socket);
		return r;
	}
	vd_escape(nbd->source.name, room, name, strlen(name));
	nbd->source.ops = &nbd_source_ops;
	nbd->source.serial = vd_serial();
	nbd->source.fd = socket;
	nbd->source.dir_fd = nbd->source.real_fd = nbd->socket = nbd->wake[0] = nbd->wake[1] = -1;
	nbd->source.is_server = true;
	nbd->status_bytes = STATUS_FIRST;
	status_invent(&nbd->source.st);
	*out = &nbd->source;
	return 0;
}

#else

int vd_source_load(struct vd_error *err)
{
	return vd_fail(err, ENOTSUP, "this vdifs was built without libnbd and knows no servers");
}

int vd_source_from_socket(int socket, const char *name, struct vd_source **out,
			  struct vd_error *err)
{
	(void)name;
	(void)out;
	close(socket);
	return vd_fail(err, ENOTSUP, "this vdifs was built without libnbd and knows no servers");
}

#endif
