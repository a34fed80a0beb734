# SPDX-License-Identifier: MIT

# What every test may rely on. CC is for the scripts that compile something. Tests that ask for
# impossible sizes want NULL, also from the allocator of a sanitizer.
AM_TESTS_ENVIRONMENT = \
	FERRUM_TEST_SRCDIR='$(abs_top_srcdir)'; export FERRUM_TEST_SRCDIR; \
	FERRUM_TEST_BUILDDIR='$(abs_top_builddir)'; export FERRUM_TEST_BUILDDIR; \
	FERRUM_PLUGIN_PATH='$(abs_top_builddir)/backends/cpu/.libs:$(abs_top_builddir)/backends/metal-stub/.libs'; \
	export FERRUM_PLUGIN_PATH; \
	CC='$(CC)'; export CC; \
	CK_DEFAULT_TIMEOUT=300; export CK_DEFAULT_TIMEOUT; \
	ASAN_OPTIONS=allocator_may_return_null=1; export ASAN_OPTIONS; \
	TSAN_OPTIONS=allocator_may_return_null=1; export TSAN_OPTIONS;
SH_LOG_COMPILER = $(SHELL)

# Rules about the tree itself. They do not depend on how it is compiled, so once is enough.
TREE_CHECKS = \
	tests/checks/cppcheck.sh \
	tests/checks/cuda-evidence.sh \
	tests/checks/cuda-kernels.sh \
	tests/checks/doc-density.sh \
	tests/checks/env-table.sh \
	tests/checks/format.sh \
	tests/checks/headers.sh \
	tests/checks/hygiene.sh \
	tests/checks/includes.sh \
	tests/checks/offsets.sh \
	tests/checks/spdx.sh \
	tests/checks/symbols.sh
dist_check_SCRIPTS += $(TREE_CHECKS)
if !FERRUM_SANITIZED
TESTS += $(TREE_CHECKS)
endif
EXTRA_DIST += tests/checks/cppcheck.suppress tests/checks/installed.sh tests/golden
dist-hook:
	find '$(distdir)' -name __pycache__ -exec rm -rf {} +

# `make check-san` repeats the tests under AddressSanitizer and UndefinedBehaviorSanitizer, and
# those in THREADED_TESTS (and THREADED_NEEDS, what they run) under ThreadSanitizer, each in a build
# directory next to this one.
THREADED_NEEDS =
SANITIZE = FERRUM_TEST_SRCDIR='$(abs_top_srcdir)' MAKE='$(MAKE)' $(SHELL) \
	'$(srcdir)/tests/sanitize.sh'
check-san: check-asan check-tsan
check-asan:
	+$(SANITIZE) asan '$(abs_top_builddir)-asan' $(SANITIZE_ARGS)
check-tsan:
	+$(SANITIZE) tsan '$(abs_top_builddir)-tsan' $(SANITIZE_ARGS)
check-threaded: all $(THREADED_TESTS) $(THREADED_NEEDS)
	$(MAKE) check-TESTS TESTS='$(THREADED_TESTS)'
EXTRA_DIST += tests/sanitize.sh

# `make coverage` shows the branch coverage of the loader and of the parsers by their own tests.
COVERAGE_TESTS =
COVERAGE_NEEDS =
coverage:
	+FERRUM_TEST_SRCDIR='$(abs_top_srcdir)' MAKE='$(MAKE)' $(SHELL) \
		'$(srcdir)/tests/coverage.sh' '$(abs_top_builddir)-coverage'
run-coverage: $(COVERAGE_TESTS) $(COVERAGE_NEEDS)
	@$(AM_TESTS_ENVIRONMENT) for test in $(COVERAGE_TESTS); do \
		./$$test >/dev/null || { echo "$$test failed"; exit 1; }; \
	done
EXTRA_DIST += tests/coverage.sh

# Install into a scratch directory and use Ferrum from there, as a stranger would.
check-installed: all
	rm -rf tests/installed
	$(MAKE) install DESTDIR='$(abs_top_builddir)/tests/installed' >/dev/null
	$(MAKE) installcheck DESTDIR='$(abs_top_builddir)/tests/installed'
installcheck-local:
	@$(MKDIR_P) tests/checks
	$(AM_TESTS_ENVIRONMENT) \
	bindir='$(DESTDIR)$(bindir)' libdir='$(DESTDIR)$(libdir)' \
	libexecdir='$(DESTDIR)$(pkglibexecdir)' \
	PKG_CONFIG_PATH='$(DESTDIR)$(pkgconfigdir)' PKG_CONFIG_SYSROOT_DIR='$(DESTDIR)' \
	$(SHELL) '$(top_srcdir)/build-aux/test-driver' --test-name tests/checks/installed.sh \
		--log-file tests/checks/installed.log --trs-file tests/checks/installed.trs -- \
		$(SHELL) '$(srcdir)/tests/checks/installed.sh'
	@grep -q '^:test-result: PASS' tests/checks/installed.trs || { cat tests/checks/installed.log; exit 1; }
clean-local:
	rm -rf tests/installed kernels/cuda/.libs
CLEANFILES += tests/checks/installed.log tests/checks/installed.trs

phony_targets += check-san check-asan check-tsan check-threaded check-installed coverage run-coverage

include tests/checks/local.mk
include tests/support/local.mk
include tests/kernels/local.mk
include tests/cpu/local.mk
include tests/model/local.mk
include tests/swap/local.mk
include tests/golden/local.mk
include tests/conformance/local.mk
include tests/moe/local.mk
include tests/formats/local.mk
include tests/text/local.mk
include tests/loader/local.mk
include tests/abi/local.mk
include tests/hostile/local.mk
include tests/cli/local.mk
include tests/cuda/local.mk
include tests/cuda_emu/local.mk
include tests/gpu/local.mk
include tests/fuzz/local.mk
include tests/faults/local.mk
