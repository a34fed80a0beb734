/* SPDX-License-Identifier: MIT */
#include "host/moe/route_scratch.h"

#include <ferrum/util.h>

ferrum_status_t ferrum_device_route_scratch_reserve(const ferrum_ops_t *ops, uint32_t max_tokens,
                                                    uint32_t num_experts, uint32_t top_k,
                                                    ferrum_device_route_scratch_t *scratch,
                                                    ferrum_error_t *err)
{
    uint64_t pairs = (uint64_t)max_tokens * top_k;
    uint64_t sorted = pairs + (uint64_t)FERRUM_MOE_MAX_BLOCK_SIZE * num_experts;
    if (sorted < pairs || sorted > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "%u tokens of %u experts each out of %u exceed 2^31 padded rows",
                           max_tokens, top_k, num_experts);
    uint64_t blocks =
        (pairs + FERRUM_MOE_MIN_BLOCK_SIZE - 1) / FERRUM_MOE_MIN_BLOCK_SIZE + num_experts + 1;
    const struct {
        ferrum_dtype_t dtype;
        uint64_t count;
        ferrum_device_array_t *array;
    } wanted[] = {
        {FERRUM_DTYPE_I32, pairs, &scratch->selected_ids},
        {FERRUM_DTYPE_F32, pairs, &scratch->pair_weights},
        {FERRUM_DTYPE_I32, pairs, &scratch->pairs_by_token},
        {FERRUM_DTYPE_I32, pairs, &scratch->packed_token_idx},
        {FERRUM_DTYPE_I32, (uint64_t)num_experts + 1, &scratch->expert_offsets},
        {FERRUM_DTYPE_I32, sorted, &scratch->sorted_tokens},
        {FERRUM_DTYPE_I32, blocks, &scratch->block_ids},
        {FERRUM_DTYPE_I32, 1, &scratch->total_post_pad},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        FERRUM_TRY(ferrum_device_array_reserve(ops, wanted[i].dtype, wanted[i].count,
                                               wanted[i].array, err));
    return FERRUM_OK;
}

void ferrum_device_route_scratch_free(const ferrum_ops_t *ops,
                                      ferrum_device_route_scratch_t *scratch)
{
    ferrum_device_array_free(ops, &scratch->selected_ids);
    ferrum_device_array_free(ops, &scratch->pair_weights);
    ferrum_device_array_free(ops, &scratch->pairs_by_token);
    ferrum_device_array_free(ops, &scratch->packed_token_idx);
    ferrum_device_array_free(ops, &scratch->expert_offsets);
    ferrum_device_array_free(ops, &scratch->sorted_tokens);
    ferrum_device_array_free(ops, &scratch->block_ids);
    ferrum_device_array_free(ops, &scratch->total_post_pad);
}

void ferrum_moe_route_scratch_free(const ferrum_ops_t *ops, ferrum_moe_route_scratch_t *scratch)
{
    ferrum_router_output_free(&scratch->output);
    ferrum_bucket_plan_free(&scratch->plan);
    ferrum_moe_alignment_free(&scratch->alignment);
    ferrum_ids_tpe_free(&scratch->lists);
    ferrum_host_array_free(&scratch->probs);
    ferrum_host_array_free(&scratch->logits);
    ferrum_host_array_free(&scratch->dispatches);
    ferrum_device_route_scratch_free(ops, &scratch->upload);
}

ferrum_status_t ferrum_moe_read_logits(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                       const ferrum_buffer_t *logits, uint32_t batch,
                                       uint32_t num_experts, ferrum_moe_route_scratch_t *scratch,
                                       ferrum_error_t *err)
{
    uint64_t count = (uint64_t)batch * num_experts;
    FERRUM_TRY(ferrum_host_array_reserve(&scratch->logits, count, sizeof(float), err));
    return ops->backend->buffer_read_f32(ctx, logits, 0, scratch->logits.data, count, err);
}

ferrum_status_t ferrum_moe_route_logits(uint32_t batch, uint32_t num_experts, uint32_t top_k,
                                        bool norm_topk, ferrum_moe_route_scratch_t *scratch,
                                        ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_host_array_reserve(&scratch->probs, num_experts, sizeof(float), err));
    return ferrum_route_into(scratch->logits.data, (uint64_t)batch * num_experts, batch,
                             num_experts, top_k, norm_topk, scratch->probs.data, &scratch->output,
                             err);
}

ferrum_status_t ferrum_moe_route_on_host(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                         const ferrum_buffer_t *logits, uint32_t batch,
                                         uint32_t num_experts, uint32_t top_k, bool norm_topk,
                                         bool by_backend, ferrum_moe_route_scratch_t *scratch,
                                         ferrum_error_t *err)
{
    if (!by_backend) {
        FERRUM_TRY(ferrum_moe_read_logits(ops, ctx, logits, batch, num_experts, scratch, err));
        return ferrum_moe_route_logits(batch, num_experts, top_k, norm_topk, scratch, err);
    }
    FERRUM_TRY(ferrum_router_output_reset(&scratch->output, batch, top_k, err));
    return ops->moe->route_topk_into_host(ctx, logits, scratch->output.expert_ids,
                                          scratch->output.expert_weights, batch, num_experts, top_k,
                                          norm_topk, NULL, err);
}
