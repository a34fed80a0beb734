/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <stdlib.h>

#include "host/formats/name_map.h"
#include "host/model/model_internal.h"
#include "host/model/rope.h"
#include "host/model/row_decoder.h"

/* "model.layers.3.self_attn" + "q_proj". */
static const char *layer_name(uint32_t layer, const char *part, ferrum_tensor_name_t out_name)
{
    (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, "model.layers.%u.%s", layer, part);
    return out_name;
}

static ferrum_status_t load_norm(ferrum_model_t *model, uint32_t layer, const char *part,
                                 uint32_t count, ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    ferrum_tensor_name_t name;
    return ferrum_weights_vector(&model->weights, &model->ops, model->ctx,
                                 layer_name(layer, part, name), count, out_buffer, err);
}

static ferrum_status_t load_qkv(ferrum_model_t *model, uint32_t index, ferrum_error_t *err)
{
    static const char *const parts[3] = {"self_attn.q_proj", "self_attn.k_proj",
                                         "self_attn.v_proj"};
    ferrum_model_layer_t *layer = &model->layers[index];
    uint32_t outputs[3] = {ferrum_model_q_dim(model), ferrum_model_kv_dim(model),
                           ferrum_model_kv_dim(model)};
    ferrum_matrix_t matrices[3];
    ferrum_tensor_name_t name;
    for (int i = 0; i < 3; i++)
        FERRUM_TRY(ferrum_weights_matrix(&model->weights, layer_name(index, parts[i], name),
                                         outputs[i], model->config->hidden, &matrices[i], err));
    FERRUM_TRY(ferrum_weights_fuse(&model->weights, &model->ops,
                                   layer_name(index, "self_attn.qkv_proj", name), matrices, 3,
                                   &layer->qkv, err));
    if (layer->qkv)
        return FERRUM_OK;
    for (int i = 0; i < 3; i++)
        FERRUM_TRY(ferrum_weights_load(&model->weights, &model->ops,
                                       layer_name(index, parts[i], name), &matrices[i],
                                       &layer->parts[i], err));
    return FERRUM_OK;
}

static uint64_t gguf_expert_bytes(const ferrum_model_t *model, uint32_t layer)
{
    static const char *const roles[] = {"gate", "up", "down"};
    uint64_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        ferrum_tensor_name_t name;
        (void)snprintf(name, sizeof name, "blk.%u.ffn_%s_exps.weight", layer, roles[i]);
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(model->weights.gguf, name);
        bytes += tensor ? tensor->bytes : 0;
    }
    return bytes;
}

static uint64_t gptq_expert_bytes(const ferrum_model_t *model, uint32_t layer)
{
    static const char *const roles[] = {"gate", "up", "down"};
    static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx"};
    uint64_t bytes = 0;
    for (uint32_t expert = 0; expert < model->config->experts; expert++) {
        for (int i = 0; i < 12; i++) {
            ferrum_tensor_name_t name;
            (void)snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.%s_proj.%s", layer,
                           expert, roles[i / 4], parts[i % 4]);
            const ferrum_safetensors_tensor_t *tensor =
                ferrum_safetensors_find(model->weights.checkpoint, name);
            bytes += tensor ? tensor->bytes : 0;
        }
    }
    return bytes;
}

static ferrum_status_t load_experts(ferrum_model_t *model, uint32_t index, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = model->config;
    const ferrum_weights_t *w = &model->weights;
    ferrum_expert_stack_t *stack = &model->layers[index].experts;
    ferrum_moe_path_t path = ferrum_moe_scratch_plan(model->moe)->path;
    uint64_t file_bytes;
    if (w->gguf) {
        FERRUM_TRY(ferrum_expert_stack_load_from_gguf(&model->ops, w->gguf, index, c->experts,
                                                      c->hidden, c->expert_intermediate, path,
                                                      stack, err));
        file_bytes = gguf_expert_bytes(model, index);
    } else {
        FERRUM_TRY(ferrum_expert_stack_load_from_gptq(&model->ops, w->checkpoint, &c->gptq, index,
                                                      c->experts, c->hidden, c->expert_intermediate,
                                                      path, stack, err));
        file_bytes = gptq_expert_bytes(model, index);
    }
    model->weights.held_bytes += stack->bytes != 0 ? stack->bytes : file_bytes;
    return ferrum_weights_advance(&model->weights, file_bytes, err);
}

static ferrum_status_t load_layer(ferrum_model_t *model, uint32_t index, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = model->config;
    ferrum_model_layer_t *layer = &model->layers[index];
    ferrum_tensor_name_t name;
    FERRUM_TRY(
        load_norm(model, index, "input_layernorm.weight", c->hidden, &layer->input_norm, err));
    FERRUM_TRY(load_norm(model, index, "post_attention_layernorm.weight", c->hidden,
                         &layer->post_norm, err));
    if (c->qk_norm) {
        FERRUM_TRY(
            load_norm(model, index, "self_attn.q_norm.weight", c->head_dim, &layer->q_norm, err));
        FERRUM_TRY(
            load_norm(model, index, "self_attn.k_norm.weight", c->head_dim, &layer->k_norm, err));
    }
    FERRUM_TRY(load_qkv(model, index, err));
    FERRUM_TRY(ferrum_weights_linear(&model->weights, &model->ops,
                                     layer_name(index, "self_attn.o_proj", name), c->hidden,
                                     ferrum_model_q_dim(model), &layer->output, err));
    FERRUM_TRY(ferrum_weights_linear(&model->weights, &model->ops,
                                     layer_name(index, "mlp.gate", name), c->experts, c->hidden,
                                     &layer->router, err));
    return load_experts(model, index, err);
}

static ferrum_status_t load_ends(ferrum_model_t *model, ferrum_error_t *err)
{
    static const char embedding_name[] = "model.embed_tokens";
    const ferrum_model_config_t *c = model->config;
    ferrum_matrix_t *embedding = &model->embedding;
    FERRUM_TRY(ferrum_weights_matrix(&model->weights, embedding_name, c->vocab, c->hidden,
                                     embedding, err));
    if (embedding->is_gptq || !ferrum_row_decodable(embedding->blocks.format)) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(embedding->blocks.format);
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%s: format %s is not supported for an embedding", embedding_name,
                           embedding->is_gptq ? "gptq" : traits->name);
    }
    FERRUM_TRY(ferrum_weights_vector(&model->weights, &model->ops, model->ctx, "model.norm.weight",
                                     c->hidden, &model->final_norm, err));
    bool separate = ferrum_weights_has(&model->weights, "lm_head") &&
                    (model->weights.gguf || !c->tie_word_embeddings);
    if (separate) {
        model->weights.held_bytes += embedding->bytes;
        return ferrum_weights_linear(&model->weights, &model->ops, "lm_head", c->vocab, c->hidden,
                                     &model->lm_head, err);
    }
    if (model->weights.checkpoint && !c->tie_word_embeddings)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.120s: tensor lm_head.weight is missing and config.json does not tie "
                           "it to the embedding",
                           ferrum_safetensors_path(model->weights.checkpoint));
    return ferrum_weights_load(&model->weights, &model->ops, embedding_name, embedding,
                               &model->lm_head, err);
}

ferrum_status_t ferrum_model_load_weights(ferrum_model_t *model, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = model->config;
    FERRUM_TRY(ferrum_weights_advance(&model->weights, 0, err));
    model->layers = calloc(c->layers, sizeof *model->layers);
    if (!model->layers)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for %u layers", c->layers);
    FERRUM_TRY(load_ends(model, err));
    FERRUM_TRY(ferrum_rope_upload(&model->ops, model->ctx,
                                  ferrum_kv_cache_shape(model->kv)->capacity, c->head_dim,
                                  c->rope_theta, &model->cos, &model->sin, err));
    for (uint32_t i = 0; i < c->layers; i++)
        FERRUM_TRY(load_layer(model, i, err));
    return ferrum_weights_advance(&model->weights, model->weights.total_bytes, err);
}

void ferrum_model_free_weights(ferrum_model_t *model)
{
    const ferrum_backend_ops_t *b = model->ops.backend;
    const ferrum_linear_ops_t *linear = model->ops.linear;
    for (uint32_t i = 0; model->layers && i < model->config->layers; i++) {
        ferrum_model_layer_t *layer = &model->layers[i];
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
    free(model->layers);
    if (model->ctx) {
        linear->release(model->lm_head);
        b->buffer_release(model->final_norm);
        b->buffer_release(model->cos);
        b->buffer_release(model->sin);
    }
}
