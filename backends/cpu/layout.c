/* SPDX-License-Identifier: MIT */
/* Ops that only move rows: splits, transposes, cache appends. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/parallel.h"

#include <string.h>

/** Copies of one token's rows. */
typedef struct move {
    const float *in;
    float *out;
    uint32_t tokens;
    uint32_t heads;
    uint32_t dim;
} move_t;

/** Token-major [tokens, heads, dim] to head-major, one token. */
static void token_to_heads(void *arg, uint64_t token, uint32_t thread)
{
    const move_t *move = arg;
    for (uint64_t h = 0; h < move->heads; h++)
        memcpy(move->out + (h * move->tokens + token) * move->dim,
               move->in + (token * move->heads + h) * move->dim, move->dim * sizeof(float));
}

static void heads_to_token(void *arg, uint64_t token, uint32_t thread)
{
    const move_t *move = arg;
    for (uint64_t h = 0; h < move->heads; h++)
        memcpy(move->out + (token * move->heads + h) * move->dim,
               move->in + (h * move->tokens + token) * move->dim, move->dim * sizeof(float));
}

static ferrum_status_t transpose(const char *function, ferrum_context_t *ctx,
                                 const ferrum_buffer_t *src, ferrum_buffer_t *dst, uint32_t tokens,
                                 uint32_t heads, uint32_t dim, ferrum_cpu_item_fn *fn,
                                 ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul3(tokens, heads, dim);
    const ferrum_cpu_operand_t operands[] = {{"src", src, FERRUM_DTYPE_F32, 0, count},
                                             {"dst", dst, FERRUM_DTYPE_F32, 0, count}};

    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 2, err));
    move_t move = {ferrum_cpu_f32(src), ferrum_cpu_f32(dst), tokens, heads, dim};
    ferrum_cpu_for_each(ctx, tokens, fn, &move);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_transpose_head_to_token(ferrum_context_t *ctx,
                                                   const ferrum_buffer_t *src, ferrum_buffer_t *dst,
                                                   uint32_t tokens, uint32_t heads, uint32_t dim,
                                                   ferrum_error_t *err)
{
    return transpose(__func__, ctx, src, dst, tokens, heads, dim, heads_to_token, err);
}

ferrum_status_t ferrum_cpu_transpose_token_to_head(ferrum_context_t *ctx,
                                                   const ferrum_buffer_t *src, ferrum_buffer_t *dst,
                                                   uint32_t tokens, uint32_t heads, uint32_t dim,
                                                   ferrum_error_t *err)
{
    return transpose(__func__, ctx, src, dst, tokens, heads, dim, token_to_heads, err);
}

/** Three outputs of one token's qkv row. */
typedef struct split {
    const float *qkv;
    float *q, *k, *v;
    size_t q_dim, kv_dim;
} split_t;

static void split_token(void *arg, uint64_t token, uint32_t thread)
{
    const split_t *split = arg;
    const float *row = split->qkv + token * (split->q_dim + 2 * split->kv_dim);

    memcpy(split->q + token * split->q_dim, row, split->q_dim * sizeof(float));
    row += split->q_dim;
    memcpy(split->k + token * split->kv_dim, row, split->kv_dim * sizeof(float));
    memcpy(split->v + token * split->kv_dim, row + split->kv_dim, split->kv_dim * sizeof(float));
}

ferrum_status_t ferrum_cpu_split_qkv(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                     ferrum_buffer_t *q, ferrum_buffer_t *k, ferrum_buffer_t *v,
                                     uint32_t tokens, uint32_t q_dim, uint32_t kv_dim,
                                     ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(
        ctx, err,
        {"qkv", qkv, FERRUM_DTYPE_F32, 0, ferrum_size_mul(tokens, q_dim + 2 * (uint64_t)kv_dim)},
        {"q", q, FERRUM_DTYPE_F32, 0, ferrum_size_mul(tokens, q_dim)},
        {"k", k, FERRUM_DTYPE_F32, 0, ferrum_size_mul(tokens, kv_dim)},
        {"v", v, FERRUM_DTYPE_F32, 0, ferrum_size_mul(tokens, kv_dim)});
    split_t split = {ferrum_cpu_f32(qkv),
                     ferrum_cpu_f32(q),
                     ferrum_cpu_f32(k),
                     ferrum_cpu_f32(v),
                     q_dim,
                     kv_dim};
    ferrum_cpu_for_each(ctx, tokens, split_token, &split);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_kv_cache_append_head_major(
    ferrum_context_t *ctx, ferrum_buffer_t *cache_k, ferrum_buffer_t *cache_v, uint32_t len,
    uint32_t capacity, const ferrum_buffer_t *new_k, const ferrum_buffer_t *new_v, uint32_t count,
    uint32_t kv_heads, uint32_t head_dim, ferrum_error_t *err)
{
    const uint64_t cache_count = ferrum_size_mul3(kv_heads, capacity, head_dim);
    const uint64_t new_count = ferrum_size_mul3(kv_heads, count, head_dim);

    FERRUM_CPU_CHECK(ctx, err, {"cache_k", cache_k, FERRUM_DTYPE_F32, 0, cache_count},
                     {"cache_v", cache_v, FERRUM_DTYPE_F32, 0, cache_count},
                     {"new_k", new_k, FERRUM_DTYPE_F32, 0, new_count},
                     {"new_v", new_v, FERRUM_DTYPE_F32, 0, new_count});
    if ((uint64_t)len + count > capacity)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u positions from %u on exceed the capacity of %u", count, len,
                             capacity);
    for (uint64_t h = 0; h < kv_heads; h++) {
        const size_t to = (size_t)((h * capacity + len) * head_dim);
        const size_t from = (size_t)(h * count * head_dim);
        const size_t bytes = (size_t)count * head_dim * sizeof(float);
        memcpy(ferrum_cpu_f32(cache_k) + to, ferrum_cpu_f32(new_k) + from, bytes);
        memcpy(ferrum_cpu_f32(cache_v) + to, ferrum_cpu_f32(new_v) + from, bytes);
    }
    return FERRUM_OK;
}
