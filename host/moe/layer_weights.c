/* SPDX-License-Identifier: MIT */
#include "host/moe/layer_weights.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

enum {
    ROLES = 3
};

/* A struct of the caller, of whatever minor, as one of ours. */
#define COPY_STRUCT(to, from)                                                                      \
    do {                                                                                           \
        size_t size_ = (from)->head.size < sizeof *(to) ? (from)->head.size : sizeof *(to);        \
        memcpy((to), (from), size_);                                                               \
        (to)->head.size = (uint32_t)size_;                                                         \
    } while (0)

/* Everything that a description points to, but not the weights themselves. */
typedef struct kept {
    ferrum_expert_ffn_desc_t desc;
    ferrum_activation_t activation;
    ferrum_expert_weights_t roles[ROLES];
    ferrum_gguf_weights_t slabs[ROLES];
    ferrum_gptq_t *matrices; /* [ROLES, experts] or NULL */
    const ferrum_gptq_t **lists;
    float *biases; /* of slabs and matrices, one after another */
} kept_t;

static uint32_t experts_of(const ferrum_expert_ffn_desc_t *desc)
{
    return desc->local_experts ? desc->local_experts : desc->num_experts;
}

static uint32_t rows_of(const ferrum_expert_ffn_desc_t *desc, int role)
{
    return role == 2 ? desc->hidden : desc->intermediate;
}

static const ferrum_expert_weights_t *role_of(const ferrum_expert_ffn_desc_t *desc, int role)
{
    const ferrum_expert_weights_t *const roles[ROLES] = {desc->gate, desc->up, desc->down};
    return roles[role];
}

static void note_formats(const ferrum_expert_ffn_desc_t *desc, ferrum_formats_used_t *formats,
                         bool *out_mapped)
{
    *out_mapped = true;
    for (int r = 0; r < ROLES; r++) {
        const ferrum_expert_weights_t *role = role_of(desc, r);
        if (role->gguf) {
            if (role->gguf->format < 64)
                formats->blocks |= (uint64_t)1 << role->gguf->format;
            *out_mapped = *out_mapped && (role->gguf->flags & FERRUM_WEIGHTS_MAPPED);
            continue;
        }
        for (uint32_t e = 0; e < experts_of(desc); e++) {
            formats->gptq_bits |= 1u << (role->gptq[e]->bits & 31);
            *out_mapped = *out_mapped && (role->gptq[e]->flags & FERRUM_WEIGHTS_MAPPED);
        }
    }
}

/* Floats of all biases: they are small and not covered by the flag, so they are copied. */
static uint64_t bias_count(const ferrum_expert_ffn_desc_t *desc)
{
    uint64_t count = 0;
    for (int r = 0; r < ROLES; r++) {
        const ferrum_expert_weights_t *role = role_of(desc, r);
        if (role->bias)
            count += (uint64_t)experts_of(desc) * rows_of(desc, r);
        for (uint32_t e = 0; role->gptq && e < experts_of(desc); e++)
            count += role->gptq[e]->bias ? rows_of(desc, r) : 0;
    }
    return count;
}

static const float *keep_bias(float **next, const float *from, uint64_t count)
{
    if (!from)
        return NULL;
    float *to = *next;
    memcpy(to, from, (size_t)count * sizeof *to);
    *next += count;
    return to;
}

static void keep_role(kept_t *kept, const ferrum_expert_ffn_desc_t *desc, int r, float **bias)
{
    const ferrum_expert_weights_t *from = role_of(desc, r);
    ferrum_expert_weights_t *to = &kept->roles[r];
    uint32_t experts = experts_of(desc), rows = rows_of(desc, r);
    COPY_STRUCT(to, from);
    to->bias = keep_bias(bias, from->bias, (uint64_t)experts * rows);
    if (from->gguf) {
        COPY_STRUCT(&kept->slabs[r], from->gguf);
        to->gguf = &kept->slabs[r];
        return;
    }
    to->gptq = kept->lists + (size_t)r * experts;
    for (uint32_t e = 0; e < experts; e++) {
        ferrum_gptq_t *matrix = &kept->matrices[(size_t)r * experts + e];
        COPY_STRUCT(matrix, from->gptq[e]);
        matrix->bias = keep_bias(bias, from->gptq[e]->bias, rows);
        kept->lists[(size_t)r * experts + e] = matrix;
    }
}

static void free_kept(kept_t *kept)
{
    if (!kept)
        return;
    free(kept->matrices);
    free(kept->lists);
    free(kept->biases);
    free(kept);
}

static kept_t *keep_all(const ferrum_expert_ffn_desc_t *desc)
{
    size_t matrices = (size_t)experts_of(desc) * ROLES;
    bool gptq = desc->gate->gptq || desc->up->gptq || desc->down->gptq;
    kept_t *kept = calloc(1, sizeof *kept);
    if (!kept)
        return NULL;
    kept->biases = calloc((size_t)bias_count(desc) + 1, sizeof *kept->biases);
    if (gptq) {
        kept->matrices = calloc(matrices, sizeof *kept->matrices);
        kept->lists = calloc(matrices, sizeof *kept->lists);
    }
    if (!kept->biases || (gptq && (!kept->matrices || !kept->lists))) {
        free_kept(kept);
        return NULL;
    }
    float *bias = kept->biases;
    COPY_STRUCT(&kept->desc, desc);
    for (int r = 0; r < ROLES; r++)
        keep_role(kept, desc, r, &bias);
    kept->desc.gate = &kept->roles[0];
    kept->desc.up = &kept->roles[1];
    kept->desc.down = &kept->roles[2];
    if (desc->activation) {
        COPY_STRUCT(&kept->activation, desc->activation);
        kept->desc.activation = &kept->activation;
    }
    return kept;
}

ferrum_status_t ferrum_layer_weights_keep(const ferrum_expert_ffn_desc_t *desc,
                                          ferrum_layer_weights_t *out_weights, ferrum_error_t *err)
{
    ferrum_layer_weights_t weights = {.desc = NULL};
    bool mapped;
    note_formats(desc, &weights.formats, &mapped);
    COPY_STRUCT(&weights.shape, desc);
    weights.shape.gate = weights.shape.up = weights.shape.down = NULL;
    weights.shape.activation = NULL;
    if (mapped) {
        kept_t *kept = keep_all(desc);
        if (!kept)
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                               "no memory for the description of a layer");
        weights.desc = &kept->desc;
    }
    *out_weights = weights;
    return FERRUM_OK;
}

ferrum_status_t ferrum_layer_weights_same(const ferrum_layer_weights_t *weights,
                                          const ferrum_expert_ffn_desc_t *desc, ferrum_error_t *err)
{
    const ferrum_expert_ffn_desc_t *shape = &weights->shape;
    if (desc->head.size >= FERRUM_EXPERT_FFN_DESC_MIN_SIZE && desc->hidden == shape->hidden &&
        desc->intermediate == shape->intermediate && desc->num_experts == shape->num_experts &&
        desc->first_expert == shape->first_expert && experts_of(desc) == experts_of(shape))
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "the supplied weights are those of another shape: hidden %u, intermediate "
                       "%u, %u experts; the layer has %u, %u, %u",
                       desc->hidden, desc->intermediate, desc->num_experts, shape->hidden,
                       shape->intermediate, shape->num_experts);
}

void ferrum_layer_weights_free(ferrum_layer_weights_t *weights)
{
    free_kept((kept_t *)(void *)weights->desc); /* its first member */
    weights->desc = NULL;
}
