#!/bin/sh
# SPDX-License-Identifier: MIT
# The types of the ABI as a compiler sees them, compared with the committed record of every minor:
# the one that the headers describe must be the same, later ones may only have appended.
# `abidiff.sh --update` rewrites the record of the current minor.
set -eu
src=$FERRUM_TEST_SRCDIR
cc=${CC:-cc}
command -v abidiff >/dev/null && command -v abidw >/dev/null || {
    echo "skipped: abidiff is not installed (Debian package abigail-tools)"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in
x86_64) ;;
*)
    echo "skipped: the records are those of x86-64"
    exit 77
    ;;
esac

make_library() # directory of headers, library
{
    # shellcheck disable=SC2046 # a list of files
    awk -f "$src/tests/abi/list-structs.awk" \
        $(find "$1/ferrum" -name '*.h' ! -name util.h ! -name plain_objects.h | LC_ALL=C sort) >"$work/probe.c"
    (cd "$work" && $cc -std=c11 -g -O0 -fPIC -shared -I"$1" probe.c -o "$2")
}
# Whether a library differs from a record only by fields at the ends of structs; else say by what.
appended_only() # record, library
{
    abidiff --leaf-changes-only "$1" "$2" >"$work/leaves" && return 0
    awk '/^$/ || / summary: / || /^\x27struct .* changed:$/ || /data member insertions?:$/ { next }
        /type size changed from/ { end = $5; next }
        match($0, /at offset [0-9]+ \(in bits\)/) && !/changed/ {
            split(substr($0, RSTART), word, " ")
            if (word[3] >= end)
                next
        }
        { print; bad = 1 }
        END { exit bad }' "$work/leaves"
}
major=$(sed -n 's/^#define FERRUM_ABI_MAJOR \([0-9]*\)u$/\1/p' "$src/abi/ferrum/types.h")
minor=$(sed -n 's/^#define FERRUM_ABI_MINOR \([0-9]*\)u$/\1/p' "$src/abi/ferrum/types.h")
current=$src/tests/abi/abi-$major.$minor.xml
make_library "$src/abi" now.so

if [ "${1-}" = --update ]; then
    abidw --no-show-locs --no-corpus-path --no-comp-dir-path --out-file "$current" "$work/now.so"
    exit
fi

for record in "$src/tests/abi/abi-$major".*.xml; do
    if [ "$record" = "$current" ]; then
        abidiff "$record" "$work/now.so" || {
            echo "the headers are not what $record says; if $major.$minor is not released yet: make update-abi"
            exit 1
        }
    else
        appended_only "$record" "$work/now.so" || {
            echo "the headers break $record"
            exit 1
        }
    fi
done
[ -f "$current" ] || { echo "there is no record $current; make update-abi"; exit 1; }

# The gate itself: it must see what it is there for, and let a minor append.
mkdir -p "$work/abi/ferrum"
fresh()
{
    cp "$src"/abi/ferrum/*.h "$work/abi/ferrum"
}
must_see() # what, sed script, header
{
    fresh
    sed "$2" "$src/abi/ferrum/$3" >"$work/abi/ferrum/$3"
    cmp -s "$src/abi/ferrum/$3" "$work/abi/ferrum/$3" && { echo "no change: $1"; exit 1; }
    make_library "$work/abi" changed.so
    if appended_only "$current" "$work/changed.so" >"$work/out"; then
        echo "abidiff does not see $1"
        exit 1
    fi
}
must_see "a parameter of another type in a table" \
    '/(\*buffer_zero)/s/uint64_t offset/uint32_t offset/' backend.h
must_see "a field that was inserted" 's/^    uint32_t num_kv_heads;$/&\n    uint32_t inserted;/' backend.h
must_see "a field of another type" 's/^    int32_t score; /    uint32_t score; /' plugin.h
fresh
for header in "$src"/abi/ferrum/*.h; do
    awk -f "$src/tests/abi/next-minor.awk" "$header" >"$work/abi/ferrum/${header##*/}"
done
make_library "$work/abi" next.so
appended_only "$current" "$work/next.so" || {
    echo "abidiff does not let a minor append"
    exit 1
}
echo "the types are those of the records"
