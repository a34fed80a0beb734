/* SPDX-License-Identifier: MIT */
/* Attention over contiguous and paged caches; the kernels are the same. */
#include "backends/cuda/entries.h"
#include "backends/cuda/kv.h"

ferrum_status_t ferrum_cuda_flash_attention(ferrum_context_t *ctx, const ferrum_buffer_t *q,
                                            const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                            ferrum_buffer_t *out, uint32_t batch, uint32_t q_len,
                                            uint32_t kv_len, uint32_t pos_offset,
                                            const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(config, FERRUM_ATTN_CONFIG_MIN_SIZE, err);
    const uint32_t stride = config->kv_seq_stride ? config->kv_seq_stride : kv_len;
    const uint32_t kv_heads = config->num_kv_heads, dim = config->head_dim;
    const uint64_t q_count =
        ferrum_size_mul(ferrum_size_mul3(batch, config->num_heads, q_len), dim);
    const uint64_t kv_count = ferrum_size_mul(ferrum_size_mul3(batch, kv_heads, stride), dim);

    FERRUM_CUDA_CHECK(
        ctx, err, {"q", q, FERRUM_CUDA_ACT, 0, q_count}, {"k", k, FERRUM_CUDA_ACT, 0, kv_count},
        {"v", v, FERRUM_CUDA_ACT, 0, kv_count}, {"out", out, FERRUM_CUDA_ACT, 0, q_count});
    ferrum_attention_args_t args = {
        .q = ferrum_cuda_at(q, 0),
        .out = ferrum_cuda_at(out, 0),
        .kv = ferrum_cuda_kv_contiguous(k, v, batch, kv_heads, stride, dim),
        .visible = FERRUM_VISIBLE_CONTIGUOUS,
        .q_len = q_len,
        .kv_len = kv_len,
        .pos_offset = pos_offset,
        .sequences = batch,
    };
    FERRUM_TRY(ferrum_cuda_attention_config(__func__, config, &args, err));
    if (kv_len > stride)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH, "kv_len %u exceeds kv_seq_stride %u",
                             kv_len, stride);
    FERRUM_TRY(ferrum_cuda_step_word(ctx, &args.step, err));
    ferrum_cuda_attention_strides(&args, true);
    return ferrum_cuda_attention_run(ctx, &args, ferrum_size_mul(batch, q_len), err);
}

/** What the paged ops share: cache, geometry, queries, outputs and tables. */
static ferrum_status_t prepare(const char *function, ferrum_context_t *ctx,
                               const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
                               ferrum_buffer_t *out, const ferrum_buffer_t *tables,
                               const ferrum_attn_config_t *config, uint64_t tokens,
                               ferrum_attention_args_t *args, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_kv_from(function, ctx, kv, &args->kv, err));
    FERRUM_TRY(ferrum_cuda_attention_config(function, config, args, err));
    const uint64_t count = ferrum_size_mul3(tokens, args->heads, kv->head_dim);
    const ferrum_cuda_operand_t operands[] = {
        {"q", q, FERRUM_CUDA_ACT, 0, count},
        {"out", out, FERRUM_CUDA_ACT, 0, count},
        {"block_tables", tables, FERRUM_DTYPE_I32, 0,
         ferrum_size_mul(args->sequences, kv->max_blocks_per_seq)}};
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 3, err));
    args->kv.tables = ferrum_cuda_at(tables, 0);
    args->q = ferrum_cuda_at(q, 0);
    args->out = ferrum_cuda_at(out, 0);
    return FERRUM_OK;
}

static ferrum_status_t decode(const char *function, ferrum_context_t *ctx, const ferrum_buffer_t *q,
                              const ferrum_paged_kv_t *kv, ferrum_buffer_t *out,
                              const ferrum_buffer_t *tables, const ferrum_buffer_t *lens,
                              uint32_t num_seqs, uint32_t q_len, const ferrum_attn_config_t *config,
                              ferrum_error_t *err)
{
    ferrum_attention_args_t args = {
        .visible = FERRUM_VISIBLE_LENGTHS, .q_len = q_len, .sequences = num_seqs};
    const ferrum_cuda_operand_t operand = {"the key counts", lens, FERRUM_DTYPE_I32, 0, num_seqs};
    const uint64_t queries = ferrum_size_mul(num_seqs, q_len);

    FERRUM_TRY(prepare(function, ctx, q, kv, out, tables, config, queries, &args, err));
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, &operand, 1, err));
    args.lengths = ferrum_cuda_at(lens, 0);
    ferrum_cuda_attention_strides(&args, q_len > 1);
    return ferrum_cuda_attention_run(ctx, &args, queries, err);
}

ferrum_status_t ferrum_cuda_paged_decode_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *block_tables, const ferrum_buffer_t *context_lens,
    uint32_t num_seqs, uint32_t q_len, const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    if (q_len > 1 && num_seqs > 1)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u sequences of %u queries: several queries need one sequence",
                             num_seqs, q_len);
    return decode(__func__, ctx, q, kv, out, block_tables, context_lens, num_seqs, q_len, config,
                  err);
}

ferrum_status_t ferrum_cuda_paged_batched_decode_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *block_tables, const ferrum_buffer_t *kv_lens,
    uint32_t num_seqs, uint32_t max_kv_len, const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    (void)max_kv_len; /* nothing here is sized by it */
    return decode(__func__, ctx, q, kv, out, block_tables, kv_lens, num_seqs, 1, config, err);
}

ferrum_status_t ferrum_cuda_paged_varlen_attention(
    ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
    ferrum_buffer_t *out, const ferrum_buffer_t *cu_seqlens, const ferrum_buffer_t *pos_offsets,
    const ferrum_buffer_t *block_tables, uint32_t num_seqs, uint32_t total_q, uint32_t max_kv_len,
    const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    ferrum_attention_args_t args = {
        .visible = FERRUM_VISIBLE_VARLEN, .q_len = 1, .sequences = num_seqs};

    FERRUM_TRY(prepare(__func__, ctx, q, kv, out, block_tables, config, total_q, &args, err));
    FERRUM_CUDA_CHECK(ctx, err,
                      {"cu_seqlens", cu_seqlens, FERRUM_DTYPE_I32, 0, (uint64_t)num_seqs + 1},
                      {"pos_offsets", pos_offsets, FERRUM_DTYPE_I32, 0, num_seqs});
    (void)max_kv_len;
    args.lengths = ferrum_cuda_at(cu_seqlens, 0);
    args.pos_offsets = ferrum_cuda_at(pos_offsets, 0);
    ferrum_cuda_attention_strides(&args, false);
    return ferrum_cuda_attention_run(ctx, &args, num_seqs ? total_q : 0, err);
}
