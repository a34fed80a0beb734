#!/bin/sh
# SPDX-License-Identifier: MIT
# backends/cuda/cublaslt_api.h has the values, sizes and prototypes of the toolkit's own header, and
# its library has all functions.
set -eu
cd "$FERRUM_TEST_SRCDIR"
home=${CUDA_HOME:-/usr/local/cuda}
[ -f "$home/include/cublasLt.h" ] || { echo "no cublasLt.h in $home/include"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Constants, sizes and functions as our header gives them become checks of the other one.
cat >"$work/list.c" <<'EOS'
#include <stdio.h>
#include "backends/cuda/cublaslt_api.h"
#define LINE(name, value) printf("_Static_assert(%s == %d, \"%s\");\n", #name, value, #name);
#define SYMBOL(name, result, parameters) printf("CHECK(%s, %s, %s)\n", #name, #result, #parameters);
#define SIZE(type) printf("_Static_assert(sizeof(%s) == %zu, \"%s\");\n", #type, sizeof(type), #type);
int main(void)
{
    FERRUM_CUBLASLT_CONSTANTS(LINE)
    SIZE(cublasLtMatmulAlgo_t)
    SIZE(cublasLtMatmulHeuristicResult_t)
    FERRUM_CUBLASLT_API(SYMBOL)
}
EOS
${CC:-cc} -I. "$work/list.c" -o "$work/list"
{
    echo '#include <stdint.h>'
    echo '#include <cublasLt.h>'
    echo 'typedef struct CUstream_st *CUstream;'
    echo 'typedef cudaDataType cudaDataType_t;'
    echo '#define CHECK(name, result, parameters) result name parameters;'
    "$work/list"
} >"$work/assert.c"
${CC:-cc} -std=c11 -I"$home/include" -fsyntax-only "$work/assert.c"
