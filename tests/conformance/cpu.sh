#!/bin/sh
# SPDX-License-Identifier: MIT
exec "$FERRUM_TEST_BUILDDIR/tests/conformance/conformance" \
    "$FERRUM_TEST_BUILDDIR/backends/cpu/.libs/cpu.so"
