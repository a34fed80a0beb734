/* SPDX-License-Identifier: MIT */
/**
 * @file swap_steps.h
 * @brief The steps of a swap that work on the objects of a runtime. Each holds the registry's lock
 *        no longer than it says.
 */
#ifndef FERRUM_HOST_SWAP_STEPS_H
#define FERRUM_HOST_SWAP_STEPS_H

#include <ferrum/swap.h>

#include "host/runtime/runtime_internal.h"

/** A swap that runs. */
typedef struct ferrum_swap {
    ferrum_runtime_t *runtime;
    ferrum_registry_t *registry;
    ferrum_swap_options_t options;
    ferrum_generation_t *old, *next;
    ferrum_swap_report_t report;
} ferrum_swap_t;

/** Ask the caller's progress, and whether the runtime is being closed, before @p step.
 *  Errors: CANCELLED. */
ferrum_status_t ferrum_swap_ask(ferrum_swap_t *swap, ferrum_swap_step_t step, uint32_t done,
                                uint32_t total, ferrum_error_t *err);

/** Steps 2 and 3: build and try the other side of each object that lacks it. Objects cannot be
 *  freed while they are worked on; nothing else waits. */
ferrum_status_t ferrum_swap_rebuild(ferrum_swap_t *swap, ferrum_error_t *err);
ferrum_status_t ferrum_swap_self_test(ferrum_swap_t *swap, ferrum_error_t *err);
/** Steps 4 to 6. Sessions are held only while all of them are being brought to a stop, which is
 *  tried with growing patience, and during the exchange itself. */
ferrum_status_t ferrum_swap_exchange(ferrum_swap_t *swap, ferrum_error_t *err);
/** Release the side of every object that does not serve. */
void ferrum_swap_discard(ferrum_swap_t *swap);

#endif /* FERRUM_HOST_SWAP_STEPS_H */
