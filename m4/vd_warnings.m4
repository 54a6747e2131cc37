dnl SPDX-License-Identifier: LGPL-2.1-or-later
dnl VD_WARNINGS: the warnings that every file of vdifs is free of. --enable-werror
dnl makes them errors; CI sets it, a user's newer compiler is not stopped by it.
AC_DEFUN([VD_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [turn compiler warnings into errors])],
    [], [enable_werror=no])
  vd_warn_cflags="-Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wpointer-arith"
  AS_IF([test "x$enable_werror" = xyes], [vd_warn_cflags="$vd_warn_cflags -Werror"])
  AC_SUBST([VD_WARN_CFLAGS], [$vd_warn_cflags])
])
