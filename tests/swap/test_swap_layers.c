/* SPDX-License-Identifier: MIT */
/* A swap under layers and sessions: where weights come from again, and passes that take long. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <check.h>
#include <ferrum/util.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/files.h"
#include "tests/swap/fixture.h"

static ferrum_test_path_t folder, copy;
static swap_fixture_t fixture;
static ferrum_swap_report_t report;
static char shim[4096], cpu[4096];

static void set_up(void)
{
    fixture_set_fault(NULL);
    (void)snprintf(cpu, sizeof cpu, "%s", fixture_plugin_path("cpu"));
    (void)snprintf(shim, sizeof shim, "%s", fixture_plugin_path("shim"));
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "cpu-copy.so", copy);
    fixture_copy_plugin("cpu", copy);
    fixture_open(&fixture, cpu, NULL);
}

static void tear_down(void)
{
    fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

static void swap_well(const char *to)
{
    fixture_swap_well(&fixture, to, &report);
}

static void swap_badly(const char *to, ferrum_swap_step_t step, ferrum_status_t status)
{
    fixture_swap_badly(&fixture, to, step, status, &report);
}

enum {
    HIDDEN = 32,
    FFN = 32,
    EXPERTS = 4,
    TOKENS = 3,
    TOP_K = 2
};

static float slabs[3][EXPERTS * HIDDEN * FFN];
static ferrum_gguf_weights_t weights[3];
static ferrum_expert_weights_t roles[3];
static ferrum_expert_ffn_desc_t desc;
static float x[TOKENS * HIDDEN], pair_weights[TOKENS * TOP_K], first[TOKENS * HIDDEN];
static int32_t ids[TOKENS * TOP_K];

static void describe_layer(uint32_t flags)
{
    uint64_t state = 5;
    for (int r = 0; r < 3; r++) {
        for (size_t i = 0; i < EXPERTS * HIDDEN * FFN; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            slabs[r][i] = (float)(state >> 40) / (float)(1 << 25) - 0.25f;
        }
        weights[r] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                             .format = FERRUM_FORMAT_F32,
                                             .flags = flags,
                                             .experts = EXPERTS,
                                             .rows = r == 2 ? HIDDEN : FFN,
                                             .cols = r == 2 ? FFN : HIDDEN,
                                             .data = slabs[r],
                                             .bytes = sizeof slabs[r]};
        roles[r] = (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                             .gguf = &weights[r]};
    }
    desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                      .hidden = HIDDEN,
                                      .intermediate = FFN,
                                      .num_experts = EXPERTS,
                                      .gate = &roles[0],
                                      .up = &roles[1],
                                      .down = &roles[2]};
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        x[i] = (float)(i % 13 - 6) / 8.0f;
    for (int i = 0; i < TOKENS * TOP_K; i++) {
        ids[i] = i % EXPERTS;
        pair_weights[i] = 0.5f;
    }
}

static ferrum_session_t *new_session(void)
{
    ferrum_session_t *session = NULL;
    ck_assert_int_eq(ferrum_session_new(fixture.runtime, 1, &session, NULL), FERRUM_OK);
    return session;
}

static ferrum_moe_layer_t *new_layer(uint32_t flags)
{
    ferrum_moe_layer_t *layer = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    describe_layer(flags);
    ck_assert_msg(ferrum_moe_layer_create(fixture.runtime, &desc, &layer, &err) == FERRUM_OK, "%s",
                  err.message);
    return layer;
}

static void forward(ferrum_session_t *session, ferrum_moe_layer_t *layer, float *out)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_moe_layer_forward(session, layer, x, ids, pair_weights, out, TOKENS, TOP_K,
                                           0, &err) == FERRUM_OK,
                  "%s", err.message);
}

START_TEST(mapped_layers_are_packed_again)
{
    float out[TOKENS * HIDDEN];
    ferrum_session_t *session = new_session();
    ferrum_moe_layer_t *layer = new_layer(FERRUM_WEIGHTS_MAPPED);
    forward(session, layer, first);
    memset(&desc, 0xff, sizeof desc); /* only the slabs must stay */
    memset(roles, 0xff, sizeof roles);
    memset(weights, 0xff, sizeof weights);
    swap_well(shim);
    forward(session, layer, out);
    ck_assert_mem_eq(out, first, sizeof first);
    swap_well(cpu);
    ferrum_session_t *late = new_session();
    forward(late, layer, out);
    ck_assert_mem_eq(out, first, sizeof first);
    ferrum_moe_layer_free(layer);
    ferrum_session_free(late);
    ferrum_session_free(session);
}
END_TEST

static ferrum_status_t supply(void *arg, ferrum_moe_layer_t *layer, ferrum_error_t *err)
{
    int *mode = arg;
    if (*mode == 1) /* forgets it */
        return FERRUM_OK;
    if (*mode == 2) /* has lost them */
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "the disk is gone");
    describe_layer(0);
    if (*mode == 3)
        desc.hidden = HIDDEN + 1;
    FERRUM_TRY(ferrum_moe_layer_supply(layer, &desc, err));
    return *mode == 4 ? ferrum_moe_layer_supply(layer, &desc, err) : FERRUM_OK;
}

START_TEST(borrowed_layers_need_a_source)
{
    static const ferrum_status_t statuses[] = {[1] = FERRUM_INVALID_ARGUMENT,
                                               [2] = FERRUM_IO,
                                               [3] = FERRUM_INVALID_ARGUMENT,
                                               [4] = FERRUM_INVALID_ARGUMENT};
    float out[TOKENS * HIDDEN];
    int mode = 0;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_session_t *session = new_session();
    ferrum_moe_layer_t *layer = new_layer(0);
    forward(session, layer, first);
    memset(slabs, 0, sizeof slabs);
    swap_badly(copy, FERRUM_SWAP_REBUILD, FERRUM_UNSUPPORTED);
    ck_assert_int_eq(ferrum_moe_layer_supply(layer, &desc, &err), FERRUM_INVALID_ARGUMENT);
    ferrum_moe_layer_set_source(layer, supply, &mode);
    for (mode = 1; mode <= 4; mode++)
        swap_badly(copy, FERRUM_SWAP_REBUILD, statuses[mode]);
    forward(session, layer, out);
    ck_assert_mem_eq(out, first, sizeof first);
    mode = 0;
    swap_well(shim);
    forward(session, layer, out);
    ck_assert_mem_eq(out, first, sizeof first);
    ferrum_moe_layer_free(layer);
    ferrum_session_free(session);
}
END_TEST

typedef struct runner {
    ferrum_session_t *session;
    ferrum_moe_layer_t *layer;
    float out[TOKENS * HIDDEN];
    atomic_bool started;
} runner_t;

/* Ends the passes of the shim's "slow" once a swap is about to wait for them. */
static ferrum_test_path_t until;

static void *allow_main(void *arg)
{
    fixture_sleep_ms(50);
    FILE *file = fopen(until, "w");
    ck_assert_ptr_nonnull(file);
    (void)fclose(file);
    return arg;
}

static int allow_at_drain(void *arg, ferrum_swap_step_t step, uint32_t done, uint32_t total)
{
    (void)done;
    (void)total;
    if (step == FERRUM_SWAP_DRAIN)
        ck_assert_int_eq(pthread_create(arg, NULL, allow_main, NULL), 0);
    return 0;
}

static void *runner_main(void *arg)
{
    runner_t *r = arg;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status = FERRUM_BUSY;
    atomic_store(&r->started, true);
    while (status == FERRUM_BUSY) /* the main thread's knocking may be in the session first */
        status = ferrum_moe_layer_forward(r->session, r->layer, x, ids, pair_weights, r->out,
                                          TOKENS, TOP_K, 0, &err);
    ck_assert_msg(status == FERRUM_OK, "%s", err.message);
    return NULL;
}

START_TEST(slow_passes_are_waited_for)
{
    pthread_t thread, allower;
    runner_t runner = {.session = new_session(), .layer = new_layer(FERRUM_WEIGHTS_MAPPED)};
    ferrum_session_t *other = new_session();
    ferrum_error_t err = FERRUM_ERROR_INIT;
    float row[HIDDEN];
    forward(runner.session, runner.layer, first);
    ferrum_test_join(folder, "until", until);
    ck_assert_int_eq(setenv("FERRUM_TEST_FAULT_UNTIL", until, 1), 0);
    fixture_set_fault("slow");
    swap_well(shim); /* its passes of three tokens do not end by themselves now */
    atomic_init(&runner.started, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, runner_main, &runner), 0);
    while (!atomic_load(&runner.started))
        fixture_sleep_ms(1);
    /* a session of one thread is not for two */
    while (ferrum_moe_layer_forward(runner.session, runner.layer, x, ids, pair_weights, row, 1,
                                    TOP_K, 0, &err) != FERRUM_BUSY)
        fixture_sleep_ms(1);

    ferrum_swap_options_t options = {
        .head = FERRUM_HEAD(ferrum_swap_options_t), .backend = cpu, .drain_timeout_ms = 60};
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err), FERRUM_TIMEOUT);
    ck_assert_uint_eq(report.step, FERRUM_SWAP_DRAIN);
    ck_assert_uint_eq(report.fate, FERRUM_SWAP_FATE_UNLOADED);
    ck_assert_str_eq(ferrum_module_name(ferrum_runtime_module(fixture.runtime)), "shim");
    ck_assert_int_eq(
        ferrum_moe_layer_forward(other, runner.layer, x, ids, pair_weights, row, 1, TOP_K, 0, &err),
        FERRUM_OK); /* the others have been let go */
    options.drain_timeout_ms = 0;
    options.progress = allow_at_drain;
    options.progress_arg = &allower;
    ck_assert_int_eq(ferrum_runtime_swap(fixture.runtime, &options, &report, &err), FERRUM_OK);
    ck_assert_int_eq(pthread_join(allower, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_mem_eq(runner.out, first, sizeof first);
    ferrum_moe_layer_free(runner.layer);
    ferrum_session_free(other);
    ferrum_session_free(runner.session);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_layers");
    TCase *tcase = tcase_create("layers");
    fixture_need_plugin("cpu");
    fixture_need_plugin("shim");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, mapped_layers_are_packed_again);
    tcase_add_test(tcase, borrowed_layers_need_a_source);
    tcase_add_test(tcase, slow_passes_are_waited_for);
    tcase_set_timeout(tcase, 300);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
