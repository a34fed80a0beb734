/* SPDX-License-Identifier: MIT */
/*
 * Random layers. A block of random bytes is a valid block of any format except for its scale
 * fields, whose random bits could be NaN; those are overwritten by small f16 numbers at the places
 * that the table names.
 */
#include "tools/ferrum/bench.h"

#include <ferrum/util.h>
#include <stdlib.h>
#include <string.h>

enum {
    NO_FIELD = -1
};

/* Where a block keeps its f16 scales. The minimum is chosen so that weights average about zero, as
 * those of real models do. */
typedef struct scale_fields {
    ferrum_weight_format_t format;
    int scale_at, min_at; /* byte offsets */
    uint16_t scale, min;  /* f16, about 0.01 / typical code; the last 8 bits are random */
} scale_fields_t;

static const scale_fields_t fields[] = {
    {FERRUM_FORMAT_Q4_0, 0, NO_FIELD, 0x1800, 0},   {FERRUM_FORMAT_Q4_1, 0, 2, 0x1800, 0xa300},
    {FERRUM_FORMAT_Q5_0, 0, NO_FIELD, 0x1400, 0},   {FERRUM_FORMAT_Q5_1, 0, 2, 0x1400, 0xa340},
    {FERRUM_FORMAT_Q8_0, 0, NO_FIELD, 0x0c00, 0},   {FERRUM_FORMAT_Q2_K, 80, 82, 0x1800, 0x1a00},
    {FERRUM_FORMAT_Q3_K, 108, NO_FIELD, 0x0c00, 0}, {FERRUM_FORMAT_Q4_K, 0, 2, 0x0600, 0x1180},
    {FERRUM_FORMAT_Q5_K, 0, 2, 0x0400, 0x1380},     {FERRUM_FORMAT_Q6_K, 208, NO_FIELD, 0x0100, 0},
    {FERRUM_FORMAT_IQ4_NL, 0, NO_FIELD, 0x0c00, 0}, {FERRUM_FORMAT_IQ4_XS, 0, NO_FIELD, 0x0200, 0},
};

static const bench_format_t formats[] = {
    {"f32", FERRUM_FORMAT_F32, 0},       {"f16", FERRUM_FORMAT_F16, 0},
    {"bf16", FERRUM_FORMAT_BF16, 0},     {"q4_0", FERRUM_FORMAT_Q4_0, 0},
    {"q4_1", FERRUM_FORMAT_Q4_1, 0},     {"q5_0", FERRUM_FORMAT_Q5_0, 0},
    {"q5_1", FERRUM_FORMAT_Q5_1, 0},     {"q8_0", FERRUM_FORMAT_Q8_0, 0},
    {"q2_k", FERRUM_FORMAT_Q2_K, 0},     {"q3_k", FERRUM_FORMAT_Q3_K, 0},
    {"q4_k", FERRUM_FORMAT_Q4_K, 0},     {"q5_k", FERRUM_FORMAT_Q5_K, 0},
    {"q6_k", FERRUM_FORMAT_Q6_K, 0},     {"iq4_nl", FERRUM_FORMAT_IQ4_NL, 0},
    {"iq4_xs", FERRUM_FORMAT_IQ4_XS, 0}, {"mxfp4", FERRUM_FORMAT_MXFP4, 0},
    {"gptq4", FERRUM_FORMAT_GPTQ, 4},    {"gptq8", FERRUM_FORMAT_GPTQ, 8},
};

const bench_format_t *bench_format_find(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const char *bench_format_names(void)
{
    return "f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, "
           "iq4_xs, mxfp4, gptq4, gptq8";
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float bench_uniform(uint64_t *state)
{
    return (float)(bench_random(state) >> 40) / (float)(1 << 23) - 1.0F;
}

static void fill_random(void *memory, uint64_t bytes, uint64_t *state)
{
    unsigned char *out = memory;
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t value = bench_random(state);
        memcpy(out + i, &value, bytes - i < 8 ? (size_t)(bytes - i) : 8);
    }
}

/* Make every block of a slab hold finite numbers of about 0.02. */
static void tame_scales(void *memory, uint64_t bytes, const ferrum_format_traits_t *traits,
                        uint64_t *state)
{
    unsigned char *block = memory;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].format != traits->format)
            continue;
        for (uint64_t at = 0; at < bytes; at += traits->block_bytes) {
            uint64_t low = bench_random(state) & 0xff;
            uint16_t scale = (uint16_t)(fields[i].scale + low);
            uint16_t min = (uint16_t)(fields[i].min + low);
            memcpy(block + at + fields[i].scale_at, &scale, 2);
            if (fields[i].min_at != NO_FIELD)
                memcpy(block + at + fields[i].min_at, &min, 2);
        }
        return;
    }
    for (uint64_t at = 0; at < bytes; at += traits->block_bytes) {
        float value = bench_uniform(state) * 0.05F;
        uint32_t word;
        memcpy(&word, &value, 4);
        uint16_t half = (uint16_t)(0x2000 | (word & 0x83ff)); /* +-(2^-7 .. 2^-6) */
        uint16_t brain = (uint16_t)(word >> 16);
        if (traits->format == FERRUM_FORMAT_F32)
            memcpy(block + at, &value, 4);
        else if (traits->format == FERRUM_FORMAT_F16)
            memcpy(block + at, &half, 2);
        else if (traits->format == FERRUM_FORMAT_BF16)
            memcpy(block + at, &brain, 2);
        else /* MXFP4: an exponent byte */
            block[at] = (unsigned char)(119 + (word & 1));
    }
}

static ferrum_status_t out_of_memory(uint64_t bytes, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                       "no memory for %llu bytes of random weights; use fewer --layers",
                       (unsigned long long)bytes);
}

static ferrum_status_t make_blocks(bench_layer_t *layer, int role, const bench_format_t *format,
                                   uint32_t rows, uint32_t cols, uint64_t *state,
                                   ferrum_error_t *err)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format->format);
    if (cols % traits->block_values != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_K,
                           "%s needs row lengths divisible by %u, got %u", format->name,
                           traits->block_values, cols);
    uint64_t bytes = (uint64_t)layer->desc.num_experts * rows * (cols / traits->block_values) *
                     traits->block_bytes;
    layer->memory[role] = malloc(bytes);
    if (layer->memory[role] == NULL)
        return out_of_memory(bytes, err);
    fill_random(layer->memory[role], bytes, state);
    tame_scales(layer->memory[role], bytes, traits, state);
    layer->gguf[role] = (ferrum_gguf_weights_t){
        .head = FERRUM_HEAD(ferrum_gguf_weights_t),
        .format = format->format,
        .flags = FERRUM_WEIGHTS_MAPPED,
        .experts = layer->desc.num_experts,
        .rows = rows,
        .cols = cols,
        .data = layer->memory[role],
        .bytes = bytes,
    };
    layer->role[role].gguf = &layer->gguf[role];
    layer->expert_bytes += bytes / layer->desc.num_experts;
    return FERRUM_OK;
}

/* Memory of a role: per expert codes, then zeros, then f16 scales. */
static ferrum_status_t make_gptq(bench_layer_t *layer, int role, uint32_t bits, uint32_t group_size,
                                 uint32_t rows, uint32_t cols, uint64_t *state, ferrum_error_t *err)
{
    uint32_t experts = layer->desc.num_experts, per_word = 32 / bits;
    if (cols % per_word || rows % per_word || (group_size && cols % group_size))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_GROUP_SIZE,
                           "GPTQ with group %u does not divide %u inputs", group_size, cols);
    uint64_t groups = group_size ? cols / group_size : 1;
    uint64_t codes = (uint64_t)cols / per_word * rows, zeros = groups * (rows / per_word);
    uint64_t scales = groups * rows,
             expert_bytes = codes * 4 + zeros * 4 + (scales * 2 + 3) / 4 * 4;
    unsigned char *memory = malloc(expert_bytes * experts);
    layer->memory[role] = memory;
    layer->gptq[role] = calloc(experts, sizeof *layer->gptq[role]);
    layer->gptq_list[role] = calloc(experts, sizeof *layer->gptq_list[role]);
    if (memory == NULL || layer->gptq[role] == NULL || layer->gptq_list[role] == NULL)
        return out_of_memory(expert_bytes * experts, err);
    fill_random(memory, expert_bytes * experts, state);
    for (uint32_t e = 0; e < experts; e++) {
        unsigned char *base = memory + e * expert_bytes;
        uint16_t *scale = (uint16_t *)(void *)(base + codes * 4 + zeros * 4);
        for (uint64_t i = 0; i < scales; i++)
            scale[i] = (uint16_t)((bits == 4 ? 0x1800 : 0x0c00) + (scale[i] & 0xff));
        /* Zeros next to the middle code, as quantisers make them. */
        memset(base + codes * 4, bits == 4 ? 0x77 : 0x7f, zeros * 4);
        layer->gptq[role][e] = (ferrum_gptq_t){
            .head = FERRUM_HEAD(ferrum_gptq_t),
            .bits = bits,
            .group_size = group_size,
            .k = cols,
            .n = rows,
            .qweight = (const int32_t *)(const void *)base,
            .qweight_count = codes,
            .qzeros = (const int32_t *)(const void *)(base + codes * 4),
            .qzeros_count = zeros,
            .scales = scale,
            .scales_count = scales,
            .scales_dtype = FERRUM_DTYPE_F16,
        };
        layer->gptq_list[role][e] = &layer->gptq[role][e];
    }
    layer->role[role].gptq = layer->gptq_list[role];
    layer->expert_bytes += expert_bytes;
    return FERRUM_OK;
}

ferrum_status_t bench_layer_make(const bench_format_t *format, uint32_t hidden,
                                 uint32_t intermediate, uint32_t experts, uint32_t group_size,
                                 uint64_t seed, bench_layer_t *out_layer, ferrum_error_t *err)
{
    bench_layer_t *layer = out_layer;
    memset(layer, 0, sizeof *layer);
    layer->desc = (ferrum_expert_ffn_desc_t){
        .head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
        .hidden = hidden,
        .intermediate = intermediate,
        .num_experts = experts,
        .gate = &layer->role[0],
        .up = &layer->role[1],
        .down = &layer->role[2],
    };
    ferrum_status_t status = FERRUM_OK;
    for (int role = 0; role < 3 && status == FERRUM_OK; role++) {
        uint32_t rows = role == 2 ? hidden : intermediate;
        uint32_t cols = role == 2 ? intermediate : hidden;
        layer->role[role].head = (ferrum_head_t)FERRUM_HEAD(ferrum_expert_weights_t);
        status = format->format == FERRUM_FORMAT_GPTQ
                     ? make_gptq(layer, role, format->bits, group_size, rows, cols, &seed, err)
                     : make_blocks(layer, role, format, rows, cols, &seed, err);
    }
    if (status != FERRUM_OK)
        bench_layer_free(layer);
    return status;
}

void bench_layer_free(bench_layer_t *layer)
{
    for (int role = 0; role < 3; role++) {
        free(layer->memory[role]);
        free(layer->gptq[role]);
        free(layer->gptq_list[role]);
    }
    memset(layer, 0, sizeof *layer);
}
