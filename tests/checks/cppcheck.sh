#!/bin/sh
# SPDX-License-Identifier: MIT
# Static analysis by cppcheck; what is suppressed, and why, is in cppcheck.suppress.
set -eu
cd "$FERRUM_TEST_SRCDIR"
command -v cppcheck >/dev/null || { echo "cppcheck is not installed"; exit 77; }
cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
    --error-exitcode=1 --suppressions-list=tests/checks/cppcheck.suppress -j 2 \
    -I. -Iabi -Ikernels -Iplugin/include -Ihost/include -Iplugin -Ihost \
    abi kernels backends plugin host tools
