/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* PATH_MAX, stat */
#include <ferrum/util.h>

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/model/model_handle.h"

static ferrum_status_t read_options(const ferrum_model_options_t *given,
                                    ferrum_model_options_t *out, ferrum_error_t *err)
{
    *out = (ferrum_model_options_t){.head = FERRUM_HEAD(ferrum_model_options_t)};
    if (given && given->head.size < FERRUM_MODEL_OPTIONS_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "model options of %u bytes are too small", given->head.size);
    if (given)
        memcpy(out, given, given->head.size < sizeof *out ? given->head.size : sizeof *out);
    return FERRUM_OK;
}

/* ---- what handles share ---- */

static ferrum_status_t read_tokenizer(ferrum_model_shared_t *shared, const char *path,
                                      ferrum_error_t *err)
{
    char name[PATH_MAX];
    struct stat facts;
    if (shared->weights.gguf) {
        if (ferrum_gguf_find_key(shared->weights.gguf, "tokenizer.ggml.model"))
            return ferrum_tokenizer_from_gguf(shared->weights.gguf, &shared->tokenizer, err);
    } else {
        int length = snprintf(name, sizeof name, "%s/tokenizer.json", path);
        if (length > 0 && (size_t)length < sizeof name && stat(name, &facts) == 0)
            return ferrum_tokenizer_from_json_file(name, &shared->tokenizer, err);
    }
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER, "%.150s has no tokenizer", path);
}

/* A model without a usable tokenizer still computes logits: the reason is kept for whoever asks
 * for text. */
static ferrum_status_t open_tokenizer(ferrum_model_shared_t *shared, const char *path,
                                      ferrum_error_t *err)
{
    ferrum_error_t *why = &shared->tokenizer_error;
    *why = (ferrum_error_t)FERRUM_ERROR_INIT;
    ferrum_status_t status = read_tokenizer(shared, path, why);
    if (status == FERRUM_OUT_OF_MEMORY)
        return ferrum_fail(err, status, why->reason, "%s", why->message);
    if (status != FERRUM_OK)
        ferrum_ops_log(ferrum_runtime_ops(shared->runtime), FERRUM_LOG_WARN,
                       "text is not possible: %s", why->message);
    return FERRUM_OK;
}

/* The last handle of it is gone; the registry knows it no more. */
static void free_shared(ferrum_model_shared_t *shared)
{
    ferrum_model_image_free(shared->image);
    ferrum_tokenizer_free(shared->tokenizer);
    ferrum_weights_close(&shared->weights);
    free(shared->golden);
    free(shared);
}

static ferrum_status_t open_shared(ferrum_runtime_t *runtime, const char *path,
                                   const ferrum_model_options_t *options,
                                   ferrum_model_shared_t **out_shared, ferrum_error_t *err)
{
    ferrum_model_shared_t *shared = calloc(1, sizeof *shared);
    if (!shared)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a model");
    atomic_init(&shared->handles, 1);
    shared->runtime = runtime;
    shared->env = *ferrum_runtime_moe_env(runtime);
    ferrum_status_t status = ferrum_weights_open(path, &shared->weights, err);
    if (status == FERRUM_OK)
        status = open_tokenizer(shared, path, err);
    if (status == FERRUM_OK)
        status = ferrum_model_image_new(shared, ferrum_runtime_ops(runtime), options->progress,
                                        options->progress_arg, &shared->image, err);
    if (status != FERRUM_OK) {
        free_shared(shared);
        return status;
    }
    *out_shared = shared;
    return FERRUM_OK;
}

/* ---- handles ---- */

static ferrum_status_t make_handle(ferrum_model_shared_t *shared, ferrum_session_t *session,
                                   const ferrum_model_sizes_t *sizes, ferrum_model_t **out_model,
                                   ferrum_error_t *err)
{
    ferrum_model_t *model = ferrum_model_new_handle(shared, session, sizes, err);
    if (!model)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_status_t status =
        ferrum_model_open_side(model, shared->image, session->side.context, sizes, err);
    if (status != FERRUM_OK) {
        ferrum_model_close_side(model);
        free(model);
        return status;
    }
    *out_model = model;
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_new_trial(ferrum_model_shared_t *shared, ferrum_model_image_t *image,
                                       uint32_t capacity, ferrum_model_t **out_model,
                                       ferrum_error_t *err)
{
    const ferrum_model_sizes_t sizes = {capacity, 1};
    ferrum_model_t *model = ferrum_model_new_handle(shared, NULL, &sizes, err);
    if (!model)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_status_t status =
        ferrum_session_make(shared->runtime, &image->ops, 1, &model->session, err);
    if (status == FERRUM_OK)
        status = ferrum_model_open_side(model, image, model->session->side.context, &sizes, err);
    if (status != FERRUM_OK) {
        ferrum_model_free_trial(model);
        return status;
    }
    *out_model = model;
    return FERRUM_OK;
}

void ferrum_model_free_trial(ferrum_model_t *model)
{
    if (!model)
        return;
    ferrum_model_close_side(model);
    ferrum_session_free(model->session);
    free(model);
}

/* The part of opening during which the serving generation stays. */
static ferrum_status_t open_on(ferrum_runtime_t *runtime, const char *path,
                               const ferrum_model_options_t *options, ferrum_session_t *session,
                               ferrum_model_t **out_model, ferrum_error_t *err)
{
    const ferrum_model_sizes_t sizes = {options->kv_capacity, options->max_sequences};
    ferrum_registry_t *registry = ferrum_runtime_registry(runtime);
    ferrum_model_shared_t *shared = NULL;
    FERRUM_TRY(open_shared(runtime, path, options, &shared, err));
    ferrum_status_t status = make_handle(shared, session, &sizes, out_model, err);
    if (status != FERRUM_OK) {
        free_shared(shared);
        return status;
    }
    ferrum_registry_add(registry, &shared->object, &ferrum_model_shared_object, shared, NULL);
    ferrum_registry_add(registry, &(*out_model)->object, &ferrum_model_handle_object, *out_model,
                        NULL);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_open(ferrum_runtime_t *runtime, const char *path,
                                  const ferrum_model_options_t *options, ferrum_model_t **out_model,
                                  ferrum_error_t *err)
{
    ferrum_model_options_t asked;
    ferrum_session_t *session = NULL;
    if (!runtime || !path || !out_model)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "opening a model needs a runtime, a path and room for the model");
    FERRUM_TRY(read_options(options, &asked, err));
    FERRUM_TRY(ferrum_session_new(runtime, asked.threads, &session, err));
    ferrum_registry_begin(ferrum_runtime_registry(runtime));
    ferrum_status_t status = open_on(runtime, path, &asked, session, out_model, err);
    ferrum_registry_end(ferrum_runtime_registry(runtime));
    if (status != FERRUM_OK)
        ferrum_session_free(session);
    return status;
}

ferrum_status_t ferrum_model_share(const ferrum_model_t *model,
                                   const ferrum_model_options_t *options,
                                   ferrum_model_t **out_model, ferrum_error_t *err)
{
    ferrum_model_options_t asked;
    ferrum_session_t *session = NULL;
    if (!model || !out_model)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "sharing a model needs a model and room for the handle");
    FERRUM_TRY(read_options(options, &asked, err));
    ferrum_model_shared_t *shared = model->shared;
    ferrum_registry_t *registry = ferrum_runtime_registry(model->runtime);
    const ferrum_model_sizes_t sizes = {asked.kv_capacity, asked.max_sequences};
    FERRUM_TRY(ferrum_session_new(model->runtime, asked.threads, &session, err));
    ferrum_registry_begin(registry);
    ferrum_status_t status = make_handle(shared, session, &sizes, out_model, err);
    if (status == FERRUM_OK) {
        (void)atomic_fetch_add(&shared->handles, 1);
        ferrum_registry_add(registry, &(*out_model)->object, &ferrum_model_handle_object,
                            *out_model, NULL);
    }
    ferrum_registry_end(registry);
    if (status != FERRUM_OK)
        ferrum_session_free(session);
    return status;
}

void ferrum_model_free(ferrum_model_t *model)
{
    if (!model)
        return;
    ferrum_registry_t *registry = ferrum_runtime_registry(model->runtime);
    ferrum_model_shared_t *shared = model->shared;
    ferrum_registry_begin(registry);
    ferrum_registry_remove(registry, &model->object);
    ferrum_model_close_side(model);
    if (atomic_fetch_sub(&shared->handles, 1) == 1) {
        ferrum_registry_remove(registry, &shared->object);
        free_shared(shared);
    }
    ferrum_registry_end(registry);
    ferrum_session_free(model->session);
    free(model);
}

static void describe(const ferrum_model_t *model, ferrum_model_info_t *out_info)
{
    const ferrum_model_config_t *c = model->config;
    const ferrum_kv_shape_t *shape = ferrum_kv_cache_shape(model->kv);
    *out_info = (ferrum_model_info_t){
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
        .weight_bytes = model->shared->image->held_bytes,
        .kv_bytes = ferrum_kv_cache_bytes(model->kv),
        .scratch_bytes = ferrum_model_scratch_bytes(model),
    };
    (void)snprintf(out_info->architecture, sizeof out_info->architecture, "%s", c->architecture);
    (void)snprintf(out_info->moe_path, sizeof out_info->moe_path, "%s",
                   ferrum_moe_path_name(ferrum_moe_scratch_plan(model->moe)->path));
}

ferrum_status_t ferrum_model_get_stats(const ferrum_model_t *model,
                                       ferrum_context_stats_t *out_stats, ferrum_error_t *err)
{
    if (!model)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "model stats need a model");
    FERRUM_TRY(ferrum_session_enter(model->session, err));
    ferrum_status_t status = model->ops->backend->context_stats(model->ctx, out_stats, err);
    ferrum_session_leave(model->session);
    return status;
}

ferrum_status_t ferrum_model_get_info(const ferrum_model_t *model, ferrum_model_info_t *out_info,
                                      ferrum_error_t *err)
{
    ferrum_model_info_t info;
    if (!model || !out_info || out_info->head.size < FERRUM_MODEL_INFO_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "model info needs a model and a struct with its size set");
    FERRUM_TRY(ferrum_session_enter(model->session, err));
    describe(model, &info);
    ferrum_session_leave(model->session);
    info.head = out_info->head;
    size_t bytes = out_info->head.size < sizeof info ? out_info->head.size : sizeof info;
    memcpy(out_info, &info, bytes);
    return FERRUM_OK;
}
