/* SPDX-License-Identifier: MIT */
/**
 * @file session_internal.h
 * @brief The fields of a session, for the code that works on its staging buffers.
 */
#ifndef FERRUM_HOST_SESSION_INTERNAL_H
#define FERRUM_HOST_SESSION_INTERNAL_H

#include "host/runtime/arrays.h"
#include "host/runtime/executor.h"
#include "host/runtime/runtime_internal.h"

struct ferrum_session {
    ferrum_runtime_t *runtime;
    ferrum_team_t *team;
    ferrum_context_t *context;
    /* Where the layer tier puts the caller's host arrays; they only grow. */
    ferrum_device_array_t x;       /**< act [tokens, hidden] */
    ferrum_device_array_t out;     /**< act [tokens, hidden] */
    ferrum_device_array_t ids;     /**< i32 [tokens, top_k] */
    ferrum_device_array_t weights; /**< f32 [tokens, top_k] */
};

#endif /* FERRUM_HOST_SESSION_INTERNAL_H */
