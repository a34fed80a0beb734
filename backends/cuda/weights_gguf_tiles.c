/* SPDX-License-Identifier: MIT */
/* Block formats in the tiles of kernels/cuda/gguf.cuh, which the expert FFN uses. */
#include "backends/cuda/half.h"
#include "backends/cuda/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE_N = 16,
    TILE_K = 64,
    RUN = 16,  /* values that have a scale in common in every format */
    RUNS = 16, /* of a block, at most */
    BLOCK = 256,
    TOP_EXPONENT = 15 /* of the largest scale of a row, once scaled: 2^16 is beyond f16 */
};

/** Codes of a block; weights are scale * (code - zero) - minimum, or scale * level[code]. */
typedef struct unpacked {
    uint8_t code[BLOCK];
    float scale[RUNS], minimum[RUNS];
} unpacked_t;

typedef void unpack_fn(const uint8_t *block, unpacked_t *out);

static float load_f16(const uint8_t *p)
{
    return ferrum_cuda_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/** Set scale and minimum of 32 values. */
static void set_scale(unpacked_t *out, uint32_t sub, float scale, float minimum)
{
    out->scale[2 * sub] = out->scale[2 * sub + 1] = scale;
    out->minimum[2 * sub] = out->minimum[2 * sub + 1] = minimum;
}

/** 16 bytes whose low nibbles come first. */
static void unpack_nibbles(const uint8_t *bytes, uint8_t *code)
{
    for (uint32_t i = 0; i < 16; i++) {
        code[i] = bytes[i] & 15;
        code[i + 16] = bytes[i] >> 4;
    }
}

static void unpack_fifths(const uint8_t *bits, uint8_t *code)
{
    for (uint32_t i = 0; i < 32; i++)
        code[i] = (uint8_t)(code[i] | (bits[i / 8] >> i % 8 & 1) << 4);
}

static void unpack_q4_0(const uint8_t *p, unpacked_t *out)
{
    unpack_nibbles(p + 2, out->code);
    set_scale(out, 0, load_f16(p), 0);
}

static void unpack_q4_1(const uint8_t *p, unpacked_t *out)
{
    unpack_nibbles(p + 4, out->code);
    set_scale(out, 0, load_f16(p), -load_f16(p + 2));
}

static void unpack_q5_0(const uint8_t *p, unpacked_t *out)
{
    unpack_nibbles(p + 6, out->code);
    unpack_fifths(p + 2, out->code);
    set_scale(out, 0, load_f16(p), 0);
}

static void unpack_q5_1(const uint8_t *p, unpacked_t *out)
{
    unpack_nibbles(p + 8, out->code);
    unpack_fifths(p + 4, out->code);
    set_scale(out, 0, load_f16(p), -load_f16(p + 2));
}

static void unpack_q8_0(const uint8_t *p, unpacked_t *out)
{
    for (uint32_t i = 0; i < 32; i++)
        out->code[i] = p[2 + i] ^ 0x80;
    set_scale(out, 0, load_f16(p), 0);
}

/** Q4_K, and Q5_K where there are fifth bits. */
static void unpack_k(const uint8_t *p, const uint8_t *fifths, const uint8_t *nibbles,
                     unpacked_t *out)
{
    const uint8_t *packed = p + 4;

    for (uint32_t sub = 0; sub < 8; sub++) {
        const uint32_t j = sub % 4;
        const int scale = sub < 4 ? packed[j] & 63 : (packed[8 + j] & 15) | (packed[j] >> 6 << 4);
        const int min =
            sub < 4 ? packed[4 + j] & 63 : packed[8 + j] >> 4 | (packed[4 + j] >> 6 << 4);
        set_scale(out, sub, load_f16(p) * (float)scale, load_f16(p + 2) * (float)min);
        for (uint32_t i = 0; i < 32; i++) {
            const int fifth = fifths ? fifths[i] >> sub & 1 : 0;
            out->code[32 * sub + i] =
                (uint8_t)((nibbles[32 * (sub / 2) + i] >> 4 * (sub % 2) & 15) | fifth << 4);
        }
    }
}

static void unpack_q4_k(const uint8_t *p, unpacked_t *out)
{
    unpack_k(p, NULL, p + 16, out);
}

static void unpack_q5_k(const uint8_t *p, unpacked_t *out)
{
    unpack_k(p, p + 16, p + 48, out);
}

static void unpack_q6_k(const uint8_t *p, unpacked_t *out)
{
    const float d = load_f16(p + 208);

    for (uint32_t i = 0; i < BLOCK; i++) {
        const uint32_t half = i / 128, run = i / 32 % 4, column = i % 32;
        const int low = p[64 * half + 32 * (run % 2) + column] >> 4 * (run / 2) & 15;
        const int high = p[128 + 32 * half + column] >> 2 * run & 3;
        out->code[i] = (uint8_t)(low | high << 4);
        out->scale[i / RUN] = d * (float)(int8_t)p[192 + i / RUN];
        out->minimum[i / RUN] = 0;
    }
}

static void unpack_iq4_nl(const uint8_t *p, unpacked_t *out)
{
    unpack_q4_0(p, out);
}

static void unpack_mxfp4(const uint8_t *p, unpacked_t *out)
{
    unpack_nibbles(p + 1, out->code);
    set_scale(out, 0, ldexpf(1.0F, p[0] - 128), 0);
}

static void unpack_iq4_xs(const uint8_t *p, unpacked_t *out)
{
    const int high = p[2] | p[3] << 8;

    for (uint32_t sub = 0; sub < 8; sub++) {
        const int low = p[4 + sub / 2] >> 4 * (sub % 2) & 15;
        set_scale(out, sub, load_f16(p) * (float)((low | (high >> 2 * sub & 3) << 4) - 32), 0);
        unpack_nibbles(p + 8 + 16 * sub, out->code + 32 * sub);
    }
}

static const int8_t iq4_levels[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t mxfp4_levels[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/** How a set of scales is used. */
typedef enum scale_kind {
    SCALES_OF_32, /* two halves in one word */
    SCALES_OF_16,
    SCALES_AND_SHIFTS /* of 32 */
} scale_kind_t;

typedef struct tile_format {
    ferrum_weight_format_t format;
    uint32_t kind; /**< FERRUM_CODES_* */
    scale_kind_t scales;
    uint32_t zero;
    const int8_t *levels;
    unpack_fn *unpack;
} tile_format_t;

static const tile_format_t formats[] = {
    {FERRUM_FORMAT_Q4_0, FERRUM_CODES_NIBBLES, SCALES_OF_32, 8, NULL, unpack_q4_0},
    {FERRUM_FORMAT_Q4_1, FERRUM_CODES_NIBBLES, SCALES_AND_SHIFTS, 8, NULL, unpack_q4_1},
    {FERRUM_FORMAT_Q5_0, FERRUM_CODES_FIVE, SCALES_OF_32, 16, NULL, unpack_q5_0},
    {FERRUM_FORMAT_Q5_1, FERRUM_CODES_FIVE, SCALES_AND_SHIFTS, 16, NULL, unpack_q5_1},
    {FERRUM_FORMAT_Q8_0, FERRUM_CODES_BYTES, SCALES_OF_32, 128, NULL, unpack_q8_0},
    {FERRUM_FORMAT_Q4_K, FERRUM_CODES_NIBBLES, SCALES_AND_SHIFTS, 8, NULL, unpack_q4_k},
    {FERRUM_FORMAT_Q5_K, FERRUM_CODES_FIVE, SCALES_AND_SHIFTS, 16, NULL, unpack_q5_k},
    {FERRUM_FORMAT_Q6_K, FERRUM_CODES_SIX, SCALES_OF_16, 32, NULL, unpack_q6_k},
    {FERRUM_FORMAT_IQ4_NL, FERRUM_CODES_LEVELS, SCALES_OF_32, 128, iq4_levels, unpack_iq4_nl},
    {FERRUM_FORMAT_IQ4_XS, FERRUM_CODES_LEVELS, SCALES_OF_32, 128, iq4_levels, unpack_iq4_xs},
    {FERRUM_FORMAT_MXFP4, FERRUM_CODES_LEVELS, SCALES_OF_32, 128, mxfp4_levels, unpack_mxfp4},
};

static const tile_format_t *find_format(ferrum_weight_format_t format)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].format == format)
            return &formats[i];
    return NULL;
}

bool ferrum_cuda_gguf_fits(ferrum_weight_format_t format)
{
    return find_format(format) != NULL;
}

/** Bytes in two's complement; else with 128 added. */
static bool signed_bytes(uint32_t layout)
{
    return layout != FERRUM_LAYOUT_GGUF_TILES_F16;
}

/** Bytes of a record before its scales. */
static uint32_t codes_bytes(uint32_t kind)
{
    return kind == FERRUM_CODES_BYTES  ? 1024
           : kind == FERRUM_CODES_FIVE ? 640
           : kind == FERRUM_CODES_SIX  ? 768
                                       : 512;
}

/** What a code is multiplied by when its highest bit becomes the sign of a byte. */
static float code_unit(uint32_t kind)
{
    return kind == FERRUM_CODES_NIBBLES ? 16.0F
           : kind == FERRUM_CODES_FIVE  ? 8.0F
           : kind == FERRUM_CODES_SIX   ? 4.0F
                                        : 1.0F;
}

ferrum_gguf_codes_t ferrum_cuda_gguf_codes(ferrum_weight_format_t format, uint32_t layout)
{
    const tile_format_t *traits = find_format(format);
    const uint32_t set_bytes = TILE_N * sizeof(uint32_t);
    const uint32_t sets = traits->scales == SCALES_OF_32 ? 1 : 2;
    const uint32_t power = layout == FERRUM_LAYOUT_GGUF_TILES_BF16 ? 0xc300u : 0xe400u;
    ferrum_gguf_codes_t codes = {
        .kind = traits->kind,
        .record_bytes = codes_bytes(traits->kind) + sets * set_bytes,
        .scales_at = codes_bytes(traits->kind),
        .scales_next = (sets - 1) * set_bytes,
        .offset = power + traits->zero, /* -(128 + zero), -(1024 + zero) */
        .sixteenths = traits->scales == SCALES_OF_16,
        .shifted = traits->scales == SCALES_AND_SHIFTS,
        .unit = code_unit(traits->kind),
    };

    if (traits->scales == SCALES_OF_32)
        codes.scale_bit[1][0] = codes.scale_bit[1][1] = 16;
    if (traits->scales == SCALES_OF_16)
        codes.scale_bit[0][1] = codes.scale_bit[1][1] = 16;
    codes.offset |= codes.offset << 16;
    for (uint32_t i = 0; traits->levels && i < 16; i++)
        codes.level[i / 4] |=
            (uint32_t)(uint8_t)(traits->levels[i] + (signed_bytes(layout) ? 0 : 128))
            << 8 * (i % 4);
    return codes;
}

/** Sixteen rows of a matrix, taken apart. */
typedef struct panel {
    uint32_t k;        /**< padded to tiles */
    uint8_t *code;     /**< [16][k] */
    float *scale;      /**< [16][k / RUN] */
    float *minimum;    /**< as scale */
    float row[TILE_N]; /**< what scale and minimum are to be multiplied by */
} panel_t;

/** The power of two that brings a row's scales close to 2^TOP_EXPONENT; 1 where there is none. */
static float row_factor(const float *scale, uint32_t runs)
{
    float most = 0;
    int exponent = TOP_EXPONENT;

    for (uint32_t i = 0; i < runs; i++)
        most = fabsf(scale[i]) > most ? fabsf(scale[i]) : most;
    if (isfinite(most) && most > 0)
        (void)frexpf(most, &exponent);
    const int shift = TOP_EXPONENT - exponent;
    return ldexpf(1.0F, shift > 126 ? 126 : shift);
}

/** A scale of zero cannot carry a shift: such a run is minus its minimum. */
static void lend_scales(const tile_format_t *traits, unpacked_t *values, size_t runs)
{
    for (size_t i = 0; i < runs; i++) {
        if (values->scale[i] != 0.0F || values->minimum[i] == 0.0F)
            continue;
        values->scale[i] = values->minimum[i];
        values->minimum[i] = values->scale[i] * (float)(traits->zero + 1);
        memset(values->code + i * RUN, (int)traits->zero, RUN);
    }
}

static void unpack_row(const tile_format_t *traits, const ferrum_gguf_weights_t *source,
                       const uint8_t *blocks, uint32_t row, panel_t *panel)
{
    const ferrum_format_traits_t *block = ferrum_format_traits(source->format);
    float *scale = panel->scale + (size_t)row * (panel->k / RUN);
    float *minimum = panel->minimum + (size_t)row * (panel->k / RUN);
    unpacked_t values;

    for (uint32_t k = 0; k < source->cols; k += block->block_values, blocks += block->block_bytes) {
        const size_t runs = block->block_values / RUN;
        traits->unpack(blocks, &values);
        lend_scales(traits, &values, runs);
        memcpy(panel->code + (size_t)row * panel->k + k, values.code, block->block_values);
        memcpy(scale + k / RUN, values.scale, runs * sizeof *scale);
        memcpy(minimum + k / RUN, values.minimum, runs * sizeof *minimum);
    }
    panel->row[row] = row_factor(scale, source->cols / RUN);
}

/** Put the four codes of row g + 8r, block b of 16 inputs and lane 4g + t into a record. */
static void put_codes(uint32_t kind, uint32_t layout, const uint8_t *code, uint32_t b, uint32_t r,
                      uint32_t lane, uint32_t *words)
{
    static const uint32_t input[] = {0, 8, 1, 9};
    const uint32_t flip = signed_bytes(layout) ? 0x80 : 0;

    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t q = code[2 * (lane % 4) + input[i]];
        if (kind == FERRUM_CODES_BYTES)
            words[b / 2 * 128 + lane * 4 + b % 2 * 2 + r] |= (q ^ flip) << 8 * i;
        else if (kind == FERRUM_CODES_LEVELS)
            words[lane * 4 + b] |= q << (16 * r + 4 * i);
        else
            words[lane * 4 + b] |= (q & 15) << (8 * i + 4 * r);
        if (kind == FERRUM_CODES_FIVE)
            words[128 + lane] |= (q >> 4) << (8 * i + 2 * b + r);
        if (kind == FERRUM_CODES_SIX)
            words[128 + b / 2 * 32 + lane] |= (q >> 4) << (8 * i + 4 * (b % 2) + 2 * r);
    }
}

/** What is to be added to codes less zero, so that scale times the sum has the minimum in it. */
static uint32_t shift_of(const tile_format_t *traits, uint32_t layout, uint16_t scale,
                         float minimum)
{
    const float unit = ferrum_cuda_f16_to_f32(scale);
    const float shift = unit != 0.0F ? (float)traits->zero - minimum / unit : 0.0F;

    return layout == FERRUM_LAYOUT_GGUF_TILES_BF16 ? ferrum_cuda_f32_to_bf16(shift)
                                                   : ferrum_cuda_f32_to_f16(shift);
}

/** The scale words of one row in a record; @p run: of the tile's first inputs. */
static void put_scales(const tile_format_t *traits, uint32_t layout, const panel_t *panel,
                       uint32_t row, uint32_t run, uint32_t *words)
{
    const float *scale = panel->scale + (size_t)row * (panel->k / RUN) + run;
    const float *minimum = panel->minimum + (size_t)row * (panel->k / RUN) + run;
    const float factor = panel->row[row];

    for (uint32_t set = 0; set < (traits->scales == SCALES_OF_32 ? 1 : 2); set++) {
        const uint16_t first = ferrum_cuda_f32_to_f16(scale[2 * set] * factor);
        const uint32_t second = traits->scales == SCALES_OF_32
                                    ? ferrum_cuda_f32_to_f16(scale[2] * factor)
                                : traits->scales == SCALES_OF_16
                                    ? ferrum_cuda_f32_to_f16(scale[2 * set + 1] * factor)
                                    : shift_of(traits, layout, first, minimum[2 * set] * factor);
        words[set * TILE_N + row] = first | second << 16;
    }
}

/** The tiles of a panel, and the rows' own scales. */
static void tile_panel(const tile_format_t *traits, const ferrum_gguf_codes_t *codes,
                       uint32_t layout, const panel_t *panel, unsigned char *out, float *out_scales)
{
    for (uint32_t k = 0; k < panel->k; k += TILE_K, out += codes->record_bytes) {
        uint32_t *words = (uint32_t *)(void *)out;
        memset(out, 0, codes->record_bytes);
        for (uint32_t row = 0; row < TILE_N; row++) {
            const uint8_t *code = panel->code + (size_t)row * panel->k + k;
            for (uint32_t b = 0; b < TILE_K / RUN; b++)
                for (uint32_t t = 0; t < 4; t++)
                    put_codes(traits->kind, layout, code + b * RUN, b, row / 8, row % 8 * 4 + t,
                              words);
            put_scales(traits, layout, panel, row, k / RUN, words + codes->scales_at / 4);
        }
    }
    const float unit = layout == FERRUM_LAYOUT_GGUF_TILES_INT8 ? codes->unit : 1.0F;
    for (uint32_t row = 0; row < TILE_N; row++)
        out_scales[row] = 1.0F / panel->row[row] / unit;
}

/** Where one expert's tiles are made. */
typedef struct tiling {
    const tile_format_t *traits;
    ferrum_gguf_codes_t codes;
    uint32_t layout;
    uint32_t rows, steps; /**< of tiles */
    uint64_t expert_bytes, scales_bytes;
    uint64_t panel_bytes; /**< of panel_t's arrays */
} tiling_t;

static void tile_expert(const ferrum_gguf_weights_t *source, const tiling_t *tiling,
                        const uint8_t *blocks, unsigned char *staging)
{
    const uint64_t row_bytes = source->bytes / source->experts / source->rows;
    const size_t runs = (size_t)TILE_N * tiling->steps * (TILE_K / RUN);
    float *scales = (float *)(void *)(staging + tiling->expert_bytes);
    unsigned char *arrays = staging + tiling->expert_bytes + tiling->scales_bytes;
    panel_t panel = {.k = tiling->steps * TILE_K,
                     .scale = (float *)(void *)arrays,
                     .minimum = (float *)(void *)arrays + runs,
                     .code = arrays + 2 * runs * sizeof(float)};

    for (uint32_t tile = 0; tile < tiling->rows; tile++) {
        memset(arrays, 0, tiling->panel_bytes);
        for (uint32_t row = 0; row < TILE_N; row++) {
            const uint64_t n = (uint64_t)tile * TILE_N + row;
            panel.row[row] = 1.0F;
            if (n < source->rows)
                unpack_row(tiling->traits, source, blocks + n * row_bytes, row, &panel);
        }
        tile_panel(tiling->traits, &tiling->codes, tiling->layout, &panel,
                   staging + (uint64_t)tile * tiling->steps * tiling->codes.record_bytes,
                   scales + (size_t)tile * TILE_N);
    }
}

static ferrum_status_t send_all(ferrum_device_t *device, const ferrum_gguf_weights_t *source,
                                const tiling_t *tiling, ferrum_cuda_memory_t *memory,
                                ferrum_error_t *err)
{
    const uint64_t tiles_bytes = tiling->expert_bytes * source->experts;
    const uint64_t bytes = tiling->expert_bytes + tiling->scales_bytes + tiling->panel_bytes;
    ferrum_status_t status = FERRUM_OK;
    unsigned char *staging = ferrum_cuda_host_alloc(device->host, bytes, "packing", err);

    if (!staging)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < source->experts && status == FERRUM_OK; e++) {
        tile_expert(source, tiling,
                    (const uint8_t *)source->data + source->bytes / source->experts * e, staging);
        status = ferrum_cuda_memory_write(memory, e * tiling->expert_bytes, staging,
                                          tiling->expert_bytes, err);
        if (status == FERRUM_OK)
            status =
                ferrum_cuda_memory_write(memory, tiles_bytes + e * tiling->scales_bytes,
                                         staging + tiling->expert_bytes, tiling->scales_bytes, err);
    }
    ferrum_cuda_host_free(device->host, staging, bytes);
    return status;
}

ferrum_status_t ferrum_cuda_gguf_load(ferrum_device_t *device, const ferrum_gguf_weights_t *source,
                                      uint32_t layout, ferrum_cuda_weights_t *weights,
                                      ferrum_error_t *err)
{
    tiling_t tiling = {
        .traits = find_format(source->format),
        .layout = layout,
        .rows = (uint32_t)ferrum_cuda_ceil(source->rows, TILE_N),
        .steps = (uint32_t)ferrum_cuda_ceil(source->cols, TILE_K),
    };
    tiling.codes = ferrum_cuda_gguf_codes(source->format, layout);
    tiling.expert_bytes = ferrum_size_mul3(tiling.rows, tiling.steps, tiling.codes.record_bytes);
    tiling.scales_bytes = ferrum_size_mul3(tiling.rows, TILE_N, sizeof(float));
    tiling.panel_bytes =
        ferrum_size_mul3(tiling.steps, TILE_N, TILE_K + 2 * (TILE_K / RUN) * sizeof(float));
    const uint64_t bytes =
        ferrum_size_mul(ferrum_size_add(tiling.expert_bytes, tiling.scales_bytes), source->experts);

    FERRUM_TRY(ferrum_cuda_memory_new(device, bytes, "weights", &weights->memory, err));
    weights->bytes = bytes;
    weights->gpu = (ferrum_gpu_weights_t){
        .data = weights->memory->address,
        .scales = weights->memory->address + tiling.expert_bytes * source->experts,
        .expert_bytes = tiling.expert_bytes,
        .row_bytes = (uint64_t)tiling.steps * tiling.codes.record_bytes,
        .layout = layout,
        .n = source->rows,
        .k = source->cols,
        .expert_rows = source->rows,
        .format = source->format,
    };
    return send_all(device, source, &tiling, weights->memory, err);
}
