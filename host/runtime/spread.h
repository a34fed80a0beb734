/* SPDX-License-Identifier: MIT */
/**
 * @file spread.h
 * @brief The threads that a runtime lends to its plugin while weights are loaded.
 *
 * One object at a time has them: whoever comes meanwhile works alone, and so do those who load for
 * a crew of threads, or for a swap that must not disturb. Threads live as long as one object loads.
 */
#ifndef FERRUM_HOST_SPREAD_H
#define FERRUM_HOST_SPREAD_H

#include <ferrum/host.h>

#include <stdatomic.h>
#include <stdbool.h>

typedef struct ferrum_spread {
    uint32_t width;   /**< of a team, the caller included */
    atomic_bool busy; /**< somebody has the threads, or keeps them from being used */
} ferrum_spread_t;

/** A ferrum_spread_fn. [any-thread] */
void ferrum_spread_run(void *self, ferrum_task_fn *fn, void *arg);

/** Keep others from using the threads; false when somebody does already, and then there is nothing
 *  to give back. [any-thread] */
static inline bool ferrum_spread_hold(ferrum_spread_t *spread)
{
    return !atomic_exchange(&spread->busy, true);
}

static inline void ferrum_spread_give_back(ferrum_spread_t *spread, bool held)
{
    if (held)
        atomic_store(&spread->busy, false);
}

#endif /* FERRUM_HOST_SPREAD_H */
