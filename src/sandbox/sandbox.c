/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entering the sandbox, layer by layer: no_new_privs first, which an ordinary user needs for the
 * others; seccomp last, because it forbids what installs the others. Start-up only, one thread.
 *
 * landlock is used by its system calls: the headers of a distribution know less of it than its
 * kernel, and unknown rights would stay granted. The numbers are the kernel's (Linux
 * Documentation/userspace-api/landlock.rst); each ABI version has those of the ones before.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/filter.h"
#include "sandbox/sandbox.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

#define LANDLOCK_VERSION (1u << 0) /* flag of create_ruleset: return the ABI version */
#define LANDLOCK_IOCTL_DEV (1u << 15)

/* The child never has more descriptors: two chains of 256 layers with data files, threads, pipes. */
#define DESCRIPTORS_MAX 2048

struct landlock_ruleset {
	uint64_t fs, net, scoped;
};

static const struct {
	int layer;
	const char *name;
} layer_names[] = {
	{ VD_LAYER_NO_NEW_PRIVS, "no_new_privs" },
	{ VD_LAYER_CAPABILITIES, "capabilities" },
	{ VD_LAYER_LANDLOCK, "landlock" },
	{ VD_LAYER_SECCOMP, "seccomp" },
	{ VD_LAYER_LIMITS, "limits" },
};

#define LAYERS (sizeof(layer_names) / sizeof(*layer_names))

int vd_sandbox_mode_parse(const char *word, enum vd_sandbox_mode *mode, struct vd_error *err)
{
	static const char *const words[] = { "auto", "strict", "off" };
	char shown[64];

	for (unsigned i = 0; i < 3; i++) {
		if (strcmp(word, words[i]) == 0) {
			*mode = (enum vd_sandbox_mode)i;
			return 0;
		}
	}
	vd_escape(shown, sizeof(shown), word, strlen(word));
	return vd_fail(err, EINVAL, "--sandbox=%s: must be auto, strict or off", shown);
}

const char *vd_sandbox_layers_text(int layers, char text[VD_LAYERS_TEXT])
{
	text[0] = '\0';
	for (unsigned i = 0; i < LAYERS; i++) {
		if (!(layers & layer_names[i].layer))
			continue;
		if (*text)
			strcat(text, ",");
		strcat(text, layer_names[i].name);
	}
	if (!*text)
		strcpy(text, "off");
	return text;
}

static void *sleep_until_cancelled(void *unused)
{
	for (;;)
		pause();
	return unused;
}

void vd_sandbox_warm_up(void)
{
	pthread_t thread;

	/* pthread_cancel() loads libgcc_s when it is first used, or ends the program. */
	if (pthread_create(&thread, NULL, sleep_until_cancelled, NULL) == 0) {
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	tzset(); /* the time in a line for syslog */
}

static int drop_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	/* The bounding set needs CAP_SETPCAP; who lacks that cannot get anything back anyway. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* The C library's type for RLIMIT_*. */
#ifdef __GLIBC__
typedef __rlimit_resource_t vd_resource;
#else
typedef int vd_resource;
#endif

static int limit(vd_resource resource, rlim_t most)
{
	struct rlimit now;

	if (getrlimit(resource, &now) < 0)
		return -errno;
	if (now.rlim_max > most || now.rlim_max == RLIM_INFINITY)
		now.rlim_max = most;
	if (now.rlim_cur > now.rlim_max || now.rlim_cur == RLIM_INFINITY)
		now.rlim_cur = now.rlim_max;
	return setrlimit(resource, &now) < 0 ? -errno : 0;
}

/*
 * What is in memory comes from somebody's disk: no core file, and none for a program that the system
 * has take them, to which a limit of 0 means nothing. Nobody but root traces it either.
 */
static int set_limits(void)
{
	int r = limit(RLIMIT_CORE, 0);

	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0)
		r = limit(RLIMIT_NOFILE, DESCRIPTORS_MAX);
	if (r == 0)
		r = limit(RLIMIT_MEMLOCK, 0);
	if (r == 0)
		r = limit(RLIMIT_MSGQUEUE, 0);
	return r;
}

/* All rights of one version of the ABI. */
static struct landlock_ruleset landlock_rights(long abi)
{
	struct landlock_ruleset rights = { .fs = (1u << 13) - 1 };

	if (abi >= 2)
		rights.fs |= 1u << 13; /* linking and renaming between directories */
	if (abi >= 3)
		rights.fs |= 1u << 14; /* truncating */
	if (abi >= 4)
		rights.net = 3; /* bind and connect of TCP */
	if (abi >= 5)
		rights.fs |= LANDLOCK_IOCTL_DEV;
	if (abi >= 6)
		rights.scoped = 3; /* abstract sockets and signals */
	return rights;
}

/* -ENOSYS: this kernel has none, or it is switched off. */
static int landlock_everything(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
	struct landlock_ruleset rights = landlock_rights(abi);
	int ruleset, r = 0;

	if (abi < 1)
		return -ENOSYS;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0);
	if (ruleset < 0)
		return -errno;
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		r = -errno;
	close(ruleset);
	return r;
}

/* Note whether a layer holds. A layer that is not there is no failure, one that fails is. */
static int note(int *layers, int layer, int r, struct vd_error *err)
{
	char name[VD_LAYERS_TEXT];

	if (r == 0)
		*layers |= layer;
	if (r == 0 || r == -ENOSYS)
		return 0;
	return vd_fail(err, EPERM,
		       "the sandbox cannot be set up: %s: %s; --sandbox=off does without",
		       vd_sandbox_layers_text(layer, name), strerror(-r));
}

int vd_sandbox_enter(enum vd_sandbox_mode mode, struct vd_error *err)
{
	char names[VD_LAYERS_TEXT];
	int layers = 0, missing, r;

	if (mode == VD_SANDBOX_OFF)
		return 0;
	r = note(&layers, VD_LAYER_NO_NEW_PRIVS, drop_privileges(), err);
	if (r == 0)
		r = note(&layers, VD_LAYER_LIMITS, set_limits(), err);
	if (r == 0)
		r = note(&layers, VD_LAYER_CAPABILITIES, drop_capabilities(), err);
	if (r == 0)
		r = note(&layers, VD_LAYER_LANDLOCK, landlock_everything(), err);
	if (r == 0)
		r = note(&layers, VD_LAYER_SECCOMP, vd_filter_install(), err);
	if (r < 0)
		return r;
	missing = VD_LAYERS_ALL & ~layers;
	if (missing && mode == VD_SANDBOX_STRICT)
		return vd_fail(err, EPERM,
			       "--sandbox=strict: not available here: %s; --sandbox=auto goes on "
			       "without",
			       vd_sandbox_layers_text(missing, names));
	if (missing)
		vd_log(LOG_WARNING, "the sandbox lacks: %s",
		       vd_sandbox_layers_text(missing, names));
	return layers;
}
