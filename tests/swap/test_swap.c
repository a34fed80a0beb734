/* SPDX-License-Identifier: MIT */
/* The protocol of a swap with a model, step by step: what a failure leaves behind, and who may do
 * what when. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"
#include "tests/swap/fixture.h"

enum {
    CAPACITY = 96,
    SEQUENCES = 2,
    /* elements of one K pool: ceil(96 / 16) blocks of 16 positions x 4 for each request */
    POOL_ELEMENTS = SEQUENCES * CAPACITY * 4
};

static ferrum_test_path_t folder, model_path, copy;
static swap_fixture_t fixture;
static ferrum_model_t *model;
static ferrum_swap_report_t report;
static float logits[SYNTH_VOCAB], expected[SYNTH_VOCAB];
static char shim[4096], cpu[4096];
static const uint32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};
enum {
    PROMPT = sizeof prompt / sizeof prompt[0]
};

static void open_model(void)
{
    ferrum_model_options_t options = {.head = FERRUM_HEAD(ferrum_model_options_t),
                                      .kv_capacity = CAPACITY,
                                      .max_sequences = SEQUENCES};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_model_open(fixture.runtime, model_path, &options, &model, &err) ==
                      FERRUM_OK,
                  "%s", err.message);
}

static void set_up(void)
{
    char text[16];
    fixture_set_fault(NULL);
    (void)snprintf(text, sizeof text, "%d", POOL_ELEMENTS);
    ck_assert_int_eq(setenv("FERRUM_TEST_FAULT_COUNT", text, 1), 0);
    (void)snprintf(cpu, sizeof cpu, "%s", fixture_plugin_path("cpu"));
    (void)snprintf(shim, sizeof shim, "%s", fixture_plugin_path("shim"));
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", model_path);
    ferrum_test_join(folder, "cpu-copy.so", copy);
    ferrum_synth_write(model_path, NULL);
    fixture_copy_plugin("cpu", copy);
    fixture_open(&fixture, cpu, NULL);
    open_model();
}

static void tear_down(void)
{
    ferrum_model_free(model);
    model = NULL;
    if (fixture.runtime)
        fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

static void prefill(uint64_t id)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_model_prefill(model, id, prompt, PROMPT, logits, &err) == FERRUM_OK, "%s",
                  err.message);
}

static void decode(uint64_t id, uint32_t token)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_model_decode(model, id, token, logits, &err) == FERRUM_OK, "%s",
                  err.message);
}

/* What the request's next step gives without any swap. */
static void learn(void)
{
    prefill(0);
    decode(0, 7);
    memcpy(expected, logits, sizeof expected);
    ferrum_model_release(model, 0);
}

/* The same with a request that has lived through something since its prompt. */
static void check_same(uint64_t id)
{
    decode(id, 7);
    ck_assert_mem_eq(logits, expected, sizeof expected);
}

static void swap_well(const char *to)
{
    fixture_swap_well(&fixture, to, &report);
}

static void swap_badly(const char *to, ferrum_swap_step_t step, ferrum_status_t status)
{
    fixture_swap_badly(&fixture, to, step, status, &report);
}

/* ---- it works ---- */

START_TEST(requests_live_on)
{
    learn();
    prefill(0);
    swap_well(copy);
    ck_assert_str_eq(report.from, "cpu");
    ck_assert_str_eq(report.to, "cpu");
    ck_assert_uint_eq(report.generation, 2);
    ck_assert_uint_eq(report.sessions, 1);
    ck_assert_uint_eq(report.requests, 1);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_UNLOADED);
    ck_assert_uint_gt(report.old_bytes, 0);
    ck_assert_uint_gt(report.new_bytes, 0);
    ck_assert_double_gt(report.self_test_error, 0);
    ck_assert_double_le(report.self_test_error, 1);
    ck_assert_double_gt(report.pause_ms, 0);
    ck_assert_uint_eq(ferrum_model_length(model, 0), PROMPT);
    check_same(0);
    ferrum_model_release(model, 0);

    prefill(1);
    swap_well(shim); /* another backend, and back, and the same file again */
    ck_assert_str_eq(ferrum_module_name(ferrum_runtime_module(fixture.runtime)), "shim");
    swap_well(cpu);
    swap_well(NULL);
    ck_assert_uint_eq(ferrum_runtime_generation(fixture.runtime), 5);
    check_same(1);
}
END_TEST

START_TEST(nothing_is_running)
{
    swap_well(copy); /* a model without requests, and no pool yet */
    ck_assert_uint_eq(report.requests, 0);
    learn();
    ferrum_model_free(model);
    model = NULL;
    swap_well(cpu); /* a runtime without anything */
    ck_assert_uint_eq(report.sessions, 0);
    open_model();
    prefill(0);
    check_same(0);
}
END_TEST

START_TEST(handles_share_weights)
{
    ferrum_model_options_t options = {
        .head = FERRUM_HEAD(ferrum_model_options_t), .kv_capacity = 40, .max_sequences = 1};
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ferrum_model_t *first = model, *second = NULL;
    learn();
    ck_assert_int_eq(ferrum_model_share(first, &options, &second, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_model_get_info(second, &info, NULL), FERRUM_OK);
    ck_assert_uint_eq(info.kv_capacity, 40);
    prefill(0);
    model = second;
    prefill(0);               /* a request of its own */
    ferrum_model_free(first); /* the weights stay with the second */
    swap_well(copy);
    ck_assert_uint_eq(report.sessions, 1);
    check_same(0);
    ck_assert_int_eq(ferrum_model_share(NULL, NULL, &first, NULL), FERRUM_INVALID_ARGUMENT);
}
END_TEST

/* ---- it fails ---- */

static const struct {
    const char *fault;
    ferrum_swap_step_t step;
    ferrum_status_t status;
} faults[] = {
    {"device", FERRUM_SWAP_OPEN, FERRUM_DEVICE_ERROR},
    {"context", FERRUM_SWAP_REBUILD, FERRUM_OUT_OF_MEMORY},
    {"create", FERRUM_SWAP_REBUILD, FERRUM_OUT_OF_MEMORY},
    {"wrong", FERRUM_SWAP_SELF_TEST, FERRUM_BAD_PLUGIN},
    {"nan", FERRUM_SWAP_SELF_TEST, FERRUM_BAD_PLUGIN},
    {"forward", FERRUM_SWAP_SELF_TEST, FERRUM_DEVICE_ERROR},
    {"kv", FERRUM_SWAP_MIGRATE, FERRUM_DEVICE_ERROR},
};

START_TEST(faults_leave_the_old_serving)
{
    learn();
    prefill(0);
    fixture_set_fault(faults[_i].fault);
    swap_badly(shim, faults[_i].step, faults[_i].status);
    ck_assert_uint_eq(report.fate, faults[_i].step == FERRUM_SWAP_OPEN ? FERRUM_SWAP_FATE_NONE
                                                                       : FERRUM_SWAP_FATE_UNLOADED);
    ck_assert_str_eq(ferrum_module_name(ferrum_runtime_module(fixture.runtime)), "cpu");
    fixture_set_fault(NULL);
    check_same(0);
    ferrum_model_release(model, 0);
    prefill(1);
    swap_well(shim); /* and the next one works */
    check_same(1);
}
END_TEST

START_TEST(no_such_plugin)
{
    ferrum_test_path_t missing;
    ferrum_test_join(folder, "missing.so", missing);
    swap_badly(missing, FERRUM_SWAP_OPEN, FERRUM_NOT_FOUND);
    swap_badly(model_path, FERRUM_SWAP_OPEN, FERRUM_CORRUPT);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_NONE);
}
END_TEST

#if defined(__SANITIZE_THREAD__)
#define STRIDE 7 /* memory has nothing to do with threads, and each swap takes long there */
#else
#define STRIDE 1
#endif

/* Every allocation of the plugins fails once; whatever step that hits, nothing is lost. */
START_TEST(memory_runs_out)
{
    bool met[FERRUM_SWAP_DONE + 1] = {false};
    uint32_t swaps = 0;
    learn();
    prefill(0);
    for (int64_t more = 0;; more += STRIDE) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        int64_t before = atomic_load(&fixture.live_blocks);
        atomic_store(&fixture.allowed_more, more);
        ferrum_status_t status = fixture_swap(&fixture, copy, &report, &err);
        atomic_store(&fixture.allowed_more, -1);
        met[report.step] = true;
        if (status == FERRUM_OK)
            break;
        swaps++;
        ck_assert_msg(status == FERRUM_OUT_OF_MEMORY, "%s", err.message);
        ck_assert_int_eq(atomic_load(&fixture.live_blocks), before);
        ck_assert_uint_eq(report.fate, report.step == FERRUM_SWAP_OPEN ? FERRUM_SWAP_FATE_NONE
                                                                       : FERRUM_SWAP_FATE_UNLOADED);
    }
    ck_assert_uint_gt(swaps, 20 / STRIDE);
    ck_assert(met[FERRUM_SWAP_OPEN] && met[FERRUM_SWAP_REBUILD] && met[FERRUM_SWAP_SELF_TEST]);
    check_same(0);
}
END_TEST

START_TEST(too_large)
{
    ferrum_swap_options_t options = {
        .head = FERRUM_HEAD(ferrum_swap_options_t), .backend = copy, .max_new_bytes = 100};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    report = (ferrum_swap_report_t){.head = FERRUM_HEAD(ferrum_swap_report_t)};
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(report.step, FERRUM_SWAP_REBUILD);
    ck_assert_msg(strstr(err.message, "max_new_bytes") != NULL, "%s", err.message);
    prefill(0);
    options.max_new_bytes = (uint64_t)1 << 30;
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err), FERRUM_OK);
    options.max_new_bytes = report.new_bytes - 1; /* the weights fit, their caches do not */
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    options.head.size = FERRUM_SWAP_OPTIONS_MIN_SIZE - 1;
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_runtime_swap(NULL, NULL, NULL, NULL), FERRUM_INVALID_ARGUMENT);
}
END_TEST

/* ---- the old generation does not go ---- */

START_TEST(zombies_are_reported)
{
    learn();
    fixture_set_fault("leak");
    swap_well(shim);
    fixture_set_fault(NULL);
    prefill(0);
    swap_well(cpu); /* the shim has not freed 100 bytes */
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_ZOMBIE);
    ck_assert_msg(strstr(report.detail, "not freed") != NULL, "%s", report.detail);
    check_same(0);
    fixture_set_fault("leak"); /* also when it is the new one that is given up */
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_swap_options_t options = {
        .head = FERRUM_HEAD(ferrum_swap_options_t), .backend = shim, .max_new_bytes = 1};
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_ZOMBIE);
    atomic_fetch_sub(&fixture.live_blocks, 2); /* what the two hold */
}
END_TEST

START_TEST(references_are_respected)
{
    ferrum_module_t *module = ferrum_runtime_module(fixture.runtime);
    ferrum_unload_report_t unload = {0};
    ferrum_module_retain(module);
    swap_well(copy);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_HELD);
    ck_assert_str_eq(ferrum_module_name(module), "cpu");
    ferrum_module_release(module, &unload);
    ck_assert_uint_ne(unload.unloaded, 0);

    const char *const pin[] = {"FERRUM_DISABLE_UNLOAD", "1", NULL};
    ferrum_model_free(model);
    fixture_close(&fixture);
    fixture_open(&fixture, cpu, pin);
    open_model();
    swap_well(copy);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_PINNED);
}
END_TEST

/* ---- others at the same time ---- */

typedef struct watcher {
    ferrum_swap_step_t at;
    bool cancel;
    ferrum_status_t nested;
    ferrum_error_t err;
    atomic_bool *gate;
    uint32_t calls;
} watcher_t;

static int watch(void *arg, ferrum_swap_step_t step, uint32_t done, uint32_t total)
{
    watcher_t *w = arg;
    ck_assert_uint_le(done, total);
    w->calls++;
    if (step != w->at)
        return 0;
    if (w->gate) {
        atomic_store(w->gate, true);
        fixture_sleep_ms(100);
    }
    w->nested = ferrum_runtime_swap(fixture.runtime, NULL, NULL, &w->err);
    return w->cancel;
}

static ferrum_status_t watched_swap(watcher_t *watcher, ferrum_error_t *err)
{
    ferrum_swap_options_t options = {.head = FERRUM_HEAD(ferrum_swap_options_t),
                                     .backend = copy,
                                     .progress = watch,
                                     .progress_arg = watcher};
    report = (ferrum_swap_report_t){.head = FERRUM_HEAD(ferrum_swap_report_t)};
    watcher->err = (ferrum_error_t)FERRUM_ERROR_INIT;
    return ferrum_runtime_swap(fixture.runtime, &options, &report, err);
}

START_TEST(cancelled_at_every_step)
{
    learn();
    prefill(0);
    for (ferrum_swap_step_t step = FERRUM_SWAP_OPEN; step <= FERRUM_SWAP_DRAIN; step++) {
        watcher_t watcher = {.at = step, .cancel = true};
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ck_assert_int_eq(watched_swap(&watcher, &err), FERRUM_CANCELLED);
        ck_assert_uint_eq(report.step, step);
        ck_assert_uint_eq(ferrum_runtime_generation(fixture.runtime), 1);
        /* and a second swap meanwhile finds the first */
        ck_assert_int_eq(watcher.nested, FERRUM_BUSY);
        ck_assert_msg(strstr(watcher.err.message, "another swap") != NULL, "%s",
                      watcher.err.message);
    }
    check_same(0);
}
END_TEST

typedef struct swapper {
    watcher_t watcher;
    ferrum_status_t status;
    ferrum_error_t err;
} swapper_t;

static void *swapper_main(void *arg)
{
    swapper_t *s = arg;
    s->err = (ferrum_error_t)FERRUM_ERROR_INIT;
    s->status = watched_swap(&s->watcher, &s->err);
    return NULL;
}

START_TEST(closing_ends_a_swap)
{
    pthread_t thread;
    atomic_bool gate = false;
    swapper_t swapper = {.watcher = {.at = FERRUM_SWAP_SELF_TEST, .gate = &gate}};
    ferrum_model_free(model);
    model = NULL;
    ck_assert_int_eq(pthread_create(&thread, NULL, swapper_main, &swapper), 0);
    while (!atomic_load(&gate))
        fixture_sleep_ms(1);
    fixture_close(&fixture); /* waits */
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(swapper.status, FERRUM_CANCELLED);
    ck_assert_msg(strstr(swapper.err.message, "being closed") != NULL, "%s", swapper.err.message);
    ck_assert_int_eq(swapper.watcher.nested, FERRUM_BUSY);
    ck_assert_msg(strstr(swapper.watcher.err.message, "being closed") != NULL, "%s",
                  swapper.watcher.err.message);
}
END_TEST

START_TEST(steps_have_names)
{
    ck_assert_str_eq(ferrum_swap_step_name(FERRUM_SWAP_SELF_TEST), "self-test");
    ck_assert_str_eq(ferrum_swap_step_name(FERRUM_SWAP_DONE), "done");
    ck_assert_str_eq(ferrum_swap_step_name(99), "?");
    ck_assert_uint_eq(sizeof(ferrum_swap_report_t), FERRUM_SWAP_REPORT_MIN_SIZE);
    ck_assert_uint_eq(sizeof(ferrum_swap_options_t), FERRUM_SWAP_OPTIONS_MIN_SIZE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap");
    TCase *tcase = tcase_create("protocol");
    fixture_need_plugin("cpu");
    fixture_need_plugin("shim");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, requests_live_on);
    tcase_add_test(tcase, nothing_is_running);
    tcase_add_test(tcase, handles_share_weights);
    tcase_add_loop_test(tcase, faults_leave_the_old_serving, 0,
                        (int)(sizeof faults / sizeof faults[0]));
    tcase_add_test(tcase, no_such_plugin);
    tcase_add_test(tcase, memory_runs_out);
    tcase_add_test(tcase, too_large);
    tcase_add_test(tcase, zombies_are_reported);
    tcase_add_test(tcase, references_are_respected);
    tcase_add_test(tcase, cancelled_at_every_step);
    tcase_add_test(tcase, closing_ends_a_swap);
    tcase_add_test(tcase, steps_have_names);
    tcase_set_timeout(tcase, 300);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
