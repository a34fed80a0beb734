# SPDX-License-Identifier: MIT
# The emulated CUDA driver (README.md): the same .cu files as nvcc takes, compiled for the host and
# linked with the emulator into a library that stands in for libcuda.so.1. libcuda-emu.la has the
# kernels of the cuda backend, libcuda-emu-test.la those of the tests here.
cuda_emu_scripts = tests/cuda_emu/abi.sh tests/cuda_emu/ptx.sh tests/cuda_emu/rules.sh
dist_check_SCRIPTS += $(cuda_emu_scripts) tests/cuda_emu/planted.sh
if !FERRUM_SANITIZED
TESTS += $(cuda_emu_scripts)
endif
EXTRA_DIST += tests/cuda_emu/README.md \
	tests/cuda_emu/example.cu tests/cuda_emu/example_sm90.cu tests/cuda_emu/planted.cu tests/cuda_emu/wrappers.cu

if FERRUM_CUDA_EMU
cuda_emu_headers = kernels/cuda/device.cuh kernels/cuda/device_emu.cuh kernels/cuda/device_ptx.cuh \
	kernels/cuda/device_emu_sm90.cuh kernels/cuda/device_ptx_sm90.cuh kernels/cuda/emu.h
EXTRA_DIST += $(cuda_emu_headers)

CUDA_EMU_CXXFLAGS = -std=c++17 -DFERRUM_CUDA_EMU -I$(top_srcdir) -fvisibility=hidden \
	-fno-exceptions -ffp-contract=off -fno-strict-aliasing -Wall -Wextra \
	-Wno-unused-parameter -Wno-unknown-pragmas
.cu.lo:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(LIBTOOL) $(AM_V_lt) --tag=CXX $(AM_LIBTOOLFLAGS) --mode=compile \
		$(CXX) $(CUDA_EMU_CXXFLAGS) $(CXXFLAGS) -x c++ -c -o $@ $<

check_LTLIBRARIES += \
	tests/cuda_emu/libcuda-emu-driver.la \
	tests/cuda_emu/libcuda-emu.la \
	tests/cuda_emu/libcuda-emu-test.la

tests_cuda_emu_libcuda_emu_driver_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -D_GNU_SOURCE
tests_cuda_emu_libcuda_emu_driver_la_SOURCES = \
	backends/cuda/driver_api.h \
	tests/cuda_emu/control.c tests/cuda_emu/control.h \
	tests/cuda_emu/copies.c \
	tests/cuda_emu/device.c \
	tests/cuda_emu/driver.h \
	tests/cuda_emu/emulator.h \
	tests/cuda_emu/execute.c \
	tests/cuda_emu/fiber.c \
	tests/cuda_emu/graphs.c \
	tests/cuda_emu/kernels.c \
	tests/cuda_emu/meet.c \
	tests/cuda_emu/memory.c \
	tests/cuda_emu/mma.c \
	tests/cuda_emu/options.c \
	tests/cuda_emu/queue.c \
	tests/cuda_emu/sm90.c \
	tests/cuda_emu/streams.c \
	tests/cuda_emu/threads.c \
	tests/cuda_emu/transfer.c

# A library that is opened at run time, although nothing installs it.
cuda_emu_ldflags = -module -avoid-version -shared -rpath /nonexistent $(FERRUM_LINK_FLAGS)

# cuda_kernel_sources: see kernels/cuda/local.mk.
cuda_kernel_objects = $(cuda_kernel_sources:.cu=.lo)
tests_cuda_emu_libcuda_emu_la_SOURCES =
tests_cuda_emu_libcuda_emu_la_LDFLAGS = $(cuda_emu_ldflags)
tests_cuda_emu_libcuda_emu_la_LIBADD = \
	tests/cuda_emu/libcuda-emu-driver.la $(cuda_kernel_objects) -lm
tests_cuda_emu_libcuda_emu_la_DEPENDENCIES = \
	tests/cuda_emu/libcuda-emu-driver.la $(cuda_kernel_objects)
$(cuda_kernel_objects): $(cuda_emu_headers) $(cuda_kernel_headers)

cuda_emu_test_objects = tests/cuda_emu/example.lo tests/cuda_emu/example_sm90.lo tests/cuda_emu/planted.lo tests/cuda_emu/wrappers.lo
tests_cuda_emu_libcuda_emu_test_la_SOURCES =
tests_cuda_emu_libcuda_emu_test_la_LDFLAGS = $(cuda_emu_ldflags)
tests_cuda_emu_libcuda_emu_test_la_LIBADD = \
	tests/cuda_emu/libcuda-emu-driver.la $(cuda_emu_test_objects) -lm
tests_cuda_emu_libcuda_emu_test_la_DEPENDENCIES = \
	tests/cuda_emu/libcuda-emu-driver.la $(cuda_emu_test_objects)
$(cuda_emu_test_objects): $(cuda_emu_headers)
CLEANFILES += tests/cuda_emu/*.lo tests/cuda_emu/*.o kernels/cuda/*.lo kernels/cuda/*.o

check_PROGRAMS += tests/cuda_emu/planted_bugs
tests_cuda_emu_planted_bugs_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -D_GNU_SOURCE
tests_cuda_emu_planted_bugs_SOURCES = \
	tests/cuda_emu/planted_bugs.c $(cuda_emu_product) $(cuda_emu_product_sm90) $(cuda_emu_fixture)
tests_cuda_emu_planted_bugs_LDADD = -lm
cuda_emu_fixture = tests/cuda_emu/fixture.c tests/cuda_emu/fixture.h
cuda_emu_product_sm90 = tests/cuda_emu/product_sm90.c tests/cuda_emu/product_sm90.h
cuda_emu_product = tests/cuda_emu/product.c tests/cuda_emu/product.h
TESTS += tests/cuda_emu/planted.sh
THREADED_TESTS += tests/cuda_emu/planted.sh
THREADED_NEEDS += tests/cuda_emu/planted_bugs tests/cuda_emu/libcuda-emu-test.la

if HAVE_CHECK
cuda_emu_tests = \
	tests/cuda_emu/test_driver \
	tests/cuda_emu/test_fragments \
	tests/cuda_emu/test_sm90 \
	tests/cuda_emu/test_wrappers
check_PROGRAMS += $(cuda_emu_tests)
TESTS += $(cuda_emu_tests)
THREADED_TESTS += $(cuda_emu_tests)

cuda_emu_test_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) -D_GNU_SOURCE $(CHECK_CFLAGS)
tests_cuda_emu_test_driver_CPPFLAGS = $(cuda_emu_test_cppflags)
tests_cuda_emu_test_driver_SOURCES = tests/cuda_emu/test_driver.c $(cuda_emu_fixture)
tests_cuda_emu_test_driver_LDADD = $(CHECK_LIBS) -lm
tests_cuda_emu_test_fragments_CPPFLAGS = $(cuda_emu_test_cppflags)
tests_cuda_emu_test_fragments_SOURCES = tests/cuda_emu/test_fragments.c $(cuda_emu_fixture)
tests_cuda_emu_test_fragments_LDADD = $(CHECK_LIBS) -lm
tests_cuda_emu_test_sm90_CPPFLAGS = $(cuda_emu_test_cppflags)
tests_cuda_emu_test_sm90_SOURCES = \
	tests/cuda_emu/test_sm90.c $(cuda_emu_product_sm90) $(cuda_emu_fixture)
tests_cuda_emu_test_sm90_LDADD = $(CHECK_LIBS) -lm
tests_cuda_emu_test_wrappers_CPPFLAGS = $(cuda_emu_test_cppflags)
tests_cuda_emu_test_wrappers_SOURCES = \
	tests/cuda_emu/test_wrappers.c $(cuda_emu_product) $(cuda_emu_fixture)
tests_cuda_emu_test_wrappers_LDADD = $(CHECK_LIBS) -lm
endif
endif
