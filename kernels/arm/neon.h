/* SPDX-License-Identifier: MIT */
/**
 * @file neon.h
 * @brief What the NEON files share. All of AArch64 has NEON with fused multiply-add.
 */
#ifndef FERRUM_KERNELS_NEON_H
#define FERRUM_KERNELS_NEON_H

#include "kernels/scalar/scalar.h"

#include <arm_neon.h>
#include <string.h>

extern ferrum_dequant_fn ferrum_dequant_f16_neon;
extern ferrum_dequant_fn ferrum_dequant_bf16_neon;
extern ferrum_matmul_blocks_fn ferrum_matmul_blocks_neon;
FERRUM_DECLARE_VECTOR(neon)

/** The first min(n, 4) values at @p p, then zeros. */
static inline float32x4_t ferrum_load_neon(const float *p, size_t n)
{
    float part[4] = {0};
    if (n >= 4)
        return vld1q_f32(p);
    memcpy(part, p, n * sizeof *p);
    return vld1q_f32(part);
}

/** Store the first min(n, 4) lanes. */
static inline void ferrum_store_neon(float *p, size_t n, float32x4_t v)
{
    float part[4];
    vst1q_f32(part, v);
    if (n >= 4)
        vst1q_f32(p, v);
    else
        memcpy(p, part, n * sizeof *p);
}

#endif /* FERRUM_KERNELS_NEON_H */
