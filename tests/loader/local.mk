# SPDX-License-Identifier: MIT
# The loader, against plugins that are good, bad and odd. They are built as modules; -rpath makes
# libtool link them as shared objects although they are never installed.
dist_check_SCRIPTS += tests/loader/guide.sh
TESTS += tests/loader/guide.sh

fixture_plugins = \
	tests/loader/fixture.la \
	tests/loader/fixture-thread.la \
	tests/loader/fixture-v2.la \
	tests/loader/fixture-nodelete.la \
	tests/loader/fixture-unique.la \
	tests/loader/fixture-gomp.la

check_LTLIBRARIES += $(fixture_plugins)
fixture_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)
fixture_sources = tests/loader/fixture.c
fixture_ldflags = -module -avoid-version -shared $(FERRUM_LINK_FLAGS) -rpath /nowhere

tests_loader_fixture_la_SOURCES = $(fixture_sources)
tests_loader_fixture_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture"' -DFIXTURE_SCORE=5
tests_loader_fixture_la_LDFLAGS = $(fixture_ldflags)

tests_loader_fixture_thread_la_SOURCES = $(fixture_sources)
tests_loader_fixture_thread_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture-thread"' -DFIXTURE_SCORE=3 -DFIXTURE_THREAD
tests_loader_fixture_thread_la_LDFLAGS = $(fixture_ldflags)

tests_loader_fixture_v2_la_SOURCES = $(fixture_sources)
tests_loader_fixture_v2_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture-v2"' -DFIXTURE_SCORE=1 -DFIXTURE_SYMBOL=ferrum_plugin_query_v2
tests_loader_fixture_v2_la_LDFLAGS = $(fixture_ldflags)

tests_loader_fixture_nodelete_la_SOURCES = $(fixture_sources)
tests_loader_fixture_nodelete_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture-nodelete"' -DFIXTURE_SCORE=1
tests_loader_fixture_nodelete_la_LDFLAGS = $(fixture_ldflags) -Wl,-z,nodelete

tests_loader_fixture_unique_la_SOURCES = $(fixture_sources)
tests_loader_fixture_unique_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture-unique"' -DFIXTURE_SCORE=1 -DFIXTURE_UNIQUE
tests_loader_fixture_unique_la_LDFLAGS = $(fixture_ldflags)

tests_loader_fixture_gomp_la_SOURCES = $(fixture_sources)
tests_loader_fixture_gomp_la_CPPFLAGS = $(fixture_cppflags) \
	-DFIXTURE_NAME='"fixture-gomp"' -DFIXTURE_SCORE=1 -DFIXTURE_GOMP
tests_loader_fixture_gomp_la_LDFLAGS = $(fixture_ldflags)
tests_loader_fixture_gomp_la_LIBADD = -lgomp

if HAVE_CHECK
once_tests = \
	tests/loader/test_bad_files \
	tests/loader/test_compose \
	tests/loader/test_faults \
	tests/loader/test_open \
	tests/loader/test_options \
	tests/loader/test_probe \
	tests/loader/test_refusals \
	tests/loader/test_select \
	tests/loader/test_setuid
loader_tests = $(once_tests) tests/loader/test_reopen

check_PROGRAMS += $(loader_tests)
TESTS += $(loader_tests)
# Not the one that does the same a thousand times.
COVERAGE_TESTS += $(once_tests)
COVERAGE_NEEDS += $(fixture_plugins) backends/cpu/cpu.la backends/metal-stub/metal-stub.la ferrum-probe
THREADED_TESTS += tests/loader/test_reopen

check_LTLIBRARIES += tests/loader/libferrum-loader-test.la
loader_tests_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(top_srcdir)/plugin/include \
	$(CHECK_CFLAGS)
loader_tests_ldadd = tests/loader/libferrum-loader-test.la \
	tests/support/libferrum-test-support.la plugin/libferrum-plugin.la $(CHECK_LIBS)

tests_loader_libferrum_loader_test_la_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_libferrum_loader_test_la_SOURCES = tests/loader/support.c tests/loader/support.h

tests_loader_test_bad_files_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_bad_files_LDADD = $(loader_tests_ldadd)
tests_loader_test_compose_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_compose_SOURCES = \
	tests/loader/compose_fixture.c \
	tests/loader/compose_fixture.h \
	tests/loader/test_compose.c
tests_loader_test_compose_LDADD = $(loader_tests_ldadd) -lm
tests_loader_test_faults_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_faults_LDADD = $(loader_tests_ldadd)
tests_loader_test_open_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_open_LDADD = $(loader_tests_ldadd)
tests_loader_test_options_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_options_LDADD = $(loader_tests_ldadd)
tests_loader_test_probe_CPPFLAGS = $(loader_tests_cppflags) \
	-DFERRUM_PKGLIBDIR='"$(pkglibdir)"'
tests_loader_test_probe_LDADD = $(loader_tests_ldadd)
tests_loader_test_refusals_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_refusals_LDADD = $(loader_tests_ldadd)
tests_loader_test_reopen_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_reopen_LDADD = $(loader_tests_ldadd)
tests_loader_test_select_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_select_LDADD = $(loader_tests_ldadd)
tests_loader_test_setuid_CPPFLAGS = $(loader_tests_cppflags)
tests_loader_test_setuid_LDADD = $(loader_tests_ldadd)
endif
