/* SPDX-License-Identifier: MIT */
#include "host/runtime/session_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>

ferrum_status_t ferrum_session_new(ferrum_runtime_t *runtime, uint32_t threads,
                                   ferrum_session_t **out_session, ferrum_error_t *err)
{
    if (!runtime || !out_session)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "session_new needs a runtime and out_session");
    ferrum_session_t *session = calloc(1, sizeof *session);
    if (!session)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a session");
    session->runtime = runtime;
    const ferrum_ops_t *ops = ferrum_runtime_ops(runtime);
    ferrum_status_t status = ferrum_team_new_pinned(
        threads ? threads : ferrum_runtime_threads(runtime),
        ferrum_team_choose_pin(ferrum_runtime_get_options(runtime)), &session->team, err);
    if (status == FERRUM_OK)
        status = ops->backend->context_new(ops->device, ferrum_team_executor(session->team),
                                           &session->context, err);
    if (status != FERRUM_OK) {
        ferrum_session_free(session);
        return status;
    }
    *out_session = session;
    return FERRUM_OK;
}

void ferrum_session_free(ferrum_session_t *session)
{
    if (!session)
        return;
    const ferrum_ops_t *ops = ferrum_runtime_ops(session->runtime);
    ferrum_device_array_free(ops, &session->x);
    ferrum_device_array_free(ops, &session->out);
    ferrum_device_array_free(ops, &session->ids);
    ferrum_device_array_free(ops, &session->weights);
    if (session->context)
        ops->backend->context_free(session->context);
    ferrum_team_free(session->team);
    free(session);
}

ferrum_context_t *ferrum_session_context(const ferrum_session_t *session)
{
    return session->context;
}

ferrum_runtime_t *ferrum_session_runtime(const ferrum_session_t *session)
{
    return session->runtime;
}

const ferrum_executor_t *ferrum_session_executor(const ferrum_session_t *session)
{
    return ferrum_team_executor(session->team);
}
