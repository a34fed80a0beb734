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
for cpu in max cortex-a57; do
    for program in "$out"/test_*; do
        echo "$cpu: ${program##*/}"
        $qemu -cpu $cpu "$program"
    done
done
# Every set of the wide processor ran, and the narrow one ran only what it has.
$qemu -cpu max "$out/test_packed" | { ! grep 'not run'; }
$qemu -cpu cortex-a57 "$out/test_packed" | grep -q 'dotprod: not run'
