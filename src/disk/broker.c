/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Question and answer are one packet each, with the layout of this build: both sides are the same
 * program. The file that names another is a number, the place in the list of what was opened.
 *
 * Of a file that was passed on the parent keeps the descriptor of its directory, to resolve names
 * against, but not the file: locks and the last close are the child's. With a server the parent only
 * connects; the child is the one who talks to it.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/passing.h"
#include "disk/broker.h"
#include "disk/renamed.h"

#define NAME_BYTES 4096 /* PATH_MAX: a longer one cannot be opened */
/* What two chains may ask for: each layer's file and its data file, and some tried in vain. */
#define FILES_MAX (5u * VD_LAYERS_MAX)
/* Names that lead nowhere count too, VD_PARENT_NAMES_MAX a layer, and files that --search looks at. */
#define QUESTIONS_MAX 65536u
#define NO_NUMBER UINT32_MAX

enum role { ROLE_IMAGE, ROLE_BACKING, ROLE_DATA, ROLES, ROLE_LIST = ROLES };

static const char *const roles[ROLES] = {
	[ROLE_IMAGE] = "image",
	[ROLE_BACKING] = "backing file",
	[ROLE_DATA] = "data file",
};

struct question {
	uint32_t role;
	uint32_t base; /* number of the file that names it, + 1; 0: named by hand */
	uint32_t beside_real; /* beside the real file only */
	uint32_t is_candidate; /* it will be closed at once, and needs no number */
	char name[NAME_BYTES]; /* ROLE_LIST: the name that the list goes on after */
	char directory[NAME_BYTES]; /* one of --search; empty: none */
};

struct answer {
	int32_t r;
	uint32_t number; /* of the file */
	uint32_t is_server; /* the descriptor is a socket, not a file */
	struct vd_identity identity; /* of a file: the sandbox would not let the child find it */
	char text[4 * NAME_BYTES]; /* its name, escaped; or what went wrong; or r bytes of names */
};

_Static_assert(VD_LIST_BYTES <= sizeof(((struct answer *)NULL)->text), "a list is one answer");

struct vd_broker {
	const char *const *images;
	const struct vd_chain_options *options; /* as many */
	unsigned image_count;
	struct vd_source *files[FILES_MAX]; /* owned */
	unsigned top[FILES_MAX]; /* the number of the image whose chain the file belongs to */
	unsigned count;
	unsigned last_image;
	unsigned questions;
};

int vd_broker_sockets(int sockets[2], struct vd_error *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return vd_fail(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
	return 0;
}

/* --- the answering side ---------------------------------------------------------------------- */

int vd_broker_new(const char *const *images, const struct vd_chain_options *options, unsigned count,
		  struct vd_broker **out)
{
	struct vd_broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return -ENOMEM;
	broker->images = images;
	broker->options = options;
	broker->image_count = count;
	vd_opener_raise_limit();
	*out = broker;
	return 0;
}

void vd_broker_free(struct vd_broker *broker)
{
	if (!broker)
		return;
	for (unsigned i = 0; i < broker->count; i++)
		vd_source_close(broker->files[i]);
	free(broker);
}

static bool list_has(const char *const *list, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++) {
		if (strcmp(list[i], name) == 0)
			return true;
	}
	return false;
}

static bool given_as_backing(const struct vd_chain_options *options, const char *name)
{
	if (list_has(options->backing_files, options->backing_file_count, name))
		return true;
	for (unsigned i = 0; i < options->renamed_count; i++) {
		bool has_name;

		if (strcmp(vd_renamed_path(options->renamed[i], &has_name), name) == 0)
			return true;
	}
	return false;
}

/* Did the user give this name, as this, for any of the images? */
static bool given_by_hand(const struct vd_broker *broker, enum role role, const char *name)
{
	if (role == ROLE_IMAGE)
		return list_has(broker->images, broker->image_count, name);
	for (unsigned i = 0; i < broker->image_count; i++) {
		const struct vd_chain_options *options = &broker->options[i];
		bool is = role == ROLE_BACKING
				  ? given_as_backing(options, name)
				  : options->data_file && strcmp(options->data_file, name) == 0;

		if (is)
			return true;
	}
	return false;
}

/* Did the user give this directory for --search? */
static bool given_to_search(const struct vd_broker *broker, const char *directory)
{
	for (unsigned i = 0; i < broker->image_count; i++) {
		if (list_has(broker->options[i].search, broker->options[i].search_count, directory))
			return true;
	}
	return false;
}

/* Open what is asked for, if it may be. What gets a number stays in the list. */
static int broker_open(struct vd_broker *broker, const struct question *question,
		       struct vd_source **out, struct vd_error *err)
{
	struct vd_open_request request = {
		.name = question->name,
		.role = roles[question->role],
		.directory = *question->directory ? question->directory : NULL,
		.beside_real = question->beside_real,
		.policy = broker->options->backing,
		.patience = broker->options->patience,
	};
	unsigned top = broker->last_image;
	int r;

	if (broker->count == FILES_MAX)
		return vd_fail(err, EMFILE, "refused to open more than %u files", FILES_MAX);
	if (request.directory && !given_to_search(broker, request.directory))
		return vd_fail(err, EACCES, "refused to look in a directory that --search does not name");
	if (question->base > 0) {
		request.base = broker->files[question->base - 1];
		top = broker->top[question->base - 1];
		request.owner = broker->files[top]->st.st_uid;
	} else if (!given_by_hand(broker, question->role, question->name)) {
		return vd_fail(err, EACCES, "refused to open a file that nobody named");
	}
	r = vd_opener_open(&request, out, err);
	if (r < 0 || question->is_candidate)
		return r;
	broker->files[broker->count] = *out;
	if (question->role == ROLE_IMAGE)
		top = broker->last_image = broker->count;
	broker->top[broker->count++] = top;
	return 0;
}

/* 1: a question that makes sense. 0: the other side is done. */
static int question_receive(const struct vd_broker *broker, int socket, struct question *question)
{
	ssize_t got;

	do
		got = recv(socket, question, sizeof(*question), 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? 0 : -errno;
	if (got == 0)
		return 0;
	if (got != sizeof(*question) || question->role > ROLE_LIST ||
	    question->base > broker->count ||
	    (question->role == ROLE_IMAGE && question->base > 0) || /* no file names that */
	    (question->is_candidate && (question->base == 0 || *question->directory == '\0')) ||
	    !memchr(question->name, '\0', NAME_BYTES) ||
	    !memchr(question->directory, '\0', NAME_BYTES) || broker->questions == QUESTIONS_MAX)
		return -EPROTO;
	return 1;
}

/* A list of names, without a descriptor. */
static int answer_list(const struct vd_broker *broker, int socket, const struct question *question)
{
	struct answer answer = { .number = NO_NUMBER };
	struct vd_error err = { "" };

	if (given_to_search(broker, question->directory))
		answer.r = vd_opener_list(question->directory, question->name, answer.text, &err);
	else
		answer.r = vd_fail(&err, EACCES, "refused to list a directory that --search does not name");
	if (answer.r < 0)
		snprintf(answer.text, sizeof(answer.text), "%s", err.text);
	return vd_pass(socket, &answer, sizeof(answer), -1);
}

/* A file: its descriptor goes to the other side, and is closed here. */
static int answer_open(struct vd_broker *broker, int socket, const struct question *question)
{
	struct answer answer = { .number = NO_NUMBER };
	struct vd_error err = { "" };
	struct vd_source *file = NULL;
	int r;

	answer.r = broker_open(broker, question, &file, &err);
	if (answer.r == 0) {
		answer.is_server = file->is_server;
		answer.identity = file->identity;
		if (!question->is_candidate)
			answer.number = broker->count - 1;
	}
	snprintf(answer.text, sizeof(answer.text), "%s", file ? file->name : err.text);
	r = vd_pass(socket, &answer, sizeof(answer), file ? file->fd : -1);
	if (file && question->is_candidate) {
		vd_source_close(file);
	} else if (file) {
		close(file->fd);
		file->fd = -1;
	}
	return r;
}

int vd_broker_answer(struct vd_broker *broker, int socket)
{
	struct question question;
	int r = question_receive(broker, socket, &question);

	if (r <= 0)
		return r;
	broker->questions++;
	r = question.role == ROLE_LIST ? answer_list(broker, socket, &question)
				       : answer_open(broker, socket, &question);
	if (r == -EPIPE || r == -ECONNRESET) /* it has asked and died */
		return 0;
	return r < 0 ? r : 1;
}

/* --- the asking side ------------------------------------------------------------------------- */

/* 0: the answer is there; *fd: the descriptor that came with it, -1 for a list or a failure. */
static int answer_receive(int socket, bool is_list, struct answer *answer, int *fd)
{
	ssize_t got = vd_pass_receive(socket, answer, sizeof(*answer), fd);

	if (got == sizeof(*answer) && (answer->r < 0 || is_list) == (*fd < 0))
		return 0;
	if (*fd >= 0)
		close(*fd);
	return got < 0 ? (int)got : -EPIPE;
}

static enum role role_find(const char *name)
{
	unsigned role = ROLE_IMAGE;

	while (role < ROLES - 1 && strcmp(roles[role], name) != 0)
		role++;
	return (enum role)role;
}

/* Make a source of what came with the answer. */
static int take_descriptor(const struct vd_open_request *request, const struct answer *answer,
			   int fd, struct vd_source **out, struct vd_error *err)
{
	struct vd_source *source;
	int r = answer->is_server ? vd_source_from_socket(fd, request->name, &source, err)
				  : vd_source_from_fd(fd, -1, request->name, &source, err);

	if (r < 0)
		return r;
	source->number = answer->number;
	source->identity = answer->identity;
	r = vd_source_set_name(source, answer->text);
	if (r < 0)
		vd_fail(err, -r, "out of memory");
	if (r == 0)
		r = vd_source_begin(source, &request->patience, err);
	if (r < 0)
		vd_source_close(source);
	else
		*out = source;
	return r;
}

/* Ask, and wait for the answer. */
static int ask(int socket, const struct question *question, struct answer *answer, int *fd,
	       struct vd_error *err)
{
	int r = send(socket, question, sizeof(*question), MSG_NOSIGNAL) < 0 ? -errno : 0;

	if (r == 0)
		r = answer_receive(socket, question->role == ROLE_LIST, answer, fd);
	if (r < 0)
		return vd_fail(err, -r, "the process that opens files is gone: %s", strerror(-r));
	return answer->r < 0 ? vd_fail(err, -answer->r, "%s", answer->text) : 0;
}

/* Put the text, which may be NULL, into a field of a question. */
static int put(char *field, const char *text, const char *what, struct vd_error *err)
{
	if (text && strlen(text) >= NAME_BYTES)
		return vd_fail(err, ENAMETOOLONG, "the name of the %s is too long", what);
	strcpy(field, text ? text : "");
	return 0;
}

static int open_remote(void *context, const struct vd_open_request *request, struct vd_source **out,
		       struct vd_error *err)
{
	const int *socket = context;
	struct question question = {
		.role = role_find(request->role),
		.base = request->base ? request->base->number + 1 : 0,
		.beside_real = request->beside_real,
		.is_candidate = request->is_candidate,
	};
	struct answer answer;
	int fd, r = put(question.name, request->name, request->role, err);

	if (r == 0)
		r = put(question.directory, request->directory, "directory", err);
	if (r == 0)
		r = ask(*socket, &question, &answer, &fd, err);
	return r < 0 ? r : take_descriptor(request, &answer, fd, out, err);
}

static int list_remote(void *context, const char *directory, const char *after, char *names,
		       struct vd_error *err)
{
	const int *socket = context;
	struct question question = { .role = ROLE_LIST };
	struct answer answer;
	int fd, r = put(question.name, after, "file", err);

	if (r == 0)
		r = put(question.directory, directory, "directory", err);
	if (r == 0)
		r = ask(*socket, &question, &answer, &fd, err);
	if (r < 0)
		return r;
	memcpy(names, answer.text, (size_t)answer.r);
	return answer.r;
}

struct vd_opener vd_broker_opener(const int *socket)
{
	return (struct vd_opener){
		.open = open_remote,
		.list = list_remote,
		.context = (void *)(uintptr_t)socket,
	};
}
