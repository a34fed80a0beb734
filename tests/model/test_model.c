/* SPDX-License-Identifier: MIT */
/* A synthesised model: requests, their cache, errors, and that a failed step leaves no trace. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

static ferrum_test_path_t folder, path;
static ferrum_model_fixture_t fixture;
static ferrum_model_t *model;
static float logits[64 * SYNTH_VOCAB], again[64 * SYNTH_VOCAB];
static const uint32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2};
enum {
    PROMPT = sizeof prompt / sizeof prompt[0]
};

static void open_with(const char *const *options, uint32_t capacity, uint32_t sequences)
{
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", path);
    ferrum_synth_write(path, NULL);
    ferrum_fixture_open(&fixture, 0, options);
    model = ferrum_fixture_model(&fixture, path, capacity, sequences);
}

static void set_up(void)
{
    open_with(NULL, 0, 0);
}

static void tear_down(void)
{
    ferrum_model_free(model);
    ferrum_fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

static void prefill(uint64_t id, const uint32_t *tokens, uint32_t count, float *out)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_model_prefill(model, id, tokens, count, out, &err) == FERRUM_OK, "%s",
                  err.message);
}

static void decode(uint64_t id, uint32_t token, float *out)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_model_decode(model, id, token, out, &err) == FERRUM_OK, "%s", err.message);
}

START_TEST(describes_itself)
{
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ck_assert_int_eq(ferrum_model_get_info(model, &info, NULL), FERRUM_OK);
    ck_assert_uint_eq(info.layers, SYNTH_LAYERS);
    ck_assert_uint_eq(info.hidden, SYNTH_HIDDEN);
    ck_assert_uint_eq(info.vocab, SYNTH_VOCAB);
    ck_assert_uint_eq(info.experts, 4);
    ck_assert_uint_eq(info.top_k, 2);
    ck_assert_uint_eq(info.kv_capacity, SYNTH_CONTEXT);
    ck_assert_uint_eq(info.max_sequences, 32);
    ck_assert_str_eq(info.architecture, "qwen3moe");
    ck_assert_str_eq(info.moe_path, "expert_ffn");
    ck_assert_uint_gt(info.weight_bytes, 0);
    ck_assert_uint_eq(info.kv_bytes, 0); /* pools come with the first request */
    prefill(1, prompt, 2, logits);
    ck_assert_int_eq(ferrum_model_get_info(model, &info, NULL), FERRUM_OK);
    ck_assert_uint_eq(info.kv_bytes, (uint64_t)2 * SYNTH_LAYERS * 32 * SYNTH_CONTEXT * 4 * 4);
    ck_assert_uint_gt(info.scratch_bytes, 0);

    struct {
        ferrum_head_t head;
        uint32_t layers;
    } small = {{sizeof small, 0}, 0};
    ck_assert_int_eq(ferrum_model_get_info(model, (ferrum_model_info_t *)(void *)&small, NULL),
                     FERRUM_INVALID_ARGUMENT);
}
END_TEST

START_TEST(prefill_and_decode_advance)
{
    prefill(7, prompt, PROMPT, logits);
    for (int i = 0; i < SYNTH_VOCAB; i++)
        ck_assert(isfinite(logits[i]));
    ck_assert_uint_eq(ferrum_model_length(model, 7), PROMPT);
    for (uint32_t i = 0; i < 5; i++) {
        decode(7, i, logits);
        ck_assert_uint_eq(ferrum_model_length(model, 7), PROMPT + 1 + i);
    }
    ck_assert_uint_eq(ferrum_model_length(model, 8), 0);
    ferrum_model_release(model, 8);
    ferrum_model_release(model, 7);
    ck_assert_uint_eq(ferrum_model_length(model, 7), 0);
    ferrum_block_allocator_t *blocks = ferrum_kv_cache_blocks(model->kv);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks),
                      ferrum_block_allocator_total(blocks));
}
END_TEST

/* Decoding token by token gives what prefilling the same tokens gives, and requests do not see
 * each other. */
START_TEST(decode_equals_prefill)
{
    prefill(1, prompt, 4, logits);
    prefill(2, prompt + 9, 5, again);
    for (uint32_t i = 4; i < PROMPT; i++) {
        decode(1, prompt[i], logits);
        decode(2, prompt[PROMPT - i], again);
    }
    prefill(3, prompt, PROMPT, again);
    ck_assert(ferrum_relative_error(logits, again, SYNTH_VOCAB) < 1e-5);
}
END_TEST

START_TEST(later_prefill_continues)
{
    prefill(1, prompt, PROMPT, logits);
    prefill(2, prompt, 7, again);
    prefill(2, prompt + 7, PROMPT - 7, again);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));
}
END_TEST

START_TEST(reset_empties)
{
    for (uint64_t id = 0; id < 10; id++)
        prefill(id, prompt, PROMPT, logits);
    ferrum_model_reset(model);
    for (uint64_t id = 0; id < 10; id++)
        ck_assert_uint_eq(ferrum_model_length(model, id), 0);
    ck_assert_uint_eq(ferrum_kv_cache_sequences(model->kv), 0);
    prefill(3, prompt, PROMPT, again);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));
}
END_TEST

static void make_requests(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        prefill(100 + i, prompt + i % 4, 2 + i % 15, logits);
}

/* A row of a batch is the same bits as the same token decoded by itself. */
START_TEST(batch_equals_single)
{
    enum {
        COUNT = 9
    };
    uint64_t ids[COUNT];
    uint32_t tokens[COUNT];
    make_requests(COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = 100 + (i * 5) % COUNT;
        tokens[i] = (i * 7) % SYNTH_VOCAB;
    }
    for (int step = 0; step < 6; step++)
        ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, NULL),
                         FERRUM_OK);
    ferrum_model_reset(model);
    float scratch[SYNTH_VOCAB * COUNT];
    memcpy(scratch, logits, sizeof scratch);
    make_requests(COUNT);
    for (int step = 0; step < 6; step++)
        for (uint32_t i = 0; i < COUNT; i++)
            decode(ids[i], tokens[i], again + i * SYNTH_VOCAB);
    ck_assert_mem_eq(scratch, again, sizeof scratch);
}
END_TEST

/* Nothing is measured unless asked for; then every part has its time, and results stay. */
START_TEST(profile_of_passes)
{
    ferrum_model_profile_t profile = {.head = FERRUM_HEAD(ferrum_model_profile_t)};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t total = 0;
    prefill(1, prompt, 7, logits);
    ck_assert_int_eq(ferrum_model_profile_read(model, &profile, &err), FERRUM_OK);
    ck_assert_uint_eq(profile.passes, 0);
    ck_assert_int_eq(ferrum_model_profile_start(model, 1, &err), FERRUM_OK);
    prefill(2, prompt, 7, again);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));
    decode(2, 3, again);
    ck_assert_int_eq(ferrum_model_profile_read(model, &profile, &err), FERRUM_OK);
    ck_assert_uint_eq(profile.passes, 2);
    for (ferrum_model_part_t part = 0; part < FERRUM_MODEL_PARTS; part++) {
        ck_assert_ptr_nonnull(ferrum_model_part_name(part));
        ck_assert_msg(profile.ns[part] > 0, "no time for %s", ferrum_model_part_name(part));
        total += profile.ns[part];
    }
    ck_assert_uint_gt(total, profile.ns[FERRUM_MODEL_PART_EXPERTS]);
    ck_assert_ptr_null(ferrum_model_part_name(FERRUM_MODEL_PARTS));
    ck_assert_int_eq(ferrum_model_profile_start(model, 0, &err), FERRUM_OK);
    decode(2, 3, again);
    ck_assert_int_eq(ferrum_model_profile_read(model, &profile, &err), FERRUM_OK);
    ck_assert_uint_eq(profile.passes, 0);
    ck_assert_int_eq(ferrum_model_profile_start(NULL, 1, &err), FERRUM_INVALID_ARGUMENT);
    profile.head.size = 8;
    ck_assert_int_eq(ferrum_model_profile_read(model, &profile, &err), FERRUM_INVALID_ARGUMENT);
}
END_TEST

START_TEST(refusals)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t bad = SYNTH_VOCAB, good = 1, tokens[2] = {1, 2};
    uint64_t twice[2] = {1, 1}, unknown[2] = {1, 2};
    prefill(1, prompt, 3, logits);
    ck_assert_int_eq(ferrum_model_prefill(model, 2, &bad, 1, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "token 16"));
    ck_assert_int_eq(ferrum_model_prefill(model, 2, &good, 0, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_model_prefill(model, 2, NULL, 1, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_model_decode(model, 1, bad, logits, &err), FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_model_decode(model, 2, good, logits, &err), FERRUM_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.message, "no request 2"));
    ck_assert_int_eq(ferrum_model_decode_batch(model, twice, tokens, 2, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "twice"));
    ck_assert_int_eq(ferrum_model_decode_batch(model, unknown, tokens, 2, logits, &err),
                     FERRUM_NOT_FOUND);
    ck_assert_int_eq(ferrum_model_decode_batch(model, NULL, tokens, 2, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_int_eq(ferrum_model_decode_batch(model, twice, tokens, 0, logits, &err), FERRUM_OK);
    ck_assert_uint_eq(ferrum_model_length(model, 1), 3);
    ck_assert_uint_eq(ferrum_model_length(model, 2), 0);
}
END_TEST

START_TEST(capacity_is_an_error)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t many[SYNTH_CONTEXT + 1] = {0};
    ck_assert_int_eq(ferrum_model_prefill(model, 1, many, SYNTH_CONTEXT + 1, logits, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "capacity of 96"));
    ck_assert_uint_eq(ferrum_model_length(model, 1), 0);
    prefill(1, many, SYNTH_CONTEXT, logits);
    ck_assert_int_eq(ferrum_model_decode(model, 1, 0, again, &err), FERRUM_INVALID_ARGUMENT);
    ck_assert_uint_eq(ferrum_model_length(model, 1), SYNTH_CONTEXT);
    ck_assert_int_eq(ferrum_model_prefill(model, 1, many, 1, again, &err), FERRUM_INVALID_ARGUMENT);
}
END_TEST

/* An empty pool and too many requests are RESOURCE_EXHAUSTED, change nothing, and pass. */
START_TEST(exhaustion_passes)
{
    const char *options[] = {"FERRUM_KV_MAX_BLOCKS", "3", NULL};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t ids[3] = {1, 2, 3};
    uint32_t tokens[3] = {1, 2, 3};
    open_with(options, 64, 3);
    prefill(1, prompt, 16, logits);
    prefill(2, prompt, 16, logits);
    ck_assert_int_eq(ferrum_model_prefill(model, 3, prompt, 17, logits, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(ferrum_model_length(model, 3), 0);
    ck_assert_uint_eq(ferrum_kv_cache_sequences(model->kv), 2);

    /* Two requests need a block each, one is left: neither advances. */
    ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, 2, logits, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(err.message, "2 KV blocks needed, 1 of 3 free"));
    ck_assert_uint_eq(ferrum_model_length(model, 1), 16);
    decode(1, 5, logits);
    ferrum_model_release(model, 1);
    decode(2, 5, again);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));

    ferrum_model_reset(model);
    for (uint64_t id = 1; id <= 3; id++)
        prefill(id, prompt, 1, logits);
    ck_assert_int_eq(ferrum_model_prefill(model, 4, prompt, 1, logits, &err),
                     FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(err.message, "all 3 requests"));
    ferrum_model_release(model, 2);
    prefill(4, prompt, 1, logits);
    ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, 3, logits, &err),
                     FERRUM_NOT_FOUND);
    tear_down();
}
END_TEST

/* Ops that fail half way through the layers. */
static int calls_left;
static ferrum_status_t (*real_norm)(ferrum_context_t *, ferrum_buffer_t *, const ferrum_buffer_t *,
                                    const ferrum_buffer_t *, float, ferrum_buffer_t *, uint32_t,
                                    uint32_t, ferrum_error_t *);
static ferrum_status_t failing_norm(ferrum_context_t *ctx, ferrum_buffer_t *residual,
                                    const ferrum_buffer_t *x, const ferrum_buffer_t *w, float eps,
                                    ferrum_buffer_t *out, uint32_t tokens, uint32_t dim,
                                    ferrum_error_t *err)
{
    if (calls_left-- == 0)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "made to fail");
    return real_norm(ctx, residual, x, w, eps, out, tokens, dim, err);
}

START_TEST(failed_steps_leave_requests_alone)
{
    enum {
        COUNT = 5
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t ids[COUNT] = {100, 101, 102, 103, 104};
    uint32_t tokens[COUNT] = {1, 2, 3, 4, 5};
    ferrum_backend_ops_t table = *model->ops->backend;
    real_norm = table.fused_add_rms_norm;
    table.fused_add_rms_norm = failing_norm;
    const ferrum_backend_ops_t *real = model->ops->backend;
    make_requests(COUNT);
    ferrum_block_allocator_t *blocks = ferrum_kv_cache_blocks(model->kv);
    uint32_t free_blocks = ferrum_block_allocator_free_count(blocks);

    for (int after = 0; after < 4; after++) {
        model->ops->backend = &table;
        calls_left = after;
        ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, &err),
                         FERRUM_DEVICE_ERROR);
        ck_assert_str_eq(err.message, "made to fail");
        calls_left = after;
        ck_assert_int_eq(ferrum_model_decode(model, 101, 3, logits, &err), FERRUM_DEVICE_ERROR);
        calls_left = after;
        ck_assert_int_eq(ferrum_model_prefill(model, 102, prompt, 20, logits, &err),
                         FERRUM_DEVICE_ERROR);
        calls_left = after;
        ck_assert_int_eq(ferrum_model_prefill(model, 200, prompt, 20, logits, &err),
                         FERRUM_DEVICE_ERROR);
        model->ops->backend = real;
        ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), free_blocks);
        ck_assert_uint_eq(ferrum_model_length(model, 200), 0);
        for (uint32_t i = 0; i < COUNT; i++)
            ck_assert_uint_eq(ferrum_model_length(model, ids[i]), 2 + i % 15);
    }
    ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, &err), FERRUM_OK);
    ferrum_model_reset(model);
    float first[COUNT * SYNTH_VOCAB];
    memcpy(first, logits, sizeof first);
    make_requests(COUNT);
    ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, again, &err), FERRUM_OK);
    ck_assert_mem_eq(first, again, sizeof first);
}
END_TEST

/* Not enough rows for a shared pass, or the switch is off: item by item, the same bits. */
START_TEST(thresholds_do_not_change_results)
{
    static const char *const settings[][3] = {{"FERRUM_MOE_BATCHED", "0", NULL},
                                              {"FERRUM_MOE_BATCH_THRESHOLD", "1", NULL},
                                              {"FERRUM_MOE_BATCH_THRESHOLD", "30", NULL}};
    enum {
        COUNT = 6
    };
    uint64_t ids[COUNT] = {100, 101, 102, 103, 104, 105};
    uint32_t tokens[COUNT] = {1, 2, 3, 4, 5, 6};
    float first[COUNT * SYNTH_VOCAB];
    for (int i = 0; i < 3; i++) {
        open_with(settings[i], 0, 0);
        make_requests(COUNT);
        ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, NULL),
                         FERRUM_OK);
        tear_down();
        if (i == 0)
            memcpy(first, logits, sizeof first);
        else
            ck_assert_mem_eq(first, logits, sizeof first);
    }
}
END_TEST

START_TEST(prefix_cache_shares_blocks)
{
    const char *options[] = {"FERRUM_PREFIX_CACHE", "1", NULL};
    uint32_t tokens[40], other[40];
    for (uint32_t i = 0; i < 40; i++) {
        tokens[i] = (i * 5 + 1) % SYNTH_VOCAB;
        other[i] = i < 20 ? tokens[i] : 3;
    }
    open_with(options, 0, 0);
    ferrum_block_allocator_t *blocks = ferrum_kv_cache_blocks(model->kv);
    uint32_t total = ferrum_block_allocator_total(blocks);
    prefill(1, tokens, 40, logits);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), total - 3);
    prefill(2, tokens, 40, again);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), total - 4);
    prefill(3, other, 40, again); /* shares the first block only */
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), total - 6);
    ck_assert_mem_ne(logits, again, SYNTH_VOCAB * sizeof(float));
    float expected[SYNTH_VOCAB];
    memcpy(expected, again, sizeof expected);

    /* Whole blocks only: at least the last token is computed. */
    prefill(4, tokens, 32, again);
    ck_assert_uint_eq(ferrum_model_length(model, 4), 32);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), total - 7);

    /* Nothing is lost when nobody is left, and reset forgets. */
    for (uint64_t id = 1; id <= 4; id++)
        ferrum_model_release(model, id);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks), total);
    uint64_t hits, before, misses;
    ferrum_block_allocator_stats(blocks, &before, &misses);
    prefill(5, tokens, 40, again);
    ferrum_block_allocator_stats(blocks, &hits, &misses);
    ck_assert_uint_eq(hits, before + 2);
    ck_assert_mem_eq(logits, again, SYNTH_VOCAB * sizeof(float));
    ferrum_model_reset(model);
    prefill(6, other, 40, again);
    ferrum_block_allocator_stats(blocks, &hits, &misses);
    ck_assert_uint_eq(hits, 0);
    ck_assert_mem_eq(expected, again, sizeof expected);
    tear_down();
}
END_TEST

static int stop_generation(void *arg, uint32_t token, const char *text, size_t bytes)
{
    (void)token;
    (void)text;
    ck_assert_uint_eq(bytes, 0);
    return ++*(int *)arg == 3;
}

START_TEST(generates_without_a_tokenizer)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_generate_options_t options = {.head = FERRUM_HEAD(ferrum_generate_options_t),
                                         .max_tokens = 10};
    ferrum_generate_result_t result = {.head = FERRUM_HEAD(ferrum_generate_result_t)};
    int calls = 0;
    size_t count;
    ck_assert_int_eq(ferrum_model_encode(model, "a", 1, 0, NULL, 0, &count, &err),
                     FERRUM_NOT_FOUND);
    ck_assert_ptr_null(ferrum_model_token_bytes(model, 0, NULL));
    ck_assert_int_eq(ferrum_generate(model, 5, prompt, 4, &options, NULL, NULL, &result, &err),
                     FERRUM_OK);
    ck_assert_uint_eq(result.generated_tokens, 10);
    ck_assert_uint_eq(result.prompt_tokens, 4);
    ck_assert_uint_eq(result.stopped_by_callback, 0);
    ck_assert_int_eq(
        ferrum_generate(model, 5, prompt, 4, &options, stop_generation, &calls, &result, &err),
        FERRUM_OK);
    ck_assert_uint_eq(result.generated_tokens, 3);
    ck_assert_uint_eq(result.stopped_by_callback, 1);
    ck_assert_uint_eq(ferrum_model_length(model, 5), 0);

    prefill(5, prompt, 1, logits);
    ck_assert_int_eq(ferrum_generate(model, 5, prompt, 4, &options, NULL, NULL, &result, &err),
                     FERRUM_INVALID_ARGUMENT);
    options.max_tokens = 500;
    ck_assert_int_eq(ferrum_generate(model, 6, prompt, 4, &options, NULL, NULL, &result, &err),
                     FERRUM_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "capacity"));
    ck_assert_uint_eq(ferrum_model_length(model, 6), 0);
    options.temperature = -1.0f;
    ck_assert_int_eq(ferrum_generate(model, 6, prompt, 4, &options, NULL, NULL, &result, &err),
                     FERRUM_INVALID_ARGUMENT);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("model");
    TCase *plain = tcase_create("synthesised");
    tcase_add_checked_fixture(plain, set_up, tear_down);
    tcase_add_test(plain, describes_itself);
    tcase_add_test(plain, prefill_and_decode_advance);
    tcase_add_test(plain, decode_equals_prefill);
    tcase_add_test(plain, later_prefill_continues);
    tcase_add_test(plain, reset_empties);
    tcase_add_test(plain, batch_equals_single);
    tcase_add_test(plain, profile_of_passes);
    tcase_add_test(plain, refusals);
    tcase_add_test(plain, capacity_is_an_error);
    tcase_add_test(plain, failed_steps_leave_requests_alone);
    tcase_add_test(plain, generates_without_a_tokenizer);
    suite_add_tcase(suite, plain);
    TCase *options = tcase_create("options");
    tcase_add_test(options, exhaustion_passes);
    tcase_add_test(options, thresholds_do_not_change_results);
    tcase_add_test(options, prefix_cache_shares_blocks);
    suite_add_tcase(suite, options);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
