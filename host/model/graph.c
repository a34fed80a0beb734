/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include "host/model/model_internal.h"

/*
 * A pass whose size has a graph replays it. Else it runs eagerly, the first time that there is one
 * of its size and for three decode steps, and then it is recorded. Positions must come from device
 * memory, as in the varlen path. Recording executes nothing, so whatever goes wrong after it began,
 * the pass is prepared again and run eagerly: logits are never those of an earlier step.
 *
 * A prompt's pass leaves out the head: it wants one row, and which one would be part of the graph.
 */

enum {
    EXACT_ROWS = 8 /* and half as many sizes to every doubling from there on */
};

uint32_t ferrum_model_pad_rows(const ferrum_model_t *model, uint32_t rows, uint32_t most)
{
    uint32_t step = 1;

    if (!model->graph.pads || model->graph.failed || model->profile.on)
        return rows;
    while (rows > EXACT_ROWS * (uint64_t)step)
        step *= 2;
    const uint64_t padded = ((uint64_t)rows + step - 1) / step * step;
    return padded < most ? (uint32_t)padded : rows > most ? rows : most;
}

static ferrum_status_t run_eagerly(ferrum_model_t *model, const ferrum_pass_t *pass,
                                   ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_model_run_layers(model, pass, err));
    return pass->decode ? ferrum_model_run_head(model, 0, pass->rows, 0, err) : FERRUM_OK;
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
    ferrum_ops_log(model->ops, FERRUM_LOG_WARN, "graphs are off: %s: %s", step, why->message);
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
                               const ferrum_graph_key_t *key, ferrum_graph_size_t *size,
                               const uint32_t *tokens, ferrum_error_t *err)
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
        size->captured = true;
        model->graph.captures++;
        return FERRUM_OK;
    }
    give_up(model, recorded != FERRUM_OK ? "recording" : "end of capture", &why);
    (void)quant->graph_reset(model->ctx, key, NULL);
    return run_again(model, pass, tokens, err);
}

/* What is known of passes of this size; NULL: they are never captured. */
static ferrum_graph_size_t *size_of(ferrum_model_t *model, const ferrum_pass_t *pass)
{
    ferrum_graph_state_t *graph = &model->graph;
    if (!graph->wanted || graph->failed || model->profile.on ||
        model->attention_path != FERRUM_ATTENTION_VARLEN || !(pass->decode || graph->pads))
        return NULL;
    return pass->decode ? &graph->decode[pass->rows] : &graph->prefill[pass->rows];
}

ferrum_status_t ferrum_model_run_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                      const uint32_t *tokens, ferrum_error_t *err)
{
    ferrum_graph_state_t *graph = &model->graph;
    ferrum_graph_size_t *size = size_of(model, pass);
    ferrum_graph_key_t key = {model->number, pass->rows | (uint64_t)!pass->decode << 32};
    if (!size)
        return run_eagerly(model, pass, err);
    if (size->captured) {
        uint32_t launched = 0;
        FERRUM_TRY(model->ops->quant->graph_replay(model->ctx, &key, &launched, err));
        if (launched) {
            graph->replays++;
            return FERRUM_OK;
        }
        size->captured = false; /* dropped with a buffer that it used */
    }
    bool warm = !pass->decode || graph->warmups == FERRUM_GRAPH_WARMUPS;
    if (!warm || !size->ran) {
        graph->warmups += !warm;
        size->ran = true;
        return run_eagerly(model, pass, err);
    }
    return capture(model, pass, &key, size, tokens, err);
}

void ferrum_model_reset_graphs(ferrum_model_t *model)
{
    ferrum_graph_state_t *graph = &model->graph;
    if (!graph->wanted)
        return;
    (void)model->ops->quant->graph_reset_all(model->ctx, NULL);
    for (uint32_t i = 0; i <= ferrum_kv_cache_shape(model->kv)->max_sequences; i++)
        graph->decode[i].captured = false;
    for (uint32_t i = 0; i <= model->max_rows; i++)
        graph->prefill[i].captured = false;
}
