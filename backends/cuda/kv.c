/* SPDX-License-Identifier: MIT */
#include "backends/cuda/kv.h"

ferrum_status_t ferrum_cuda_check_kv_layout(ferrum_kv_layout_t layout, uint32_t head_dim,
                                            ferrum_error_t *err)
{
    enum {
        STEP = 8, /* elements that a kernel loads at once */
        MOST = 256
    };
    if (layout > FERRUM_KV_LAYOUT_VLLM)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LAYOUT,
                           "the cuda backend does not know KV layout %u", layout);
    if (head_dim % STEP != 0 || head_dim > MOST)
        return ferrum_fail(
            err, FERRUM_UNSUPPORTED, FERRUM_REASON_HEAD_DIM,
            "attention on the cuda backend needs a head_dim that is a multiple of %d "
            "and at most %d, not %u",
            STEP, MOST, head_dim);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_kv_from(const char *function, ferrum_context_t *ctx,
                                    const ferrum_paged_kv_t *kv, ferrum_kv_args_t *out_args,
                                    ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct(function, "kv", kv, FERRUM_PAGED_KV_MIN_SIZE, err));
    if (kv->block_size == 0 || kv->num_kv_heads == 0 || kv->head_dim == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "%s: a cache of block_size %u, %u kv heads and head_dim %u is empty",
                           ferrum_op_name(function), kv->block_size, kv->num_kv_heads,
                           kv->head_dim);
    FERRUM_TRY(ferrum_cuda_check_kv_layout(kv->layout, kv->head_dim, err));
    const uint64_t count = ferrum_size_mul(
        ferrum_size_mul3(kv->num_blocks, kv->num_kv_heads, kv->block_size), kv->head_dim);
    const ferrum_cuda_operand_t operands[] = {{"pool_k", kv->pool_k, FERRUM_CUDA_ACT, 0, count},
                                              {"pool_v", kv->pool_v, FERRUM_CUDA_ACT, 0, count}};
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 2, err));
    *out_args = (ferrum_kv_args_t){.k = ferrum_cuda_at(kv->pool_k, 0),
                                   .v = ferrum_cuda_at(kv->pool_v, 0),
                                   .table_stride = kv->max_blocks_per_seq,
                                   .num_blocks = kv->num_blocks,
                                   .block_size = kv->block_size,
                                   .kv_heads = kv->num_kv_heads,
                                   .head_dim = kv->head_dim,
                                   .layout = kv->layout};
    return FERRUM_OK;
}

ferrum_kv_args_t ferrum_cuda_kv_contiguous(const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                           uint32_t batch, uint32_t kv_heads, uint32_t capacity,
                                           uint32_t head_dim)
{
    return (ferrum_kv_args_t){.k = ferrum_cuda_at(k, 0),
                              .v = ferrum_cuda_at(v, 0),
                              .table_stride = 1,
                              .num_blocks = batch,
                              .block_size = capacity,
                              .kv_heads = kv_heads,
                              .head_dim = head_dim,
                              .layout = FERRUM_KV_LAYOUT_FA};
}

ferrum_status_t ferrum_cuda_rope_from(const char *function, ferrum_context_t *ctx,
                                      const ferrum_rope_t *rope, uint64_t positions,
                                      ferrum_qkv_args_t *args, ferrum_error_t *err)
{
    const uint32_t head_dim = args->kv.head_dim;

    FERRUM_TRY(ferrum_check_struct(function, "rope", rope, FERRUM_ROPE_MIN_SIZE, err));
    if (rope->mode > FERRUM_ROPE_INTERLEAVED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "%s: unknown rope mode %u", ferrum_op_name(function), rope->mode);
    const bool rotates = rope->mode != FERRUM_ROPE_NONE;
    const bool normed = rope->mode == FERRUM_ROPE_NORM_HALF;
    if (rotates && head_dim % 2 != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: head_dim %u is odd and cannot be rotated", ferrum_op_name(function),
                           head_dim);

    ferrum_cuda_operand_t operands[4];
    size_t count = 0;
    const uint64_t angles = ferrum_size_mul(positions, head_dim / 2);
    if (rotates) {
        operands[count++] = (ferrum_cuda_operand_t){"cos", rope->cos, FERRUM_DTYPE_F32, 0, angles};
        operands[count++] = (ferrum_cuda_operand_t){"sin", rope->sin, FERRUM_DTYPE_F32, 0, angles};
    }
    if (normed)
        operands[count++] =
            (ferrum_cuda_operand_t){"q_norm", rope->q_norm, FERRUM_CUDA_ACT_OR_F32, 0, head_dim};
    if (normed && args->has_kv)
        operands[count++] = (ferrum_cuda_operand_t){
            "k_norm", rope->k_norm, rope->q_norm ? rope->q_norm->dtype : FERRUM_CUDA_ACT_OR_F32, 0,
            head_dim};
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, count, err));
    args->mode = rope->mode;
    args->eps = rope->eps;
    if (rotates && head_dim > 0) {
        const uint64_t rows =
            (rope->cos->count < rope->sin->count ? rope->cos->count : rope->sin->count) /
            (head_dim / 2);
        args->cos = ferrum_cuda_at(rope->cos, 0);
        args->sin = ferrum_cuda_at(rope->sin, 0);
        args->angles = rows < UINT32_MAX ? (uint32_t)rows : UINT32_MAX;
    }
    if (normed) {
        args->q_norm = ferrum_cuda_at(rope->q_norm, 0);
        args->k_norm = args->has_kv ? ferrum_cuda_at(rope->k_norm, 0) : 0;
        args->norm_is_f32 = rope->q_norm->dtype == FERRUM_DTYPE_F32;
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_qkv_run(ferrum_context_t *ctx, const ferrum_qkv_args_t *args,
                                    ferrum_error_t *err)
{
    enum {
        WARPS = 4
    };
    const uint64_t vectors = args->q_heads + (args->has_kv ? 2 * (uint64_t)args->kv.kv_heads : 0);
    const ferrum_cuda_grid_t grid = {args->kv.head_dim ? args->tokens : 0,
                                     ferrum_cuda_ceil(vectors, WARPS), 1, 32 * WARPS, 0};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_qkv_norm_rope, grid, args, err);
}

ferrum_status_t ferrum_cuda_attention_config(const char *function,
                                             const ferrum_attn_config_t *config,
                                             ferrum_attention_args_t *args, ferrum_error_t *err)
{
    const uint32_t kv_heads = args->kv.kv_heads, head_dim = args->kv.head_dim;

    FERRUM_TRY(ferrum_check_struct(function, "config", config, FERRUM_ATTN_CONFIG_MIN_SIZE, err));
    if (config->num_kv_heads != kv_heads || config->head_dim != head_dim)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: config has %u kv heads of %u, the cache %u of %u",
                           ferrum_op_name(function), config->num_kv_heads, config->head_dim,
                           kv_heads, head_dim);
    if (kv_heads == 0 || head_dim == 0 || config->num_heads % kv_heads != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: %u heads do not divide over %u kv heads of %u",
                           ferrum_op_name(function), config->num_heads, kv_heads, head_dim);
    FERRUM_TRY(ferrum_cuda_check_kv_layout(args->kv.layout, head_dim, err));
    args->heads = config->num_heads;
    args->scale = config->scale;
    args->causal = config->causal;
    args->window = config->sliding_window;
    return FERRUM_OK;
}

void ferrum_cuda_attention_strides(ferrum_attention_args_t *args, bool head_major)
{
    args->query_stride = head_major ? args->kv.head_dim : 0;
    args->head_stride = (head_major ? (uint64_t)args->q_len : 1) * args->kv.head_dim;
    args->group_stride = (head_major ? (uint64_t)args->q_len : 1) * args->heads * args->kv.head_dim;
}
