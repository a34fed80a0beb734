# SPDX-License-Identifier: MIT
# Every call to the operating system or to a library fails once; see tests/support/faults.h.
if HAVE_CHECK
fault_ldflags = \
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=posix_memalign \
	-Wl,--wrap=free,--wrap=open,--wrap=read,--wrap=write,--wrap=fstat,--wrap=stat,--wrap=fcntl \
	-Wl,--wrap=mmap,--wrap=memfd_create,--wrap=ftruncate,--wrap=opendir,--wrap=fdopendir \
	-Wl,--wrap=fopen,--wrap=dlopen,--wrap=dlclose,--wrap=dlsym \
	-Wl,--wrap=pthread_create,--wrap=pthread_mutex_init \
	-Wl,--wrap=pthread_cond_init,--wrap=hwloc_topology_init,--wrap=hwloc_topology_load \
	-Wl,--wrap=pipe2,--wrap=posix_spawn,--wrap=posix_spawn_file_actions_init \
	-Wl,--wrap=posix_spawn_file_actions_addopen,--wrap=posix_spawn_file_actions_adddup2 \
	-Wl,--wrap=posix_spawnattr_init,--wrap=posix_spawnattr_setsigmask \
	-Wl,--wrap=posix_spawnattr_setsigdefault,--wrap=posix_spawnattr_setflags \
	-Wl,--wrap=pcre2_compile_8,--wrap=pcre2_match_data_create_8 \
	-Wl,--wrap=pcre2_match_context_create_8,--wrap=utf8proc_map

check_LTLIBRARIES += tests/support/libferrum-test-faults.la
tests_support_libferrum_test_faults_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) \
	$(CHECK_CFLAGS) $(JANSSON_CFLAGS) $(PCRE2_CFLAGS) $(UTF8PROC_CFLAGS) $(HWLOC_CFLAGS)
tests_support_libferrum_test_faults_la_SOURCES = \
	tests/support/faults.c tests/support/faults.h \
	tests/support/faults_wrapped.c tests/support/faults_wrapped.h
tests_support_libferrum_test_faults_la_LIBADD = \
	$(JANSSON_LIBS) $(PCRE2_LIBS) $(UTF8PROC_LIBS) $(HWLOC_LIBS)

fault_tests = \
	tests/faults/test_compose \
	tests/faults/test_files \
	tests/faults/test_plugins \
	tests/faults/test_runtime
check_PROGRAMS += $(fault_tests)
TESTS += $(fault_tests)
COVERAGE_TESTS += tests/faults/test_compose tests/faults/test_files tests/faults/test_plugins
fault_cppflags = $(host_cppflags) $(CHECK_CFLAGS) $(JANSSON_CFLAGS)

tests_faults_test_files_CPPFLAGS = $(fault_cppflags)
tests_faults_test_files_LDFLAGS = $(fault_ldflags)
tests_faults_test_files_LDADD = tests/text/libtinyvocab.la \
	tests/support/libferrum-test-support.la host/text/libferrum-text.la \
	host/formats/libferrum-formats.la tests/support/libferrum-test-faults.la $(CHECK_LIBS)

tests_faults_test_compose_CPPFLAGS = $(fault_cppflags)
tests_faults_test_compose_LDFLAGS = $(fault_ldflags)
tests_faults_test_compose_LDADD = tests/loader/libferrum-loader-test.la \
	tests/support/libferrum-test-support.la plugin/libferrum-plugin.la \
	tests/support/libferrum-test-faults.la $(CHECK_LIBS)

tests_faults_test_plugins_CPPFLAGS = $(fault_cppflags)
tests_faults_test_plugins_LDFLAGS = $(fault_ldflags)
tests_faults_test_plugins_LDADD = tests/loader/libferrum-loader-test.la \
	tests/support/libferrum-test-support.la plugin/libferrum-plugin.la \
	tests/support/libferrum-test-faults.la $(CHECK_LIBS)

tests_faults_test_runtime_CPPFLAGS = $(fault_cppflags)
tests_faults_test_runtime_LDFLAGS = $(fault_ldflags)
tests_faults_test_runtime_LDADD = host/swap/libferrum-swap.la $(model_tests_ldadd) \
	host/reference/libferrum-reference.la tests/support/libferrum-test-faults.la

long_checks += check-long-faults
check-long-faults: tests/faults/test_runtime backends/cpu/cpu.la
	$(AM_TESTS_ENVIRONMENT) FERRUM_TEST_FAULT_STEP=1 tests/faults/test_runtime
phony_targets += check-long-faults
endif
