/* SPDX-License-Identifier: MIT */
/* A model under a swap: its weights are loaded again from the files, its requests are moved. */
#include <ferrum/util.h>

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/kv_migrate.h"
#include "host/model/model_handle.h"

/* ---- weights ---- */

static ferrum_status_t rebuild_weights(void *self, const ferrum_generation_t *next,
                                       ferrum_error_t *err)
{
    ferrum_model_shared_t *shared = self;
    return ferrum_model_image_new(shared, &next->ops, NULL, NULL, &shared->other, err);
}

static void publish_weights(void *self)
{
    ferrum_model_shared_t *shared = self;
    ferrum_model_image_t *old = shared->image;
    shared->image = shared->other;
    shared->other = old;
}

static void discard_weights(void *self)
{
    ferrum_model_shared_t *shared = self;
    ferrum_model_image_free(shared->other);
    shared->other = NULL;
}

static void count_weights(void *self, uint64_t *out_serving, uint64_t *out_other)
{
    const ferrum_model_shared_t *shared = self;
    *out_serving = shared->image->held_bytes;
    *out_other = shared->other ? shared->other->held_bytes : 0;
}

static void add_formats(void *self, ferrum_formats_used_t *formats)
{
    const ferrum_model_shared_t *shared = self;
    formats->blocks |= shared->formats.blocks;
    formats->gptq_bits |= shared->formats.gptq_bits;
}

/* ---- a trial of the whole model ---- */

enum {
    TRIAL_TOKENS = 6,
    TRIAL_CAPACITY = 16
};

/* Two generations round differently, and routing amplifies that; a backend that computes something
 * else is far beyond these. */
static double trial_bound(ferrum_dtype_t a, ferrum_dtype_t b)
{
    static const double bounds[] = {
        [FERRUM_DTYPE_F32] = 0.05, [FERRUM_DTYPE_F16] = 0.1, [FERRUM_DTYPE_BF16] = 0.25};
    double first = bounds[a <= FERRUM_DTYPE_BF16 ? a : FERRUM_DTYPE_BF16];
    double second = bounds[b <= FERRUM_DTYPE_BF16 ? b : FERRUM_DTYPE_BF16];
    return first > second ? first : second;
}

/* Prefill and one decode step; logits of the last. */
static ferrum_status_t run_trial(ferrum_model_shared_t *shared, ferrum_model_image_t *image,
                                 float *logits, ferrum_error_t *err)
{
    uint32_t tokens[TRIAL_TOKENS];
    ferrum_model_t *model = NULL;
    for (uint32_t i = 0; i < TRIAL_TOKENS; i++)
        tokens[i] = (i * 7919u + 3u) % shared->weights.config.vocab;
    FERRUM_TRY(ferrum_model_new_trial(shared, image, TRIAL_CAPACITY, &model, err));
    ferrum_status_t status = ferrum_model_prefill(model, 0, tokens, TRIAL_TOKENS - 1, logits, err);
    if (status == FERRUM_OK)
        status = ferrum_model_decode(model, 0, tokens[TRIAL_TOKENS - 1], logits, err);
    ferrum_model_free_trial(model);
    return status;
}

static ferrum_status_t make_golden(ferrum_model_shared_t *shared, ferrum_error_t *err)
{
    float *logits = malloc((size_t)shared->weights.config.vocab * sizeof *logits);
    if (!logits)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for the logits of the self-test");
    ferrum_status_t status = run_trial(shared, shared->image, logits, err);
    if (status != FERRUM_OK) {
        free(logits);
        return status;
    }
    shared->golden = logits;
    shared->golden_dtype = shared->image->ops.info.activation_dtype;
    return FERRUM_OK;
}

static double relative_error(const float *values, const float *want, uint32_t count)
{
    double difference = 0, norm = 0;
    for (uint32_t i = 0; i < count; i++) {
        double d = (double)values[i] - (double)want[i];
        difference += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return norm > 0 ? sqrt(difference / norm) : difference;
}

static ferrum_status_t try_weights(void *self, double *out_error, ferrum_error_t *err)
{
    ferrum_model_shared_t *shared = self;
    uint32_t vocab = shared->weights.config.vocab;
    if (!shared->golden)
        FERRUM_TRY(make_golden(shared, err));
    float *logits = malloc((size_t)vocab * sizeof *logits);
    if (!logits)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for the logits of the self-test");
    ferrum_status_t status = run_trial(shared, shared->other, logits, err);
    if (status == FERRUM_OK) {
        double error = relative_error(logits, shared->golden, vocab);
        double bound = trial_bound(shared->golden_dtype, shared->other->ops.info.activation_dtype);
        *out_error = error / bound;
        if (!(error <= bound))
            status = ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                                 "%s computes wrong numbers: the logits of a fixed prompt differ "
                                 "from the first backend's by %.3g, %.3g is allowed",
                                 ferrum_module_name(shared->other->ops.module), error, bound);
    }
    free(logits);
    return status;
}

const ferrum_object_ops_t ferrum_model_shared_object = {.rebuild = rebuild_weights,
                                                        .self_test = try_weights,
                                                        .publish = publish_weights,
                                                        .discard = discard_weights,
                                                        .bytes = count_weights,
                                                        .formats = add_formats};

/* ---- handles ---- */

/* How much a handle has in use. */
typedef struct in_use {
    uint32_t rows, requests;
    bool pools;
} in_use_t;

static in_use_t look(const ferrum_model_t *model)
{
    return (in_use_t){.rows = model->scratch.rows,
                      .requests = (uint32_t)(model->scratch.logits.count / model->config->vocab),
                      .pools = ferrum_kv_cache_bytes(model->kv) != 0};
}

/* Make the other side as large, so that neither the exchange nor the first pass after it has to. */
static ferrum_status_t grow(ferrum_model_t *other, const in_use_t *use, ferrum_error_t *err)
{
    if (use->pools)
        FERRUM_TRY(ferrum_kv_cache_prepare(other->kv, err));
    if (use->rows)
        FERRUM_TRY(ferrum_model_reserve_scratch(other, use->rows, use->requests, err));
    return FERRUM_OK;
}

/* Between two passes of the handle's thread; a pass that takes long is not waited for: what is
 * missing is then made during the exchange. */
static in_use_t look_safely(ferrum_model_t *model)
{
    const int64_t patience_ns = (int64_t)20 * 1000 * 1000;
    ferrum_registry_t *registry = ferrum_runtime_registry(model->runtime);
    ferrum_gate_t *gate = &model->session->gate;
    in_use_t use = {0};
    (void)pthread_mutex_lock(&registry->lock);
    ferrum_gate_close(gate);
    if (ferrum_gate_wait(registry, gate, ferrum_now_ns() + patience_ns))
        use = look(model);
    ferrum_gate_open(registry, gate);
    (void)pthread_mutex_unlock(&registry->lock);
    return use;
}

static ferrum_status_t rebuild_handle(void *self, const ferrum_generation_t *next,
                                      ferrum_error_t *err)
{
    ferrum_model_t *model = self;
    in_use_t use = look_safely(model);
    (void)next;
    ferrum_model_t *other =
        ferrum_model_new_handle(model->shared, model->session, &model->sizes, err);
    if (!other)
        return FERRUM_OUT_OF_MEMORY;
    model->other = other;
    FERRUM_TRY(ferrum_model_open_side(other, model->shared->other, model->session->other.context,
                                      &model->sizes, err));
    return grow(other, &use, err);
}

static ferrum_status_t migrate_handle(void *self, uint32_t *requests, ferrum_error_t *err)
{
    ferrum_model_t *model = self;
    in_use_t use = look(model);
    FERRUM_TRY(grow(model->other, &use, err));
    *requests += ferrum_kv_cache_sequences(model->kv);
    FERRUM_TRY(ferrum_kv_migrate(model->kv, model->ctx, model->other->kv, model->other->ctx, err));
    return model->other->ops->backend->context_sync(model->other->ctx, err);
}

static void exchange_tails(ferrum_model_t *a, ferrum_model_t *b)
{
    enum {
        FIRST = offsetof(ferrum_model_t, ops),
        BYTES = sizeof(ferrum_model_t) - FIRST
    };
    unsigned char kept[BYTES];
    memcpy(kept, (unsigned char *)a + FIRST, BYTES);
    memcpy((unsigned char *)a + FIRST, (unsigned char *)b + FIRST, BYTES);
    memcpy((unsigned char *)b + FIRST, kept, BYTES);
}

static void publish_handle(void *self)
{
    ferrum_model_t *model = self;
    uint64_t stamp = model->stamp;
    ferrum_kv_hand_over(model->kv, model->other->kv);
    exchange_tails(model, model->other);
    model->stamp = stamp;
    model->other->ctx = NULL; /* the session has freed it, and its graphs with it */
}

static void discard_handle(void *self)
{
    ferrum_model_t *model = self;
    if (!model->other)
        return;
    ferrum_model_close_side(model->other);
    free(model->other);
    model->other = NULL;
}

static void count_handle(void *self, uint64_t *out_serving, uint64_t *out_other)
{
    const ferrum_model_t *model = self, *other = model->other;
    *out_other = 0;
    if (other && other->kv)
        *out_other = ferrum_kv_cache_bytes(other->kv) + ferrum_model_scratch_bytes(other);
    *out_serving = *out_other; /* the serving side may be growing; the other one is made as large */
}

const ferrum_object_ops_t ferrum_model_handle_object = {.rebuild = rebuild_handle,
                                                        .migrate = migrate_handle,
                                                        .publish = publish_handle,
                                                        .discard = discard_handle,
                                                        .bytes = count_handle};
