/* SPDX-License-Identifier: MIT */
/* Which groups run, and the record of what they say. */
#include "tools/kit/run.h"

#include "plugin/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

static void add_fact(cf_outcome_t *outcome, const char *key, const char *value)
{
    size_t i = 0;
    while (i < outcome->fact_count && strcmp(outcome->facts[i].key, key) != 0)
        i++;
    if (i == sizeof outcome->facts / sizeof outcome->facts[0])
        return;
    snprintf(outcome->facts[i].key, sizeof outcome->facts[i].key, "%s", key);
    snprintf(outcome->facts[i].value, sizeof outcome->facts[i].value, "%s", value);
    ferrum_text_clean(outcome->facts[i].value);
    if (i == outcome->fact_count)
        outcome->fact_count++;
}

const char *cf_outcome_fact(const cf_outcome_t *outcome, const char *key)
{
    for (size_t i = 0; i < outcome->fact_count; i++)
        if (strcmp(outcome->facts[i].key, key) == 0)
            return outcome->facts[i].value;
    return "";
}

static bool add_result(cf_group_result_t *group, cf_event_t verdict, const char *label,
                       const char *text)
{
    if (group->count == group->capacity) {
        size_t capacity = group->capacity ? 2 * group->capacity : 64;
        cf_result_t *grown = realloc(group->results, capacity * sizeof *grown);
        if (grown == NULL)
            return false;
        group->results = grown;
        group->capacity = capacity;
    }
    cf_result_t result = {verdict, copy_text(label), copy_text(text)};
    group->results[group->count++] = result;
    if (result.text != NULL) /* it may quote the plugin */
        ferrum_text_clean(result.text);
    return result.label != NULL && result.text != NULL;
}

void cf_collect(void *arg, cf_event_t event, const char *label, const char *text)
{
    cf_collector_t *collector = arg;
    cf_group_result_t *group = collector->group;
    switch (event) {
    case CF_FACT:
        add_fact(collector->outcome, label, text);
        return;
    case CF_BEGIN:
        snprintf(collector->running, sizeof collector->running, "%s", label);
        return;
    case CF_SKIPPED:
        snprintf(group->skipped, sizeof group->skipped, "%s", text);
        ferrum_text_clean(group->skipped);
        return;
    default:
        group->tally[event]++;
        if (!add_result(group, event, label, text))
            collector->out_of_memory = true;
    }
}

static bool is_wanted(const cf_plan_t *plan, size_t index)
{
    const char **names = plan->groups;
    if (index == 0 || names == NULL || names[0] == NULL)
        return true;
    for (size_t i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], cf_groups[index].name) == 0)
            return true;
    return false;
}

bool cf_run_plan(const cf_plan_t *plan, cf_outcome_t *out_outcome)
{
    cf_outcome_t *outcome = out_outcome;
    memset(outcome, 0, sizeof *outcome);
    outcome->groups = calloc(cf_group_count, sizeof *outcome->groups);
    if (outcome->groups == NULL)
        return false;
    bool hopeless = false; /* whatever would be opened after this goes the same way */
    for (size_t i = 0; i < cf_group_count && !outcome->interrupted; i++) {
        if (!is_wanted(plan, i))
            continue;
        if (hopeless) {
            outcome->groups_skipped++;
            continue;
        }
        cf_group_result_t *group = &outcome->groups[outcome->group_count++];
        cf_collector_t collector = {.outcome = outcome, .group = group};
        group->group = &cf_groups[i];
        if (plan->in_process)
            cf_run_group(&cf_groups[i], plan->path, &plan->settings, cf_collect, &collector);
        else
            cf_run_child(plan, &cf_groups[i], &collector);
        if (collector.out_of_memory)
            return false;
        hopeless = i == 0 && (collector.died || cf_outcome_fact(outcome, "name")[0] == '\0');
        for (int e = 0; e < CF_EVENT_COUNT; e++)
            outcome->tally[e] += group->tally[e];
        outcome->groups_skipped += group->skipped[0] != '\0';
        outcome->interrupted = plan->interrupted != NULL && *plan->interrupted;
        if (plan->on_group != NULL)
            plan->on_group(plan->on_group_arg, outcome, group);
    }
    return true;
}

void cf_outcome_free(cf_outcome_t *outcome)
{
    for (size_t g = 0; g < outcome->group_count; g++) {
        for (size_t i = 0; i < outcome->groups[g].count; i++) {
            free(outcome->groups[g].results[i].label);
            free(outcome->groups[g].results[i].text);
        }
        free(outcome->groups[g].results);
    }
    free(outcome->groups);
    memset(outcome, 0, sizeof *outcome);
}
