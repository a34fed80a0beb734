/* SPDX-License-Identifier: MIT */
/* The layer tier of moe.h: an expert_ffn with host arrays in and out. */
#include "host/runtime/session_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

struct ferrum_moe_layer {
    const ferrum_ops_t *ops;
    ferrum_expert_ffn_t *ffn;
    uint32_t hidden;
};

ferrum_status_t ferrum_moe_layer_create(ferrum_runtime_t *runtime,
                                        const ferrum_expert_ffn_desc_t *desc,
                                        ferrum_moe_layer_t **out_layer, ferrum_error_t *err)
{
    if (!runtime || !desc || !out_layer)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_create needs a runtime, desc and out_layer");
    if (desc->head.size < FERRUM_EXPERT_FFN_DESC_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "expert_ffn desc of %u bytes: initialise head with FERRUM_HEAD",
                           desc->head.size);
    const ferrum_ops_t *ops = ferrum_runtime_ops(runtime);
    ferrum_moe_layer_t *layer = calloc(1, sizeof *layer);
    if (!layer)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a MoE layer");
    layer->ops = ops;
    layer->hidden = desc->hidden;
    ferrum_expert_ffn_desc_t with_default = {0};
    if (desc->precision == FERRUM_PRECISION_DEFAULT) {
        memcpy(&with_default, desc,
               desc->head.size < sizeof with_default ? desc->head.size : sizeof with_default);
        if (with_default.head.size > sizeof with_default)
            with_default.head.size = sizeof with_default;
        with_default.precision = ops->precision;
        desc = &with_default;
    }
    ferrum_status_t status = ops->moe->expert_ffn_create(ops->device, desc, &layer->ffn, err);
    if (status != FERRUM_OK) {
        free(layer);
        return status;
    }
    *out_layer = layer;
    return FERRUM_OK;
}

void ferrum_moe_layer_free(ferrum_moe_layer_t *layer)
{
    if (!layer)
        return;
    layer->ops->moe->expert_ffn_release(layer->ffn);
    free(layer);
}

ferrum_status_t ferrum_moe_layer_info(const ferrum_moe_layer_t *layer,
                                      ferrum_expert_ffn_info_t *out_info, ferrum_error_t *err)
{
    if (!layer || !out_info)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_info needs a layer and out_info");
    return layer->ops->moe->expert_ffn_info(layer->ffn, out_info, err);
}

static ferrum_status_t stage_in(ferrum_session_t *session, const ferrum_moe_layer_t *layer,
                                const float *x, const int32_t *ids, const float *weights,
                                const float *out, uint32_t tokens, uint32_t top_k, uint32_t flags,
                                ferrum_error_t *err)
{
    const ferrum_ops_t *ops = layer->ops;
    ferrum_context_t *ctx = session->context;
    uint64_t values = (uint64_t)tokens * layer->hidden, pairs = (uint64_t)tokens * top_k;
    ferrum_dtype_t act = ops->info.activation_dtype;
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, values, &session->x, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, values, &session->out, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, FERRUM_DTYPE_I32, pairs, &session->ids, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, FERRUM_DTYPE_F32, pairs, &session->weights, err));
    FERRUM_TRY(ops->backend->buffer_write_f32(ctx, session->x.buffer, 0, x, values, err));
    FERRUM_TRY(
        ops->backend->buffer_write(ctx, session->ids.buffer, 0, FERRUM_DTYPE_I32, ids, pairs, err));
    FERRUM_TRY(ops->backend->buffer_write(ctx, session->weights.buffer, 0, FERRUM_DTYPE_F32,
                                          weights, pairs, err));
    if (flags & FERRUM_FFN_ACCUMULATE)
        FERRUM_TRY(ops->backend->buffer_write_f32(ctx, session->out.buffer, 0, out, values, err));
    return FERRUM_OK;
}

ferrum_status_t ferrum_moe_layer_forward(ferrum_session_t *session, ferrum_moe_layer_t *layer,
                                         const float *x, const int32_t *ids, const float *weights,
                                         float *out, uint32_t tokens, uint32_t top_k,
                                         uint32_t flags, ferrum_error_t *err)
{
    if (!session || !layer || (tokens > 0 && (!x || !ids || !weights || !out)))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_forward needs a session, a layer, x, ids, weights and out");
    const ferrum_ops_t *ops = layer->ops;
    if (ferrum_runtime_ops(session->runtime) != ops)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "the layer and the session belong to different runtimes");
    if (tokens == 0)
        return FERRUM_OK;
    FERRUM_TRY(stage_in(session, layer, x, ids, weights, out, tokens, top_k, flags, err));
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = session->x.buffer,
                                     .ids = session->ids.buffer,
                                     .weights = session->weights.buffer,
                                     .out = session->out.buffer,
                                     .tokens = tokens,
                                     .top_k = top_k,
                                     .flags = flags};
    FERRUM_TRY(ops->moe->expert_ffn_forward(session->context, layer->ffn, &args, err));
    return ops->backend->buffer_read_f32(session->context, session->out.buffer, 0, out,
                                         (uint64_t)tokens * layer->hidden, err);
}
