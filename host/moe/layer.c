/* SPDX-License-Identifier: MIT */
/* The layer tier of moe.h: an expert_ffn with host arrays in and out. */
#include "host/moe/layer_weights.h"
#include "host/runtime/session_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

/* A layer on one generation. */
typedef struct layer_side {
    const ferrum_ops_t *ops; /* NULL: this side does not exist */
    ferrum_expert_ffn_t *ffn;
} layer_side_t;

struct ferrum_moe_layer {
    ferrum_runtime_t *runtime;
    uint32_t hidden;
    ferrum_layer_weights_t weights;
    ferrum_moe_layer_source_fn *source;
    void *source_arg;
    ferrum_object_t object;
    layer_side_t side;              /* serves; read by a pass that holds its session's gate */
    layer_side_t other;             /* of a swap */
    const ferrum_ops_t *supply_ops; /* while the source runs: where its weights go */
};

static ferrum_status_t open_side(layer_side_t *side, const ferrum_ops_t *ops,
                                 const ferrum_expert_ffn_desc_t *desc, ferrum_error_t *err)
{
    ferrum_expert_ffn_desc_t with_default = {0};
    if (desc->precision == FERRUM_PRECISION_DEFAULT) {
        memcpy(&with_default, desc,
               desc->head.size < sizeof with_default ? desc->head.size : sizeof with_default);
        if (with_default.head.size > sizeof with_default)
            with_default.head.size = sizeof with_default;
        with_default.precision = ops->precision;
        desc = &with_default;
    }
    FERRUM_TRY(ops->moe->expert_ffn_create(ops->device, desc, &side->ffn, err));
    side->ops = ops;
    return FERRUM_OK;
}

static void close_side(layer_side_t *side)
{
    if (side->ops)
        side->ops->moe->expert_ffn_release(side->ffn);
    *side = (layer_side_t){NULL, NULL};
}

/* ---- swapping ---- */

static ferrum_status_t rebuild(void *self, const ferrum_generation_t *next, ferrum_error_t *err)
{
    ferrum_moe_layer_t *layer = self;
    if (layer->source) {
        layer->supply_ops = &next->ops;
        ferrum_status_t status = layer->source(layer->source_arg, layer, err);
        layer->supply_ops = NULL;
        if (status == FERRUM_OK && !layer->other.ops)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                               "the layer's source did not call ferrum_moe_layer_supply");
        return status;
    }
    if (!layer->weights.desc)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FLAGS,
                           "a layer's weights were borrowed for its creation only: flag them "
                           "FERRUM_WEIGHTS_MAPPED or give it a ferrum_moe_layer_set_source");
    return open_side(&layer->other, &next->ops, layer->weights.desc, err);
}

static void publish(void *self)
{
    ferrum_moe_layer_t *layer = self;
    layer_side_t old = layer->side;
    layer->side = layer->other;
    layer->other = old;
}

static void discard(void *self)
{
    ferrum_moe_layer_t *layer = self;
    close_side(&layer->other);
}

static uint64_t side_bytes(const layer_side_t *side)
{
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    if (!side->ops || side->ops->moe->expert_ffn_info(side->ffn, &info, NULL) != FERRUM_OK)
        return 0;
    return info.bytes;
}

static void count_bytes(void *self, uint64_t *out_serving, uint64_t *out_other)
{
    const ferrum_moe_layer_t *layer = self;
    *out_serving = side_bytes(&layer->side);
    *out_other = side_bytes(&layer->other);
}

static void add_formats(void *self, ferrum_formats_used_t *formats)
{
    const ferrum_moe_layer_t *layer = self;
    formats->blocks |= layer->weights.formats.blocks;
    formats->gptq_bits |= layer->weights.formats.gptq_bits;
}

static const ferrum_object_ops_t object_ops = {.rebuild = rebuild,
                                               .publish = publish,
                                               .discard = discard,
                                               .bytes = count_bytes,
                                               .formats = add_formats};

void ferrum_moe_layer_set_source(ferrum_moe_layer_t *layer, ferrum_moe_layer_source_fn *source,
                                 void *arg)
{
    if (!layer)
        return;
    layer->source = source;
    layer->source_arg = arg;
}

ferrum_status_t ferrum_moe_layer_supply(ferrum_moe_layer_t *layer,
                                        const ferrum_expert_ffn_desc_t *desc, ferrum_error_t *err)
{
    if (!layer || !desc)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_supply needs a layer and desc");
    if (!layer->supply_ops || layer->other.ops)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "moe_layer_supply belongs into the layer's source, once");
    FERRUM_TRY(ferrum_layer_weights_same(&layer->weights, desc, err));
    return open_side(&layer->other, layer->supply_ops, desc, err);
}

/* ---- life ---- */

static ferrum_status_t make_layer(ferrum_runtime_t *runtime, const ferrum_expert_ffn_desc_t *desc,
                                  ferrum_moe_layer_t **out_layer, ferrum_error_t *err)
{
    ferrum_moe_layer_t *layer = calloc(1, sizeof *layer);
    if (!layer)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a MoE layer");
    layer->runtime = runtime;
    layer->hidden = desc->hidden;
    /* The backend checks the description; only then is it looked into here. */
    ferrum_status_t status = open_side(&layer->side, ferrum_runtime_ops(runtime), desc, err);
    if (status == FERRUM_OK)
        status = ferrum_layer_weights_keep(desc, &layer->weights, err);
    if (status != FERRUM_OK) {
        close_side(&layer->side);
        free(layer);
        return status;
    }
    *out_layer = layer;
    return FERRUM_OK;
}

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
    ferrum_registry_t *registry = ferrum_runtime_registry(runtime);
    ferrum_moe_layer_t *layer = NULL;
    ferrum_registry_begin(registry);
    ferrum_status_t status = make_layer(runtime, desc, &layer, err);
    if (status == FERRUM_OK) {
        ferrum_registry_add(registry, &layer->object, &object_ops, layer, NULL);
        *out_layer = layer;
    }
    ferrum_registry_end(registry);
    return status;
}

void ferrum_moe_layer_free(ferrum_moe_layer_t *layer)
{
    if (!layer)
        return;
    ferrum_registry_t *registry = ferrum_runtime_registry(layer->runtime);
    ferrum_registry_begin(registry);
    ferrum_registry_remove(registry, &layer->object);
    close_side(&layer->side);
    ferrum_registry_end(registry);
    ferrum_layer_weights_free(&layer->weights);
    free(layer);
}

ferrum_status_t ferrum_moe_layer_info(const ferrum_moe_layer_t *layer,
                                      ferrum_expert_ffn_info_t *out_info, ferrum_error_t *err)
{
    if (!layer || !out_info)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_info needs a layer and out_info");
    ferrum_registry_t *registry = ferrum_runtime_registry(layer->runtime);
    ferrum_registry_begin(registry);
    ferrum_status_t status = layer->side.ops->moe->expert_ffn_info(layer->side.ffn, out_info, err);
    ferrum_registry_end(registry);
    return status;
}

/* ---- forward ---- */

static ferrum_status_t stage_in(ferrum_session_side_t *session, const ferrum_moe_layer_t *layer,
                                const float *x, const int32_t *ids, const float *weights,
                                const float *out, uint32_t tokens, uint32_t top_k, uint32_t flags,
                                ferrum_error_t *err)
{
    const ferrum_ops_t *ops = session->ops;
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

static ferrum_status_t forward(ferrum_session_side_t *session, const ferrum_moe_layer_t *layer,
                               const float *x, const int32_t *ids, const float *weights, float *out,
                               uint32_t tokens, uint32_t top_k, uint32_t flags, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = session->ops;
    FERRUM_TRY(stage_in(session, layer, x, ids, weights, out, tokens, top_k, flags, err));
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = session->x.buffer,
                                     .ids = session->ids.buffer,
                                     .weights = session->weights.buffer,
                                     .out = session->out.buffer,
                                     .tokens = tokens,
                                     .top_k = top_k,
                                     .flags = flags};
    FERRUM_TRY(ops->moe->expert_ffn_forward(session->context, layer->side.ffn, &args, err));
    return ops->backend->buffer_read_f32(session->context, session->out.buffer, 0, out,
                                         (uint64_t)tokens * layer->hidden, err);
}

ferrum_status_t ferrum_moe_layer_forward(ferrum_session_t *session, ferrum_moe_layer_t *layer,
                                         const float *x, const int32_t *ids, const float *weights,
                                         float *out, uint32_t tokens, uint32_t top_k,
                                         uint32_t flags, ferrum_error_t *err)
{
    if (!session || !layer || (tokens > 0 && (!x || !ids || !weights || !out)))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_layer_forward needs a session, a layer, x, ids, weights and out");
    if (session->runtime != layer->runtime)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "the layer and the session belong to different runtimes");
    if (tokens == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_session_enter(session, err));
    ferrum_status_t status =
        forward(&session->side, layer, x, ids, weights, out, tokens, top_k, flags, err);
    ferrum_session_leave(session);
    return status;
}
