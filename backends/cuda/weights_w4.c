/* SPDX-License-Identifier: MIT */
/* GPTQ matrices of 4 bits in the tiled layout of kernels/cuda/w4.cuh, which the expert FFN uses. */
#include "backends/common/gptq.h"
#include "backends/cuda/weights.h"

enum {
    TILE_N = 16,
    TILE_K = 64,
    TILE_WORDS = 128,
    HALF_STEP = 32 /* the smallest group that the kernels take */
};

static uint32_t group_size(const ferrum_gptq_t *source)
{
    return source->group_size ? source->group_size : source->k;
}

/** g_idx says what group_size says: files carry it without act-order, too. */
static bool in_order(const ferrum_gptq_t *source)
{
    for (uint32_t k = 0; source->g_idx && k < source->k; k++)
        if (ferrum_gptq_u32(source->g_idx, k) != k / group_size(source))
            return false;
    return true;
}

bool ferrum_cuda_w4_fits(const ferrum_gptq_t *const *sources, uint32_t count)
{
    for (uint32_t e = 0; e < count; e++) {
        const ferrum_gptq_t *source = sources[e];
        const uint32_t group = group_size(source);
        if (source->bits != 4 || !in_order(source) || source->scales_dtype == FERRUM_DTYPE_F32 ||
            source->scales_dtype != sources[0]->scales_dtype ||
            (group != HALF_STEP && group % TILE_K != 0 && group != source->k))
            return false;
    }
    return true;
}

/** The tiles of one matrix: 4-byte words of codes, then one word per group and output. */
typedef struct tiling {
    uint32_t rows, steps, groups, group;
    uint64_t codes_bytes, cells_bytes; /**< per matrix */
} tiling_t;

static tiling_t plan_tiling(const ferrum_gptq_t *source)
{
    tiling_t tiling = {
        .rows = (uint32_t)ferrum_cuda_ceil(source->n, TILE_N),
        .steps = (uint32_t)ferrum_cuda_ceil(source->k, TILE_K),
        .groups = source->k / group_size(source),
        .group = group_size(source),
    };
    tiling.codes_bytes = ferrum_size_mul3(tiling.rows, tiling.steps, TILE_WORDS * sizeof(uint32_t));
    tiling.cells_bytes = ferrum_size_mul3(tiling.rows, tiling.groups, TILE_N * sizeof(uint32_t));
    return tiling;
}

/** Word @p j of a lane of the tile at output n0 and input k0; 0 beyond the matrix. */
static uint32_t code_word(const ferrum_gptq_t *source, uint32_t n0, uint32_t k0, uint32_t lane,
                          uint32_t j)
{
    uint32_t word = 0;

    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t n = n0 + lane / 4 + i % 2 * 8;
        const uint32_t k = k0 + 16 * j + lane % 4 * 2 + i / 2 % 2 * 8 + i / 4;
        if (n >= source->n || k >= source->k)
            continue;
        const uint32_t eight = ferrum_gptq_u32(source->qweight, (uint64_t)(k / 8) * source->n + n);
        word |= (eight >> k % 8 * 4 & 15) << (4 * (i % 4) + 16 * (i / 4));
    }
    return word;
}

static void tile_codes(const ferrum_gptq_t *source, const tiling_t *tiling, uint32_t *out)
{
    for (uint32_t row = 0; row < tiling->rows; row++)
        for (uint32_t step = 0; step < tiling->steps; step++)
            for (uint32_t lane = 0; lane < 32; lane++)
                for (uint32_t j = 0; j < 4; j++)
                    *out++ = code_word(source, row * TILE_N, step * TILE_K, lane, j);
}

static uint32_t zero_at(const ferrum_gptq_t *source, uint32_t group, uint32_t n)
{
    const uint32_t add = source->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE;

    if (!source->qzeros)
        return 8;
    return (ferrum_gptq_u32(source->qzeros, (uint64_t)group * (source->n / 8) + n / 8) >>
                n % 8 * 4 &
            15) +
           add;
}

static void tile_cells(const ferrum_gptq_t *source, const tiling_t *tiling, uint32_t *out)
{
    const unsigned char *scales = source->scales;

    for (uint32_t row = 0; row < tiling->rows; row++)
        for (uint32_t group = 0; group < tiling->groups; group++)
            for (uint32_t n = row * TILE_N; n < (row + 1) * TILE_N; n++, out++) {
                uint16_t scale;
                *out = 0;
                if (n >= source->n)
                    continue;
                memcpy(&scale, scales + ((uint64_t)group * source->n + n) * sizeof scale,
                       sizeof scale);
                *out = scale | zero_at(source, group, n) << 16;
            }
}

static ferrum_status_t send_all(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                const tiling_t *tiling, const ferrum_cuda_weights_t *weights,
                                ferrum_error_t *err)
{
    const uint64_t cells = ferrum_size_mul(tiling->codes_bytes, weights->experts);
    const uint64_t bytes = ferrum_size_add(tiling->codes_bytes, tiling->cells_bytes);
    ferrum_status_t status = FERRUM_OK;
    unsigned char *staging = ferrum_cuda_host_alloc(device->host, bytes, "packing", err);

    if (!staging)
        return FERRUM_OUT_OF_MEMORY;
    uint32_t *codes = (uint32_t *)(void *)staging;
    uint32_t *words = (uint32_t *)(void *)(staging + tiling->codes_bytes);
    for (uint32_t e = 0; e < weights->experts && status == FERRUM_OK; e++) {
        tile_codes(sources[e], tiling, codes);
        tile_cells(sources[e], tiling, words);
        status = ferrum_cuda_memory_write(weights->memory, e * tiling->codes_bytes, codes,
                                          tiling->codes_bytes, err);
        if (status == FERRUM_OK)
            status = ferrum_cuda_memory_write(weights->memory, cells + e * tiling->cells_bytes,
                                              words, tiling->cells_bytes, err);
    }
    ferrum_cuda_host_free(device->host, staging, bytes);
    return status;
}

ferrum_status_t ferrum_cuda_w4_load(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                    ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    const tiling_t tiling = plan_tiling(sources[0]);
    const uint64_t codes_bytes = ferrum_size_mul(tiling.codes_bytes, weights->experts);
    const uint64_t bytes =
        ferrum_size_add(codes_bytes, ferrum_size_mul(tiling.cells_bytes, weights->experts));

    FERRUM_TRY(ferrum_cuda_memory_new(device, bytes, "weights", &weights->memory, err));
    const CUdeviceptr base = weights->memory->address;
    weights->bytes = bytes;
    weights->gpu = (ferrum_gpu_weights_t){
        .data = base,
        .scales = base + codes_bytes,
        .expert_bytes = tiling.codes_bytes,
        .layout = sources[0]->scales_dtype == FERRUM_DTYPE_BF16 ? FERRUM_LAYOUT_W4_TILES_BF16
                                                                : FERRUM_LAYOUT_W4_TILES_F16,
        .n = weights->n,
        .k = weights->k,
        .expert_rows = weights->n,
        .groups = tiling.groups,
        .group_size = tiling.group,
    };
    return send_all(device, sources, &tiling, weights, err);
}
