/* SPDX-License-Identifier: MIT */
/* After warm-up a decode step allocates nothing and reads no environment: neither the host library
 * (malloc and getenv are wrapped by the linker), nor the plugin (the host's allocator and the
 * context's own counter). */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

static uint64_t allocations, environment_reads;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *ptr, size_t bytes);
int __real_posix_memalign(void **out, size_t align, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
char *__real_getenv(const char *name);
char *__real_secure_getenv(const char *name);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *ptr, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
char *__wrap_getenv(const char *name);
char *__wrap_secure_getenv(const char *name);

static void count(uint64_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

void *__wrap_malloc(size_t bytes)
{
    count(&allocations);
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    count(&allocations);
    return __real_calloc(n, bytes);
}

void *__wrap_realloc(void *ptr, size_t bytes)
{
    count(&allocations);
    return __real_realloc(ptr, bytes);
}

int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    count(&allocations);
    return __real_posix_memalign(out, align, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    count(&allocations);
    return __real_aligned_alloc(align, bytes);
}

char *__wrap_getenv(const char *name)
{
    count(&environment_reads);
    return __real_getenv(name);
}

char *__wrap_secure_getenv(const char *name)
{
    count(&environment_reads);
    return __real_secure_getenv(name);
}

static const struct {
    const char *model, *path;
} cases[] = {
    {"rand_q", "expert_ffn"},    {"rand_q", "stacked"},     {"rand_q", "per-pair"},
    {"rand_gptq", "expert_ffn"}, {"rand_gptq", "bucketed"}, {"rand_gptq", "per-pair"},
};

START_TEST(decode_allocates_nothing)
{
    enum {
        COUNT = 6,
        STEPS = 20
    };
    const char *const options[] = {"FERRUM_MOE_PATH", cases[_i].path, NULL};
    ferrum_model_fixture_t fixture;
    ferrum_golden_t golden;
    ferrum_golden_load(cases[_i].model, &golden);
    ferrum_fixture_open(&fixture, 2, options);
    ferrum_model_t *model = ferrum_fixture_model(&fixture, golden.model, 64, 8);
    float *logits = malloc((size_t)COUNT * golden.vocab * sizeof *logits);
    uint64_t ids[COUNT];
    uint32_t tokens[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = i;
        tokens[i] = golden.ids[i];
        ck_assert_int_eq(ferrum_model_prefill(model, i, golden.ids, 3 + i, logits, NULL),
                         FERRUM_OK);
    }
    /* Warm-up: every shape that follows. */
    ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_model_decode(model, 0, tokens[0], logits, NULL), FERRUM_OK);

    ferrum_context_stats_t before = {.head = FERRUM_HEAD(ferrum_context_stats_t)}, after = before;
    ck_assert_int_eq(model->ops->backend->context_stats(model->ctx, &before, NULL), FERRUM_OK);
    uint64_t plugin = fixture.allocations, host = allocations, reads = environment_reads;
    for (int step = 0; step < STEPS; step++) { /* crosses block boundaries on the way */
        if (ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, NULL) != FERRUM_OK ||
            ferrum_model_decode(model, 0, tokens[0], logits, NULL) != FERRUM_OK)
            ck_abort_msg("a step failed");
    }
    uint64_t plugin_after = fixture.allocations, host_after = allocations;
    uint64_t reads_after = environment_reads;
    ck_assert_int_eq(model->ops->backend->context_stats(model->ctx, &after, NULL), FERRUM_OK);
    ck_assert_msg(host_after == host, "%s: the host allocated %d times", cases[_i].path,
                  (int)(host_after - host));
    ck_assert_msg(plugin_after == plugin, "%s: the plugin allocated %d times", cases[_i].path,
                  (int)(plugin_after - plugin));
    ck_assert_uint_eq(after.allocations, before.allocations);
    ck_assert_uint_eq(reads_after, reads);

    /* A prompt within what was seen, too. */
    host = allocations;
    plugin = fixture.allocations;
    ferrum_model_release(model, 3);
    ferrum_status_t status = ferrum_model_prefill(model, 3, golden.ids, 8, logits, NULL);
    host_after = allocations;
    ck_assert_int_eq(status, FERRUM_OK);
    ck_assert_uint_eq(host_after, host);
    ck_assert_uint_eq(fixture.allocations, plugin);
    free(logits);
    ferrum_model_free(model);
    ferrum_fixture_close(&fixture);
    ferrum_golden_free(&golden);
}
END_TEST

/* The counters count: otherwise the test above would always pass. */
START_TEST(counters_work)
{
    uint64_t host = allocations, reads = environment_reads;
    ferrum_host_array_t array = {0};
    ferrum_options_t *options = NULL;
    ck_assert_int_eq(ferrum_host_array_reserve(&array, 10, 4, NULL), FERRUM_OK);
    ck_assert_uint_gt(allocations, host);
    ck_assert_int_eq(ferrum_options_from_env(NULL, &options, NULL), FERRUM_OK);
    ck_assert_uint_gt(environment_reads, reads);
    ferrum_options_free(options);
    ferrum_host_array_free(&array);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_steady");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, decode_allocates_nothing, 0, (int)(sizeof cases / sizeof cases[0]));
    tcase_add_test(tests, counters_work);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
