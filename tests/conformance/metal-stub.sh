#!/bin/sh
# SPDX-License-Identifier: MIT
exec "$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 20 --timeout 250 \
    "$FERRUM_TEST_BUILDDIR/backends/metal-stub/.libs/metal-stub.so"
