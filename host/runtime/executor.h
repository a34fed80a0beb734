/* SPDX-License-Identifier: MIT */
/**
 * @file executor.h
 * @brief The thread team behind ferrum_executor_t: persistent workers, a counting barrier, and
 *        waits that spin briefly and then sleep.
 *
 * A region starts by raising an epoch word that workers wait on and ends at a barrier, which is
 * also what members call inside a region. The barrier is sense reversing, its sense being a phase
 * number. A wait spins for at most about 0.1 ms (not at all when the team has more members than the
 * process has processors), then sleeps on a condition variable, so an idle team costs nothing.
 */
#ifndef FERRUM_HOST_EXECUTOR_H
#define FERRUM_HOST_EXECUTOR_H

#include <ferrum/loader.h>

/** Largest team. */
#define FERRUM_TEAM_MAX_WIDTH 1024u

typedef struct ferrum_team ferrum_team_t;

/**
 * Start a team of @p width members (1 … FERRUM_TEAM_MAX_WIDTH), the caller of `run` being one of
 * them; the other threads block all signals. [any-thread]
 * Errors: INVALID_ARGUMENT (width), OUT_OF_MEMORY, RESOURCE_EXHAUSTED (no thread could be started).
 */
ferrum_status_t ferrum_team_new(uint32_t width, ferrum_team_t **out_team, ferrum_error_t *err);
/** Stop and join the workers; no region may be running. NULL is ignored. */
void ferrum_team_free(ferrum_team_t *team);
/** The interface that contexts use; lives as long as the team. [any-thread] */
const ferrum_executor_t *ferrum_team_executor(const ferrum_team_t *team);

/** Processors that this process may run on (its affinity mask), at least 1. [any-thread] */
uint32_t ferrum_team_processors(void);
/** @p asked if not 0, else FERRUM_THREADS if not 0, else the number of processors; at most
 *  FERRUM_TEAM_MAX_WIDTH. [any-thread] */
uint32_t ferrum_team_choose_width(uint32_t asked, const ferrum_options_t *options);

#endif /* FERRUM_HOST_EXECUTOR_H */
