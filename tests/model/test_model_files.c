/* SPDX-License-Identifier: MIT */
/* Opening: every broken, incomplete or unsupported file is refused with a clear error. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

static ferrum_test_path_t folder, path;
static ferrum_model_fixture_t fixture;
static ferrum_error_t err;

static void set_up(void)
{
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", path);
    ferrum_fixture_open(&fixture, 1, NULL);
    err = (ferrum_error_t)FERRUM_ERROR_INIT;
}

static void tear_down(void)
{
    ferrum_fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

START_TEST(sound_file_opens)
{
    ferrum_synth_write(path, NULL);
    ck_assert_msg(ferrum_fixture_try(&fixture, path, &err) == FERRUM_OK, "%s", err.message);
}
END_TEST

static const char *const tensors[] = {
    "token_embd.weight",        "output_norm.weight",         "blk.0.attn_norm.weight",
    "blk.1.ffn_norm.weight",    "blk.0.attn_q_norm.weight",   "blk.1.attn_k_norm.weight",
    "blk.0.attn_q.weight",      "blk.0.attn_k.weight",        "blk.1.attn_v.weight",
    "blk.1.attn_output.weight", "blk.0.ffn_gate_inp.weight",  "blk.1.ffn_gate_exps.weight",
    "blk.0.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight",
};
enum {
    TENSORS = sizeof tensors / sizeof tensors[0]
};

START_TEST(missing_tensor_is_named)
{
    ferrum_synth_faults_t faults = {.leave_out = tensors[_i]};
    ferrum_synth_write(path, &faults);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_NOT_FOUND);
    ck_assert_msg(strstr(err.message, tensors[_i]) != NULL, "%s", err.message);
}
END_TEST

START_TEST(wrong_shape_is_named)
{
    ferrum_synth_faults_t faults = {.wrong_shape = tensors[_i]};
    if (strstr(tensors[_i], "norm") || strcmp(tensors[_i], "token_embd.weight") == 0)
        return; /* one row less is none, or another vocabulary */
    ferrum_synth_write(path, &faults);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_INVALID_INPUT);
    ck_assert_msg(strstr(err.message, tensors[_i]) != NULL, "%s", err.message);
}
END_TEST

START_TEST(config_that_contradicts_the_tensors)
{
    ferrum_synth_faults_t hidden = {.embedding_length = 16}, dense = {.architecture = "llama"};
    ferrum_synth_write(path, &hidden);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_INVALID_INPUT);
    ferrum_synth_write(path, &dense);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.message, "llama"));
}
END_TEST

START_TEST(nothing_there)
{
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.message, "model.gguf"));
    ck_assert_int_eq(ferrum_fixture_try(&fixture, folder, &err), FERRUM_NOT_FOUND);
    ferrum_test_write_file(path, "", 0);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, path, &err), FERRUM_CORRUPT);
    ferrum_model_t *model = NULL;
    ck_assert_int_eq(ferrum_model_open(NULL, path, NULL, &model, &err), FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_model_open(fixture.runtime, NULL, NULL, &model, &err),
                     FERRUM_INVALID_ARGUMENT);
}
END_TEST

/* Cut anywhere, a file is refused; overwritten anywhere, it is refused or opens. */
START_TEST(truncated_and_corrupt)
{
    size_t bytes;
    ferrum_synth_write(path, NULL);
    uint8_t *data = ferrum_test_read_file(path, &bytes);
    for (size_t cut = 0; cut < bytes; cut += 97) {
        ferrum_test_write_file(path, data, cut);
        ferrum_status_t status = ferrum_fixture_try(&fixture, path, &err);
        ck_assert_msg(status == FERRUM_CORRUPT, "cut at %zu: status %d", cut, (int)status);
    }
    uint64_t state = 99;
    for (int round = 0; round < 300; round++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(state >> 33) % 3000;
        uint8_t old = data[at];
        data[at] = (uint8_t)(state >> 56);
        ferrum_test_write_file(path, data, bytes);
        if (ferrum_fixture_try(&fixture, path, &err) != FERRUM_OK)
            ck_assert(err.message[0] != '\0');
        data[at] = old;
    }
    free(data);
}
END_TEST

/* ---- progress and cancelling ---- */

typedef struct watch {
    uint64_t last, total;
    int calls, stop_at;
} watch_t;

static int watch_progress(void *arg, uint64_t done, uint64_t total)
{
    watch_t *watch = arg;
    ck_assert_uint_le(watch->last, done);
    ck_assert_uint_le(done, total);
    watch->last = done;
    watch->total = total;
    return ++watch->calls == watch->stop_at;
}

static ferrum_status_t open_watched(const char *file, watch_t *watch)
{
    ferrum_model_options_t options = {.head = FERRUM_HEAD(ferrum_model_options_t),
                                      .progress = watch_progress,
                                      .progress_arg = watch};
    ferrum_model_t *model = NULL;
    ferrum_status_t status = ferrum_model_open(fixture.runtime, file, &options, &model, &err);
    ck_assert((model != NULL) == (status == FERRUM_OK));
    ferrum_model_free(model);
    return status;
}

static void check_cancel(const char *file)
{
    watch_t whole = {0};
    ck_assert_int_eq(open_watched(file, &whole), FERRUM_OK);
    ck_assert_uint_eq(whole.last, whole.total);
    ck_assert_int_gt(whole.calls, 4);
    for (int stop = 1; stop <= whole.calls; stop++) {
        watch_t watch = {.stop_at = stop};
        ck_assert_int_eq(open_watched(file, &watch), FERRUM_CANCELLED);
        ck_assert_int_eq(watch.calls, stop);
    }
}

START_TEST(cancelled_loads_leave_nothing)
{
    ferrum_synth_write(path, NULL);
    uint64_t before = fixture.live_blocks;
    check_cancel(path);
    ferrum_golden_t golden;
    ferrum_golden_load("rand_gptq", &golden);
    check_cancel(golden.model);
    ferrum_golden_free(&golden);
    ck_assert_uint_eq(fixture.live_blocks, before);
}
END_TEST

/* ---- checkpoints of several files ---- */

static void copy_file(const char *from_folder, const char *name, size_t keep)
{
    ferrum_test_path_t from, to;
    size_t bytes = 0;
    ferrum_test_join(from_folder, name, from);
    ferrum_test_join(folder, name, to);
    uint8_t *data = ferrum_test_read_file(from, &bytes);
    ck_assert_ptr_nonnull(data);
    ferrum_test_write_file(to, data, keep < bytes ? keep : bytes);
    free(data);
}

START_TEST(broken_checkpoints)
{
    static const char *const files[] = {"config.json", "quantize_config.json", "model.safetensors"};
    enum {
        FILES = sizeof files / sizeof files[0]
    };
    ferrum_test_path_t source;
    ferrum_test_source_path("tests/golden/rand_gptq", source);
    for (int broken = 0; broken < FILES; broken++) {
        for (size_t keep = 0; keep < 4000; keep += 61) {
            for (int i = 0; i < FILES; i++)
                copy_file(source, files[i], i == broken ? keep : SIZE_MAX);
            ferrum_status_t status = ferrum_fixture_try(&fixture, folder, &err);
            ferrum_test_path_t whole;
            size_t bytes;
            ferrum_test_join(source, files[broken], whole);
            free(ferrum_test_read_file(whole, &bytes));
            if (keep < bytes - 1)
                ck_assert_msg(status != FERRUM_OK, "%s cut at %zu", files[broken], keep);
            if (keep > bytes)
                break;
        }
    }
}
END_TEST

/* Without a usable tokenizer a model takes tokens, and says why it takes no text. */
START_TEST(broken_tokenizer)
{
    static const char *const files[] = {"config.json", "quantize_config.json", "model.safetensors"};
    static const char junk[] = "{\"model\": {\"type\": \"Unigram\"}}";
    ferrum_test_path_t source, tokenizer;
    ferrum_test_source_path("tests/golden/rand_gptq", source);
    for (int i = 0; i < 3; i++)
        copy_file(source, files[i], SIZE_MAX);
    ferrum_test_join(folder, "tokenizer.json", tokenizer);
    ferrum_test_write_file(tokenizer, junk, sizeof junk - 1);
    ferrum_model_t *model = ferrum_fixture_model(&fixture, folder, 0, 1);
    uint32_t token = 1;
    size_t needed;
    float logits[96];
    ck_assert_int_eq(ferrum_model_prefill(model, 1, &token, 1, logits, &err), FERRUM_OK);
    ferrum_status_t status = ferrum_model_encode(model, "a", 1, 0, &token, 1, &needed, &err);
    ck_assert(status == FERRUM_UNSUPPORTED || status == FERRUM_CORRUPT);
    ck_assert_msg(strstr(err.message, "Unigram") != NULL, "%s", err.message);
    ferrum_model_free(model);
}
END_TEST

/* A folder without weights, and one whose config is not of this family. */
START_TEST(incomplete_folders)
{
    ferrum_test_path_t source, config;
    ferrum_test_source_path("tests/golden/rand_gptq", source);
    copy_file(source, "config.json", SIZE_MAX);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, folder, &err), FERRUM_NOT_FOUND);
    ferrum_test_join(folder, "config.json", config);
    static const char llama[] = "{\"model_type\": \"llama\", \"hidden_size\": 8}";
    ferrum_test_write_file(config, llama, sizeof llama - 1);
    ck_assert_int_eq(ferrum_fixture_try(&fixture, folder, &err), FERRUM_UNSUPPORTED);
}
END_TEST

/* Kilobytes of all mappings of a file that are in this process's memory; -1: the system does not
 * tell. */
static long resident_kb(const char *file)
{
    char line[1024];
    long sum = -1, kb;
    bool inside = false;
    FILE *maps = fopen("/proc/self/smaps", "r");
    if (!maps)
        return -1;
    while (fgets(line, sizeof line, maps)) {
        if (strchr(line, '-') && strchr(line, ':') > strchr(line, '-'))
            inside = strstr(line, file) != NULL;
        if (inside && sscanf(line, "Rss: %ld", &kb) == 1)
            sum = (sum < 0 ? 0 : sum) + kb;
    }
    (void)fclose(maps);
    return sum;
}

/* Weights that the backend has packed are not held a second time by the file's mapping. */
START_TEST(packed_pages_are_given_back)
{
    ferrum_test_path_t file;
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", file);
    ferrum_model_t *model = ferrum_fixture_model(&fixture, file, 16, 1);
    ck_assert_int_eq(ferrum_model_get_info(model, &info, &err), FERRUM_OK);
    const long mapped_kb = resident_kb("tiny-qwen3moe-q4_k.gguf");
    if (mapped_kb >= 0)
        ck_assert_int_lt(mapped_kb, (long)(info.weight_bytes / 1024 / 8));
    ferrum_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_files");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, sound_file_opens);
    tcase_add_loop_test(tests, missing_tensor_is_named, 0, TENSORS);
    tcase_add_loop_test(tests, wrong_shape_is_named, 0, TENSORS);
    tcase_add_test(tests, config_that_contradicts_the_tensors);
    tcase_add_test(tests, nothing_there);
    tcase_add_test(tests, truncated_and_corrupt);
    tcase_add_test(tests, cancelled_loads_leave_nothing);
    tcase_add_test(tests, broken_checkpoints);
    tcase_add_test(tests, broken_tokenizer);
    tcase_add_test(tests, incomplete_folders);
    tcase_add_test(tests, packed_pages_are_given_back);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
