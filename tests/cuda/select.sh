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
