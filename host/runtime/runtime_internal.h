/* SPDX-License-Identifier: MIT */
/**
 * @file runtime_internal.h
 * @brief What the other parts of libferrum may ask of a runtime and a session, beyond moe.h.
 */
#ifndef FERRUM_HOST_RUNTIME_INTERNAL_H
#define FERRUM_HOST_RUNTIME_INTERNAL_H

#include <ferrum/moe.h>

#include "host/moe/moe_env.h"
#include "host/runtime/registry.h"
#include "host/runtime/spread.h"

/** What serves: until the end of an object's making (ferrum_registry_begin) or of a pass, or for
 *  whoever swaps. [any-thread] */
ferrum_generation_t *ferrum_runtime_serving(const ferrum_runtime_t *runtime);
/** Its device and tables, for as long. [any-thread] */
const ferrum_ops_t *ferrum_runtime_ops(const ferrum_runtime_t *runtime);
/** Exchange it; every gate is closed. */
void ferrum_runtime_serve(ferrum_runtime_t *runtime, ferrum_generation_t *generation);
/** A plugin of this runtime stays mapped and may still use the host's memory: keep that too. Called
 *  by the swap that runs. */
void ferrum_runtime_note_zombie(ferrum_runtime_t *runtime);
/** [any-thread] */
ferrum_registry_t *ferrum_runtime_registry(ferrum_runtime_t *runtime);
/** [any-thread] */
ferrum_loader_t *ferrum_runtime_loader(const ferrum_runtime_t *runtime);
/** The MoE options, parsed once when the runtime was opened. [any-thread] */
const ferrum_moe_env_t *ferrum_runtime_moe_env(const ferrum_runtime_t *runtime);
/** The threads that plugins may borrow. [any-thread] */
ferrum_spread_t *ferrum_runtime_spread(ferrum_runtime_t *runtime);
/** The session's team of threads. [any-thread] */
const ferrum_executor_t *ferrum_session_executor(const ferrum_session_t *session);

#endif /* FERRUM_HOST_RUNTIME_INTERNAL_H */
