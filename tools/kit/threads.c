/* SPDX-License-Identifier: MIT */
/* The same bits whoever computes them: again, with other teams, and on two threads at once. */
#include "tools/kit/ops.h"

#include "host/runtime/executor.h"

#include <pthread.h>
#include <stdio.h>

/* ---- determinism ---- */

static void run_with_team(cf_suite_t *suite, const cf_call_t *call, uint32_t width)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_team_t *team = NULL;
    ferrum_context_t *ctx = NULL;
    if (!cf_ok(suite, ferrum_team_new(width, &team, &err), &err))
        return;
    if (cf_ok(suite, suite->be->context_new(suite->device, ferrum_team_executor(team), &ctx, &err),
              &err) &&
        cf_ok(suite, cf_call_run(suite, ctx, call, &err), &err))
        cf_ok(suite, suite->be->context_sync(ctx, &err), &err);
    suite->be->context_free(ctx);
    ferrum_team_free(team);
}

void cf_group_determinism(cf_suite_t *suite)
{
    for (size_t i = 0; i < cf_op_count; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_call_t first, again;
        cf_begin(suite, "%s again, and with teams of 1 to 4", cf_ops[i].name);
        if (cf_call_prepare(suite, &cf_ops[i], NULL, &first) &&
            cf_ok(suite, cf_call_run(suite, suite->ctx, &first, &err), &err))
            for (uint32_t width = 0; width <= 4 && !suite->case_failed; width++) {
                if (!cf_call_prepare(suite, &cf_ops[i], first.object, &again))
                    break;
                if (width == 0)
                    cf_ok(suite, cf_call_run(suite, suite->ctx, &again, &err), &err);
                else
                    run_with_team(suite, &again, width);
                cf_call_expect_same(suite, &first, &again);
            }
        cf_end(suite);
    }
}

/* ---- two contexts on two threads ---- */

enum {
    REPEATS = 8,
    THREADS = 2
};

typedef struct worker {
    cf_suite_t *suite;
    ferrum_team_t *team;
    ferrum_context_t *ctx;
    cf_call_t call;
    ferrum_status_t status;
    ferrum_error_t err;
    pthread_barrier_t *start;
} worker_t;

static void *work(void *arg)
{
    worker_t *w = arg;
    pthread_barrier_wait(w->start);
    for (int i = 0; i < REPEATS && w->status == FERRUM_OK; i++)
        w->status = cf_call_run(w->suite, w->ctx, &w->call, &w->err);
    if (w->status == FERRUM_OK)
        w->status = w->suite->be->context_sync(w->ctx, &w->err);
    return NULL;
}

static void run_threads(cf_suite_t *suite, worker_t *workers)
{
    pthread_t thread[THREADS];
    pthread_barrier_t start;
    int started = 0;
    pthread_barrier_init(&start, NULL, THREADS);
    for (; started < THREADS; started++) {
        workers[started].start = &start;
        workers[started].status = FERRUM_OK;
        workers[started].err = (ferrum_error_t)FERRUM_ERROR_INIT;
        if (pthread_create(&thread[started], NULL, work, &workers[started]) != 0)
            break;
    }
    if (started < THREADS) {
        cf_fail(suite, "the suite could not start a thread");
        _Exit(1); /* the others wait for it */
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        cf_ok(suite, workers[i].status, &workers[i].err);
    }
    pthread_barrier_destroy(&start);
}

/* The sequential result, then both at once: all the same bits. */
static void concurrent_case(cf_suite_t *suite, const cf_op_t *op, worker_t *workers)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_call_t alone;
    cf_begin(suite, "%s on two threads", op->name);
    bool ready = cf_call_prepare(suite, op, NULL, &alone);
    for (int i = 0; ready && i < REPEATS; i++)
        ready = cf_ok(suite, cf_call_run(suite, suite->ctx, &alone, &err), &err);
    for (int i = 0; i < THREADS; i++)
        ready = ready && cf_call_prepare(suite, op, alone.object, &workers[i].call);
    if (ready) {
        run_threads(suite, workers);
        for (int i = 0; i < THREADS && !suite->case_refused; i++)
            cf_call_expect_same(suite, &alone, &workers[i].call);
    }
    cf_end(suite);
}

/* ---- entries that any thread may call at any time ---- */

typedef struct hammer {
    cf_suite_t *suite;
    ferrum_buffer_t *shared;
    const char *failed; /* the entry that failed */
} hammer_t;

static void *hammer(void *arg)
{
    hammer_t *h = arg;
    const ferrum_backend_ops_t *be = h->suite->be;
    const ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                      .kind = FERRUM_PROBLEM_EXPERT_FFN};
    for (int i = 0; i < 200 && h->failed == NULL; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_device_info_t device = {.head = FERRUM_HEAD(ferrum_device_info_t)};
        ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
        ferrum_buffer_t *own = NULL;
        ferrum_event_t *event = NULL;
        be->device_retain(h->suite->device);
        be->buffer_retain(h->shared);
        if (be->buffer_alloc(h->suite->device, FERRUM_DTYPE_F32, 100, &own, &err) != FERRUM_OK)
            h->failed = "buffer_alloc";
        else if (be->buffer_info(h->shared, &info, &err) != FERRUM_OK || info.count != 10)
            h->failed = "buffer_info";
        else if (be->device_info(h->suite->device, &device, &err) != FERRUM_OK)
            h->failed = "device_info";
        else if (h->suite->mf->supports(h->suite->device, &problem, &err) > 0)
            h->failed = "supports";
        if (be->event_new(h->suite->device, &event, &err) == FERRUM_OK)
            be->event_free(event);
        be->buffer_release(own);
        be->buffer_release(h->shared);
        be->device_release(h->suite->device);
    }
    return NULL;
}

static void any_thread_case(cf_suite_t *suite)
{
    enum {
        COUNT = 4
    };
    pthread_t thread[COUNT];
    hammer_t hammers[COUNT] = {{NULL}};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *shared = NULL;
    int started = 0;
    cf_begin(suite, "[any-thread] entries from four threads");
    if (cf_ok(suite, suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_F32, 10, &shared, &err),
              &err)) {
        for (; started < COUNT; started++) {
            hammers[started] = (hammer_t){suite, shared, NULL};
            if (pthread_create(&thread[started], NULL, hammer, &hammers[started]) != 0)
                break;
        }
        for (int i = 0; i < started; i++) {
            pthread_join(thread[i], NULL);
            if (hammers[i].failed != NULL)
                cf_fail(suite, "%s failed", hammers[i].failed);
        }
        suite->be->buffer_release(shared);
    }
    cf_end(suite);
}

void cf_group_threads(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    worker_t workers[THREADS] = {{.suite = suite}, {.suite = suite}};
    any_thread_case(suite);
    cf_begin(suite, "a second and a third context");
    bool ready = true;
    for (int i = 0; i < THREADS; i++)
        ready = ready && cf_ok(suite, ferrum_team_new(2, &workers[i].team, &err), &err) &&
                cf_ok(suite,
                      suite->be->context_new(suite->device, ferrum_team_executor(workers[i].team),
                                             &workers[i].ctx, &err),
                      &err);
    cf_end(suite);
    for (size_t i = 0; ready && i < cf_op_count; i++)
        concurrent_case(suite, &cf_ops[i], workers);
    for (int i = 0; i < THREADS; i++) {
        suite->be->context_free(workers[i].ctx);
        ferrum_team_free(workers[i].team);
    }
}
