/* SPDX-License-Identifier: MIT */
/* The AMX kernel set: packed products of many tokens; everything else is the AVX-512 sets'. */
#include "kernels/set.h"
#include "kernels/x86/packed_amx.h"
#include "kernels/x86/packed_avx512vnni.h"

FERRUM_DECLARE_VECTOR(avx512)

static const ferrum_packed_ops_t packed_ops = {ferrum_packed_quantise_avx512vnni,
                                               ferrum_packed_product_amx};

const ferrum_kernel_set_t ferrum_kernel_set_amx = {
    .name = "amx",
    .features = FERRUM_CPU_AVX2 | FERRUM_CPU_AVX512 | FERRUM_CPU_AVX512_VNNI | FERRUM_CPU_AMX_INT8,
    .vector = FERRUM_VECTOR_OPS(avx512),
    .packed = &packed_ops,
};
