dnl SPDX-License-Identifier: LGPL-2.1-or-later
dnl VD_HARDENING: compiler and linker flags that make an exploit harder. On by default,
dnl each tested, so that an old compiler builds with what it has.

dnl VD_TRY_CFLAG(FLAG): append FLAG to vd_hard_cflags if the compiler takes it.
AC_DEFUN([VD_TRY_CFLAG], [
  vd_save_cflags=$CFLAGS
  CFLAGS="$CFLAGS -O2 -Werror $1"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [vd_hard_cflags="$vd_hard_cflags $1"])
  CFLAGS=$vd_save_cflags
])

dnl VD_TRY_LDFLAG(FLAG): the same for the linker.
AC_DEFUN([VD_TRY_LDFLAG], [
  vd_save_ldflags=$LDFLAGS
  LDFLAGS="$LDFLAGS $1"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [vd_hard_ldflags="$vd_hard_ldflags $1"])
  LDFLAGS=$vd_save_ldflags
])

AC_DEFUN([VD_HARDENING], [
  AC_ARG_ENABLE([hardening],
    [AS_HELP_STRING([--disable-hardening], [build without hardening flags])],
    [], [enable_hardening=yes])
  vd_hard_cflags= vd_hard_ldflags= vd_hardening=no
  AS_IF([test "x$enable_hardening" = xyes], [
    vd_hardening=yes
    VD_TRY_CFLAG([-fstack-protector-strong])
    VD_TRY_CFLAG([-fstack-clash-protection])
    VD_TRY_CFLAG([-fcf-protection])
    dnl A sanitizer checks more than fortify does and is confused by it.
    AS_IF([test "x$enable_sanitizers" = xno],
      [VD_TRY_CFLAG([-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2])])
    VD_TRY_CFLAG([-fPIE])
    VD_TRY_LDFLAG([-pie])
    VD_TRY_LDFLAG([-Wl,-z,relro])
    VD_TRY_LDFLAG([-Wl,-z,now])
    VD_TRY_LDFLAG([-Wl,-z,noexecstack])
  ])
  AC_SUBST([VD_HARD_CFLAGS], [$vd_hard_cflags])
  AC_SUBST([VD_HARD_LDFLAGS], [$vd_hard_ldflags])
])
