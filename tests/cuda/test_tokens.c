/* SPDX-License-Identifier: MIT */
/*
 * The models that come with Ferrum through cuda.so: greedy tokens against what transformers
 * computed in float64 (models/expected.json), and decode steps that are replayed from graphs
 * against the same steps run one by one.
 */
#include "tests/cuda/fixture.h"

#include <ferrum/model.h>

#include <dlfcn.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* Activations are rounded to f16: a token whose lead is smaller than this may lose. */
#define LEAST_MARGIN 6e-2

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOST_TOKENS 6u
#define SHARED_MODELS 1
#else
#define MOST_TOKENS 24u
#define SHARED_MODELS 2
#endif

enum {
    MOST_IDS = 64,
    LEAST_COMPARED = 4
};

static const char *const names[] = {"gguf", "gptq"};

static ferrum_runtime_t *runtime;
static ferrum_model_t *model;
static json_t *expected, *entry;

static void open_model(const char *name, const char *graphs)
{
    char path[1024];
    ferrum_options_t *options;

    (void)snprintf(path, sizeof path, "%s/models/expected.json", getenv("FERRUM_TEST_SRCDIR"));
    expected = json_load_file(path, 0, NULL);
    ck_assert_msg(expected != NULL, "%s is missing", path);
    entry = json_object_get(json_object_get(expected, "models"), name);
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_CUDA_DRIVER", cuda_driver_path(), &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_MOE_GRAPH", graphs, &err));
    const ferrum_runtime_options_t how = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                          .backend = cuda_plugin_path(),
                                          .options = options,
                                          .threads = 1};
    EXPECT_OK(ferrum_runtime_open(&how, &runtime, &err));
    ferrum_options_free(options);
    const ferrum_model_options_t shape = {
        .head = FERRUM_HEAD(ferrum_model_options_t), .kv_capacity = 128, .max_sequences = 12};
    (void)snprintf(path, sizeof path, "%s/models/%s", getenv("FERRUM_TEST_SRCDIR"),
                   json_string_value(json_object_get(entry, "path")));
    EXPECT_OK(ferrum_model_open(runtime, path, &shape, &model, &err));
}

static void close_model(void)
{
    ferrum_model_free(model);
    ferrum_runtime_close(runtime);
    json_decref(expected);
}

static uint32_t read_ids(const json_t *list, uint32_t ids[MOST_IDS])
{
    const uint32_t count = (uint32_t)json_array_size(list);

    ck_assert_uint_le(count, MOST_IDS);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return count;
}

/* ---- greedy tokens ---- */

typedef struct made {
    uint32_t ids[MOST_IDS];
    uint32_t count;
} made_t;

static int collect(void *arg, uint32_t token, const char *text, size_t bytes)
{
    made_t *made = arg;

    (void)text;
    (void)bytes;
    made->ids[made->count++] = token;
    return 0;
}

/** Tokens until one that is too close to call; how many were compared. */
static uint32_t compare_prompt(const json_t *prompt)
{
    uint32_t ids[MOST_IDS], wanted[MOST_IDS];
    const uint32_t count = read_ids(json_object_get(prompt, "prompt_ids"), ids);
    const uint32_t all = read_ids(json_object_get(prompt, "new_ids"), wanted);
    const ferrum_generate_options_t options = {.head = FERRUM_HEAD(ferrum_generate_options_t),
                                               .max_tokens = all < MOST_TOKENS ? all : MOST_TOKENS,
                                               .ignore_end = 1};
    ferrum_generate_result_t result = {.head = FERRUM_HEAD(ferrum_generate_result_t)};
    made_t made = {.count = 0};

    EXPECT_OK(ferrum_generate(model, 1, ids, count, &options, collect, &made, &result, &err));
    ck_assert_uint_eq(made.count, options.max_tokens);
    for (uint32_t i = 0; i < made.count; i++) {
        const double margin =
            json_real_value(json_array_get(json_object_get(prompt, "margins"), i));
        if (margin < LEAST_MARGIN && made.ids[i] != wanted[i])
            return i;
        ck_assert_msg(made.ids[i] == wanted[i], "\"%s\" token %u: %u, not %u",
                      json_string_value(json_object_get(prompt, "prompt")), i, made.ids[i],
                      wanted[i]);
    }
    return made.count;
}

START_TEST(greedy_tokens)
{
    const json_t *prompt;
    size_t i;

    open_model(names[_i], "0");
    json_array_foreach(json_object_get(entry, "prompts"), i, prompt)
        ck_assert_uint_ge(compare_prompt(prompt), LEAST_COMPARED);
    close_model();
}
END_TEST

/* ---- graphs ---- */

enum {
    MOST_REQUESTS = 5,
    STEPS = 8
};

/** Logits of STEPS decode steps of some requests; free() them. */
static float *decode_steps(const char *name, const char *graphs, uint32_t count,
                           uint32_t *out_vocab)
{
    uint64_t requests[MOST_REQUESTS];
    uint32_t tokens[MOST_REQUESTS], ids[MOST_IDS];
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};

    open_model(name, graphs);
    EXPECT_OK(ferrum_model_get_info(model, &info, &err));
    const size_t step_logits = (size_t)count * info.vocab;
    float *logits = calloc(STEPS * step_logits, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    const json_t *prompt = json_array_get(json_object_get(entry, "prompts"), 0);
    const uint32_t known = read_ids(json_object_get(prompt, "new_ids"), ids);
    for (uint32_t r = 0; r < count; r++) {
        requests[r] = r;
        EXPECT_OK(ferrum_model_prefill(model, r, ids + r, 2 + r, logits, &err));
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint32_t r = 0; r < count; r++)
            tokens[r] = ids[(step + 3 * r) % known];
        EXPECT_OK(ferrum_model_decode_batch(model, requests, tokens, count,
                                            logits + step * step_logits, &err));
    }
    close_model();
    *out_vocab = info.vocab;
    return logits;
}

START_TEST(graphs_give_the_same_logits)
{
    const uint32_t requests = _i % 2 ? 1 : MOST_REQUESTS;
    uint64_t (*count)(const char *what);
    uint32_t vocab;
    void *driver = dlopen(cuda_driver_path(), RTLD_NOW | RTLD_LOCAL);

    ck_assert_ptr_nonnull(driver);
    void *found = dlsym(driver, "ferrum_emu_count");
    memcpy(&count, &found, sizeof count);
    float *eager = decode_steps(names[_i / 2], "0", requests, &vocab);
    ck_assert_uint_eq(count("cuGraphLaunch"), 0);
    float *replayed = decode_steps(names[_i / 2], "1", requests, &vocab);
    ck_assert_uint_ge(count("cuGraphLaunch"), STEPS / 2);
    ck_assert_mem_eq(replayed, eager, (size_t)STEPS * requests * vocab * sizeof *eager);
    free(eager);
    free(replayed);
    dlclose(driver);
}
END_TEST

/* ---- one graph for several sizes ---- */

enum {
    REQUESTS = 10, /* a size of graphs, which nine are padded to */
    PREFILLED = 4, /* requests with prompts of that size; the others have one token */
    SHARED_STEPS = 6
};

static uint64_t (*count_calls)(const char *what);

/** Launches of kernels and of graphs, and allocations, since *@p last, which is brought up to
 *  date. */
typedef struct calls {
    uint64_t kernels, graphs, allocations, instances;
} calls_t;
static calls_t calls_since(calls_t *last)
{
    const calls_t now = {count_calls("cuLaunchKernel"), count_calls("cuGraphLaunch"),
                         count_calls("cuMemAlloc_v2"), count_calls("cuGraphInstantiateWithFlags")};
    const calls_t since = {now.kernels - last->kernels, now.graphs - last->graphs,
                           now.allocations - last->allocations, now.instances - last->instances};

    *last = now;
    return since;
}

/** Prompts of ten tokens and of nine by turns: the third and later ones replay one graph. */
static float *prefill_requests(const uint32_t *ids, uint32_t known, uint32_t vocab, bool graphs,
                               float *out)
{
    calls_t last = {0, 0, 0, 0};

    for (uint32_t r = 0; r < REQUESTS; r++, out += vocab) {
        uint32_t prompt[REQUESTS];
        for (uint32_t i = 0; i < REQUESTS; i++)
            prompt[i] = ids[(r + i) % known];
        (void)calls_since(&last);
        EXPECT_OK(ferrum_model_prefill(model, r, prompt, r < PREFILLED ? REQUESTS - r % 2 : 1, out,
                                       &err));
        const calls_t calls = calls_since(&last);
        if (r >= PREFILLED)
            continue;
        ck_assert_uint_eq(calls.graphs, graphs && r > 0);
        ck_assert_uint_eq(calls.instances, graphs && r == 1);
        if (graphs && r > 1) {
            ck_assert_uint_eq(calls.kernels, 1); /* the head */
            ck_assert_uint_eq(calls.allocations, 0);
        }
    }
    return out;
}

/** Prefills, then decode steps of ten and nine requests by turns: all logits; free() them. */
static float *shared_steps(const char *name, bool graphs, size_t *out_bytes)
{
    uint64_t requests[REQUESTS];
    uint32_t tokens[REQUESTS], ids[MOST_IDS];
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    calls_t last = {0, 0, 0, 0};

    open_model(name, graphs ? "1" : "0");
    EXPECT_OK(ferrum_model_get_info(model, &info, &err));
    *out_bytes = (size_t)(SHARED_STEPS + 1) * REQUESTS * info.vocab * sizeof(float);
    float *logits = calloc(1, *out_bytes), *at = logits;
    ck_assert_ptr_nonnull(logits);
    const json_t *prompt = json_array_get(json_object_get(entry, "prompts"), 0);
    const uint32_t known = read_ids(json_object_get(prompt, "new_ids"), ids);
    at = prefill_requests(ids, known, info.vocab, graphs, at);
    for (uint32_t step = 0; step < SHARED_STEPS; step++) {
        const uint32_t count = REQUESTS - step % 2;
        for (uint32_t r = 0; r < count; r++) {
            requests[r] = r;
            tokens[r] = ids[(step + 3 * r) % known];
        }
        (void)calls_since(&last);
        EXPECT_OK(ferrum_model_decode_batch(model, requests, tokens, count, at, &err));
        const calls_t calls = calls_since(&last);
        if (graphs && step > 3) {
            ck_assert_uint_eq(calls.kernels, 0);
            ck_assert_uint_eq(calls.graphs, 1);
            ck_assert_uint_eq(calls.allocations, 0);
            ck_assert_uint_eq(calls.instances, 0);
        }
        at += (size_t)count * info.vocab;
    }
    close_model();
    return logits;
}

START_TEST(sizes_share_a_graph)
{
    size_t bytes;
    void *driver = dlopen(cuda_driver_path(), RTLD_NOW | RTLD_LOCAL);

    ck_assert_ptr_nonnull(driver);
    void *found = dlsym(driver, "ferrum_emu_count");
    memcpy(&count_calls, &found, sizeof count_calls);
    float *eager = shared_steps(names[_i], false, &bytes);
    float *replayed = shared_steps(names[_i], true, &bytes);
    ck_assert_mem_eq(replayed, eager, bytes);
    free(eager);
    free(replayed);
    dlclose(driver);
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda tokens");
    TCase *cases = tcase_create("tokens");
    tcase_set_timeout(cases, 300);
    tcase_add_loop_test(cases, greedy_tokens, 0, sizeof names / sizeof names[0]);
    tcase_add_loop_test(cases, graphs_give_the_same_logits, 0, 2 * sizeof names / sizeof names[0]);
    suite_add_tcase(suite, cases);
    TCase *sizes = tcase_create("sizes");
    tcase_set_timeout(sizes, 300);
    tcase_add_loop_test(sizes, sizes_share_a_graph, 0, SHARED_MODELS);
    suite_add_tcase(suite, sizes);
    return expect_run(suite);
}
