# SPDX-License-Identifier: MIT
# Exchanging the backend under traffic: 500 swaps in check, 10,000 in check-long.
if HAVE_CHECK
swap_tests = \
	tests/swap/test_kv_migrate \
	tests/swap/test_load \
	tests/swap/test_swap \
	tests/swap/test_swap_layers
check_PROGRAMS += $(swap_tests)
TESTS += $(swap_tests)
THREADED_TESTS += $(swap_tests)
THREADED_NEEDS += tests/swap/shim.la
check_LTLIBRARIES += tests/swap/libswap-test.la

swap_tests_cppflags = $(model_tests_cppflags)
swap_tests_ldadd = \
	tests/swap/libswap-test.la \
	host/swap/libferrum-swap.la \
	$(model_tests_ldadd) \
	host/reference/libferrum-reference.la
# What the runtime needs of a library that is named before it.
swap_tests_ldflags = -Wl,-u,ferrum_moe_env_parse
tests_swap_libswap_test_la_CPPFLAGS = $(swap_tests_cppflags)
tests_swap_libswap_test_la_SOURCES = \
	tests/swap/clients.c tests/swap/clients.h \
	tests/swap/fixture.c tests/swap/fixture.h \
	tests/swap/process.c tests/swap/process.h

tests_swap_test_kv_migrate_CPPFLAGS = $(swap_tests_cppflags)
tests_swap_test_kv_migrate_LDADD = $(swap_tests_ldadd)
tests_swap_test_kv_migrate_LDFLAGS = $(swap_tests_ldflags)
tests_swap_test_load_CPPFLAGS = $(swap_tests_cppflags)
tests_swap_test_load_LDADD = $(swap_tests_ldadd)
tests_swap_test_swap_CPPFLAGS = $(swap_tests_cppflags)
tests_swap_test_swap_LDADD = $(swap_tests_ldadd)
tests_swap_test_swap_layers_CPPFLAGS = $(swap_tests_cppflags)
tests_swap_test_swap_layers_LDADD = $(swap_tests_ldadd)
tests_swap_test_swap_layers_LDFLAGS = $(swap_tests_ldflags)

# The cpu plugin with a fault; it maps cpu.so itself.
check_LTLIBRARIES += tests/swap/shim.la
tests_swap_shim_la_SOURCES = tests/swap/shim.c
tests_swap_shim_la_CPPFLAGS = $(AM_CPPFLAGS) \
	-DSHIM_CPU='"$(abs_top_builddir)/backends/cpu/.libs/cpu.so"'
tests_swap_shim_la_LDFLAGS = -module -avoid-version -shared $(FERRUM_LINK_FLAGS) -rpath /nowhere
endif

# The example that users compile against the installed library, here against the built one.
check_PROGRAMS += docs/examples/server_swap
docs_examples_server_swap_CPPFLAGS = $(host_cppflags)
docs_examples_server_swap_LDADD = libferrum.la
dist_check_SCRIPTS += tests/swap/server.sh
TESTS += tests/swap/server.sh

long_checks += check-long-swap
check-long-swap: tests/swap/test_load backends/cpu/cpu.la
	$(AM_TESTS_ENVIRONMENT) FERRUM_TEST_SWAPS=10000 tests/swap/test_load
phony_targets += check-long-swap
