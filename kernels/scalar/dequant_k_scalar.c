/* SPDX-License-Identifier: MIT */
/* Decoders of the 256-value "k" formats: small integer scales per 16 or 32 values times an f16 d.
 *   Q2_K  16 scale bytes (low nibble scale, high nibble minimum, per 16 values), 64 bytes of 2-bit
 *         codes, d, dmin                                    y = d sc q - dmin mn
 *   Q3_K  32 bytes of high bits, 64 bytes of 2-bit codes, 12 bytes of 6-bit scales, d
 *         the value is 4 less where its high bit is clear   y = d (sc - 32) (q - 4 [!bit])
 *   Q4_K  d, dmin, 12 scale bytes, 128 bytes of nibbles     y = d sc q - dmin mn, per 32 values
 *   Q5_K  as Q4_K with 32 bytes of fifth bits before the nibbles
 *   Q6_K  128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, d
 *                                                           y = d sc (q - 32), per 16 values
 * In the 2-bit planes one byte column serves four runs of 32 values of a half (128 values).
 * All products are exact in f32; only the subtraction of a minimum rounds. */
#include "kernels/scalar/convert.h"
#include "kernels/scalar/scalar.h"

enum {
    BLOCK = 256
};

static void dequant_q2_k_block(const uint8_t *p, float *out)
{
    const uint8_t *codes = p + 16;
    const float d = ferrum_f16_to_f32(ferrum_load_u16(p + 80));
    const float dmin = ferrum_f16_to_f32(ferrum_load_u16(p + 82));

    for (int i = 0; i < BLOCK; i++) {
        const int half = i / 128, run = i / 32 % 4, column = i % 32;
        const int q = codes[32 * half + column] >> (2 * run) & 3;
        const uint8_t scale = p[i / 16];
        out[i] = d * (float)(scale & 15) * (float)q - dmin * (float)(scale >> 4);
    }
}

/** 6-bit scale @p j of 16: low nibbles in bytes 0-7, bit pairs in bytes 8-11. */
static int q3_k_scale(const uint8_t *packed, int j)
{
    const int low = packed[j % 8] >> (4 * (j / 8)) & 15;
    const int high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    return (low | high << 4) - 32;
}

static void dequant_q3_k_block(const uint8_t *p, float *out)
{
    const uint8_t *codes = p + 32;
    const float d = ferrum_f16_to_f32(ferrum_load_u16(p + 108));

    for (int i = 0; i < BLOCK; i++) {
        const int half = i / 128, run = i / 32 % 4, column = i % 32;
        const int bit = p[column] >> (i / 32) & 1;
        const int q = (codes[32 * half + column] >> (2 * run) & 3) - (bit ? 0 : 4);
        out[i] = d * (float)q3_k_scale(p + 96, i / 16) * (float)q;
    }
}

/** Q4_K, and Q5_K when @p high (the fifth bits) is not NULL. */
static void dequant_q45_k_block(const uint8_t *p, const uint8_t *high, const uint8_t *nibbles,
                                float *out)
{
    const float d = ferrum_f16_to_f32(ferrum_load_u16(p));
    const float dmin = ferrum_f16_to_f32(ferrum_load_u16(p + 2));

    for (int sub = 0; sub < 8; sub++) {
        int scale, min;
        ferrum_k_scale_min(p + 4, sub, &scale, &min);
        const float ds = d * (float)scale, dm = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int q = nibbles[32 * (sub / 2) + i] >> (4 * (sub % 2)) & 15;
            if (high)
                q |= (high[i] >> sub & 1) << 4;
            out[32 * sub + i] = ds * (float)q - dm;
        }
    }
}

static void dequant_q6_k_block(const uint8_t *p, float *out)
{
    const float d = ferrum_f16_to_f32(ferrum_load_u16(p + 208));

    for (int i = 0; i < BLOCK; i++) {
        const int half = i / 128, run = i / 32 % 4, column = i % 32;
        const int low = p[64 * half + 32 * (run % 2) + column] >> (4 * (run / 2)) & 15;
        const int high = p[128 + 32 * half + column] >> (2 * run) & 3;
        const int scale = (int8_t)p[192 + i / 16];
        out[i] = d * (float)scale * (float)((low | high << 4) - 32);
    }
}

void ferrum_dequant_q2_k_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += BLOCK, p += 84)
        dequant_q2_k_block(p, out + i);
}

void ferrum_dequant_q3_k_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += BLOCK, p += 110)
        dequant_q3_k_block(p, out + i);
}

void ferrum_dequant_q4_k_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += BLOCK, p += 144)
        dequant_q45_k_block(p, NULL, p + 16, out + i);
}

void ferrum_dequant_q5_k_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += BLOCK, p += 176)
        dequant_q45_k_block(p, p + 16, p + 48, out + i);
}

void ferrum_dequant_q6_k_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += BLOCK, p += 210)
        dequant_q6_k_block(p, out + i);
}
