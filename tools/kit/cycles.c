/* SPDX-License-Identifier: MIT */
/*
 * Opening, using and closing again and again. Afterwards there are as many file descriptors,
 * threads and mappings of plugins as before, and the addresses where the code was are walled off,
 * so that whatever still runs there crashes here and not in a host.
 */
#define _GNU_SOURCE
#include "tools/kit/kit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    WALLED = 24 /* cycles after which the addresses are walled off */
};

typedef struct traces {
    long fds, threads, mappings;
} traces_t;

typedef struct range {
    uintptr_t start, end;
} range_t;

static long count_entries(const char *path)
{
    DIR *dir = opendir(path);
    long count = 0;
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* Mappings of plugins; what they cover from the first to the last goes to @p out_range. */
static long count_mappings(range_t *out_range)
{
    char line[512];
    long count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    *out_range = (range_t){0, 0};
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long start = 0, end = 0;
        if (strstr(line, "memfd:ferrum-plugin") == NULL ||
            sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        if (count++ == 0)
            out_range->start = start;
        out_range->end = end;
    }
    if (maps != NULL)
        fclose(maps);
    return count;
}

static traces_t take_traces(void)
{
    range_t unused;
    return (traces_t){count_entries("/proc/self/fd"), count_entries("/proc/self/task"),
                      count_mappings(&unused)};
}

/* Open a device, compute a little, close. */
static void use(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const ferrum_backend_ops_t *be = ferrum_module_backend(suite->module);
    ferrum_device_t *device = NULL;
    ferrum_context_t *ctx = NULL;
    ferrum_buffer_t *buffer = NULL;
    float values[64] = {1, 2, 3};
    ferrum_status_t status =
        be->device_open(ferrum_module_host(suite->module), NULL, &device, &err);
    if (status == FERRUM_UNSUPPORTED)
        return; /* no device: opening and closing remains */
    if (cf_ok(suite, status, &err) &&
        cf_ok(suite, be->context_new(device, NULL, &ctx, &err), &err) &&
        cf_ok(suite, be->buffer_alloc(device, FERRUM_DTYPE_F32, 64, &buffer, &err), &err) &&
        cf_ok(suite, be->buffer_write_f32(ctx, buffer, 0, values, 64, &err), &err)) {
        (void)be->scale_inplace(ctx, buffer, 2, 64, &err);
        cf_ok(suite, be->context_sync(ctx, &err), &err);
    }
    be->buffer_release(buffer);
    be->context_free(ctx);
    be->device_release(device);
}

/* One cycle; the range where the code was, if it is gone. */
static bool cycle(cf_suite_t *suite, range_t *out_range)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_unload_report_t report;
    if (!cf_ok(suite, ferrum_loader_open(suite->loader, suite->path, &suite->module, &err), &err))
        return false;
    use(suite);
    (void)count_mappings(out_range);
    ferrum_module_release(suite->module, &report);
    cf_judge_unload(suite, &report);
    return report.unloaded != 0;
}

static void wall_off(const range_t *range)
{
    if (range->end > range->start)
        (void)mmap((void *)range->start, range->end - range->start, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

void cf_group_cycles(cf_suite_t *suite)
{
    range_t range;
    cf_end(suite);
    cf_begin(suite, "the first two cycles");
    bool unloads = cycle(suite, &range);
    if (!suite->case_failed)
        unloads = cycle(suite, &range) && unloads;
    bool sound = !suite->case_failed;
    cf_end(suite);
    if (!sound)
        return;

    traces_t before = take_traces();
    cf_begin(suite, "%u cycles", suite->settings->cycles);
    for (uint32_t i = 0; i < suite->settings->cycles && !suite->case_failed; i++)
        if (cycle(suite, &range) && i < WALLED)
            wall_off(&range);
    cf_end(suite);

    traces_t after = take_traces();
    cf_begin(suite, "nothing is left after %u cycles", suite->settings->cycles);
    if (after.fds != before.fds)
        cf_fail(suite, "%ld file descriptors more", after.fds - before.fds);
    else if (after.threads != before.threads)
        cf_fail(suite, "%ld threads more", after.threads - before.threads);
    else if (after.mappings != before.mappings)
        cf_fail(suite, "%ld mappings more", after.mappings - before.mappings);
    else if (unloads && after.mappings != 0)
        cf_fail(suite, "%ld mappings of it are left", after.mappings);
    cf_end(suite);
}
