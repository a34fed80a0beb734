#!/bin/sh
# SPDX-License-Identifier: MIT
# The sources are as clang-format 14 (Debian 12's) lays them out; other versions differ in details.
set -eu
cd "$FERRUM_TEST_SRCDIR"
for tool in clang-format-14 clang-format; do
    if "$tool" --version 2>/dev/null | grep -q 'version 14\.'; then
        find abi kernels backends plugin host tools tests docs -name '*.[ch]' -print0 |
            xargs -0 "$tool" --dry-run -Werror --ferror-limit=1
        exit
    fi
done
echo "clang-format 14 is not installed"
exit 77
