#!/bin/sh
# SPDX-License-Identifier: MIT
# The environment is read in one place, plugin/env*.c, so that its table of variables is complete.
set -eu
cd "$FERRUM_TEST_SRCDIR"
if grep -nE '\b(secure_)?getenv *\(|\benviron\b' $(find abi kernels backends plugin host tools \
    -name '*.[ch]' ! -path 'plugin/env*.c' | sort); then
    echo "read the environment in plugin/env*.c, through the table of variables"
    exit 1
fi
