/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One counter of 64 bits, which cannot wrap in the life of a process. */
#include "config.h"

#include <stdatomic.h>

#include "base/serial.h"

uint64_t vd_serial(void)
{
	static _Atomic uint64_t last;

	return atomic_fetch_add(&last, 1) + 1;
}
