#!/bin/sh
# SPDX-License-Identifier: MIT
FERRUM_CPU_MASK=avxvnni
export FERRUM_CPU_MASK
exec "$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 20 --timeout 250 \
    "$FERRUM_TEST_BUILDDIR/backends/cpu/.libs/cpu.so"
