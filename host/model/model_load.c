/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <stdlib.h>

#include "host/formats/name_map.h"
#include "host/model/load_crew.h"
#include "host/model/model_internal.h"
#include "host/model/row_decoder.h"

/* What is being loaded. The counters in `weights` are its own: a swap loads while others read. */
typedef struct loading {
    ferrum_model_image_t *image;
    const ferrum_model_config_t *config;
    const ferrum_moe_env_t *env;
    ferrum_weights_t weights;
    ferrum_matrix_t embedding; /* in the file */
    uint32_t threads;          /* that load matrices */
    ferrum_context_t *ctx;     /* for uploads */
    ferrum_formats_used_t formats;
} loading_t;

static const char embedding_name[] = "model.embed_tokens";

/* "model.layers.3.self_attn" + "q_proj". */
static const char *layer_name(uint32_t layer, const char *part, ferrum_tensor_name_t out_name)
{
    (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, "model.layers.%u.%s", layer, part);
    return out_name;
}

static ferrum_status_t load_norm(loading_t *l, uint32_t layer, const char *part, uint32_t count,
                                 ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    ferrum_tensor_name_t name;
    return ferrum_weights_vector(&l->weights, &l->image->ops, l->ctx, layer_name(layer, part, name),
                                 count, out_buffer, err);
}

static ferrum_status_t load_qkv(loading_t *l, uint32_t index, ferrum_error_t *err)
{
    static const char *const parts[3] = {"self_attn.q_proj", "self_attn.k_proj",
                                         "self_attn.v_proj"};
    ferrum_model_layer_t *layer = &l->image->layers[index];
    uint32_t kv_dim = l->config->kv_heads * l->config->head_dim;
    uint32_t outputs[3] = {l->config->heads * l->config->head_dim, kv_dim, kv_dim};
    ferrum_matrix_t matrices[3];
    ferrum_tensor_name_t name;
    for (int i = 0; i < 3; i++)
        FERRUM_TRY(ferrum_weights_matrix(&l->weights, layer_name(index, parts[i], name), outputs[i],
                                         l->config->hidden, &matrices[i], err));
    FERRUM_TRY(ferrum_weights_fuse(&l->weights, &l->image->ops,
                                   layer_name(index, "self_attn.qkv_proj", name), matrices, 3,
                                   &layer->qkv, err));
    if (layer->qkv)
        return FERRUM_OK;
    for (int i = 0; i < 3; i++)
        FERRUM_TRY(ferrum_weights_load(&l->weights, &l->image->ops,
                                       layer_name(index, parts[i], name), &matrices[i],
                                       &layer->parts[i], err));
    return FERRUM_OK;
}

static uint64_t gguf_expert_bytes(const loading_t *l, uint32_t layer)
{
    static const char *const roles[] = {"gate", "up", "down"};
    uint64_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        ferrum_tensor_name_t name;
        (void)snprintf(name, sizeof name, "blk.%u.ffn_%s_exps.weight", layer, roles[i]);
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(l->weights.gguf, name);
        bytes += tensor ? tensor->bytes : 0;
    }
    return bytes;
}

static uint64_t gptq_expert_bytes(const loading_t *l, uint32_t layer)
{
    static const char *const roles[] = {"gate", "up", "down"};
    static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx"};
    uint64_t bytes = 0;
    for (uint32_t expert = 0; expert < l->config->experts; expert++) {
        for (int i = 0; i < 12; i++) {
            ferrum_tensor_name_t name;
            (void)snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.%s_proj.%s", layer,
                           expert, roles[i / 4], parts[i % 4]);
            const ferrum_safetensors_tensor_t *tensor =
                ferrum_safetensors_find(l->weights.checkpoint, name);
            bytes += tensor ? tensor->bytes : 0;
        }
    }
    return bytes;
}

static ferrum_status_t load_experts(loading_t *l, uint32_t index, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = l->config;
    const ferrum_weights_t *w = &l->weights;
    ferrum_expert_stack_t *stack = &l->image->layers[index].experts;
    ferrum_moe_path_t path = l->image->plan.path;
    uint64_t file_bytes;
    if (w->gguf) {
        FERRUM_TRY(ferrum_expert_stack_load_from_gguf(&l->image->ops, w->gguf, index, c->experts,
                                                      c->hidden, c->expert_intermediate, path,
                                                      stack, err));
        file_bytes = gguf_expert_bytes(l, index);
    } else {
        FERRUM_TRY(ferrum_expert_stack_load_from_gptq(&l->image->ops, w->checkpoint, &c->gptq,
                                                      index, c->experts, c->hidden,
                                                      c->expert_intermediate, path, stack, err));
        file_bytes = gptq_expert_bytes(l, index);
    }
    l->weights.held_bytes += stack->bytes != 0 ? stack->bytes : file_bytes;
    return ferrum_weights_advance(&l->weights, file_bytes, err);
}

static ferrum_status_t load_norms(loading_t *l, uint32_t index, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = l->config;
    ferrum_model_layer_t *layer = &l->image->layers[index];
    FERRUM_TRY(load_norm(l, index, "input_layernorm.weight", c->hidden, &layer->input_norm, err));
    FERRUM_TRY(
        load_norm(l, index, "post_attention_layernorm.weight", c->hidden, &layer->post_norm, err));
    if (c->qk_norm) {
        FERRUM_TRY(
            load_norm(l, index, "self_attn.q_norm.weight", c->head_dim, &layer->q_norm, err));
        FERRUM_TRY(
            load_norm(l, index, "self_attn.k_norm.weight", c->head_dim, &layer->k_norm, err));
    }
    return FERRUM_OK;
}

/* Everything of a layer that needs no context. */
static ferrum_status_t load_matrices(loading_t *l, uint32_t index, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = l->config;
    ferrum_model_layer_t *layer = &l->image->layers[index];
    ferrum_tensor_name_t name;
    FERRUM_TRY(load_qkv(l, index, err));
    FERRUM_TRY(ferrum_weights_linear(&l->weights, &l->image->ops,
                                     layer_name(index, "self_attn.o_proj", name), c->hidden,
                                     l->config->heads * l->config->head_dim, &layer->output, err));
    FERRUM_TRY(ferrum_weights_linear(&l->weights, &l->image->ops,
                                     layer_name(index, "mlp.gate", name), c->experts, c->hidden,
                                     &layer->router, err));
    FERRUM_TRY(load_experts(l, index, err));
    if (layer->experts.bytes > 0)
        ferrum_weights_release_pages(&l->weights);
    return FERRUM_OK;
}

/* The embedding stays in the file: rows of it are decoded on the host. */
static ferrum_status_t find_embedding(const loading_t *l, ferrum_matrix_t *embedding,
                                      ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_weights_matrix(&l->weights, embedding_name, l->config->vocab,
                                     l->config->hidden, embedding, err));
    if (!embedding->is_gptq && ferrum_row_decodable(embedding->blocks.format))
        return FERRUM_OK;
    const ferrum_format_traits_t *traits = ferrum_format_traits(embedding->blocks.format);
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                       "%s: format %s is not supported for an embedding", embedding_name,
                       embedding->is_gptq ? "gptq" : traits->name);
}

static bool has_separate_head(const loading_t *l)
{
    return ferrum_weights_has(&l->weights, "lm_head") &&
           (l->weights.gguf || !l->config->tie_word_embeddings);
}

static ferrum_status_t load_ends(loading_t *l, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = l->config;
    FERRUM_TRY(find_embedding(l, &l->embedding, err));
    FERRUM_TRY(ferrum_weights_vector(&l->weights, &l->image->ops, l->ctx, "model.norm.weight",
                                     c->hidden, &l->image->final_norm, err));
    if (has_separate_head(l))
        l->weights.held_bytes += l->embedding.bytes;
    else if (l->weights.checkpoint && !c->tie_word_embeddings)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.120s: tensor lm_head.weight is missing and config.json does not tie "
                           "it to the embedding",
                           ferrum_safetensors_path(l->weights.checkpoint));
    return FERRUM_OK;
}

static ferrum_status_t load_head(loading_t *l, ferrum_error_t *err)
{
    if (has_separate_head(l))
        return ferrum_weights_linear(&l->weights, &l->image->ops, "lm_head", l->config->vocab,
                                     l->config->hidden, &l->image->lm_head, err);
    return ferrum_weights_load(&l->weights, &l->image->ops, embedding_name, &l->embedding,
                               &l->image->lm_head, err);
}

/* A crew's thread loads the head, which is begun first as it may be the largest matrix, or a layer:
 * with its own account of bytes. */
static ferrum_status_t load_item(void *arg, ferrum_weights_t *weights, uint32_t index,
                                 ferrum_error_t *err)
{
    loading_t own = *(const loading_t *)arg;
    own.weights = *weights;
    const ferrum_status_t status =
        index == 0 ? load_head(&own, err) : load_matrices(&own, index - 1, err);
    *weights = own.weights;
    return status;
}

/* ---- the plan of the experts ---- */

static ferrum_status_t describe_experts(const loading_t *l, ferrum_moe_problem_t *problems,
                                        ferrum_error_t *err)
{
    const ferrum_weights_t *w = &l->weights;
    if (w->checkpoint && !l->config->gptq.present)
        return ferrum_fail(
            err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
            "%.120s: experts of a safetensors checkpoint must be GPTQ; convert it to "
            "GGUF or quantise it",
            ferrum_safetensors_path(w->checkpoint));
    for (uint32_t i = 0; i < l->config->layers; i++) {
        if (w->gguf)
            FERRUM_TRY(ferrum_moe_problem_from_gguf(w->gguf, i, l->config, &problems[i], err));
        else
            FERRUM_TRY(
                ferrum_moe_problem_from_gptq(w->checkpoint, i, l->config, &problems[i], err));
    }
    return FERRUM_OK;
}

static void note_format(ferrum_formats_used_t *formats, ferrum_weight_format_t format,
                        uint32_t bits)
{
    if (format == FERRUM_FORMAT_GPTQ)
        formats->gptq_bits |= 1u << (bits & 31);
    else if (format < 64)
        formats->blocks |= (uint64_t)1 << format;
}

static ferrum_status_t plan_experts(loading_t *l, ferrum_error_t *err)
{
    uint32_t layers = l->config->layers;
    ferrum_moe_problem_t *problems = calloc(layers, sizeof *problems);
    if (!problems)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for the description of %u layers", layers);
    ferrum_status_t status = describe_experts(l, problems, err);
    if (status == FERRUM_OK)
        status =
            ferrum_moe_plan_resolve(&l->image->ops, l->env, problems, layers, &l->image->plan, err);
    for (uint32_t i = 0; status == FERRUM_OK && i < layers; i++) {
        const ferrum_weight_format_t roles[] = {problems[i].gate, problems[i].up, problems[i].down};
        for (int r = 0; r < 3; r++)
            note_format(&l->formats, roles[r], problems[i].bits);
    }
    free(problems);
    if (status == FERRUM_OK && l->env->graph && !l->image->plan.device_route)
        ferrum_ops_log(&l->image->ops, FERRUM_LOG_WARN,
                       "graphs are off: routing goes through the host");
    return status;
}

/* ---- all of it ---- */

static ferrum_status_t load_all(loading_t *l, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = &l->image->ops;
    const ferrum_model_config_t *c = l->config;
    FERRUM_TRY(plan_experts(l, err));
    FERRUM_TRY(ops->backend->context_new(ops->device, NULL, &l->ctx, err));
    FERRUM_TRY(ferrum_weights_advance(&l->weights, 0, err));
    l->image->layers = calloc(c->layers, sizeof *l->image->layers);
    if (!l->image->layers)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for %u layers", c->layers);
    l->image->layer_count = c->layers;
    FERRUM_TRY(load_ends(l, err));
    for (uint32_t i = 0; i < c->layers; i++)
        FERRUM_TRY(load_norms(l, i, err));
    loading_t start = *l; /* for the threads to copy while the account in `l` grows */
    FERRUM_TRY(
        ferrum_load_crew_run(&l->weights, l->threads, 1 + c->layers, load_item, &start, err));
    if (l->image->layers[0].experts.bytes > 0) /* the head may have come last */
        ferrum_weights_release_pages(&l->weights);
    FERRUM_TRY(ferrum_weights_advance(&l->weights, l->weights.total_bytes, err));
    return ops->backend->context_sync(l->ctx, err);
}

ferrum_status_t ferrum_model_image_new(ferrum_model_shared_t *shared, const ferrum_ops_t *ops,
                                       ferrum_progress_fn *progress, void *progress_arg,
                                       ferrum_model_image_t **out_image, ferrum_error_t *err)
{
    loading_t l = {.image = calloc(1, sizeof *l.image),
                   .config = &shared->weights.config,
                   .env = &shared->env,
                   /* A swap leaves the processors to those who serve. */
                   .threads = shared->image ? 1 : ferrum_runtime_threads(shared->runtime),
                   .weights = shared->weights};
    if (!l.image)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a model's weights");
    l.image->ops = *ops;
    l.weights.progress = progress;
    l.weights.progress_arg = progress_arg;
    /* Each thread of the crew has a matrix of its own to load. */
    ferrum_spread_t *const spread = ferrum_runtime_spread(shared->runtime);
    const bool held = ferrum_spread_hold(spread);
    ferrum_status_t status = load_all(&l, err);
    ferrum_spread_give_back(spread, held);
    ops->backend->context_free(l.ctx);
    if (status != FERRUM_OK) {
        ferrum_model_image_free(l.image);
        return status;
    }
    l.image->held_bytes = l.weights.held_bytes;
    if (!shared->image) { /* the first one; a swap finds the same again */
        shared->embedding = l.embedding;
        shared->formats = l.formats;
    }
    *out_image = l.image;
    return FERRUM_OK;
}

void ferrum_model_image_free(ferrum_model_image_t *image)
{
    if (!image)
        return;
    const ferrum_backend_ops_t *b = image->ops.backend;
    const ferrum_linear_ops_t *linear = image->ops.linear;
    for (uint32_t i = 0; i < image->layer_count; i++) {
        ferrum_model_layer_t *layer = &image->layers[i];
        ferrum_expert_stack_free(&layer->experts);
        linear->release(layer->router);
        linear->release(layer->output);
        linear->release(layer->qkv);
        for (int part = 0; part < 3; part++)
            linear->release(layer->parts[part]);
        b->buffer_release(layer->input_norm);
        b->buffer_release(layer->post_norm);
        b->buffer_release(layer->q_norm);
        b->buffer_release(layer->k_norm);
    }
    free(image->layers);
    linear->release(image->lm_head);
    b->buffer_release(image->final_norm);
    free(image);
}
