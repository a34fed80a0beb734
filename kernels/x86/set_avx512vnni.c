/* SPDX-License-Identifier: MIT */
/* The AVX-512 VNNI kernel set: packed products; everything else is the AVX-512 set's. */
#include "kernels/set.h"
#include "kernels/x86/packed_avx512vnni.h"

FERRUM_DECLARE_VECTOR(avx512)

static const ferrum_packed_ops_t packed_ops = {ferrum_packed_quantise_avx512vnni,
                                               ferrum_packed_product_avx512vnni};

const ferrum_kernel_set_t ferrum_kernel_set_avx512vnni = {
    .name = "avx512vnni",
    .features = FERRUM_CPU_AVX2 | FERRUM_CPU_AVX512 | FERRUM_CPU_AVX512_VNNI,
    .vector = FERRUM_VECTOR_OPS(avx512),
    .packed = &packed_ops,
};
