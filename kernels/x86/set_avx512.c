/* SPDX-License-Identifier: MIT */
/* The AVX-512 kernel set. */
#include "kernels/x86/avx512.h"

FERRUM_BLOCK_FORMATS(FERRUM_DEFINE_MATMUL, avx512)

static const ferrum_matmul_entry_t matmul_table[] = {
    FERRUM_BLOCK_FORMATS(FERRUM_MATMUL_ENTRY, avx512)};

const ferrum_kernel_set_t ferrum_kernel_set_avx512 = {
    .name = "avx512",
    .features = FERRUM_CPU_AVX2 | FERRUM_CPU_AVX512,
    .matmul = matmul_table,
    .matmul_count = sizeof matmul_table / sizeof matmul_table[0],
    .gptq_matmul = ferrum_matmul_gptq_avx512,
    .vector = FERRUM_VECTOR_OPS(avx512),
};
