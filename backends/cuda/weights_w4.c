/* SPDX-License-Identifier: MIT */
/* GPTQ matrices of 4 bits in the tiled layout of kernels/cuda/w4.cuh, which the expert FFN uses. */
#include "backends/common/gptq.h"
#include "backends/cuda/weights.h"

#include <string.h>

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

bool ferrum_cuda_w4_fits(const ferrum_gptq_t *const *sources, uint32_t count)
{
    for (uint32_t e = 0; e < count; e++) {
        const ferrum_gptq_t *source = sources[e];
        const uint32_t group = group_size(source);
        if (source->bits != 4 || source->scales_dtype == FERRUM_DTYPE_F32 ||
            source->scales_dtype != sources[0]->scales_dtype ||
            (group != HALF_STEP && group % TILE_K != 0 && group != source->k) ||
            !ferrum_cuda_w4_groups_fit(source))
            return false;
    }
    return true;
}

/** The tiles of one matrix: 4-byte words of codes, one word per group and output, and the table of
 *  inputs that are gathered. */
typedef struct tiling {
    uint32_t rows, steps, groups, group;
    uint64_t codes_bytes, cells_bytes, table_bytes; /**< per matrix */
} tiling_t;

/** Groups of half a step come in pairs. */
static uint32_t group_cells(const ferrum_gptq_t *source)
{
    const uint32_t groups = ferrum_gptq_groups(source);

    return groups > 1 && group_size(source) == HALF_STEP ? groups + groups % 2 : groups;
}

static tiling_t plan_tiling(const ferrum_gptq_t *source, const ferrum_cuda_w4_order_t *order)
{
    tiling_t tiling = {
        .rows = (uint32_t)ferrum_cuda_ceil(source->n, TILE_N),
        .steps = (uint32_t)ferrum_cuda_ceil(source->k, TILE_K),
        .groups = group_cells(source),
        .group = group_size(source),
    };
    tiling.codes_bytes = ferrum_size_mul3(tiling.rows, tiling.steps, TILE_WORDS * sizeof(uint32_t));
    tiling.cells_bytes = ferrum_size_mul3(tiling.rows, tiling.groups, TILE_N * sizeof(uint32_t));
    tiling.table_bytes =
        order->inputs && !order->folded ? (uint64_t)tiling.steps * TILE_K * sizeof(uint16_t) : 0;
    return tiling;
}

/** A matrix of the file, and which of its inputs and outputs are where. */
typedef struct matrix {
    const ferrum_gptq_t *source;
    const uint16_t *inputs, *outputs; /**< or NULL */
} matrix_t;

static matrix_t matrix_at(const ferrum_gptq_t *const *sources, const ferrum_cuda_w4_order_t *order,
                          uint32_t index)
{
    const ferrum_gptq_t *source = sources[index];

    return (matrix_t){.source = source,
                      .inputs = order->inputs ? order->inputs + (size_t)index * source->k : NULL,
                      .outputs =
                          order->outputs ? order->outputs + (size_t)index * source->n : NULL};
}

/** Word @p j of a lane of the tile at output n0 and input k0; 0 beyond the matrix. */
static uint32_t code_word(const matrix_t *matrix, uint32_t n0, uint32_t k0, uint32_t lane,
                          uint32_t j)
{
    const ferrum_gptq_t *source = matrix->source;
    uint32_t word = 0;

    for (uint32_t i = 0; i < 8; i++) {
        uint32_t n = n0 + lane / 4 + i % 2 * 8;
        uint32_t k = k0 + 16 * j + lane % 4 * 2 + i / 2 % 2 * 8 + i / 4;
        if (n >= source->n || k >= source->k)
            continue;
        n = matrix->outputs ? matrix->outputs[n] : n;
        k = matrix->inputs ? matrix->inputs[k] : k;
        const uint32_t eight = ferrum_gptq_u32(source->qweight, (uint64_t)(k / 8) * source->n + n);
        word |= (eight >> k % 8 * 4 & 15) << (4 * (i % 4) + 16 * (i / 4));
    }
    return word;
}

static void tile_codes(const matrix_t *matrix, const tiling_t *tiling, uint32_t *out)
{
    for (uint32_t row = 0; row < tiling->rows; row++)
        for (uint32_t step = 0; step < tiling->steps; step++)
            for (uint32_t lane = 0; lane < 32; lane++)
                for (uint32_t j = 0; j < 4; j++)
                    *out++ = code_word(matrix, row * TILE_N, step * TILE_K, lane, j);
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

/** Scale and zero of a group and the output at a place. */
static uint32_t cell_word(const matrix_t *matrix, uint32_t group, uint32_t place)
{
    const ferrum_gptq_t *source = matrix->source;
    uint16_t scale;

    if (place >= source->n || group >= ferrum_gptq_groups(source))
        return 0;
    const uint32_t n = matrix->outputs ? matrix->outputs[place] : place;
    memcpy(&scale,
           (const unsigned char *)source->scales + ((uint64_t)group * source->n + n) * sizeof scale,
           sizeof scale);
    return scale | zero_at(source, group, n) << 16;
}

static void tile_cells(const matrix_t *matrix, const tiling_t *tiling, uint32_t *out)
{
    for (uint32_t row = 0; row < tiling->rows; row++)
        for (uint32_t group = 0; group < tiling->groups; group++)
            for (uint32_t i = 0; i < TILE_N; i++)
                *out++ = cell_word(matrix, group, row * TILE_N + i);
}

/** The parts of the device block. */
typedef struct parts {
    uint64_t cells, table, bytes;
} parts_t;

static parts_t plan_parts(const tiling_t *tiling, uint32_t experts)
{
    parts_t parts = {.cells = ferrum_size_mul(tiling->codes_bytes, experts)};

    parts.table = ferrum_size_add(parts.cells, ferrum_size_mul(tiling->cells_bytes, experts));
    parts.bytes = ferrum_size_add(parts.table, ferrum_size_mul(tiling->table_bytes, experts));
    return parts;
}

/** Bring one matrix into tiles, in @p staging, and send it to its places. */
static ferrum_status_t send_matrix(const matrix_t *matrix, const tiling_t *tiling,
                                   const parts_t *parts, uint32_t expert, unsigned char *staging,
                                   ferrum_cuda_memory_t *memory, ferrum_error_t *err)
{
    uint32_t *codes = (uint32_t *)(void *)staging;
    uint32_t *cells = (uint32_t *)(void *)(staging + tiling->codes_bytes);
    unsigned char *table = staging + tiling->codes_bytes + tiling->cells_bytes;

    tile_codes(matrix, tiling, codes);
    tile_cells(matrix, tiling, cells);
    FERRUM_TRY(ferrum_cuda_memory_write(memory, expert * tiling->codes_bytes, codes,
                                        tiling->codes_bytes, err));
    FERRUM_TRY(ferrum_cuda_memory_write(memory, parts->cells + expert * tiling->cells_bytes, cells,
                                        tiling->cells_bytes, err));
    if (tiling->table_bytes == 0)
        return FERRUM_OK;
    memset(table, 0, (size_t)tiling->table_bytes);
    memcpy(table, matrix->inputs, matrix->source->k * sizeof *matrix->inputs);
    return ferrum_cuda_memory_write(memory, parts->table + expert * tiling->table_bytes, table,
                                    tiling->table_bytes, err);
}

static ferrum_status_t send_all(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                const ferrum_cuda_w4_order_t *order, const tiling_t *tiling,
                                const ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    const parts_t parts = plan_parts(tiling, weights->experts), one = plan_parts(tiling, 1);
    ferrum_status_t status = FERRUM_OK;
    unsigned char *staging = ferrum_cuda_host_alloc(device->host, one.bytes, "packing", err);

    if (!staging)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < weights->experts && status == FERRUM_OK; e++) {
        const matrix_t matrix = matrix_at(sources, order, e);
        status = send_matrix(&matrix, tiling, &parts, e, staging, weights->memory, err);
    }
    ferrum_cuda_host_free(device->host, staging, one.bytes);
    return status;
}

ferrum_status_t ferrum_cuda_w4_load(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                    const ferrum_cuda_w4_order_t *order,
                                    ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    const tiling_t tiling = plan_tiling(sources[0], order);
    const parts_t parts = plan_parts(&tiling, weights->experts);

    FERRUM_TRY(ferrum_cuda_memory_new(device, parts.bytes, "weights", &weights->memory, err));
    const CUdeviceptr base = weights->memory->address;
    weights->bytes = parts.bytes;
    weights->gpu = (ferrum_gpu_weights_t){
        .data = base,
        .scales = base + parts.cells,
        .group_of = tiling.table_bytes ? base + parts.table : 0,
        .expert_bytes = tiling.codes_bytes,
        .layout = sources[0]->scales_dtype == FERRUM_DTYPE_BF16 ? FERRUM_LAYOUT_W4_TILES_BF16
                                                                : FERRUM_LAYOUT_W4_TILES_F16,
        .n = weights->n,
        .k = weights->k,
        .expert_rows = weights->n,
        .groups = tiling.groups,
        .group_size = tiling.group,
    };
    return send_all(device, sources, order, &tiling, weights, err);
}

ferrum_status_t ferrum_cuda_w4_set_bias(ferrum_device_t *device, ferrum_cuda_weights_t *weights,
                                        const float *bias, const uint16_t *outputs,
                                        ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(weights->experts, weights->n);

    if (!bias || !outputs)
        return ferrum_cuda_weights_set_bias(device, weights, bias, err);
    float *ordered =
        ferrum_cuda_host_alloc(device->host, ferrum_size_mul(count, sizeof *bias), "biases", err);
    if (!ordered)
        return FERRUM_OUT_OF_MEMORY;
    for (uint64_t i = 0; i < count; i++)
        ordered[i] = bias[i / weights->n * weights->n + outputs[i]];
    const ferrum_status_t status = ferrum_cuda_weights_set_bias(device, weights, ordered, err);
    ferrum_cuda_host_free(device->host, ordered, count * sizeof *bias);
    return status;
}
