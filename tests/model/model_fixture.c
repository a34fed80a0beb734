/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/model/model_fixture.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/gguf_writer.h"

static void *counted_alloc(void *self, size_t bytes, size_t align)
{
    ferrum_model_fixture_t *fixture = self;
    void *ptr = NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    if (posix_memalign(&ptr, align, bytes) != 0)
        return NULL;
    __atomic_add_fetch(&fixture->live_blocks, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&fixture->allocations, 1, __ATOMIC_RELAXED);
    return ptr;
}

static void counted_free(void *self, void *ptr, size_t bytes)
{
    ferrum_model_fixture_t *fixture = self;
    (void)bytes;
    if (ptr)
        __atomic_sub_fetch(&fixture->live_blocks, 1, __ATOMIC_RELAXED);
    free(ptr);
}

void ferrum_fixture_open(ferrum_model_fixture_t *fixture, uint32_t threads,
                         const char *const *options)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->allocator = (ferrum_allocator_t){.head = FERRUM_HEAD(ferrum_allocator_t),
                                              .self = fixture,
                                              .alloc = counted_alloc,
                                              .free = counted_free};
    ferrum_options_t *set = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_int_eq(ferrum_options_new(&set, &err), FERRUM_OK);
    const char *plugins = getenv("FERRUM_PLUGIN_PATH");
    if (plugins)
        ck_assert_int_eq(ferrum_options_set(set, "FERRUM_PLUGIN_PATH", plugins, &err), FERRUM_OK);
    for (; options && options[0]; options += 2)
        ck_assert_msg(ferrum_options_set(set, options[0], options[1], &err) == FERRUM_OK, "%s",
                      err.message);
    ferrum_runtime_options_t runtime = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                        .backend = "cpu",
                                        .options = set,
                                        .threads = threads ? threads : 2,
                                        .allocator = &fixture->allocator};
    ck_assert_msg(ferrum_runtime_open(&runtime, &fixture->runtime, &err) == FERRUM_OK, "%s",
                  err.message);
    ferrum_options_free(set);
}

void ferrum_fixture_close(ferrum_model_fixture_t *fixture)
{
    ferrum_runtime_close(fixture->runtime);
    ck_assert_uint_eq(fixture->live_blocks, 0);
}

ferrum_model_t *ferrum_fixture_model(ferrum_model_fixture_t *fixture, const char *path,
                                     uint32_t capacity, uint32_t sequences)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_model_options_t options = {.head = FERRUM_HEAD(ferrum_model_options_t),
                                      .kv_capacity = capacity,
                                      .max_sequences = sequences};
    ferrum_model_t *model = NULL;
    ck_assert_msg(ferrum_model_open(fixture->runtime, path, &options, &model, &err) == FERRUM_OK,
                  "%s: %s", path, err.message);
    return model;
}

ferrum_status_t ferrum_fixture_try(ferrum_model_fixture_t *fixture, const char *path,
                                   ferrum_error_t *err)
{
    ferrum_model_t *model = NULL;
    *err = (ferrum_error_t)FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_model_open(fixture->runtime, path, NULL, &model, err);
    if (status != FERRUM_OK)
        ck_assert_ptr_null(model);
    ferrum_model_free(model);
    return status;
}

uint32_t ferrum_fixture_vocab(const ferrum_model_t *model)
{
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ck_assert_int_eq(ferrum_model_get_info(model, &info, NULL), FERRUM_OK);
    return info.vocab;
}

/* ---- the synthesised model ---- */

typedef struct synth {
    ferrum_gguf_writer_t *writer;
    const ferrum_synth_faults_t *faults;
    uint64_t state;
} synth_t;

static float next_value(synth_t *s)
{
    s->state = s->state * 6364136223846793005u + 1442695040888963407u;
    return (float)(s->state >> 40) / (float)(1 << 23) - 1.0f;
}

/* dims innermost first; unused ones are 1. Norms are near one. */
static void add(synth_t *s, const char *name, uint64_t d0, uint64_t d1, uint64_t d2)
{
    if (s->faults->leave_out && strcmp(s->faults->leave_out, name) == 0)
        return;
    if (s->faults->wrong_shape && strcmp(s->faults->wrong_shape, name) == 0)
        d1--;
    uint64_t count = d0 * d1 * d2, dims[3] = {d0, d1, d2};
    bool norm = strstr(name, "norm") != NULL;
    float *values = malloc((size_t)count * sizeof *values);
    for (uint64_t i = 0; i < count; i++)
        values[i] = norm ? 1.0f + 0.1f * next_value(s) : 0.6f * next_value(s);
    ferrum_gguf_writer_tensor(s->writer, name, FERRUM_FORMAT_F32,
                              d2 > 1   ? 3
                              : d1 > 1 ? 2
                                       : 1,
                              dims, values, (size_t)count * sizeof *values);
    free(values);
}

static void add_layer(synth_t *s, int layer)
{
    static const struct {
        const char *name;
        uint64_t dims[3];
    } tensors[] = {
        {"attn_norm", {8, 1, 1}},     {"ffn_norm", {8, 1, 1}},    {"attn_q_norm", {4, 1, 1}},
        {"attn_k_norm", {4, 1, 1}},   {"attn_q", {8, 8, 1}},      {"attn_k", {8, 4, 1}},
        {"attn_v", {8, 4, 1}},        {"attn_output", {8, 8, 1}}, {"ffn_gate_inp", {8, 4, 1}},
        {"ffn_gate_exps", {8, 8, 4}}, {"ffn_up_exps", {8, 8, 4}}, {"ffn_down_exps", {8, 8, 4}},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%d.%s.weight", layer, tensors[i].name);
        add(s, name, tensors[i].dims[0], tensors[i].dims[1], tensors[i].dims[2]);
    }
}

void ferrum_synth_write(const char *path, const ferrum_synth_faults_t *faults)
{
    static const ferrum_synth_faults_t none;
    synth_t s = {ferrum_gguf_writer_new(), faults ? faults : &none, 0xC0FFEE};
    ferrum_gguf_writer_t *w = s.writer;
    ferrum_gguf_writer_string(w, "general.architecture",
                              s.faults->architecture ? s.faults->architecture : "qwen3moe");
    ferrum_gguf_writer_u32(w, "qwen3moe.block_count", SYNTH_LAYERS);
    ferrum_gguf_writer_u32(w, "qwen3moe.embedding_length",
                           s.faults->embedding_length ? s.faults->embedding_length : SYNTH_HIDDEN);
    ferrum_gguf_writer_u32(w, "qwen3moe.attention.head_count", 2);
    ferrum_gguf_writer_u32(w, "qwen3moe.attention.head_count_kv", 1);
    ferrum_gguf_writer_u32(w, "qwen3moe.attention.key_length", 4);
    ferrum_gguf_writer_f32(w, "qwen3moe.attention.layer_norm_rms_epsilon", 1e-6f);
    ferrum_gguf_writer_f32(w, "qwen3moe.rope.freq_base", 1e4f);
    ferrum_gguf_writer_u32(w, "qwen3moe.context_length", SYNTH_CONTEXT);
    ferrum_gguf_writer_u32(w, "qwen3moe.expert_count", 4);
    ferrum_gguf_writer_u32(w, "qwen3moe.expert_used_count", 2);
    ferrum_gguf_writer_u32(w, "qwen3moe.expert_feed_forward_length", 8);
    add(&s, "token_embd.weight", SYNTH_HIDDEN, SYNTH_VOCAB, 1);
    add(&s, "output_norm.weight", SYNTH_HIDDEN, 1, 1);
    for (int layer = 0; layer < SYNTH_LAYERS; layer++)
        add_layer(&s, layer);
    ferrum_gguf_writer_save(w, path);
    ferrum_gguf_writer_free(w);
}

/* ---- golden logits ---- */

void ferrum_golden_load(const char *name, ferrum_golden_t *golden)
{
    ferrum_test_path_t folder, path;
    char file[128];
    ferrum_test_source_path("tests/golden", folder);
    (void)snprintf(file, sizeof file, "%s.logits.json", name);
    ferrum_test_join(folder, file, path);
    json_t *root = json_load_file(path, 0, NULL);
    ck_assert_msg(root != NULL, "%s is missing", path);
    ferrum_test_join(folder, json_string_value(json_object_get(root, "model")), golden->model);
    json_t *ids = json_object_get(root, "ids");
    golden->rows = (uint32_t)json_array_size(ids);
    golden->vocab = (uint32_t)json_integer_value(json_object_get(root, "vocab"));
    golden->ids = calloc(golden->rows, sizeof *golden->ids);
    for (uint32_t i = 0; i < golden->rows; i++)
        golden->ids[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    json_decref(root);

    size_t bytes = 0;
    (void)snprintf(file, sizeof file, "%s.logits.bin", name);
    ferrum_test_join(folder, file, path);
    golden->logits = (float *)(void *)ferrum_test_read_file(path, &bytes);
    ck_assert_uint_eq(bytes, (size_t)golden->rows * golden->vocab * sizeof(float));
}

void ferrum_golden_free(ferrum_golden_t *golden)
{
    free(golden->ids);
    free(golden->logits);
}

double ferrum_relative_error(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / (norm > 0 ? norm : 1));
}
