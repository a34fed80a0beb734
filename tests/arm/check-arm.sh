#!/bin/sh
# SPDX-License-Identifier: MIT
# Cross-build the kernels and their tests for AArch64 and run them under qemu: on a processor that has
# every extension, and on one without dot products. Needs Debian's gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross and qemu-user-static.
set -eu

cc=aarch64-linux-gnu-gcc
qemu=qemu-aarch64-static
out=$FERRUM_TEST_BUILDDIR/tests/arm

for tool in $cc $qemu; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: there is no $tool"
        exit 77
    fi
done

mkdir -p "$out"
make -s -C "$out" -f "$FERRUM_TEST_SRCDIR/tests/arm/arm.mk" -j2 src="$FERRUM_TEST_SRCDIR" CC=$cc
# The narrow processor needs what its lack of extensions changes: the choice, and the packed products.
for run in 'max dequant gptq matmul packed select vector' 'cortex-a57 packed select'; do
    cpu=${run%% *}
    for test in ${run#* }; do
        echo "$cpu: $test"
        $qemu -cpu "$cpu" "$out/test_$test" >"$out/$cpu-$test.log" || { cat "$out/$cpu-$test.log"; exit 1; }
    done
done
# Every set of the wide processor ran, and the narrow one said what it lacks.
if grep 'not run' "$out/max-packed.log"; then
    exit 1
fi
grep -q 'dotprod: not run' "$out/cortex-a57-packed.log"
