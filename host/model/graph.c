/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <string.h>

#include "host/model/model_internal.h"

/*
 * A decode pass of m rows, one for each request: replay its graph if there is one; else warm up
 * eagerly three times; else record. Positions must come from device memory, as in the varlen path.
 * Recording executes nothing, so whatever goes wrong after it began, the pass
 * is prepared again and run eagerly: logits are never those of an earlier step.
 */

static ferrum_status_t run_eagerly(ferrum_model_t *model, const ferrum_pass_t *pass,
                                   ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_model_run_layers(model, pass, err));
    return ferrum_model_run_head(model, 0, pass->rows, 0, err);
}

static ferrum_status_t run_again(ferrum_model_t *model, const ferrum_pass_t *pass,
                                 const uint32_t *tokens, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_model_prepare_pass(model, pass, tokens, err));
    return run_eagerly(model, pass, err);
}

static void give_up(ferrum_model_t *model, const char *step, const ferrum_error_t *why)
{
    model->graph.failed = true;
    ferrum_ops_log(model->ops, FERRUM_LOG_WARN, "graphs of decode steps are off: %s: %s", step,
                   why->message);
}

/* What a captured step must find done: it cannot allocate. */
static ferrum_status_t before_capture(ferrum_model_t *model, const ferrum_pass_t *pass,
                                      ferrum_error_t *err)
{
    uint64_t elements =
        (uint64_t)pass->rows * model->config->experts_used * model->config->expert_intermediate;
    ferrum_status_t status = model->ops->quant->pregrow_gather_scratch(model->ctx, elements, err);
    if (status == FERRUM_OK || status == FERRUM_UNSUPPORTED)
        status = model->ops->backend->context_sync(model->ctx, err);
    return status;
}

static ferrum_status_t capture(ferrum_model_t *model, const ferrum_pass_t *pass,
                               const ferrum_graph_key_t *key, const uint32_t *tokens,
                               ferrum_error_t *err)
{
    const ferrum_quant_llm_ops_t *quant = model->ops->quant;
    ferrum_error_t why = FERRUM_ERROR_INIT;
    FERRUM_TRY(before_capture(model, pass, err));
    if (quant->graph_begin(model->ctx, &why) != FERRUM_OK) {
        give_up(model, "begin of capture", &why);
        return run_eagerly(model, pass, err);
    }
    ferrum_status_t recorded = run_eagerly(model, pass, &why);
    ferrum_status_t ended = quant->graph_end(model->ctx, key, recorded == FERRUM_OK ? &why : NULL);
    uint32_t launched = 0;
    if (recorded == FERRUM_OK && ended == FERRUM_OK &&
        quant->graph_replay(model->ctx, key, &launched, &why) == FERRUM_OK && launched) {
        model->graph.seen[pass->rows] = true;
        model->graph.captures++;
        return FERRUM_OK;
    }
    give_up(model, recorded != FERRUM_OK ? "recording" : "end of capture", &why);
    (void)quant->graph_reset(model->ctx, key, NULL);
    return run_again(model, pass, tokens, err);
}

ferrum_status_t ferrum_model_run_shared(ferrum_model_t *model, const ferrum_pass_t *pass,
                                        const uint32_t *tokens, ferrum_error_t *err)
{
    ferrum_graph_state_t *graph = &model->graph;
    ferrum_graph_key_t key = {model->number, pass->rows};
    if (!graph->wanted || graph->failed || model->profile.on ||
        model->attention_path != FERRUM_ATTENTION_VARLEN)
        return run_eagerly(model, pass, err);
    if (graph->seen[pass->rows]) {
        uint32_t launched = 0;
        FERRUM_TRY(model->ops->quant->graph_replay(model->ctx, &key, &launched, err));
        if (launched) {
            graph->replays++;
            return FERRUM_OK;
        }
        graph->seen[pass->rows] = false; /* dropped with a buffer that it used */
    }
    if (graph->warmups < FERRUM_GRAPH_WARMUPS) {
        graph->warmups++;
        return run_eagerly(model, pass, err);
    }
    return capture(model, pass, &key, tokens, err);
}

void ferrum_model_reset_graphs(ferrum_model_t *model)
{
    ferrum_graph_state_t *graph = &model->graph;
    if (!graph->wanted)
        return;
    (void)model->ops->quant->graph_reset_all(model->ctx, NULL);
    memset(graph->seen, 0,
           ((size_t)ferrum_kv_cache_shape(model->kv)->max_sequences + 1) * sizeof *graph->seen);
}
