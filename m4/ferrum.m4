dnl SPDX-License-Identifier: MIT

dnl FERRUM_WARNINGS: warning flags for our own code, fatal with --enable-werror (CI sets it).
AC_DEFUN([FERRUM_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])],
    [], [enable_werror=no])
  FERRUM_CFLAGS="-std=c11 -fvisibility=hidden -fno-strict-aliasing -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wno-unused-parameter"
  AS_IF([test "x$enable_werror" = xyes], [FERRUM_CFLAGS="$FERRUM_CFLAGS -Werror"])
  AC_SUBST([FERRUM_CFLAGS])
])

dnl FERRUM_ISA: which kernel libraries this host processor family can have. Each is compiled with
dnl its own flags and chosen at run time, so nothing here depends on the build machine's CPU.
AC_DEFUN([FERRUM_ISA], [
  AC_CANONICAL_HOST
  AS_CASE([$host_cpu], [x86_64|amd64], [ferrum_x86=yes], [ferrum_x86=no])
  AS_CASE([$host_cpu], [aarch64*|arm64*], [ferrum_arm=yes], [ferrum_arm=no])
  AM_CONDITIONAL([FERRUM_X86], [test $ferrum_x86 = yes])
  AM_CONDITIONAL([FERRUM_ARM], [test $ferrum_arm = yes])
])

dnl FERRUM_DEPENDENCIES: the libraries that README lists. All are required.
AC_DEFUN([FERRUM_DEPENDENCIES], [
  PKG_CHECK_MODULES([JANSSON], [jansson >= 2.13])
  PKG_CHECK_MODULES([PCRE2], [libpcre2-8 >= 10.36])
  PKG_CHECK_MODULES([UTF8PROC], [libutf8proc >= 2.5])
  PKG_CHECK_MODULES([HWLOC], [hwloc >= 2.4])
  PKG_CHECK_MODULES([POPT], [popt >= 1.18])
  PKG_CHECK_MODULES([CHECK], [check >= 0.15], [have_check=yes], [have_check=no])
  AM_CONDITIONAL([HAVE_CHECK], [test $have_check = yes])
  AC_SEARCH_LIBS([dlopen], [dl], [], [AC_MSG_ERROR([dlopen is required])])
  AC_SEARCH_LIBS([pthread_create], [pthread], [], [AC_MSG_ERROR([POSIX threads are required])])
])

dnl FERRUM_SANITIZERS: --enable-sanitizers=address,undefined or =thread.
AC_DEFUN([FERRUM_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers=LIST], [build with -fsanitize=LIST])],
    [], [enable_sanitizers=no])
  AS_IF([test "x$enable_sanitizers" != xno], [
    FERRUM_SAN_FLAGS="-fsanitize=$enable_sanitizers -fno-omit-frame-pointer -fno-sanitize-recover=undefined"
    FERRUM_CFLAGS="$FERRUM_CFLAGS $FERRUM_SAN_FLAGS"
  ])
  AM_CONDITIONAL([FERRUM_SANITIZED], [test "x$enable_sanitizers" != xno])
  AC_SUBST([FERRUM_SAN_FLAGS])
])
