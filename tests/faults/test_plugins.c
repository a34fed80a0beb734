/* SPDX-License-Identifier: MIT */
/* Faults while a plugin is found, opened, used and closed. */
#include "config.h"

#include "tests/loader/support.h"
#include "tests/support/faults.h"

#include <stdio.h>

static ferrum_test_path_t fixture, thread_fixture, dir;

static ferrum_status_t open_device(ferrum_module_t *module, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *b = ferrum_module_backend(module);
    ferrum_device_t *device;
    ferrum_context_t *ctx = NULL;
    ferrum_buffer_t *buffer = NULL;
    FERRUM_TRY(b->device_open(ferrum_module_host(module), NULL, &device, err));
    ferrum_status_t status = b->context_new(device, NULL, &ctx, err);
    if (status == FERRUM_OK)
        status = b->buffer_alloc(device, FERRUM_DTYPE_F32, 10, &buffer, err);
    b->buffer_release(buffer);
    b->context_free(ctx);
    b->device_release(device);
    return status;
}

/* By path, or by name when there is none. An unload without proof is a failure too. */
static ferrum_status_t open_plugin(const char *path, const char *name, ferrum_error_t *err)
{
    ferrum_options_t *options = NULL;
    ferrum_loader_t *loader = NULL;
    ferrum_module_t *module = NULL;
    ferrum_unload_report_t report = {.unloaded = 1};
    ferrum_status_t status = ferrum_options_new(&options, err);
    if (status == FERRUM_OK)
        status = ferrum_options_set(options, "FERRUM_PLUGIN_PATH", dir, err);
    if (status == FERRUM_OK)
        status = ferrum_loader_new(options, NULL, NULL, &loader, err);
    if (status == FERRUM_OK)
        status = path ? ferrum_loader_open(loader, path, &module, err)
                      : ferrum_loader_select(loader, name, &module, err);
    if (status == FERRUM_OK)
        status = open_device(module, err);
    ferrum_module_release(module, &report);
    ferrum_loader_free(loader);
    ferrum_options_free(options);
    if (status == FERRUM_OK && !report.unloaded)
        return ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "%s", report.detail);
    return status;
}

static ferrum_status_t by_path(ferrum_error_t *err)
{
    return open_plugin(fixture, NULL, err);
}

static ferrum_status_t by_name(ferrum_error_t *err)
{
    return open_plugin(NULL, "fixture", err);
}

/* Its threads are listed before and after. */
static ferrum_status_t with_threads(ferrum_error_t *err)
{
    return open_plugin(thread_fixture, NULL, err);
}

static ferrum_status_t list_candidates(ferrum_error_t *err)
{
    ferrum_loader_t *loader = NULL;
    ferrum_options_t *options = NULL;
    ferrum_candidate_t *list = NULL;
    size_t count = 0;
    log_capture_t log;
    capture_init(&log, FERRUM_LOG_WARN);
    ferrum_status_t status = ferrum_options_new(&options, err);
    if (status == FERRUM_OK)
        status = ferrum_options_set(options, "FERRUM_PLUGIN_PATH", dir, err);
    if (status == FERRUM_OK)
        status = ferrum_loader_new(options, NULL, &log.logger, &loader, err);
    if (status == FERRUM_OK)
        status = ferrum_loader_scan(loader, &list, &count, err);
    /* What is wrong with a file is said in its row of the list. */
    for (size_t i = 0; status == FERRUM_OK && i < count; i++)
        if (list[i].status != FERRUM_OK)
            status =
                ferrum_fail(err, list[i].status, FERRUM_REASON_OTHER, "%s", list[i].error.message);
    if (status == FERRUM_OK && strstr(log.text, "kept: "))
        status = ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "%s", log.text);
    ferrum_candidates_free(list);
    ferrum_loader_free(loader);
    ferrum_options_free(options);
    return status;
}

/* A directory that cannot be searched is skipped with a warning when another has the plugin. */
static const char *const asks_directories[] = {"open", NULL};
/* So is the probe of a file in a child process where none can be started, and what a probe showed
 * may be forgotten. */
static const char *const lists_directories[] = {"open",   "fstat", "fdopendir",
                                                "calloc", "read",  NULL};

/* When the look at /proc/self/maps after dlclose() fails, the plugin is kept: safe, and told. */
static const faults_operation_t operations[] = {
    {"open by path", by_path, NULL, 0, "kept: "},
    {"open by name", by_name, asks_directories, 0, "kept: "},
    {"open one that can start threads", with_threads, NULL, 0, "kept: "},
    {"list", list_candidates, lists_directories, 0, "kept: "},
};

static void setup(void)
{
    ferrum_test_path_t copy;
    plugin_path("fixture", fixture);
    plugin_path("fixture-thread", thread_fixture);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "fixture.so", copy);
    copy_file(fixture, copy);
}

static void teardown(void)
{
    ferrum_test_remove_directory(dir);
}

START_TEST(every_call_fails_once)
{
    long failures = faults_exhaust(&operations[_i]);
    printf("%s: %ld calls failed once\n", operations[_i].name, failures);
    ck_assert_int_gt(failures, 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults/plugins");
    TCase *tests = tcase_create("plugins");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, every_call_fails_once, 0, sizeof operations / sizeof operations[0]);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
