/* SPDX-License-Identifier: MIT */
/* Attention over a paged cache. */
#include "backends/cpu/attention.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/sequences.h"

/** What the three ops share: cache, geometry, queries and outputs. */
static ferrum_status_t prepare(const char *function, ferrum_context_t *ctx,
                               const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
                               ferrum_buffer_t *out, const ferrum_attn_config_t *config,
                               uint64_t tokens, ferrum_cpu_attention_t *attention,
                               ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cpu_kv_pool_from(function, ctx, kv, &attention->pool, err));
    FERRUM_TRY(ferrum_cpu_attention_config(function, config, kv->num_kv_heads, kv->head_dim,
                                           attention, err));
    const uint64_t count = ferrum_size_mul3(tokens, attention->heads, kv->head_dim);
    const ferrum_cpu_operand_t operands[] = {{"q", q, FERRUM_DTYPE_F32, 0, count},
                                             {"out", out, FERRUM_DTYPE_F32, 0, count}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 2, err));
    attention->q = ferrum_cpu_f32(q);
    attention->out = ferrum_cpu_f32(out);
    attention->table_stride = kv->max_blocks_per_seq;
    attention->capacity =
        (uint64_t)(kv->max_blocks_per_seq < kv->num_blocks ? kv->max_blocks_per_seq
                                                           : kv->num_blocks) *
        kv->block_size;
    return FERRUM_OK;
}

/** Decode: each sequence's last q_len tokens see up to lens[s] keys. */
static ferrum_status_t decode(const char *function, ferrum_context_t *ctx,
                              ferrum_cpu_attention_t *attention, const ferrum_paged_kv_t *kv,
                              const ferrum_buffer_t *tables, const ferrum_buffer_t *lens,
                              uint32_t num_seqs, uint32_t q_len, uint64_t longest,
                              ferrum_error_t *err)
{
    const ferrum_cpu_operand_t operands[] = {
        {"block_tables", tables, FERRUM_DTYPE_I32, 0,
         ferrum_size_mul(num_seqs, kv->max_blocks_per_seq)},
        {"the key counts", lens, FERRUM_DTYPE_I32, 0, num_seqs}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 2, err));
    const int32_t *keys = ferrum_cpu_i32(lens);
    FERRUM_TRY(ferrum_cpu_check_ids(function, "key counts", keys, num_seqs,
                                    q_len > 1 ? (int64_t)q_len : 0, (int64_t)longest + 1, err));
    attention->tables = ferrum_cpu_i32(tables);
    FERRUM_TRY(ferrum_cpu_attention_new_queries(ctx, attention, (uint64_t)num_seqs * q_len, err));
    for (uint32_t i = 0; i < attention->query_count; i++) {
        const uint32_t s = i / q_len;
        ferrum_cpu_attention_set_query(attention, i, s,
                                       (uint32_t)keys[s] - (q_len - 1) + i % q_len);
    }
    FERRUM_TRY(ferrum_cpu_attention_check_blocks(function, attention, kv->max_blocks_per_seq, err));
    if (q_len > 1)
        ferrum_cpu_attention_head_major(attention, q_len);
    else
        ferrum_cpu_attention_token_major(attention);
    return ferrum_cpu_attention_run(ctx, attention, err);
}

ferrum_status_t ferrum_cpu_paged_decode_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *block_tables, const ferrum_buffer_t *context_lens,
    uint32_t num_seqs, uint32_t q_len, const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    ferrum_cpu_attention_t attention = {0};

    FERRUM_TRY(prepare(__func__, ctx, q, kv, out, config, ferrum_size_mul(num_seqs, q_len),
                       &attention, err));
    if (q_len > 1 && num_seqs > 1)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u sequences of %u queries: several queries need one sequence",
                             num_seqs, q_len);
    if (num_seqs == 0 || q_len == 0)
        return FERRUM_OK;
    return decode(__func__, ctx, &attention, kv, block_tables, context_lens, num_seqs, q_len,
                  INT32_MAX, err);
}

ferrum_status_t ferrum_cpu_paged_batched_decode_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *block_tables, const ferrum_buffer_t *kv_lens,
    uint32_t num_seqs, uint32_t max_kv_len, const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    ferrum_cpu_attention_t attention = {0};

    FERRUM_TRY(prepare(__func__, ctx, q, kv, out, config, num_seqs, &attention, err));
    if (num_seqs == 0)
        return FERRUM_OK;
    return decode(__func__, ctx, &attention, kv, block_tables, kv_lens, num_seqs, 1, max_kv_len,
                  err);
}

ferrum_status_t ferrum_cpu_paged_varlen_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *cu_seqlens, const ferrum_buffer_t *pos_offsets,
    const ferrum_buffer_t *block_tables, uint32_t num_seqs, uint32_t total_q, uint32_t max_kv_len,
    const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    ferrum_cpu_attention_t attention = {0};
    ferrum_cpu_sequences_t sequences;

    FERRUM_TRY(prepare(__func__, ctx, q, kv, out, config, total_q, &attention, err));
    FERRUM_TRY(ferrum_cpu_sequences_from(__func__, ctx, cu_seqlens, pos_offsets, block_tables,
                                         num_seqs, total_q, kv->max_blocks_per_seq, &sequences,
                                         err));
    if (sequences.longest > max_kv_len)
        return FERRUM_REFUSE_INPUT(err, FERRUM_REASON_RANGE,
                                   "a sequence has %llu keys, max_kv_len is %u",
                                   (unsigned long long)sequences.longest, max_kv_len);
    attention.tables = sequences.tables;
    FERRUM_TRY(ferrum_cpu_attention_new_queries(ctx, &attention, total_q, err));
    for (uint32_t s = 0; s < num_seqs; s++)
        for (int32_t i = sequences.cu_seqlens[s]; i < sequences.cu_seqlens[s + 1]; i++)
            ferrum_cpu_attention_set_query(
                &attention, (uint32_t)i, s,
                (uint32_t)(sequences.pos_offsets[s] + (i - sequences.cu_seqlens[s]) + 1));
    FERRUM_TRY(
        ferrum_cpu_attention_check_blocks(__func__, &attention, kv->max_blocks_per_seq, err));
    ferrum_cpu_attention_token_major(&attention);
    return ferrum_cpu_attention_run(ctx, &attention, err);
}
