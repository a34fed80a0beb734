# SPDX-License-Identifier: MIT
# What the compiler makes of the CUDA kernels, beside a committed table.
EXTRA_DIST += tests/checks/cuda-evidence.tsv tests/checks/cuda-prediction.sh
if FERRUM_CUDA
if !FERRUM_SANITIZED
check_PROGRAMS += tests/checks/cuda_mix
endif
endif
tests_checks_cuda_mix_SOURCES = tests/checks/cuda_mix.c

update-cuda-evidence: all tests/checks/cuda_mix
	$(AM_TESTS_ENVIRONMENT) $(SHELL) '$(srcdir)/tests/checks/cuda-evidence.sh' --table >cuda-evidence-t
	mv cuda-evidence-t '$(srcdir)/tests/checks/cuda-evidence.tsv'
phony_targets += update-cuda-evidence
