/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The seccomp filter, built with libseccomp. Without that library it is a missing layer.
 *
 * What is not on the list fails with EPERM and does not kill: a C library that tries something
 * newer first must be able to fall back, and a mount must not die of an update. clone3(2) fails
 * with ENOSYS, since its flags lie in memory where no filter can see them; glibc then uses
 * clone(2), whose flags say whether it makes a thread or a process.
 */
#include "config.h"

#include <errno.h>

#include "sandbox/filter.h"

#ifdef HAVE_SECCOMP

#include <fcntl.h>
#include <linux/fiemap.h> /* for FS_IOC_FIEMAP */
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

/*
 * Calls that are harmless whatever their arguments, given what the process holds. Each is here for
 * what stands beside it; what has no reason has no place. Different machines and C libraries have
 * different calls for one function, and a name that a machine does not have is skipped.
 */
/* clang-format off: a line each */
static const struct {
	const char *name, *reason;
} allowed[] = {
	{ "read", "requests from /dev/fuse, replies of servers, bytes of the supervisor" },
	{ "pread64", "bytes of images" },
	{ "write", "the log, what vdimap prints, libfuse's short replies" },
	{ "writev", "replies to the kernel" },
	{ "lseek", "holes of images" },
	{ "_llseek", "the same on 32 bits" },
	{ "splice", "replies without a copy" },
	{ "vmsplice", "the header of such a reply" },
	{ "pipe2", "through which they go, one for each thread" },
	{ "poll", "waiting for servers" },
#ifndef __NR_poll
	{ "ppoll", "poll() where the kernel has no poll(2), as on arm64" },
	{ "ppoll_time64", "the same on 32 bits" },
#endif
	{ "recvmsg", "descriptors from the supervisor" },
	{ "recvfrom", "replies of servers" },
	{ "shutdown", "the end of a connection to a server" },

	{ "close", "images and pipes" },
	{ "dup2", "stderr becomes /dev/null when the mount is ready" },
	{ "dup3", "the same for the log, and dup2() on arm64" },
	{ "fstat", "an image that changes, stdout of the C library" },
	{ "fstat64", "the same on 32 bits" },
	{ "newfstatat", "fstat() of glibc" },
	{ "fstatat64", "the same on 32 bits" },
	{ "fstatfs", "whether a file system's SEEK_HOLE is to be mistrusted" },
	{ "fstatfs64", "the same on 32 bits" },
#ifndef __NR_newfstatat
	{ "statx", "fstat() where the kernel has no other, as on 32 bits" },
#endif

	{ "brk", "malloc()" },
	{ "munmap", "malloc() and the stacks of threads" },
	{ "mremap", "a large array grows without a second one beside it" },
	{ "madvise", "the stack of a thread that has ended, huge pages" },

	{ "futex", "locks" },
	{ "futex_time64", "the same on 32 bits" },
	{ "set_robust_list", "the start of a thread" },
	{ "rseq", "the same" },
	{ "set_tid_address", "the same" },
	{ "sched_getaffinity", "how many processors there are" },
	{ "exit", "the end of a thread" },
	{ "exit_group", "the end of the process" },
	{ "rt_sigaction", "SIGTERM for libfuse, abort()" },
	{ "rt_sigprocmask", "threads that leave signals to others" },
	{ "rt_sigreturn", "the end of a signal handler" },
	{ "sigreturn", "the same on 32 bits" },
	{ "restart_syscall", "a wait that SIGSTOP and SIGCONT interrupt" },

	{ "getpid", "lines for syslog, tgkill()" },
	{ "gettid", "pthread_cancel()" },
	{ "getuid", "allow_root, and whose the files of a server are" },
	{ "getuid32", "the same on 32 bits" },
	{ "geteuid", "the same" },
	{ "geteuid32", "the same" },
	{ "getgid", "the same" },
	{ "getgid32", "the same" },
	{ "getegid", "the same" },
	{ "getegid32", "the same" },

	{ "clock_gettime", "time limits, where the vDSO has no clock (virtual machines)" },
	{ "clock_gettime64", "the same on 32 bits" },
	{ "getrandom", "malloc() of glibc" },
	{ NULL, NULL },
};
/* clang-format on */

/* ioctl(2) requests: what is in a pipe, unwritten parts of an image, what a terminal is. */
static const unsigned long requests[] = {
	FIONREAD, FS_IOC_FIEMAP, TCGETS, TIOCGWINSZ, 0,
};

/*
 * fcntl(2) commands: copies, flags, the room of a pipe, image locks. Not F_SETOWN, which has signals
 * sent to others; F_SETFL with a filter of its own.
 */
static const unsigned long commands[] = {
	F_DUPFD_CLOEXEC, F_GETFD,      F_SETFD,     F_GETFL,     F_GETPIPE_SZ,
	F_SETPIPE_SZ,    F_OFD_GETLK, F_OFD_SETLK, 0,
};

/* Allow the call if it exists on this machine's architecture. */
static int allow(scmp_filter_ctx filter, const char *name)
{
	int number = seccomp_syscall_resolve_name(name);

	return number < 0 ? 0 : seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
}

/* Allow the call if argument `arg` has none of (want = 0) or all of (want = mask) these bits. */
static int allow_masked(scmp_filter_ctx filter, const char *name, unsigned arg, unsigned long mask,
			unsigned long want)
{
	const struct scmp_arg_cmp compare = {
		.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = want,
	};
	int number = seccomp_syscall_resolve_name(name);

	return number < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &compare);
}

/* Allow the call if argument `arg` is this. */
static int allow_equal(scmp_filter_ctx filter, const char *name, unsigned arg, unsigned long want)
{
	const struct scmp_arg_cmp compare = { .arg = arg, .op = SCMP_CMP_EQ, .datum_a = want };
	int number = seccomp_syscall_resolve_name(name);

	return number < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &compare);
}

/*
 * Flags of descriptors that came later than the terminal: libnbd has its sockets not block. O_ASYNC would
 * have signals sent, O_NONBLOCK would stay on the terminal of the user. The log may have a copy of that.
 */
static int allow_flags(scmp_filter_ctx filter, const char *name)
{
	const uint64_t harmless = O_ACCMODE | O_NONBLOCK;
	struct scmp_arg_cmp compare[] = {
		{ .arg = 0, .op = SCMP_CMP_EQ },
		{ .arg = 1, .op = SCMP_CMP_EQ, .datum_a = F_SETFL },
		{ .arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = UINT32_MAX & ~harmless },
	};
	int number = seccomp_syscall_resolve_name(name), last = vd_log_descriptor(), r = 0;

	if (number < 0)
		return 0;
	for (int fd = STDERR_FILENO + 1; fd < last && r == 0; fd++) {
		compare[0].datum_a = (uint64_t)fd;
		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 3, compare);
	}
	compare[0] = (struct scmp_arg_cmp){ .arg = 0, .op = SCMP_CMP_GT, .datum_a = (uint64_t)last };
	if (r == 0)
		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 3, compare);
	return r;
}

/*
 * On a socket that is connected: syslog's, the supervisor's, a server's. No sendmsg(2), whose address
 * lies in memory: through syslog's socket it would reach every other one that has a name. And nothing
 * urgent, which wakes a reader that cannot read it.
 */
static int allow_send(scmp_filter_ctx filter)
{
	const uint64_t harmless = MSG_NOSIGNAL | MSG_MORE | MSG_DONTWAIT;
	const struct scmp_arg_cmp compare[] = {
		{ .arg = 3, .op = SCMP_CMP_MASKED_EQ, .datum_a = UINT32_MAX & ~harmless },
		{ .arg = 4, .op = SCMP_CMP_EQ, .datum_a = 0 },
	};
	int number = seccomp_syscall_resolve_name("send"), r;

	r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 2, compare);
	if (r == 0 && number >= 0)
		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, compare);
	return r;
}

static int allow_partly(scmp_filter_ctx filter)
{
	/* No memory that is executable. */
	int r = allow_masked(filter, "mmap", 2, PROT_EXEC, 0);

	if (r == 0)
		r = allow_masked(filter, "mmap2", 2, PROT_EXEC, 0);
	if (r == 0)
		r = allow_masked(filter, "mprotect", 2, PROT_EXEC, 0);
		/* Threads, but no processes. On s390 the flags are the second argument. */
#ifdef __s390__
	if (r == 0)
		r = allow_masked(filter, "clone", 1, CLONE_THREAD, CLONE_THREAD);
#else
	if (r == 0)
		r = allow_masked(filter, "clone", 0, CLONE_THREAD, CLONE_THREAD);
#endif
	/* Signals to itself only: pthread_cancel(), abort(). */
	if (r == 0)
		r = allow_equal(filter, "tgkill", 0, (unsigned long)getpid());
	if (r == 0)
		r = allow_send(filter);
	if (r == 0)
		r = allow_flags(filter, "fcntl");
	if (r == 0)
		r = allow_flags(filter, "fcntl64");
	if (r == 0)
		r = allow_equal(filter, "prctl", 0, PR_SET_NAME);
	for (unsigned i = 0; requests[i] && r == 0; i++)
		r = allow_masked(filter, "ioctl", 1, UINT32_MAX, requests[i]); /* int in musl */
	for (unsigned i = 0; commands[i] && r == 0; i++) {
		r = allow_equal(filter, "fcntl", 1, commands[i]);
		if (r == 0)
			r = allow_equal(filter, "fcntl64", 1, commands[i]);
	}
	return r;
}

int vd_filter_install(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return -ENOMEM;
	/* Layers are counted one by one: whether no_new_privs holds is not this one's business. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	for (unsigned i = 0; allowed[i].name && r == 0; i++)
		r = allow(filter, allowed[i].name);
	if (r == 0)
		r = allow_partly(filter);
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r == -EINVAL || r == -EOPNOTSUPP || r == -ECANCELED ? -ENOSYS : r;
}

#else

int vd_filter_install(void)
{
	return -ENOSYS;
}

#endif
