/* SPDX-License-Identifier: MIT */
/* The scalar kernel set: every format, no processor feature. */
#include "kernels/scalar/scalar.h"

FERRUM_BLOCK_FORMATS(FERRUM_DEFINE_MATMUL, scalar)

static const ferrum_matmul_entry_t matmul_table[] = {
    FERRUM_BLOCK_FORMATS(FERRUM_MATMUL_ENTRY, scalar)};

const ferrum_kernel_set_t ferrum_kernel_set_scalar = {
    .name = "scalar",
    .matmul = matmul_table,
    .matmul_count = sizeof matmul_table / sizeof matmul_table[0],
    .gptq_matmul = ferrum_matmul_gptq_scalar,
    .vector = FERRUM_VECTOR_OPS(scalar),
};
