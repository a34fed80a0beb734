/* SPDX-License-Identifier: MIT */
/* Ops that only move rows: splits, transposes, cache appends. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/args.h"

/** Run @p count (at most 3) copies in one launch. */
static ferrum_status_t run_moves(ferrum_context_t *ctx, const ferrum_move_args_t *args,
                                 uint32_t count, ferrum_error_t *err)
{
    enum {
        THREADS = 256
    };
    uint64_t longest = 0;

    for (uint32_t i = 0; i < count; i++)
        longest = args->moves[i].count > longest ? args->moves[i].count : longest;
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(longest, THREADS), count, 1, THREADS, 0};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_move, grid, args, err);
}

static ferrum_status_t transpose(const char *function, ferrum_context_t *ctx,
                                 const ferrum_buffer_t *src, ferrum_buffer_t *dst, uint32_t from,
                                 uint32_t to, uint32_t dim, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul3(from, to, dim);
    const ferrum_cuda_operand_t operands[] = {{"src", src, FERRUM_CUDA_ACT, 0, count},
                                              {"dst", dst, FERRUM_CUDA_ACT, 0, count}};

    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 2, err));
    const ferrum_move_args_t args = {{{.src = ferrum_cuda_at(src, 0),
                                       .dst = ferrum_cuda_at(dst, 0),
                                       .src_i = (uint64_t)to * dim,
                                       .src_j = dim,
                                       .dst_i = dim,
                                       .dst_j = (uint64_t)from * dim,
                                       .count_j = to,
                                       .dim = dim,
                                       .count = count}}};
    return run_moves(ctx, &args, 1, err);
}

ferrum_status_t ferrum_cuda_transpose_head_to_token(ferrum_context_t *ctx,
                                                    const ferrum_buffer_t *src,
                                                    ferrum_buffer_t *dst, uint32_t tokens,
                                                    uint32_t heads, uint32_t dim,
                                                    ferrum_error_t *err)
{
    return transpose(__func__, ctx, src, dst, heads, tokens, dim, err);
}

ferrum_status_t ferrum_cuda_transpose_token_to_head(ferrum_context_t *ctx,
                                                    const ferrum_buffer_t *src,
                                                    ferrum_buffer_t *dst, uint32_t tokens,
                                                    uint32_t heads, uint32_t dim,
                                                    ferrum_error_t *err)
{
    return transpose(__func__, ctx, src, dst, tokens, heads, dim, err);
}

ferrum_status_t ferrum_cuda_split_qkv(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                      ferrum_buffer_t *q, ferrum_buffer_t *k, ferrum_buffer_t *v,
                                      uint32_t tokens, uint32_t q_dim, uint32_t kv_dim,
                                      ferrum_error_t *err)
{
    const uint64_t row = q_dim + 2 * (uint64_t)kv_dim;
    const uint64_t q_count = ferrum_size_mul(tokens, q_dim);
    const uint64_t kv_count = ferrum_size_mul(tokens, kv_dim);
    const struct {
        const ferrum_buffer_t *to;
        uint64_t from;
        uint32_t dim;
    } parts[] = {{q, 0, q_dim}, {k, q_dim, kv_dim}, {v, (uint64_t)q_dim + kv_dim, kv_dim}};
    ferrum_move_args_t args = {0};

    FERRUM_CUDA_CHECK(ctx, err, {"qkv", qkv, FERRUM_CUDA_ACT, 0, ferrum_size_mul(tokens, row)},
                      {"q", q, FERRUM_CUDA_ACT, 0, q_count}, {"k", k, FERRUM_CUDA_ACT, 0, kv_count},
                      {"v", v, FERRUM_CUDA_ACT, 0, kv_count});
    for (uint32_t i = 0; i < 3; i++)
        args.moves[i] = (ferrum_move_t){.src = ferrum_cuda_at(qkv, parts[i].from),
                                        .dst = ferrum_cuda_at(parts[i].to, 0),
                                        .src_i = row,
                                        .dst_i = parts[i].dim,
                                        .count_j = 1,
                                        .dim = parts[i].dim,
                                        .count = (uint64_t)tokens * parts[i].dim};
    return run_moves(ctx, &args, 3, err);
}

ferrum_status_t ferrum_cuda_kv_cache_append_head_major(
    ferrum_context_t *ctx, ferrum_buffer_t *cache_k, ferrum_buffer_t *cache_v, uint32_t len,
    uint32_t capacity, const ferrum_buffer_t *new_k, const ferrum_buffer_t *new_v, uint32_t count,
    uint32_t kv_heads, uint32_t head_dim, ferrum_error_t *err)
{
    const uint64_t cache_count = ferrum_size_mul3(kv_heads, capacity, head_dim);
    const uint64_t new_count = ferrum_size_mul3(kv_heads, count, head_dim);
    const ferrum_buffer_t *const from[] = {new_k, new_v}, *const to[] = {cache_k, cache_v};
    ferrum_move_args_t args = {0};

    FERRUM_CUDA_CHECK(ctx, err, {"cache_k", cache_k, FERRUM_CUDA_ACT, 0, cache_count},
                      {"cache_v", cache_v, FERRUM_CUDA_ACT, 0, cache_count},
                      {"new_k", new_k, FERRUM_CUDA_ACT, 0, new_count},
                      {"new_v", new_v, FERRUM_CUDA_ACT, 0, new_count});
    if ((uint64_t)len + count > capacity)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u positions from %u on exceed the capacity of %u", count, len,
                             capacity);
    for (uint32_t i = 0; i < 2; i++)
        args.moves[i] = (ferrum_move_t){.src = ferrum_cuda_at(from[i], 0),
                                        .dst = ferrum_cuda_at(to[i], (uint64_t)len * head_dim),
                                        .src_i = (uint64_t)count * head_dim,
                                        .src_j = head_dim,
                                        .dst_i = (uint64_t)capacity * head_dim,
                                        .dst_j = head_dim,
                                        .count_j = count,
                                        .dim = head_dim,
                                        .count = new_count};
    return run_moves(ctx, &args, 2, err);
}
