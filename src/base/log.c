/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stderr or syslog. The variables are written before threads start (the program's name) or
 * at one moment of start-up (the switch to syslog) and only read otherwise.
 */
#include "config.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static const char *log_program = "vdifs";
static atomic_bool log_use_syslog;
static int log_fd = STDERR_FILENO;

/* A ring: line `count` is at count % VD_LOG_KEPT. */
static struct {
	pthread_mutex_t lock;
	unsigned long count; /* so far */
	struct vd_log_line lines[VD_LOG_KEPT];
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

void vd_log_open(const char *program)
{
	log_program = program;
	openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void vd_log_keep_stderr(void)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

	if (fd >= 0)
		log_fd = fd;
}

int vd_log_descriptor(void)
{
	return log_fd;
}

void vd_log_to_syslog(int null)
{
	atomic_store(&log_use_syslog, true);
	/* Not closed: another thread may be about to write, and the number may be a file's by then. */
	if (log_fd != STDERR_FILENO)
		dup3(null, log_fd, O_CLOEXEC);
}

static void log_keep(const char *text)
{
	struct vd_log_line *line;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&kept.lock);
	line = &kept.lines[kept.count++ % VD_LOG_KEPT];
	line->seconds = now.tv_sec;
	snprintf(line->text, sizeof(line->text), "%.*s", (int)sizeof(line->text) - 1, text);
	pthread_mutex_unlock(&kept.lock);
}

unsigned vd_log_last(struct vd_log_line lines[VD_LOG_KEPT])
{
	unsigned count;

	pthread_mutex_lock(&kept.lock);
	count = kept.count < VD_LOG_KEPT ? (unsigned)kept.count : VD_LOG_KEPT;
	for (unsigned i = 0; i < count; i++)
		lines[i] = kept.lines[(kept.count - count + i) % VD_LOG_KEPT];
	pthread_mutex_unlock(&kept.lock);
	return count;
}

/*
 * Names are escaped where a message is made. What else came from a command line, a helper or a
 * library must not reach a terminal as control characters either.
 */
static void make_plain(char *line)
{
	for (; *line; line++) {
		if ((unsigned char)*line < 0x20 || (unsigned char)*line >= 0x7f)
			*line = '?';
	}
}

__attribute__((format(printf, 2, 0)))
static void log_line(int priority, const char *format, va_list args)
{
	char line[2304];

	vsnprintf(line, sizeof(line), format, args);
	make_plain(line);
	if (priority <= LOG_WARNING)
		log_keep(line);
	if (atomic_load(&log_use_syslog))
		syslog(priority, "%s", line);
	else
		dprintf(log_fd, "%s: %s\n", log_program, line);
}

void vd_log(int priority, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(priority, format, args);
	va_end(args);
}

/* Remember the place. True: it is new. The lock is held. */
static bool once_add(struct vd_log_once *once, uint64_t key)
{
	unsigned slot = (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> 40);

	if (key == 0 && once->has_zero)
		return false;
	while (key != 0 && once->seen[slot % VD_LOG_ONCE_SLOTS] != 0) {
		if (once->seen[slot % VD_LOG_ONCE_SLOTS] == key)
			return false;
		slot++;
	}
	once->is_full = once->count >= VD_LOG_ONCE_SLOTS / 2;
	if (once->is_full)
		return false;
	if (key == 0)
		once->has_zero = true;
	else
		once->seen[slot % VD_LOG_ONCE_SLOTS] = key;
	once->count++;
	return true;
}

/* True when the caller may log: the place is new and there is room for a line. */
static bool log_is_new(struct vd_log_once *once, uint64_t key)
{
	bool fresh;

	pthread_mutex_lock(&once->lock);
	fresh = once_add(once, key) && once->count <= VD_LOG_ONCE_MAX;
	pthread_mutex_unlock(&once->lock);
	return fresh;
}

void vd_log_once(struct vd_log_once *once, uint64_t key, const char *format, ...)
{
	va_list args;

	if (!once || !log_is_new(once, key))
		return;
	va_start(args, format);
	log_line(LOG_ERR, format, args);
	va_end(args);
}

void vd_log_once_rest(struct vd_log_once *once, const char *name)
{
	unsigned rest = 0;
	bool is_full;

	pthread_mutex_lock(&once->lock);
	if (once->count > VD_LOG_ONCE_MAX && !once->is_told)
		rest = once->count - VD_LOG_ONCE_MAX;
	is_full = once->is_full;
	once->is_told = once->is_told || rest > 0;
	pthread_mutex_unlock(&once->lock);
	if (rest > 0)
		vd_log(LOG_ERR,
		       "%s: %s%u more places of this file are damaged or cannot be read; vdimap "
		       "--text lists what they are on the disk",
		       name, is_full ? "more than " : "", rest);
}
