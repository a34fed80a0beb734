/* SPDX-License-Identifier: MIT */
#include "backends/cpu/paged_kv.h"

ferrum_status_t ferrum_cpu_check_kv_layout(ferrum_kv_layout_t layout, uint32_t head_dim,
                                           ferrum_error_t *err)
{
    if (layout > FERRUM_KV_LAYOUT_VLLM)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LAYOUT,
                           "the cpu backend does not know KV layout %u", layout);
    if (layout == FERRUM_KV_LAYOUT_VLLM && head_dim % (16 / sizeof(float)) != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_HEAD_DIM,
                           "the vLLM layout of f32 needs a multiple of 4 as head_dim, not %u",
                           head_dim);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_kv_pool_from(const char *function, const ferrum_context_t *ctx,
                                        const ferrum_paged_kv_t *kv, ferrum_cpu_kv_pool_t *out_pool,
                                        ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct(function, "kv", kv, FERRUM_PAGED_KV_MIN_SIZE, err));
    if (kv->block_size == 0 || kv->num_kv_heads == 0 || kv->head_dim == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "%s: a cache of block_size %u, %u kv heads and head_dim %u is empty",
                           ferrum_op_name(function), kv->block_size, kv->num_kv_heads,
                           kv->head_dim);
    FERRUM_TRY(ferrum_cpu_check_kv_layout(kv->layout, kv->head_dim, err));
    const uint64_t count = ferrum_size_mul(
        ferrum_size_mul3(kv->num_blocks, kv->num_kv_heads, kv->block_size), kv->head_dim);
    const ferrum_cpu_operand_t operands[] = {{"pool_k", kv->pool_k, FERRUM_DTYPE_F32, 0, count},
                                             {"pool_v", kv->pool_v, FERRUM_DTYPE_F32, 0, count}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 2, err));
    *out_pool = (ferrum_cpu_kv_pool_t){.k = ferrum_cpu_f32(kv->pool_k),
                                       .v = ferrum_cpu_f32(kv->pool_v),
                                       .layout = kv->layout,
                                       .num_blocks = kv->num_blocks,
                                       .block_size = kv->block_size,
                                       .kv_heads = kv->num_kv_heads,
                                       .head_dim = kv->head_dim};
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_blocks(const char *function, const ferrum_cpu_kv_pool_t *pool,
                                        const int32_t *table, uint32_t max_blocks, uint64_t first,
                                        uint64_t end, ferrum_error_t *err)
{
    if (end > (uint64_t)max_blocks * pool->block_size)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "%s: position %llu lies beyond the %u blocks of %u of a block table",
                           ferrum_op_name(function), (unsigned long long)end - 1, max_blocks,
                           pool->block_size);
    for (uint64_t b = first / pool->block_size; b * pool->block_size < end; b++)
        if (table[b] < 0 || (uint32_t)table[b] >= pool->num_blocks)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: block table entry %llu is %d, the pool has %u blocks",
                               ferrum_op_name(function), (unsigned long long)b, table[b],
                               pool->num_blocks);
    return FERRUM_OK;
}
