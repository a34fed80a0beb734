/* SPDX-License-Identifier: MIT */
/* `ferrum check-plugin`: the conformance suite on any plugin, reported as text, JSON or TAP. */
#include "tools/ferrum/check_report.h"
#include "tools/ferrum/cli.h"

#include <ferrum/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Flags of the verb, as popt leaves them. */
typedef struct flags {
    int json, tap, each, list, in_process, cycles, timeout;
    char *activation;
} flags_t;

static int list_groups(void)
{
    for (size_t i = 0; i < cf_group_count; i++)
        printf("%-12s %s\n", cf_groups[i].name, cf_groups[i].about);
    return cli_finish_output();
}

static bool is_group(const char *name)
{
    for (size_t i = 0; i < cf_group_count; i++)
        if (strcmp(name, cf_groups[i].name) == 0)
            return true;
    return false;
}

static int check_flags(const flags_t *flags, const char *path, const char **groups,
                       cf_settings_t *settings)
{
    if (path == NULL)
        return cli_error(CLI_USAGE, "check-plugin needs the file of a plugin");
    for (size_t i = 0; groups != NULL && groups[i] != NULL; i++)
        if (!is_group(groups[i]))
            return cli_error(CLI_USAGE,
                             "there is no group \"%s\"; ferrum check-plugin --list names them",
                             groups[i]);
    if (flags->json && flags->tap)
        return cli_error(CLI_USAGE, "--json and --tap exclude each other");
    if (flags->cycles < 1 || flags->timeout < 1)
        return cli_error(CLI_USAGE, "--cycles and --timeout must be at least 1");
    if (flags->activation != NULL) {
        ferrum_dtype_t dtype = FERRUM_DTYPE_F32;
        while (dtype <= FERRUM_DTYPE_BF16 &&
               strcmp(flags->activation, ferrum_dtype_name(dtype)) != 0)
            dtype++;
        if (dtype > FERRUM_DTYPE_BF16)
            return cli_error(CLI_USAGE, "--activation is f32, f16 or bf16, not \"%s\"",
                             flags->activation);
        settings->set_dtype = true;
        settings->dtype = dtype;
    }
    settings->cycles = (uint32_t)flags->cycles;
    return CLI_OK;
}

static int verdict(const cf_outcome_t *outcome)
{
    if (outcome->interrupted)
        return CLI_INTERRUPTED;
    if (outcome->tally[CF_FAILED] > 0)
        return CLI_FAILED;
    return outcome->groups_skipped > 0 ? CLI_SKIPPED : CLI_OK;
}

static int check(const flags_t *flags, const char *path, const char **groups,
                 cf_settings_t *settings)
{
    const check_report_t *report = flags->json  ? &check_report_json
                                   : flags->tap ? &check_report_tap
                                                : &check_report_text;
    check_style_t style = {.each = flags->each != 0, .path = path};
    cf_plan_t plan = {.path = path,
                      .groups = groups,
                      .settings = *settings,
                      .timeout_s = (uint32_t)flags->timeout,
                      .in_process = flags->in_process != 0,
                      .interrupted = &cli_interrupted,
                      .on_group = report->group,
                      .on_group_arg = &style};
    cf_outcome_t outcome;
    int rc = CLI_FAILED;
    if (access(path, R_OK) != 0)
        return cli_error(CLI_BACKEND, "%s cannot be read", path);
    if (cf_run_plan(&plan, &outcome)) {
        rc = verdict(&outcome);
        report->end(&style, &outcome, rc);
        if (cli_finish_output() != CLI_OK)
            rc = CLI_FAILED;
    } else {
        rc = cli_error(CLI_RESOURCES, "out of memory");
    }
    cf_outcome_free(&outcome);
    return rc;
}

int cli_check_plugin(int argc, const char **argv)
{
    flags_t flags = {.cycles = 1000, .timeout = 60};
    const struct poptOption table[] = {
        {"list", 'l', POPT_ARG_NONE, &flags.list, 0, "name the groups of checks", NULL},
        {"each", 'e', POPT_ARG_NONE, &flags.each, 0, "print every check, not only failures", NULL},
        {"json", '\0', POPT_ARG_NONE, &flags.json, 0, "one JSON object", NULL},
        {"tap", '\0', POPT_ARG_NONE, &flags.tap, 0, "Test Anything Protocol", NULL},
        {"activation", 'a', POPT_ARG_STRING, &flags.activation, 0,
         "ask the device for f32, f16 or bf16 (default: its own choice)", "DTYPE"},
        {"cycles", 'c', POPT_ARG_INT, &flags.cycles, 0,
         "rounds of opening and closing (default: 1000)", "N"},
        {"timeout", 't', POPT_ARG_INT, &flags.timeout, 0,
         "seconds without progress that count as a hang (default: 60)", "S"},
        {"in-process", '\0', POPT_ARG_NONE, &flags.in_process, 0,
         "no child processes, for debuggers: a crash ends the program", NULL},
        {"verbose", 'v', POPT_ARG_NONE, &cli_backend.verbose, 0, "log everything to stderr", NULL},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc =
        cli_parse(argc, argv, table, "check-plugin [OPTIONS] FILE.so [GROUP ...]", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    if (flags.list) {
        rc = list_groups();
    } else {
        cf_settings_t settings = {.logger = NULL};
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_options_t *options = NULL;
        const char *path = poptGetArg(context), **groups = poptGetArgs(context);
        rc = check_flags(&flags, path, groups, &settings);
        ferrum_status_t status = rc == CLI_OK ? cli_options(&options, &err) : FERRUM_OK;
        if (status != FERRUM_OK)
            rc = cli_fail(&err, status, CLI_USAGE);
        if (rc == CLI_OK) {
            settings.options = options;
            settings.logger = cli_logger(options);
            rc = check(&flags, path, groups, &settings);
        }
        ferrum_options_free(options);
    }
    poptFreeContext(context);
    free(flags.activation);
    return rc;
}
