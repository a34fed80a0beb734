/* SPDX-License-Identifier: MIT */
#include "host/model/row_decoder.h"

#include <ferrum/util.h>

#include <string.h>

static uint16_t read_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)read_u16(bytes) | (uint32_t)read_u16(bytes + 2) << 16;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 31u;
    uint32_t mantissa = half & 1023u;
    if (exponent == 31)
        return float_of_bits(sign | 0x7F800000u | mantissa << 13);
    if (exponent != 0)
        return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* subnormal */
    return sign ? -value : value;
}

static float bf16_to_f32(uint16_t brain)
{
    return float_of_bits((uint32_t)brain << 16);
}

static float f16_at(const uint8_t *bytes)
{
    return f16_to_f32(read_u16(bytes));
}

static void decode_f32(const uint8_t *b, float *out)
{
    out[0] = float_of_bits(read_u32(b));
}

static void decode_f16(const uint8_t *b, float *out)
{
    out[0] = f16_at(b);
}

static void decode_bf16(const uint8_t *b, float *out)
{
    out[0] = bf16_to_f32(read_u16(b));
}

static void decode_q8_0(const uint8_t *b, float *out)
{
    float d = f16_at(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

/* The four legacy formats: `d * (code - centre) + minimum`, nibbles low half first. */
static void decode_legacy(const uint8_t *q, uint32_t high, float d, int centre, float minimum,
                          float *out)
{
    for (int i = 0; i < 16; i++) {
        int low_code = (q[i] & 15) | (int)((high >> i & 1u) << 4);
        int high_code = (q[i] >> 4) | (int)((high >> (i + 16) & 1u) << 4);
        out[i] = d * (float)(low_code - centre) + minimum;
        out[i + 16] = d * (float)(high_code - centre) + minimum;
    }
}

static void decode_q4_0(const uint8_t *b, float *out)
{
    decode_legacy(b + 2, 0, f16_at(b), 8, 0.0f, out);
}

static void decode_q4_1(const uint8_t *b, float *out)
{
    decode_legacy(b + 4, 0, f16_at(b), 0, f16_at(b + 2), out);
}

static void decode_q5_0(const uint8_t *b, float *out)
{
    decode_legacy(b + 6, read_u32(b + 2), f16_at(b), 16, 0.0f, out);
}

static void decode_q5_1(const uint8_t *b, float *out)
{
    decode_legacy(b + 8, read_u32(b + 4), f16_at(b), 0, f16_at(b + 2), out);
}

static void decode_q2_k(const uint8_t *b, float *out)
{
    const uint8_t *scales = b, *q = b + 16;
    float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int sub = 0; sub < 16; sub++) {
        float scale = d * (float)(scales[sub] & 15);
        float minimum = dmin * (float)(scales[sub] >> 4);
        const uint8_t *codes = q + sub / 8 * 32 + sub % 2 * 16;
        int shift = sub % 8 / 2 * 2;
        for (int i = 0; i < 16; i++)
            *out++ = scale * (float)(codes[i] >> shift & 3) - minimum;
    }
}

static void decode_q3_k(const uint8_t *b, float *out)
{
    const uint8_t *high = b, *q = b + 32, *scales = b + 96;
    float d = f16_at(b + 108);
    for (int sub = 0; sub < 16; sub++) {
        int low = sub < 8 ? scales[sub] & 15 : scales[sub - 8] >> 4;
        int code = low | (scales[8 + sub % 4] >> sub / 4 * 2 & 3) << 4;
        float scale = d * (float)(code - 32);
        int first = sub % 2 * 16, shift = sub % 8 / 2 * 2, bit = sub / 2;
        const uint8_t *codes = q + sub / 8 * 32 + first;
        for (int i = 0; i < 16; i++) {
            int value = (codes[i] >> shift & 3) - (high[first + i] >> bit & 1 ? 0 : 4);
            *out++ = scale * (float)value;
        }
    }
}

/* Six-bit scale and minimum of sub-block j of Q4_K and Q5_K. */
static void scale_and_minimum(const uint8_t *s, int j, int *out_scale, int *out_minimum)
{
    if (j < 4) {
        *out_scale = s[j] & 63;
        *out_minimum = s[j + 4] & 63;
        return;
    }
    *out_scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *out_minimum = s[j + 4] >> 4 | s[j] >> 6 << 4;
}

/* @p high: 32 bytes whose bit j is the fifth bit of sub-block j, or NULL. */
static void decode_k45(const uint8_t *b, const uint8_t *high, const uint8_t *q, float *out)
{
    float d = f16_at(b), dmin = f16_at(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        scale_and_minimum(b + 4, j, &scale, &minimum);
        float step = d * (float)scale, base = dmin * (float)minimum;
        const uint8_t *codes = q + j / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int code = codes[i] >> j % 2 * 4 & 15;
            if (high)
                code |= (high[i] >> j & 1) << 4;
            *out++ = step * (float)code - base;
        }
    }
}

static void decode_q4_k(const uint8_t *b, float *out)
{
    decode_k45(b, NULL, b + 16, out);
}

static void decode_q5_k(const uint8_t *b, float *out)
{
    decode_k45(b, b + 16, b + 48, out);
}

static void decode_q6_k(const uint8_t *b, float *out)
{
    float d = f16_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        uint8_t low = b[half * 64 + quarter % 2 * 32 + l];
        uint8_t high = b[128 + half * 32 + l];
        int code = (low >> quarter / 2 * 4 & 15) | (high >> quarter * 2 & 3) << 4;
        int8_t scale = (int8_t)b[192 + i / 16];
        out[i] = d * (float)scale * (float)(code - 32);
    }
}

static const struct {
    ferrum_weight_format_t format;
    void (*decode)(const uint8_t *block, float *out);
} decoders[] = {
    {FERRUM_FORMAT_F32, decode_f32},   {FERRUM_FORMAT_F16, decode_f16},
    {FERRUM_FORMAT_BF16, decode_bf16}, {FERRUM_FORMAT_Q4_0, decode_q4_0},
    {FERRUM_FORMAT_Q4_1, decode_q4_1}, {FERRUM_FORMAT_Q5_0, decode_q5_0},
    {FERRUM_FORMAT_Q5_1, decode_q5_1}, {FERRUM_FORMAT_Q8_0, decode_q8_0},
    {FERRUM_FORMAT_Q2_K, decode_q2_k}, {FERRUM_FORMAT_Q3_K, decode_q3_k},
    {FERRUM_FORMAT_Q4_K, decode_q4_k}, {FERRUM_FORMAT_Q5_K, decode_q5_k},
    {FERRUM_FORMAT_Q6_K, decode_q6_k},
};
#define DECODERS (sizeof decoders / sizeof decoders[0])

static size_t decoder_of(ferrum_weight_format_t format)
{
    size_t i = 0;
    while (i < DECODERS && decoders[i].format != format)
        i++;
    return i;
}

bool ferrum_row_decodable(ferrum_weight_format_t format)
{
    return decoder_of(format) < DECODERS;
}

void ferrum_row_decode(ferrum_weight_format_t format, const void *data, uint64_t row, uint32_t cols,
                       float *out)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    uint64_t blocks = cols / traits->block_values;
    const uint8_t *block = (const uint8_t *)data + row * blocks * traits->block_bytes;
    size_t decoder = decoder_of(format);
    for (uint64_t i = 0; i < blocks; i++) {
        decoders[decoder].decode(block, out);
        block += traits->block_bytes;
        out += traits->block_values;
    }
}

bool ferrum_values_to_f32(ferrum_dtype_t dtype, const void *values, uint64_t count, float *out)
{
    const uint8_t *bytes = values;
    uint32_t size = ferrum_dtype_bytes(dtype);
    for (uint64_t i = 0; i < count; i++, bytes += size) {
        switch (dtype) {
        case FERRUM_DTYPE_F32:
            decode_f32(bytes, &out[i]);
            break;
        case FERRUM_DTYPE_F16:
            decode_f16(bytes, &out[i]);
            break;
        case FERRUM_DTYPE_BF16:
            decode_bf16(bytes, &out[i]);
            break;
        default:
            return false;
        }
    }
    return true;
}
