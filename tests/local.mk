# SPDX-License-Identifier: MIT

# What every test may rely on. CC and CXX are for the scripts that compile something.
AM_TESTS_ENVIRONMENT = \
	FERRUM_TEST_SRCDIR='$(abs_top_srcdir)'; export FERRUM_TEST_SRCDIR; \
	FERRUM_TEST_BUILDDIR='$(abs_top_builddir)'; export FERRUM_TEST_BUILDDIR; \
	FERRUM_PLUGIN_PATH='$(abs_top_builddir)/backends/cpu/.libs:$(abs_top_builddir)/backends/metal-stub/.libs'; \
	export FERRUM_PLUGIN_PATH; \
	CC='$(CC)'; export CC; \
	CK_DEFAULT_TIMEOUT=300; export CK_DEFAULT_TIMEOUT;
SH_LOG_COMPILER = $(SHELL)

