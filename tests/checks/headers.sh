#!/bin/sh
# SPDX-License-Identifier: MIT
# Every installed header compiles alone, as C11 and as C++17, without a warning.
set -eu
cd "$FERRUM_TEST_SRCDIR"
flags='-Wall -Wextra -Wpedantic -Wconversion -Werror -fsyntax-only'
flags="$flags -Iabi -Iplugin/include -Ihost/include"
bad=0

try() # compiler, language, standard
{
    command -v "$1" >/dev/null || { echo "$1 is not installed: not tried"; return 0; }
    for header in abi/ferrum/*.h plugin/include/ferrum/*.h host/include/ferrum/*.h; do
        [ -f "$header" ] || continue
        # shellcheck disable=SC2086 # a list of flags
        echo "#include <ferrum/${header##*/}>" | "$1" -x "$2" "-std=$3" $flags - || {
            echo "$header does not compile alone with $1 as $3"
            bad=1
        }
    done
}

try gcc c c11
try g++ c++ c++17
try clang c c11
try clang++ c++ c++17
exit $bad
