# SPDX-License-Identifier: MIT
# What verify_ecosystem.py drives; see tests/golden/README.md.
check_PROGRAMS += tests/golden/ferrum-dump
tests_golden_ferrum_dump_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(top_srcdir)/plugin/include \
	-I$(top_srcdir)/host/include
tests_golden_ferrum_dump_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_golden_ferrum_dump_SOURCES = tests/golden/ferrum_dump.c
tests_golden_ferrum_dump_LDADD = libferrum.la host/formats/libferrum-formats.la \
	kernels/libferrum-kernels.la $(JANSSON_LIBS)
TESTS += tests/golden/verify.sh
dist_check_SCRIPTS += tests/golden/verify.sh
