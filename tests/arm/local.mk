# SPDX-License-Identifier: MIT
# The NEON kernels, cross-built and emulated; skipped where the cross compiler or qemu is missing.
dist_check_SCRIPTS += tests/arm/check-arm.sh
if !FERRUM_SANITIZED
TESTS += tests/arm/check-arm.sh
endif
EXTRA_DIST += tests/arm/arm.mk tests/arm/check.h

check-arm:
	@$(AM_TESTS_ENVIRONMENT) $(SHELL) '$(srcdir)/tests/arm/check-arm.sh'
phony_targets += check-arm
