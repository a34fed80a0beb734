# SPDX-License-Identifier: MIT
# Plugins that do their worst; tests/hostile/table.c says what has to come of each.
hostile_plugins = \
	tests/hostile/hostile.la \
	tests/hostile/hostile-constructor.la \
	tests/hostile/hostile-execstack.la \
	tests/hostile/hostile-imports.la \
	tests/hostile/hostile-nodelete.la \
	tests/hostile/hostile-symbol.la \
	tests/hostile/hostile-thread.la \
	tests/hostile/hostile-undefined.la \
	tests/hostile/hostile-v7.la
check_LTLIBRARIES += $(hostile_plugins)
hostile_sources = tests/hostile/hostile.c
hostile_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)
hostile_ldflags = -module -avoid-version -shared -rpath /nowhere

tests_hostile_hostile_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_la_CPPFLAGS = $(hostile_cppflags)
tests_hostile_hostile_la_LDFLAGS = $(hostile_ldflags)

tests_hostile_hostile_constructor_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_constructor_la_CPPFLAGS = $(hostile_cppflags) -DHOSTILE_CONSTRUCTOR
tests_hostile_hostile_constructor_la_LDFLAGS = $(hostile_ldflags)

tests_hostile_hostile_execstack_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_execstack_la_CPPFLAGS = $(hostile_cppflags)
tests_hostile_hostile_execstack_la_LDFLAGS = $(hostile_ldflags) -Wl,-z,execstack

tests_hostile_hostile_imports_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_imports_la_CPPFLAGS = $(hostile_cppflags) -DHOSTILE_IMPORTS
tests_hostile_hostile_imports_la_LDFLAGS = $(hostile_ldflags)

tests_hostile_hostile_nodelete_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_nodelete_la_CPPFLAGS = $(hostile_cppflags)
tests_hostile_hostile_nodelete_la_LDFLAGS = $(hostile_ldflags) -Wl,-z,nodelete

tests_hostile_hostile_symbol_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_symbol_la_CPPFLAGS = $(hostile_cppflags) -DHOSTILE_SYMBOL=hello
tests_hostile_hostile_symbol_la_LDFLAGS = $(hostile_ldflags)

tests_hostile_hostile_thread_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_thread_la_CPPFLAGS = $(hostile_cppflags) -DHOSTILE_THREAD
tests_hostile_hostile_thread_la_LDFLAGS = $(hostile_ldflags)

tests_hostile_hostile_undefined_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_undefined_la_CPPFLAGS = $(hostile_cppflags) -DHOSTILE_UNDEFINED
tests_hostile_hostile_undefined_la_LDFLAGS = $(hostile_ldflags) -Wl,-z,lazy

tests_hostile_hostile_v7_la_SOURCES = $(hostile_sources)
tests_hostile_hostile_v7_la_CPPFLAGS = $(hostile_cppflags) \
	-DHOSTILE_SYMBOL=ferrum_plugin_query_v7
tests_hostile_hostile_v7_la_LDFLAGS = $(hostile_ldflags)

if HAVE_CHECK
check_PROGRAMS += tests/hostile/test_hostile
TESTS += tests/hostile/test_hostile
COVERAGE_TESTS += tests/hostile/test_hostile
COVERAGE_NEEDS += $(hostile_plugins) ferrum-probe ferrum
tests_hostile_test_hostile_CPPFLAGS = $(loader_tests_cppflags)
tests_hostile_test_hostile_SOURCES = \
	tests/hostile/guard.c \
	tests/hostile/hostile.h \
	tests/hostile/table.c \
	tests/hostile/test_hostile.c
tests_hostile_test_hostile_LDADD = $(loader_tests_ldadd)
endif
