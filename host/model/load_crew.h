/* SPDX-License-Identifier: MIT */
/**
 * @file load_crew.h
 * @brief Layers loaded on several threads, with one account of bytes and progress.
 *
 * Packing weights into a backend's own layout takes longer than reading them, so threads take
 * layers one by one. Loaders of backends are [any-thread]; what needs a context is not for here.
 */
#ifndef FERRUM_HOST_LOAD_CREW_H
#define FERRUM_HOST_LOAD_CREW_H

#include "host/model/weights.h"

/** Load item @p index. @p weights is this thread's own account of what @p arg loads from. */
typedef ferrum_status_t ferrum_load_fn(void *arg, ferrum_weights_t *weights, uint32_t index,
                                       ferrum_error_t *err);

/**
 * Call @p load for items 0 … count-1 on @p threads threads, the caller's among them, and add their
 * bytes to @p weights. Progress is reported on any of them, one report at a time. After a failure
 * nothing more is begun; of several failures that of the lowest item is returned.
 * Errors: those of @p load; CANCELLED; OUT_OF_MEMORY, RESOURCE_EXHAUSTED (threads).
 */
ferrum_status_t ferrum_load_crew_run(ferrum_weights_t *weights, uint32_t threads, uint32_t count,
                                     ferrum_load_fn *load, void *arg, ferrum_error_t *err);

#endif /* FERRUM_HOST_LOAD_CREW_H */
