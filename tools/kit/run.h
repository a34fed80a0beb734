/* SPDX-License-Identifier: MIT */
/**
 * @file run.h
 * @brief Runs the groups of the suite, each in a child process, and keeps what they say.
 *
 * The parent never opens the plugin. A group that crashes, exits or stops making progress is a
 * failure that names the case it happened in; the next group gets a process of its own.
 */
#ifndef FERRUM_KIT_RUN_H
#define FERRUM_KIT_RUN_H

#include "tools/kit/kit.h"

#include <signal.h>

/** One finished case, or a piece of advice. */
typedef struct cf_result {
    cf_event_t verdict; /**< PASSED, REFUSED, FAILED or ADVICE */
    char *label;
    char *text; /**< reason or failure; "" */
} cf_result_t;

/** What a group came to. */
typedef struct cf_group_result {
    const cf_group_t *group;
    unsigned tally[CF_EVENT_COUNT];
    cf_result_t *results;
    size_t count, capacity;
    char skipped[256]; /**< why it could not run; "" when it ran */
} cf_group_result_t;

/** A line about the plugin. */
typedef struct cf_fact {
    char key[16];
    char value[320];
} cf_fact_t;

/** What a run came to. */
typedef struct cf_outcome {
    cf_group_result_t *groups; /**< those that ran or were skipped, in order */
    size_t group_count;
    cf_fact_t facts[12];
    size_t fact_count;
    unsigned tally[CF_EVENT_COUNT]; /**< sums over the groups */
    unsigned groups_skipped;
    bool interrupted;
} cf_outcome_t;

/** Which groups are run, and how. */
typedef struct cf_plan {
    const char *path;
    const char **groups; /**< names, NULL-terminated; empty: all. identity always runs */
    cf_settings_t settings;
    uint32_t timeout_s; /**< a case that takes longer is a hang */
    bool in_process;    /**< no children: for debuggers */
    const volatile sig_atomic_t *interrupted;
    /** Called when a group is done. */
    void (*on_group)(void *arg, const cf_outcome_t *outcome, const cf_group_result_t *group);
    void *on_group_arg;
} cf_plan_t;

/** Run the plan; false when memory has run out. Free the outcome in either case. */
bool cf_run_plan(const cf_plan_t *plan, cf_outcome_t *out_outcome);
void cf_outcome_free(cf_outcome_t *outcome);
/** Value of a fact; "" when it was not found out. */
const char *cf_outcome_fact(const cf_outcome_t *outcome, const char *key);

/** A group's record of one event, as the report function of an in-process run: @p arg is the
 *  cf_collector_t of the running group. */
typedef struct cf_collector {
    cf_outcome_t *outcome;
    cf_group_result_t *group;
    char running[160]; /**< the case that has begun and not ended */
    bool out_of_memory;
    bool died; /**< the child crashed, hung or left */
} cf_collector_t;
void cf_collect(void *arg, cf_event_t event, const char *label, const char *text);

/** Run @p group in a child process, watched; events arrive in @p collector. */
void cf_run_child(const cf_plan_t *plan, const cf_group_t *group, cf_collector_t *collector);

#endif /* FERRUM_KIT_RUN_H */
