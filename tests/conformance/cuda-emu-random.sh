#!/bin/sh
# SPDX-License-Identifier: MIT
# cuda.so on the emulated driver, threads, streams and asynchronous copies in random orders.
plugin=$FERRUM_TEST_BUILDDIR/backends/cuda/.libs/cuda.so
FERRUM_CUDA_DRIVER=$FERRUM_TEST_BUILDDIR/tests/cuda_emu/.libs/libcuda-emu.so
if [ ! -e "$plugin" ] || [ ! -e "$FERRUM_CUDA_DRIVER" ]; then
    echo "skipped: this build has no cuda backend (nvcc) or no emulated driver (g++)"
    exit 77
fi
FERRUM_TEST_CUDA_EMU_COPIES=random
export FERRUM_CUDA_DRIVER FERRUM_TEST_CUDA_EMU_COPIES
for seed in 1 2 3 4 5 6 7 8; do
    echo "seed $seed"
    FERRUM_TEST_CUDA_EMU_SEED=$seed "$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 20 --timeout 250 "$plugin" \
        buffers core attention paged graph || exit 1
done
