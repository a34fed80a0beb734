/* SPDX-License-Identifier: MIT */
/*
 * conformance [-v] [-t f32|f16|bf16] PLUGIN.so [GROUP ...]: open the plugin through the loader, run
 * the groups (with these activations), print every failure and a tally. Exit status 0 when nothing
 * failed, 77 when the plugin works but has no device here, 1 otherwise.
 */
#include "tests/conformance/conformance.h"

#include "host/runtime/executor.h"

#include <stdio.h>
#include <string.h>

const cf_group_t cf_groups[] = {
    {"objects", cf_group_objects},     {"buffers", cf_group_buffers},
    {"core", cf_group_core},           {"refusals", cf_group_refusals},
    {"attention", cf_group_attention}, {"paged", cf_group_paged},
    {"linear", cf_group_linear},       {"gptq", cf_group_gptq},
    {"stacked", cf_group_stacked},     {"marlin", cf_group_marlin},
    {"route", cf_group_route},         {"plan", cf_group_plan},
    {"combine", cf_group_combine},     {"ffn", cf_group_ffn},
    {"paths", cf_group_paths},         {"graph", cf_group_graph},
};
const size_t cf_group_count = sizeof cf_groups / sizeof cf_groups[0];

static void log_line(void *self, ferrum_log_level_t level, const char *message)
{
    (void)self;
    (void)level;
    fprintf(stderr, "%s\n", message);
}

/* What one stored output may be off by, relative to its row. */
static double tolerance_of(ferrum_dtype_t dtype)
{
    return dtype == FERRUM_DTYPE_F32 ? 5e-6 : dtype == FERRUM_DTYPE_F16 ? 5e-4 : 4e-3;
}

/* The dtype of a name; one that no device has if there is none. */
static ferrum_dtype_t dtype_named(const char *name)
{
    ferrum_dtype_t dtype = FERRUM_DTYPE_F32;
    while (dtype <= FERRUM_DTYPE_U8 && strcmp(name, ferrum_dtype_name(dtype)) != 0)
        dtype++;
    return dtype;
}

static bool wanted(const char *group, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], group) == 0)
            return true;
    return count == 0;
}

static int run_groups(cf_suite_t *suite, int count, char **names)
{
    for (size_t i = 0; i < cf_group_count; i++) {
        if (!wanted(cf_groups[i].name, count, names))
            continue;
        unsigned passed = suite->passed, failed = suite->failed, refused = suite->refused;
        cf_groups[i].run(suite);
        printf("%-10s %4u passed, %3u failed, %4u refused\n", cf_groups[i].name,
               suite->passed - passed, suite->failed - failed, suite->refused - refused);
    }
    printf("%s %s: %u passed, %u failed, %u refused\n", ferrum_module_name(suite->module),
           suite->info.name, suite->passed, suite->failed, suite->refused);
    return suite->failed == 0 && suite->passed > 0 ? 0 : 1;
}

/* Open device and context with a team of two, run, close. */
static int with_device(cf_suite_t *suite, int count, char **names)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_team_t *team = NULL;
    ferrum_status_t status = suite->be->device_open(ferrum_module_host(suite->module),
                                                    &suite->options, &suite->device, &err);
    if (status != FERRUM_OK) {
        printf("no device: %s\n", err.message);
        return status == FERRUM_UNSUPPORTED ? 77 : 1;
    }
    int rc = 1;
    suite->info.head.size = sizeof suite->info;
    status = suite->be->device_info(suite->device, &suite->info, &err);
    if (status == FERRUM_OK)
        status = ferrum_team_new(2, &team, &err);
    if (status == FERRUM_OK)
        status =
            suite->be->context_new(suite->device, ferrum_team_executor(team), &suite->ctx, &err);
    if (status == FERRUM_OK) {
        suite->tolerance = tolerance_of(suite->info.activation_dtype);
        rc = run_groups(suite, count, names);
    } else {
        printf("cannot set the device up: %s\n", err.message);
    }
    suite->be->context_free(suite->ctx);
    ferrum_team_free(team);
    suite->be->device_release(suite->device);
    return rc;
}

int main(int argc, char **argv)
{
    cf_suite_t suite = {.random = 1, .options = {.head = FERRUM_HEAD(ferrum_device_options_t)}};
    ferrum_logger_t logger = {FERRUM_HEAD(ferrum_logger_t), NULL, FERRUM_LOG_WARN, 0, log_line};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_loader_t *loader;
    ferrum_unload_report_t report;
    int at = 1;
    if (at < argc && strcmp(argv[at], "-v") == 0)
        suite.verbose = true, at++;
    if (at + 1 < argc && strcmp(argv[at], "-t") == 0) {
        suite.options.set_activation_dtype = 1;
        suite.options.activation_dtype = dtype_named(argv[at + 1]);
        at += 2;
    }
    if (at >= argc || argv[at][0] == '-') {
        fprintf(stderr, "usage: conformance [-v] [-t f32|f16|bf16] PLUGIN.so [GROUP ...]\n");
        return 2;
    }
    if (ferrum_loader_new(NULL, NULL, &logger, &loader, &err) != FERRUM_OK ||
        ferrum_loader_open(loader, argv[at], &suite.module, &err) != FERRUM_OK) {
        printf("%s\n", err.message);
        return 1;
    }
    suite.be = ferrum_module_backend(suite.module);
    suite.ql = ferrum_module_quant_llm(suite.module);
    suite.mf = ferrum_module_moe_fused(suite.module);
    int rc = with_device(&suite, argc - at - 1, argv + at + 1);
    ferrum_module_release(suite.module, &report);
    if (!report.unloaded && !report.pinned) {
        printf("FAIL     unload: %s\n", report.detail);
        rc = 1;
    }
    if (report.leaked_blocks > 0) {
        printf("FAIL     unload: %u blocks (%llu bytes) left allocated\n", report.leaked_blocks,
               (unsigned long long)report.leaked_bytes);
        rc = 1;
    }
    ferrum_loader_free(loader);
    return rc;
}
