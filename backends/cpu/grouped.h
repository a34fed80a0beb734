/* SPDX-License-Identifier: MIT */
/**
 * @file grouped.h
 * @brief Products of many rows with several matrices: the engine behind Linear, gemm, the expert
 *        stacks and the expert FFN.
 *
 * Rows that meet the same matrix form a *bucket*, a run of packed rows. A bucket's work is cut into
 * tiles of (token block, row block), so one token, or all tokens on one expert, still keeps every
 * thread busy. Within a region the phases are: gather (rows are made contiguous and permuted for
 * act-order; only where needed), barrier, product.
 */
#ifndef FERRUM_CPU_GROUPED_H
#define FERRUM_CPU_GROUPED_H

#include "backends/cpu/check.h"
#include "backends/cpu/matrix.h"
#include "backends/cpu/parallel.h"

enum {
    FERRUM_CPU_TILE_TOKENS = 32,
    FERRUM_CPU_TILE_ROWS = 128, /**< largest row block, a multiple of the least one */
    FERRUM_CPU_LEAST_TILE_ROWS = 32,
    FERRUM_CPU_GATHER_ROWS = 4 /**< rows that one item of the gather phase prepares */
};

/** Packed rows [first, first + count) and the matrix they meet. */
typedef struct ferrum_cpu_bucket {
    uint32_t matrix;
    uint32_t first;
    uint32_t count;
    uint64_t first_tile;   /**< number of its first tile in the whole product */
    uint64_t first_gather; /**< number of its first item in the gather phase */
} ferrum_cpu_bucket_t;

/** Where packed row r lies: at base + offsets[r], or at base + r * stride when offsets is NULL. */
typedef struct ferrum_cpu_rows {
    float *base;
    const uint64_t *offsets;
    size_t stride;
} ferrum_cpu_rows_t;

static inline float *ferrum_cpu_row(const ferrum_cpu_rows_t *rows, uint64_t r)
{
    return rows->base + (rows->offsets ? rows->offsets[r] : r * rows->stride);
}

/** How a product is cut into tiles. */
typedef struct ferrum_cpu_tiling {
    const ferrum_cpu_bucket_t *buckets;
    uint32_t bucket_count;
    uint32_t row_block;
    uint64_t tiles;
    uint64_t gathers; /**< items of the gather phase, should there be one */
} ferrum_cpu_tiling_t;

/** One tile: tokens [token, token + tokens) of a bucket, rows [row, row + rows) of its matrix. */
typedef struct ferrum_cpu_tile {
    const ferrum_cpu_bucket_t *bucket;
    uint32_t token;
    uint32_t tokens;
    uint32_t row;
    uint32_t rows;
} ferrum_cpu_tile_t;

/** One product within a region. */
typedef struct ferrum_cpu_product {
    const ferrum_device_t *device;
    const ferrum_cpu_matrix_t *matrices;
    ferrum_cpu_tiling_t tiling;
    ferrum_cpu_rows_t x;
    ferrum_cpu_rows_t y;
    uint8_t *gathered; /**< prepared rows, row_bytes apart; NULL: x is read where it lies */
    size_t row_bytes;
    ferrum_cpu_queue_t gather_queue;
    ferrum_cpu_queue_t tile_queue;
} ferrum_cpu_product_t;

/** Number the tiles of @p buckets and choose the row block for @p width threads. */
ferrum_cpu_tiling_t ferrum_cpu_tile_buckets(const ferrum_cpu_matrix_t *matrices,
                                            ferrum_cpu_bucket_t *buckets, uint32_t count,
                                            uint32_t width);

/** Tile number @p index < tiling->tiles. */
ferrum_cpu_tile_t ferrum_cpu_tile(const ferrum_cpu_tiling_t *tiling,
                                  const ferrum_cpu_matrix_t *matrices, uint64_t index);

/**
 * Prepare a product: tiles @p buckets, gets gather scratch of @p kind where needed. @p x and @p y
 * give the places of packed rows. The buckets must stay valid. @p capacity is how many packed rows
 * a call like this one can have, so that a step whose rows spread differently allocates nothing.
 */
ferrum_status_t ferrum_cpu_product_init(ferrum_context_t *ctx, ferrum_cpu_product_t *product,
                                        const ferrum_cpu_matrix_t *matrices,
                                        ferrum_cpu_bucket_t *buckets, uint32_t count,
                                        ferrum_cpu_rows_t x, ferrum_cpu_rows_t y, uint64_t capacity,
                                        ferrum_cpu_scratch_t kind, ferrum_error_t *err);

/** Inside a region, by all threads: gather the rows; nothing when not needed. A barrier has to
 *  follow. */
void ferrum_cpu_product_gather(ferrum_cpu_product_t *product, uint32_t thread);

/** Input of a tile, gathered or in place: address and stride in bytes. */
const void *ferrum_cpu_product_input(const ferrum_cpu_product_t *product,
                                     const ferrum_cpu_tile_t *tile, size_t *out_stride);

/** Inside a region, by all threads: all tiles. */
void ferrum_cpu_product_tiles(ferrum_cpu_product_t *product, uint32_t thread);

/** A whole region: gather and tiles. */
void ferrum_cpu_product_run(ferrum_context_t *ctx, ferrum_cpu_product_t *product);

#endif /* FERRUM_CPU_GROUPED_H */
