/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FUSE operations: fetch, ask the index or the disk, translate the error, reply exactly once.
 *
 * Threads: libfuse calls these from its workers, several at a time. All is const after
 * vdifs_fs_new() but the cached attribute (its mutex), open sidecars (a mutex each) and what each
 * thread keeps for itself. A request that waits for the whole map looks, while it waits, whether
 * its caller has been interrupted.
 *
 * A read is answered in full or with an error: the kernel takes a short answer for the end of the
 * file and cuts it there without telling anybody.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "map/json.h"
#include "vdifs/fs.h"
#include "vdifs/worker.h"

#define BLOCK_BYTES (1 << 20) /* st_blksize: cp sizes its buffer by it */
#define FOREVER_SECONDS 86400.0 /* nothing changes while it is mounted */
#define NAME_ROOM 256
#define MAP_SUFFIX ".intervals.json"
#define DISK_SUFFIX ".raw"

enum node_kind { NODE_DIRECTORY, NODE_DISK, NODE_MAP };

struct node {
	enum node_kind kind;
	fuse_ino_t parent;
	char name[NAME_ROOM];
};

struct vdifs_fs {
	struct vd_index *index;
	const struct vd_disk *disk;
	struct vdifs_fs_options options;
	struct node nodes[3]; /* inode number - 1 is the place */
	unsigned count;
	pthread_key_t workers; /* struct vdifs_worker of each thread */
	bool can_splice; /* the kernel takes answers out of a pipe; set before any read */
	pthread_mutex_t lock; /* for attribute */
	char *attribute; /* user.intervals, once made */
	size_t attribute_length;
};

/* An open sidecar. */
struct open_map {
	pthread_mutex_t lock;
	struct vd_json_reader *reader;
};

static struct vdifs_fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static const struct node *node_of(const struct vdifs_fs *fs, fuse_ino_t ino)
{
	return &fs->nodes[ino - FUSE_ROOT_ID];
}

/* libfuse's interrupts as the map's. libfuse ends only when all requests have been answered. */
static bool request_is_interrupted(void *context)
{
	const struct vdifs_fs *fs = fs_of(context);

	return fuse_req_interrupted(context) != 0 ||
	       (fs->options.ending && fs->options.ending(fs->options.context));
}

static struct vd_interrupt interrupt_of(fuse_req_t req)
{
	return (struct vd_interrupt){ .interrupted = request_is_interrupted, .context = req };
}

/* --- attributes ------------------------------------------------------------------------------ */

/* Fill st. The sidecar's size is known only when the map is complete: waits. 0 or -errno. */
static int node_stat(fuse_req_t req, fuse_ino_t ino, struct stat *st, double *timeout)
{
	struct vdifs_fs *fs = fs_of(req);
	const struct stat *image = &fs->disk->layers[0]->source->st;
	const struct node *node = node_of(fs, ino);
	struct vd_interrupt interrupt = interrupt_of(req);
	mode_t readable = image->st_mode & 0444;
	struct vd_index_totals totals;
	bool is_exact = true;
	int r = 0;

	*st = (struct stat){
		.st_ino = ino,
		.st_mode = S_IFREG | readable,
		.st_nlink = 1,
		.st_uid = image->st_uid,
		.st_gid = image->st_gid,
		.st_blksize = BLOCK_BYTES,
		.st_atim = image->st_mtim,
		.st_mtim = image->st_mtim,
		.st_ctim = image->st_mtim,
	};
	if (node->kind == NODE_DIRECTORY) {
		st->st_mode = S_IFDIR | readable | readable >> 2;
		st->st_nlink = 2;
	} else if (node->kind == NODE_DISK) {
		st->st_size = (off_t)fs->disk->size;
		st->st_blocks = (blkcnt_t)vd_index_blocks(fs->index, &is_exact);
	} else {
		r = vd_index_wait(fs->index, &interrupt);
		vd_index_totals(fs->index, &totals);
		st->st_size = (off_t)totals.json_bytes;
		st->st_blocks = (blkcnt_t)vd_div_up(totals.json_bytes, VD_SECTOR);
	}
	*timeout = is_exact ? FOREVER_SECONDS : 0;
	return r;
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	double timeout;
	int r = node_stat(req, ino, &st, &timeout);

	(void)fi;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, timeout);
}

/* The inode of a name in a directory, or 0. */
static fuse_ino_t find_name(const struct vdifs_fs *fs, fuse_ino_t parent, const char *name)
{
	for (unsigned i = 1; i < fs->count; i++) {
		if (fs->nodes[i].parent == parent && strcmp(fs->nodes[i].name, name) == 0)
			return i + FUSE_ROOT_ID;
	}
	return 0;
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .entry_timeout = FOREVER_SECONDS };
	int r = 0;

	entry.ino =
		find_name(fs_of(req), parent, name); /* 0 is an answer, too: the kernel keeps it */
	if (entry.ino)
		r = node_stat(req, entry.ino, &entry.attr, &entry.attr_timeout);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &entry);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	struct vdifs_fs *fs = fs_of(req);
	char *buffer = malloc(size);
	size_t used = 0;

	(void)fi;
	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (unsigned i = (unsigned)offset; i < fs->count + 1; i++) {
		/* "." and ".." stand for the root at 0 and 1; then come the other nodes. */
		const struct node *node = i < 2 ? &fs->nodes[0] : &fs->nodes[i - 1];
		const char *name = i == 0 ? "." : i == 1 ? ".." : node->name;
		struct stat st = {
			.st_ino = i < 2 ? ino : i - 1 + FUSE_ROOT_ID,
			.st_mode = node->kind == NODE_DIRECTORY ? S_IFDIR : S_IFREG,
		};
		size_t need =
			fuse_add_direntry(req, buffer + used, size - used, name, &st, (off_t)i + 1);

		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void fs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct vdifs_fs *fs = fs_of(req);
	struct statvfs st = {
		.f_bsize = BLOCK_BYTES,
		.f_frsize = VD_SECTOR,
		.f_blocks = vd_div_up(fs->disk->size, VD_SECTOR),
		.f_files = fs->count,
		.f_namemax = NAME_ROOM - 1,
	};

	(void)ino;
	fuse_reply_statfs(req, &st);
}

/* --- extended attributes --------------------------------------------------------------------- */

/* Make user.intervals unless it is there. Waiting for the map is done before, without the lock. */
static int attribute_make(struct vdifs_fs *fs, const struct vd_interrupt *interrupt)
{
	int r = vd_index_wait(fs->index, interrupt);

	if (r < 0)
		return r;
	pthread_mutex_lock(&fs->lock);
	if (!fs->attribute)
		r = vd_json_attribute(fs->index, &fs->attribute, &fs->attribute_length, interrupt);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static void reply_xattr(fuse_req_t req, const char *value, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (size < length)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, length);
}

static void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct vdifs_fs *fs = fs_of(req);
	struct vd_interrupt interrupt = interrupt_of(req);
	char *info = NULL;
	size_t length;
	int r = -ENODATA; /* never ENOSYS: the kernel would not ask again */

	if (node_of(fs, ino)->kind != NODE_MAP && strcmp(name, "user.intervals") == 0)
		r = attribute_make(fs, &interrupt);
	else if (node_of(fs, ino)->kind != NODE_MAP && strcmp(name, "user.vdifs.info") == 0)
		r = vd_json_info(fs->index, fs->options.layers, &info, &length);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (info)
		reply_xattr(req, info, length, size);
	else
		reply_xattr(req, fs->attribute, fs->attribute_length, size);
	free(info);
}

/* user.intervals is not listed: cp --preserve=xattr would fail to copy 64 KiB to ext4. */
static void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	static const char names[] = "user.vdifs.info";
	bool has = node_of(fs_of(req), ino)->kind != NODE_MAP;

	reply_xattr(req, names, has ? sizeof(names) : 0, size);
}

/* --- files ----------------------------------------------------------------------------------- */

static int map_open(fuse_req_t req, struct fuse_file_info *fi)
{
	struct vdifs_fs *fs = fs_of(req);
	struct vd_interrupt interrupt = interrupt_of(req);
	struct open_map *map;
	int r = vd_index_wait(fs->index, &interrupt); /* reading anywhere needs it whole */

	if (r < 0)
		return r;
	map = calloc(1, sizeof(*map));
	if (!map || vd_json_reader_new(fs->index, fs->disk->cluster_bits, &map->reader) < 0) {
		free(map);
		return -ENOMEM;
	}
	pthread_mutex_init(&map->lock, NULL);
	fi->fh = (uint64_t)(uintptr_t)map;
	return 0;
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vdifs_fs *fs = fs_of(req);
	int r = 0;

	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		r = -EROFS;
	else if (node_of(fs, ino)->kind == NODE_MAP)
		r = map_open(req, fi);
	fi->direct_io = fs->options.direct && node_of(fs, ino)->kind == NODE_DISK;
	/* What is shown never changes, unless the image does: then no old page is to be given. */
	fi->keep_cache =
		r == 0 && (node_of(fs, ino)->kind == NODE_MAP || !vd_disk_changed(fs->disk));
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_open(req, fi);
}

static void map_close(struct open_map *map)
{
	vd_json_reader_free(map->reader);
	pthread_mutex_destroy(&map->lock);
	free(map);
}

static void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (node_of(fs_of(req), ino)->kind == NODE_MAP)
		map_close((struct open_map *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

/* Answer with what is in the worker's pipe. */
static void reply_spliced(fuse_req_t req, struct vdifs_worker *worker, size_t bytes)
{
	struct fuse_bufvec answer = FUSE_BUFVEC_INIT(bytes);

	answer.buf[0].flags = FUSE_BUF_IS_FD;
	answer.buf[0].fd = worker->pipe[0];
	fuse_reply_data(req, &answer, 0);
	vdifs_worker_emptied(worker);
}

static void disk_read(fuse_req_t req, size_t size, uint64_t virt)
{
	struct vdifs_fs *fs = fs_of(req);
	size_t bytes = virt < fs->disk->size ? (size_t)vd_min(size, fs->disk->size - virt) : 0;
	struct vdifs_worker *worker = vdifs_worker_get(fs->workers, vd_max(bytes, 1));
	int r = -ENOMEM;

	if (worker && fs->can_splice && vdifs_worker_splice(worker, fs->disk, virt, bytes)) {
		reply_spliced(req, worker, bytes);
		return;
	}
	if (worker)
		r = bytes ? vd_disk_read(fs->disk, worker->buffer, bytes, virt, worker->scratch)
			  : 0;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, worker->buffer, bytes);
}

static void map_read(fuse_req_t req, struct open_map *map, size_t size, uint64_t at)
{
	struct vdifs_worker *worker = vdifs_worker_get(fs_of(req)->workers, vd_max(size, 1));
	struct vd_interrupt interrupt = interrupt_of(req);
	ssize_t got = -ENOMEM;

	if (worker) {
		pthread_mutex_lock(&map->lock);
		got = vd_json_read(map->reader, worker->buffer, size, at, &interrupt);
		pthread_mutex_unlock(&map->lock);
	}
	if (got < 0)
		fuse_reply_err(req, (int)-got);
	else
		fuse_reply_buf(req, worker->buffer, (size_t)got);
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	if (node_of(fs_of(req), ino)->kind == NODE_MAP)
		map_read(req, (struct open_map *)(uintptr_t)fi->fh, size, (uint64_t)offset);
	else
		disk_read(req, size, (uint64_t)offset);
}

/* Where the next data or hole of a node begins. 0 or -errno. */
static int node_seek(fuse_req_t req, fuse_ino_t ino, uint64_t at, bool want_data, uint64_t *found)
{
	struct vdifs_fs *fs = fs_of(req);
	struct vd_interrupt interrupt = interrupt_of(req);
	struct vd_index_totals totals;

	if (node_of(fs, ino)->kind == NODE_DISK) {
		if (at >= fs->disk->size)
			return -ENXIO;
		return vd_index_seek(fs->index, at, want_data, found, &interrupt);
	}
	vd_index_totals(fs->index, &totals); /* the sidecar has no holes */
	if (at >= totals.json_bytes)
		return -ENXIO;
	*found = want_data ? at : totals.json_bytes;
	return 0;
}

static void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		     struct fuse_file_info *fi)
{
	uint64_t found = 0;
	int r;

	(void)fi;
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		r = -EINVAL;
	else if (offset < 0)
		r = -ENXIO;
	else
		r = node_seek(req, ino, (uint64_t)offset, whence == SEEK_DATA, &found);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)found);
}

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
	struct vdifs_fs *fs = userdata;

	fs->can_splice = (conn->capable & FUSE_CAP_SPLICE_WRITE) != 0;
	if (fs->can_splice)
		conn->want |= FUSE_CAP_SPLICE_WRITE;
	if (fs->options.ready)
		fs->options.ready(fs->options.context, conn);
}

const struct fuse_lowlevel_ops vdifs_fs_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.getattr = fs_getattr,
	.readdir = fs_readdir,
	.statfs = fs_statfs,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.open = fs_open,
	.read = fs_read,
	.lseek = fs_lseek,
	.release = fs_release,
};

/* --- making it ------------------------------------------------------------------------------- */

static void node_add(struct vdifs_fs *fs, enum node_kind kind, const char *name, size_t length,
		     const char *suffix)
{
	struct node *node = &fs->nodes[fs->count++];

	node->kind = kind;
	node->parent = FUSE_ROOT_ID;
	snprintf(node->name, sizeof(node->name), "%.*s%s", (int)length, name, suffix);
}

/* NAME is the image's file name without its last extension, "disk" if nothing is left. */
static void nodes_add(struct vdifs_fs *fs)
{
	const char *name = fs->options.image_name;
	const char *dot = strrchr(name, '.');
	size_t length = dot ? (size_t)(dot - name) : strlen(name);

	if (!fs->options.is_directory) {
		node_add(fs, NODE_DISK, "", 0, "");
		return;
	}
	if (length == 0) {
		name = "disk";
		length = strlen(name);
	}
	if (length > NAME_ROOM - sizeof(MAP_SUFFIX)) { /* more than a lookup can name */
		length = NAME_ROOM - sizeof(MAP_SUFFIX);
		while (length > 0 && ((uint8_t)name[length] & 0xc0) == 0x80) /* whole characters */
			length--;
	}
	node_add(fs, NODE_DIRECTORY, "", 0, "");
	node_add(fs, NODE_DISK, name, length, DISK_SUFFIX);
	node_add(fs, NODE_MAP, name, length, MAP_SUFFIX);
}

int vdifs_fs_new(struct vd_index *index, const struct vdifs_fs_options *options,
		 struct vdifs_fs **out)
{
	struct vdifs_fs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	if (vdifs_workers_new(&fs->workers) < 0) {
		free(fs);
		return -ENOMEM;
	}
	pthread_mutex_init(&fs->lock, NULL);
	fs->index = index;
	fs->disk = vd_index_disk(index);
	fs->options = *options;
	nodes_add(fs);
	*out = fs;
	return 0;
}

void vdifs_fs_free(struct vdifs_fs *fs)
{
	if (!fs)
		return;
	vdifs_workers_free(fs->workers); /* with -s this thread was a worker */
	pthread_mutex_destroy(&fs->lock);
	free(fs->attribute);
	free(fs);
}
