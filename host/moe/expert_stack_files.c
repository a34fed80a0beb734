/* SPDX-License-Identifier: MIT */
/* ExpertStacks and problems out of model files. */
#include "host/formats/gptq_checkpoint.h"
#include "host/moe/expert_stack.h"
#include "host/moe/moe_plan.h"

#include <ferrum/util.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* End of loading a layer: name it in an error, or trace what was made. */
static ferrum_status_t loaded(const ferrum_ops_t *ops, uint32_t layer, ferrum_moe_path_t path,
                              const ferrum_expert_stack_t *stack, ferrum_status_t status,
                              const ferrum_error_t *why, ferrum_error_t *err)
{
    if (status != FERRUM_OK)
        return ferrum_fail(err, status, why->reason, "experts of layer %u: %.200s", layer,
                           why->message);
    if (ops->load_trace)
        ferrum_ops_log(ops, FERRUM_LOG_INFO, "layer %u: %u experts for %s, %" PRIu64 " bytes",
                       layer, ferrum_expert_stack_num_experts(stack), ferrum_moe_path_name(path),
                       stack->bytes);
    return FERRUM_OK;
}

/* ---- GGUF ---- */

/* The tensor of a role ("gate", "up", "down"), its shape checked, as a descriptor. */
static ferrum_status_t gguf_role(const ferrum_gguf_t *gguf, uint32_t layer, const char *role,
                                 uint32_t experts, uint32_t rows, uint32_t cols,
                                 ferrum_gguf_weights_t *out_weights, ferrum_error_t *err)
{
    char name[64];
    const ferrum_gguf_tensor_t *tensor;
    (void)snprintf(name, sizeof name, "blk.%" PRIu32 ".ffn_%s_exps.weight", layer, role);
    FERRUM_TRY(ferrum_gguf_require_tensor(gguf, name, &tensor, err));
    if (tensor->dims_count != 3 || tensor->dims[0] != cols || tensor->dims[1] != rows ||
        tensor->dims[2] != experts)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_LENGTH,
                           "%s is [%" PRIu64 ", %" PRIu64 ", %" PRIu64 "], the model's config says "
                           "[%u, %u, %u]",
                           name, tensor->dims[2], tensor->dims[1], tensor->dims[0], experts, rows,
                           cols);
    *out_weights = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                           .format = tensor->format,
                                           .flags = FERRUM_WEIGHTS_MAPPED,
                                           .experts = experts,
                                           .rows = rows,
                                           .cols = cols,
                                           .data = tensor->data,
                                           .bytes = tensor->bytes};
    return FERRUM_OK;
}

static ferrum_status_t gguf_roles(const ferrum_gguf_t *gguf, uint32_t layer, uint32_t experts,
                                  uint32_t hidden, uint32_t intermediate,
                                  ferrum_gguf_weights_t out_weights[3], ferrum_error_t *err)
{
    FERRUM_TRY(gguf_role(gguf, layer, "gate", experts, intermediate, hidden, &out_weights[0], err));
    FERRUM_TRY(gguf_role(gguf, layer, "up", experts, intermediate, hidden, &out_weights[1], err));
    return gguf_role(gguf, layer, "down", experts, hidden, intermediate, &out_weights[2], err);
}

ferrum_status_t ferrum_expert_stack_load_from_gguf(const ferrum_ops_t *ops,
                                                   const ferrum_gguf_t *gguf, uint32_t layer,
                                                   uint32_t num_experts, uint32_t hidden,
                                                   uint32_t intermediate, ferrum_moe_path_t path,
                                                   ferrum_expert_stack_t *out_stack,
                                                   ferrum_error_t *err)
{
    ferrum_gguf_weights_t roles[3];
    FERRUM_TRY(gguf_roles(gguf, layer, num_experts, hidden, intermediate, roles, err));
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_expert_stack_from_blocks(ops, path, &roles[0], &roles[1],
                                                             &roles[2], out_stack, &why);
    return loaded(ops, layer, path, out_stack, status, &why, err);
}

ferrum_status_t ferrum_expert_stack_open_and_load(const ferrum_ops_t *ops, const char *file,
                                                  uint32_t layer, uint32_t num_experts,
                                                  uint32_t hidden, uint32_t intermediate,
                                                  ferrum_moe_path_t path,
                                                  ferrum_expert_stack_t *out_stack,
                                                  ferrum_gguf_t **out_gguf, ferrum_error_t *err)
{
    ferrum_gguf_t *gguf;
    FERRUM_TRY(ferrum_gguf_open(file, &gguf, err));
    ferrum_status_t status = ferrum_expert_stack_load_from_gguf(
        ops, gguf, layer, num_experts, hidden, intermediate, path, out_stack, err);
    if (status == FERRUM_OK)
        *out_gguf = gguf;
    else
        ferrum_gguf_close(gguf);
    return status;
}

ferrum_status_t ferrum_moe_problem_from_gguf(const ferrum_gguf_t *gguf, uint32_t layer,
                                             const ferrum_model_config_t *config,
                                             ferrum_moe_problem_t *out_problem, ferrum_error_t *err)
{
    ferrum_gguf_weights_t roles[3];
    FERRUM_TRY(gguf_roles(gguf, layer, config->experts, config->hidden, config->expert_intermediate,
                          roles, err));
    *out_problem = (ferrum_moe_problem_t){.hidden = config->hidden,
                                          .intermediate = config->expert_intermediate,
                                          .num_experts = config->experts,
                                          .top_k = config->experts_used,
                                          .norm_topk = config->norm_topk_prob,
                                          .gate = roles[0].format,
                                          .up = roles[1].format,
                                          .down = roles[2].format};
    return FERRUM_OK;
}

/* ---- GPTQ ---- */

static ferrum_status_t gptq_role(const ferrum_safetensors_t *checkpoint,
                                 const ferrum_gptq_config_t *config, uint32_t layer,
                                 uint32_t expert, const char *role, uint32_t k, uint32_t n,
                                 ferrum_gptq_tensors_t *out_tensors, ferrum_error_t *err)
{
    char prefix[96];
    (void)snprintf(prefix, sizeof prefix,
                   "model.layers.%" PRIu32 ".mlp.experts.%" PRIu32 ".%s_proj", layer, expert, role);
    FERRUM_TRY(ferrum_gptq_checkpoint_load(checkpoint, config, prefix, k, n, out_tensors, err));
    if (out_tensors->bias)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BIAS,
                           "%s has a bias; experts with biases are not supported", prefix);
    return FERRUM_OK;
}

static ferrum_gptq_t gptq_matrix(const ferrum_gptq_tensors_t *t)
{
    uint32_t per_word = 32 / t->bits;
    const int32_t *g_idx = t->g_idx_trivial ? NULL : t->g_idx;
    return (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                           .flags = FERRUM_WEIGHTS_MAPPED,
                           .bits = t->bits,
                           .group_size = t->group_size == t->k ? 0 : t->group_size,
                           .zero_convention = t->zero_convention,
                           .k = t->k,
                           .n = t->n,
                           .qweight = t->qweight,
                           .qweight_count = (uint64_t)(t->k / per_word) * t->n,
                           .qzeros = t->qzeros,
                           .qzeros_count = (uint64_t)t->groups * (t->n / per_word),
                           .scales = t->scales,
                           .scales_count = (uint64_t)t->groups * t->n,
                           .scales_dtype = t->scales_dtype,
                           .g_idx = g_idx,
                           .g_idx_count = g_idx ? t->k : 0};
}

/* Fill matrices [3][experts] and pointers to them. */
static ferrum_status_t gptq_layer(const ferrum_safetensors_t *checkpoint,
                                  const ferrum_gptq_config_t *config, uint32_t layer,
                                  uint32_t num_experts, uint32_t hidden, uint32_t intermediate,
                                  ferrum_gptq_t *matrices, const ferrum_gptq_t **pointers,
                                  ferrum_error_t *err)
{
    static const char *const roles[3] = {"gate", "up", "down"};
    for (uint32_t i = 0; i < 3 * num_experts; i++) {
        uint32_t role = i / num_experts;
        ferrum_gptq_tensors_t tensors;
        FERRUM_TRY(gptq_role(checkpoint, config, layer, i % num_experts, roles[role],
                             role == 2 ? intermediate : hidden, role == 2 ? hidden : intermediate,
                             &tensors, err));
        matrices[i] = gptq_matrix(&tensors);
        pointers[i] = &matrices[i];
    }
    return FERRUM_OK;
}

ferrum_status_t
ferrum_expert_stack_load_from_gptq(const ferrum_ops_t *ops, const ferrum_safetensors_t *checkpoint,
                                   const ferrum_gptq_config_t *config, uint32_t layer,
                                   uint32_t num_experts, uint32_t hidden, uint32_t intermediate,
                                   ferrum_moe_path_t path, ferrum_expert_stack_t *out_stack,
                                   ferrum_error_t *err)
{
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_gptq_t *matrices = calloc(num_experts, 3 * sizeof *matrices);
    const ferrum_gptq_t **pointers = calloc(num_experts, 3 * sizeof *pointers);
    ferrum_status_t status = FERRUM_OUT_OF_MEMORY;
    if (matrices && pointers)
        status = gptq_layer(checkpoint, config, layer, num_experts, hidden, intermediate, matrices,
                            pointers, &why);
    else
        ferrum_fail(&why, status, FERRUM_REASON_NONE, "no memory for %u descriptors", num_experts);
    if (status == FERRUM_OK)
        status = ferrum_expert_stack_from_gptq(ops, path, pointers, pointers + num_experts,
                                               pointers + 2 * (size_t)num_experts, num_experts,
                                               out_stack, &why);
    free(pointers);
    free(matrices);
    return loaded(ops, layer, path, out_stack, status, &why, err);
}

ferrum_status_t ferrum_moe_problem_from_gptq(const ferrum_safetensors_t *checkpoint, uint32_t layer,
                                             const ferrum_model_config_t *config,
                                             ferrum_moe_problem_t *out_problem, ferrum_error_t *err)
{
    ferrum_gptq_tensors_t gate, down;
    FERRUM_TRY(gptq_role(checkpoint, &config->gptq, layer, 0, "gate", config->hidden,
                         config->expert_intermediate, &gate, err));
    FERRUM_TRY(gptq_role(checkpoint, &config->gptq, layer, 0, "down", config->expert_intermediate,
                         config->hidden, &down, err));
    *out_problem =
        (ferrum_moe_problem_t){.hidden = config->hidden,
                               .intermediate = config->expert_intermediate,
                               .num_experts = config->experts,
                               .top_k = config->experts_used,
                               .norm_topk = config->norm_topk_prob,
                               .gate = FERRUM_FORMAT_GPTQ,
                               .up = FERRUM_FORMAT_GPTQ,
                               .down = FERRUM_FORMAT_GPTQ,
                               .bits = gate.bits,
                               .group_size = config->gptq.group_size,
                               .act_order = !gate.g_idx_trivial || !down.g_idx_trivial,
                               .asymmetric = !gate.zeros_symmetric || !down.zeros_symmetric};
    return FERRUM_OK;
}
