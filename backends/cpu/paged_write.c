/* SPDX-License-Identifier: MIT */
/* Projected heads into a paged cache. */
#include "backends/cpu/entries.h"
#include "backends/cpu/rope.h"
#include "backends/cpu/sequences.h"

ferrum_status_t ferrum_cpu_paged_kv_write(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                          uint64_t qkv_offset, const ferrum_rope_t *rope,
                                          ferrum_buffer_t *q_out, uint64_t q_offset,
                                          const ferrum_paged_kv_t *kv,
                                          const ferrum_buffer_t *block_table, uint32_t tokens,
                                          uint32_t q_heads, uint32_t pos, uint32_t cache_len,
                                          ferrum_error_t *err)
{
    ferrum_cpu_qkv_job_t job = {.q_heads = q_heads, .tokens = tokens, .sequences = 1};
    const int32_t rope_start = (int32_t)pos, cache_start = (int32_t)cache_len;

    FERRUM_TRY(ferrum_cpu_kv_pool_from(__func__, ctx, kv, &job.pool, err));
    const uint64_t heads = q_heads + 2 * (uint64_t)kv->num_kv_heads;
    FERRUM_CPU_CHECK(
        ctx, err,
        {"qkv", qkv, FERRUM_DTYPE_F32, qkv_offset, ferrum_size_mul3(tokens, heads, kv->head_dim)},
        {"q_out", q_out, FERRUM_DTYPE_F32, q_offset,
         ferrum_size_mul3(tokens, q_heads, kv->head_dim)},
        {"block_table", block_table, FERRUM_DTYPE_I32, 0, kv->max_blocks_per_seq});
    FERRUM_TRY(ferrum_cpu_rope_from(__func__, ctx, rope, kv->head_dim, (uint64_t)pos + tokens, true,
                                    &job.rope, err));
    if (tokens == 0)
        return FERRUM_OK;
    job.tables = ferrum_cpu_i32(block_table);
    FERRUM_TRY(ferrum_cpu_check_blocks(__func__, &job.pool, job.tables, kv->max_blocks_per_seq,
                                       cache_len, (uint64_t)cache_len + tokens, err));
    job.qkv = ferrum_cpu_f32(qkv) + qkv_offset;
    job.q = ferrum_cpu_f32(q_out) + q_offset;
    job.rope_start = &rope_start;
    job.cache_start = &cache_start;
    return ferrum_cpu_qkv_run(ctx, &job, err);
}

ferrum_status_t ferrum_cpu_paged_kv_write_varlen(
    ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
    ferrum_buffer_t *q_out, const ferrum_paged_kv_t *kv, const ferrum_buffer_t *cu_seqlens,
    const ferrum_buffer_t *pos_offsets, const ferrum_buffer_t *block_tables, uint32_t num_seqs,
    uint32_t m_total, uint32_t q_heads, ferrum_error_t *err)
{
    ferrum_cpu_qkv_job_t job = {
        .q_token_major = true, .q_heads = q_heads, .tokens = m_total, .sequences = num_seqs};
    ferrum_cpu_sequences_t sequences;

    FERRUM_TRY(ferrum_cpu_kv_pool_from(__func__, ctx, kv, &job.pool, err));
    const uint64_t heads = q_heads + 2 * (uint64_t)kv->num_kv_heads;
    FERRUM_CPU_CHECK(
        ctx, err, {"qkv", qkv, FERRUM_DTYPE_F32, 0, ferrum_size_mul3(m_total, heads, kv->head_dim)},
        {"q_out", q_out, FERRUM_DTYPE_F32, 0, ferrum_size_mul3(m_total, q_heads, kv->head_dim)});
    FERRUM_TRY(ferrum_cpu_sequences_from(__func__, ctx, cu_seqlens, pos_offsets, block_tables,
                                         num_seqs, m_total, kv->max_blocks_per_seq, &sequences,
                                         err));
    FERRUM_TRY(ferrum_cpu_rope_from(__func__, ctx, rope, kv->head_dim, sequences.longest, true,
                                    &job.rope, err));
    for (uint32_t s = 0; s < num_seqs; s++) {
        const uint64_t first = (uint64_t)sequences.pos_offsets[s];
        const uint64_t end = ferrum_cpu_sequence_end(&sequences, s);
        FERRUM_TRY(ferrum_cpu_check_blocks(__func__, &job.pool,
                                           sequences.tables + (size_t)s * kv->max_blocks_per_seq,
                                           kv->max_blocks_per_seq, first, end, err));
    }
    job.qkv = ferrum_cpu_f32(qkv);
    job.q = ferrum_cpu_f32(q_out);
    job.tables = sequences.tables;
    job.table_stride = kv->max_blocks_per_seq;
    job.cu_seqlens = sequences.cu_seqlens;
    job.rope_start = sequences.pos_offsets;
    job.cache_start = sequences.pos_offsets;
    return ferrum_cpu_qkv_run(ctx, &job, err);
}
