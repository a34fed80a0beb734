#!/bin/sh
# SPDX-License-Identifier: MIT
# Do what docs/writing-a-backend.md says, outside of the tree, and see that its backend works.
set -eu
guide=$FERRUM_TEST_SRCDIR/docs/writing-a-backend.md
# shellcheck disable=SC2034 # used by the guide's blocks
ferrum=$FERRUM_TEST_SRCDIR ferrum_cflags=-I$FERRUM_TEST_SRCDIR/abi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# The block of code behind a marker.
block()
{
    awk -v marker="<!-- guide: $1 -->" '
        $0 == marker { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside' "$guide"
}

block start >start.sh
block code >code.c
block tables >tables.sh
block build | sed "s|^cc |${CC:-cc} |" >build.sh
for file in start.sh code.c tables.sh build.sh; do
    [ -s $file ] || { echo "the guide has no block for $file"; exit 1; }
done

. ./start.sh
awk '/---- what is not there ----/ { while ((getline line <"code.c") > 0) print line; print "" }
    { print }' tutorial.c >with-code.c
mv with-code.c tutorial.c
. ./tables.sh
. ./build.sh
lines=$(grep -c . code.c)
echo "the guide's backend adds $lines lines"
"$FERRUM_TEST_BUILDDIR/ferrum" check-plugin --cycles 20 --timeout 250 "$dir/tutorial.so" >log || { cat log; exit 1; }
tail -1 log
grep -Eq '^ *ffn +([3-9]|[1-9][0-9])' log || { cat log; echo "the guide's backend runs no expert_ffn"; exit 1; }
