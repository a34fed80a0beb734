/* SPDX-License-Identifier: MIT */
#include "backends/cpu/grouped.h"

#include <string.h>

static uint64_t bucket_tiles(const ferrum_cpu_bucket_t *bucket, uint32_t n, uint32_t row_block)
{
    return ferrum_cpu_blocks(bucket->count, FERRUM_CPU_TILE_TOKENS) *
           ferrum_cpu_blocks(n, row_block);
}

static uint64_t count_tiles(const ferrum_cpu_matrix_t *matrices, const ferrum_cpu_bucket_t *buckets,
                            uint32_t count, uint32_t row_block)
{
    uint64_t tiles = 0;
    for (uint32_t i = 0; i < count; i++)
        tiles += bucket_tiles(&buckets[i], matrices[buckets[i].matrix].n, row_block);
    return tiles;
}

/** Items of bucket @p index in the gather phase. Parts of a Linear all read the same rows, which
 * are prepared once. */
static uint64_t bucket_gathers(const ferrum_cpu_bucket_t *buckets, uint32_t index)
{
    const ferrum_cpu_bucket_t *bucket = &buckets[index];
    const bool again = index > 0 && bucket[-1].count > 0 && bucket[-1].first == bucket->first;
    return again ? 0 : ferrum_cpu_blocks(bucket->count, FERRUM_CPU_GATHER_ROWS);
}

ferrum_cpu_tiling_t ferrum_cpu_tile_buckets(const ferrum_cpu_matrix_t *matrices,
                                            ferrum_cpu_bucket_t *buckets, uint32_t count,
                                            uint32_t width)
{
    enum {
        TILES_PER_THREAD = 6
    };
    ferrum_cpu_tiling_t tiling = {
        .buckets = buckets, .bucket_count = count, .row_block = FERRUM_CPU_TILE_ROWS};

    while (tiling.row_block > FERRUM_CPU_LEAST_TILE_ROWS &&
           count_tiles(matrices, buckets, count, tiling.row_block) <
               (uint64_t)TILES_PER_THREAD * width)
        tiling.row_block /= 2;
    for (uint32_t i = 0; i < count; i++) {
        buckets[i].first_tile = tiling.tiles;
        tiling.tiles += bucket_tiles(&buckets[i], matrices[buckets[i].matrix].n, tiling.row_block);
        buckets[i].first_gather = tiling.gathers;
        tiling.gathers += bucket_gathers(buckets, i);
    }
    return tiling;
}

/** The bucket that item @p index belongs to: the last one that begins at or before it. Buckets
 *  without items begin where the next one does, so they are never the last. */
static const ferrum_cpu_bucket_t *find_bucket(const ferrum_cpu_tiling_t *tiling,
                                              size_t first_offset, uint64_t index)
{
    const char *buckets = (const char *)tiling->buckets;
    uint32_t low = 0, high = tiling->bucket_count;

    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        uint64_t first;
        memcpy(&first, buckets + middle * sizeof *tiling->buckets + first_offset, sizeof first);
        if (first <= index)
            low = middle;
        else
            high = middle;
    }
    return &tiling->buckets[low];
}

ferrum_cpu_tile_t ferrum_cpu_tile(const ferrum_cpu_tiling_t *tiling,
                                  const ferrum_cpu_matrix_t *matrices, uint64_t index)
{
    const ferrum_cpu_bucket_t *bucket =
        find_bucket(tiling, offsetof(ferrum_cpu_bucket_t, first_tile), index);
    const uint64_t local = index - bucket->first_tile;
    const uint64_t token_blocks = ferrum_cpu_blocks(bucket->count, FERRUM_CPU_TILE_TOKENS);
    const uint64_t token_block = local % token_blocks, row_block = local / token_blocks;
    return (ferrum_cpu_tile_t){
        .bucket = bucket,
        .token = (uint32_t)(token_block * FERRUM_CPU_TILE_TOKENS),
        .tokens =
            (uint32_t)ferrum_cpu_block_length(bucket->count, FERRUM_CPU_TILE_TOKENS, token_block),
        .row = (uint32_t)(row_block * tiling->row_block),
        .rows = (uint32_t)ferrum_cpu_block_length(matrices[bucket->matrix].n, tiling->row_block,
                                                  row_block),
    };
}

/** Whether some matrix in use prepares its inputs (act-order, quantising), or a bucket has several
 *  rows at odd places. */
static bool needs_gather(const ferrum_cpu_matrix_t *matrices, const ferrum_cpu_bucket_t *buckets,
                         uint32_t count, const ferrum_cpu_rows_t *x)
{
    for (uint32_t i = 0; i < count; i++)
        if (matrices[buckets[i].matrix].perm ||
            matrices[buckets[i].matrix].packed.kind != FERRUM_PACKED_NONE ||
            (x->offsets && buckets[i].count > 1))
            return true;
    return false;
}

ferrum_status_t ferrum_cpu_product_init(ferrum_context_t *ctx, ferrum_cpu_product_t *product,
                                        const ferrum_cpu_matrix_t *matrices,
                                        ferrum_cpu_bucket_t *buckets, uint32_t count,
                                        ferrum_cpu_rows_t x, ferrum_cpu_rows_t y, uint64_t capacity,
                                        ferrum_cpu_scratch_t kind, ferrum_error_t *err)
{
    const bool packed = matrices[0].packed.kind != FERRUM_PACKED_NONE;
    product->device = ctx->device;
    product->matrices = matrices;
    product->tiling = ferrum_cpu_tile_buckets(matrices, buckets, count, ctx->width);
    product->x = x;
    product->y = y;
    product->gathered = NULL;
    product->row_bytes = packed ? ferrum_packed_row_bytes(matrices[0].k, matrices[0].precision)
                                : matrices[0].k * sizeof(float);
    atomic_init(&product->gather_queue.next, 0);
    atomic_init(&product->tile_queue.next, 0);
    product->gather_queue.count = product->tiling.gathers;
    product->tile_queue.count = product->tiling.tiles;
    const bool gathers = needs_gather(matrices, buckets, count, &x);
    if (!gathers && (!x.offsets || capacity <= 1))
        return FERRUM_OK;
    uint8_t *scratch = ferrum_cpu_scratch(ctx, kind, capacity, product->row_bytes, err);
    if (!scratch)
        return FERRUM_OUT_OF_MEMORY;
    if (gathers)
        product->gathered = scratch;
    return FERRUM_OK;
}

/** Prepare some rows of a bucket: contiguous, in the order of its matrix's inputs, quantised for a
 *  packed matrix. */
static void gather_rows(void *arg, uint64_t item, uint32_t thread)
{
    const ferrum_cpu_product_t *product = arg;
    const ferrum_cpu_bucket_t *bucket =
        find_bucket(&product->tiling, offsetof(ferrum_cpu_bucket_t, first_gather), item);
    const ferrum_cpu_matrix_t *matrix = &product->matrices[bucket->matrix];
    const uint64_t block = item - bucket->first_gather;
    const uint64_t first = bucket->first + block * FERRUM_CPU_GATHER_ROWS;
    const uint64_t count = ferrum_cpu_block_length(bucket->count, FERRUM_CPU_GATHER_ROWS, block);

    for (uint64_t r = first; r < first + count; r++) {
        const float *from = ferrum_cpu_row(&product->x, r);
        uint8_t *row = product->gathered + r * product->row_bytes;
        float *to = (float *)(void *)row;
        if (matrix->packed.kind != FERRUM_PACKED_NONE)
            product->device->packed->quantise(matrix->packed.kind, matrix->precision, from,
                                              matrix->perm, matrix->k, row);
        else if (!matrix->perm)
            memcpy(to, from, matrix->k * sizeof *to);
        else
            for (uint32_t i = 0; i < matrix->k; i++)
                to[i] = from[matrix->perm[i]];
    }
}

void ferrum_cpu_product_gather(ferrum_cpu_product_t *product, uint32_t thread)
{
    if (product->gathered)
        ferrum_cpu_drain(&product->gather_queue, gather_rows, product, thread);
}

const void *ferrum_cpu_product_input(const ferrum_cpu_product_t *product,
                                     const ferrum_cpu_tile_t *tile, size_t *out_stride)
{
    const uint64_t row = (uint64_t)tile->bucket->first + tile->token;

    if (product->gathered) {
        *out_stride = product->row_bytes;
        return product->gathered + row * product->row_bytes;
    }
    *out_stride = product->x.stride * sizeof(float);
    return ferrum_cpu_row(&product->x, row);
}

/** Where the weights of tile @p item begin; NULL when there is none or it is not packed. */
static const uint8_t *first_panel(const ferrum_cpu_product_t *product, uint64_t item)
{
    if (item >= product->tiling.tiles)
        return NULL;
    const ferrum_cpu_tile_t tile = ferrum_cpu_tile(&product->tiling, product->matrices, item);
    const ferrum_cpu_matrix_t *matrix = &product->matrices[tile.bucket->matrix];
    if (matrix->packed.kind == FERRUM_PACKED_NONE)
        return NULL;
    const size_t panel = (matrix->first_row + tile.row) / FERRUM_PANEL_ROWS;
    return matrix->packed.panels + panel * matrix->packed.panel_stride;
}

/** @p next: the tile that this thread has after this one. */
static void product_tile(const ferrum_cpu_product_t *product, uint64_t item, uint64_t next)
{
    const ferrum_cpu_tile_t tile = ferrum_cpu_tile(&product->tiling, product->matrices, item);
    ferrum_cpu_matrix_t hinted = product->matrices[tile.bucket->matrix];
    const ferrum_cpu_matrix_t *matrix = &hinted;
    const uint64_t first = (uint64_t)tile.bucket->first + tile.token;
    const size_t column = (size_t)matrix->out_column + tile.row;
    size_t stride;
    const void *x = ferrum_cpu_product_input(product, &tile, &stride);

    hinted.packed.next = first_panel(product, next);
    if (!product->y.offsets || tile.tokens == 1) {
        ferrum_cpu_matrix_product(product->device, matrix, tile.row, tile.rows, x, stride,
                                  tile.tokens, ferrum_cpu_row(&product->y, first) + column,
                                  product->y.stride);
        return;
    }
    float out[FERRUM_CPU_TILE_TOKENS * FERRUM_CPU_TILE_ROWS];
    ferrum_cpu_matrix_product(product->device, matrix, tile.row, tile.rows, x, stride, tile.tokens,
                              out, tile.rows);
    for (uint32_t t = 0; t < tile.tokens; t++)
        memcpy(ferrum_cpu_row(&product->y, first + t) + column, out + (size_t)t * tile.rows,
               tile.rows * sizeof *out);
}

void ferrum_cpu_product_tiles(ferrum_cpu_product_t *product, uint32_t thread)
{
    ferrum_cpu_queue_t *queue = &product->tile_queue;
    uint64_t item = ferrum_cpu_take(queue), next;
    (void)thread;
    for (; item < queue->count; item = next) {
        next = ferrum_cpu_take(queue);
        product_tile(product, item, next);
    }
}

/** Argument of the region behind ferrum_cpu_product_run. */
typedef struct product_region {
    const ferrum_context_t *ctx;
    ferrum_cpu_product_t *product;
} product_region_t;

static void run_product(void *arg, uint32_t thread, uint32_t width)
{
    product_region_t *region = arg;
    if (region->product->gathered) {
        ferrum_cpu_product_gather(region->product, thread);
        ferrum_cpu_barrier(region->ctx, thread);
    }
    ferrum_cpu_product_tiles(region->product, thread);
}

void ferrum_cpu_product_run(ferrum_context_t *ctx, ferrum_cpu_product_t *product)
{
    product_region_t region = {ctx, product};
    if (product->tiling.tiles > 0)
        ferrum_cpu_run(ctx, run_product, &region);
}
