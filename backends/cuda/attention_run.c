/* SPDX-License-Identifier: MIT */
/* Which attention kernel, which grid, and the scratch of split keys. */
#include "backends/cuda/kv.h"

enum {
    THREADS = 128,
    WARP_ROWS = 16, /* of attention_tile.cuh, as what follows */
    BLOCK_ROWS = 64,
    KEYS = 64,
    PAD = 8
};

/** The kernels on tensor cores for one head_dim. */
typedef struct tiles {
    uint32_t head_dim;
    ferrum_cuda_kernel_t decode, prefill;
} tiles_t;

/** NULL: the one that takes every shape. */
static const tiles_t *find_tiles(const ferrum_context_t *ctx, const ferrum_kv_args_t *kv)
{
#define TILES(dim)                                                                                 \
    {                                                                                              \
        dim, FERRUM_CUDA_KERNEL_attention_decode_##dim, FERRUM_CUDA_KERNEL_attention_prefill_##dim \
    }
    static const tiles_t tiles[] = {TILES(64), TILES(128)};
#undef TILES
    enum {
        LEAST_SHARED = 90 * 1024,
        RUN = 8 /* positions that are copied at once */
    };

    if (ctx->device->shared_bytes < LEAST_SHARED ||
        (kv->layout == FERRUM_KV_LAYOUT_VLLM && kv->block_size % RUN != 0))
        return NULL;
    for (size_t i = 0; i < sizeof tiles / sizeof tiles[0]; i++)
        if (tiles[i].head_dim == kv->head_dim)
            return &tiles[i];
    return NULL;
}

/** Queries of @p rows rows, and two stages of keys, values and a bit for each key. */
static uint32_t tile_bytes(uint32_t head_dim, uint32_t rows)
{
    const uint32_t keys = KEYS * (head_dim + PAD), turned = head_dim * (KEYS + PAD);

    return (rows * (head_dim + PAD) + 2 * (keys + (keys > turned ? keys : turned))) * 2 +
           2 * KEYS / 8;
}

static ferrum_status_t run_decode(ferrum_context_t *ctx, const tiles_t *tiles,
                                  ferrum_attention_args_t *args, ferrum_error_t *err)
{
    const uint64_t positions = (uint64_t)args->kv.table_stride * args->kv.block_size;
    const uint64_t splits = ferrum_cuda_ceil(positions, FERRUM_ATTENTION_SPLIT_KEYS);
    const uint64_t heads =
        args->kv.kv_heads * ferrum_cuda_ceil(args->heads / args->kv.kv_heads, WARP_ROWS);

    args->splits = splits == 0                             ? 1
                   : splits < FERRUM_ATTENTION_MOST_SPLITS ? (uint32_t)splits
                                                           : FERRUM_ATTENTION_MOST_SPLITS;
    if (args->splits > 1) {
        const uint64_t row = (args->kv.head_dim + FERRUM_ATTENTION_STATE) * sizeof(float);
        FERRUM_TRY(ferrum_cuda_scratch(
            ctx, FERRUM_CUDA_SCRATCH_PARTIAL,
            ferrum_size_mul(ferrum_size_mul3(args->queries, args->heads, args->splits), row),
            &args->partial, err));
        FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_TICKETS,
                                       ferrum_size_mul3(args->queries, heads, sizeof(uint32_t)),
                                       &args->tickets, err));
    }
    const ferrum_cuda_grid_t grid = {args->queries, heads, args->splits, THREADS,
                                     tile_bytes(tiles->head_dim, WARP_ROWS)};
    return ferrum_cuda_launch(ctx, tiles->decode, grid, args, err);
}

static ferrum_status_t run_prefill(ferrum_context_t *ctx, const tiles_t *tiles,
                                   const ferrum_attention_args_t *args, ferrum_error_t *err)
{
    const uint64_t group = args->heads / args->kv.kv_heads;
    const uint64_t each = ferrum_cuda_ceil(args->q_len * group, BLOCK_ROWS);
    /* How queries are shared out is known on the device only: a tile may be begun per sequence. */
    const uint64_t most =
        args->visible == FERRUM_VISIBLE_VARLEN
            ? ferrum_cuda_ceil(args->queries * group, BLOCK_ROWS) + args->sequences
            : each * args->sequences;
    const ferrum_cuda_grid_t grid = {most, args->kv.kv_heads, 1, THREADS,
                                     tile_bytes(tiles->head_dim, BLOCK_ROWS)};
    return ferrum_cuda_launch(ctx, tiles->prefill, grid, args, err);
}

static ferrum_status_t run_any(ferrum_context_t *ctx, const ferrum_attention_args_t *args,
                               ferrum_error_t *err)
{
    enum {
        WARPS = 4,
        CHUNK = 32
    };
    const uint32_t floats = args->kv.head_dim * (1 + WARPS) + WARPS * CHUNK + 2 * WARPS;
    const ferrum_cuda_grid_t grid = {args->queries, args->heads, 1, THREADS,
                                     floats * (uint32_t)sizeof(float)};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_attention, grid, args, err);
}

ferrum_status_t ferrum_cuda_attention_run(ferrum_context_t *ctx, ferrum_attention_args_t *args,
                                          uint64_t queries, ferrum_error_t *err)
{
    const tiles_t *tiles = find_tiles(ctx, &args->kv);

    if (queries > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "attention of %llu queries: split the batch",
                           (unsigned long long)queries);
    args->queries = (uint32_t)queries;
    if (queries == 0)
        return FERRUM_OK;
    if (!tiles)
        return run_any(ctx, args, err);
    if (args->q_len == 1 && args->visible != FERRUM_VISIBLE_VARLEN)
        return run_decode(ctx, tiles, args, err);
    return run_prefill(ctx, tiles, args, err);
}
