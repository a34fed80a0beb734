# SPDX-License-Identifier: MIT
# What runs on a machine with a GPU: see README.md.
EXTRA_DIST += \
	tests/gpu/README.md \
	tests/gpu/ferrum \
	tests/gpu/make-bundle.sh \
	tests/gpu/peers/beside.py \
	tests/gpu/peers/peer.py \
	tests/gpu/peers/torch_loop.py \
	tests/gpu/peers/triton_moe.py \
	tests/gpu/run.sh
dist_check_SCRIPTS += tests/gpu/bundle.sh
if !FERRUM_SANITIZED
TESTS += tests/gpu/bundle.sh
endif

gpu-bundle: all
	@$(MKDIR_P) tests/gpu
	$(SHELL) '$(srcdir)/tests/gpu/make-bundle.sh' '$(abs_top_builddir)' tests/gpu/ferrum-gpu
clean-local: clean-gpu-bundle
clean-gpu-bundle:
	rm -rf tests/gpu/ferrum-gpu tests/gpu/ferrum-gpu.tar.gz
phony_targets += gpu-bundle clean-gpu-bundle
