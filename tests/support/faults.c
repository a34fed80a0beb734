/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/support/faults.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/faults_wrapped.h"

/* ---- the call that fails ---- */

static atomic_bool armed;
static atomic_long until_failure, calls;
static const char *failed, *only;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

bool faults_hit(const char *name, int error)
{
    if (!atomic_load(&armed) || (only && strcmp(name, only) != 0))
        return false;
    atomic_fetch_add(&calls, 1);
    if (atomic_fetch_sub(&until_failure, 1) != 0)
        return false;
    failed = name;
    errno = error;
    return true;
}

/* ---- memory that was allocated while armed ---- */

enum {
    SLOTS = 1 << 18
};
static void *blocks[SLOTS];
static long live_blocks;

static size_t slot_of(const void *block)
{
    size_t i = (size_t)(((uintptr_t)block >> 4) * 0x9e3779b97f4a7c15u >> 40) % SLOTS;
    while (blocks[i] && blocks[i] != block)
        i = (i + 1) % SLOTS;
    return i;
}

void *faults_allocated(void *block)
{
    if (block && atomic_load(&armed)) {
        (void)pthread_mutex_lock(&mutex);
        size_t i = slot_of(block);
        if (!blocks[i] && live_blocks < SLOTS / 2) {
            blocks[i] = block;
            live_blocks++;
        }
        (void)pthread_mutex_unlock(&mutex);
    }
    return block;
}

void faults_freed(void *block)
{
    if (!block)
        return;
    (void)pthread_mutex_lock(&mutex);
    size_t hole = slot_of(block);
    if (blocks[hole]) {
        live_blocks--;
        blocks[hole] = NULL;
        for (size_t i = (hole + 1) % SLOTS; blocks[i]; i = (i + 1) % SLOTS) {
            void *moved = blocks[i];
            blocks[i] = NULL;
            blocks[slot_of(moved)] = moved;
        }
    }
    (void)pthread_mutex_unlock(&mutex);
}

/* ---- for tests ---- */

void faults_only(const char *name)
{
    only = name;
}

/* Jansson's memory has a name of its own: its lexer reports a lack of memory as bad JSON, or not at
 * all (the buffer of a token that cannot grow drops a byte). */
static void *json_malloc(size_t bytes)
{
    return faults_hit("json_malloc", ENOMEM) ? NULL : faults_allocated(__real_malloc(bytes));
}

void faults_begin(long nth)
{
    json_set_alloc_funcs(json_malloc, free);
    failed = NULL;
    atomic_store(&calls, 0);
    atomic_store(&until_failure, nth < 0 ? -1 : nth);
    atomic_store(&armed, true);
}

const char *faults_end(void)
{
    atomic_store(&armed, false);
    return failed;
}

long faults_calls(void)
{
    return atomic_load(&calls);
}

static long count_entries(const char *path)
{
    long count = 0;
    DIR *dir = opendir(path);
    ck_assert_msg(dir != NULL, "cannot open %s", path);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static long count_mapped_files(void)
{
    char line[4096];
    long count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert_msg(maps != NULL, "cannot open /proc/self/maps");
    while (fgets(line, sizeof line, maps))
        count += strchr(line, '/') != NULL;
    (void)fclose(maps);
    return count;
}

faults_trace_t faults_trace(void)
{
    return (faults_trace_t){live_blocks, count_entries("/proc/self/fd"),
                            count_entries("/proc/self/task"), count_mapped_files()};
}

static void expect_trace(const faults_operation_t *operation, long call,
                         const faults_trace_t *before)
{
    faults_trace_t now = faults_trace();
    ck_assert_msg(now.blocks <= before->blocks && now.fds <= before->fds &&
                      now.threads <= before->threads && now.mappings <= before->mappings,
                  "%s, call %ld (%s): %ld blocks, %ld fds, %ld threads, %ld mappings are left",
                  operation->name, call, failed ? failed : "none fails",
                  now.blocks - before->blocks, now.fds - before->fds, now.threads - before->threads,
                  now.mappings - before->mappings);
}

static bool is_memory(const char *name)
{
    static const char *const names[] = {"malloc",
                                        "calloc",
                                        "realloc",
                                        "posix_memalign",
                                        "aligned_alloc",
                                        "pcre2_compile_8",
                                        "utf8proc_map",
                                        "pcre2_match_data_create_8",
                                        "pcre2_match_context_create_8"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool may_survive(const faults_operation_t *operation)
{
    if (strcmp(failed, "json_malloc") == 0)
        return true;
    for (const char *const *name = operation->may_survive; name && *name; name++)
        if (strcmp(*name, failed) == 0)
            return true;
    return false;
}

static void expect_failure(const faults_operation_t *operation, long call, ferrum_status_t status,
                           const ferrum_error_t *err)
{
    if (status == FERRUM_OK && may_survive(operation))
        return;
    ck_assert_msg(status != FERRUM_OK, "%s: call %ld (%s) failed unnoticed", operation->name, call,
                  failed);
    ck_assert_msg(err->status == status && err->message[0],
                  "%s, call %ld (%s): status %d, without a message", operation->name, call, failed,
                  status);
    if (operation->leaves && strstr(err->message, operation->leaves))
        return;
    ck_assert_msg(status != FERRUM_INTERNAL, "%s, call %ld (%s): %s", operation->name, call, failed,
                  err->message);
    bool either = strcmp(failed, "mmap") == 0 || strcmp(failed, "json_malloc") == 0 ||
                  strcmp(failed, "pthread_mutex_init") == 0;
    ck_assert_msg(either || (status == FERRUM_OUT_OF_MEMORY) == is_memory(failed),
                  "%s, call %ld (%s): status %d: %s", operation->name, call, failed, status,
                  err->message);
    for (const char *c = err->message; *c; c++)
        ck_assert_msg((unsigned char)*c >= 0x20, "%s: control character in: %s", operation->name,
                      err->message);
}

static void expect_success(const faults_operation_t *operation)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    faults_begin(-1);
    ferrum_status_t status = operation->run(&err);
    (void)faults_end();
    ck_assert_msg(status == FERRUM_OK, "%s: %s", operation->name, err.message);
}

long faults_exhaust(const faults_operation_t *operation)
{
    return faults_exhaust_some(operation, 0, operation->step ? operation->step : 1);
}

long faults_exhaust_some(const faults_operation_t *operation, long first, long step)
{
    long failures = 0;
    expect_success(operation); /* what is made once and kept does not count */
    faults_trace_t before = faults_trace();
    for (long call = first;; call += step) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        faults_begin(call);
        ferrum_status_t status = operation->run(&err);
        if (!faults_end()) {
            ck_assert_msg(status == FERRUM_OK, "%s: %s", operation->name, err.message);
            return failures;
        }
        failures++;
        expect_failure(operation, call, status, &err);
        if (operation->leaves && (status == FERRUM_OK || strstr(err.message, operation->leaves)))
            before = faults_trace();
        expect_trace(operation, call, &before);
        if (failures % 16 == 0) {
            expect_success(operation);
            expect_trace(operation, call, &before);
        }
    }
}
