/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FUSE operations: fetch, ask the node (node.h), translate the error, reply exactly once.
 *
 * Threads: libfuse calls these from its workers, several at a time. All is const after
 * vdifs_fs_new() but what locks itself and what each thread keeps for itself. What may have to wait
 * for the whole map, or to work for long, the answers called answer_*(), goes through waiting.h. No
 * open file has a handle here: nothing grows with their number.
 *
 * A read is answered in full or with an error: the kernel takes a short answer for the end of the
 * file and cuts it there without telling anybody.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "map/info.h"
#include "vdifs/fs.h"
#include "vdifs/waiting.h"

/*
 * st_blksize. Programs read so much at least, even for a few bytes, and cp and cat read 128 KiB or
 * more in any case. Past the page cache each request costs, and small ones cost as much as large ones.
 */
#define BLOCK_BYTES 4096
#define BLOCK_BYTES_DIRECT (1 << 20)
#define FOREVER_SECONDS 86400.0 /* nothing changes while it is mounted */

struct vdifs_fs {
	struct vdifs_tree tree; /* inode number - FUSE_ROOT_ID is the place */
	struct vdifs_fs_options options;
	uid_t mounter;
	pthread_key_t workers; /* struct vdifs_worker of each thread */
	struct vdifs_waiting *waiting;
	bool can_splice; /* the kernel takes answers out of a pipe; set before any read */
};

static struct vdifs_fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static const struct vdifs_node *node_of(const struct vdifs_fs *fs, fuse_ino_t ino)
{
	return &fs->tree.nodes[ino - FUSE_ROOT_ID];
}

/* libfuse's interrupts as the map's. libfuse ends only when all requests have been answered. */
static bool request_is_interrupted(void *context)
{
	const struct vdifs_fs *fs = fs_of(context);

	return fuse_req_interrupted(context) != 0 ||
	       (fs->options.ending && fs->options.ending(fs->options.context));
}

/*
 * Is the reply to be deferred, because of that result? If only the time for one attempt was up, there is
 * more to do.
 */
static bool is_deferred(const struct vdifs_request *request, ssize_t r, enum vdifs_outcome *outcome)
{
	if (r == -EAGAIN)
		*outcome = VDIFS_WAITS;
	else if (r == -EINPROGRESS || (r == -EINTR && !request_is_interrupted(request->req)))
		*outcome = VDIFS_WORKS;
	else
		*outcome = VDIFS_REPLIED;
	return *outcome != VDIFS_REPLIED;
}

static blksize_t block_bytes(const struct vdifs_fs *fs)
{
	return fs->options.direct ? BLOCK_BYTES_DIRECT : BLOCK_BYTES;
}

/* --- attributes ------------------------------------------------------------------------------ */

/*
 * Fill st in any case. Where the size is not known yet it is one that does not last, and the result that
 * of the node's size(). 0 or -errno.
 */
static int node_stat(fuse_req_t req, fuse_ino_t ino, const struct vd_interrupt *interrupt,
		     struct stat *st, double *timeout)
{
	const struct vdifs_fs *fs = fs_of(req);
	const struct stat *image = &fs->tree.disks[0].disk->layers[0]->source->st;
	const struct vdifs_node *node = node_of(fs, ino);
	struct vdifs_size size = { 0 };
	int r = node->kind->size(node, &size, interrupt);

	*st = (struct stat){
		.st_ino = node->number,
		.st_mode = S_IFREG | node->shown->mode,
		.st_nlink = 1,
		.st_uid = image->st_uid,
		.st_gid = image->st_gid,
		.st_size = (off_t)size.bytes,
		.st_blocks = (blkcnt_t)size.blocks,
		.st_blksize = block_bytes(fs),
		.st_atim = node->shown->written,
		.st_mtim = node->shown->written,
		.st_ctim = node->shown->changed,
	};
	if (node->kind->is_directory) {
		mode_t readable = node->shown->mode & (S_IRUSR | S_IRGRP | S_IROTH);

		st->st_mode = S_IFDIR | node->shown->mode | readable >> 2;
		st->st_nlink = 2 + node->folders; /* find(1) may go by it */
	}
	*timeout = size.is_exact ? FOREVER_SECONDS : 0;
	return r;
}

static enum vdifs_outcome answer_getattr(struct vdifs_request *request,
					 const struct vd_interrupt *interrupt)
{
	struct stat st;
	double timeout;
	int r = node_stat(request->req, request->ino, interrupt, &st, &timeout);
	enum vdifs_outcome outcome;

	if (is_deferred(request, r, &outcome))
		return outcome;
	if (r < 0)
		fuse_reply_err(request->req, -r);
	else
		fuse_reply_attr(request->req, &st, timeout);
	return outcome;
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vdifs_request request = { .req = req, .answer = answer_getattr, .ino = ino };

	(void)fi;
	vdifs_waiting_answer(fs_of(req)->waiting, &request);
}

/*
 * The place of a name, or -1. "." and ".." come from the NFS server, which has kept the number of a
 * node (of any kind) for days, when the kernel has forgotten the node.
 */
static int node_find(const struct vdifs_tree *tree, unsigned parent, const char *name)
{
	if (strcmp(name, ".") == 0)
		return (int)parent;
	if (strcmp(name, "..") == 0)
		return (int)tree->nodes[parent].parent;
	return vdifs_tree_find(tree, parent, name);
}

/*
 * Never waits: the kernel has one lookup a directory at a time (libfuse before 3.17 cannot tell it
 * otherwise), and whoever comes next could not be interrupted. A size that does not last is asked for
 * again, by fs_getattr(), before anybody sees it.
 */
static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .entry_timeout = FOREVER_SECONDS };
	const struct vdifs_tree *tree = &fs_of(req)->tree;
	int place;

	if (parent - FUSE_ROOT_ID >= tree->count) { /* from a file handle that is made up */
		fuse_reply_err(req, ESTALE);
		return;
	}
	place = node_find(tree, (unsigned)(parent - FUSE_ROOT_ID), name);
	if (place >= 0) { /* if not, 0 is an answer, too: the kernel keeps it */
		entry.ino = (fuse_ino_t)place + FUSE_ROOT_ID;
		/* A handle of another disk that was mounted here before leads to nothing. */
		entry.generation = place > 0 ? (tree->nodes[place].number & INT32_MAX) | 1 : 0;
		node_stat(req, entry.ino, NULL, &entry.attr, &entry.attr_timeout);
	}
	fuse_reply_entry(req, &entry);
}

/* The entry of a directory at `offset`: 0 and 1 are "." and "..", then come all nodes. */
static bool entry_at(const struct vdifs_tree *tree, unsigned directory, unsigned offset,
		     unsigned *place, const char **name)
{
	*place = offset == 0 ? directory : offset == 1 ? tree->nodes[directory].parent : offset - 2;
	*name = offset == 0 ? "." : offset == 1 ? ".." : tree->nodes[*place].name;
	return offset < 2 || (*place > 0 && tree->nodes[*place].parent == directory);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	const struct vdifs_tree *tree = &fs_of(req)->tree;
	char *buffer = malloc(size);
	size_t used = 0;

	(void)fi;
	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (unsigned i = (unsigned)offset; i < tree->count + 2; i++) {
		struct stat st = { 0 };
		unsigned place;
		const char *name;
		size_t need;

		if (!entry_at(tree, (unsigned)(ino - FUSE_ROOT_ID), i, &place, &name))
			continue;
		st.st_ino = tree->nodes[place].number;
		st.st_mode = tree->nodes[place].kind->is_directory ? S_IFDIR : S_IFREG;
		need = fuse_add_direntry(req, buffer + used, size - used, name, &st, (off_t)i + 1);
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
		.f_bsize = (unsigned long)block_bytes(fs),
		.f_frsize = VD_SECTOR,
		.f_blocks = vd_div_up(fs->tree.disks[0].disk->size, VD_SECTOR),
		.f_files = fs->tree.count,
		.f_namemax = VDIFS_NAME_ROOM - 1,
	};

	(void)ino;
	fuse_reply_statfs(req, &st);
}

/* --- extended attributes --------------------------------------------------------------------- */

static void reply_xattr(fuse_req_t req, const char *value, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (size < length)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, length);
}

static enum vdifs_outcome answer_intervals(struct vdifs_request *request,
					   const struct vd_interrupt *interrupt)
{
	const struct vdifs_node *node = node_of(fs_of(request->req), request->ino);
	enum vdifs_outcome outcome;
	const char *value;
	size_t length;
	int r = vdifs_shown_attribute(node->shown, &value, &length, interrupt);

	if (is_deferred(request, r, &outcome))
		return outcome;
	if (r < 0)
		fuse_reply_err(request->req, -r);
	else
		reply_xattr(request->req, value, length, request->size);
	return outcome;
}

/* Others than the mounter may not be able to enter the directories that the names of files tell of. */
static void reply_info(fuse_req_t req, const struct vdifs_node *node, size_t size)
{
	const struct vdifs_fs *fs = fs_of(req);
	struct vd_index *index = node->shown->index;
	uid_t uid = fuse_req_ctx(req)->uid;
	struct vd_info info = {
		.disk = vd_index_disk(index),
		.is_mount = true,
		.has_no_paths = uid != fs->mounter && uid != 0,
		.sandbox = fs->options.layers,
	};
	size_t length;
	char *text;
	int r;

	vd_index_totals(index, &info.totals);
	info.unreadable = info.totals.complete ? vd_index_unreadable(index) : NULL;
	r = vd_info_attribute(&info, &text, &length);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	reply_xattr(req, text, length, size);
	free(text);
}

static void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	const struct vdifs_fs *fs = fs_of(req);
	const struct vdifs_node *node = node_of(fs, ino);
	struct vdifs_request request = {
		.req = req,
		.answer = answer_intervals,
		.ino = ino,
		.size = size,
	};

	if (node->kind->has_attributes && strcmp(name, "user.intervals") == 0)
		vdifs_waiting_answer(fs->waiting, &request);
	else if (node->kind->has_attributes && strcmp(name, "user.vdifs.info") == 0)
		reply_info(req, node, size);
	else /* never ENOSYS: the kernel would not ask again */
		fuse_reply_err(req, ENODATA);
}

/*
 * The attributes are there for those who ask for them by name. Programs that copy all of them, as cp -a
 * does, would fail where they cannot be stored, and would take the names of files along.
 */
static void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino;
	reply_xattr(req, NULL, 0, size);
}

/* --- files ----------------------------------------------------------------------------------- */

static enum vdifs_outcome answer_open(struct vdifs_request *request,
				      const struct vd_interrupt *interrupt)
{
	const struct vdifs_fs *fs = fs_of(request->req);
	const struct vdifs_node *node = node_of(fs, request->ino);
	struct fuse_file_info *fi = &request->fi;
	enum vdifs_outcome outcome;
	int r = 0;

	fi->fh = 0;
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		r = -EROFS;
	else if (node->kind->open)
		r = node->kind->open(node, interrupt);
	if (is_deferred(request, r, &outcome))
		return outcome;
	fi->direct_io = fs->options.direct && node->kind->from_image;
	/* What is shown never changes, unless the image does: then no old page is to be given. */
	fi->keep_cache = r == 0 && !(node->kind->from_image && vd_disk_changed(node->shown->disk));
	if (r < 0)
		fuse_reply_err(request->req, -r);
	else
		fuse_reply_open(request->req, fi);
	return outcome;
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vdifs_request request = { .req = req, .answer = answer_open, .ino = ino, .fi = *fi };

	vdifs_waiting_answer(fs_of(req)->waiting, &request);
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

static enum vdifs_outcome answer_read(struct vdifs_request *request,
				      const struct vd_interrupt *interrupt)
{
	const struct vdifs_fs *fs = fs_of(request->req);
	const struct vdifs_node *node = node_of(fs, request->ino);
	enum vdifs_outcome outcome;
	struct vdifs_read read = {
		.bytes = request->size,
		.at = (uint64_t)request->offset,
		.can_splice = fs->can_splice,
		.interrupt = interrupt,
	};
	ssize_t got = -ENOMEM;

	if (!interrupt)
		return VDIFS_WORKS;
	read.worker = vdifs_worker_get(fs->workers, (size_t)vd_max(request->size, 1));
	if (read.worker)
		got = node->kind->read(node, &read);
	if (is_deferred(request, got, &outcome))
		return outcome;
	if (got < 0)
		fuse_reply_err(request->req, (int)-got);
	else if (read.is_spliced)
		reply_spliced(request->req, read.worker, (size_t)got);
	else
		fuse_reply_buf(request->req, read.worker->buffer, (size_t)got);
	return outcome;
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct vdifs_request request = {
		.req = req,
		.answer = answer_read,
		.lane = VDIFS_LANE_SEARCH,
		.ino = ino,
		.size = size,
		.offset = offset,
	};

	(void)fi;
	vdifs_waiting_answer(fs_of(req)->waiting, &request);
}

static enum vdifs_outcome answer_lseek(struct vdifs_request *request,
				       const struct vd_interrupt *interrupt)
{
	const struct vdifs_node *node = node_of(fs_of(request->req), request->ino);
	uint64_t found = (uint64_t)request->offset;
	enum vdifs_outcome outcome;
	int r;

	if (request->whence != SEEK_DATA && request->whence != SEEK_HOLE)
		r = -EINVAL;
	else if (request->offset < 0)
		r = -ENXIO;
	else
		r = node->kind->seek(node, (uint64_t)request->offset, request->whence == SEEK_DATA,
				     &found, interrupt);
	if (is_deferred(request, r, &outcome)) {
		request->offset = (off_t)found;
		return outcome;
	}
	if (r < 0)
		fuse_reply_err(request->req, -r);
	else
		fuse_reply_lseek(request->req, (off_t)found);
	return outcome;
}

static void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		     struct fuse_file_info *fi)
{
	struct vdifs_request request = {
		.req = req,
		.answer = answer_lseek,
		.lane = VDIFS_LANE_SEARCH,
		.ino = ino,
		.offset = offset,
		.whence = whence,
	};

	(void)fi;
	vdifs_waiting_answer(fs_of(req)->waiting, &request);
}

/* Switch on what the kernel offers besides libfuse's own choice. False: it does not offer it. */
static bool want(struct fuse_conn_info *conn, uint64_t flag)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	/* A bit set in `want` alone would make libfuse 3.18 forget its own choice. */
	return fuse_set_feature_flag(conn, flag);
#else
	if (!(conn->capable & flag))
		return false;
	conn->want |= (unsigned)flag;
	return true;
#endif
}

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
	struct vdifs_fs *fs = userdata;

	fs->can_splice = want(conn, FUSE_CAP_SPLICE_WRITE);
	want(conn, FUSE_CAP_EXPORT_SUPPORT); /* NFS: see node_find() */
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
};

/* --- making it ------------------------------------------------------------------------------- */

int vdifs_fs_new(struct vd_disk *disk, struct vd_index *index,
		 const struct vdifs_fs_options *options, struct vdifs_fs **out,
		 struct vd_error *err)
{
	struct vdifs_fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs || vdifs_workers_new(&fs->workers) < 0) {
		free(fs);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	fs->options = *options;
	fs->mounter = getuid();
	r = vdifs_tree_init(&fs->tree, disk, index, &options->tree, err);
	if (r == 0 && vdifs_waiting_new(request_is_interrupted, &fs->waiting) < 0)
		r = vd_fail(err, ENOMEM, "out of memory");
	if (r < 0)
		vdifs_fs_free(fs);
	else
		*out = fs;
	return r;
}

void vdifs_fs_free(struct vdifs_fs *fs)
{
	if (!fs)
		return;
	vdifs_waiting_free(fs->waiting);
	vdifs_workers_free(fs->workers); /* with -s this thread was a worker */
	vdifs_tree_clear(&fs->tree);
	free(fs);
}
