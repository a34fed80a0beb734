/* SPDX-License-Identifier: MIT */
/**
 * @file scalar.h
 * @brief What the scalar files share. The decoders here are the readable reference for all others.
 */
#ifndef FERRUM_KERNELS_SCALAR_H
#define FERRUM_KERNELS_SCALAR_H

#include "kernels/set.h"

FERRUM_BLOCK_FORMATS(FERRUM_DECLARE_DEQUANT, scalar)

extern ferrum_matmul_blocks_fn ferrum_matmul_blocks_scalar;
extern ferrum_gptq_matmul_fn ferrum_matmul_gptq_scalar;

FERRUM_DECLARE_VECTOR(scalar)

/** 16 levels of the IQ4 formats. */
extern const int8_t ferrum_iq4_levels[16];
/** 16 levels of MXFP4 (E2M1), doubled so that they are integers. */
extern const int8_t ferrum_mxfp4_levels[16];

/** 6-bit scale and minimum of sub-block @p j in the 12 packed bytes of a Q4_K or Q5_K block. */
static inline void ferrum_k_scale_min(const uint8_t *packed, int j, int *out_scale, int *out_min)
{
    if (j < 4) {
        *out_scale = packed[j] & 63;
        *out_min = packed[j + 4] & 63;
    } else {
        *out_scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        *out_min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}

#endif /* FERRUM_KERNELS_SCALAR_H */
