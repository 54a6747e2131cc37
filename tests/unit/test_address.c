/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses of servers: what is one, what it says, and what is refused in which words. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "source/address.h"
#include "util.h"

static void names_with_a_scheme_are_addresses(void **state)
{
	static const char *const are[] = { "nbd://h/e", "nbd+unix:///?socket=s",
					   "nbds://h/", "nbd+vsock://1/",
					   "nbd://",    "http://h/e",
					   "ssh://h/e", "nbd:h:10809",
					   "json:{\"a\":1}", "NBD://h/e", "file:x" };
	static const char *const are_not[] = {
		"disk.qcow2",    "./nbd://h/e", "/nbd://h/e", "./nbd:h:10809", "nbd", "a/b://c",
		"./json:{\"a\"", "json:a", "",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(are); i++)
		assert_true(vd_address_is(are[i]));
	for (size_t i = 0; i < ARRAY_LENGTH(are_not); i++)
		assert_false(vd_address_is(are_not[i]));
}

static void addresses_are_taken_apart(void **state)
{
	static const struct {
		const char *name, *host, *port, *path, *export, *file;
	} rows[] = {
		{ "nbd://h", "h", "10809", "", "", "" },
		{ "nbd://h/", "h", "10809", "", "", "" },
		{ "nbd://h:/e", "h", "10809", "", "e", "e" },
		{ "nbd://h:1/e", "h", "1", "", "e", "e" },
		{ "nbd://h:065535/e", "h", "65535", "", "e", "e" },
		{ "nbd://[::1]:99/a,b=c", "::1", "99", "", "a,b=c", "a,b=c" },
		{ "nbd://[fe80::1%25eth0]/", "fe80::1%eth0", "10809", "", "", "" },
		{ "nbd://h//vms/disk.qcow2", "h", "10809", "", "/vms/disk.qcow2", "disk.qcow2" },
		{ "nbd://h/a%2Fb%25%3f%23", "h", "10809", "", "a/b%?#", "b%?#" },
		{ "nbd://h/dir/", "h", "10809", "", "dir/", "" },
		{ "nbd+unix:///?socket=/run/x", "", "10809", "/run/x", "", "" },
		{ "nbd+unix://?socket=x", "", "10809", "x", "", "" },
		{ "nbd+unix:///e?socket=/a%20b&", "", "10809", "/a b", "e", "e" },
		{ "nbd+unix:///e?socket=/a&socket=/b", "", "10809", "/b", "e", "e" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		struct vd_address address;
		struct vd_error err = { "" };

		assert_int_equal(vd_address_parse(rows[i].name, &address, &err), 0);
		assert_string_equal(err.text, "");
		assert_int_equal(address.is_unix, strncmp(rows[i].name, "nbd+", 4) == 0);
		assert_string_equal(address.host, rows[i].host);
		assert_string_equal(address.port, rows[i].port);
		assert_string_equal(address.path, rows[i].path);
		assert_string_equal(address.export, rows[i].export);
		assert_string_equal(vd_address_file_name(&address), rows[i].file);
	}
}

static void what_is_not_understood_is_refused(void **state)
{
	static const struct {
		const char *name;
		int r;
		const char *says;
	} rows[] = {
		{ "nbds://h/e", -ENOTSUP, "TLS" },
		{ "nbds+unix:///?socket=s", -ENOTSUP, "TLS" },
		{ "nbd+vsock://1/", -ENOTSUP, "vsock" },
		{ "nbd+ssh://h/", -ENOTSUP, "ssh -L" },
		{ "https://h/x.qcow2", -ENOTSUP, "nbdkit curl" },
		{ "ssh://h/x.qcow2", -ENOTSUP, "nbdkit ssh" },
		{ "nbd:h:10809", -ENOTSUP, "nbd://HOST:PORT/EXPORT" },
		{ "nbd:h:10809:exportname=e", -ENOTSUP, "nbd://HOST:PORT/EXPORT" },
		{ "nbd:unix:/run/x:exportname=e", -ENOTSUP, "nbd+unix:///EXPORT?socket=PATH" },
		{ "json:{}", -ENOTSUP, "qemu-nbd" },
		{ "file:x.qcow2", -ENOTSUP, "without file:" },
		{ "rbd:pool/image", -ENOTSUP, "rbd map" },
		{ "HTTPS://h/x.qcow2", -ENOTSUP, "nbdkit" },
		{ "s3://bucket/x", -ENOTSUP, "nbdkit" },
		{ "iscsi://h/target/0", -ENOTSUP, "nbdkit" },
		{ "nbd://", -EINVAL, "HOST" },
		{ "nbd:///e", -EINVAL, "HOST" },
		{ "nbd://:1/e", -EINVAL, "HOST" },
		{ "nbd://[]/e", -EINVAL, "HOST" },
		{ "nbd://[::1/e", -EINVAL, "HOST" },
		{ "nbd://[::1]9/e", -EINVAL, "HOST" },
		{ "nbd://me@h/e", -EINVAL, "user" },
		{ "nbd://h:0/e", -EINVAL, "port" },
		{ "nbd://h:65536/e", -EINVAL, "port" },
		{ "nbd://h:99999999999999999999/e", -EINVAL, "port" },
		{ "nbd://h:-1/e", -EINVAL, "port" },
		{ "nbd://h:1x/e", -EINVAL, "port" },
		{ "nbd://h/e?socket=x", -EINVAL, "%3F" },
		{ "nbd://h/e?tls-psk-file=x", -EINVAL, "%3F" },
		{ "nbd://h/e#f", -EINVAL, "%23" },
		{ "nbd://h/%0", -EINVAL, "%25" },
		{ "nbd://h/%", -EINVAL, "%25" },
		{ "nbd://h/%zz", -EINVAL, "%25" },
		{ "nbd://h/a%00b", -EINVAL, "00" },
		{ "nbd+unix:///e", -EINVAL, "?socket=PATH" },
		{ "nbd+unix:///e?socket=", -EINVAL, "?socket=PATH" },
		{ "nbd+unix:///e?sock=x", -EINVAL, "socket=PATH" },
		{ "nbd+unix://h/e?socket=x", -EINVAL, "three slashes" },
		{ "nbd+unix:///e?socket=/%41", 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		struct vd_address address;
		struct vd_error err = { "" };

		assert_int_equal(vd_address_parse(rows[i].name, &address, &err), rows[i].r);
		assert_non_null(strstr(err.text, rows[i].says));
	}
}

/* A name of `count` letters behind a beginning, and perhaps something at its end. */
static int parse_long(const char *begin, size_t count, const char *end, struct vd_error *err)
{
	struct vd_address address;
	char name[9000];
	size_t length = strlen(begin);

	strcpy(name, begin);
	memset(name + length, 'a', count);
	strcpy(name + length + count, end);
	return vd_address_parse(name, &address, err);
}

static void lengths_end_at_their_limits(void **state)
{
	struct vd_error err = { "" };

	(void)state;
	assert_int_equal(parse_long("nbd://h/", 4096, "", &err), 0);
	assert_int_equal(parse_long("nbd://h/", 4097, "", &err), -EINVAL);
	assert_int_equal(parse_long("nbd://h/", 8192, "", &err), -EINVAL);
	assert_int_equal(parse_long("nbd://", 255, "/e", &err), 0);
	assert_int_equal(parse_long("nbd://", 256, "/e", &err), -EINVAL);
	assert_int_equal(parse_long("nbd+unix:///?socket=", 107, "", &err), 0);
	assert_int_equal(parse_long("nbd+unix:///?socket=", 108, "", &err), -EINVAL);
}

static bool same(const char *a, const char *b)
{
	struct vd_address first, second;

	assert_int_equal(vd_address_parse(a, &first, NULL), 0);
	assert_int_equal(vd_address_parse(b, &second, NULL), 0);
	return vd_address_same(&first, &second);
}

static void the_same_export_is_recognised(void **state)
{
	(void)state;
	assert_true(same("nbd://h/e", "nbd://h:10809/%65"));
	assert_false(same("nbd://h/e", "nbd://h/f"));
	assert_false(same("nbd://h/e", "nbd://g/e"));
	assert_false(same("nbd://h/e", "nbd://h:1/e"));
	assert_false(same("nbd://h/e", "nbd+unix:///e?socket=h"));
	assert_false(same("nbd+unix:///e?socket=h", "nbd+unix:///e?socket=i"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_with_a_scheme_are_addresses),
		cmocka_unit_test(addresses_are_taken_apart),
		cmocka_unit_test(what_is_not_understood_is_refused),
		cmocka_unit_test(lengths_end_at_their_limits),
		cmocka_unit_test(the_same_export_is_recognised),
	};

	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
