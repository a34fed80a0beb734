/* SPDX-License-Identifier: MIT */
/* Decoders of the 32-value formats with an f16 scale d (and an f16 minimum m):
 *   Q4_0  d, 16 bytes              y = d (q - 8)      byte i holds values i (low) and i+16 (high)
 *   Q4_1  d, m, 16 bytes           y = d q + m
 *   Q5_0  d, 32 high bits, 16      y = d (q - 16)     bit i of the word is bit 4 of value i
 *   Q5_1  d, m, 32 high bits, 16   y = d q + m
 *   Q8_0  d, 32 int8               y = d q
 * The product d q is exact in f32, so each value has at most the one rounding of the sum. */
#include "kernels/scalar/convert.h"
#include "kernels/scalar/scalar.h"

/** One block: y[i] = d * (q - zero) + m with q = nibble + 16 * high bit. */
static void dequant_nibbles(const uint8_t *q, uint32_t high, int zero, float d, float m, float *out)
{
    for (int i = 0; i < 16; i++) {
        const int low_value = (q[i] & 15) | (int)(high >> i & 1) << 4;
        const int high_value = q[i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
        out[i] = d * (float)(low_value - zero) + m;
        out[i + 16] = d * (float)(high_value - zero) + m;
    }
}

void ferrum_dequant_q4_0_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        dequant_nibbles(p + 2, 0, 8, ferrum_f16_to_f32(ferrum_load_u16(p)), FERRUM_NO_MIN, out + i);
}

void ferrum_dequant_q4_1_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 20)
        dequant_nibbles(p + 4, 0, 0, ferrum_f16_to_f32(ferrum_load_u16(p)),
                        ferrum_f16_to_f32(ferrum_load_u16(p + 2)), out + i);
}

void ferrum_dequant_q5_0_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 22)
        dequant_nibbles(p + 6, ferrum_load_u32(p + 2), 16, ferrum_f16_to_f32(ferrum_load_u16(p)),
                        FERRUM_NO_MIN, out + i);
}

void ferrum_dequant_q5_1_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 24)
        dequant_nibbles(p + 8, ferrum_load_u32(p + 4), 0, ferrum_f16_to_f32(ferrum_load_u16(p)),
                        ferrum_f16_to_f32(ferrum_load_u16(p + 2)), out + i);
}

void ferrum_dequant_q8_0_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 34) {
        const float d = ferrum_f16_to_f32(ferrum_load_u16(p));
        for (int j = 0; j < 32; j++)
            out[i + (size_t)j] = d * (float)(int8_t)p[2 + j];
    }
}
