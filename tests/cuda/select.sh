#!/bin/sh
# SPDX-License-Identifier: MIT
# What a user sees who asks for cuda where there is no driver.
set -eu
cd "$FERRUM_TEST_BUILDDIR"
if [ ! -e backends/cuda/.libs/cuda.so ]; then
    echo "skipped: this build has no cuda backend (nvcc)"
    exit 77
fi
FERRUM_PLUGIN_PATH=$PWD/backends/cuda/.libs:$PWD/backends/cpu/.libs
FERRUM_CUDA_DRIVER=/nonexistent/libcuda.so
export FERRUM_PLUGIN_PATH FERRUM_CUDA_DRIVER
model=$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-q4_k.gguf
mkdir -p tests/cuda

generate() # value of FERRUM_BACKEND
{
    FERRUM_BACKEND=$1 ./ferrum generate -m "$model" -p 'In the beginning' -n 2 --temperature 0 \
        >tests/cuda/select.out 2>tests/cuda/select.err
}

expect() # file, lines, text
{
    if [ "$(wc -l <"tests/cuda/select.$1")" != "$2" ] || ! grep -qF "$3" "tests/cuda/select.$1"; then
        echo "expected $2 lines with \"$3\" in:"
        cat "tests/cuda/select.$1"
        exit 1
    fi
}

if generate cuda; then
    echo "FERRUM_BACKEND=cuda worked without a driver"
    exit 1
fi
expect err 1 "backend 'cuda' cannot be used here: no NVIDIA driver: /nonexistent/libcuda.so"

generate cuda,cpu
expect err 2 "fell back to backend 'cpu' of the list cuda,cpu"
grep -q 'In the beginning' tests/cuda/select.out

# What a user sees who has GPUs: the emulated driver stands in for them.
FERRUM_CUDA_DRIVER=$PWD/tests/cuda_emu/.libs/libcuda-emu.so
[ -e "$FERRUM_CUDA_DRIVER" ] || exit 0
generate cuda
expect out 1 'In the beginning of the'

FERRUM_TEST_CUDA_EMU_DEVICES=2 FERRUM_TEST_CUDA_EMU_SM=90 ./ferrum info >tests/cuda/select.out
for device in 0 1; do
    grep -q "device $device Emulated GPU (sm_90, 2 SMs.*), activations f16, .* of 256.0 MiB free" \
        tests/cuda/select.out || {
        echo "info does not list device $device:"
        cat tests/cuda/select.out
        exit 1
    }
done
grep -q 'ops *moe_fused *21 native' tests/cuda/select.out

./ferrum bench moe -b cuda --format q8_0 --hidden 64 --intermediate 32 --experts 4 --top-k 2 \
    --tokens 1,32 --layers 1 --seconds 0 -o csv 2>tests/cuda/select.err >tests/cuda/select.out
# Launches, replays, syncs, allocations, copies and memsets per call are the last columns.
awk -F, '{ print $(NF - 5) "," $(NF - 4) "," $(NF - 2) "," $NF }' tests/cuda/select.out \
    >tests/cuda/select.err
printf '%s\n' launches,replays,allocations,memsets 3.0,0.0,0.0,0.0 4.0,0.0,0.0,0.0 |
    diff - tests/cuda/select.err
