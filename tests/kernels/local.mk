# SPDX-License-Identifier: MIT
# Every kernel set that this processor can run; bench_kernels and packed_bench are built by
# `make check` but not run.
if HAVE_CHECK
kernel_tests = \
	tests/kernels/test_dequant \
	tests/kernels/test_gptq \
	tests/kernels/test_matmul \
	tests/kernels/test_packed \
	tests/kernels/test_select \
	tests/kernels/test_vector

check_PROGRAMS += $(kernel_tests)
TESTS += $(kernel_tests)
check_LTLIBRARIES += tests/kernels/libfixture.la

kernel_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) $(CHECK_CFLAGS)
kernel_tests_ldadd = tests/kernels/libfixture.la kernels/libferrum-kernels.la $(CHECK_LIBS)

tests_kernels_libfixture_la_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_libfixture_la_SOURCES = tests/kernels/fixture.c tests/kernels/fixture.h

tests_kernels_test_dequant_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_dequant_LDADD = $(kernel_tests_ldadd)
tests_kernels_test_gptq_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_gptq_LDADD = $(kernel_tests_ldadd)
tests_kernels_test_matmul_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_matmul_LDADD = $(kernel_tests_ldadd)
tests_kernels_test_packed_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_packed_LDADD = $(kernel_tests_ldadd)
tests_kernels_test_select_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_select_LDADD = $(kernel_tests_ldadd)
tests_kernels_test_vector_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_vector_LDADD = $(kernel_tests_ldadd)
endif

if FERRUM_X86
if HAVE_CHECK
check_LTLIBRARIES += tests/kernels/libamx.la
tests_kernels_libamx_la_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_libamx_la_CFLAGS = $(AM_CFLAGS) $(avx512vnni_cflags)
tests_kernels_libamx_la_SOURCES = tests/kernels/amx_emulated.c tests/kernels/amx_emulated.h

check_PROGRAMS += tests/kernels/test_amx
TESTS += tests/kernels/test_amx
tests_kernels_test_amx_CPPFLAGS = $(kernel_tests_cppflags)
tests_kernels_test_amx_LDADD = tests/kernels/libamx.la $(kernel_tests_ldadd)
endif
endif

check_PROGRAMS += tests/kernels/bench_kernels
tests_kernels_bench_kernels_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
tests_kernels_bench_kernels_LDADD = kernels/libferrum-kernels.la

check_PROGRAMS += tests/bench/packed_bench
tests_bench_packed_bench_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
tests_bench_packed_bench_LDADD = kernels/libferrum-kernels.la

include tests/arm/local.mk
