/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers by which caches know an object. An address does not do: when the object is freed, another
 * one gets its address, and what the cache kept of the first would be taken for the second one's.
 */
#ifndef VD_BASE_SERIAL_H
#define VD_BASE_SERIAL_H

#include <stdint.h>

/* A number that no other call in this process returns; never 0. Any thread. */
uint64_t vd_serial(void);

#endif
