# SPDX-License-Identifier: MIT
# The runtime and the MoE orchestration. Tests in moe_plugin_tests open the cpu plugin and skip
# themselves where it was not built.
if HAVE_CHECK
moe_unit_tests = \
	tests/moe/test_bucket_plan \
	tests/moe/test_executor \
	tests/moe/test_options \
	tests/moe/test_machine \
	tests/moe/test_router
moe_plugin_tests = \
	tests/moe/test_experts \
	tests/moe/test_layer \
	tests/moe/test_paths \
	tests/moe/test_steady

check_PROGRAMS += $(moe_unit_tests) $(moe_plugin_tests)
TESTS += $(moe_unit_tests) $(moe_plugin_tests)
THREADED_TESTS += tests/moe/test_executor tests/moe/test_layer tests/moe/test_paths
check_LTLIBRARIES += tests/moe/libfixture.la

# Internals are not exported by libferrum.so, so tests link what it is made of.
moe_tests_cppflags = $(host_cppflags) $(CHECK_CFLAGS)
moe_tests_ldadd = \
	tests/support/libferrum-test-support.la \
	host/moe/libferrum-moe.la \
	host/runtime/libferrum-runtime.la \
	host/formats/libferrum-formats.la \
	plugin/libferrum-plugin.la \
	$(CHECK_LIBS)
moe_plugin_tests_ldadd = \
	tests/moe/libfixture.la \
	tests/kernels/libfixture.la \
	host/reference/libferrum-reference.la \
	$(moe_tests_ldadd)

tests_moe_libfixture_la_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_libfixture_la_SOURCES = tests/moe/fixture.c tests/moe/fixture.h tests/moe/random.h

tests_moe_test_bucket_plan_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_bucket_plan_LDADD = $(moe_tests_ldadd)
tests_moe_test_executor_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_executor_LDADD = $(moe_tests_ldadd)
tests_moe_test_experts_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_experts_LDADD = $(moe_plugin_tests_ldadd)
tests_moe_test_layer_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_layer_LDADD = $(moe_plugin_tests_ldadd)
tests_moe_test_machine_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_machine_LDADD = $(moe_tests_ldadd)
tests_moe_test_options_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_options_LDADD = $(moe_tests_ldadd)
tests_moe_test_paths_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_paths_LDADD = $(moe_plugin_tests_ldadd)
tests_moe_test_router_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_router_LDADD = $(moe_tests_ldadd)
tests_moe_test_steady_CPPFLAGS = $(moe_tests_cppflags)
tests_moe_test_steady_LDADD = $(moe_plugin_tests_ldadd)
endif

# The example that users compile against the installed library, here against the built one.
check_PROGRAMS += docs/examples/moe_layer
TESTS += docs/examples/moe_layer
docs_examples_moe_layer_CPPFLAGS = $(host_cppflags)
docs_examples_moe_layer_LDADD = libferrum.la
