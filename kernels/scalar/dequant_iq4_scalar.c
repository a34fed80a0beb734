/* SPDX-License-Identifier: MIT */
/* Decoders of the 4-bit formats whose codes index a table of levels.
 *   IQ4_NL  f16 d, 16 bytes; y = d level[q]; nibbles as Q4_0
 *   MXFP4   E8M0 byte e, 16 bytes; y = 2^(e-127) E2M1[q]; kept as doubled levels times 2^(e-128)
 *   IQ4_XS  256 values: f16 d, 16 high scale bits, 4 bytes of low scale nibbles, 8 runs of 16
 * bytes; y = d (sc - 32) level[q] with a 6-bit scale per 32 values */
#include "kernels/scalar/convert.h"
#include "kernels/scalar/scalar.h"

const int8_t ferrum_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
const int8_t ferrum_mxfp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void dequant_levels(const uint8_t *q, const int8_t *levels, float d, float *out)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)levels[q[i] & 15];
        out[i + 16] = d * (float)levels[q[i] >> 4];
    }
}

void ferrum_dequant_iq4_nl_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        dequant_levels(p + 2, ferrum_iq4_levels, ferrum_f16_to_f32(ferrum_load_u16(p)), out + i);
}

void ferrum_dequant_mxfp4_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 17)
        dequant_levels(p + 1, ferrum_mxfp4_levels, ferrum_e8m0_half_to_f32(p[0]), out + i);
}

void ferrum_dequant_iq4_xs_scalar(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 256, p += 136) {
        const float d = ferrum_f16_to_f32(ferrum_load_u16(p));
        const uint16_t high = ferrum_load_u16(p + 2);
        for (int sub = 0; sub < 8; sub++) {
            const int low = p[4 + sub / 2] >> (4 * (sub % 2)) & 15;
            const int scale = (low | (high >> (2 * sub) & 3) << 4) - 32;
            dequant_levels(p + 8 + 16 * sub, ferrum_iq4_levels, d * (float)scale,
                           out + i + 32 * (size_t)sub);
        }
    }
}
