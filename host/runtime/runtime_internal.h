/* SPDX-License-Identifier: MIT */
/**
 * @file runtime_internal.h
 * @brief What the other parts of libferrum may ask of a runtime and a session, beyond moe.h.
 */
#ifndef FERRUM_HOST_RUNTIME_INTERNAL_H
#define FERRUM_HOST_RUNTIME_INTERNAL_H

#include <ferrum/moe.h>

#include "host/moe/moe_env.h"
#include "host/runtime/ops.h"

/** The runtime's device and tables; lives as long as the runtime. [any-thread] */
const ferrum_ops_t *ferrum_runtime_ops(const ferrum_runtime_t *runtime);
/** The MoE options, parsed once when the runtime was opened. [any-thread] */
const ferrum_moe_env_t *ferrum_runtime_moe_env(const ferrum_runtime_t *runtime);
/** The session's team of threads. [any-thread] */
const ferrum_executor_t *ferrum_session_executor(const ferrum_session_t *session);

#endif /* FERRUM_HOST_RUNTIME_INTERNAL_H */
