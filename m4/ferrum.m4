dnl SPDX-License-Identifier: MIT

dnl FERRUM_WARNINGS: flags for our own code; warnings are fatal with --enable-werror (CI sets it).
AC_DEFUN([FERRUM_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])],
    [], [enable_werror=no])
  FERRUM_CFLAGS="-std=c11 -fvisibility=hidden -fno-strict-aliasing -ffp-contract=off"
  FERRUM_CFLAGS="$FERRUM_CFLAGS -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes"
  FERRUM_CFLAGS="$FERRUM_CFLAGS -Wmissing-prototypes -Wvla -Wformat=2 -Wno-unused-parameter"
  AS_IF([test "x$enable_werror" = xyes],
    [FERRUM_CFLAGS="$FERRUM_CFLAGS -Werror"
     SANITIZE_ARGS=--enable-werror],
    [SANITIZE_ARGS=])
  AC_SUBST([FERRUM_CFLAGS])
  AC_SUBST([SANITIZE_ARGS])
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

dnl FERRUM_DEPENDENCIES: the libraries that README lists. Only Check, for the tests, is optional.
AC_DEFUN([FERRUM_DEPENDENCIES], [
  PKG_CHECK_MODULES([JANSSON], [jansson >= 2.13])
  PKG_CHECK_MODULES([PCRE2], [libpcre2-8 >= 10.36])
  PKG_CHECK_MODULES([UTF8PROC], [libutf8proc >= 2.5])
  PKG_CHECK_MODULES([HWLOC], [hwloc >= 2.1])
  PKG_CHECK_MODULES([POPT], [popt >= 1.18])
  PKG_CHECK_MODULES([CHECK], [check >= 0.15], [have_check=yes],
    [have_check=no
     AC_MSG_WARN([Check 0.15 or later is missing: make check will leave out the unit tests])])
  AM_CONDITIONAL([HAVE_CHECK], [test $have_check = yes])
  AC_SEARCH_LIBS([dlopen], [dl], [], [AC_MSG_ERROR([dlopen is required])])
  AC_SEARCH_LIBS([pthread_create], [pthread], [], [AC_MSG_ERROR([POSIX threads are required])])
])

dnl FERRUM_LINKING: flags for shared objects. Call it before FERRUM_SANITIZERS.
AC_DEFUN([FERRUM_LINKING], [
  FERRUM_LINK_FLAGS="-Wl,-z,relro,-z,now -Wl,-z,defs"
  AC_SUBST([FERRUM_LINK_FLAGS])
])

dnl FERRUM_SANITIZERS: --enable-sanitizers=address,undefined or =thread. The flag goes into CFLAGS
dnl and CXXFLAGS, so that no target escapes it. A sanitized shared object leaves the runtime's symbols to the
dnl executable, so -z,defs goes. With clang's fuzzer-no-link among them, the fuzz harnesses are linked
dnl with libFuzzer. Call it last: configure's own tests need no sanitizer.
AC_DEFUN([FERRUM_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers=LIST], [build with -fsanitize=LIST])],
    [], [enable_sanitizers=no])
  AS_IF([test "x$enable_sanitizers" != xno], [
    CFLAGS="$CFLAGS -fsanitize=$enable_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
    CXXFLAGS="$CXXFLAGS -fsanitize=$enable_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
    FERRUM_LINK_FLAGS="-Wl,-z,relro,-z,now"
  ])
  AM_CONDITIONAL([FERRUM_SANITIZED], [test "x$enable_sanitizers" != xno])
  AS_CASE([$enable_sanitizers], [*fuzzer*], [ferrum_fuzzing=yes], [ferrum_fuzzing=no])
  AM_CONDITIONAL([FERRUM_FUZZING], [test $ferrum_fuzzing = yes])
])
