/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/hostile/hostile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum {
    ROWS = 4,
    DIM = 64
};

static ferrum_loader_t *loader;
static ferrum_module_t *module;
static const ferrum_backend_ops_t *be;
static ferrum_device_t *device;
static ferrum_context_t *ctx;
static ferrum_buffer_t *x, *w, *out;
static float first[ROWS * DIM];
static pthread_t thread;
static atomic_ulong rounds;
static atomic_bool stop, wrong;

static bool compute(float *result)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    return be->rms_norm(ctx, x, w, 1e-5F, out, ROWS, DIM, &err) == FERRUM_OK &&
           be->gemm(ctx, x, x, w, 1, 1, DIM, &err) == FERRUM_OK &&
           be->buffer_zero(ctx, w, 1, DIM - 1, &err) == FERRUM_OK &&
           be->buffer_read_f32(ctx, out, 0, result, ROWS * DIM, &err) == FERRUM_OK;
}

static void *serve(void *arg)
{
    const struct timespec moment = {0, 200000};
    float result[ROWS * DIM];
    while (!atomic_load(&stop)) {
        if (!compute(result) || memcmp(result, first, sizeof result) != 0)
            atomic_store(&wrong, true);
        atomic_fetch_add(&rounds, 1);
        (void)nanosleep(&moment, NULL);
    }
    return arg;
}

void guard_start(void)
{
    ferrum_test_path_t path;
    float values[ROWS * DIM];
    for (int i = 0; i < ROWS * DIM; i++)
        values[i] = (float)(i % 13) - 6;
    plugin_path("cpu", path);
    loader = new_loader(NULL, NULL);
    EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
    be = ferrum_module_backend(module);
    EXPECT_OK(be->device_open(ferrum_module_host(module), NULL, &device, &err));
    EXPECT_OK(be->context_new(device, NULL, &ctx, &err));
    EXPECT_OK(be->buffer_alloc(device, FERRUM_DTYPE_F32, ROWS * DIM, &x, &err));
    EXPECT_OK(be->buffer_alloc(device, FERRUM_DTYPE_F32, DIM, &w, &err));
    EXPECT_OK(be->buffer_alloc(device, FERRUM_DTYPE_F32, ROWS * DIM, &out, &err));
    EXPECT_OK(be->buffer_write_f32(ctx, x, 0, values, ROWS * DIM, &err));
    ck_assert(compute(first)); /* leaves w as every later round finds it */
    ck_assert(compute(first));
    ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
}

void guard_check(const char *during)
{
    unsigned long before = atomic_load(&rounds);
    for (int i = 0; i < 60000 && atomic_load(&rounds) < before + 2; i++) {
        const struct timespec moment = {0, 1000000};
        (void)nanosleep(&moment, NULL);
    }
    ck_assert_msg(atomic_load(&rounds) >= before + 2, "cpu.so no longer computes: %s", during);
    ck_assert_msg(!atomic_load(&wrong), "cpu.so computes something else: %s", during);
}

void guard_stop(void)
{
    ferrum_unload_report_t report;
    atomic_store(&stop, true);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    be->buffer_release(x);
    be->buffer_release(w);
    be->buffer_release(out);
    be->context_free(ctx);
    be->device_release(device);
    ferrum_module_release(module, &report);
    /* Sanitized code imports what could start threads, and hostile-thread has left one. */
    ck_assert_msg(report.unloaded == 1 || is_sanitized(), "cpu.so: %s", report.detail);
    ferrum_loader_free(loader);
}
