/* SPDX-License-Identifier: MIT */
/* Faults while a runtime, a session, a model and a text are made, and while a backend is swapped.
 * FERRUM_TEST_FAULT_STEP=N lets every n-th call fail, FERRUM_TEST_FAULT_FIRST=M beginning with the
 * call M; `make check-long-faults` fails every one. */
#include "config.h"

#include <ferrum/model.h>
#include <ferrum/swap.h>

#include "tests/model/model_fixture.h"
#include "tests/support/expect.h"
#include "tests/support/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ferrum_test_path_t dir, synthesised, gptq, trained;
static ferrum_options_t *options; /* where the plugin is */
static ferrum_model_t *swapped;   /* open throughout the swaps */
static ferrum_runtime_t *runtime; /* for the operations that do not open their own */

/* The last line that was logged about a plugin that was kept. */
static char kept[FERRUM_ERROR_MESSAGE_BYTES];

static void watch_log(void *self, ferrum_log_level_t level, const char *message)
{
    if (strstr(message, "kept: "))
        (void)snprintf(kept, sizeof kept, "%s", message);
}

static const ferrum_logger_t logger = {
    .head = FERRUM_HEAD(ferrum_logger_t), .level = FERRUM_LOG_WARN, .log = watch_log};

static ferrum_status_t open_runtime(ferrum_runtime_t **out_runtime, ferrum_error_t *err)
{
    const ferrum_runtime_options_t wanted = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                             .backend = "cpu",
                                             .options = options,
                                             .threads = 2,
                                             .logger = &logger};
    return ferrum_runtime_open(&wanted, out_runtime, err);
}

/* ---- operations ---- */

static ferrum_status_t run_runtime(ferrum_error_t *err)
{
    ferrum_runtime_t *opened = NULL;
    ferrum_session_t *session = NULL;
    kept[0] = '\0';
    ferrum_status_t status = open_runtime(&opened, err);
    if (status == FERRUM_OK)
        status = ferrum_session_new(opened, 3, &session, err);
    ferrum_session_free(session);
    ferrum_runtime_close(opened);
    if (kept[0])
        status = ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "%s", kept);
    return status;
}

static ferrum_status_t run_session(ferrum_error_t *err)
{
    ferrum_session_t *session = NULL;
    FERRUM_TRY(ferrum_session_new(runtime, 3, &session, err));
    ferrum_session_free(session);
    return FERRUM_OK;
}

static ferrum_status_t run_model(const char *path, ferrum_error_t *err)
{
    static const uint32_t tokens[] = {1, 2, 3, 4};
    static float logits[4096];
    const ferrum_generate_options_t wanted = {.head = FERRUM_HEAD(ferrum_generate_options_t),
                                              .max_tokens = 2};
    ferrum_model_t *model = NULL;
    FERRUM_TRY(ferrum_model_open(runtime, path, NULL, &model, err));
    ferrum_status_t status = ferrum_model_prefill(model, 1, tokens, 4, logits, err);
    if (status == FERRUM_OK)
        status = ferrum_generate(model, 9, tokens, 4, &wanted, NULL, NULL, NULL, err);
    ferrum_model_free(model);
    return status;
}

/* Swap to a fresh copy of the same plugin under an open model. Whatever the swap comes to, the
 * model goes on computing the same. */
static ferrum_status_t run_swap(ferrum_error_t *err)
{
    static const uint32_t tokens[] = {3, 1, 2};
    static float expected[SYNTH_VOCAB], logits[SYNTH_VOCAB];
    ferrum_swap_report_t report = {.head = FERRUM_HEAD(ferrum_swap_report_t)};
    if (expected[0] == 0.0f)
        FERRUM_TRY(ferrum_model_prefill(swapped, 7, tokens, 3, expected, err));
    ferrum_status_t status = ferrum_runtime_swap(runtime, NULL, &report, err);
    if (status == FERRUM_OK && report.fate != FERRUM_SWAP_FATE_UNLOADED)
        status = ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "%s", report.detail);
    ferrum_model_release(swapped, 7);
    ferrum_status_t served =
        ferrum_model_prefill(swapped, 7, tokens, 3, logits, status == FERRUM_OK ? err : NULL);
    if (status != FERRUM_OK && served != FERRUM_OK)
        return ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER,
                           "the old backend does not serve after a failed swap");
    if (served == FERRUM_OK && memcmp(logits, expected, sizeof logits) != 0)
        return ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER,
                           "the backend computes something else after a swap");
    return status == FERRUM_OK ? served : status;
}

static ferrum_status_t run_synthesised(ferrum_error_t *err)
{
    return run_model(synthesised, err);
}

static ferrum_status_t run_gptq(ferrum_error_t *err)
{
    return run_model(gptq, err);
}

static ferrum_status_t run_trained(ferrum_error_t *err)
{
    return run_model(trained, err);
}

/* A model whose tokenizer cannot be read is opened with a warning, and takes tokens only. */
static const char *const asks_tokenizer[] = {"stat", "open", "fstat", "mmap", NULL};
/* A directory without the plugin cannot be searched; where memory and processors lie is
 * unknown. */
static const char *const asks_system[] = {
    "open",    "fstat", "fdopendir", "hwloc_topology_init", "fopen", "hwloc_topology_load",
    "dlclose", NULL};

/* Which calls fail: every one, or every so many. A sanitizer makes each try ten times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP(plain, sanitized) (sanitized)
#else
#define STEP(plain, sanitized) (plain)
#endif

static const faults_operation_t operations[] = {
    {"runtime and session", run_runtime, asks_system, STEP(1, 47), "kept: "},
    {"session", run_session, NULL, 1, NULL},
    {"GGUF model", run_synthesised, NULL, STEP(1, 7), NULL},
    {"GPTQ model", run_gptq, asks_tokenizer, STEP(37, 401), NULL},
    {"swap", run_swap, asks_system, STEP(1, 61), "kept: "},
    {"trained GGUF model with its tokenizer", run_trained, NULL, STEP(11, 211), NULL},
};

static void setup(void)
{
    const char *plugins = getenv("FERRUM_PLUGIN_PATH");
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "model.gguf", synthesised);
    ferrum_synth_write(synthesised, NULL);
    ferrum_test_source_path("tests/golden/rand_gptq", gptq);
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", trained);
    EXPECT_OK(ferrum_options_new(&options, &err));
    if (plugins)
        EXPECT_OK(ferrum_options_set(options, "FERRUM_PLUGIN_PATH", plugins, &err));
    EXPECT_OK(open_runtime(&runtime, &err));
    EXPECT_OK(ferrum_model_open(runtime, synthesised, NULL, &swapped, &err));
}

static void teardown(void)
{
    ferrum_model_free(swapped);
    ferrum_runtime_close(runtime);
    ferrum_options_free(options);
    ferrum_test_remove_directory(dir);
}

START_TEST(every_call_fails_once)
{
    const char *given_step = getenv("FERRUM_TEST_FAULT_STEP");
    const char *given_first = getenv("FERRUM_TEST_FAULT_FIRST");
    const faults_operation_t *operation = &operations[_i];
    long step = given_step ? atol(given_step) : operation->step;
    long first = given_first ? atol(given_first) % step : 0;
    long failures = faults_exhaust_some(operation, first, step);
    printf("%s: %ld calls failed once, number %ld and every %ld. from there on\n", operation->name,
           failures, first, step);
    ck_assert_int_ge(failures, 5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults/runtime");
    TCase *tests = tcase_create("runtime");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 7200);
    tcase_add_loop_test(tests, every_call_fails_once, 0, sizeof operations / sizeof operations[0]);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
