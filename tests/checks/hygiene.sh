#!/bin/sh
# SPDX-License-Identifier: MIT
# Small files, no notes to self.
set -eu
cd "$FERRUM_TEST_SRCDIR"
bad=0
sources=$(find abi kernels backends plugin host tools tests docs -name '*.[ch]' | sort)

for file in $sources; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 600 ] && [ "${file#abi/}" = "$file" ]; then
        echo "$file has $lines lines; split it, 600 is the limit"
        bad=1
    fi
done
# shellcheck disable=SC2086 # a list of files
if grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $sources; then
    echo "finish it, or open an issue"
    bad=1
fi
if grep -nE '[ 	]+$' $sources; then
    echo "white space at the end of a line"
    bad=1
fi
exit $bad
