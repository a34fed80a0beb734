/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* sched_yield */
#include <ferrum/util.h>

#include <sched.h>
#include <string.h>

#include "host/model/model_internal.h"
#include "host/model/row_decoder.h"

ferrum_status_t ferrum_model_prepare_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                          const uint32_t *tokens, ferrum_error_t *err)
{
    uint32_t hidden = model->config->hidden;
    float *rows = model->scratch.embedded.data;
    if (model->profile.on)
        ferrum_model_begin_profile(model);
    const ferrum_gguf_weights_t *table = &model->shared->embedding.blocks;
    for (uint32_t i = 0; i < pass->used; i++)
        ferrum_row_decode(table->format, table->data, tokens[i], hidden, rows + (size_t)i * hidden);
    memset(rows + (size_t)pass->used * hidden, 0,
           (size_t)(pass->rows - pass->used) * hidden * sizeof *rows);
    FERRUM_TRY(model->ops->backend->buffer_write_f32(model->ctx, model->scratch.residual.buffer, 0,
                                                     rows, (uint64_t)pass->rows * hidden, err));
    FERRUM_TRY(ferrum_model_upload_pass(model, pass, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_EMBEDDING);
    return FERRUM_OK;
}

static ferrum_status_t run_experts(ferrum_model_t *model, uint32_t layer, const ferrum_pass_t *pass,
                                   ferrum_error_t *err)
{
    ferrum_model_scratch_t *s = &model->scratch;
    bool last = layer + 1 == model->config->layers;
    ferrum_moe_run_args_t args = {
        .ctx = model->ctx,
        .experts = &model->layers[layer].experts,
        .x = s->norm.buffer,
        .router_logits = s->router.buffer,
        .tokens = pass->rows,
        .decode = pass->decode,
        .out = s->moe.buffer,
        .residual = s->residual.buffer,
        .next_norm_w = last ? model->final_norm : model->layers[layer + 1].input_norm,
        .normed_out = s->norm.buffer,
        .rms_eps = (float)model->config->rms_eps,
    };
    return ferrum_moe_run(model->moe, &args, err);
}

ferrum_status_t ferrum_model_run_layers(ferrum_model_t *model, const ferrum_pass_t *pass,
                                        ferrum_error_t *err)
{
    const ferrum_ops_t *ops = model->ops;
    const ferrum_model_config_t *c = model->config;
    ferrum_model_scratch_t *s = &model->scratch;
    float eps = (float)c->rms_eps;
    FERRUM_TRY(ops->backend->rms_norm(model->ctx, s->residual.buffer, model->layers[0].input_norm,
                                      eps, s->norm.buffer, pass->rows, c->hidden, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_NORMS);
    for (uint32_t i = 0; i < c->layers; i++) {
        const ferrum_model_layer_t *layer = &model->layers[i];
        FERRUM_TRY(ferrum_model_attention(model, i, pass, err));
        FERRUM_TRY(ops->linear->forward(model->ctx, layer->output, s->attention.buffer, 0,
                                        s->projected.buffer, 0, pass->rows, err));
        ferrum_model_end_part(model, FERRUM_MODEL_PART_OUTPUT);
        FERRUM_TRY(ops->backend->fused_add_rms_norm(model->ctx, s->residual.buffer,
                                                    s->projected.buffer, layer->post_norm, eps,
                                                    s->norm.buffer, pass->rows, c->hidden, err));
        ferrum_model_end_part(model, FERRUM_MODEL_PART_NORMS);
        FERRUM_TRY(ops->linear->forward(model->ctx, layer->router, s->norm.buffer, 0,
                                        s->router.buffer, 0, pass->rows, err));
        ferrum_model_end_part(model, FERRUM_MODEL_PART_ROUTER);
        FERRUM_TRY(run_experts(model, i, pass, err));
        ferrum_model_end_part(model, FERRUM_MODEL_PART_EXPERTS);
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_run_head(ferrum_model_t *model, uint32_t row, uint32_t count,
                                      uint32_t out_row, ferrum_error_t *err)
{
    const ferrum_model_config_t *c = model->config;
    FERRUM_TRY(model->ops->linear->forward(model->ctx, model->lm_head, model->scratch.norm.buffer,
                                           (uint64_t)row * c->hidden, model->scratch.logits.buffer,
                                           (uint64_t)out_row * c->vocab, count, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_HEAD);
    return FERRUM_OK;
}

static ferrum_status_t read_logits(ferrum_model_t *model, uint32_t count, float *out_logits,
                                   ferrum_error_t *err)
{
    FERRUM_TRY(model->ops->backend->buffer_read_f32(model->ctx, model->scratch.logits.buffer, 0,
                                                    out_logits,
                                                    (uint64_t)count * model->config->vocab, err));
    ferrum_model_end_part(model, FERRUM_MODEL_PART_LOGITS);
    return FERRUM_OK;
}

static ferrum_status_t check_tokens(const ferrum_model_t *model, const uint32_t *tokens,
                                    uint32_t count, ferrum_error_t *err)
{
    for (uint32_t i = 0; i < count; i++)
        if (tokens[i] >= model->config->vocab)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                               "token %u at position %u is not below the vocabulary's %u",
                               tokens[i], i, model->config->vocab);
    return FERRUM_OK;
}

/* Between two passes of a long prompt: let a swap that waits have the model for a moment. Another
 * thread that must not be here may come in between; its pass is waited for. */
static void give_way(ferrum_model_t *model, const ferrum_sequence_t *sequence, uint32_t done,
                     uint32_t count)
{
    if (!ferrum_gate_wanted(&model->session->gate))
        return;
    ferrum_kv_cache_set_running(model->kv, sequence, done, count);
    ferrum_session_leave(model->session);
    while (ferrum_session_enter(model->session, NULL) != FERRUM_OK)
        (void)sched_yield();
    ferrum_kv_cache_set_running(model->kv, NULL, 0, 0);
}

/* Rows of one request, in passes of at most max_rows; logits of the last row stay in scratch. */
static ferrum_status_t run_prompt(ferrum_model_t *model, ferrum_sequence_t *sequence,
                                  const uint32_t *tokens, uint32_t count, ferrum_error_t *err)
{
    ferrum_sequence_t *const list[1] = {sequence};
    for (uint32_t done = 0; done < count;) {
        uint32_t rows = count - done < model->max_rows ? count - done : model->max_rows;
        ferrum_pass_t pass = {.rows = ferrum_model_pad_rows(model, rows, model->max_rows),
                              .used = rows,
                              .num_sequences = 1,
                              .sequences = list,
                              .ahead = done};
        FERRUM_TRY(ferrum_model_reserve_scratch(model, pass.rows, 1, err));
        FERRUM_TRY(ferrum_model_prepare_pass(model, &pass, tokens + done, err));
        FERRUM_TRY(ferrum_model_run_pass(model, &pass, tokens + done, err));
        done += rows;
        if (done == count)
            FERRUM_TRY(ferrum_model_run_head(model, rows - 1, 1, 0, err));
        else
            give_way(model, sequence, done, count);
    }
    return FERRUM_OK;
}

static ferrum_status_t append(ferrum_model_t *model, ferrum_sequence_t *sequence,
                              const uint32_t *tokens, uint32_t count, float *out_logits,
                              ferrum_error_t *err)
{
    ferrum_status_t status = ferrum_kv_cache_reserve(model->kv, &sequence, 1, count, err);
    if (status == FERRUM_OK)
        status = run_prompt(model, sequence, tokens, count, err);
    if (status == FERRUM_OK)
        status = read_logits(model, 1, out_logits, err);
    if (status == FERRUM_OK)
        ferrum_kv_cache_commit(model->kv, sequence, tokens, count);
    else
        ferrum_kv_cache_trim(model->kv, sequence);
    return status;
}

static ferrum_status_t prefill(ferrum_model_t *model, uint64_t id, const uint32_t *tokens,
                               uint32_t count, float *out_logits, ferrum_error_t *err)
{
    ferrum_sequence_t *sequence = ferrum_kv_cache_find(model->kv, id);
    if (sequence)
        return append(model, sequence, tokens, count, out_logits, err);

    FERRUM_TRY(ferrum_kv_cache_add(model->kv, id, &sequence, err));
    ferrum_kv_cache_attach_prefix(model->kv, sequence, tokens, count);
    uint32_t cached = sequence->length;
    ferrum_status_t status =
        append(model, sequence, tokens + cached, count - cached, out_logits, err);
    if (status != FERRUM_OK)
        ferrum_kv_cache_remove(model->kv, sequence);
    return status;
}

ferrum_status_t ferrum_model_prefill(ferrum_model_t *model, uint64_t id, const uint32_t *tokens,
                                     uint32_t count, float *out_logits, ferrum_error_t *err)
{
    if (!model || !tokens || !out_logits)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "prefill needs a model, tokens and room for logits");
    if (count == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "prefill needs at least one token");
    FERRUM_TRY(check_tokens(model, tokens, count, err));
    FERRUM_TRY(ferrum_session_enter(model->session, err));
    ferrum_status_t status = prefill(model, id, tokens, count, out_logits, err);
    ferrum_session_leave(model->session);
    return status;
}

static ferrum_status_t require(const ferrum_model_t *model, uint64_t id,
                               ferrum_sequence_t **out_sequence, ferrum_error_t *err)
{
    *out_sequence = ferrum_kv_cache_find(model->kv, id);
    if (!*out_sequence)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_RANGE,
                           "there is no request %llu: prefill it first", (unsigned long long)id);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_decode(ferrum_model_t *model, uint64_t id, uint32_t token,
                                    float *out_logits, ferrum_error_t *err)
{
    return ferrum_model_decode_batch(model, &id, &token, 1, out_logits, err);
}

/* The requests of a batch into model->batch, each once. */
static ferrum_status_t gather(ferrum_model_t *model, const uint64_t *ids, uint32_t count,
                              ferrum_error_t *err)
{
    uint32_t most = ferrum_kv_cache_shape(model->kv)->max_sequences;
    if (count > most)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "a batch of %u requests exceeds the model's %u", count, most);
    model->stamp++;
    for (uint32_t i = 0; i < count; i++) {
        FERRUM_TRY(require(model, ids[i], &model->batch[i], err));
        if (model->batch[i]->stamp == model->stamp)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                               "request %llu is twice in one batch", (unsigned long long)ids[i]);
        model->batch[i]->stamp = model->stamp;
    }
    return FERRUM_OK;
}

static ferrum_status_t run_decode(ferrum_model_t *model, const uint32_t *tokens, uint32_t count,
                                  ferrum_error_t *err)
{
    bool shared = count > 1 && model->env.batched && count >= model->env.batch_threshold &&
                  (model->ops->info.caps & FERRUM_CAP_BATCHED_DECODE);
    bool whole = shared || count == 1; /* one pass is the whole step */
    uint32_t each = shared ? count : 1, most = ferrum_kv_cache_shape(model->kv)->max_sequences;
    uint32_t rows = whole ? ferrum_model_pad_rows(model, each, most) : each;
    FERRUM_TRY(ferrum_model_reserve_scratch(model, rows, count < rows ? rows : count, err));
    for (uint32_t i = 0; i < count; i += each) {
        ferrum_pass_t pass = {.rows = rows,
                              .used = each,
                              .num_sequences = rows,
                              .sequences = model->batch + i,
                              .decode = true};
        FERRUM_TRY(ferrum_model_prepare_pass(model, &pass, tokens + i, err));
        if (whole)
            return ferrum_model_run_pass(model, &pass, tokens, err);
        FERRUM_TRY(ferrum_model_run_layers(model, &pass, err));
        FERRUM_TRY(ferrum_model_run_head(model, 0, 1, i, err));
    }
    return FERRUM_OK;
}

static ferrum_status_t decode(ferrum_model_t *model, const uint64_t *ids, const uint32_t *tokens,
                              uint32_t count, float *out_logits, ferrum_error_t *err)
{
    FERRUM_TRY(gather(model, ids, count, err));
    FERRUM_TRY(ferrum_kv_cache_reserve(model->kv, model->batch, count, 1, err));
    ferrum_status_t status = run_decode(model, tokens, count, err);
    if (status == FERRUM_OK)
        status = read_logits(model, count, out_logits, err);
    for (uint32_t i = 0; i < count; i++) {
        if (status == FERRUM_OK)
            ferrum_kv_cache_commit(model->kv, model->batch[i], tokens + i, 1);
        else
            ferrum_kv_cache_trim(model->kv, model->batch[i]);
    }
    return status;
}

ferrum_status_t ferrum_model_decode_batch(ferrum_model_t *model, const uint64_t *ids,
                                          const uint32_t *tokens, uint32_t count, float *out_logits,
                                          ferrum_error_t *err)
{
    if (!model || !ids || !tokens || !out_logits)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "decode needs a model, requests, tokens and room for logits");
    if (count == 0)
        return FERRUM_OK;
    FERRUM_TRY(check_tokens(model, tokens, count, err));
    FERRUM_TRY(ferrum_session_enter(model->session, err));
    ferrum_status_t status = decode(model, ids, tokens, count, out_logits, err);
    ferrum_session_leave(model->session);
    return status;
}

/* The calls without an error to return do nothing when another thread uses the model. */

uint32_t ferrum_model_length(const ferrum_model_t *model, uint64_t id)
{
    if (!model || ferrum_session_enter(model->session, NULL) != FERRUM_OK)
        return 0;
    const ferrum_sequence_t *sequence = ferrum_kv_cache_find(model->kv, id);
    uint32_t length = sequence ? sequence->length : 0;
    ferrum_session_leave(model->session);
    return length;
}

void ferrum_model_release(ferrum_model_t *model, uint64_t id)
{
    if (!model || ferrum_session_enter(model->session, NULL) != FERRUM_OK)
        return;
    ferrum_sequence_t *sequence = ferrum_kv_cache_find(model->kv, id);
    if (sequence)
        ferrum_kv_cache_remove(model->kv, sequence);
    ferrum_session_leave(model->session);
}

void ferrum_model_reset(ferrum_model_t *model)
{
    if (!model || ferrum_session_enter(model->session, NULL) != FERRUM_OK)
        return;
    ferrum_kv_cache_reset(model->kv);
    ferrum_model_reset_graphs(model);
    model->graph.warmups = 0;
    model->graph.failed = false;
    ferrum_session_leave(model->session);
}
