/* SPDX-License-Identifier: MIT */
/* Norm and rotation of projected heads, into head-major buffers, a contiguous or a paged cache. */
#include "backends/cuda/entries.h"
#include "backends/cuda/kv.h"

ferrum_status_t ferrum_cuda_qk_norm_rope(ferrum_context_t *ctx, const ferrum_buffer_t *in,
                                         const ferrum_rope_t *rope, ferrum_buffer_t *out,
                                         uint32_t tokens, uint32_t heads, uint32_t head_dim,
                                         uint32_t pos, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul3(tokens, heads, head_dim);
    ferrum_qkv_args_t args = {
        .tokens = tokens, .q_heads = heads, .rope_start = pos, .kv = {.head_dim = head_dim}};

    FERRUM_CUDA_CHECK(ctx, err, {"in", in, FERRUM_CUDA_ACT, 0, count},
                      {"out", out, FERRUM_CUDA_ACT, 0, count});
    FERRUM_TRY(ferrum_cuda_rope_from(__func__, ctx, rope, (uint64_t)pos + tokens, &args, err));
    FERRUM_TRY(ferrum_cuda_step_word(ctx, &args.step, err));
    args.qkv = ferrum_cuda_at(in, 0);
    args.q = ferrum_cuda_at(out, 0);
    return ferrum_cuda_qkv_run(ctx, &args, err);
}

ferrum_status_t ferrum_cuda_split_qkv_norm_rope_into_cache(
    ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
    ferrum_buffer_t *q_out, ferrum_buffer_t *cache_k, ferrum_buffer_t *cache_v, uint32_t tokens,
    uint32_t q_heads, uint32_t kv_heads, uint32_t head_dim, uint32_t pos, uint32_t cache_len,
    uint32_t cache_capacity, ferrum_error_t *err)
{
    const uint64_t heads = q_heads + 2 * (uint64_t)kv_heads;
    const uint64_t cache_count = ferrum_size_mul3(kv_heads, cache_capacity, head_dim);

    FERRUM_CUDA_CHECK(
        ctx, err, {"qkv", qkv, FERRUM_CUDA_ACT, 0, ferrum_size_mul3(tokens, heads, head_dim)},
        {"q_out", q_out, FERRUM_CUDA_ACT, 0, ferrum_size_mul3(tokens, q_heads, head_dim)},
        {"the key cache", cache_k, FERRUM_CUDA_ACT, 0, cache_count},
        {"the value cache", cache_v, FERRUM_CUDA_ACT, 0, cache_count});
    if ((uint64_t)cache_len + tokens > cache_capacity)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u positions from %u on exceed the capacity of %u", tokens, cache_len,
                             cache_capacity);
    ferrum_qkv_args_t args = {
        .qkv = ferrum_cuda_at(qkv, 0),
        .q = ferrum_cuda_at(q_out, 0),
        .kv = ferrum_cuda_kv_contiguous(cache_k, cache_v, 1, kv_heads, cache_capacity, head_dim),
        .tokens = tokens,
        .q_heads = q_heads,
        .has_kv = kv_heads > 0,
        .rope_start = pos,
        .cache_start = cache_len,
    };
    FERRUM_TRY(ferrum_cuda_rope_from(__func__, ctx, rope, (uint64_t)pos + tokens, &args, err));
    FERRUM_TRY(ferrum_cuda_step_word(ctx, &args.step, err));
    return ferrum_cuda_qkv_run(ctx, &args, err);
}

ferrum_status_t ferrum_cuda_split_qkv_norm_rope(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                                const ferrum_rope_t *rope, ferrum_buffer_t *q_out,
                                                ferrum_buffer_t *k_out, ferrum_buffer_t *v_out,
                                                uint32_t tokens, uint32_t q_heads,
                                                uint32_t kv_heads, uint32_t head_dim, uint32_t pos,
                                                ferrum_error_t *err)
{
    /* Head-major outputs of `tokens` rows are a cache of that capacity, filled from the start. */
    return ferrum_cuda_split_qkv_norm_rope_into_cache(ctx, qkv, rope, q_out, k_out, v_out, tokens,
                                                      q_heads, kv_heads, head_dim, pos, 0, tokens,
                                                      err);
}

ferrum_status_t ferrum_cuda_paged_kv_write(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                           uint64_t qkv_offset, const ferrum_rope_t *rope,
                                           ferrum_buffer_t *q_out, uint64_t q_offset,
                                           const ferrum_paged_kv_t *kv,
                                           const ferrum_buffer_t *block_table, uint32_t tokens,
                                           uint32_t q_heads, uint32_t pos, uint32_t cache_len,
                                           ferrum_error_t *err)
{
    ferrum_qkv_args_t args = {.tokens = tokens,
                              .q_heads = q_heads,
                              .has_kv = 1,
                              .rope_start = pos,
                              .cache_start = cache_len};

    FERRUM_TRY(ferrum_cuda_kv_from(__func__, ctx, kv, &args.kv, err));
    const uint64_t heads = q_heads + 2 * (uint64_t)kv->num_kv_heads;
    FERRUM_CUDA_CHECK(
        ctx, err,
        {"qkv", qkv, FERRUM_CUDA_ACT, qkv_offset, ferrum_size_mul3(tokens, heads, kv->head_dim)},
        {"q_out", q_out, FERRUM_CUDA_ACT, q_offset,
         ferrum_size_mul3(tokens, q_heads, kv->head_dim)},
        {"block_table", block_table, FERRUM_DTYPE_I32, 0, kv->max_blocks_per_seq});
    FERRUM_TRY(ferrum_cuda_rope_from(__func__, ctx, rope, (uint64_t)pos + tokens, &args, err));
    if ((uint64_t)cache_len + tokens > (uint64_t)kv->max_blocks_per_seq * kv->block_size)
        return FERRUM_REFUSE_INPUT(err, FERRUM_REASON_RANGE,
                                   "position %llu lies beyond the %u blocks of %u of a block table",
                                   (unsigned long long)cache_len + tokens - 1,
                                   kv->max_blocks_per_seq, kv->block_size);
    FERRUM_TRY(ferrum_cuda_step_word(ctx, &args.step, err));
    args.kv.tables = ferrum_cuda_at(block_table, 0);
    args.qkv = ferrum_cuda_at(qkv, qkv_offset);
    args.q = ferrum_cuda_at(q_out, q_offset);
    return ferrum_cuda_qkv_run(ctx, &args, err);
}

ferrum_status_t ferrum_cuda_paged_kv_write_varlen(
    ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
    ferrum_buffer_t *q_out, const ferrum_paged_kv_t *kv, const ferrum_buffer_t *cu_seqlens,
    const ferrum_buffer_t *pos_offsets, const ferrum_buffer_t *block_tables, uint32_t num_seqs,
    uint32_t m_total, uint32_t q_heads, ferrum_error_t *err)
{
    ferrum_qkv_args_t args = {.tokens = m_total,
                              .sequences = num_seqs,
                              .q_heads = q_heads,
                              .has_kv = 1,
                              .q_token_major = 1};

    FERRUM_TRY(ferrum_cuda_kv_from(__func__, ctx, kv, &args.kv, err));
    const uint64_t heads = q_heads + 2 * (uint64_t)kv->num_kv_heads;
    FERRUM_CUDA_CHECK(
        ctx, err, {"qkv", qkv, FERRUM_CUDA_ACT, 0, ferrum_size_mul3(m_total, heads, kv->head_dim)},
        {"q_out", q_out, FERRUM_CUDA_ACT, 0, ferrum_size_mul3(m_total, q_heads, kv->head_dim)},
        {"cu_seqlens", cu_seqlens, FERRUM_DTYPE_I32, 0, (uint64_t)num_seqs + 1},
        {"pos_offsets", pos_offsets, FERRUM_DTYPE_I32, 0, num_seqs},
        {"block_tables", block_tables, FERRUM_DTYPE_I32, 0,
         ferrum_size_mul(num_seqs, kv->max_blocks_per_seq)});
    FERRUM_TRY(ferrum_cuda_rope_from(__func__, ctx, rope, 0, &args, err));
    if (num_seqs == 0)
        return FERRUM_OK;
    args.kv.tables = ferrum_cuda_at(block_tables, 0);
    args.cu_seqlens = ferrum_cuda_at(cu_seqlens, 0);
    args.pos_offsets = ferrum_cuda_at(pos_offsets, 0);
    args.qkv = ferrum_cuda_at(qkv, 0);
    args.q = ferrum_cuda_at(q_out, 0);
    return ferrum_cuda_qkv_run(ctx, &args, err);
}
