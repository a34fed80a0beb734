/* SPDX-License-Identifier: MIT */
/*
 * Random weights and what they mean. The decoder answers for one value at a time, from the layouts
 * of the formats; it shares nothing with the kernels that it judges. tests/conformance/goldens.c
 * holds it in turn against values that other software decoded.
 */
#include "tools/kit/kit.h"

#include <string.h>

const ferrum_weight_format_t cf_formats[] = {
    FERRUM_FORMAT_F32,  FERRUM_FORMAT_F16,    FERRUM_FORMAT_BF16,   FERRUM_FORMAT_Q4_0,
    FERRUM_FORMAT_Q4_1, FERRUM_FORMAT_Q5_0,   FERRUM_FORMAT_Q5_1,   FERRUM_FORMAT_Q8_0,
    FERRUM_FORMAT_Q2_K, FERRUM_FORMAT_Q3_K,   FERRUM_FORMAT_Q4_K,   FERRUM_FORMAT_Q5_K,
    FERRUM_FORMAT_Q6_K, FERRUM_FORMAT_IQ4_NL, FERRUM_FORMAT_IQ4_XS, FERRUM_FORMAT_MXFP4,
};
const size_t cf_format_count = sizeof cf_formats / sizeof cf_formats[0];

static uint32_t u16(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t u32(const unsigned char *at)
{
    return u16(at) | u16(at + 2) << 16;
}

double cf_half(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, exponent - 25);
}

static double half_at(const unsigned char *at)
{
    return cf_half((uint16_t)u16(at));
}

/* Nibble of value i where 16 bytes hold values 0..15 low and 16..31 high. */
static int nibble(const unsigned char *bytes, uint32_t i)
{
    return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
}

static double decode_32(ferrum_weight_format_t format, const unsigned char *b, uint32_t i)
{
    static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};
    static const double fp4[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    switch (format) {
    case FERRUM_FORMAT_Q4_0:
        return half_at(b) * (nibble(b + 2, i) - 8);
    case FERRUM_FORMAT_Q4_1:
        return half_at(b) * nibble(b + 4, i) + half_at(b + 2);
    case FERRUM_FORMAT_Q5_0:
        return half_at(b) * ((nibble(b + 6, i) | (int)(u32(b + 2) >> i & 1) << 4) - 16);
    case FERRUM_FORMAT_Q5_1:
        return half_at(b) * (nibble(b + 8, i) | (int)(u32(b + 4) >> i & 1) << 4) + half_at(b + 2);
    case FERRUM_FORMAT_Q8_0:
        return half_at(b) * (signed char)b[2 + i];
    case FERRUM_FORMAT_IQ4_NL:
        return half_at(b) * iq4[nibble(b + 2, i)];
    case FERRUM_FORMAT_IQ4_XS: { /* called with i over 256 values */
        uint32_t sub = i / 32;
        int low = b[4 + sub / 2] >> (sub % 2 * 4) & 15, high = (int)(u16(b + 2) >> (2 * sub) & 3);
        return half_at(b) * ((low | high << 4) - 32) * iq4[nibble(b + 8 + 16 * sub, i % 32)];
    }
    default: { /* MXFP4 */
        int code = nibble(b + 1, i);
        double value = ldexp(fp4[code & 7], b[0] - 127);
        return code & 8 ? -value : value;
    }
    }
}

/* 6-bit scale and minimum of sub-block j of Q4_K and Q5_K. */
static void scale_min(const unsigned char *s, uint32_t j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static double decode_k(ferrum_weight_format_t format, const unsigned char *b, uint32_t i)
{
    uint32_t half = i / 128, quarter = i % 128 / 32, lane = i % 32;
    int scale, min;
    switch (format) {
    case FERRUM_FORMAT_Q2_K: {
        int packed = b[i / 16], q = b[16 + 32 * half + lane] >> (2 * quarter) & 3;
        return half_at(b + 80) * (packed & 15) * q - half_at(b + 82) * (packed >> 4);
    }
    case FERRUM_FORMAT_Q3_K: {
        uint32_t sub = i / 16;
        const unsigned char *s = b + 96;
        int low = sub < 8 ? s[sub] & 15 : s[sub - 8] >> 4;
        int high = s[8 + sub % 4] >> (2 * (sub / 4)) & 3;
        int q = b[32 + 32 * half + lane] >> (2 * quarter) & 3;
        int bit = b[lane] >> (4 * half + quarter) & 1;
        return half_at(b + 108) * ((low | high << 4) - 32) * (q - (bit ? 0 : 4));
    }
    case FERRUM_FORMAT_Q4_K: {
        int code = b[16 + i / 64 * 32 + lane] >> (i % 64 / 32 * 4) & 15;
        scale_min(b + 4, i / 32, &scale, &min);
        return half_at(b) * scale * code - half_at(b + 2) * min;
    }
    case FERRUM_FORMAT_Q5_K: {
        int code = b[48 + i / 64 * 32 + lane] >> (i % 64 / 32 * 4) & 15;
        code |= (b[16 + lane] >> (i / 32) & 1) << 4;
        scale_min(b + 4, i / 32, &scale, &min);
        return half_at(b) * scale * code - half_at(b + 2) * min;
    }
    default: { /* Q6_K */
        const unsigned char *low = b + 64 * half + (quarter % 2) * 32;
        int code = low[lane] >> (quarter / 2 * 4) & 15;
        code |= (b[128 + 32 * half + lane] >> (2 * quarter) & 3) << 4;
        return half_at(b + 208) * (signed char)b[192 + i / 16] * (code - 32);
    }
    }
}

double cf_decode(ferrum_weight_format_t format, const unsigned char *block, uint32_t i)
{
    float value;
    uint32_t word;
    switch (format) {
    case FERRUM_FORMAT_F32:
        memcpy(&value, block, sizeof value);
        return (double)value;
    case FERRUM_FORMAT_F16:
        return half_at(block);
    case FERRUM_FORMAT_BF16:
        word = u16(block) << 16;
        memcpy(&value, &word, sizeof value);
        return (double)value;
    case FERRUM_FORMAT_Q2_K:
    case FERRUM_FORMAT_Q3_K:
    case FERRUM_FORMAT_Q4_K:
    case FERRUM_FORMAT_Q5_K:
    case FERRUM_FORMAT_Q6_K:
        return decode_k(format, block, i);
    default:
        return decode_32(format, block, i);
    }
}

/* Overwrite the scale fields of a random block by f16 numbers between 2^-9 and 2^-5. */
static void tame(cf_suite_t *suite, ferrum_weight_format_t format, unsigned char *block)
{
    static const struct {
        ferrum_weight_format_t format;
        int at[2];
        uint16_t low;
    } fields[] = {
        {FERRUM_FORMAT_Q4_0, {0, -1}, 0x2000},   {FERRUM_FORMAT_Q4_1, {0, 2}, 0x2000},
        {FERRUM_FORMAT_Q5_0, {0, -1}, 0x1c00},   {FERRUM_FORMAT_Q5_1, {0, 2}, 0x1c00},
        {FERRUM_FORMAT_Q8_0, {0, -1}, 0x1000},   {FERRUM_FORMAT_Q2_K, {80, 82}, 0x1800},
        {FERRUM_FORMAT_Q3_K, {108, -1}, 0x1000}, {FERRUM_FORMAT_Q4_K, {0, 2}, 0x0c00},
        {FERRUM_FORMAT_Q5_K, {0, 2}, 0x0800},    {FERRUM_FORMAT_Q6_K, {208, -1}, 0x0400},
        {FERRUM_FORMAT_IQ4_NL, {0, -1}, 0x1000}, {FERRUM_FORMAT_IQ4_XS, {0, -1}, 0x0400},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        for (int j = 0; fields[i].format == format && j < 2; j++)
            if (fields[i].at[j] >= 0) {
                uint16_t value = (uint16_t)(fields[i].low + cf_below(suite, 1024));
                value = (uint16_t)(value | (cf_below(suite, 4) == 0 ? 0x8000 : 0));
                block[fields[i].at[j]] = (unsigned char)value;
                block[fields[i].at[j] + 1] = (unsigned char)(value >> 8);
            }
    float value = (float)cf_uniform(suite) * 0.3F;
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if (format == FERRUM_FORMAT_F32)
        memcpy(block, &value, sizeof value);
    else if (format == FERRUM_FORMAT_BF16)
        word >>= 16, block[0] = (unsigned char)word, block[1] = (unsigned char)(word >> 8);
    else if (format == FERRUM_FORMAT_F16)
        block[1] = (unsigned char)((block[1] & 0x83) | 0x28);
    else if (format == FERRUM_FORMAT_MXFP4)
        block[0] = (unsigned char)(120 + cf_below(suite, 6));
}

cf_weights_t cf_random_blocks(cf_suite_t *suite, ferrum_weight_format_t format, uint32_t experts,
                              uint32_t rows, uint32_t cols)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    uint64_t values = (uint64_t)experts * rows * cols, blocks = values / traits->block_values;
    uint64_t bytes = blocks * traits->block_bytes;
    /* One byte off any alignment: the contract promises none. */
    unsigned char *data = (unsigned char *)cf_memory(suite, bytes + 1) + 1;
    cf_weights_t weights = {.format = format,
                            .experts = experts,
                            .rows = rows,
                            .cols = cols,
                            .w = cf_memory(suite, values * sizeof(double))};
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)cf_random(suite);
    for (uint64_t i = 0; i < blocks; i++) {
        unsigned char *block = data + i * traits->block_bytes;
        tame(suite, format, block);
        for (uint32_t j = 0; j < traits->block_values; j++)
            weights.w[i * traits->block_values + j] = cf_decode(format, block, j);
    }
    weights.gguf = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                           .format = format,
                                           .experts = experts,
                                           .rows = rows,
                                           .cols = cols,
                                           .data = data,
                                           .bytes = bytes};
    return weights;
}

static void store_scale(void *scales, ferrum_dtype_t dtype, uint64_t at, uint16_t half,
                        double *out_value)
{
    float value = (float)cf_half(half);
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    uint16_t brain = (uint16_t)(word >> 16);
    *out_value = (double)value;
    if (dtype == FERRUM_DTYPE_F32)
        memcpy((char *)scales + at * 4, &value, 4);
    else if (dtype == FERRUM_DTYPE_F16)
        memcpy((char *)scales + at * 2, &half, 2);
    else {
        memcpy((char *)scales + at * 2, &brain, 2);
        word &= 0xffff0000u;
        memcpy(&value, &word, sizeof value);
        *out_value = (double)value;
    }
}

static void random_gptq(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t rows, uint32_t cols,
                        ferrum_gptq_t *out, double *w)
{
    uint32_t bits = kind->bits, per_word = 32 / bits, codes = 1u << bits;
    uint32_t group = kind->group_size ? kind->group_size : cols, groups = cols / group;
    uint32_t *qweight = cf_memory(suite, (size_t)cols / per_word * rows * 4);
    uint32_t *qzeros = cf_memory(suite, (size_t)groups * (rows / per_word) * 4);
    void *scales = cf_memory(suite, (size_t)groups * rows * 4);
    double *scale = cf_memory(suite, (size_t)groups * rows * sizeof *scale);
    int32_t *g_idx = cf_memory(suite, cols * sizeof *g_idx);
    float *bias = cf_memory(suite, rows * sizeof *bias);
    for (uint32_t k = 0; k < cols; k++)
        g_idx[k] = (int32_t)(k / group);
    for (uint32_t k = cols; kind->act_order && k > 1; k--) { /* a permutation: groups stay full */
        uint32_t other = cf_below(suite, k);
        int32_t swap = g_idx[k - 1];
        g_idx[k - 1] = g_idx[other];
        g_idx[other] = swap;
    }
    int *zero = cf_memory(suite, (size_t)groups * rows * sizeof *zero);
    for (uint32_t g = 0; g < groups; g++)
        for (uint32_t n = 0; n < rows; n++) {
            uint32_t stored = kind->symmetric ? codes / 2 - (kind->convention == 0) : 0;
            if (!kind->symmetric) /* the largest stored code would overflow with 8 bits + 1 */
                stored = cf_below(suite, codes - (bits == 8));
            qzeros[(size_t)g * (rows / per_word) + n / per_word] |= stored << (n % per_word * bits);
            zero[(size_t)g * rows + n] =
                (int)stored + (kind->convention == FERRUM_ZERO_STORED_MINUS_ONE);
            store_scale(scales, kind->scales_dtype, (uint64_t)g * rows + n,
                        (uint16_t)(0x2000 + cf_below(suite, 1024)), &scale[(size_t)g * rows + n]);
        }
    for (uint32_t k = 0; k < cols; k++)
        for (uint32_t n = 0; n < rows; n++) {
            uint32_t code = cf_below(suite, codes);
            size_t g = (size_t)g_idx[k] * rows + n;
            qweight[(size_t)(k / per_word) * rows + n] |= code << (k % per_word * bits);
            w[(size_t)n * cols + k] = ((int)code - zero[g]) * scale[g];
        }
    for (uint32_t n = 0; n < rows; n++)
        bias[n] = (float)cf_uniform(suite);
    *out = (ferrum_gptq_t){
        .head = FERRUM_HEAD(ferrum_gptq_t),
        .bits = bits,
        .group_size = kind->group_size,
        .zero_convention = kind->convention,
        .k = cols,
        .n = rows,
        .qweight = (const int32_t *)qweight,
        .qweight_count = (uint64_t)cols / per_word * rows,
        .qzeros = (const int32_t *)qzeros,
        .qzeros_count = (uint64_t)groups * (rows / per_word),
        .scales = scales,
        .scales_count = (uint64_t)groups * rows,
        .scales_dtype = kind->scales_dtype,
        .g_idx = kind->act_order ? g_idx : NULL,
        .g_idx_count = kind->act_order ? cols : 0,
        .bias = kind->bias ? bias : NULL,
    };
}

cf_weights_t cf_random_gptq(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t experts,
                            uint32_t rows, uint32_t cols)
{
    cf_weights_t weights = {.format = FERRUM_FORMAT_GPTQ,
                            .experts = experts,
                            .rows = rows,
                            .cols = cols,
                            .gptq = cf_memory(suite, experts * sizeof *weights.gptq),
                            .gptq_list = cf_memory(suite, experts * sizeof *weights.gptq_list),
                            .w = cf_memory(suite, (size_t)experts * rows * cols * sizeof(double))};
    for (uint32_t e = 0; e < experts; e++) {
        random_gptq(suite, kind, rows, cols, &weights.gptq[e], weights.w + (size_t)e * rows * cols);
        weights.gptq_list[e] = &weights.gptq[e];
    }
    return weights;
}

void cf_ref_matvec(const cf_weights_t *weights, uint32_t expert, const double *x, double *out)
{
    const double *w = weights->w + (size_t)expert * weights->rows * weights->cols;
    const float *bias = weights->gptq ? weights->gptq[expert].bias : NULL;
    for (uint32_t r = 0; r < weights->rows; r++) {
        out[r] = bias ? (double)bias[r] : 0;
        for (uint32_t c = 0; c < weights->cols; c++)
            out[r] += w[(size_t)r * weights->cols + c] * x[c];
    }
}
