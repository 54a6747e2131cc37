dnl SPDX-License-Identifier: LGPL-2.1-or-later
dnl VD_SANITIZERS: --enable-sanitizers builds everything with AddressSanitizer and
dnl UndefinedBehaviorSanitizer; any report ends the program, so a test cannot pass over it.
dnl --enable-sanitizers=thread builds with ThreadSanitizer instead: for tests/mount/threads.sh.
AC_DEFUN([VD_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers], [build with ASan and UBSan; =thread: with TSan])],
    [], [enable_sanitizers=no])
  vd_san_flags=
  AS_IF([test "x$enable_sanitizers" = xyes],
    [vd_san_flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"])
  AS_IF([test "x$enable_sanitizers" = xthread],
    [vd_san_flags="-fsanitize=thread -fno-omit-frame-pointer"])
  AC_SUBST([VD_SAN_FLAGS], [$vd_san_flags])
])
