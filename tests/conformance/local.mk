# SPDX-License-Identifier: MIT
# `ferrum check-plugin` over every plugin that was built, and its own judge.
check_PROGRAMS += tests/conformance/goldens
tests_conformance_goldens_CPPFLAGS = $(ferrum_CPPFLAGS)
tests_conformance_goldens_SOURCES = tests/conformance/goldens.c
tests_conformance_goldens_LDADD = tools/kit/libferrum-kit.la libferrum.la \
	host/runtime/libferrum-runtime.la -lm

CONFORMANCE_TESTS = \
	tests/conformance/cpu.sh \
	tests/conformance/cpu-avx2.sh \
	tests/conformance/cpu-avxvnni.sh \
	tests/conformance/cpu-fast.sh \
	tests/conformance/cpu-scalar.sh \
	tests/conformance/cuda-emu-bf16.sh \
	tests/conformance/cuda-emu-random.sh \
	tests/conformance/cuda-emu.sh \
	tests/conformance/metal-stub.sh
dist_check_SCRIPTS += $(CONFORMANCE_TESTS)
TESTS += $(CONFORMANCE_TESTS) tests/conformance/goldens

dist_check_SCRIPTS += tests/conformance/cuda-emu-eager.sh
THREADED_TESTS += tests/conformance/cuda-emu-eager.sh
THREADED_NEEDS += ferrum
if FERRUM_CUDA_EMU
THREADED_NEEDS += tests/cuda_emu/libcuda-emu.la
endif
