#!/bin/sh
# SPDX-License-Identifier: MIT
FERRUM_PRECISION=fast
export FERRUM_PRECISION
exec "$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 2 --timeout 250 \
    "$FERRUM_TEST_BUILDDIR/backends/cpu/.libs/cpu.so"
