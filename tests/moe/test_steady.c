/* SPDX-License-Identifier: MIT */
/*
 * Once warm, a step allocates nothing and reads no environment. This program's own malloc family
 * and getenv stand in for the C library's, for libferrum and the plugin alike, and count.
 */
#include <config.h>

#include "tests/moe/fixture.h"

#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CANNOT_COUNT 1
#endif

static atomic_int counting;
static atomic_int allocations;
static atomic_int environment_reads;

#ifndef CANNOT_COUNT
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
extern char **environ;

static void note(void)
{
    if (atomic_load(&counting))
        atomic_fetch_add(&allocations, 1);
}

void *malloc(size_t bytes)
{
    note();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    note();
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    note();
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    note();
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes)
{
    note();
    *out = __libc_memalign(align, bytes);
    return *out ? 0 : 12;
}

static char *find_variable(const char *name)
{
    size_t length = strlen(name);
    if (atomic_load(&counting))
        atomic_fetch_add(&environment_reads, 1);
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

char *getenv(const char *name)
{
    return find_variable(name);
}

char *secure_getenv(const char *name)
{
    return find_variable(name);
}
#endif

START_TEST(the_counters_count)
{
    atomic_store(&counting, 1);
    void *volatile block = malloc(10);
    free(block);
    (void)getenv("HOME");
    atomic_store(&counting, 0);
    ck_assert_int_eq(atomic_load(&allocations), 1);
    ck_assert_int_eq(atomic_load(&environment_reads), 1);
}
END_TEST

static const struct steady {
    ferrum_moe_path_t path;
    bool gptq, vllm;
    int device_route;
} cases[] = {
    {FERRUM_MOE_PATH_EXPERT_FFN, false, false, 1}, {FERRUM_MOE_PATH_EXPERT_FFN, true, false, 0},
    {FERRUM_MOE_PATH_STACKED, false, false, 1},    {FERRUM_MOE_PATH_STACKED, false, false, 0},
    {FERRUM_MOE_PATH_BUCKETED, true, false, 0},    {FERRUM_MOE_PATH_BUCKETED, true, true, 0},
    {FERRUM_MOE_PATH_BUCKETED, true, true, 1},     {FERRUM_MOE_PATH_PER_PAIR, false, false, 0},
    {FERRUM_MOE_PATH_PER_PAIR, true, false, 0},
};

enum {
    TOKENS = 24,
    EXPERTS = 40
};

/* Warm up with the most tokens, then steps of every size, with every kind of routing skew. */
START_TEST(warm_steps)
{
    const struct steady *c = &cases[_i];
    const ferrum_weight_format_t format = c->gptq ? FERRUM_FORMAT_GPTQ : FERRUM_FORMAT_Q8_0;
    const layer_shape_t shape = {
        EXPERTS, 64, 32, 4, format, format, c->gptq ? 4 : 0, c->gptq ? 32 : 0, c->gptq, false};
    backend_t backend;
    layer_t layer;
    step_t steps[2];
    ferrum_moe_env_t env;
    ferrum_moe_plan_t plan;
    ferrum_moe_scratch_t *scratch;
    ferrum_expert_stack_t stack;
    ferrum_buffer_t *x[2], *logits[2];
    backend_open(&backend, 3);
    layer_init(&layer, &shape, 1);
    ferrum_moe_env_defaults(&env);
    env.path = c->path;
    env.vllm_moe = c->vllm;
    env.device_route = c->device_route;
    layer_load(&layer, &backend.ops, c->path, &stack);
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, &layer.problem, 1, &plan, &err));
    EXPECT_OK(ferrum_moe_scratch_new(&backend.ops, &plan, TOKENS, &scratch, &err));
    for (int i = 0; i < 2; i++) {
        step_init(&steps[i], &layer, TOKENS, i, 3);
        x[i] = backend_floats(&backend, steps[i].x, TOKENS * 64);
        logits[i] = backend_floats(&backend, steps[i].logits, TOKENS * EXPERTS);
    }
    ferrum_buffer_t *out = backend_dirty(&backend, TOKENS * 64);
    ferrum_buffer_t *residual = backend_zeros(&backend, TOKENS * 64);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status = FERRUM_OK;
    for (int round = 0; round < 5 && status == FERRUM_OK; round++) {
        atomic_store(&counting, round > 0);
        for (uint32_t tokens = TOKENS; tokens > 0 && status == FERRUM_OK; tokens--) {
            ferrum_moe_run_args_t args = {.ctx = backend.ctx,
                                          .experts = &stack,
                                          .x = x[tokens % 2],
                                          .router_logits = logits[(tokens + (uint32_t)round) % 2],
                                          .tokens = tokens,
                                          .decode = tokens % 3 == 0,
                                          .out = out,
                                          .residual = tokens % 2 ? residual : NULL};
            status = ferrum_moe_run(scratch, &args, &err);
        }
        atomic_store(&counting, 0);
    }
    ck_assert_msg(status == FERRUM_OK, "%s", err.message);
    ck_assert_int_eq(atomic_load(&allocations), 0);
    ck_assert_int_eq(atomic_load(&environment_reads), 0);
    for (int i = 0; i < 2; i++) {
        backend_release(&backend, x[i]);
        backend_release(&backend, logits[i]);
        step_free(&steps[i]);
    }
    backend_release(&backend, out);
    backend_release(&backend, residual);
    ferrum_moe_scratch_free(scratch);
    ferrum_expert_stack_free(&stack);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

int main(void)
{
#ifdef CANNOT_COUNT
    puts("the allocator cannot be replaced in this build");
    return 77;
#endif
    (void)fixture_plugin();
    Suite *suite = suite_create("steady");
    TCase *tcase = tcase_create("steps");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, the_counters_count);
    tcase_add_loop_test(tcase, warm_steps, 0, sizeof cases / sizeof cases[0]);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
