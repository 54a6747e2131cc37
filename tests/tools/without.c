/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * without [--denied] CALL... -- COMMAND [ARGUMENT...]: run a command on a kernel that lacks these
 * system calls. A seccomp filter answers ENOSYS to them, as an older kernel would; with --denied
 * EPERM, as the profiles of some containers do.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_SECCOMP
#include <seccomp.h>

static int take_away(unsigned answer, int count, char **names)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter ? 0 : -ENOMEM;

	for (int i = 0; i < count && r == 0; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);

		r = number < 0 ? -EINVAL
			       : seccomp_rule_add(filter, SCMP_ACT_ERRNO(answer), number, 0);
	}
	/* As root no_new_privs is not needed, and what is tested may depend on it. */
	if (r == 0 && geteuid() == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	return r < 0 ? r : seccomp_load(filter);
}
#else
static int take_away(unsigned answer, int count, char **names)
{
	(void)answer;
	(void)count;
	(void)names;
	return -ENOSYS;
}
#endif

int main(int argc, char **argv)
{
	bool denied = argc > 1 && strcmp(argv[1], "--denied") == 0;
	int first = denied ? 2 : 1, split = first, r;

	while (split < argc && strcmp(argv[split], "--") != 0)
		split++;
	if (split + 1 >= argc) {
		fprintf(stderr, "usage: without [--denied] CALL... -- COMMAND [ARGUMENT...]\n");
		return 125;
	}
	r = take_away(denied ? EPERM : ENOSYS, split - first, argv + first);
	if (r < 0) {
		fprintf(stderr, "without: %s\n", strerror(-r));
		return 125;
	}
	execvp(argv[split + 1], argv + split + 1);
	fprintf(stderr, "without: %s: %s\n", argv[split + 1], strerror(errno));
	return 126;
}
