# SPDX-License-Identifier: MIT
pkginclude_HEADERS += \
	abi/ferrum/backend.h \
	abi/ferrum/host.h \
	abi/ferrum/limits.h \
	abi/ferrum/moe_fused.h \
	abi/ferrum/plain_objects.h \
	abi/ferrum/plugin.h \
	abi/ferrum/quant_llm.h \
	abi/ferrum/types.h \
	abi/ferrum/util.h

EXTRA_DIST += \
	abi/assert-offsets.awk \
	abi/list-offsets.awk \
	abi/offsets-1.0.txt

# After a change of the headers of an ABI minor that is not released yet.
update-offsets:
	FERRUM_TEST_SRCDIR='$(abs_top_srcdir)' CC='$(CC)' \
		$(SHELL) '$(srcdir)/tests/checks/offsets.sh' --update
phony_targets += update-offsets
