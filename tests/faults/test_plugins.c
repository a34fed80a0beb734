/* SPDX-License-Identifier: MIT */
/* Faults while a plugin is found, opened, used and closed. */
#include "config.h"

#include "tests/loader/support.h"
#include "tests/support/faults.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static ferrum_test_path_t fixture, thread_fixture, dir, fresh_dir, records, fresh, helper;
static int fresh_fd;
static off_t fresh_bytes;

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

/* The probe crashes, which is what is wanted here, and is put in quarantine. */
static ferrum_status_t probe_that_crashes(ferrum_error_t *err)
{
    static uint32_t contents; /* nobody reads what lies behind the ELF file's tables */
    const char *const settings[][2] = {
        {"FERRUM_CACHE_DIR", dir}, {"FERRUM_PROBE", "child"}, {"FERRUM_PROBE_PROGRAM", helper}};
    ferrum_error_t crash = FERRUM_ERROR_INIT;
    ferrum_loader_t *loader = NULL;
    ferrum_options_t *options = NULL;
    ferrum_module_t *module = NULL;
    ferrum_status_t status = ferrum_options_new(&options, err);
    for (int i = 0; i < 3 && status == FERRUM_OK; i++)
        status = ferrum_options_set(options, settings[i][0], settings[i][1], err);
    if (status == FERRUM_OK)
        status = ferrum_loader_new(options, NULL, NULL, &loader, err);
    if (status == FERRUM_OK) {
        status = ferrum_loader_open(loader, fresh, &module, &crash);
        const char *record = strstr(crash.message, "to try it again, delete ");
        if (status == FERRUM_BAD_PLUGIN && strstr(crash.message, "crashed with signal 11")) {
            status = FERRUM_OK;
            if (!record) { /* it could not be written: only this process knows */
                contents++;
                if (pwrite(fresh_fd, &contents, sizeof contents, fresh_bytes) < 0)
                    status = FERRUM_IO;
            } else if (unlink(record + strlen("to try it again, delete ")) != 0) {
                status = FERRUM_INTERNAL;
            }
        } else {
            status = ferrum_fail(err, status, crash.reason, "%s", crash.message);
        }
    }
    ferrum_loader_free(loader);
    ferrum_options_free(options);
    return status;
}

static ferrum_status_t from_env(ferrum_error_t *err)
{
    ferrum_options_t *options = NULL;
    FERRUM_TRY(ferrum_options_from_env(NULL, &options, err));
    ferrum_options_free(options);
    return FERRUM_OK;
}

/* A directory that cannot be searched is skipped with a warning when another has the plugin. */
static const char *const asks_directories[] = {"open", NULL};
/* So is the probe of a file in a child process where none can be started, and what a probe showed
 * may be forgotten. */
static const char *const lists_directories[] = {"open",
                                                "fstat",
                                                "fdopendir",
                                                "calloc",
                                                "read",
                                                "pipe2",
                                                "posix_spawn",
                                                "posix_spawn_file_actions_init",
                                                "posix_spawn_file_actions_addopen",
                                                "posix_spawn_file_actions_adddup2",
                                                "posix_spawnattr_init",
                                                "posix_spawnattr_setsigmask",
                                                "posix_spawnattr_setsigdefault",
                                                "posix_spawnattr_setflags",
                                                NULL};
/* A quarantine that cannot be looked at is taken for empty; a record that cannot be written is kept
 * in memory, for ever; how far the child came is also known without its last word. */
static const char *const quarantines[] = {"open",  "fstat", "fdopendir", "calloc",
                                          "write", "read",  NULL};

/* When the look at /proc/self/maps after dlclose() fails, the plugin is kept: safe, and told. */
static const faults_operation_t operations[] = {
    {"open by path", by_path, NULL, 0, "kept: "},
    {"open by name", by_name, asks_directories, 0, "kept: "},
    {"open one that can start threads", with_threads, NULL, 0, "kept: "},
    {"list", list_candidates, lists_directories, 0, "kept: "},
    {"probe that crashes in its process", probe_that_crashes, quarantines, 0, "kept: "},
    {"options of the environment", from_env, NULL, 0, NULL},
};

static void setup(void)
{
    /* What ferrum-probe would come to with a plugin that crashes while it is loaded. */
    static const char crashing[] =
        "#!/bin/sh\nprintf l >/proc/self/fd/$2\nulimit -c 0\nkill -SEGV $$\n";
    ferrum_test_path_t copy;
    plugin_path("fixture", fixture);
    plugin_path("fixture-thread", thread_fixture);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "fixture.so", copy);
    copy_file(fixture, copy);
    ferrum_test_make_directory(fresh_dir);
    ferrum_test_join(fresh_dir, "fresh.so", fresh);
    copy_file(fixture, fresh);
    fresh_fd = open(fresh, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fresh_fd, 0);
    fresh_bytes = lseek(fresh_fd, 0, SEEK_END);
    ferrum_test_join(fresh_dir, "helper", helper);
    ferrum_test_write_file(helper, crashing, sizeof crashing - 1);
    ck_assert_int_eq(chmod(helper, 0700), 0);
    ferrum_test_join(dir, "quarantine", records);
    ck_assert_int_eq(mkdir(records, 0700), 0);
    (void)setenv("FERRUM_THREADS", "2", 1);
    (void)setenv("HOME", "/nowhere", 1);
}

static void teardown(void)
{
    (void)close(fresh_fd);
    ferrum_test_remove_directory(fresh_dir);
    ferrum_test_remove_directory(records);
    ferrum_test_remove_directory(dir);
}

START_TEST(every_call_fails_once)
{
    long failures = faults_exhaust(&operations[_i]);
    printf("%s: %ld calls failed once\n", operations[_i].name, failures);
    ck_assert_int_ge(failures, 4);
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
