/* SPDX-License-Identifier: MIT */
/* The AVX2 kernel set. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/packed_avx2.h"

FERRUM_BLOCK_FORMATS(FERRUM_DEFINE_MATMUL, avx2)

static const ferrum_matmul_entry_t matmul_table[] = {
    FERRUM_BLOCK_FORMATS(FERRUM_MATMUL_ENTRY, avx2)};

static const ferrum_packed_ops_t packed_ops = {ferrum_packed_quantise_avx2,
                                               ferrum_packed_product_avx2};

const ferrum_kernel_set_t ferrum_kernel_set_avx2 = {
    .name = "avx2",
    .features = FERRUM_CPU_AVX2,
    .matmul = matmul_table,
    .matmul_count = sizeof matmul_table / sizeof matmul_table[0],
    .gptq_matmul = ferrum_matmul_gptq_avx2,
    .vector = FERRUM_VECTOR_OPS(avx2),
    .packed = &packed_ops,
};
