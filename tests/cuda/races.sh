#!/bin/sh
# SPDX-License-Identifier: MIT
# The MoE kernels, over 4-bit and over GGUF weights, and those of attention at small sizes, copies landing early, late and
# at random, threads and streams in eight random orders. Under ThreadSanitizer a missing barrier is a race where copies land early;
# without it, wrong numbers under some schedule. FERRUM_TEST_CUDA_SEEDS lists other seeds.
set -u
tests=$FERRUM_TEST_BUILDDIR/tests/cuda
[ -x "$tests/test_moe" ] || { echo "skipped: this build has no cuda backend (nvcc) or no emulated driver (g++)"; exit 77; }
CK_RUN_CASE=small
export CK_RUN_CASE

run() # options of the emulated driver
{
    echo "+ $*"
    for test in test_moe test_routed test_gguf test_attention test_wgmma; do
        # shellcheck disable=SC2048 # a list of assignments
        env $* "$tests/$test" || exit 1
    done
}

run FERRUM_TEST_CUDA_EMU_COPIES=eager
run FERRUM_TEST_CUDA_EMU_COPIES=lazy
for seed in ${FERRUM_TEST_CUDA_SEEDS-1 2 3 4 5 6 7 8}; do
    run FERRUM_TEST_CUDA_EMU_COPIES=random "FERRUM_TEST_CUDA_EMU_SEED=$seed"
done
