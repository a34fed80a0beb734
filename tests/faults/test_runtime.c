/* SPDX-License-Identifier: MIT */
/* Faults while a runtime, a session, a model and a text are made. */
#include "config.h"

#include <ferrum/model.h>

#include "tests/model/model_fixture.h"
#include "tests/support/expect.h"
#include "tests/support/faults.h"

#include <stdio.h>
#include <stdlib.h>

static ferrum_test_path_t dir, synthesised, gptq, trained;
static ferrum_options_t *options; /* where the plugin is */
static ferrum_runtime_t *runtime; /* for the operations that do not open their own */

static ferrum_status_t open_runtime(ferrum_runtime_t **out_runtime, ferrum_error_t *err)
{
    const ferrum_runtime_options_t wanted = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                             .backend = "cpu",
                                             .options = options,
                                             .threads = 2};
    return ferrum_runtime_open(&wanted, out_runtime, err);
}

/* ---- operations ---- */

static ferrum_status_t run_runtime(ferrum_error_t *err)
{
    ferrum_runtime_t *opened = NULL;
    ferrum_session_t *session = NULL;
    FERRUM_TRY(open_runtime(&opened, err));
    ferrum_status_t status = ferrum_session_new(opened, 3, &session, err);
    ferrum_session_free(session);
    ferrum_runtime_close(opened);
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

static const char *const asks_stat[] = {"stat", NULL};

static const faults_operation_t operations[] = {
    {"runtime and session", run_runtime, NULL, 0, "kept: "},
    {"session", run_session, NULL, 0, NULL},
    {"GGUF model", run_synthesised, NULL, 0, NULL},
    {"GPTQ model", run_gptq, asks_stat, 37, NULL},
    {"trained GGUF model with its tokenizer", run_trained, NULL, 11, NULL},
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
}

static void teardown(void)
{
    ferrum_runtime_close(runtime);
    ferrum_options_free(options);
    ferrum_test_remove_directory(dir);
}

START_TEST(every_call_fails_once)
{
    long failures = faults_exhaust(&operations[_i]);
    printf("%s: %ld calls failed once\n", operations[_i].name, failures);
    ck_assert_int_gt(failures, 5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults/runtime");
    TCase *tests = tcase_create("runtime");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, every_call_fails_once, 0, sizeof operations / sizeof operations[0]);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
