/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where messages go that no caller waits for: stderr, or syslog once the mount is in the
 * background. Any thread may log. A message is one line without a newline.
 */
#ifndef VD_BASE_LOG_H
#define VD_BASE_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Set the program's name that lines on stderr begin with; open syslog now, so that a sandboxed
 * process can still use it later. Call once, before any thread starts.
 */
void vd_log_open(const char *program);

/*
 * Keep a descriptor of stderr for the log, so that the caller may turn stderr itself away from
 * libraries that write there in words of their own. Before threads start.
 */
void vd_log_keep_stderr(void);

/* The descriptor that the log is written to before that; 2 if none was kept. */
int vd_log_descriptor(void);

/*
 * From now on log to syslog instead of stderr. Call when stderr is about to go away. null: a
 * descriptor of /dev/null, which takes the place of the one that was kept.
 */
void vd_log_to_syslog(int null);

/* The priority is one of syslog(3): LOG_ERR, LOG_WARNING, LOG_INFO. */
void vd_log(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define VD_LOG_KEPT 8

/* A message that was logged; a long one is cut. */
struct vd_log_line {
	int64_t seconds; /* since 1970 */
	char text[400];
};

/* Copy the last warnings and errors of this process, the newest last. Returns how many. */
unsigned vd_log_last(struct vd_log_line lines[VD_LOG_KEPT]);

#define VD_LOG_ONCE_MAX 8 /* lines a file */
#define VD_LOG_ONCE_SLOTS 512 /* a power of two */

/*
 * Remembers which places of a file have been logged, so that a corrupt table that is met a million
 * times gives one line. After VD_LOG_ONCE_MAX places the others are only counted, each of them once,
 * until vd_log_once_rest() logs their number. Initialise with VD_LOG_ONCE_INIT; self-locking.
 */
struct vd_log_once {
	pthread_mutex_t lock;
	unsigned count; /* of places in `seen`, and of the key 0 */
	bool has_zero; /* the key 0 is one of them */
	bool is_full; /* there were more places than are remembered */
	bool is_told; /* the number has been logged */
	uint64_t seen[VD_LOG_ONCE_SLOTS]; /* a hash table of keys; 0: empty */
};

#define VD_LOG_ONCE_INIT                          \
	{                                         \
		.lock = PTHREAD_MUTEX_INITIALIZER \
	}

/*
 * Log an error unless `key` (a file offset, say) has been logged through `once` before. NULL: do not
 * log at all.
 */
void vd_log_once(struct vd_log_once *once, uint64_t key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * If places were left out, log how many; only the first such call logs. Call when a walk over the
 * whole disk has ended, or at the end of the file's use. name: the file's, for the message.
 */
void vd_log_once_rest(struct vd_log_once *once, const char *name);

#endif
