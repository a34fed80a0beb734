#!/bin/sh
# SPDX-License-Identifier: MIT
# backends/cuda/driver_api.h has the values, sizes and prototypes of the toolkit's own header.
set -eu
cd "$FERRUM_TEST_SRCDIR"
home=${CUDA_HOME:-/usr/local/cuda}
[ -f "$home/include/cuda.h" ] || { echo "no cuda.h in $home/include"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Constants as our header gives them become assertions about the other header.
cat >"$work/list.c" <<'EOS'
#include <stdio.h>
#include "backends/cuda/driver_api.h"
#define LINE(name, value) printf("_Static_assert(%s == %d, \"%s\");\n", #name, value, #name);
#define SYMBOL(name, symbol, parameters) printf("CHECK(%s, %s)\n", #symbol, #parameters);
int main(void)
{
    FERRUM_CUDA_RESULTS(LINE)
    FERRUM_CUDA_CONSTANTS(LINE)
    FERRUM_CUDA_DRIVER_API(SYMBOL)
}
EOS
${CC:-cc} -I. "$work/list.c" -o "$work/list"
cat >"$work/assert.c" <<'EOS'
#include <cuda.h>
#define STR_(x) #x
#define STR(x) STR_(x)
/* A declaration that differs from the header's in more than names of enumerations is an error. */
#define CHECK(symbol, parameters) CUresult symbol parameters;
EOS
"$work/list" >>"$work/assert.c"
${CC:-cc} -Wno-redundant-decls -I"$home/include" -fsyntax-only "$work/assert.c"
