/* SPDX-License-Identifier: MIT */
/* The trained models that come with Ferrum: text, greedy continuations, logits and held-out loss
 * against what transformers computed in float64 (models/expected.json, tests/golden). */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

/* Each op may be off by what FERRUM_PRECISION_ACCURATE allows on a CPU, 5e-4; logits are at the end
 * of a dozen of them. A token whose lead is smaller than that error may lose. */
#define LOGITS_BOUND 2e-3
#define LEAST_MARGIN 2e-2
/* Mean negative log likelihood per token. */
#define LOSS_BOUND 2e-3

static const char *const names[] = {"gguf", "gptq"};

static ferrum_model_fixture_t fixture;
static ferrum_model_t *model;
static json_t *expected, *entry;

static json_t *load_json(const char *name)
{
    ferrum_test_path_t path;
    ferrum_test_source_path(name, path);
    json_t *root = json_load_file(path, 0, NULL);
    ck_assert_msg(root != NULL, "%s is missing", path);
    return root;
}

static void open_trained(const char *name)
{
    ferrum_test_path_t models, path;
    expected = load_json("models/expected.json");
    entry = json_object_get(json_object_get(expected, "models"), name);
    ferrum_test_source_path("models", models);
    ferrum_test_join(models, json_string_value(json_object_get(entry, "path")), path);
    ferrum_fixture_open(&fixture, 1, NULL);
    model = ferrum_fixture_model(&fixture, path, 512, 8);
}

static void close_trained(void)
{
    ferrum_model_free(model);
    ferrum_fixture_close(&fixture);
    json_decref(expected);
}

static uint32_t read_ids(const json_t *list, uint32_t *out_ids, uint32_t room)
{
    uint32_t count = (uint32_t)json_array_size(list);
    ck_assert_uint_le(count, room);
    for (uint32_t i = 0; i < count; i++)
        out_ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return count;
}

typedef struct collected {
    uint32_t ids[256];
    uint32_t count;
    char text[4096];
    size_t bytes;
} collected_t;

static int collect(void *arg, uint32_t token, const char *text, size_t bytes)
{
    collected_t *all = arg;
    ck_assert_uint_lt(all->count, 256);
    ck_assert_uint_lt(all->bytes + bytes, sizeof all->text);
    all->ids[all->count++] = token;
    if (bytes)
        memcpy(all->text + all->bytes, text, bytes);
    all->bytes += bytes;
    all->text[all->bytes] = '\0';
    return 0;
}

static void check_prompt(const json_t *prompt)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const char *text = json_string_value(json_object_get(prompt, "prompt"));
    uint32_t ids[64], tokens[64], want[256];
    uint32_t count = read_ids(json_object_get(prompt, "prompt_ids"), ids, 64);
    size_t made = 0;
    ck_assert_msg(ferrum_model_encode(model, text, strlen(text), 0, tokens, 64, &made, &err) ==
                      FERRUM_OK,
                  "%s", err.message);
    ck_assert_uint_eq(made, count);
    ck_assert_mem_eq(tokens, ids, count * sizeof *ids);

    uint32_t wanted = read_ids(json_object_get(prompt, "new_ids"), want, 256);
    const json_t *margins = json_object_get(prompt, "margins");
    ferrum_generate_options_t options = {
        .head = FERRUM_HEAD(ferrum_generate_options_t), .max_tokens = wanted, .ignore_end = 1};
    collected_t all = {.count = 0};
    ferrum_generate_result_t result = {.head = FERRUM_HEAD(ferrum_generate_result_t)};
    ck_assert_msg(ferrum_generate(model, 1, ids, count, &options, collect, &all, &result, &err) ==
                      FERRUM_OK,
                  "%s", err.message);
    ck_assert_uint_eq(all.count, wanted);
    ck_assert_uint_eq(result.generated_tokens, wanted);
    for (uint32_t i = 0; i < wanted; i++) {
        if (json_real_value(json_array_get(margins, i)) < LEAST_MARGIN && all.ids[i] != want[i])
            return; /* too close to call: what follows is another text */
        ck_assert_msg(all.ids[i] == want[i], "\"%s\" token %u: %u, not %u", text, i, all.ids[i],
                      want[i]);
    }
    ck_assert_str_eq(all.text, json_string_value(json_object_get(prompt, "new_text")));
}

START_TEST(greedy_continuations)
{
    open_trained(names[_i]);
    size_t i;
    json_t *prompt;
    json_array_foreach(json_object_get(entry, "prompts"), i, prompt) check_prompt(prompt);
    close_trained();
}
END_TEST

START_TEST(last_logits)
{
    open_trained(names[_i]);
    json_t *golden = load_json("tests/golden/trained_logits.json"), *row;
    ferrum_test_path_t path;
    size_t bytes, r;
    uint32_t vocab = (uint32_t)json_integer_value(json_object_get(golden, "vocab"));
    ferrum_test_source_path("tests/golden/trained_logits.bin", path);
    uint8_t *data = ferrum_test_read_file(path, &bytes);
    ck_assert_uint_eq(vocab, ferrum_fixture_vocab(model));
    float *logits = malloc(vocab * sizeof *logits);
    int compared = 0;
    json_array_foreach(json_object_get(golden, "rows"), r, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "model")),
                   json_string_value(json_object_get(entry, "path"))) != 0)
            continue;
        uint32_t ids[64], count = read_ids(json_object_get(row, "ids"), ids, 64);
        size_t offset = (size_t)json_integer_value(json_object_get(row, "offset"));
        ck_assert_uint_le(offset + vocab * sizeof *logits, bytes);
        ck_assert_int_eq(ferrum_model_prefill(model, r, ids, count, logits, NULL), FERRUM_OK);
        double error =
            ferrum_relative_error(logits, (const float *)(const void *)(data + offset), vocab);
        ck_assert_msg(error < LOGITS_BOUND, "row %zu: relative error %g", r, error);
        compared++;
    }
    ck_assert_int_gt(compared, 0);
    free(logits);
    free(data);
    json_decref(golden);
    close_trained();
}
END_TEST

static double loss_of(const float *logits, uint32_t vocab, uint32_t target)
{
    double largest = (double)logits[0], sum = 0;
    for (uint32_t i = 1; i < vocab; i++)
        largest = fmax(largest, (double)logits[i]);
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - largest);
    return log(sum) + largest - (double)logits[target];
}

/* All windows are one batch: each step decodes one token of every window. */
START_TEST(held_out_loss)
{
    enum {
        MOST = 8,
        IDS = 4096
    };
    static uint32_t ids[IDS];
    open_trained(names[_i]);
    json_t *held_out = load_json("models/heldout.json");
    uint32_t window = (uint32_t)json_integer_value(json_object_get(held_out, "window"));
    uint32_t count = read_ids(json_object_get(held_out, "ids"), ids, IDS);
    uint32_t windows = (count - 1) / window, vocab = ferrum_fixture_vocab(model);
    ck_assert_uint_le(windows, MOST);
    float *logits = malloc((size_t)MOST * vocab * sizeof *logits);
    uint64_t requests[MOST];
    uint32_t tokens[MOST];
    double total = 0;
    for (uint32_t step = 0; step < window; step++) {
        for (uint32_t w = 0; w < windows; w++) {
            requests[w] = w;
            tokens[w] = ids[w * window + step];
            if (step == 0)
                ck_assert_int_eq(
                    ferrum_model_prefill(model, w, &tokens[w], 1, logits + (size_t)w * vocab, NULL),
                    FERRUM_OK);
        }
        if (step != 0)
            ck_assert_int_eq(
                ferrum_model_decode_batch(model, requests, tokens, windows, logits, NULL),
                FERRUM_OK);
        for (uint32_t w = 0; w < windows; w++)
            total += loss_of(logits + (size_t)w * vocab, vocab, ids[w * window + step + 1]);
    }
    double loss = total / (windows * window);
    double want = json_number_value(json_object_get(entry, "heldout_nll"));
    ck_assert_msg(fabs(loss - want) < LOSS_BOUND, "%s: held-out loss %g, not %g", names[_i], loss,
                  want);
    free(logits);
    json_decref(held_out);
    close_trained();
}
END_TEST

/* Pieces of text are whole characters, whatever tokens they were made of. */
START_TEST(sampled_text_is_utf8)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t prompt[3] = {1, 2, 3};
    open_trained("gguf");
    for (uint64_t seed = 0; seed < 4; seed++) {
        ferrum_generate_options_t options = {.head = FERRUM_HEAD(ferrum_generate_options_t),
                                             .max_tokens = 60,
                                             .temperature = 3.0f,
                                             .seed = seed,
                                             .ignore_end = 1};
        collected_t once = {.count = 0}, twice = {.count = 0};
        ck_assert_int_eq(ferrum_generate(model, 1, prompt, 3, &options, collect, &once, NULL, &err),
                         FERRUM_OK);
        ck_assert_int_eq(
            ferrum_generate(model, 1, prompt, 3, &options, collect, &twice, NULL, &err), FERRUM_OK);
        ck_assert_mem_eq(once.ids, twice.ids, sizeof once.ids[0] * once.count);
        json_t *checked = json_string(once.text); /* refuses what is not UTF-8 */
        ck_assert_msg(once.bytes != strlen(once.text) || checked != NULL, "not UTF-8");
        json_decref(checked);
    }
    size_t bytes = 0, needed = 0;
    uint32_t token;
    ck_assert_ptr_nonnull(ferrum_model_token_bytes(model, 300, &bytes));
    ck_assert_uint_gt(bytes, 0);
    ck_assert_ptr_null(ferrum_model_token_bytes(model, 1u << 30, &bytes));
    ck_assert_int_eq(
        ferrum_model_encode(model, "In the beginning", 16, 0, &token, 1, &needed, &err),
        FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_uint_gt(needed, 1);
    ck_assert_int_eq(ferrum_model_encode(model, "\xff", 1, 0, &token, 1, &needed, &err),
                     FERRUM_INVALID_INPUT);
    close_trained();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_trained");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, greedy_continuations, 0, 2);
    tcase_add_loop_test(tests, last_logits, 0, 2);
    tcase_add_loop_test(tests, held_out_loss, 0, 2);
    tcase_add_test(tests, sampled_text_is_utf8);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
