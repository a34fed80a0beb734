/* SPDX-License-Identifier: MIT */
#include "host/runtime/session_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>

/* ---- sides ---- */

static ferrum_status_t open_side(const ferrum_ops_t *ops, const ferrum_team_t *team,
                                 ferrum_session_side_t *side, ferrum_error_t *err)
{
    *side = (ferrum_session_side_t){.ops = ops};
    return ops->backend->context_new(ops->device, ferrum_team_executor(team), &side->context, err);
}

static void close_side(ferrum_session_side_t *side)
{
    if (!side->ops)
        return;
    ferrum_device_array_free(side->ops, &side->x);
    ferrum_device_array_free(side->ops, &side->out);
    ferrum_device_array_free(side->ops, &side->ids);
    ferrum_device_array_free(side->ops, &side->weights);
    side->ops->backend->context_free(side->context);
    *side = (ferrum_session_side_t){.ops = NULL};
}

static ferrum_status_t rebuild(void *self, const ferrum_generation_t *next, ferrum_error_t *err)
{
    ferrum_session_t *session = self;
    return open_side(&next->ops, session->team, &session->other, err);
}

/* As large as the arrays are now, so that the first pass after the swap need not allocate. */
static ferrum_status_t migrate(void *self, uint32_t *requests, ferrum_error_t *err)
{
    ferrum_session_t *session = self;
    const ferrum_session_side_t *side = &session->side;
    ferrum_session_side_t *other = &session->other;
    ferrum_dtype_t act = other->ops->info.activation_dtype;
    (void)requests;
    FERRUM_TRY(side->ops->backend->context_sync(side->context, err));
    if (!side->x.buffer)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_device_array_reserve(other->ops, act, side->x.count, &other->x, err));
    FERRUM_TRY(ferrum_device_array_reserve(other->ops, act, side->out.count, &other->out, err));
    FERRUM_TRY(ferrum_device_array_reserve(other->ops, FERRUM_DTYPE_I32, side->ids.count,
                                           &other->ids, err));
    return ferrum_device_array_reserve(other->ops, FERRUM_DTYPE_F32, side->weights.count,
                                       &other->weights, err);
}

/* The old context goes at once: both use the team, which serves one context at a time. */
static void publish(void *self)
{
    ferrum_session_t *session = self;
    ferrum_session_side_t old = session->side;
    session->side = session->other;
    old.ops->backend->context_free(old.context);
    old.context = NULL;
    session->other = old;
}

static void discard(void *self)
{
    ferrum_session_t *session = self;
    close_side(&session->other);
}

static const ferrum_object_ops_t object_ops = {
    .rebuild = rebuild, .migrate = migrate, .publish = publish, .discard = discard};

/* ---- life ---- */

ferrum_status_t ferrum_session_make(ferrum_runtime_t *runtime, const ferrum_ops_t *ops,
                                    uint32_t threads, ferrum_session_t **out_session,
                                    ferrum_error_t *err)
{
    ferrum_session_t *session = calloc(1, sizeof *session);
    if (!session)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a session");
    session->runtime = runtime;
    atomic_init(&session->gate.word, 0);
    ferrum_status_t status = ferrum_team_new_pinned(
        threads ? threads : ferrum_runtime_threads(runtime),
        ferrum_team_choose_pin(ferrum_runtime_get_options(runtime)), &session->team, err);
    if (status == FERRUM_OK)
        status = open_side(ops, session->team, &session->side, err);
    if (status != FERRUM_OK) {
        ferrum_session_free(session);
        return status;
    }
    *out_session = session;
    return FERRUM_OK;
}

ferrum_status_t ferrum_session_new(ferrum_runtime_t *runtime, uint32_t threads,
                                   ferrum_session_t **out_session, ferrum_error_t *err)
{
    if (!runtime || !out_session)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "session_new needs a runtime and out_session");
    ferrum_registry_t *registry = ferrum_runtime_registry(runtime);
    ferrum_session_t *session = NULL;
    ferrum_registry_begin(registry);
    ferrum_status_t status =
        ferrum_session_make(runtime, ferrum_runtime_ops(runtime), threads, &session, err);
    if (status == FERRUM_OK) {
        ferrum_registry_add(registry, &session->object, &object_ops, session, &session->gate);
        *out_session = session;
    }
    ferrum_registry_end(registry);
    return status;
}

void ferrum_session_free(ferrum_session_t *session)
{
    if (!session)
        return;
    ferrum_registry_t *registry = ferrum_runtime_registry(session->runtime);
    if (session->object.ops) {
        ferrum_registry_begin(registry);
        ferrum_registry_remove(registry, &session->object);
        close_side(&session->side);
        ferrum_registry_end(registry);
    } else {
        close_side(&session->side);
    }
    ferrum_team_free(session->team);
    free(session);
}

ferrum_context_t *ferrum_session_context(const ferrum_session_t *session)
{
    return session->side.context;
}

ferrum_runtime_t *ferrum_session_runtime(const ferrum_session_t *session)
{
    return session->runtime;
}

const ferrum_executor_t *ferrum_session_executor(const ferrum_session_t *session)
{
    return ferrum_team_executor(session->team);
}
