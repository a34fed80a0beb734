dnl SPDX-License-Identifier: MIT

dnl FERRUM_CUDA: nvcc, for the kernels of the cuda backend; and g++, for the tests that compile the
dnl same kernels for the host. --with-cuda=auto (the default) builds the backend where nvcc 12.8 or
dnl later is found on PATH, in CUDA_HOME, or in pip's nvidia packages; a DIR is a toolkit's directory.
dnl Call it after FERRUM_WARNINGS, to whose SANITIZE_ARGS it adds.
AC_DEFUN([FERRUM_CUDA], [
  AC_ARG_WITH([cuda],
    [AS_HELP_STRING([--with-cuda=auto|yes|no|DIR],
      [build the CUDA backend with nvcc from PATH, CUDA_HOME, pip, or the toolkit in DIR])],
    [], [with_cuda=auto])
  AC_ARG_VAR([NVCC], [CUDA compiler])
  AC_ARG_VAR([CUDA_HOME], [directory of a CUDA toolkit])

  dnl `make check-san` configures again; it needs the same answer.
  AS_IF([test "x$with_cuda" != xauto],
    [SANITIZE_ARGS="$SANITIZE_ARGS --with-cuda=$with_cuda"])
  AS_IF([test "x$with_cuda" = xno], [NVCC=],
    [test "x$with_cuda" != xauto && test "x$with_cuda" != xyes],
    [AC_PATH_PROG([NVCC], [nvcc], [], [$with_cuda/bin])],
    [AC_PATH_PROG([NVCC], [nvcc], [],
      [$PATH$PATH_SEPARATOR$CUDA_HOME/bin$PATH_SEPARATOR/usr/local/cuda/bin])
     AS_IF([test -z "$NVCC"], [FERRUM_CUDA_FROM_PIP])])

  ferrum_cuda=no
  AS_IF([test -n "$NVCC"], [
    AC_CACHE_CHECK([whether $NVCC compiles for sm_80 and sm_120], [ferrum_cv_nvcc_works], [
      ferrum_cv_nvcc_works=no
      echo 'extern "C" __global__ void kernel(float *x) { *x = 1; }' >conftest.cu
      AS_IF([$NVCC -std=c++17 -gencode arch=compute_80,code=sm_80 \
          -gencode arch=compute_120,code=sm_120 -fatbin -o conftest.fatbin conftest.cu \
          >&AS_MESSAGE_LOG_FD 2>&1], [ferrum_cv_nvcc_works=yes])
      rm -f conftest.cu conftest.fatbin
    ])
    ferrum_cuda=$ferrum_cv_nvcc_works
  ])
  AS_IF([test $ferrum_cuda = no && test "x$with_cuda" != xno && test "x$with_cuda" != xauto],
    [AC_MSG_ERROR([--with-cuda=$with_cuda, but no nvcc 12.8 or later works; see config.log])])
  AS_IF([test $ferrum_cuda = no && test "x$with_cuda" = xauto],
    [AC_MSG_WARN([no nvcc 12.8 or later: the cuda backend is left out])])
  AM_CONDITIONAL([FERRUM_CUDA], [test $ferrum_cuda = yes])

  FERRUM_CUDA_EMULATOR
])

dnl FERRUM_CUDA_FROM_PIP: nvcc of the Python package nvidia-cuda-nvcc, if there is one.
AC_DEFUN([FERRUM_CUDA_FROM_PIP], [
  AC_MSG_CHECKING([for nvcc in pip's nvidia packages])
  NVCC=`python3 -c '
import glob, site, sys
roots = sys.path + site.getsitepackages() + @<:@site.getusersitepackages()@:>@
found = @<:@f for root in roots for f in glob.glob(root + "/nvidia/**/bin/nvcc", recursive=True)@:>@
print(found@<:@0@:>@ if found else "")' 2>/dev/null`
  AC_MSG_RESULT([${NVCC:-none}])
])

dnl FERRUM_CUDA_EMULATOR: the emulated driver needs a C++17 compiler that takes .cu files as C++.
AC_DEFUN([FERRUM_CUDA_EMULATOR], [
  AC_CACHE_CHECK([whether $CXX compiles C++17], [ferrum_cv_cxx_works], [
    ferrum_cv_cxx_works=no
    AC_LANG_PUSH([C++])
    ferrum_save_CXXFLAGS=$CXXFLAGS
    CXXFLAGS="$CXXFLAGS -std=c++17"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [[static_assert(__cplusplus >= 201703L);
      const int line = __builtin_LINE(); return line < 0;]])],
      [ferrum_cv_cxx_works=yes])
    CXXFLAGS=$ferrum_save_CXXFLAGS
    AC_LANG_POP([C++])
  ])
  AM_CONDITIONAL([FERRUM_CUDA_EMU], [test $ferrum_cv_cxx_works = yes])
])
