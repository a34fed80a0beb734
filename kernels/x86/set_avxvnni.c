/* SPDX-License-Identifier: MIT */
/* The AVX-VNNI kernel set: packed products; everything else is the AVX2 set's. */
#include "kernels/set.h"
#include "kernels/x86/packed_avx2.h"

FERRUM_DECLARE_VECTOR(avx2)

static const ferrum_packed_ops_t packed_ops = {ferrum_packed_quantise_avx2,
                                               ferrum_packed_product_avxvnni};

const ferrum_kernel_set_t ferrum_kernel_set_avxvnni = {
    .name = "avxvnni",
    .features = FERRUM_CPU_AVX2 | FERRUM_CPU_AVX_VNNI,
    .vector = FERRUM_VECTOR_OPS(avx2),
    .packed = &packed_ops,
};
