/* SPDX-License-Identifier: MIT */
/* What a handle has on one generation: attention, cache, scratch, rotation tables. */
#include <ferrum/util.h>

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "host/model/model_handle.h"
#include "host/model/rope.h"

#define DEFAULT_CAPACITY 512u
#define DEFAULT_SEQUENCES 32u
#define DEFAULT_ROWS 2048u

static uint64_t next_number(void)
{
    static atomic_uint_fast64_t counter;
    return atomic_fetch_add(&counter, 1) + 1;
}

ferrum_model_t *ferrum_model_new_handle(ferrum_model_shared_t *shared, ferrum_session_t *session,
                                        const ferrum_model_sizes_t *sizes, ferrum_error_t *err)
{
    ferrum_model_t *model = calloc(1, sizeof *model);
    if (!model) {
        (void)ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                          "out of memory for a model");
        return NULL;
    }
    model->runtime = shared->runtime;
    model->shared = shared;
    model->config = &shared->weights.config;
    model->session = session;
    model->number = next_number();
    model->env = shared->env;
    model->sizes = *sizes;
    return model;
}

static uint32_t pick(uint64_t asked, uint64_t option, uint32_t otherwise)
{
    uint64_t value = asked ? asked : option ? option : otherwise;
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static ferrum_status_t open_kv(ferrum_model_t *model, const ferrum_model_sizes_t *asked,
                               ferrum_error_t *err)
{
    const ferrum_options_t *options = ferrum_runtime_get_options(model->runtime);
    const ferrum_model_config_t *c = model->config;
    uint32_t capacity =
        pick(asked->capacity, ferrum_options_uint(options, "FERRUM_KV_CAPACITY"), DEFAULT_CAPACITY);
    ferrum_kv_shape_t shape = {
        .layers = c->layers,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .capacity = capacity < c->context_length ? capacity : c->context_length,
        .max_sequences =
            pick(asked->max_sequences, ferrum_options_uint(options, "FERRUM_PAGED_MAX_SEQS"),
                 DEFAULT_SEQUENCES),
        .pool_blocks = pick(0, ferrum_options_uint(options, "FERRUM_KV_MAX_BLOCKS"), 0),
        .paged = model->attention_path <= FERRUM_ATTENTION_PAGED,
        .layout = model->kv_layout,
        .prefix_cache = ferrum_options_switch(options, "FERRUM_PREFIX_CACHE") == 1,
    };
    FERRUM_TRY(ferrum_kv_cache_new(model->ops, &shape, &model->kv, err));
    uint32_t rows =
        pick(0, ferrum_options_uint(options, "FERRUM_MAX_BATCHED_TOKENS"), DEFAULT_ROWS);
    model->max_rows = rows < shape.capacity ? rows : shape.capacity;
    model->attention = (ferrum_attn_config_t){
        .head = FERRUM_HEAD(ferrum_attn_config_t),
        .num_heads = c->heads,
        .num_kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .causal = 1,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .kv_seq_stride = shape.paged ? 0 : shape.capacity,
        .sliding_window = c->sliding_window,
    };
    model->batch = calloc(shape.max_sequences, sizeof(ferrum_sequence_t *));
    ferrum_graph_state_t *graph = &model->graph;
    graph->decode = calloc((size_t)shape.max_sequences + 1, sizeof *graph->decode);
    graph->prefill = calloc((size_t)model->max_rows + 1, sizeof *graph->prefill);
    if (!model->batch || !graph->decode || !graph->prefill)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for batches of %u requests", shape.max_sequences);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_open_side(ferrum_model_t *model, ferrum_model_image_t *image,
                                       ferrum_context_t *ctx, const ferrum_model_sizes_t *sizes,
                                       ferrum_error_t *err)
{
    model->ops = &image->ops;
    model->layers = image->layers;
    model->final_norm = image->final_norm;
    model->lm_head = image->lm_head;
    model->ctx = ctx;
    FERRUM_TRY(ferrum_model_choose_attention(model, err));
    FERRUM_TRY(open_kv(model, sizes, err));
    FERRUM_TRY(ferrum_rope_upload(model->ops, ctx, ferrum_kv_cache_shape(model->kv)->capacity,
                                  model->config->head_dim, model->config->rope_theta, &model->cos,
                                  &model->sin, err));
    model->graph.wanted = model->env.graph && image->plan.device_route;
    model->graph.pads = model->graph.wanted && (model->ops->info.caps & FERRUM_CAP_GRAPH) &&
                        model->attention_path == FERRUM_ATTENTION_VARLEN;
    return ferrum_moe_scratch_new(model->ops, &image->plan, 1, &model->moe, err);
}

void ferrum_model_close_side(ferrum_model_t *model)
{
    if (!model->ops)
        return;
    if (model->kv && model->ctx)
        ferrum_model_reset_graphs(model);
    ferrum_model_free_scratch(model);
    ferrum_moe_scratch_free(model->moe);
    model->ops->backend->buffer_release(model->cos);
    model->ops->backend->buffer_release(model->sin);
    ferrum_kv_cache_free(model->kv);
    free(model->batch);
    free(model->graph.decode);
    free(model->graph.prefill);
    model->ops = NULL;
}
