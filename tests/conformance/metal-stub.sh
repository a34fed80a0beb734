#!/bin/sh
# SPDX-License-Identifier: MIT
exec "$FERRUM_TEST_BUILDDIR/tests/conformance/conformance" \
    "$FERRUM_TEST_BUILDDIR/backends/metal-stub/.libs/metal-stub.so"
