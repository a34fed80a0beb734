/* SPDX-License-Identifier: MIT */
#include <config.h>

#include "host/model/model_internal.h"

#include <ferrum/util.h>

#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ferrum_model_begin_profile(ferrum_model_t *model)
{
    model->profile.passes++;
    model->profile.last_ns = now_ns();
}

void ferrum_model_note_part(ferrum_model_t *model, ferrum_model_part_t part)
{
    /* A failure stays with the context: the pass will meet it. */
    (void)model->ops->backend->context_sync(model->ctx, NULL);
    const uint64_t now = now_ns();
    model->profile.ns[part] += now - model->profile.last_ns;
    model->profile.last_ns = now;
}

ferrum_status_t ferrum_model_profile_start(ferrum_model_t *model, int on, ferrum_error_t *err)
{
    if (!model)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "profile_start needs a model");
    FERRUM_TRY(ferrum_session_enter(model->session, err));
    model->profile = (ferrum_pass_profile_t){.on = on != 0};
    ferrum_session_leave(model->session);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_profile_read(const ferrum_model_t *model,
                                          ferrum_model_profile_t *out_profile, ferrum_error_t *err)
{
    if (!model || !out_profile || out_profile->head.size < FERRUM_MODEL_PROFILE_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "profile_read needs a model and out_profile with its head set");
    ferrum_model_profile_t profile = {.head = out_profile->head, .passes = model->profile.passes};
    memcpy(profile.ns, model->profile.ns, sizeof model->profile.ns);
    memcpy(out_profile, &profile,
           out_profile->head.size < sizeof profile ? out_profile->head.size : sizeof profile);
    return FERRUM_OK;
}

const char *ferrum_model_part_name(ferrum_model_part_t part)
{
    static const char *const names[FERRUM_MODEL_PARTS] = {
        "embedding", "norms", "qkv", "attention", "output", "router", "experts", "head", "logits"};
    return part < FERRUM_MODEL_PARTS ? names[part] : NULL;
}
