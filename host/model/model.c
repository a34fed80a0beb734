/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* PATH_MAX, stat */
#include <ferrum/util.h>

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/model/model_internal.h"

#define DEFAULT_CAPACITY 512u
#define DEFAULT_SEQUENCES 32u
#define DEFAULT_ROWS 2048u

static uint32_t pick(uint64_t asked, uint64_t option, uint32_t otherwise)
{
    uint64_t value = asked ? asked : option ? option : otherwise;
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static ferrum_status_t read_tokenizer(ferrum_model_t *model, const char *path, ferrum_error_t *err)
{
    char name[PATH_MAX];
    struct stat facts;
    if (model->weights.gguf) {
        if (ferrum_gguf_find_key(model->weights.gguf, "tokenizer.ggml.model"))
            return ferrum_tokenizer_from_gguf(model->weights.gguf, &model->tokenizer, err);
    } else {
        int length = snprintf(name, sizeof name, "%s/tokenizer.json", path);
        if (length > 0 && (size_t)length < sizeof name && stat(name, &facts) == 0)
            return ferrum_tokenizer_from_json_file(name, &model->tokenizer, err);
    }
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER, "%.150s has no tokenizer", path);
}

/* A model without a usable tokenizer still computes logits: the reason is kept for whoever asks
 * for text. */
static ferrum_status_t open_tokenizer(ferrum_model_t *model, const char *path, ferrum_error_t *err)
{
    ferrum_error_t *why = &model->tokenizer_error;
    *why = (ferrum_error_t)FERRUM_ERROR_INIT;
    ferrum_status_t status = read_tokenizer(model, path, why);
    if (status == FERRUM_OUT_OF_MEMORY)
        return ferrum_fail(err, status, why->reason, "%s", why->message);
    if (status != FERRUM_OK)
        ferrum_ops_log(&model->ops, FERRUM_LOG_WARN, "text is not possible: %s", why->message);
    return FERRUM_OK;
}

static ferrum_status_t open_kv(ferrum_model_t *model, const ferrum_model_options_t *asked,
                               ferrum_error_t *err)
{
    const ferrum_options_t *options = ferrum_runtime_get_options(model->runtime);
    const ferrum_model_config_t *c = model->config;
    uint32_t capacity = pick(asked->kv_capacity, ferrum_options_uint(options, "FERRUM_KV_CAPACITY"),
                             DEFAULT_CAPACITY);
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
    FERRUM_TRY(ferrum_kv_cache_new(&model->ops, &shape, &model->kv, err));
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
    model->graph.seen = calloc((size_t)shape.max_sequences + 1, sizeof *model->graph.seen);
    if (!model->batch || !model->graph.seen)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for batches of %u requests", shape.max_sequences);
    return FERRUM_OK;
}

static ferrum_status_t describe_experts(const ferrum_model_t *model, ferrum_moe_problem_t *problems,
                                        ferrum_error_t *err)
{
    const ferrum_weights_t *w = &model->weights;
    if (w->checkpoint && !model->config->gptq.present)
        return ferrum_fail(
            err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
            "%.120s: experts of a safetensors checkpoint must be GPTQ; convert it to "
            "GGUF or quantise it",
            ferrum_safetensors_path(w->checkpoint));
    for (uint32_t i = 0; i < model->config->layers; i++) {
        if (w->gguf)
            FERRUM_TRY(ferrum_moe_problem_from_gguf(w->gguf, i, model->config, &problems[i], err));
        else
            FERRUM_TRY(
                ferrum_moe_problem_from_gptq(w->checkpoint, i, model->config, &problems[i], err));
    }
    return FERRUM_OK;
}

static ferrum_status_t open_moe(ferrum_model_t *model, ferrum_error_t *err)
{
    uint32_t layers = model->config->layers;
    ferrum_moe_problem_t *problems = calloc(layers, sizeof *problems);
    ferrum_moe_plan_t plan;
    if (!problems)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for the description of %u layers", layers);
    ferrum_status_t status = describe_experts(model, problems, err);
    if (status == FERRUM_OK)
        status = ferrum_moe_plan_resolve(&model->ops, &model->env, problems, layers, &plan, err);
    free(problems);
    if (status != FERRUM_OK)
        return status;
    model->graph.wanted = model->env.graph && plan.device_route;
    if (model->env.graph && !plan.device_route)
        ferrum_ops_log(&model->ops, FERRUM_LOG_WARN,
                       "graphs of decode steps are off: routing goes through the host");
    return ferrum_moe_scratch_new(&model->ops, &plan, 1, &model->moe, err);
}

static ferrum_status_t open_parts(ferrum_model_t *model, const char *path,
                                  const ferrum_model_options_t *options, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_weights_open(path, &model->weights, err));
    model->config = &model->weights.config;
    model->weights.progress = options->progress;
    model->weights.progress_arg = options->progress_arg;
    FERRUM_TRY(ferrum_session_new(model->runtime, 0, &model->session, err));
    model->ctx = ferrum_session_context(model->session);
    FERRUM_TRY(open_tokenizer(model, path, err));
    FERRUM_TRY(ferrum_model_choose_attention(model, err));
    FERRUM_TRY(open_kv(model, options, err));
    FERRUM_TRY(open_moe(model, err));
    return ferrum_model_load_weights(model, err);
}

ferrum_status_t ferrum_model_open(ferrum_runtime_t *runtime, const char *path,
                                  const ferrum_model_options_t *options, ferrum_model_t **out_model,
                                  ferrum_error_t *err)
{
    static atomic_uint_fast64_t counter;
    ferrum_model_options_t asked = {.head = FERRUM_HEAD(ferrum_model_options_t)};
    if (!runtime || !path || !out_model)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "opening a model needs a runtime, a path and room for the model");
    if (options && options->head.size < FERRUM_MODEL_OPTIONS_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "model options of %u bytes are too small", options->head.size);
    if (options)
        memcpy(&asked, options,
               options->head.size < sizeof asked ? options->head.size : sizeof asked);
    ferrum_model_t *model = calloc(1, sizeof *model);
    if (!model)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a model");
    model->runtime = runtime;
    model->ops = *ferrum_runtime_ops(runtime);
    model->env = *ferrum_runtime_moe_env(runtime);
    model->number = atomic_fetch_add(&counter, 1) + 1;
    ferrum_status_t status = open_parts(model, path, &asked, err);
    if (status != FERRUM_OK) {
        ferrum_model_free(model);
        return status;
    }
    *out_model = model;
    return FERRUM_OK;
}

void ferrum_model_free(ferrum_model_t *model)
{
    if (!model)
        return;
    if (model->kv)
        ferrum_model_reset_graphs(model);
    ferrum_model_free_scratch(model);
    ferrum_model_free_weights(model);
    ferrum_moe_scratch_free(model->moe);
    ferrum_kv_cache_free(model->kv);
    ferrum_session_free(model->session);
    ferrum_tokenizer_free(model->tokenizer);
    free(model->batch);
    free(model->graph.seen);
    ferrum_weights_close(&model->weights);
    free(model);
}

ferrum_status_t ferrum_model_get_info(const ferrum_model_t *model, ferrum_model_info_t *out_info,
                                      ferrum_error_t *err)
{
    if (!model || !out_info || out_info->head.size < FERRUM_MODEL_INFO_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "model info needs a model and a struct with its size set");
    const ferrum_model_config_t *c = model->config;
    const ferrum_kv_shape_t *shape = ferrum_kv_cache_shape(model->kv);
    ferrum_model_info_t info = {
        .layers = c->layers,
        .hidden = c->hidden,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .experts = c->experts,
        .top_k = c->experts_used,
        .intermediate = c->expert_intermediate,
        .vocab = c->vocab,
        .context_length = c->context_length,
        .kv_capacity = shape->capacity,
        .max_sequences = shape->max_sequences,
        .weight_bytes = model->weights.held_bytes,
        .kv_bytes = ferrum_kv_cache_bytes(model->kv),
        .scratch_bytes = ferrum_model_scratch_bytes(model),
    };
    info.head = out_info->head;
    (void)snprintf(info.architecture, sizeof info.architecture, "%s", c->architecture);
    (void)snprintf(info.moe_path, sizeof info.moe_path, "%s",
                   ferrum_moe_path_name(ferrum_moe_scratch_plan(model->moe)->path));
    size_t bytes = out_info->head.size < sizeof info ? out_info->head.size : sizeof info;
    memcpy(out_info, &info, bytes);
    return FERRUM_OK;
}
