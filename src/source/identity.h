/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether two open files are one file.
 *
 * The device and inode number do not say it. Behind bindfs, virtiofs and 9p, files of several file
 * systems have one device number, and their inode numbers may be equal. A snapshot of bcachefs has
 * the inode numbers of what it is a snapshot of. So two more facts are compared: the mount, and the
 * kernel's file handle, which is unique in its file system.
 *
 * There are two questions, because a wrong answer costs different things. See source.h:
 * vd_source_is_same_file() and vd_source_has_same_bytes().
 */
#ifndef VD_SOURCE_IDENTITY_H
#define VD_SOURCE_IDENTITY_H

#include <stdint.h>

#define VD_HANDLE_BYTES_MAX 128

/* Unused bytes are zero. The file must stay open: numbers of what is closed are used again. */
struct vd_identity {
	uint64_t mount; /* 0: the kernel does not say */
	uint32_t handle_bytes; /* 0: the file system has no handles */
	int32_t handle_type;
	uint8_t handle[VD_HANDLE_BYTES_MAX];
};

/* Find it. Never fails: what the kernel does not say stays 0. */
void vd_identity_find(int fd, struct vd_identity *identity);

#endif
