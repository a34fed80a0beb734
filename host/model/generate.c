/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/model/model_internal.h"
#include "host/text/sampler.h"

#define DEFAULT_WINDOW 64u

/* One generation: everything that a token needs is made before the first one. */
typedef struct generation {
    ferrum_model_t *model;
    uint64_t id;
    ferrum_generate_options_t options;
    ferrum_token_fn *on_token;
    void *arg;
    ferrum_sampler_t *sampler;
    ferrum_decoder_t *decoder; /* NULL without a tokenizer */
    float *logits;
    char *last_text; /* of the last token, with what the decoder held back */
    ferrum_generate_result_t result;
} generation_t;

static double now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static ferrum_status_t open_generation(generation_t *g, ferrum_error_t *err)
{
    const ferrum_generate_options_t *o = &g->options;
    uint32_t vocab = g->model->config->vocab;
    ferrum_sampler_params_t params = FERRUM_SAMPLER_PARAMS_DEFAULT;
    params.temperature = o->temperature;
    params.top_k = o->top_k;
    params.top_p = o->top_p == 0.0f ? 1.0f : o->top_p;
    params.min_p = o->min_p;
    params.repetition_penalty = o->repetition_penalty == 0.0f ? 1.0f : o->repetition_penalty;
    params.repetition_window = o->repetition_window ? o->repetition_window : DEFAULT_WINDOW;
    params.seed = o->seed;
    FERRUM_TRY(ferrum_sampler_new(&params, vocab, &g->sampler, err));
    if (g->model->shared->tokenizer)
        FERRUM_TRY(ferrum_decoder_new(g->model->shared->tokenizer, FERRUM_DECODE_SKIP_SPECIAL,
                                      &g->decoder, err));
    g->logits = malloc((size_t)vocab * sizeof *g->logits);
    if (!g->logits)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for %u logits", vocab);
    return FERRUM_OK;
}

static void close_generation(generation_t *g)
{
    ferrum_sampler_free(g->sampler);
    ferrum_decoder_free(g->decoder);
    free(g->logits);
    free(g->last_text);
}

/* Text of @p token; with @p last also what can no longer become whole. */
static ferrum_status_t text_of(generation_t *g, uint32_t token, bool last,
                               ferrum_string_view_t *out_text, ferrum_error_t *err)
{
    *out_text = (ferrum_string_view_t){"", 0};
    if (!g->decoder || token >= ferrum_tokenizer_vocab_size(g->model->shared->tokenizer))
        return FERRUM_OK;
    FERRUM_TRY(ferrum_decoder_push(g->decoder, (int32_t)token, out_text, err));
    if (!last)
        return FERRUM_OK;
    char held[64];
    size_t length = out_text->length;
    char *whole = malloc(length + sizeof held);
    if (!whole)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for the last token's text");
    if (length != 0)
        memcpy(whole, out_text->data, length);
    ferrum_string_view_t rest = ferrum_decoder_finish(g->decoder);
    size_t kept = rest.length < sizeof held ? rest.length : 0;
    if (kept != 0)
        memcpy(whole + length, rest.data, kept);
    g->last_text = whole;
    *out_text = (ferrum_string_view_t){whole, length + kept};
    return FERRUM_OK;
}

/* Pick a token, tell the caller; *out_stop when it was the last one. */
static ferrum_status_t step(generation_t *g, uint32_t *out_token, bool *out_stop,
                            ferrum_error_t *err)
{
    int32_t token;
    ferrum_string_view_t text;
    FERRUM_TRY(ferrum_sampler_sample(g->sampler, g->logits, &token, err));
    FERRUM_TRY(ferrum_sampler_accept(g->sampler, token, err));
    *out_token = (uint32_t)token;
    g->result.generated_tokens++;
    bool end = !g->options.ignore_end && ferrum_model_is_end(g->model, *out_token);
    bool last = end || g->result.generated_tokens == g->options.max_tokens;
    FERRUM_TRY(text_of(g, *out_token, last, &text, err));
    if (g->on_token && g->on_token(g->arg, *out_token, text.data, text.length)) {
        g->result.stopped_by_callback = 1;
        last = true;
    }
    g->result.stopped_by_end = end;
    *out_stop = last;
    return FERRUM_OK;
}

static ferrum_status_t generate_tokens(generation_t *g, ferrum_error_t *err)
{
    bool stop = g->options.max_tokens == 0;
    while (!stop) {
        uint32_t token;
        FERRUM_TRY(step(g, &token, &stop, err));
        if (!stop)
            FERRUM_TRY(ferrum_model_decode(g->model, g->id, token, g->logits, err));
    }
    return FERRUM_OK;
}

static ferrum_status_t run(generation_t *g, const uint32_t *prompt, uint32_t count,
                           ferrum_error_t *err)
{
    FERRUM_TRY(open_generation(g, err));
    double start = now_ms();
    FERRUM_TRY(ferrum_model_prefill(g->model, g->id, prompt, count, g->logits, err));
    double prefilled = now_ms();
    for (uint32_t i = 0; i < count; i++)
        FERRUM_TRY(ferrum_sampler_accept(g->sampler, (int32_t)prompt[i], err));
    FERRUM_TRY(generate_tokens(g, err));
    g->result.prompt_tokens = count;
    g->result.prefill_ms = prefilled - start;
    g->result.decode_ms = now_ms() - prefilled;
    return FERRUM_OK;
}

/* What FERRUM_MOE_PROFILE asked for: where the bucketed forward spent its time. */
static void log_profile(const ferrum_model_t *model)
{
    if (!model->env.profile || ferrum_session_enter(model->session, NULL) != FERRUM_OK)
        return;
    ferrum_moe_profile_snapshot_t found =
        ferrum_moe_profile_drain(ferrum_moe_scratch_profile(model->moe));
    char text[240];
    size_t used = 0;
    ferrum_session_leave(model->session);
    if (!ferrum_moe_profile_has_layers(&found))
        return;
    for (int step = 0; step < FERRUM_MOE_STEP_COUNT && used < sizeof text; step++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s %llu",
                                 ferrum_moe_step_name((ferrum_moe_step_t)step),
                                 (unsigned long long)found.step_us[step]);
    ferrum_ops_log(ferrum_runtime_ops(model->runtime), FERRUM_LOG_INFO,
                   "%llu MoE layers took %llu us:%s", (unsigned long long)found.layers,
                   (unsigned long long)ferrum_moe_profile_total_us(&found), text);
}

ferrum_status_t ferrum_generate(ferrum_model_t *model, uint64_t id, const uint32_t *prompt,
                                uint32_t prompt_count, const ferrum_generate_options_t *options,
                                ferrum_token_fn *on_token, void *arg,
                                ferrum_generate_result_t *out_result, ferrum_error_t *err)
{
    if (!model || !options || options->head.size < FERRUM_GENERATE_OPTIONS_MIN_SIZE ||
        (out_result && out_result->head.size < FERRUM_GENERATE_RESULT_MIN_SIZE))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "generation needs a model and structs with their sizes set");
    if (ferrum_model_length(model, id) != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "request %llu exists: release it before generating under its number",
                           (unsigned long long)id);
    generation_t g = {.model = model, .id = id, .on_token = on_token, .arg = arg};
    memcpy(&g.options, options,
           options->head.size < sizeof g.options ? options->head.size : sizeof g.options);
    ferrum_status_t status = run(&g, prompt, prompt_count, err);
    ferrum_model_release(model, id);
    close_generation(&g);
    log_profile(model);
    if (status == FERRUM_OK && out_result) {
        g.result.head = out_result->head;
        memcpy(out_result, &g.result,
               out_result->head.size < sizeof g.result ? out_result->head.size : sizeof g.result);
    }
    return status;
}
