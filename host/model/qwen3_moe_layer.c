/* SPDX-License-Identifier: MIT */
#include "host/model/qwen3_moe_layer.h"

#include <ferrum/util.h>

#include <string.h>

#include "host/moe/moe_forward.h"
#include "host/moe/router.h"

static ferrum_status_t load_router(const ferrum_ops_t *ops, const ferrum_gguf_t *gguf,
                                   uint32_t layer, const ferrum_model_config_t *config,
                                   ferrum_linear_t **out_router, ferrum_error_t *err)
{
    char name[64];
    const ferrum_gguf_tensor_t *tensor;
    (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", layer);
    FERRUM_TRY(ferrum_gguf_require_tensor(gguf, name, &tensor, err));
    if (tensor->dims_count > 2 || tensor->dims[0] != config->hidden ||
        tensor->dims[1] != config->experts)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_LENGTH,
                           "tensor %s is [%llu, %llu], the config needs [%u, %u]", name,
                           (unsigned long long)tensor->dims[1], (unsigned long long)tensor->dims[0],
                           config->experts, config->hidden);
    ferrum_gguf_weights_t weights = {.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                     .format = tensor->format,
                                     .flags = FERRUM_WEIGHTS_MAPPED,
                                     .experts = 1,
                                     .rows = config->experts,
                                     .cols = config->hidden,
                                     .data = tensor->data,
                                     .bytes = tensor->bytes};
    return ops->quant->load_quant(ops->device, &weights, NULL, out_router, err);
}

ferrum_status_t ferrum_qwen3_moe_layer_load(const ferrum_ops_t *ops, const ferrum_gguf_t *gguf,
                                            uint32_t layer, const ferrum_model_config_t *config,
                                            ferrum_qwen3_moe_layer_t *out_layer,
                                            ferrum_error_t *err)
{
    ferrum_qwen3_moe_layer_t made = {.ops = ops,
                                     .hidden = config->hidden,
                                     .num_experts = config->experts,
                                     .top_k = config->experts_used,
                                     .norm_topk = config->norm_topk_prob};
    FERRUM_TRY(load_router(ops, gguf, layer, config, &made.router, err));
    ferrum_status_t status = ferrum_expert_stack_load_from_gguf(
        ops, gguf, layer, config->experts, config->hidden, config->expert_intermediate,
        FERRUM_MOE_PATH_PER_PAIR, &made.experts, err);
    if (status != FERRUM_OK) {
        ferrum_qwen3_moe_layer_free(&made);
        return status;
    }
    *out_layer = made;
    return FERRUM_OK;
}

void ferrum_qwen3_moe_layer_free(ferrum_qwen3_moe_layer_t *layer)
{
    if (layer->ops)
        layer->ops->linear->release(layer->router);
    ferrum_expert_stack_free(&layer->experts);
    memset(layer, 0, sizeof *layer);
}

/* Router logits of host rows, on the host. */
static ferrum_status_t route_rows(ferrum_context_t *ctx, const ferrum_qwen3_moe_layer_t *layer,
                                  const float *x, uint64_t x_count, uint32_t batch,
                                  ferrum_router_output_t *routing, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = layer->ops;
    uint64_t count = (uint64_t)batch * layer->num_experts;
    ferrum_device_array_t rows = {0}, scores = {0};
    ferrum_host_array_t logits = {0};
    ferrum_dtype_t act = ops->info.activation_dtype;
    ferrum_status_t status = ferrum_device_array_reserve(ops, act, x_count, &rows, err);
    if (status == FERRUM_OK)
        status = ferrum_device_array_reserve(ops, act, count, &scores, err);
    if (status == FERRUM_OK)
        status = ferrum_host_array_reserve(&logits, count, sizeof(float), err);
    if (status == FERRUM_OK)
        status = ops->backend->buffer_write_f32(ctx, rows.buffer, 0, x, x_count, err);
    if (status == FERRUM_OK)
        status =
            ops->linear->forward(ctx, layer->router, rows.buffer, 0, scores.buffer, 0, batch, err);
    if (status == FERRUM_OK)
        status = ops->backend->buffer_read_f32(ctx, scores.buffer, 0, logits.data, count, err);
    if (status == FERRUM_OK)
        status = ferrum_route(logits.data, count, batch, layer->num_experts, layer->top_k,
                              layer->norm_topk, routing, err);
    ferrum_host_array_free(&logits);
    ferrum_device_array_free(ops, &scores);
    ferrum_device_array_free(ops, &rows);
    return status;
}

ferrum_status_t ferrum_qwen3_moe_layer_forward(ferrum_context_t *ctx,
                                               const ferrum_qwen3_moe_layer_t *layer,
                                               const float *x, uint64_t x_count, uint32_t batch,
                                               float *out, ferrum_error_t *err)
{
    if (x_count != (uint64_t)batch * layer->hidden)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "x has %llu values, %u rows of %u need %llu",
                           (unsigned long long)x_count, batch, layer->hidden,
                           (unsigned long long)batch * layer->hidden);
    if (batch == 0)
        return FERRUM_OK;
    ferrum_router_output_t routing = {0};
    ferrum_status_t status = route_rows(ctx, layer, x, x_count, batch, &routing, err);
    if (status == FERRUM_OK)
        status = ferrum_moe_forward_cpu(ctx, &layer->experts, x, x_count, &routing, out, err);
    ferrum_router_output_free(&routing);
    return status;
}
