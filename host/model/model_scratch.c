/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <stdlib.h>

#include "host/model/model_internal.h"

/* One buffer of the scratch: where it is, what it holds, and its size per row or per request. */
typedef struct need {
    ferrum_device_array_t *array;
    bool integers;
    uint64_t count;
} need_t;

#define MAX_NEEDS 20

static uint32_t list_needs(ferrum_model_t *model, uint32_t rows, uint32_t requests,
                           need_t out_needs[MAX_NEEDS])
{
    ferrum_model_scratch_t *s = &model->scratch;
    const ferrum_model_config_t *c = model->config;
    uint64_t t = rows, q = ferrum_model_q_dim(model), qkv = ferrum_model_qkv_dim(model);
    bool paged = model->attention_path <= FERRUM_ATTENTION_PAGED;
    uint64_t table = paged ? ferrum_kv_cache_table_length(model->kv) : 0;
    uint64_t indices = paged ? requests : 0;
    /* k, v and heads also hold parts of qkv on their way (attention.c), hence the widest size. */
    const need_t needs[] = {
        {&s->residual, false, t * c->hidden},
        {&s->norm, false, t * c->hidden},
        {&s->qkv, false, t * qkv},
        {&s->q, false, t * q},
        {&s->k, false, t * q},
        {&s->v, false, paged ? 0 : t * ferrum_model_kv_dim(model)},
        {&s->heads, false, t * qkv},
        {&s->row, false, paged ? 0 : qkv},
        {&s->attention, false, t * q},
        {&s->projected, false, t * c->hidden},
        {&s->router, false, t * c->experts},
        {&s->moe, false, t * c->hidden},
        {&s->logits, false, (uint64_t)requests * c->vocab},
        {&s->cu_seqlens, true, indices ? indices + 1 : 0},
        {&s->positions, true, indices},
        {&s->lengths, true, indices},
        {&s->tables, true, indices * table},
    };
    uint32_t count = sizeof needs / sizeof needs[0];
    for (uint32_t i = 0; i < count; i++)
        out_needs[i] = needs[i];
    return count;
}

static ferrum_status_t reserve_one(ferrum_model_t *model, ferrum_device_array_t *array,
                                   bool integers, uint64_t count, bool *grew, ferrum_error_t *err)
{
    if (count <= array->count)
        return FERRUM_OK;
    *grew = true;
    return ferrum_device_array_reserve(
        model->ops, integers ? FERRUM_DTYPE_I32 : model->ops->info.activation_dtype, count, array,
        err);
}

static ferrum_status_t reserve_tables(ferrum_model_t *model, uint32_t requests, bool *grew,
                                      ferrum_error_t *err)
{
    ferrum_model_scratch_t *s = &model->scratch;
    if (model->attention_path != FERRUM_ATTENTION_PAGED)
        return FERRUM_OK;
    if (!s->tables_of) {
        uint32_t all = ferrum_kv_cache_shape(model->kv)->max_sequences;
        s->tables_of = calloc(all, sizeof *s->tables_of);
        if (!s->tables_of)
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                               "out of memory for %u block tables", all);
    }
    for (uint32_t i = 0; i < requests; i++)
        FERRUM_TRY(reserve_one(model, &s->tables_of[i], true,
                               ferrum_kv_cache_table_length(model->kv), grew, err));
    return FERRUM_OK;
}

/* Growing in powers of two keeps a prompt's last, shorter pass and slowly rising batch sizes from
 * replacing everything again and again. */
static uint32_t round_rows(const ferrum_model_t *model, uint32_t rows)
{
    uint32_t rounded = 1;
    while (rounded < rows)
        rounded *= 2;
    return rows <= model->max_rows && rounded > model->max_rows ? model->max_rows : rounded;
}

ferrum_status_t ferrum_model_reserve_scratch(ferrum_model_t *model, uint32_t rows,
                                             uint32_t requests, ferrum_error_t *err)
{
    ferrum_model_scratch_t *s = &model->scratch;
    need_t needs[MAX_NEEDS];
    bool grew = false, experts_grew = false;
    if (rows > s->rows)
        rows = round_rows(model, rows);
    else
        rows = s->rows;
    uint32_t count = list_needs(model, rows, requests, needs);
    ferrum_status_t status = FERRUM_OK;
    for (uint32_t i = 0; status == FERRUM_OK && i < count; i++)
        status = reserve_one(model, needs[i].array, needs[i].integers, needs[i].count, &grew, err);
    if (status == FERRUM_OK)
        status = reserve_tables(model, requests, &grew, err);
    if (status == FERRUM_OK)
        status = ferrum_moe_scratch_reserve(model->moe, rows, &experts_grew, err);
    if (status == FERRUM_OK)
        status = ferrum_host_array_reserve(&s->embedded, (uint64_t)rows * model->config->hidden,
                                           sizeof(float), err);
    if (status == FERRUM_OK) {
        uint64_t each = 3 + (uint64_t)ferrum_kv_cache_table_length(model->kv);
        status = ferrum_host_array_reserve(&s->indices, requests * each + 1, sizeof(int32_t), err);
    }
    if (grew || experts_grew)
        ferrum_model_reset_graphs(model);
    if (status == FERRUM_OK)
        s->rows = rows;
    return status;
}

void ferrum_model_free_scratch(ferrum_model_t *model)
{
    ferrum_model_scratch_t *s = &model->scratch;
    need_t needs[MAX_NEEDS];
    if (!model->kv)
        return;
    uint32_t count = list_needs(model, 1, 1, needs);
    for (uint32_t i = 0; i < count; i++)
        ferrum_device_array_free(model->ops, needs[i].array);
    uint32_t requests = ferrum_kv_cache_shape(model->kv)->max_sequences;
    for (uint32_t i = 0; s->tables_of && i < requests; i++)
        ferrum_device_array_free(model->ops, &s->tables_of[i]);
    free(s->tables_of);
    ferrum_host_array_free(&s->embedded);
    ferrum_host_array_free(&s->indices);
}

uint64_t ferrum_model_scratch_bytes(const ferrum_model_t *model)
{
    const ferrum_model_scratch_t *s = &model->scratch;
    const ferrum_device_array_t *activations[] = {
        &s->residual, &s->norm,      &s->qkv,    &s->q,   &s->k,      &s->v,        &s->heads,
        &s->row,      &s->attention, &s->router, &s->moe, &s->logits, &s->projected};
    uint64_t elements = 0;
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++)
        elements += activations[i]->count;
    uint64_t integers =
        s->cu_seqlens.count + s->positions.count + s->lengths.count + s->tables.count;
    return elements * ferrum_dtype_bytes(model->ops->info.activation_dtype) + integers * 4 +
           ferrum_moe_scratch_bytes(model->moe);
}
