/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where messages go that no caller waits for: stderr, or syslog once the mount is in the
 * background. Any thread may log. A message is one line without a newline.
 */
#ifndef VD_BASE_LOG_H
#define VD_BASE_LOG_H

#include <pthread.h>
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

/*
 * From now on log to syslog instead of stderr. Call when stderr is about to go away. null: a
 * descriptor of /dev/null, which takes the place of the one that was kept.
 */
void vd_log_to_syslog(int null);

/* The priority is one of syslog(3): LOG_ERR, LOG_WARNING, LOG_INFO. */
void vd_log(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define VD_LOG_ONCE_MAX 32

/*
 * Remembers which places have been complained about, so that a corrupt table that is met a
 * million times gives one line. After VD_LOG_ONCE_MAX places one last line says that the rest is
 * left out. Initialise with VD_LOG_ONCE_INIT; self-locking.
 */
struct vd_log_once {
	pthread_mutex_t lock;
	unsigned count;
	uint64_t seen[VD_LOG_ONCE_MAX];
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

#endif
