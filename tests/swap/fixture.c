/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* nanosleep, posix_memalign */
#include "tests/swap/fixture.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *build_directory(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    return build ? build : ".";
}

const char *fixture_plugin_path(const char *name)
{
    static char path[4096];
    static const char *const folders[] = {"tests/swap", "backends"};
    for (int i = 0; i < 2; i++) {
        const char *subfolder = i == 0 ? "" : name, *slash = i == 0 ? "" : "/";
        (void)snprintf(path, sizeof path, "%s/%s/%s%s.libs/%s.so", build_directory(), folders[i],
                       subfolder, slash, name);
        if (access(path, R_OK) == 0)
            break;
    }
    return path;
}

void fixture_need_plugin(const char *name)
{
    if (access(fixture_plugin_path(name), R_OK) == 0)
        return;
    (void)printf("%s was not built\n", name);
    exit(77);
}

void fixture_copy_plugin(const char *name, const char *path)
{
    char block[65536];
    FILE *from = fopen(fixture_plugin_path(name), "rb"), *to = fopen(path, "wb");
    ck_assert_ptr_nonnull(from);
    ck_assert_ptr_nonnull(to);
    for (size_t n; (n = fread(block, 1, sizeof block, from)) > 0;)
        ck_assert_uint_eq(fwrite(block, 1, n, to), n);
    (void)fclose(from);
    ck_assert_int_eq(fclose(to), 0);
}

static void *counted_alloc(void *self, size_t bytes, size_t align)
{
    swap_fixture_t *fixture = self;
    void *ptr = NULL;
    if (atomic_load(&fixture->allowed_more) >= 0 &&
        atomic_fetch_sub(&fixture->allowed_more, 1) <= 0) {
        atomic_store(&fixture->allowed_more, 0);
        return NULL;
    }
    if (posix_memalign(&ptr, align < sizeof(void *) ? sizeof(void *) : align, bytes) != 0)
        return NULL;
    (void)atomic_fetch_add(&fixture->live_blocks, 1);
    return ptr;
}

static void counted_free(void *self, void *ptr, size_t bytes)
{
    swap_fixture_t *fixture = self;
    (void)bytes;
    if (ptr)
        (void)atomic_fetch_sub(&fixture->live_blocks, 1);
    free(ptr);
}

void fixture_open(swap_fixture_t *fixture, const char *backend, const char *const *options)
{
    ferrum_options_t *set = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    memset(fixture, 0, sizeof *fixture);
    atomic_init(&fixture->live_blocks, 0);
    atomic_init(&fixture->allowed_more, -1);
    fixture->allocator = (ferrum_allocator_t){.head = FERRUM_HEAD(ferrum_allocator_t),
                                              .self = fixture,
                                              .alloc = counted_alloc,
                                              .free = counted_free};
    ck_assert_int_eq(ferrum_options_new(&set, &err), FERRUM_OK);
    for (; options && options[0]; options += 2)
        ck_assert_msg(ferrum_options_set(set, options[0], options[1], &err) == FERRUM_OK, "%s",
                      err.message);
    ferrum_runtime_options_t runtime = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                        .backend = backend,
                                        .options = set,
                                        .threads = 1,
                                        .allocator = &fixture->allocator};
    ck_assert_msg(ferrum_runtime_open(&runtime, &fixture->runtime, &err) == FERRUM_OK, "%s",
                  err.message);
    ferrum_options_free(set);
}

void fixture_close(swap_fixture_t *fixture)
{
    ferrum_runtime_close(fixture->runtime);
    fixture->runtime = NULL;
    ck_assert_int_eq(atomic_load(&fixture->live_blocks), 0);
}

ferrum_status_t fixture_swap(swap_fixture_t *fixture, const char *backend,
                             ferrum_swap_report_t *out_report, ferrum_error_t *err)
{
    ferrum_swap_options_t options = {.head = FERRUM_HEAD(ferrum_swap_options_t),
                                     .backend = backend};
    if (out_report)
        *out_report = (ferrum_swap_report_t){.head = FERRUM_HEAD(ferrum_swap_report_t)};
    return ferrum_runtime_swap(fixture->runtime, &options, out_report, err);
}

void fixture_sleep_ms(long ms)
{
    const struct timespec nap = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&nap, NULL);
}

void fixture_set_fault(const char *fault)
{
    if (fault)
        ck_assert_int_eq(setenv("FERRUM_TEST_FAULT", fault, 1), 0);
    else
        (void)unsetenv("FERRUM_TEST_FAULT");
}

void fixture_swap_well(swap_fixture_t *fixture, const char *to, ferrum_swap_report_t *out_report)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status = fixture_swap(fixture, to, out_report, &err);
    ck_assert_msg(status == FERRUM_OK, "%s", err.message);
    ck_assert_uint_eq(out_report->step, FERRUM_SWAP_DONE);
}

void fixture_swap_badly(swap_fixture_t *fixture, const char *to, ferrum_swap_step_t step,
                        ferrum_status_t status, ferrum_swap_report_t *out_report)
{
    char named[64];
    uint64_t generation = ferrum_runtime_generation(fixture->runtime);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t got = fixture_swap(fixture, to, out_report, &err);
    ck_assert_msg(got == status && out_report->step == step, "status %d, step %s: %s", got,
                  ferrum_swap_step_name(out_report->step), err.message);
    (void)snprintf(named, sizeof named, "at its %s step", ferrum_swap_step_name(step));
    ck_assert_msg(strstr(err.message, named) != NULL, "%s", err.message);
    ck_assert_uint_eq(ferrum_runtime_generation(fixture->runtime), generation);
    ck_assert_uint_eq(out_report->generation, generation);
}
