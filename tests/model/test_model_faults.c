/* SPDX-License-Identifier: MIT */
/* Memory that runs out: each allocation of loading and running a model, the host's and the
 * plugin's, fails once. Every failure is OUT_OF_MEMORY, leaks nothing, and the next try works. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

static int64_t until_failure = -1; /* allocations that still succeed; negative: all */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *ptr, size_t bytes);
int __real_posix_memalign(void **out, size_t align, size_t bytes);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *ptr, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes);

static bool fails(void)
{
    return until_failure >= 0 && until_failure-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *ptr, size_t bytes)
{
    return fails() ? NULL : __real_realloc(ptr, bytes);
}

int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    return fails() ? 12 : __real_posix_memalign(out, align, bytes);
}

static ferrum_model_fixture_t fixture;
static float logits[8 * 4096];

/* Open, prompts, a batch, a generation; stops at the first failure. */
static ferrum_status_t scenario(const char *path, ferrum_error_t *err)
{
    enum {
        COUNT = 5
    };
    static const uint64_t ids[COUNT] = {1, 2, 3, 4, 5};
    static const uint32_t tokens[20] = {1, 2, 3, 4, 5, 6, 7};
    ferrum_model_t *model = NULL;
    ferrum_generate_options_t options = {.head = FERRUM_HEAD(ferrum_generate_options_t),
                                         .max_tokens = 3};
    ferrum_status_t status = ferrum_model_open(fixture.runtime, path, NULL, &model, err);
    for (uint32_t i = 0; status == FERRUM_OK && i < COUNT; i++)
        status = ferrum_model_prefill(model, ids[i], tokens, 3 + 2 * i, logits, err);
    if (status == FERRUM_OK)
        status = ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, err);
    if (status == FERRUM_OK)
        status = ferrum_generate(model, 9, tokens, 4, &options, NULL, NULL, NULL, err);
    ferrum_model_free(model);
    return status;
}

static void fail_each(const char *path, int64_t step)
{
    uint64_t before = fixture.live_blocks;
    int64_t failures = 0;
    for (int64_t n = 0;; n += step) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        until_failure = n;
        ferrum_status_t status = scenario(path, &err);
        bool survived = until_failure >= 0;
        until_failure = -1;
        ck_assert_uint_eq(fixture.live_blocks, before);
        if (survived) {
            ck_assert_int_eq(status, FERRUM_OK);
            break;
        }
        ck_assert_msg(status == FERRUM_OUT_OF_MEMORY, "allocation %d: status %d, %s", (int)n,
                      (int)status, err.message);
        ck_assert(err.message[0] != '\0');
        failures++;
    }
    ck_assert_int_gt(failures, 50);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(scenario(path, &err) == FERRUM_OK, "%s", err.message);
}

START_TEST(synthesised_gguf)
{
    ferrum_test_path_t folder, path;
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", path);
    ferrum_synth_write(path, NULL);
    ferrum_fixture_open(&fixture, 1, NULL);
    fail_each(path, 1);
    ferrum_fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}
END_TEST

START_TEST(gptq_by_each_path)
{
    static const char *const paths[] = {"expert_ffn", "bucketed", "per-pair"};
    const char *const options[] = {"FERRUM_MOE_PATH", paths[_i], NULL};
    ferrum_test_path_t path;
    ferrum_test_source_path("tests/golden/rand_gptq", path);
    ferrum_fixture_open(&fixture, 1, options);
    fail_each(path, 1);
    ferrum_fixture_close(&fixture);
}
END_TEST

START_TEST(trained_gguf_with_tokenizer)
{
    ferrum_test_path_t path;
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", path);
    ferrum_fixture_open(&fixture, 1, NULL);
    fail_each(path, 17);
    ferrum_fixture_close(&fixture);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_faults");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, synthesised_gguf);
    tcase_add_loop_test(tests, gptq_by_each_path, 0, 3);
    tcase_add_test(tests, trained_gguf_with_tokenizer);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
