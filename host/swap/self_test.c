/* SPDX-License-Identifier: MIT */
#include "host/swap/self_test.h"

#include <ferrum/moe.h>
#include <ferrum/util.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The smallest layer that every block format fits: one token through both of two experts, then the
 * same token many times, which takes the kernels of prefill. */
enum {
    HIDDEN = 256,
    FFN = 256,
    EXPERTS = 2,
    REPEATS = 9,
    GROUP = 128,
    MATRIX = HIDDEN * FFN
};

/* Stated bounds hold before results are rounded to act; this is added for the rounding. */
static double rounding_of(ferrum_dtype_t act)
{
    return act == FERRUM_DTYPE_F32 ? 1e-6 : act == FERRUM_DTYPE_F16 ? 4e-3 : 3e-2;
}

/* A backend that states nothing. */
#define UNSTATED_BOUND 2e-2

/* Where a block has f16 scales (-1: no such), and the values that bring its weights to about 0.1
 * and their mean to about 0. All other bytes of a block may be anything. */
typedef struct block_recipe {
    ferrum_weight_format_t format;
    int scale_at, min_at;
    uint16_t scale, min;
} block_recipe_t;

static const block_recipe_t recipes[] = {
    {FERRUM_FORMAT_Q4_0, 0, -1, 0x2400, 0},     {FERRUM_FORMAT_Q4_1, 0, 2, 0x2000, 0xac00},
    {FERRUM_FORMAT_Q5_0, 0, -1, 0x2000, 0},     {FERRUM_FORMAT_Q5_1, 0, 2, 0x1c00, 0xac00},
    {FERRUM_FORMAT_Q8_0, 0, -1, 0x1400, 0},     {FERRUM_FORMAT_Q2_K, 80, 82, 0x1800, 0x1800},
    {FERRUM_FORMAT_Q3_K, 108, -1, 0x1400, 0},   {FERRUM_FORMAT_Q4_K, 0, 2, 0x0800, 0x1400},
    {FERRUM_FORMAT_Q5_K, 0, 2, 0x0400, 0x1400}, {FERRUM_FORMAT_Q6_K, 208, -1, 0x0200, 0},
    {FERRUM_FORMAT_IQ4_NL, 0, -1, 0x1400, 0},   {FERRUM_FORMAT_IQ4_XS, 0, -1, 0x0200, 0},
};

static uint32_t next_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static void put_half(uint8_t *block, int at, uint16_t half)
{
    if (at < 0)
        return;
    block[at] = (uint8_t)half;
    block[at + 1] = (uint8_t)(half >> 8);
}

/* Formats whose blocks are one number each, or scaled by an exponent. */
static void finish_plain(ferrum_weight_format_t format, uint8_t *block, uint32_t bits)
{
    uint8_t sign = (uint8_t)(bits & 0x80);
    if (format == FERRUM_FORMAT_F16)
        block[1] = (uint8_t)(sign | 0x28 | (bits & 3));
    else if (format == FERRUM_FORMAT_BF16)
        block[1] = (uint8_t)(sign | 0x3d);
    else if (format == FERRUM_FORMAT_F32)
        block[3] = (uint8_t)(sign | 0x3d);
    else if (format == FERRUM_FORMAT_MXFP4)
        block[0] = 121;
}

static void fill_blocks(const ferrum_format_traits_t *traits, uint8_t *blocks, size_t count,
                        uint64_t *state)
{
    const block_recipe_t *recipe = NULL;
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        if (recipes[i].format == traits->format)
            recipe = &recipes[i];
    for (size_t b = 0; b < count; b++, blocks += traits->block_bytes) {
        for (uint32_t i = 0; i < traits->block_bytes; i++)
            blocks[i] = (uint8_t)(next_bits(state) >> 8);
        if (recipe) {
            put_half(blocks, recipe->scale_at, recipe->scale);
            put_half(blocks, recipe->min_at, recipe->min);
        } else {
            finish_plain(traits->format, blocks, next_bits(state));
        }
    }
}

/* One layer of fixed weights with all it points to. */
typedef struct mini_layer {
    ferrum_expert_ffn_desc_t desc;
    ferrum_expert_weights_t roles[3];
    ferrum_gguf_weights_t slabs[3];
    ferrum_gptq_t matrices[3 * EXPERTS];
    const ferrum_gptq_t *lists[3 * EXPERTS];
    uint8_t *weights;
    uint16_t scales[HIDDEN / GROUP * FFN];
    float x[REPEATS * HIDDEN], out[REPEATS * HIDDEN], pair_weights[REPEATS * EXPERTS];
    int32_t ids[REPEATS * EXPERTS];
    double want[HIDDEN];
} mini_layer_t;

static void describe_blocks(mini_layer_t *mini, const ferrum_format_traits_t *traits,
                            uint64_t *state)
{
    size_t blocks = (size_t)EXPERTS * MATRIX / traits->block_values;
    for (int r = 0; r < 3; r++) {
        uint8_t *data = mini->weights + (size_t)r * blocks * traits->block_bytes;
        fill_blocks(traits, data, blocks, state);
        mini->slabs[r] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                                 .format = traits->format,
                                                 .experts = EXPERTS,
                                                 .rows = r == 2 ? HIDDEN : FFN,
                                                 .cols = r == 2 ? FFN : HIDDEN,
                                                 .data = data,
                                                 .bytes = blocks * traits->block_bytes};
        mini->roles[r] = (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                                   .gguf = &mini->slabs[r]};
    }
}

static void describe_gptq(mini_layer_t *mini, uint32_t bits, uint64_t *state)
{
    size_t words = (size_t)MATRIX * bits / 32, groups = HIDDEN / GROUP;
    for (size_t i = 0; i < groups * FFN; i++)
        mini->scales[i] = bits == 4 ? 0x2400 : 0x1400;
    for (int m = 0; m < 3 * EXPERTS; m++) {
        int32_t *codes = (int32_t *)(void *)mini->weights + (size_t)m * words;
        for (size_t i = 0; i < words; i++)
            codes[i] = (int32_t)next_bits(state);
        mini->matrices[m] = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                                            .bits = bits,
                                            .group_size = GROUP,
                                            .k = HIDDEN,
                                            .n = FFN,
                                            .qweight = codes,
                                            .qweight_count = words,
                                            .scales = mini->scales,
                                            .scales_count = groups * FFN,
                                            .scales_dtype = FERRUM_DTYPE_F16};
        mini->lists[m] = &mini->matrices[m];
    }
    for (int r = 0; r < 3; r++)
        mini->roles[r] = (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                                   .gptq = mini->lists + (size_t)r * EXPERTS};
}

static void fill_inputs(mini_layer_t *mini)
{
    for (int t = 0; t < REPEATS; t++) {
        for (int i = 0; i < HIDDEN; i++) /* exact in every activation dtype */
            mini->x[t * HIDDEN + i] = (float)(i * 37 % 31 - 15) / 8.0f;
        for (int e = 0; e < EXPERTS; e++) {
            mini->ids[t * EXPERTS + e] = EXPERTS - 1 - e;
            mini->pair_weights[t * EXPERTS + e] = e == 0 ? 0.75f : 0.25f;
        }
    }
}

/* traits NULL: GPTQ of bits. */
static mini_layer_t *make_mini(const ferrum_format_traits_t *traits, uint32_t bits,
                               ferrum_precision_t precision)
{
    size_t values = (size_t)3 * EXPERTS * MATRIX;
    size_t bytes = traits ? values / traits->block_values * traits->block_bytes : values * bits / 8;
    uint64_t state = traits ? traits->format + 1u : bits;
    mini_layer_t *mini = calloc(1, sizeof *mini);
    if (mini)
        mini->weights = malloc(bytes);
    if (!mini || !mini->weights) {
        free(mini);
        return NULL;
    }
    if (traits)
        describe_blocks(mini, traits, &state);
    else
        describe_gptq(mini, bits, &state);
    fill_inputs(mini);
    mini->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                            .hidden = HIDDEN,
                                            .intermediate = FFN,
                                            .num_experts = EXPERTS,
                                            .precision = precision,
                                            .gate = &mini->roles[0],
                                            .up = &mini->roles[1],
                                            .down = &mini->roles[2]};
    return mini;
}

static void free_mini(mini_layer_t *mini)
{
    free(mini->weights);
    free(mini);
}

/* ---- running it ---- */

typedef struct mini_buffers {
    ferrum_buffer_t *x, *ids, *weights, *out;
} mini_buffers_t;

static ferrum_status_t make_buffers(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                    const mini_layer_t *mini, mini_buffers_t *b,
                                    ferrum_error_t *err)
{
    const ferrum_backend_ops_t *be = ops->backend;
    ferrum_dtype_t act = ops->info.activation_dtype;
    uint64_t values = REPEATS * HIDDEN, pairs = REPEATS * EXPERTS;
    FERRUM_TRY(be->buffer_alloc(ops->device, act, values, &b->x, err));
    FERRUM_TRY(be->buffer_alloc(ops->device, act, values, &b->out, err));
    FERRUM_TRY(be->buffer_alloc(ops->device, FERRUM_DTYPE_I32, pairs, &b->ids, err));
    FERRUM_TRY(be->buffer_alloc(ops->device, FERRUM_DTYPE_F32, pairs, &b->weights, err));
    FERRUM_TRY(be->buffer_write_f32(ctx, b->x, 0, mini->x, values, err));
    FERRUM_TRY(be->buffer_write(ctx, b->ids, 0, FERRUM_DTYPE_I32, mini->ids, pairs, err));
    return be->buffer_write(ctx, b->weights, 0, FERRUM_DTYPE_F32, mini->pair_weights, pairs, err);
}

static ferrum_status_t run_tokens(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                  ferrum_expert_ffn_t *ffn, const mini_buffers_t *b,
                                  uint32_t tokens, float *out, ferrum_error_t *err)
{
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = b->x,
                                     .ids = b->ids,
                                     .weights = b->weights,
                                     .out = b->out,
                                     .tokens = tokens,
                                     .top_k = EXPERTS};
    FERRUM_TRY(ops->moe->expert_ffn_forward(ctx, ffn, &args, err));
    FERRUM_TRY(ops->backend->context_sync(ctx, err));
    return ops->backend->buffer_read_f32(ctx, b->out, 0, out, (uint64_t)tokens * HIDDEN, err);
}

static double row_error(const float *row, const double *want)
{
    double difference = 0, norm = 0;
    for (int i = 0; i < HIDDEN; i++) {
        double d = (double)row[i] - want[i];
        difference += d * d;
        norm += want[i] * want[i];
    }
    return sqrt(difference / norm);
}

/* The error of every row, against the bound. NaN is no error that is smaller than anything. */
static ferrum_status_t compare(const mini_layer_t *mini, uint32_t tokens, double bound,
                               const char *name, const char *format, double *out_error,
                               ferrum_error_t *err)
{
    for (uint32_t t = 0; t < tokens; t++) {
        double error = row_error(mini->out + (size_t)t * HIDDEN, mini->want);
        if (!(error <= bound))
            return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_FORMAT,
                               "%s computes wrong numbers: relative error %.3g in an expert FFN of "
                               "%s weights and %u tokens, %.3g is allowed",
                               name, error, format, tokens, bound);
        if (error / bound > *out_error)
            *out_error = error / bound;
    }
    return FERRUM_OK;
}

static ferrum_status_t run_mini(const ferrum_ops_t *ops, ferrum_context_t *ctx, mini_layer_t *mini,
                                ferrum_expert_ffn_t *ffn, const mini_buffers_t *b,
                                const char *format, double *out_error, ferrum_error_t *err)
{
    const char *name = ferrum_module_name(ops->module);
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    FERRUM_TRY(ops->moe->expert_ffn_info(ffn, &info, err));
    double stated = info.error_bound > 0 ? (double)info.error_bound : UNSTATED_BOUND;
    double bound = stated + rounding_of(ops->info.activation_dtype);
    FERRUM_TRY(ferrum_moe_reference(&mini->desc, mini->x, mini->ids, mini->pair_weights, mini->want,
                                    1, EXPERTS, err));
    FERRUM_TRY(run_tokens(ops, ctx, ffn, b, 1, mini->out, err));
    FERRUM_TRY(compare(mini, 1, bound, name, format, out_error, err));
    FERRUM_TRY(run_tokens(ops, ctx, ffn, b, REPEATS, mini->out, err));
    return compare(mini, REPEATS, bound, name, format, out_error, err);
}

/* A format that expert_ffn does not take is served in another way, which this cannot try. */
static ferrum_status_t test_format(const ferrum_ops_t *ops, const ferrum_format_traits_t *traits,
                                   uint32_t bits, double *out_error, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *be = ops->backend;
    ferrum_expert_ffn_t *ffn = NULL;
    ferrum_context_t *ctx = NULL;
    mini_buffers_t buffers = {NULL, NULL, NULL, NULL};
    mini_layer_t *mini = make_mini(traits, bits, ops->precision);
    if (!mini)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the self-test");
    ferrum_status_t status = ops->moe->expert_ffn_create(ops->device, &mini->desc, &ffn, err);
    if (status == FERRUM_UNSUPPORTED) {
        free_mini(mini);
        return FERRUM_OK;
    }
    if (status == FERRUM_OK)
        status = be->context_new(ops->device, NULL, &ctx, err);
    if (status == FERRUM_OK)
        status = make_buffers(ops, ctx, mini, &buffers, err);
    if (status == FERRUM_OK)
        status =
            run_mini(ops, ctx, mini, ffn, &buffers, traits ? traits->name : "gptq", out_error, err);
    be->buffer_release(buffers.x);
    be->buffer_release(buffers.ids);
    be->buffer_release(buffers.weights);
    be->buffer_release(buffers.out);
    be->context_free(ctx);
    ops->moe->expert_ffn_release(ffn);
    free_mini(mini);
    return status;
}

ferrum_status_t ferrum_self_test(const ferrum_ops_t *ops, const ferrum_formats_used_t *formats,
                                 double *out_error, ferrum_error_t *err)
{
    for (ferrum_weight_format_t f = 0; f < 64; f++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(f);
        if (traits && (formats->blocks >> f & 1))
            FERRUM_TRY(test_format(ops, traits, 0, out_error, err));
    }
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        if (formats->gptq_bits >> bits & 1)
            FERRUM_TRY(test_format(ops, NULL, bits, out_error, err));
    return FERRUM_OK;
}
