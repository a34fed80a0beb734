/* SPDX-License-Identifier: MIT */
/* Decoders of unquantised rows. All conversions are exact. */
#include "kernels/scalar/convert.h"
#include "kernels/scalar/scalar.h"

void ferrum_dequant_f32_scalar(const void *blocks, float *out, size_t n)
{
    if (n > 0)
        memcpy(out, blocks, n * sizeof *out);
}

void ferrum_dequant_f16_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++)
        out[i] = ferrum_f16_to_f32(ferrum_load_u16(p + 2 * i));
}

void ferrum_dequant_bf16_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++)
        out[i] = ferrum_bf16_to_f32(ferrum_load_u16(p + 2 * i));
}
