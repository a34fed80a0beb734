#!/bin/sh
# SPDX-License-Identifier: MIT
# cuda.so on the emulated driver.
plugin=$FERRUM_TEST_BUILDDIR/backends/cuda/.libs/cuda.so
FERRUM_CUDA_DRIVER=$FERRUM_TEST_BUILDDIR/tests/cuda_emu/.libs/libcuda-emu.so
if [ ! -e "$plugin" ] || [ ! -e "$FERRUM_CUDA_DRIVER" ]; then
    echo "skipped: this build has no cuda backend (nvcc) or no emulated driver (g++)"
    exit 77
fi
export FERRUM_CUDA_DRIVER
exec "$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 20 --timeout 250 "$plugin"
