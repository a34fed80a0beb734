# SPDX-License-Identifier: MIT
# The conformance suite: one program that takes any plugin, run over every plugin that was built.
check_PROGRAMS += tests/conformance/conformance tests/conformance/goldens
conformance_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(top_srcdir)/plugin/include \
	-I$(top_srcdir)/host/include
tests_conformance_conformance_CPPFLAGS = $(conformance_cppflags)
tests_conformance_conformance_SOURCES = \
	tests/conformance/attention.c \
	tests/conformance/conformance.h \
	tests/conformance/core.c \
	tests/conformance/experts.c \
	tests/conformance/ffn.c \
	tests/conformance/harness.c \
	tests/conformance/linear.c \
	tests/conformance/main.c \
	tests/conformance/objects.c \
	tests/conformance/oracle.c \
	tests/conformance/routing.c \
	tests/conformance/weights.c
tests_conformance_conformance_LDADD = libferrum.la host/runtime/libferrum-runtime.la -lm

tests_conformance_goldens_CPPFLAGS = $(conformance_cppflags)
tests_conformance_goldens_SOURCES = \
	tests/conformance/goldens.c \
	tests/conformance/conformance.h \
	tests/conformance/harness.c \
	tests/conformance/weights.c
tests_conformance_goldens_LDADD = -lm

CONFORMANCE_TESTS = \
	tests/conformance/cpu.sh \
	tests/conformance/cpu-avx2.sh \
	tests/conformance/cpu-scalar.sh \
	tests/conformance/cuda-emu-bf16.sh \
	tests/conformance/cuda-emu-random.sh \
	tests/conformance/cuda-emu.sh \
	tests/conformance/metal-stub.sh
dist_check_SCRIPTS += $(CONFORMANCE_TESTS)
TESTS += $(CONFORMANCE_TESTS) tests/conformance/goldens

dist_check_SCRIPTS += tests/conformance/cuda-emu-eager.sh
THREADED_TESTS += tests/conformance/cuda-emu-eager.sh
THREADED_NEEDS += tests/conformance/conformance
if FERRUM_CUDA_EMU
THREADED_NEEDS += tests/cuda_emu/libcuda-emu.la
endif
