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
#include <linux/fuse.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Calls that are harmless whatever their arguments, given what the process holds. */
/* clang-format off: one line a purpose */
static const char *const allowed[] = {
	/* what it is there for */
	"read", "readv", "pread64", "preadv", "write", "writev", "lseek", "_llseek", "splice",
	"vmsplice", "pipe2", "poll", "ppoll", "recvmsg", "recvfrom", "shutdown",
	/* descriptors, and what they are */
	"close", "dup", "dup2", "dup3", "fstat", "fstat64", "newfstatat", "fstatat64", "statx",
	/* memory */
	"brk", "munmap", "mremap", "madvise",
	/* threads and signals */
	"futex", "futex_time64", "set_robust_list", "rseq", "set_tid_address", "sched_yield",
	"sched_getaffinity", "membarrier", "exit", "exit_group", "rt_sigaction", "rt_sigprocmask",
	"rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall",
	/* who it is: allow_root depends on it, and whose a server's files are */
	"getpid", "gettid", "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32",
	"getegid", "getegid32",
	/* time and chance */
	"clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
	"nanosleep", "gettimeofday", "time", "getrandom",
	NULL,
};
/* clang-format on */

/* ioctl(2) requests: /dev/fuse for one more thread, what is in a pipe, what a terminal is. */
static const unsigned long requests[] = {
	FUSE_DEV_IOC_CLONE, FIONREAD, TCGETS, TIOCGWINSZ, 0,
};

/*
 * fcntl(2) commands: copies, flags, the room of a pipe, image locks. Not F_SETOWN, which has signals
 * sent to others.
 */
static const unsigned long commands[] = {
	F_DUPFD_CLOEXEC, F_GETFD,      F_SETFD,     F_GETFL,     F_SETFL,
	F_GETPIPE_SZ,    F_SETPIPE_SZ, F_OFD_GETLK, F_OFD_SETLK, 0,
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

/* To outlive its parent, as the server of a mount does, but not to be sent signals by its end. */
static int allow_outliving(scmp_filter_ctx filter)
{
	const struct scmp_arg_cmp compare[] = {
		{ .arg = 0, .op = SCMP_CMP_EQ, .datum_a = PR_SET_PDEATHSIG },
		{ .arg = 1, .op = SCMP_CMP_EQ, .datum_a = 0 },
	};

	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 2, compare);
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
	/*
	 * On a socket that is connected: syslog's, the supervisor's. No sendmsg(2), whose address lies
	 * in memory: through syslog's socket it would reach every other one that has a name.
	 */
	if (r == 0)
		r = allow_equal(filter, "sendto", 4, 0);
	if (r == 0)
		r = allow(filter, "send");
	if (r == 0)
		r = allow_equal(filter, "prctl", 0, PR_SET_NAME);
	for (unsigned i = 0; requests[i] && r == 0; i++)
		r = allow_equal(filter, "ioctl", 1, requests[i]);
	for (unsigned i = 0; commands[i] && r == 0; i++) {
		r = allow_equal(filter, "fcntl", 1, commands[i]);
		if (r == 0)
			r = allow_equal(filter, "fcntl64", 1, commands[i]);
	}
	return r;
}

int vd_filter_install(bool may_open, bool fuse)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return -ENOMEM;
	/* Layers are counted one by one: whether no_new_privs holds is not this one's business. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	for (unsigned i = 0; allowed[i] && r == 0; i++)
		r = allow(filter, allowed[i]);
	if (r == 0)
		r = allow_partly(filter);
	if (r == 0 && fuse)
		r = allow_outliving(filter);
	if (r == 0 && may_open)
		r = allow(filter, "openat");
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r == -EINVAL || r == -EOPNOTSUPP || r == -ECANCELED ? -ENOSYS : r;
}

#else

int vd_filter_install(bool may_open, bool fuse)
{
	(void)may_open;
	(void)fuse;
	return -ENOSYS;
}

#endif
