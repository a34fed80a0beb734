/* SPDX-License-Identifier: MIT */
#include "tools/ferrum/check_report.h"
#include "tools/ferrum/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- text: a line per group, failures with what to look at ---- */

static void print_fact(const cf_outcome_t *outcome, const char *key)
{
    const char *value = cf_outcome_fact(outcome, key);
    if (value[0] != '\0')
        printf("  %-8s %s\n", key, value);
}

static void print_facts(const check_style_t *style, const cf_outcome_t *outcome)
{
    const char *name = cf_outcome_fact(outcome, "name");
    if (name[0] == '\0') {
        printf("%s\n", style->path);
        return;
    }
    printf("%s %s: %s\n", name, cf_outcome_fact(outcome, "version"),
           cf_outcome_fact(outcome, "about"));
    printf("  file     %s\n", style->path);
    print_fact(outcome, "abi");
    print_fact(outcome, "license");
    print_fact(outcome, "machine");
    print_fact(outcome, "pinned");
}

static void print_case(const cf_group_result_t *group, const cf_result_t *result, bool each)
{
    static const char *const words[CF_EVENT_COUNT] = {
        [CF_PASSED] = "ok", [CF_REFUSED] = "refused", [CF_FAILED] = "FAILED", [CF_ADVICE] = "note"};
    if (!each && (result->verdict == CF_PASSED || result->verdict == CF_REFUSED))
        return;
    printf("    %-7s %s: %s%s%s\n", words[result->verdict], group->group->name, result->label,
           result->text[0] ? ": " : "", result->text);
}

static void text_group(void *arg, const cf_outcome_t *outcome, const cf_group_result_t *group)
{
    check_style_t *style = arg;
    if (!style->begun)
        print_facts(style, outcome);
    style->begun = true;
    printf("  %-12s", group->group->name);
    if (group->skipped[0] != '\0')
        printf(" not run: %s", group->skipped);
    else
        printf(" %5u passed %5u refused %5u failed", group->tally[CF_PASSED],
               group->tally[CF_REFUSED], group->tally[CF_FAILED]);
    printf("\n");
    for (size_t i = 0; i < group->count; i++)
        print_case(group, &group->results[i], style->each);
    if (group->tally[CF_FAILED] > 0)
        printf("    remedy  %s\n", group->group->remedy);
    fflush(stdout);
}

static void text_end(check_style_t *style, const cf_outcome_t *outcome, int rc)
{
    (void)style;
    printf("%s: %u passed, %u refused with a reason, %u failed",
           rc == CLI_OK            ? "conforms"
           : rc == CLI_SKIPPED     ? "nothing wrong so far"
           : rc == CLI_INTERRUPTED ? "interrupted"
                                   : "does not conform",
           outcome->tally[CF_PASSED], outcome->tally[CF_REFUSED], outcome->tally[CF_FAILED]);
    if (outcome->groups_skipped > 0)
        printf(", %u groups not run", outcome->groups_skipped);
    printf("\n");
}

const check_report_t check_report_text = {text_group, text_end};

/* ---- TAP ---- */

static void tap_line(check_style_t *style, bool good, const char *group, const char *label,
                     const char *directive, const char *text)
{
    printf("%s %u - %s: ", good ? "ok" : "not ok", ++style->number, group);
    for (; *label != '\0'; label++) {
        if (*label == '#' || *label == '\\')
            putchar('\\');
        putchar(*label);
    }
    printf("%s%s\n", directive, directive[0] ? text : "");
    if (!good)
        printf("# %s\n", text);
}

static void tap_group(void *arg, const cf_outcome_t *outcome, const cf_group_result_t *group)
{
    check_style_t *style = arg;
    const char *name = group->group->name;
    (void)outcome;
    if (!style->begun)
        printf("TAP version 13\n");
    style->begun = true;
    if (group->skipped[0] != '\0')
        tap_line(style, true, name, "all", " # SKIP ", group->skipped);
    for (size_t i = 0; i < group->count; i++) {
        const cf_result_t *r = &group->results[i];
        if (r->verdict == CF_ADVICE)
            printf("# %s: %s: %s\n", name, r->label, r->text);
        else
            tap_line(style, r->verdict != CF_FAILED, name, r->label,
                     r->verdict == CF_REFUSED ? " # SKIP " : "", r->text);
    }
    fflush(stdout);
}

static void tap_end(check_style_t *style, const cf_outcome_t *outcome, int rc)
{
    (void)outcome;
    if (rc == CLI_INTERRUPTED)
        printf("Bail out! interrupted\n");
    else
        printf("1..%u\n", style->number);
}

const check_report_t check_report_tap = {tap_group, tap_end};

/* ---- JSON ---- */

static void json_group(void *arg, const cf_outcome_t *outcome, const cf_group_result_t *group)
{
    (void)arg;
    (void)outcome;
    (void)group;
}

static json_t *cases_json(const cf_group_result_t *group)
{
    static const char *const words[CF_EVENT_COUNT] = {[CF_PASSED] = "passed",
                                                      [CF_REFUSED] = "refused",
                                                      [CF_FAILED] = "failed",
                                                      [CF_ADVICE] = "note"};
    json_t *cases = json_array();
    for (size_t i = 0; i < group->count; i++) {
        const cf_result_t *r = &group->results[i];
        json_t *one = json_pack("{s:s, s:s}", "name", r->label, "result", words[r->verdict]);
        if (one != NULL && r->text[0] != '\0')
            json_object_set_new(one, "text", json_stringn_nocheck(r->text, strlen(r->text)));
        json_array_append_new(cases, one);
    }
    return cases;
}

static void json_end(check_style_t *style, const cf_outcome_t *outcome, int rc)
{
    json_t *facts = json_object(), *groups = json_array();
    for (size_t i = 0; i < outcome->fact_count; i++)
        json_object_set_new(facts, outcome->facts[i].key, json_string(outcome->facts[i].value));
    for (size_t g = 0; g < outcome->group_count; g++) {
        const cf_group_result_t *group = &outcome->groups[g];
        json_t *one =
            json_pack("{s:s, s:s, s:i, s:i, s:i, s:o}", "name", group->group->name, "about",
                      group->group->about, "passed", (int)group->tally[CF_PASSED], "refused",
                      (int)group->tally[CF_REFUSED], "failed", (int)group->tally[CF_FAILED],
                      "checks", cases_json(group));
        if (one != NULL && group->skipped[0] != '\0')
            json_object_set_new(one, "not_run", json_string(group->skipped));
        if (one != NULL && group->tally[CF_FAILED] > 0)
            json_object_set_new(one, "remedy", json_string(group->group->remedy));
        json_array_append_new(groups, one);
    }
    json_t *root =
        json_pack("{s:s, s:o, s:o, s:i, s:i, s:i, s:b, s:i}", "file", style->path, "plugin", facts,
                  "groups", groups, "passed", (int)outcome->tally[CF_PASSED], "refused",
                  (int)outcome->tally[CF_REFUSED], "failed", (int)outcome->tally[CF_FAILED],
                  "conforms", rc == CLI_OK, "exit_status", rc);
    if (root != NULL)
        json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

const check_report_t check_report_json = {json_group, json_end};
