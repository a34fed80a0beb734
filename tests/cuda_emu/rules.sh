#!/bin/sh
# SPDX-License-Identifier: MIT
# Kernels reach the machine only through the wrappers of kernels/cuda/device.cuh, and each wrapper has
# its emulated twin.
set -eu
cd "$FERRUM_TEST_SRCDIR"
bad=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Comments may name what code may not use.
builtins='\basm\b|__asm|__shared__|__global__|__constant__|\b(threadIdx|blockIdx|blockDim|gridDim)\b'
builtins="$builtins|\\b__(sync|shfl|ballot|match|activemask|threadfence|ldg|half|float2|dp4a|byte_perm)"
builtins="$builtins|\\batomic[A-Z]|\\bcub::|cooperative_groups|#include *<cuda|\\bprintf *\\("
for file in kernels/cuda/*.cu kernels/cuda/*.cuh tests/cuda_emu/*.cu; do
    case $file in
    */device.cuh | */device_ptx*.cuh | */device_emu*.cuh) continue ;;
    esac
    [ -f "$file" ] || continue
    sed 's|//.*||; s|/\*.*\*/||; /\/\*/,/\*\//d' "$file" | grep -nE "$builtins" >"$work/found" || continue
    sed "s|^|$file: |" "$work/found"
    echo "$file goes around the wrappers of kernels/cuda/device.cuh"
    bad=1
done

# Functions of the two sides, by name.
wrappers()
{
    cat "$@" | sed -n '/^namespace emu/,/^} \/\/ namespace emu/d; s/.*FERRUM_DEVICE [^()=]* \**\([a-z_0-9]*\)(.*/\1/p' |
        LC_ALL=C sort -u | grep -v '^shared_address$\|^shuffle_.*_source$'
}
wrappers kernels/cuda/device_ptx*.cuh >"$work/ptx"
wrappers kernels/cuda/device_emu*.cuh >"$work/emu"
[ "$(wc -l <"$work/ptx")" -gt 50 ] || { echo "too few wrappers found: is this script right?"; bad=1; }
diff "$work/ptx" "$work/emu" || { echo "the wrappers of device_ptx*.cuh and device_emu*.cuh differ"; bad=1; }
exit $bad
