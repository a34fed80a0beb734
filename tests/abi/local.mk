# SPDX-License-Identifier: MIT
# Other minors of the ABI: records of their types, hosts and plugins of the next one.
ABI_TESTS = tests/abi/abidiff.sh tests/abi/minors.sh
dist_check_SCRIPTS += $(ABI_TESTS)
if !FERRUM_SANITIZED
TESTS += $(ABI_TESTS)
endif
EXTRA_DIST += \
	tests/abi/abi-1.0.xml \
	tests/abi/list-structs.awk \
	tests/abi/next-minor.awk

check_PROGRAMS += tests/abi/host
tests_abi_host_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/plugin/include
tests_abi_host_SOURCES = tests/abi/host.c
tests_abi_host_LDADD = libferrum.la

# After a change of the headers of an ABI minor that is not released yet.
update-abi: update-offsets
	FERRUM_TEST_SRCDIR='$(abs_top_srcdir)' CC='$(CC)' \
		$(SHELL) '$(srcdir)/tests/abi/abidiff.sh' --update
phony_targets += update-abi
