# SPDX-License-Identifier: MIT
# The cpu backend from inside: its objects are linked in, no loader is involved.
if HAVE_CHECK
cpu_tests = \
	tests/cpu/test_attention \
	tests/cpu/test_device \
	tests/cpu/test_experts \
	tests/cpu/test_faults \
	tests/cpu/test_ffn_plan \
	tests/cpu/test_linear \
	tests/cpu/test_memory \
	tests/cpu/test_ops \
	tests/cpu/test_routing \
	tests/cpu/test_stacked \
	tests/cpu/test_tiles

check_PROGRAMS += $(cpu_tests)
TESTS += $(cpu_tests)
THREADED_TESTS += $(cpu_tests)
check_LTLIBRARIES += tests/cpu/libfixture.la

cpu_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) $(CHECK_CFLAGS)
cpu_tests_ldadd = tests/cpu/libfixture.la tests/support/libferrum-test-support.la \
	backends/cpu/libferrum-cpu.la $(CHECK_LIBS) -lm

tests_cpu_libfixture_la_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_libfixture_la_SOURCES = \
	tests/cpu/fixture.c tests/cpu/fixture.h \
	tests/cpu/layer.c tests/cpu/layer.h \
	tests/cpu/weights.c tests/cpu/weights.h

tests_cpu_test_attention_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_attention_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_device_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_device_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_experts_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_experts_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_faults_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_faults_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_ffn_plan_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_ffn_plan_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_linear_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_linear_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_memory_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_memory_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_ops_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_ops_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_routing_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_routing_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_stacked_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_stacked_LDADD = $(cpu_tests_ldadd)
tests_cpu_test_tiles_CPPFLAGS = $(cpu_tests_cppflags)
tests_cpu_test_tiles_LDADD = $(cpu_tests_ldadd)
endif
