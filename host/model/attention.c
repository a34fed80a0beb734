/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <string.h>

#include "host/model/model_internal.h"

static const char *const path_names[] = {
    [FERRUM_ATTENTION_VARLEN] = "paged, one launch for all requests",
    [FERRUM_ATTENTION_PAGED] = "paged, one write per request",
    [FERRUM_ATTENTION_INTO_CACHE] = "contiguous, split_qkv_norm_rope_into_cache",
    [FERRUM_ATTENTION_SPLIT] = "contiguous, split_qkv_norm_rope",
    [FERRUM_ATTENTION_CHAIN] = "contiguous, split_qkv and qk_norm_rope",
};

static bool has_all(const ferrum_ops_t *ops, const char *table, const char *const *names)
{
    for (; *names; names++)
        if (!ferrum_ops_has(ops, table, *names))
            return false;
    return true;
}

static ferrum_status_t layout_supported(const ferrum_model_t *model, ferrum_kv_layout_t layout,
                                        ferrum_error_t *err)
{
    const ferrum_ops_t *ops = model->ops;
    uint64_t needed = layout == FERRUM_KV_LAYOUT_VLLM
                          ? FERRUM_CAP_PAGED_KV | FERRUM_CAP_PAGED_KV_VLLM
                          : FERRUM_CAP_PAGED_KV;
    if ((ops->info.caps & needed) != needed)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LAYOUT,
                           "backend %s has no such cache", ferrum_module_name(ops->module));
    ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                .kind = FERRUM_PROBLEM_PAGED_ATTENTION,
                                .head_dim = model->config->head_dim,
                                .block_size = FERRUM_KV_BLOCK_TOKENS,
                                .kv_layout = layout,
                                .activation_dtype = ops->info.activation_dtype};
    return ops->quant->supports(ops->device, &problem, err);
}

/* Whether the cache is paged; its layout is then model->kv_layout. */
static ferrum_status_t choose_layout(ferrum_model_t *model, bool *out_paged, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = model->ops;
    const ferrum_options_t *options = ferrum_runtime_get_options(model->runtime);
    int asked = ferrum_options_switch(options, "FERRUM_USE_VLLM_PAGED_ATTN");
    ferrum_error_t why = FERRUM_ERROR_INIT;
    bool vllm = asked == 1 || (asked < 0 && !(ops->info.caps & FERRUM_CAP_HOST_WRAP));
    *out_paged = true;
    model->kv_layout = FERRUM_KV_LAYOUT_VLLM;
    if (vllm && layout_supported(model, FERRUM_KV_LAYOUT_VLLM, &why) == FERRUM_OK)
        return FERRUM_OK;
    if (asked == 1)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, why.reason,
                           "FERRUM_USE_VLLM_PAGED_ATTN=1 does not work here: %s", why.message);
    model->kv_layout = FERRUM_KV_LAYOUT_FA;
    *out_paged = layout_supported(model, FERRUM_KV_LAYOUT_FA, &why) == FERRUM_OK;
    if (!*out_paged)
        ferrum_ops_log(ops, FERRUM_LOG_INFO, "paged KV is not used: %s", why.message);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_choose_attention(ferrum_model_t *model, ferrum_error_t *err)
{
    static const char *const varlen[] = {"paged_kv_write_varlen", "paged_varlen_attention",
                                         "paged_batched_decode_attention", NULL};
    static const char *const paged[] = {"paged_kv_write", "paged_decode_attention", NULL};
    static const char *const contiguous[] = {"flash_attention", "transpose_head_to_token", NULL};
    static const char *const split[] = {"split_qkv_norm_rope", "kv_cache_append_head_major", NULL};
    static const char *const chain[] = {"split_qkv", "qk_norm_rope", "kv_cache_append_head_major",
                                        NULL};
    const ferrum_ops_t *ops = model->ops;
    bool pages;
    FERRUM_TRY(choose_layout(model, &pages, err));
    bool plain = has_all(ops, "backend", contiguous);
    if (pages && (ops->info.caps & FERRUM_CAP_VARLEN_QKV) && has_all(ops, "quant_llm", varlen))
        model->attention_path = FERRUM_ATTENTION_VARLEN;
    else if (pages && has_all(ops, "quant_llm", paged) && plain)
        model->attention_path = FERRUM_ATTENTION_PAGED;
    else if (plain && ferrum_ops_has(ops, "backend", "split_qkv_norm_rope_into_cache"))
        model->attention_path = FERRUM_ATTENTION_INTO_CACHE;
    else if (plain && has_all(ops, "backend", split))
        model->attention_path = FERRUM_ATTENTION_SPLIT;
    else if (plain && has_all(ops, "backend", chain))
        model->attention_path = FERRUM_ATTENTION_CHAIN;
    else
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                           "backend %s has neither paged nor contiguous attention",
                           ferrum_module_name(ops->module));
    ferrum_ops_log(ops, FERRUM_LOG_INFO, "attention: %s%s", path_names[model->attention_path],
                   model->attention_path > FERRUM_ATTENTION_PAGED ? ""
                   : model->kv_layout == FERRUM_KV_LAYOUT_VLLM    ? ", vLLM layout"
                                                                  : ", FlashAttention layout");
    return FERRUM_OK;
}

static ferrum_status_t write_i32(ferrum_model_t *model, const ferrum_device_array_t *array,
                                 const int32_t *values, uint64_t count, ferrum_error_t *err)
{
    return model->ops->backend->buffer_write(model->ctx, array->buffer, 0, FERRUM_DTYPE_I32, values,
                                             count, err);
}

ferrum_status_t ferrum_model_upload_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                         ferrum_error_t *err)
{
    if (model->attention_path > FERRUM_ATTENTION_PAGED)
        return FERRUM_OK;
    ferrum_model_scratch_t *s = &model->scratch;
    uint32_t n = pass->num_sequences;
    uint32_t width = ferrum_kv_cache_table_length(model->kv);
    int32_t *cu = s->indices.data, *positions = cu + n + 1, *lengths = positions + n;
    int32_t *tables = lengths + n;
    uint32_t rows_each = pass->decode ? 1 : pass->used;
    uint32_t used = pass->decode ? pass->used : 1;
    for (uint32_t i = 0; i < used; i++) {
        uint32_t position = ferrum_pass_position(pass, i);
        cu[i] = (int32_t)(i * rows_each);
        positions[i] = (int32_t)position;
        lengths[i] = (int32_t)(position + rows_each);
        memcpy(tables + (size_t)i * width, ferrum_kv_cache_table(model->kv, pass->sequences[i]),
               (size_t)width * sizeof *tables);
    }
    for (uint32_t i = used; i < n; i++) { /* requests of padding have no rows and no keys */
        cu[i] = (int32_t)pass->used;
        positions[i] = lengths[i] = 0;
        memset(tables + (size_t)i * width, 0, (size_t)width * sizeof *tables);
    }
    cu[n] = (int32_t)pass->used;
    FERRUM_TRY(write_i32(model, &s->cu_seqlens, cu, (uint64_t)n + 1, err));
    FERRUM_TRY(write_i32(model, &s->positions, positions, n, err));
    FERRUM_TRY(write_i32(model, &s->lengths, lengths, n, err));
    FERRUM_TRY(write_i32(model, &s->tables, tables, (uint64_t)n * width, err));
    if (model->attention_path == FERRUM_ATTENTION_PAGED)
        for (uint32_t i = 0; i < n; i++)
            FERRUM_TRY(write_i32(model, &s->tables_of[i], tables + (size_t)i * width, width, err));
    return FERRUM_OK;
}

/* Three Linears into one qkv. A single row needs no interleaving; several are joined head-major,
 * where each part is one contiguous range, and turned back. */
static ferrum_status_t project_parts(ferrum_model_t *model, const ferrum_model_layer_t *layer,
                                     uint32_t rows, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = model->ops;
    ferrum_model_scratch_t *s = &model->scratch;
    const ferrum_model_config_t *c = model->config;
    uint32_t heads[3] = {c->heads, c->kv_heads, c->kv_heads};
    uint64_t offset = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t width = (uint64_t)heads[i] * c->head_dim;
        if (rows == 1) {
            FERRUM_TRY(ops->linear->forward(model->ctx, layer->parts[i], s->norm.buffer, 0,
                                            s->qkv.buffer, offset, 1, err));
        } else {
            FERRUM_TRY(ops->linear->forward(model->ctx, layer->parts[i], s->norm.buffer, 0,
                                            s->q.buffer, 0, rows, err));
            FERRUM_TRY(ops->backend->transpose_token_to_head(model->ctx, s->q.buffer, s->k.buffer,
                                                             rows, heads[i], c->head_dim, err));
            FERRUM_TRY(ops->backend->buffer_copy(model->ctx, s->k.buffer, 0, s->heads.buffer,
                                                 offset * rows, width * rows, err));
        }
        offset += width;
    }
    if (rows == 1)
        return FERRUM_OK;
    return ops->backend->transpose_head_to_token(model->ctx, s->heads.buffer, s->qkv.buffer, rows,
                                                 heads[0] + heads[1] + heads[2], c->head_dim, err);
}

static ferrum_rope_t rope_of(const ferrum_model_t *model, const ferrum_model_layer_t *layer)
{
    ferrum_rope_t rope = {.head = FERRUM_HEAD(ferrum_rope_t),
                          .q_norm = layer->q_norm,
                          .k_norm = layer->k_norm,
                          .cos = model->cos,
                          .sin = model->sin,
                          .eps = (float)model->config->rms_eps,
                          .mode = layer->q_norm ? FERRUM_ROPE_NORM_HALF : FERRUM_ROPE_HALF};
    return rope;
}

/* Scratch of attention is sized by the capacity, not by today's length: it never grows while a
 * request does, and captured graphs hold for every length. */
static ferrum_status_t attend_varlen(ferrum_model_t *model, const ferrum_rope_t *rope,
                                     uint32_t layer, const ferrum_pass_t *pass, ferrum_error_t *err)
{
    const ferrum_quant_llm_ops_t *quant = model->ops->quant;
    ferrum_model_scratch_t *s = &model->scratch;
    const ferrum_paged_kv_t *kv = ferrum_kv_cache_paged(model->kv, layer);
    uint32_t capacity = ferrum_kv_cache_shape(model->kv)->capacity;
    FERRUM_TRY(quant->paged_kv_write_varlen(
        model->ctx, s->qkv.buffer, rope, s->q.buffer, kv, s->cu_seqlens.buffer, s->positions.buffer,
        s->tables.buffer, pass->num_sequences, pass->rows, model->config->heads, err));
    if (pass->decode)
        return quant->paged_batched_decode_attention(
            model->ctx, s->q.buffer, kv, s->attention.buffer, s->tables.buffer, s->lengths.buffer,
            pass->num_sequences, capacity, &model->attention, err);
    return quant->paged_varlen_attention(
        model->ctx, s->q.buffer, kv, s->attention.buffer, s->cu_seqlens.buffer, s->positions.buffer,
        s->tables.buffer, pass->num_sequences, pass->rows, capacity, &model->attention, err);
}

static ferrum_status_t attend_paged(ferrum_model_t *model, const ferrum_rope_t *rope,
                                    uint32_t layer, const ferrum_pass_t *pass, ferrum_error_t *err)
{
    const ferrum_quant_llm_ops_t *quant = model->ops->quant;
    ferrum_model_scratch_t *s = &model->scratch;
    const ferrum_paged_kv_t *kv = ferrum_kv_cache_paged(model->kv, layer);
    uint32_t rows_each = pass->decode ? 1 : pass->rows;
    for (uint32_t i = 0; i < pass->num_sequences; i++) {
        uint32_t position = ferrum_pass_position(pass, i);
        FERRUM_TRY(quant->paged_kv_write(
            model->ctx, s->qkv.buffer, (uint64_t)i * ferrum_model_qkv_dim(model), rope, s->q.buffer,
            (uint64_t)i * ferrum_model_q_dim(model), kv, s->tables_of[i].buffer, rows_each,
            model->config->heads, position, position, err));
    }
    ferrum_buffer_t *out = rows_each > 1 ? s->heads.buffer : s->attention.buffer;
    FERRUM_TRY(quant->paged_decode_attention(model->ctx, s->q.buffer, kv, out, s->tables.buffer,
                                             s->lengths.buffer, pass->num_sequences, rows_each,
                                             &model->attention, err));
    if (rows_each == 1)
        return FERRUM_OK;
    return model->ops->backend->transpose_head_to_token(model->ctx, out, s->attention.buffer,
                                                        rows_each, model->config->heads,
                                                        model->config->head_dim, err);
}

/* q to s->q, head-major; k and v into the request's cache. */
static ferrum_status_t append_contiguous(ferrum_model_t *model, const ferrum_rope_t *rope,
                                         ferrum_buffer_t *qkv, ferrum_buffer_t *cache_k,
                                         ferrum_buffer_t *cache_v, uint32_t rows, uint32_t position,
                                         ferrum_error_t *err)
{
    const ferrum_backend_ops_t *b = model->ops->backend;
    const ferrum_model_config_t *c = model->config;
    ferrum_model_scratch_t *s = &model->scratch;
    ferrum_buffer_t *k = s->k.buffer, *v = s->v.buffer;
    uint32_t capacity = ferrum_kv_cache_shape(model->kv)->capacity;
    if (model->attention_path == FERRUM_ATTENTION_INTO_CACHE)
        return b->split_qkv_norm_rope_into_cache(model->ctx, qkv, rope, s->q.buffer, cache_k,
                                                 cache_v, rows, c->heads, c->kv_heads, c->head_dim,
                                                 position, position, capacity, err);
    if (model->attention_path == FERRUM_ATTENTION_SPLIT) {
        FERRUM_TRY(b->split_qkv_norm_rope(model->ctx, qkv, rope, s->q.buffer, k, v, rows, c->heads,
                                          c->kv_heads, c->head_dim, position, err));
    } else {
        /* The three before rotation lie where a later one of these steps puts its result. */
        ferrum_rope_t key_rope = *rope, value_rope = *rope;
        key_rope.q_norm = rope->k_norm;
        value_rope.mode = FERRUM_ROPE_NONE;
        ferrum_buffer_t *q_rows = s->heads.buffer, *k_rows = s->q.buffer, *v_rows = k;
        FERRUM_TRY(b->split_qkv(model->ctx, qkv, q_rows, k_rows, v_rows, rows,
                                ferrum_model_q_dim(model), ferrum_model_kv_dim(model), err));
        FERRUM_TRY(b->qk_norm_rope(model->ctx, v_rows, &value_rope, v, rows, c->kv_heads,
                                   c->head_dim, position, err));
        FERRUM_TRY(b->qk_norm_rope(model->ctx, k_rows, &key_rope, k, rows, c->kv_heads, c->head_dim,
                                   position, err));
        FERRUM_TRY(b->qk_norm_rope(model->ctx, q_rows, rope, s->q.buffer, rows, c->heads,
                                   c->head_dim, position, err));
    }
    return b->kv_cache_append_head_major(model->ctx, cache_k, cache_v, position, capacity, k, v,
                                         rows, c->kv_heads, c->head_dim, err);
}

static ferrum_status_t attend_contiguous(ferrum_model_t *model, const ferrum_rope_t *rope,
                                         uint32_t layer, const ferrum_pass_t *pass,
                                         ferrum_error_t *err)
{
    const ferrum_backend_ops_t *b = model->ops->backend;
    ferrum_model_scratch_t *s = &model->scratch;
    uint32_t rows = pass->decode ? 1 : pass->rows;
    uint64_t q_dim = ferrum_model_q_dim(model), qkv_dim = ferrum_model_qkv_dim(model);
    bool single = pass->num_sequences == 1;
    for (uint32_t i = 0; i < pass->num_sequences; i++) {
        ferrum_buffer_t *cache_k, *cache_v, *qkv = s->qkv.buffer;
        uint32_t position = ferrum_pass_position(pass, i);
        ferrum_kv_cache_contiguous(model->kv, pass->sequences[i], layer, &cache_k, &cache_v);
        if (!single) {
            qkv = s->row.buffer;
            FERRUM_TRY(
                b->buffer_copy(model->ctx, s->qkv.buffer, i * qkv_dim, qkv, 0, qkv_dim, err));
        }
        FERRUM_TRY(append_contiguous(model, rope, qkv, cache_k, cache_v, rows, position, err));
        FERRUM_TRY(b->flash_attention(model->ctx, s->q.buffer, cache_k, cache_v, s->heads.buffer, 1,
                                      rows, position + rows, position, &model->attention, err));
        if (rows == 1)
            FERRUM_TRY(b->buffer_copy(model->ctx, s->heads.buffer, 0, s->attention.buffer,
                                      i * q_dim, q_dim, err));
        else
            FERRUM_TRY(b->transpose_head_to_token(model->ctx, s->heads.buffer, s->attention.buffer,
                                                  rows, model->config->heads,
                                                  model->config->head_dim, err));
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_attention(ferrum_model_t *model, uint32_t layer,
                                       const ferrum_pass_t *pass, ferrum_error_t *err)
{
    const ferrum_model_layer_t *weights = &model->layers[layer];
    ferrum_model_scratch_t *s = &model->scratch;
    ferrum_rope_t rope = rope_of(model, weights);
    if (weights->qkv)
        FERRUM_TRY(model->ops->linear->forward(model->ctx, weights->qkv, s->norm.buffer, 0,
                                               s->qkv.buffer, 0, pass->rows, err));
    else
        FERRUM_TRY(project_parts(model, weights, pass->rows, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_QKV);
    if (model->attention_path == FERRUM_ATTENTION_VARLEN)
        FERRUM_TRY(attend_varlen(model, &rope, layer, pass, err));
    else if (model->attention_path == FERRUM_ATTENTION_PAGED)
        FERRUM_TRY(attend_paged(model, &rope, layer, pass, err));
    else
        FERRUM_TRY(attend_contiguous(model, &rope, layer, pass, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_ATTENTION);
    return FERRUM_OK;
}
