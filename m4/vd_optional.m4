dnl SPDX-License-Identifier: LGPL-2.1-or-later
dnl VD_OPTIONAL(NAME, PREFIX, MODULE, WHAT-FOR): --with-NAME=auto|yes|no for a pkg-config module that is
dnl used when it is there. Defines HAVE_PREFIX, PREFIX_CFLAGS, PREFIX_LIBS and $vd_with_NAME.
AC_DEFUN([VD_OPTIONAL], [
  AC_ARG_WITH([$1],
    [AS_HELP_STRING([--with-$1], [use $3 for $4 @<:@auto@:>@])],
    [vd_with_$1=$withval], [vd_with_$1=auto])
  AS_IF([test "x$vd_with_$1" != xno], [
    PKG_CHECK_MODULES([$2], [$3], [vd_have=yes], [vd_have=no])
    AS_IF([test "x$vd_have" = xyes],
        [AC_DEFINE([HAVE_$2], [1], [Have $3: $4.])],
      [test "x$vd_with_$1" = xyes],
        [AC_MSG_ERROR([--with-$1 was given, but there is no $3])])
    vd_with_$1=$vd_have
  ])
])
