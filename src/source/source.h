/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A byte source: where the bytes of an image come from. That is a regular file or a block device
 * behind a descriptor (file.c), or an NBD server (nbd.c); another kind is another file with its own
 * ops.
 *
 * A source is made, then never changes: all functions that take a const source may be called by
 * any number of threads at once. All offsets and lengths are bytes in the file ("host" space).
 */
#ifndef VD_SOURCE_SOURCE_H
#define VD_SOURCE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/serial.h"
#include "source/identity.h"

struct vd_source;

/* How long to wait for a server. */
struct vd_patience {
	unsigned seconds; /* without a sign of life from it; 0: the default */
	bool (*ending)(void *context); /* nobody wants the answers any more. Any thread; or NULL */
	void *context;
};

#define VD_PATIENCE_SECONDS 60 /* the default */

struct vd_source_ops {
	/* Say what had to wait until a process without rights does it. NULL: nothing had to. */
	int (*begin)(struct vd_source *source, const struct vd_patience *patience,
		     struct vd_error *err);
	/* Read up to `bytes` at `host`; like pread(2) but -errno, and restarted after EINTR. */
	ssize_t (*pread)(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host);
	/*
	 * Say whether the byte at `host` (< size) lies in a hole of the file and how far that
	 * holds: *end > host. NULL, or an error: everything is data.
	 */
	int (*extent)(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end);
	/*
	 * Is all of this, at this moment, surely a hole? Asked before each read of some size, so it
	 * must be cheap; a "no" may be wrong. NULL: no.
	 */
	bool (*is_hole)(const struct vd_source *source, uint64_t host, uint64_t bytes);
	/*
	 * Move up to `bytes` at `host` into a pipe without blocking and without copying: like
	 * splice(2) but -errno. NULL: this source cannot.
	 */
	ssize_t (*splice)(const struct vd_source *source, int pipe, size_t bytes, uint64_t host);
	/*
	 * What the file is now: its st_size (of a block device, too) and st_mtim. NULL: it cannot
	 * change.
	 */
	int (*stat)(const struct vd_source *source, struct stat *now);
	/* Does the other one, which has the same ops, lead to the same bytes? NULL: st says it. */
	bool (*same)(const struct vd_source *source, const struct vd_source *other);
	/* Is it gone for good? Then that has been logged, or will be. NULL: never. */
	bool (*is_lost)(const struct vd_source *source);
	void (*close)(struct vd_source *source);
};

struct vd_source {
	const struct vd_source_ops *ops;
	uint64_t serial; /* vd_serial(): what caches know it by */
	char *name; /* escaped, for messages; owned */
	uint64_t size; /* bytes when it was opened; later growth is not seen */
	struct stat st; /* when it was opened: owner, mode, times, numbers */
	struct vd_identity identity; /* what else tells files apart; of a file only */
	int fd; /* or -1. Of a server: its socket, until vd_source_begin() */
	bool is_server; /* st says who runs this process, and when it was opened */
	/*
	 * Where the file was found, which disk/find.c fills in: names in it are looked up there.
	 * dir_fd: O_PATH of the directory of the path that led to the file. real_fd: if that path
	 * is a symbolic link, O_PATH of the directory that holds the file itself. -1: unknown, or
	 * no link. dir_text: that path's directory as it was given, absolute; owned; or NULL.
	 */
	int dir_fd, real_fd;
	char *dir_text;
	bool dense; /* known to have no holes: extent() need not be asked */
	unsigned number; /* whoever opened it in another process knows it by this (disk/broker.h) */
};

/*
 * Take over fd (and dir_fd, which may be -1), check that it is a regular file or a block device
 * and find its size. `name` is copied and escaped. On failure both descriptors are closed.
 */
int vd_source_from_fd(int fd, int dir_fd, const char *name, struct vd_source **out,
		      struct vd_error *err);

/*
 * Read size, times and owner of a file anew, and whether it has holes. For vd_source_lock() alone:
 * later a source does not change. 0 or -errno with a message.
 */
int vd_source_examine(struct vd_source *source, struct vd_error *err);

/*
 * Load what a server takes (libnbd), now and not when it is first needed: later no file may be
 * opened. Start-up, one thread. 0 or -ENOTSUP with a message.
 */
int vd_source_load(struct vd_error *err);

/*
 * Take over a socket that is connected to the NBD server of this address (source/address.h). It has
 * not been spoken to: the process that may connect is not the one that may listen to what a stranger
 * says. Before anything else vd_source_begin() must be called. `name` is copied and escaped. On
 * failure the socket is closed. -ENOTSUP: built without libnbd.
 */
int vd_source_from_socket(int socket, const char *name, struct vd_source **out,
			  struct vd_error *err);

/*
 * Get a source that was just made ready for reading; of a server, agree on how to talk and ask for
 * the size. Starts a thread then. `patience` is copied. 0 or -errno with a message; the source is
 * good for vd_source_close() only after that.
 */
int vd_source_begin(struct vd_source *source, const struct vd_patience *patience,
		    struct vd_error *err);

/* Replace the name by a copy of this one, which is escaped already. 0 or -ENOMEM. */
int vd_source_set_name(struct vd_source *source, const char *escaped);

/* Read exactly `bytes` at `host`. A place at or past the end of the source is -EIO: the caller checks
 * against source->size first, so this means that the file shrank. 0 or -errno. */
int vd_source_read(const struct vd_source *source, void *buffer, size_t bytes, uint64_t host);

/*
 * Move exactly `bytes` at `host` into the empty pipe, whose write end does not block. -EOPNOTSUPP
 * from a source that cannot, -EAGAIN when the pipe is too small, -EIO as vd_source_read(). After an
 * error the pipe holds what nobody wants: close it.
 */
bool vd_source_can_splice(const struct vd_source *source);
int vd_source_splice(const struct vd_source *source, int pipe, size_t bytes, uint64_t host);

/*
 * Are these bytes zeros that need not be read? A hole is asked for only where that costs less than to
 * read it, and not if the source is dense. As of now: nothing that was kept is used.
 */
bool vd_source_is_hole(const struct vd_source *source, uint64_t host, uint64_t bytes);

/* Like the op: never fails, what cannot be told is data to the end of the source. host < size. */
void vd_source_extent(const struct vd_source *source, uint64_t host, bool *is_hole, uint64_t *end);

/*
 * Is the file another one than when it was opened, by its size or its time of modification? True:
 * `now` has both of today. Not by st_ctim, which new owners, modes and hard links change, too. The
 * question goes to the descriptor, since a path may lead into our own mount; it may wait as long as
 * a read. What cannot be told is unchanged: reads will fail.
 */
bool vd_source_changed(const struct vd_source *source, struct stat *now);

/*
 * Are both the same file, block device or export? For files that must not be opened twice: a chain
 * that comes back to a file has no end. A sound chain must not be refused, so that "yes" must be
 * certain. A wrong "no" is possible: who relies on it for an end needs another bound as well.
 */
bool vd_source_is_same_file(const struct vd_source *a, const struct vd_source *b);

/*
 * Is it proved, without reading, that all bytes of both are equal? Then nothing is read or copied.
 * A wrong "yes" loses data, a wrong "no" costs time. Size, times, mount and handle must be equal,
 * too. Of exports the address decides, of block devices the number.
 */
bool vd_source_has_same_bytes(const struct vd_source *a, const struct vd_source *b);

/* Is every read of it an error from now on, of which the log has a line? No other is needed then. */
bool vd_source_is_lost(const struct vd_source *source);

/* NULL is fine. */
void vd_source_close(struct vd_source *source);

/*
 * Take QEMU's image locks on the source as a reader does, and look whether a writer holds it.
 * The locks live as long as the descriptor. `force` (-U): take less and look for less, as QEMU's
 * force-share does. A file system without such locks is fine.
 * Size and times are read anew once the locks are held: a writer may have ended since the file was
 * opened, and what it wrote belongs to the disk. So lock a source before anything of it is read.
 */
int vd_source_lock(struct vd_source *source, bool force, struct vd_error *err);

#endif
