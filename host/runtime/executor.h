/* SPDX-License-Identifier: MIT */
/**
 * @file executor.h
 * @brief The thread team behind ferrum_executor_t: persistent workers, a counting barrier, and
 *        waits that spin briefly and then sleep.
 *
 * A region starts by raising an epoch word that workers wait on and ends at a barrier, which is
 * also what members call inside a region. The barrier is sense reversing, its sense being a phase
 * number. A wait spins for at most about 50 us (not at all when the team has more members than the
 * process has processors), then sleeps on a futex, so an idle team costs nothing.
 *
 * Pinning keeps the system from putting two members on one core. It is done by default only for a
 * team that has a member for every allowed core: several smaller teams, or processes, would all be
 * pinned to the same cores and leave others idle. The caller's own thread is never touched; the
 * first core of the list is left to it.
 */
#ifndef FERRUM_HOST_EXECUTOR_H
#define FERRUM_HOST_EXECUTOR_H

#include <ferrum/loader.h>

/** Largest team. */
#define FERRUM_TEAM_MAX_WIDTH 1024u

typedef struct ferrum_team ferrum_team_t;

/** When the threads that a team starts are bound to a processor each, one per core first. */
typedef enum ferrum_pin {
    FERRUM_PIN_NEVER,
    FERRUM_PIN_FULL, /**< when the team has a member for every core of the affinity mask */
    FERRUM_PIN_ALWAYS
} ferrum_pin_t;

/**
 * Start a team of @p width members (1 … FERRUM_TEAM_MAX_WIDTH), the caller of `run` being one of
 * them; the other threads block all signals. [any-thread]
 * Errors: INVALID_ARGUMENT (width), OUT_OF_MEMORY, RESOURCE_EXHAUSTED (no thread could be started,
 * or not where it was to be pinned).
 */
ferrum_status_t ferrum_team_new_pinned(uint32_t width, ferrum_pin_t pin, ferrum_team_t **out_team,
                                       ferrum_error_t *err);
/** The same, never pinned. */
ferrum_status_t ferrum_team_new(uint32_t width, ferrum_team_t **out_team, ferrum_error_t *err);
/** Stop and join the workers; no region may be running. NULL is ignored. */
void ferrum_team_free(ferrum_team_t *team);
/** The interface that contexts use; lives as long as the team. [any-thread] */
const ferrum_executor_t *ferrum_team_executor(const ferrum_team_t *team);

/** @p asked if not 0, else FERRUM_THREADS if not 0, else one thread for each core of the affinity
 *  mask, but no more than the control group's share of time; at most FERRUM_TEAM_MAX_WIDTH.
 *  [any-thread] */
uint32_t ferrum_team_choose_width(uint32_t asked, const ferrum_options_t *options);
/** What FERRUM_PIN says: 0 never, 1 always, unset FERRUM_PIN_FULL. [any-thread] */
ferrum_pin_t ferrum_team_choose_pin(const ferrum_options_t *options);

#endif /* FERRUM_HOST_EXECUTOR_H */
