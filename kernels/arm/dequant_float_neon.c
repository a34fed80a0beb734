/* SPDX-License-Identifier: MIT */
/* Decoders of 16-bit floats, 4 values at a time and the tail one by one. */
#include "kernels/arm/neon.h"

#include "kernels/scalar/convert.h"

void ferrum_dequant_f16_neon(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 2 * i))));
    for (; i < n; i++)
        out[i] = ferrum_f16_to_f32(ferrum_load_u16(p + 2 * i));
}

void ferrum_dequant_bf16_neon(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 4; i += 4) {
        const uint16x4_t bits = vreinterpret_u16_u8(vld1_u8(p + 2 * i));
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(bits, 16)));
    }
    for (; i < n; i++)
        out[i] = ferrum_bf16_to_f32(ferrum_load_u16(p + 2 * i));
}
