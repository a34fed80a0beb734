/* SPDX-License-Identifier: MIT */
/*
 * Every call to the operating system fails once: opening and closing a plugin, scanning, selecting.
 * Each time there is a message, nothing leaks, and the next attempt works.
 */
#include "config.h"

#include "tests/loader/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The next call that fails: counts down, 0 fails, negative: none. */
static long fail_in = -1;
static long live_blocks;

static bool fails_now(void)
{
    if (fail_in < 0)
        return false;
    if (fail_in-- > 0)
        return false;
    errno = EMFILE;
    return true;
}

static void *faulty_alloc(size_t bytes)
{
    if (fails_now())
        return NULL;
    live_blocks++;
    return ferrum_sys_real.alloc(bytes);
}

static void counted_release(void *block)
{
    live_blocks -= block != NULL;
    ferrum_sys_real.release(block);
}

static void *faulty_host_alloc(size_t bytes, size_t align)
{
    return fails_now() ? NULL : ferrum_sys_real.host_alloc(bytes, align);
}

static int faulty_open(const char *path, int flags)
{
    return fails_now() ? -1 : ferrum_sys_real.open(path, flags);
}

static int faulty_stat(int fd, struct stat *out)
{
    return fails_now() ? -1 : ferrum_sys_real.stat_fd(fd, out);
}

static ssize_t faulty_read(int fd, void *out, size_t bytes)
{
    return fails_now() ? -1 : ferrum_sys_real.read(fd, out, bytes);
}

static DIR *faulty_open_list(int fd)
{
    return fails_now() ? NULL : ferrum_sys_real.open_list(fd);
}

static int faulty_memfd(const char *name)
{
    return fails_now() ? -1 : ferrum_sys_real.memfd(name);
}

static ssize_t faulty_write(int fd, const void *data, size_t bytes)
{
    return fails_now() ? -1 : ferrum_sys_real.write(fd, data, bytes);
}

static int faulty_seal(int fd)
{
    return fails_now() ? -1 : ferrum_sys_real.seal(fd);
}

static void *faulty_map(int fd, size_t bytes)
{
    return fails_now() ? NULL : ferrum_sys_real.map(fd, bytes);
}

static void *faulty_dl_open(const char *path)
{
    return fails_now() ? NULL : ferrum_sys_real.dl_open(path);
}

static void *faulty_dl_sym(void *handle, const char *name)
{
    return fails_now() ? NULL : ferrum_sys_real.dl_sym(handle, name);
}

static const ferrum_sys_t faulty = {
    .alloc = faulty_alloc,
    .release = counted_release,
    .host_alloc = faulty_host_alloc,
    .open = faulty_open,
    .stat_fd = faulty_stat,
    .read = faulty_read,
    .open_list = faulty_open_list,
    .memfd = faulty_memfd,
    .write = faulty_write,
    .seal = faulty_seal,
    .map = faulty_map,
    .dl_open = faulty_dl_open,
    .dl_sym = faulty_dl_sym,
    .dl_close = NULL, /* filled in by setup: it does not fail here */
};
static ferrum_sys_t sys;

static ferrum_test_path_t fixture, dir;
static log_capture_t log_lines;

static void setup(void)
{
    ferrum_test_path_t copy;
    plugin_path("fixture", fixture);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "fixture.so", copy);
    copy_file(fixture, copy);
    sys = faulty;
    sys.dl_close = ferrum_sys_real.dl_close;
    ferrum_sys = &sys;
    live_blocks = 0;
}

static void teardown(void)
{
    ferrum_sys = &ferrum_sys_real;
    ferrum_test_remove_directory(dir);
}

/* ---- what is tried ---- */

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

static ferrum_status_t try_open(const char *path, ferrum_error_t *err)
{
    ferrum_options_t *options = NULL;
    ferrum_loader_t *loader = NULL;
    ferrum_module_t *module = NULL;
    ferrum_unload_report_t report = {.unloaded = 1};
    ferrum_status_t status = ferrum_options_new(&options, err);
    if (status == FERRUM_OK)
        status = ferrum_options_set(options, "FERRUM_PLUGIN_PATH", dir, err);
    if (status == FERRUM_OK)
        status = ferrum_loader_new(options, NULL, &log_lines.logger, &loader, err);
    if (status == FERRUM_OK)
        status = path ? ferrum_loader_open(loader, path, &module, err)
                      : ferrum_loader_select(loader, "fixture", &module, err);
    if (status == FERRUM_OK)
        status = open_device(module, err);
    ferrum_module_release(module, &report);
    ferrum_loader_free(loader);
    ferrum_options_free(options);
    if (status == FERRUM_OK && !report.unloaded)
        return ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "%s", report.detail);
    return status;
}

static ferrum_status_t try_by_path(ferrum_error_t *err)
{
    return try_open(fixture, err);
}

static ferrum_status_t try_by_name(ferrum_error_t *err)
{
    return try_open(NULL, err);
}

static ferrum_status_t (*const attempts[])(ferrum_error_t *err) = {try_by_path, try_by_name};

/* A failing look at /proc/self/maps after dlclose() keeps a plugin that is gone: safe, and told. */
static bool was_kept(const ferrum_error_t *error)
{
    return strstr(error->message, "kept: still mapped") != NULL;
}

START_TEST(every_call_fails_once)
{
    trace_t before = take_trace();
    long calls = 0, kept = 0;
    for (;; calls++) {
        ferrum_error_t error = FERRUM_ERROR_INIT;
        capture_init(&log_lines, FERRUM_LOG_WARN);
        fail_in = calls;
        ferrum_status_t status = attempts[_i](&error);
        bool reached = fail_in < 0;
        fail_in = -1;
        if (!reached) {
            ck_assert_msg(status == FERRUM_OK, "%s", error.message);
            break;
        }
        /* A directory that cannot be searched is no failure if the plugin is in another one. */
        if (status == FERRUM_OK && strstr(log_lines.text, "cannot search"))
            continue;
        ck_assert_msg(status != FERRUM_OK, "call %ld failed unnoticed", calls);
        ck_assert_msg(error.message[0] != '\0', "call %ld failed without a message", calls);
        ck_assert_int_eq(error.status, status);
        if (was_kept(&error)) {
            kept++;
            continue;
        }
        ck_assert_msg(live_blocks == 5 * kept || kept > 0, "call %ld (%s): %ld blocks left", calls,
                      error.message, live_blocks);
    }
    ck_assert_int_gt(calls, 20);
    trace_t after = take_trace();
    ck_assert_int_eq(after.mappings, before.mappings);
    ck_assert_int_eq(after.fds - kept, before.fds); /* a zombie keeps its memory file */
}
END_TEST

/* dlclose() that does nothing, as with NODELETE code that nobody announced. */
static int no_close(void *handle)
{
    return 0;
}

static int failing_close(void *handle)
{
    return -1;
}

START_TEST(unproven_unload_makes_a_zombie)
{
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    sys.dl_close = _i ? failing_close : no_close;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 0);
    ck_assert_uint_eq(report.pinned, 0);
    ck_assert_str_eq(report.detail, "kept: still mapped after dlclose");
    sys.dl_close = ferrum_sys_real.dl_close;
    EXPECT_OK(
        ferrum_loader_open(loader, fixture, &module, &err)); /* a fresh copy, not the zombie */
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ferrum_loader_free(loader);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/faults");
    TCase *tests = tcase_create("faults");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, every_call_fails_once, 0, sizeof attempts / sizeof attempts[0]);
    tcase_add_loop_test(tests, unproven_unload_makes_a_zombie, 0, 2);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
