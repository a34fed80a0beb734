/* SPDX-License-Identifier: MIT */
/**
 * @file session_internal.h
 * @brief The fields of a session, for the code that works on its staging buffers, and how it is
 *        moved to another generation.
 */
#ifndef FERRUM_HOST_SESSION_INTERNAL_H
#define FERRUM_HOST_SESSION_INTERNAL_H

#include "host/runtime/arrays.h"
#include "host/runtime/executor.h"
#include "host/runtime/runtime_internal.h"

/** What a session has on one generation. The arrays are where the layer tier puts the caller's
 *  host arrays; they only grow. */
typedef struct ferrum_session_side {
    const ferrum_ops_t *ops; /**< NULL: this side does not exist */
    ferrum_context_t *context;
    ferrum_device_array_t x;       /**< act [tokens, hidden] */
    ferrum_device_array_t out;     /**< act [tokens, hidden] */
    ferrum_device_array_t ids;     /**< i32 [tokens, top_k] */
    ferrum_device_array_t weights; /**< f32 [tokens, top_k] */
} ferrum_session_side_t;

struct ferrum_session {
    ferrum_runtime_t *runtime;
    ferrum_team_t *team;
    ferrum_gate_t gate;
    ferrum_object_t object;
    ferrum_session_side_t side;  /**< serves; read by a pass that holds the gate */
    ferrum_session_side_t other; /**< of a swap */
};

/** A session on @p ops that no swap knows: for a trial of another generation. */
ferrum_status_t ferrum_session_make(ferrum_runtime_t *runtime, const ferrum_ops_t *ops,
                                    uint32_t threads, ferrum_session_t **out_session,
                                    ferrum_error_t *err);

/** Begin and end a forward pass. [one-per-session] Errors: BUSY. */
static inline ferrum_status_t ferrum_session_enter(ferrum_session_t *session, ferrum_error_t *err)
{
    return ferrum_gate_enter(ferrum_runtime_registry(session->runtime), &session->gate, err);
}
static inline void ferrum_session_leave(ferrum_session_t *session)
{
    ferrum_gate_leave(ferrum_runtime_registry(session->runtime), &session->gate);
}

#endif /* FERRUM_HOST_SESSION_INTERNAL_H */
