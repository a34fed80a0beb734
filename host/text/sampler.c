/* SPDX-License-Identifier: MIT */
#include "host/text/sampler.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/text/random.h"

#define MAX_VOCAB (1u << 24)

/* A token that may be drawn. */
typedef struct candidate {
    float logit; /* after the penalty */
    int32_t id;
} candidate_t;

struct ferrum_sampler {
    ferrum_sampler_params_t params;
    ferrum_random_t random;
    uint32_t vocab;
    int32_t *window; /* ring of the last tokens */
    uint32_t window_capacity;
    uint32_t window_count;
    uint32_t window_next;
    uint32_t *seen; /* [vocab] how often a token is in the window */
    candidate_t *candidates;
    double *weights; /* [vocab] of the candidates, unnormalised */
};

static ferrum_status_t fail_setting(const char *name, double value, const char *wanted,
                                    ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                       "sampler: %s is %g, not %s", name, value, wanted);
}

/* The comparisons are written so that NaN fails them. */
static ferrum_status_t check_params(const ferrum_sampler_params_t *p, ferrum_error_t *err)
{
    if (!(p->temperature >= 0.0f && isfinite(p->temperature)))
        return fail_setting("temperature", (double)p->temperature, "0 or a positive number", err);
    if (!(p->top_p > 0.0f && p->top_p <= 1.0f))
        return fail_setting("top-p", (double)p->top_p, "above 0 and at most 1", err);
    if (!(p->min_p >= 0.0f && p->min_p <= 1.0f))
        return fail_setting("min-p", (double)p->min_p, "from 0 to 1", err);
    if (!(p->repetition_penalty > 0.0f && isfinite(p->repetition_penalty)))
        return fail_setting("repetition penalty", (double)p->repetition_penalty, "positive", err);
    if (p->repetition_window > FERRUM_SAMPLER_MAX_WINDOW)
        return fail_setting("repetition window", p->repetition_window, "at most 1048576", err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_sampler_new(const ferrum_sampler_params_t *params, uint32_t vocab,
                                   ferrum_sampler_t **out_sampler, ferrum_error_t *err)
{
    FERRUM_TRY(check_params(params, err));
    if (vocab < 1 || vocab > MAX_VOCAB)
        return fail_setting("vocabulary size", vocab, "from 1 to 16777216", err);
    ferrum_sampler_t *s = calloc(1, sizeof *s);
    if (s) {
        s->params = *params;
        s->vocab = vocab;
        s->window_capacity = params->repetition_window;
        s->window = calloc(s->window_capacity ? s->window_capacity : 1, sizeof *s->window);
        s->seen = calloc(vocab, sizeof *s->seen);
        s->candidates = calloc(vocab, sizeof *s->candidates);
        s->weights = calloc(vocab, sizeof *s->weights);
    }
    if (!s || !s->window || !s->seen || !s->candidates || !s->weights) {
        ferrum_sampler_free(s);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory for a sampler over %" PRIu32 " tokens", vocab);
    }
    ferrum_sampler_reset(s, params->seed);
    *out_sampler = s;
    return FERRUM_OK;
}

void ferrum_sampler_free(ferrum_sampler_t *s)
{
    if (!s)
        return;
    free(s->window);
    free(s->seen);
    free(s->candidates);
    free(s->weights);
    free(s);
}

void ferrum_sampler_reset(ferrum_sampler_t *s, uint64_t seed)
{
    ferrum_random_seed(&s->random, seed);
    memset(s->seen, 0, s->vocab * sizeof *s->seen);
    s->window_count = 0;
    s->window_next = 0;
}

ferrum_status_t ferrum_sampler_accept(ferrum_sampler_t *s, int32_t token, ferrum_error_t *err)
{
    if (token < 0 || (uint32_t)token >= s->vocab)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "sampler: token %" PRId32 " is outside the vocabulary of %" PRIu32,
                           token, s->vocab);
    if (s->window_capacity == 0)
        return FERRUM_OK;
    if (s->window_count == s->window_capacity)
        s->seen[s->window[s->window_next]]--;
    else
        s->window_count++;
    s->window[s->window_next] = token;
    s->seen[token]++;
    s->window_next = (s->window_next + 1) % s->window_capacity;
    return FERRUM_OK;
}

/* A finite logit stays finite: only the caller masks tokens. */
static float penalised(const ferrum_sampler_t *s, float logit, uint32_t id)
{
    if (!s->seen[id] || isinf(logit))
        return logit;
    float penalty = s->params.repetition_penalty;
    float changed = logit > 0.0f ? logit / penalty : logit * penalty;
    return fminf(fmaxf(changed, -FLT_MAX), FLT_MAX);
}

/* Whether `a` is drawn before `b`: larger logit, then lower id. */
static bool before(candidate_t a, candidate_t b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Collect the tokens that are not masked; *out_best is the largest of them. */
static ferrum_status_t gather(ferrum_sampler_t *s, const float *logits, uint32_t *out_count,
                              candidate_t *out_best, ferrum_error_t *err)
{
    uint32_t count = 0;
    candidate_t best = {-INFINITY, 0};
    for (uint32_t id = 0; id < s->vocab; id++) {
        if (isnan(logits[id]) || logits[id] == INFINITY)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                               "sampler: the logit of token %" PRIu32 " is %s", id,
                               isnan(logits[id]) ? "not a number" : "infinite");
        candidate_t candidate = {penalised(s, logits[id], id), (int32_t)id};
        if (candidate.logit == -INFINITY)
            continue;
        if (candidate.logit > best.logit)
            best = candidate;
        s->candidates[count++] = candidate;
    }
    if (count == 0)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                           "sampler: every logit is minus infinity");
    *out_count = count;
    *out_best = best;
    return FERRUM_OK;
}

static void swap(candidate_t *a, candidate_t *b)
{
    candidate_t t = *a;
    *a = *b;
    *b = t;
}

/* Restore the heap (first drawn on top) below `i`. */
static void sift_down(candidate_t *heap, uint32_t count, uint32_t i)
{
    for (;;) {
        uint32_t first = i;
        uint32_t left = 2 * i + 1;
        for (uint32_t child = left; child < count && child <= left + 1; child++)
            if (before(heap[child], heap[first]))
                first = child;
        if (first == i)
            return;
        swap(&heap[i], &heap[first]);
        i = first;
    }
}

/* Weight of a candidate relative to the best one: exp of the scaled difference, at most 1. */
static double weight_of(const ferrum_sampler_t *s, candidate_t candidate, float best)
{
    return exp(((double)candidate.logit - (double)best) / (double)s->params.temperature);
}

/*
 * Put the candidates that top-k and top-p keep in drawing order at the front and return how many
 * there are. A heap gives them one by one, so that a vocabulary is never sorted as a whole.
 */
static uint32_t select_top(ferrum_sampler_t *s, uint32_t count, float best)
{
    candidate_t *heap = s->candidates;
    uint32_t limit = s->params.top_k && s->params.top_k < count ? s->params.top_k : count;
    double target = INFINITY;
    double sum = 0.0;
    uint32_t kept = 0;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
    if (limit == count && s->params.top_p < 1.0f) {
        double total = 0.0;
        for (uint32_t i = 0; i < count; i++)
            total += weight_of(s, heap[i], best);
        target = total * (double)s->params.top_p;
    }
    /* The heap shrinks from the end, where the popped ones gather in reverse. */
    while (kept < limit && sum < target) {
        sum += weight_of(s, heap[0], best);
        swap(&heap[0], &heap[count - 1 - kept]);
        kept++;
        sift_down(heap, count - kept, 0);
    }
    for (uint32_t i = 0; i < count / 2 && i < kept; i++)
        swap(&heap[i], &heap[count - 1 - i]);
    if (limit == count || s->params.top_p >= 1.0f)
        return kept;
    /* With top-k, p counts within its k. */
    target = sum * (double)s->params.top_p;
    sum = 0.0;
    for (uint32_t i = 0; i < kept; i++) {
        sum += weight_of(s, heap[i], best);
        if (sum >= target)
            return i + 1;
    }
    return kept;
}

static int32_t draw(ferrum_sampler_t *s, uint32_t count, float best)
{
    double total = 0.0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        double weight = weight_of(s, s->candidates[i], best);
        if (weight < (double)s->params.min_p)
            continue;
        s->candidates[kept] = s->candidates[i];
        s->weights[kept++] = weight;
        total += weight;
    }
    double point = ferrum_random_unit(&s->random) * total;
    uint32_t last = 0;
    for (uint32_t i = 0; i < kept; i++) {
        if (s->weights[i] <= 0.0)
            continue;
        last = i;
        if (point < s->weights[i])
            break;
        point -= s->weights[i];
    }
    return s->candidates[last].id;
}

ferrum_status_t ferrum_sampler_sample(ferrum_sampler_t *s, const float *logits, int32_t *out_token,
                                      ferrum_error_t *err)
{
    uint32_t count = 0;
    candidate_t best = {0.0f, 0};
    FERRUM_TRY(gather(s, logits, &count, &best, err));
    if (s->params.temperature == 0.0f) {
        *out_token = best.id;
        return FERRUM_OK;
    }
    if (s->params.top_k || s->params.top_p < 1.0f)
        count = select_top(s, count, best.logit);
    *out_token = draw(s, count, best.logit);
    return FERRUM_OK;
}
