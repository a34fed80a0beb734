#!/bin/sh
# SPDX-License-Identifier: MIT
# Every file of source says its licence within the first three lines.
set -eu
cd "$FERRUM_TEST_SRCDIR"
bad=0
for file in $(find abi kernels backends plugin host tools tests docs models m4 \
    \( -name '*.[chS]' -o -name '*.sh' -o -name '*.py' -o -name '*.awk' -o -name '*.mk' -o \
    -name '*.map' -o -name 'ferrum*.m4' \) | sort) bootstrap configure.ac Makefile.am; do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' || {
        echo "$file: no 'SPDX-License-Identifier: MIT' line"
        bad=1
    }
done
exit $bad
