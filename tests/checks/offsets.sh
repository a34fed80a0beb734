#!/bin/sh
# SPDX-License-Identifier: MIT
# The binary layout of the ABI: the headers must agree with every golden file of a released minor,
# and exactly with the one of the minor they describe. `offsets.sh --update` rewrites the latter.
set -eu
cd "$FERRUM_TEST_SRCDIR"
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

major=$(sed -n 's/^#define FERRUM_ABI_MAJOR \([0-9]*\)u$/\1/p' abi/ferrum/types.h)
minor=$(sed -n 's/^#define FERRUM_ABI_MINOR \([0-9]*\)u$/\1/p' abi/ferrum/types.h)
current=abi/offsets-$major.$minor.txt
headers=$(find abi/ferrum -name '*.h' ! -name util.h ! -name plain_objects.h | LC_ALL=C sort)

printf '_Static_assert(sizeof(void *) == 8 && sizeof(long) == 8, "LP64");\n' >"$work/lp64.c"
$cc -c "$work/lp64.c" -o "$work/lp64.o" 2>/dev/null || { echo "the golden offsets are for LP64"; exit 77; }

# shellcheck disable=SC2086 # a list of files
awk -f abi/list-offsets.awk $headers >"$work/list.c"
$cc -std=c11 -Iabi "$work/list.c" -o "$work/list"
{
    echo "# Sizes, offsets and values of ABI $major.$minor (LP64). Made by \`make update-offsets\`."
    "$work/list"
} >"$work/now.txt"
if [ "${1-}" = --update ]; then
    cp "$work/now.txt" "$current"
    exit
fi

for golden in abi/offsets-"$major".*.txt; do
    awk -f abi/assert-offsets.awk "$golden" >"$work/assert.c"
    $cc -std=c11 -Iabi -c "$work/assert.c" -o "$work/assert.o" || {
        echo "the headers break $golden"
        exit 1
    }
done
diff -u "$current" "$work/now.txt" || {
    echo "$current is out of date; if $major.$minor is not released yet: make update-offsets"
    exit 1
}
