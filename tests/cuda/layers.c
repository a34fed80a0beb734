/* SPDX-License-Identifier: MIT */
#include "tests/cuda/layers.h"

#include "kernels/set.h"

#include <math.h>
#include <stdlib.h>

enum {
    BLOCK = 32, /* inputs per group of GPTQ */
    CODES_PER_WORD = 8
};

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void *zeroed(size_t count, size_t bytes)
{
    void *memory = calloc(count ? count : 1, bytes);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static uint32_t rows_of(const layer_shape_t *shape, int role)
{
    return role < 2 ? shape->intermediate : shape->hidden;
}

static uint32_t cols_of(const layer_shape_t *shape, int role)
{
    return role < 2 ? shape->hidden : shape->intermediate;
}

/** Where a block has f16 scales and minima, and the least of each: they lie between that and its
 * double. Minima bring weights around zero, as those of models are. */
static const struct {
    ferrum_weight_format_t format;
    int scale_at, minimum_at; /* -1: none */
    uint16_t scale, minimum;
} block_scales[] = {
    {FERRUM_FORMAT_Q4_0, 0, -1, 0x1c00, 0},     {FERRUM_FORMAT_Q4_1, 0, 2, 0x1c00, 0xa800},
    {FERRUM_FORMAT_Q5_0, 0, -1, 0x1800, 0},     {FERRUM_FORMAT_Q5_1, 0, 2, 0x1800, 0xa800},
    {FERRUM_FORMAT_Q8_0, 0, -1, 0x1000, 0},     {FERRUM_FORMAT_Q2_K, 80, 82, 0x0c00, 0x0e00},
    {FERRUM_FORMAT_Q3_K, 108, -1, 0x0c00, 0},   {FERRUM_FORMAT_Q4_K, 0, 2, 0x0800, 0x1400},
    {FERRUM_FORMAT_Q5_K, 0, 2, 0x0400, 0x1400}, {FERRUM_FORMAT_Q6_K, 208, -1, 0x0100, 0},
    {FERRUM_FORMAT_IQ4_NL, 0, -1, 0x1000, 0},   {FERRUM_FORMAT_IQ4_XS, 0, -1, 0x0200, 0},
};

/** Random codes, scales of a size that keeps sums in the range of f16. */
static void fill_blocks(ferrum_weight_format_t format, uint8_t *blocks, size_t bytes,
                        uint32_t block_bytes, uint32_t *state)
{
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = (uint8_t)next(state);
    for (uint8_t *at = blocks; at < blocks + bytes; at += block_bytes) {
        if (format == FERRUM_FORMAT_MXFP4)
            at[0] = (uint8_t)(118 + next(state) % 4);
        if (format == FERRUM_FORMAT_F32) {
            const float value = (float)((int)(next(state) % 255) - 127) / 1024.0f;
            memcpy(at, &value, sizeof value);
        }
        for (size_t i = 0; i < sizeof block_scales / sizeof block_scales[0]; i++) {
            const uint16_t scale = (uint16_t)(block_scales[i].scale + next(state) % 0x400);
            const uint16_t minimum = (uint16_t)(block_scales[i].minimum + next(state) % 0x400);
            if (block_scales[i].format != format)
                continue;
            memcpy(at + block_scales[i].scale_at, &scale, sizeof scale);
            if (block_scales[i].minimum_at >= 0)
                memcpy(at + block_scales[i].minimum_at, &minimum, sizeof minimum);
        }
    }
}

static void dequantise(ferrum_weight_format_t format, const void *blocks, float *out, size_t count)
{
    const ferrum_kernel_set_t *set = &ferrum_kernel_set_scalar;
    size_t i = 0;

    while (i < set->matmul_count && set->matmul[i].format != format)
        i++;
    ck_assert_uint_lt(i, set->matmul_count);
    set->matmul[i].dequant(blocks, out, count);
}

static void make_blocks(layer_t *layer, int role, ferrum_weight_format_t format, uint32_t *state)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    const uint32_t n = rows_of(&layer->shape, role), k = cols_of(&layer->shape, role);
    const size_t count = (size_t)layer->shape.experts * n * k;
    const size_t bytes = count / traits->block_values * traits->block_bytes;
    float *values = zeroed(count, sizeof *values);

    layer->data[role] = zeroed(bytes, 1);
    fill_blocks(format, layer->data[role], bytes, traits->block_bytes, state);
    dequantise(format, layer->data[role], values, count);
    for (size_t i = 0; i < count; i++)
        layer->values[role][i] = (double)values[i];
    free(values);
    layer->gguf[role] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                                .format = format,
                                                .experts = layer->shape.experts,
                                                .rows = n,
                                                .cols = k,
                                                .data = layer->data[role],
                                                .bytes = bytes};
    layer->role[role].gguf = &layer->gguf[role];
}

/** One matrix at @p words: codes [k/8, n], zeros [groups, n/8], scales f32 [groups, n]. */
static void make_matrix(ferrum_gptq_t *matrix, int32_t *words, const int32_t *g_idx, double *values,
                        uint32_t n, uint32_t k, uint32_t *state)
{
    const uint32_t groups = k / BLOCK, codes = k / CODES_PER_WORD * n;
    int32_t *zeros = words + codes;
    float *scales = (float *)(zeros + groups * n / CODES_PER_WORD);

    for (uint32_t i = 0; i < codes + groups * n / CODES_PER_WORD; i++)
        words[i] = (int32_t)(next(state) ^ next(state) << 16);
    for (uint32_t i = 0; i < groups * n; i++)
        scales[i] = (float)(1 + next(state) % 7) / 512.0f;
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t i = 0; i < k; i++) {
            const uint32_t g = g_idx ? (uint32_t)g_idx[i] : i / BLOCK;
            const uint32_t code = (uint32_t)words[i / 8 * n + row] >> i % 8 * 4 & 15;
            const uint32_t zero = (uint32_t)zeros[(g * n + row) / 8] >> row % 8 * 4 & 15;
            values[(size_t)row * k + i] =
                ((double)code - (double)(zero + 1)) * (double)scales[g * n + row];
        }
    *matrix = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                              .bits = 4,
                              .group_size = BLOCK,
                              .k = k,
                              .n = n,
                              .qweight = words,
                              .qweight_count = codes,
                              .qzeros = zeros,
                              .qzeros_count = groups * n / CODES_PER_WORD,
                              .scales = scales,
                              .scales_count = (uint64_t)groups * n,
                              .scales_dtype = FERRUM_DTYPE_F32};
}

/** Groups of 32 in random places; those of up are those of gate, unless they are to differ. */
static void make_groups(layer_t *layer, int role, uint32_t *state)
{
    const uint32_t k = cols_of(&layer->shape, role), experts = layer->shape.experts;
    int32_t *groups = layer->groups[role] = zeroed((size_t)experts * k, sizeof *groups);

    if (role == 1 && !layer->how.orders_apart) {
        memcpy(groups, layer->groups[0], (size_t)experts * k * sizeof *groups);
        return;
    }
    for (uint32_t e = 0; e < experts; e++, groups += k)
        for (uint32_t i = 0; i < k; i++) {
            const uint32_t other = next(state) % (i + 1);
            groups[i] = groups[other];
            groups[other] = (int32_t)(i / BLOCK);
        }
}

/** The scales of a role, small multiples of 2^-9, as f16. */
static void halve_scales(layer_t *layer, int role)
{
    static const uint16_t multiples[] = {0x1800, 0x1c00, 0x1e00, 0x2000, 0x2100, 0x2200, 0x2300};
    const uint32_t experts = layer->shape.experts;
    uint64_t at = 0;

    layer->scales[role] =
        zeroed(experts * layer->gptq[role][0].scales_count, sizeof *layer->scales[role]);
    for (uint32_t e = 0; e < experts; e++) {
        ferrum_gptq_t *matrix = &layer->gptq[role][e];
        const float *scales = matrix->scales;
        uint16_t *halves = layer->scales[role] + at;
        for (uint64_t i = 0; i < matrix->scales_count; i++, at++)
            layer->scales[role][at] = multiples[(int)(scales[i] * 512.0f) - 1];
        matrix->scales = halves;
        matrix->scales_dtype = FERRUM_DTYPE_F16;
    }
}

static void make_biases(layer_t *layer, int role, uint32_t *state)
{
    const size_t count = (size_t)layer->shape.experts * rows_of(&layer->shape, role);

    layer->biases[role] = zeroed(count, sizeof *layer->biases[role]);
    for (size_t i = 0; i < count; i++)
        layer->biases[role][i] = (float)((int)(next(state) % 64) - 32) / 64.0f;
    layer->role[role].bias = layer->biases[role];
}

static void make_matrices(layer_t *layer, int role, uint32_t *state)
{
    const uint32_t experts = layer->shape.experts;
    const uint32_t n = rows_of(&layer->shape, role), k = cols_of(&layer->shape, role);
    const size_t words = (size_t)k / 8 * n + (size_t)k / BLOCK * n / 8 + (size_t)k / BLOCK * n;

    layer->data[role] = zeroed(experts * words, sizeof(int32_t));
    layer->gptq[role] = zeroed(experts, sizeof *layer->gptq[role]);
    layer->list[role] = zeroed(experts, sizeof(ferrum_gptq_t *));
    if (layer->how.act_order)
        make_groups(layer, role, state);
    for (uint32_t e = 0; e < experts; e++) {
        const int32_t *groups = layer->groups[role] ? layer->groups[role] + (size_t)e * k : NULL;
        ferrum_gptq_t *matrix = &layer->gptq[role][e];
        make_matrix(matrix, (int32_t *)layer->data[role] + e * words, groups,
                    layer->values[role] + (size_t)e * n * k, n, k, state);
        matrix->g_idx = groups;
        matrix->g_idx_count = groups ? k : 0;
        layer->list[role][e] = matrix;
    }
    layer->role[role].gptq = layer->list[role];
    if (layer->how.f16_scales)
        halve_scales(layer, role);
    if (layer->how.biases)
        make_biases(layer, role, state);
}

static void make_layer(layer_t *layer, const layer_shape_t *shape, const layer_gptq_t *how,
                       const ferrum_weight_format_t formats[3])
{
    uint32_t state = 1;

    *layer = (layer_t){.shape = *shape, .how = *how};
    for (int role = 0; role < 3; role++) {
        layer->role[role].head = (ferrum_head_t)FERRUM_HEAD(ferrum_expert_weights_t);
        layer->values[role] =
            zeroed((size_t)shape->experts * shape->hidden * shape->intermediate, sizeof(double));
        if (shape->gptq)
            make_matrices(layer, role, &state);
        else
            make_blocks(layer, role, formats[role], &state);
    }
    layer->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                             .hidden = shape->hidden,
                                             .intermediate = shape->intermediate,
                                             .num_experts = shape->experts,
                                             .gate = &layer->role[0],
                                             .up = &layer->role[1],
                                             .down = &layer->role[2]};
}

void layer_make(layer_t *layer, const layer_shape_t *shape)
{
    layer_make_gptq(layer, shape, &(layer_gptq_t){false, false, false, false});
}

void layer_make_gptq(layer_t *layer, const layer_shape_t *shape, const layer_gptq_t *how)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0,
                                                     FERRUM_FORMAT_Q8_0};
    make_layer(layer, shape, how, formats);
}

void layer_make_of(layer_t *layer, const layer_shape_t *shape,
                   const ferrum_weight_format_t formats[3])
{
    make_layer(layer, shape, &(layer_gptq_t){false, false, false, false}, formats);
}

void layer_free(layer_t *layer)
{
    for (int role = 0; role < 3; role++) {
        free(layer->data[role]);
        free(layer->values[role]);
        free(layer->gptq[role]);
        free(layer->list[role]);
        free(layer->groups[role]);
        free(layer->scales[role]);
        free(layer->biases[role]);
    }
}

void call_make(layer_call_t *call, const layer_t *layer, uint32_t tokens)
{
    const uint64_t elements = (uint64_t)tokens * layer->shape.hidden;
    const uint64_t pairs = (uint64_t)tokens * layer->shape.top_k;

    call->tokens = tokens;
    call->host_x = zeroed(elements, sizeof(float));
    call->host_ids = zeroed(pairs, sizeof(int32_t));
    call->host_weights = zeroed(pairs, sizeof(float));
    call->x = cuda_ramp(elements, 0, 0);
    call->out = cuda_ramp(elements, 0, 0);
    call->ids = cuda_i32(call->host_ids, pairs);
    call->weights = cuda_f32(pairs, 0, 0);
}

void call_fill(layer_call_t *call, const layer_t *layer, uint32_t seed, int32_t only)
{
    const uint64_t elements = (uint64_t)call->tokens * layer->shape.hidden;
    const uint64_t pairs = (uint64_t)call->tokens * layer->shape.top_k;

    for (uint64_t i = 0; i < elements; i++) /* exact in f16 */
        call->host_x[i] = (float)((int)(next(&seed) % 129) - 64) / 64.0f;
    for (uint64_t i = 0; i < pairs; i++) {
        call->host_ids[i] = only < 0 ? (int32_t)(next(&seed) % layer->shape.experts) : only;
        call->host_weights[i] = (float)(1 + next(&seed) % 16) / 16.0f;
    }
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, call->x, 0, call->host_x, elements, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, call->ids, 0, FERRUM_DTYPE_I32, call->host_ids, pairs,
                                    &err));
    EXPECT_OK(
        cuda.be->buffer_write_f32(cuda.ctx, call->weights, 0, call->host_weights, pairs, &err));
}

void call_free(layer_call_t *call)
{
    cuda.be->buffer_release(call->x);
    cuda.be->buffer_release(call->ids);
    cuda.be->buffer_release(call->weights);
    cuda.be->buffer_release(call->out);
    free(call->host_x);
    free(call->host_ids);
    free(call->host_weights);
}

uint16_t *call_read(const layer_call_t *call, const layer_t *layer)
{
    const uint64_t count = (uint64_t)call->tokens * layer->shape.hidden;
    uint16_t *bits = zeroed(count, sizeof *bits);

    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, call->out, 0, FERRUM_DTYPE_F16, bits, count, &err));
    return bits;
}

static double dot(const double *w, const double *x, uint32_t k)
{
    double sum = 0;
    for (uint32_t i = 0; i < k; i++)
        sum += w[i] * x[i];
    return sum;
}

/** Output @p i of expert @p e in a role. */
static double output(const layer_t *layer, int role, size_t e, uint32_t i, const double *x)
{
    const uint32_t n = rows_of(&layer->shape, role), k = cols_of(&layer->shape, role);

    return dot(layer->values[role] + (e * n + i) * k, x, k) +
           (layer->biases[role] ? (double)layer->biases[role][e * n + i] : 0.0);
}

/** out += weight * FFN of expert @p e. */
static void add_expert(const layer_t *layer, size_t e, double weight, const double *x,
                       double *hidden, double *out)
{
    for (uint32_t i = 0; i < layer->shape.intermediate; i++) {
        const double gate = output(layer, 0, e, i, x);
        hidden[i] = gate / (1 + exp(-gate)) * output(layer, 1, e, i, x);
    }
    for (uint32_t i = 0; i < layer->shape.hidden; i++)
        out[i] += weight * output(layer, 2, e, i, hidden);
}

double call_error(const layer_call_t *call, const layer_t *layer)
{
    const uint32_t h = layer->shape.hidden, top_k = layer->shape.top_k;
    double *x = zeroed(h, sizeof *x), *out = zeroed(h, sizeof *out), worst = 0;
    double *hidden = zeroed(layer->shape.intermediate, sizeof *hidden);
    float *got = zeroed((size_t)call->tokens * h, sizeof *got);

    EXPECT_OK(
        cuda.be->buffer_read_f32(cuda.ctx, call->out, 0, got, (uint64_t)call->tokens * h, &err));
    for (size_t t = 0; t < call->tokens; t++) {
        double difference = 0, norm = 0;
        for (uint32_t i = 0; i < h; i++) {
            x[i] = (double)call->host_x[t * h + i];
            out[i] = 0;
        }
        for (size_t p = t * top_k; p < (t + 1) * top_k; p++)
            add_expert(layer, (size_t)call->host_ids[p], (double)call->host_weights[p], x, hidden,
                       out);
        for (uint32_t i = 0; i < h; i++) {
            const double d = (double)got[t * h + i] - out[i];
            difference += d * d;
            norm += out[i] * out[i];
        }
        const double error = sqrt(difference / norm);
        ck_assert_msg(!isnan(error), "token %zu has no number", t);
        worst = fmax(worst, error);
    }
    free(x);
    free(out);
    free(hidden);
    free(got);
    return worst;
}
