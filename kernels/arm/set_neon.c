/* SPDX-License-Identifier: MIT */
/* The NEON kernel sets: baseline, with dot products, with I8MM. Decoders of quantised blocks are
 * the scalar ones: packed products do not need them. */
#include "kernels/arm/neon.h"
#include "kernels/arm/packed_neon.h"

#define ferrum_matmul_blocks_scalar ferrum_matmul_blocks_neon
#define ferrum_dequant_f16_scalar ferrum_dequant_f16_neon
#define ferrum_dequant_bf16_scalar ferrum_dequant_bf16_neon

FERRUM_BLOCK_FORMATS(FERRUM_DEFINE_MATMUL, scalar)

static const ferrum_matmul_entry_t matmul_table[] = {
    FERRUM_BLOCK_FORMATS(FERRUM_MATMUL_ENTRY, scalar)};

static const ferrum_packed_ops_t packed_neon = {ferrum_packed_quantise_neon,
                                                ferrum_packed_product_neon};
static const ferrum_packed_ops_t packed_dotprod = {ferrum_packed_quantise_neon,
                                                   ferrum_packed_product_dotprod};
static const ferrum_packed_ops_t packed_i8mm = {ferrum_packed_quantise_neon,
                                                ferrum_packed_product_i8mm};

const ferrum_kernel_set_t ferrum_kernel_set_neon = {
    .name = "neon",
    .features = FERRUM_CPU_NEON,
    .matmul = matmul_table,
    .matmul_count = sizeof matmul_table / sizeof matmul_table[0],
    .vector = FERRUM_VECTOR_OPS(neon),
    .packed = &packed_neon,
};

const ferrum_kernel_set_t ferrum_kernel_set_dotprod = {
    .name = "dotprod",
    .features = FERRUM_CPU_NEON | FERRUM_CPU_NEON_DOTPROD,
    .vector = FERRUM_VECTOR_OPS(neon),
    .packed = &packed_dotprod,
};

const ferrum_kernel_set_t ferrum_kernel_set_i8mm = {
    .name = "i8mm",
    .features = FERRUM_CPU_NEON | FERRUM_CPU_NEON_DOTPROD | FERRUM_CPU_NEON_I8MM,
    .vector = FERRUM_VECTOR_OPS(neon),
    .packed = &packed_i8mm,
};
