/* SPDX-License-Identifier: MIT */
#include "tests/cpu/weights.h"
#include "tests/cpu/fixture.h"

#include "backends/cpu/half.h"
#include "kernels/kernels.h"

#include <ferrum/util.h>

#include <stdlib.h>

/** Where the half-precision scales of a block lie; -1: none. */
static void scale_places(ferrum_weight_format_t format, int out_places[2])
{
    out_places[0] = 0;
    out_places[1] = -1;
    switch (format) {
    case FERRUM_FORMAT_Q4_1:
    case FERRUM_FORMAT_Q5_1:
    case FERRUM_FORMAT_Q4_K:
    case FERRUM_FORMAT_Q5_K:
        out_places[1] = 2;
        break;
    case FERRUM_FORMAT_Q2_K:
        out_places[0] = 80;
        out_places[1] = 82;
        break;
    case FERRUM_FORMAT_Q3_K:
        out_places[0] = 108;
        break;
    case FERRUM_FORMAT_Q6_K:
        out_places[0] = 208;
        break;
    case FERRUM_FORMAT_F32:
    case FERRUM_FORMAT_BF16:
    case FERRUM_FORMAT_MXFP4:
        out_places[0] = -1;
        break;
    default:
        break;
    }
}

static void fill_block(ferrum_weight_format_t format, uint8_t *block, uint32_t bytes,
                       uint64_t *state)
{
    int places[2];
    for (uint32_t i = 0; i < bytes; i++)
        block[i] = (uint8_t)(int)(cpu_random(state) * 127.0f);
    scale_places(format, places);
    for (int i = 0; i < 2; i++)
        if (places[i] >= 0) {
            const uint16_t half = ferrum_cpu_f32_to_f16(cpu_random(state) * 0.01f);
            memcpy(block + places[i], &half, sizeof half);
        }
    const float value = cpu_random(state);
    const uint16_t rounded = ferrum_cpu_f32_to_bf16(value);
    if (format == FERRUM_FORMAT_F32)
        memcpy(block, &value, sizeof value);
    else if (format == FERRUM_FORMAT_BF16)
        memcpy(block, &rounded, sizeof rounded);
    else if (format == FERRUM_FORMAT_MXFP4)
        block[0] = (uint8_t)(121 + block[0] % 8);
}

test_blocks_t test_blocks_new(ferrum_weight_format_t format, uint32_t experts, uint32_t n,
                              uint32_t k, uint64_t seed)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    const size_t blocks = (size_t)experts * n * k / traits->block_values;
    const size_t values = (size_t)experts * n * k;
    uint8_t *data = malloc(blocks * traits->block_bytes);
    float *decoded = malloc(values * sizeof *decoded);
    double *exact = malloc(values * sizeof *exact);

    for (size_t i = 0; i < blocks; i++)
        fill_block(format, data + i * traits->block_bytes, traits->block_bytes, &seed);
    ferrum_kernel_dequant(format)(data, decoded, values);
    for (size_t i = 0; i < values; i++)
        exact[i] = (double)decoded[i];
    free(decoded);
    return (test_blocks_t){.desc = {.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                    .format = format,
                                    .experts = experts,
                                    .rows = n,
                                    .cols = k,
                                    .data = data,
                                    .bytes = blocks * traits->block_bytes},
                           .data = data,
                           .values = exact};
}

void test_blocks_free(test_blocks_t *blocks)
{
    free(blocks->data);
    free(blocks->values);
}

/** Group of each K-row. */
static int32_t *make_g_idx(const test_gptq_shape_t *shape, uint32_t groups, uint64_t *state)
{
    int32_t *g_idx = malloc(shape->k * sizeof *g_idx);
    for (uint32_t i = 0; i < shape->k; i++)
        g_idx[i] = (int32_t)(shape->group_size ? i / shape->group_size : 0);
    for (uint32_t i = shape->k - 1; i > 0; i--) { /* shuffle */
        const uint32_t j = (uint32_t)((cpu_random(state) * 0.5f + 0.5f) * (float)(i + 1)) % (i + 1);
        const int32_t other = g_idx[j];
        g_idx[j] = g_idx[i];
        g_idx[i] = other;
    }
    for (uint32_t i = 0; shape->ragged && i < shape->k; i += 3)
        g_idx[i] = (int32_t)(groups - 1);
    return g_idx;
}

/** Pack a code of @p bits as number @p index of a run of words. */
static void pack(int32_t *words, size_t index, uint32_t bits, uint32_t code)
{
    const uint32_t per_word = 32 / bits;
    uint32_t word = (uint32_t)words[index / per_word];
    word |= code << index % per_word * bits;
    words[index / per_word] = (int32_t)word;
}

/** A scale near 0.01, stored as @p dtype; returns what the stored one stands for. */
static double put_scale(void *scales, size_t index, ferrum_dtype_t dtype, uint64_t *state)
{
    const float scale = 0.01f + 0.005f * cpu_random(state);
    const uint16_t half =
        dtype == FERRUM_DTYPE_F16 ? ferrum_cpu_f32_to_f16(scale) : ferrum_cpu_f32_to_bf16(scale);
    float stored = scale;
    if (dtype == FERRUM_DTYPE_F32) {
        ((float *)scales)[index] = scale;
    } else {
        ((uint16_t *)scales)[index] = half;
        ferrum_kernel_dequant(dtype == FERRUM_DTYPE_F16 ? FERRUM_FORMAT_F16
                                                        : FERRUM_FORMAT_BF16)(&half, &stored, 1);
    }
    return (double)stored;
}

static uint32_t random_code(uint32_t limit, uint64_t *state)
{
    return (uint32_t)((cpu_random(state) * 0.5f + 0.5f) * (float)limit) % limit;
}

test_gptq_t test_gptq_new(const test_gptq_shape_t *shape, uint64_t seed)
{
    const uint32_t groups = shape->group_size ? shape->k / shape->group_size : 1;
    const uint32_t k = shape->k, n = shape->n, bits = shape->bits, per_word = 32 / bits;
    int32_t *qweight = calloc((size_t)k / per_word * n, sizeof *qweight);
    int32_t *qzeros = shape->asymmetric ? calloc((size_t)groups * (n / per_word), 4) : NULL;
    void *scales = malloc((size_t)groups * n * 4);
    int32_t *g_idx = shape->act_order ? make_g_idx(shape, groups, &seed) : NULL;
    float *bias = shape->bias ? cpu_random_values(seed + 1, n) : NULL;
    double *values = malloc((size_t)n * k * sizeof *values);
    double *scale = malloc((size_t)groups * n * sizeof *scale);
    uint32_t *zero = malloc((size_t)groups * n * sizeof *zero);

    for (size_t i = 0; i < (size_t)groups * n; i++) {
        scale[i] = put_scale(scales, i, shape->scales_dtype, &seed);
        zero[i] = 1u << (bits - 1);
        if (!qzeros)
            continue;
        /* All codes but the one that would become 256. */
        const uint32_t stored = random_code(bits == 8 ? 255 : 16, &seed);
        pack(qzeros + i / n * (n / per_word), i % n, bits, stored);
        zero[i] = stored + (shape->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE);
    }
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t c = 0; c < n; c++) {
            const uint32_t code = random_code(1u << bits, &seed);
            const size_t g =
                g_idx ? (size_t)g_idx[i] : (shape->group_size ? i / shape->group_size : 0);
            uint32_t *word = (uint32_t *)&qweight[(size_t)(i / per_word) * n + c];
            *word |= code << i % per_word * bits;
            values[(size_t)c * k + i] = ((double)code - zero[g * n + c]) * scale[g * n + c];
        }
    free(scale);
    free(zero);
    return (test_gptq_t){.desc = {.head = FERRUM_HEAD(ferrum_gptq_t),
                                  .bits = bits,
                                  .group_size = shape->group_size,
                                  .zero_convention = shape->zero_convention,
                                  .k = k,
                                  .n = n,
                                  .qweight = qweight,
                                  .qweight_count = (uint64_t)k / per_word * n,
                                  .qzeros = qzeros,
                                  .qzeros_count = qzeros ? (uint64_t)groups * (n / per_word) : 0,
                                  .scales = scales,
                                  .scales_count = (uint64_t)groups * n,
                                  .scales_dtype = shape->scales_dtype,
                                  .g_idx = g_idx,
                                  .g_idx_count = g_idx ? k : 0,
                                  .bias = bias},
                         .arrays = {qweight, qzeros, scales, g_idx, bias},
                         .values = values};
}

void test_gptq_free(test_gptq_t *gptq)
{
    for (size_t i = 0; i < sizeof gptq->arrays / sizeof gptq->arrays[0]; i++)
        free(gptq->arrays[i]);
    free(gptq->values);
}

void test_product(const double *w, uint32_t n, uint32_t k, const float *x, const float *bias,
                  double *out_y)
{
    for (uint32_t r = 0; r < n; r++) {
        double sum = 0.0;
        for (uint32_t i = 0; i < k; i++)
            sum += w[(size_t)r * k + i] * (double)x[i];
        out_y[r] = sum + (bias ? (double)bias[r] : 0.0);
    }
}
