#!/bin/sh
# SPDX-License-Identifier: MIT
# The public headers are the manual: at least 40 % of their lines are comment. util.h and
# plain_objects.h are code.
set -eu
cd "$FERRUM_TEST_SRCDIR"
bad=0
for header in abi/ferrum/*.h plugin/include/ferrum/*.h host/include/ferrum/*.h; do
    case $header in
    abi/ferrum/util.h | abi/ferrum/plain_objects.h) continue ;;
    esac
    [ -f "$header" ] || continue
    # Blank lines do not count; a line with code and a trailing comment counts for both.
    awk '
        /^[ \t]*$/ { next }
        { lines++ }
        inside || /\/[*\/]/ { comments++ }
        { inside = (inside || /\/\*/) && $0 !~ /\*\/[^*]*$/ }
        END {
            share = lines ? 100 * comments / lines : 0
            if (share < 40) {
                printf "%s: %d %% comment lines, at least 40 are wanted\n", FILENAME, share
                exit 1
            }
        }' "$header" || bad=1
done
exit $bad
