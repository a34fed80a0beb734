/* SPDX-License-Identifier: MIT */
/* Configs from GGUF: values, defaults, refusals; and the trained model in both forms. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/model_config.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/gguf_writer.h"

/* How a key of the sample is changed. */
typedef enum change {
    AS_IS,
    LEFT_OUT,
    SET
} change_t;

typedef struct edit {
    change_t change;
    const char *key; /* without the architecture */
    uint32_t value;
} edit_t;

/* The integer keys of Qwen3-30B-A3B. */
static const struct {
    const char *key;
    uint32_t value;
} sample_keys[] = {
    {"block_count", 48},           {"embedding_length", 2048},
    {"attention.head_count", 32},  {"attention.head_count_kv", 4},
    {"context_length", 40960},     {"vocab_size", 151936},
    {"attention.key_length", 128}, {"expert_count", 128},
    {"expert_used_count", 8},      {"expert_feed_forward_length", 768},
    {"feed_forward_length", 6144},
};

static ferrum_gguf_writer_t *sample(const char *architecture, edit_t edit)
{
    char key[128];
    bool known = false;
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    if (architecture)
        ferrum_gguf_writer_string(writer, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof sample_keys / sizeof sample_keys[0]; i++) {
        bool here = edit.change != AS_IS && strcmp(edit.key, sample_keys[i].key) == 0;
        known = known || here;
        if (here && edit.change == LEFT_OUT)
            continue;
        (void)snprintf(key, sizeof key, "%s.%s", architecture, sample_keys[i].key);
        ferrum_gguf_writer_u32(writer, key, here ? edit.value : sample_keys[i].value);
    }
    if (edit.change == SET && !known) {
        (void)snprintf(key, sizeof key, "%s.%s", architecture, edit.key);
        ferrum_gguf_writer_u32(writer, key, edit.value);
    }
    return writer;
}

typedef ferrum_status_t (*parser_t)(const ferrum_gguf_t *gguf, ferrum_model_config_t *out_config,
                                    ferrum_error_t *err);

static ferrum_status_t parse(parser_t parser, ferrum_gguf_writer_t *writer,
                             ferrum_model_config_t *out_config, ferrum_error_t *err)
{
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_t *gguf = NULL;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    ferrum_status_t status = ferrum_gguf_open_memory(data, bytes, "m.gguf", &gguf, err);
    if (status == FERRUM_OK)
        status = parser(gguf, out_config, err);
    ferrum_gguf_close(gguf);
    free(data);
    return status;
}

#define MOE ferrum_model_config_from_gguf
#define DENSE ferrum_model_config_dense_from_gguf
#define NO_EDIT                                                                                    \
    (edit_t)                                                                                       \
    {                                                                                              \
        AS_IS, NULL, 0                                                                             \
    }
#define WITHOUT(key)                                                                               \
    (edit_t)                                                                                       \
    {                                                                                              \
        LEFT_OUT, key, 0                                                                           \
    }
#define WITH(key, value)                                                                           \
    (edit_t)                                                                                       \
    {                                                                                              \
        SET, key, value                                                                            \
    }

START_TEST(reads_qwen3_30b_a3b)
{
    ferrum_model_config_t c;
    ferrum_gguf_writer_t *writer = sample("qwen3moe", NO_EDIT);
    ferrum_gguf_writer_f32(writer, "qwen3moe.attention.layer_norm_rms_epsilon", 1e-6f);
    ferrum_gguf_writer_f32(writer, "qwen3moe.rope.freq_base", 5e5f);
    ferrum_gguf_writer_bool(writer, "qwen3moe.expert_norm_topk_prob", false);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.bos_token_id", 151643);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.eos_token_id", 151645);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.eot_token_id", 151645);
    EXPECT_OK(parse(MOE, writer, &c, &err));
    ck_assert_str_eq(c.architecture, "qwen3moe");
    ck_assert_uint_eq(c.layers, 48);
    ck_assert_uint_eq(c.hidden, 2048);
    ck_assert_uint_eq(c.heads, 32);
    ck_assert_uint_eq(c.kv_heads, 4);
    ck_assert_uint_eq(c.head_dim, 128);
    ck_assert_uint_eq(c.context_length, 40960);
    ck_assert_uint_eq(c.vocab, 151936);
    ck_assert_uint_eq(c.intermediate, 6144);
    ck_assert_uint_eq(c.experts, 128);
    ck_assert_uint_eq(c.experts_used, 8);
    ck_assert_uint_eq(c.expert_intermediate, 768);
    ck_assert(!c.norm_topk_prob);
    ck_assert(c.qk_norm);
    ck_assert(c.tie_word_embeddings); /* no output.weight */
    ck_assert(c.rope_theta == 5e5);
    ck_assert_double_eq_tol(c.rms_eps, 1e-6, 1e-12);
    ck_assert_int_eq(c.bos_token, 151643);
    ck_assert_uint_eq(c.eos_count, 1);
    ck_assert(ferrum_model_config_is_eos(&c, 151645));
    ck_assert(!ferrum_model_config_is_eos(&c, 151643));
    ck_assert(ferrum_model_config_is_sparse(&c));
    ck_assert(!c.gptq.present);
}
END_TEST

START_TEST(gguf_defaults)
{
    ferrum_model_config_t c;
    static const float rows[32];
    EXPECT_OK(parse(MOE, sample("qwen3moe", NO_EDIT), &c, &err));
    ck_assert(c.norm_topk_prob);
    ck_assert(c.rope_theta == 1e6);
    ck_assert(c.rms_eps == 1e-6);
    ck_assert_int_eq(c.bos_token, -1);
    ck_assert_uint_eq(c.eos_count, 0);
    EXPECT_OK(parse(MOE, sample("qwen3moe", WITHOUT("attention.head_count_kv")), &c, &err));
    ck_assert_uint_eq(c.kv_heads, 32);
    EXPECT_OK(parse(MOE, sample("qwen3moe", WITHOUT("context_length")), &c, &err));
    ck_assert_uint_eq(c.context_length, 32768);
    EXPECT_OK(parse(MOE, sample("qwen3moe", WITHOUT("attention.key_length")), &c, &err));
    ck_assert_uint_eq(c.head_dim, 64);
    /* The vocabulary is the rows of the embedding when no key says it. */
    ferrum_gguf_writer_t *writer = sample("qwen3moe", WITHOUT("vocab_size"));
    ferrum_gguf_writer_tensor(writer, "token_embd.weight", 0, 2, (uint64_t[]){4, 8}, rows,
                              sizeof rows);
    ferrum_gguf_writer_tensor(writer, "output.weight", 0, 1, (uint64_t[]){1}, rows, 4);
    EXPECT_OK(parse(MOE, writer, &c, &err));
    ck_assert_uint_eq(c.vocab, 8);
    ck_assert(!c.tie_word_embeddings);
    EXPECT_FAILS(parse(MOE, sample("qwen3moe", WITHOUT("vocab_size")), &c, &err), FERRUM_NOT_FOUND,
                 "qwen3moe.vocab_size");
    /* Either name of the flag. */
    writer = sample("qwen3moe", NO_EDIT);
    ferrum_gguf_writer_bool(writer, "qwen3moe.expert_weights_norm", false);
    EXPECT_OK(parse(MOE, writer, &c, &err));
    ck_assert(!c.norm_topk_prob);
}
END_TEST

START_TEST(gguf_refusals)
{
    static const char *const required[] = {"block_count",          "embedding_length",
                                           "attention.head_count", "expert_count",
                                           "expert_used_count",    "expert_feed_forward_length"};
    static const struct {
        const char *key;
        uint32_t value;
        ferrum_status_t status;
        const char *text;
    } cases[] = {
        {"expert_used_count", 129, FERRUM_INVALID_INPUT, "is 129, above 128"},
        {"expert_used_count", 0, FERRUM_INVALID_INPUT, "experts per token is 0"},
        {"expert_count", 0, FERRUM_INVALID_INPUT, "at least one expert"},
        {"expert_count", 1u << 17, FERRUM_INVALID_INPUT, "above 65536"},
        {"expert_feed_forward_length", 0, FERRUM_INVALID_INPUT, "expert FFN width"},
        {"expert_feed_forward_length", 0xffffffff, FERRUM_INVALID_INPUT, "expert FFN width"},
        {"block_count", 0, FERRUM_INVALID_INPUT, "number of layers"},
        {"block_count", 0xffffffff, FERRUM_INVALID_INPUT, "number of layers"},
        {"embedding_length", 0, FERRUM_INVALID_INPUT, "hidden size"},
        {"embedding_length", 0x80000000, FERRUM_INVALID_INPUT, "hidden size"},
        {"attention.head_count", 0, FERRUM_INVALID_INPUT, "attention heads"},
        {"attention.head_count_kv", 5, FERRUM_INVALID_INPUT, "do not divide: 5"},
        {"attention.head_count_kv", 0, FERRUM_INVALID_INPUT, "key/value heads"},
        {"attention.key_length", 127, FERRUM_INVALID_INPUT, "head size is 127"},
        {"attention.key_length", 0, FERRUM_INVALID_INPUT, "head size"},
        {"attention.key_length", 0x40000000, FERRUM_INVALID_INPUT, "head size"},
        {"attention.value_length", 64, FERRUM_UNSUPPORTED, "128 key and 64 value"},
        {"vocab_size", 0, FERRUM_INVALID_INPUT, "vocabulary"},
        {"vocab_size", 1u << 30, FERRUM_INVALID_INPUT, "vocabulary"},
        {"context_length", 0, FERRUM_INVALID_INPUT, "context length"},
        {"expert_gating_func", 2, FERRUM_UNSUPPORTED, "expert_gating_func = 2"},
        {"expert_shared_count", 1, FERRUM_UNSUPPORTED, "expert_shared_count = 1"},
    };
    ferrum_model_config_t c;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        EXPECT_FAILS(parse(MOE, sample("qwen3moe", WITHOUT(required[i])), &c, &err),
                     FERRUM_NOT_FOUND, required[i]);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        EXPECT_FAILS(parse(MOE, sample("qwen3moe", WITH(cases[i].key, cases[i].value)), &c, &err),
                     cases[i].status, cases[i].text);
    EXPECT_FAILS(parse(MOE, sample("llama", NO_EDIT), &c, &err), FERRUM_UNSUPPORTED,
                 "\"llama\" is not supported");
    EXPECT_FAILS(parse(MOE, sample(NULL, NO_EDIT), &c, &err), FERRUM_NOT_FOUND,
                 "general.architecture");
    EXPECT_FAILS(
        parse(MOE, sample("a-name-that-is-much-longer-than-any-architecture", NO_EDIT), &c, &err),
        FERRUM_UNSUPPORTED, "a-name-that");
}
END_TEST

START_TEST(gguf_bad_numbers)
{
    static const float epsilons[] = {0.0f, -1e-6f, 1.0f, INFINITY, NAN};
    static const float thetas[] = {0.0f, -1.0f, INFINITY, NAN};
    ferrum_model_config_t c;
    for (size_t i = 0; i < 5; i++) {
        ferrum_gguf_writer_t *writer = sample("qwen3moe", NO_EDIT);
        ferrum_gguf_writer_f32(writer, "qwen3moe.attention.layer_norm_rms_epsilon", epsilons[i]);
        EXPECT_FAILS(parse(MOE, writer, &c, &err), FERRUM_INVALID_INPUT, "epsilon");
    }
    for (size_t i = 0; i < 4; i++) {
        ferrum_gguf_writer_t *writer = sample("qwen3moe", NO_EDIT);
        ferrum_gguf_writer_f32(writer, "qwen3moe.rope.freq_base", thetas[i]);
        EXPECT_FAILS(parse(MOE, writer, &c, &err), FERRUM_INVALID_INPUT, "RoPE base");
    }
    ferrum_gguf_writer_t *writer = sample("qwen3moe", NO_EDIT);
    ferrum_gguf_writer_string(writer, "qwen3moe.rope.scaling.type", "yarn");
    EXPECT_FAILS(parse(MOE, writer, &c, &err), FERRUM_UNSUPPORTED, "\"yarn\"");
    writer = sample("qwen3moe", NO_EDIT);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.eos_token_id", 151936);
    EXPECT_FAILS(parse(MOE, writer, &c, &err), FERRUM_INVALID_INPUT, "eos token 151936");
}
END_TEST

START_TEST(dense_gguf)
{
    static const char *const moe[] = {"qwen3moe", "mixtral", "deepseek2"};
    ferrum_model_config_t c;
    EXPECT_OK(parse(DENSE, sample("qwen3", NO_EDIT), &c, &err));
    ck_assert_str_eq(c.architecture, "qwen3");
    ck_assert(c.qk_norm);
    ck_assert(c.rope_theta == 1e6);
    ck_assert_uint_eq(c.experts, 0);
    ck_assert_uint_eq(c.intermediate, 6144);
    ck_assert(!ferrum_model_config_is_sparse(&c));
    EXPECT_OK(parse(DENSE, sample("llama", NO_EDIT), &c, &err));
    ck_assert(c.rope_theta == 1e4);
    ck_assert(!c.qk_norm);
    EXPECT_OK(parse(DENSE, sample("mistral", WITH("attention.sliding_window", 4096)), &c, &err));
    ck_assert_uint_eq(c.sliding_window, 4096);
    EXPECT_OK(parse(DENSE, sample("nobody-knows-it", NO_EDIT), &c, &err));
    ck_assert(c.rope_theta == 1e4);
    EXPECT_FAILS(parse(DENSE, sample("llama", WITHOUT("block_count")), &c, &err), FERRUM_NOT_FOUND,
                 "llama.block_count");
    for (size_t i = 0; i < 3; i++)
        EXPECT_FAILS(parse(DENSE, sample(moe[i], NO_EDIT), &c, &err), FERRUM_UNSUPPORTED,
                     "ferrum_model_config_from_gguf");
}
END_TEST

START_TEST(from_base_round_trip)
{
    ferrum_model_config_t whole, base, joined;
    EXPECT_OK(parse(MOE, sample("qwen3moe", NO_EDIT), &whole, &err));
    base = whole;
    base.experts = base.experts_used = base.expert_intermediate = 0;
    base.norm_topk_prob = false;
    EXPECT_OK(ferrum_model_config_validate(&base, &err));
    EXPECT_OK(ferrum_model_config_from_base(&base, 128, 8, 768, true, &joined, &err));
    ck_assert_int_eq(memcmp(&whole, &joined, sizeof whole), 0);
    EXPECT_OK(ferrum_model_config_from_base(&base, 4, 4, 768, true, &base, &err));
    ck_assert(!ferrum_model_config_is_sparse(&base));
    EXPECT_FAILS(ferrum_model_config_from_base(&base, 0, 0, 768, true, &joined, &err),
                 FERRUM_INVALID_INPUT, "at least one expert");
    EXPECT_FAILS(ferrum_model_config_from_base(&base, 4, 5, 768, true, &joined, &err),
                 FERRUM_INVALID_INPUT, "is 5, above 4");
}
END_TEST

START_TEST(the_trained_model_agrees_with_itself)
{
    ferrum_test_path_t path;
    ferrum_model_config_t json, gguf;
    ferrum_gguf_t *file;
    ferrum_test_source_path("models/tiny-qwen3moe-gptq", path);
    EXPECT_OK(ferrum_model_config_from_directory(path, &json, &err));
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", path);
    EXPECT_OK(ferrum_gguf_open(path, &file, &err));
    EXPECT_OK(ferrum_model_config_from_gguf(file, &gguf, &err));
    ferrum_gguf_close(file);
    ck_assert(json.gptq.present);
    ck_assert_uint_eq(json.layers, gguf.layers);
    ck_assert_uint_eq(json.hidden, gguf.hidden);
    ck_assert_uint_eq(json.heads, gguf.heads);
    ck_assert_uint_eq(json.kv_heads, gguf.kv_heads);
    ck_assert_uint_eq(json.head_dim, gguf.head_dim);
    ck_assert_uint_eq(json.vocab, gguf.vocab);
    ck_assert_uint_eq(json.context_length, gguf.context_length);
    ck_assert_uint_eq(json.experts, gguf.experts);
    ck_assert_uint_eq(json.experts_used, gguf.experts_used);
    ck_assert_uint_eq(json.expert_intermediate, gguf.expert_intermediate);
    ck_assert_int_eq(json.norm_topk_prob, gguf.norm_topk_prob);
    ck_assert_int_eq(json.tie_word_embeddings, gguf.tie_word_embeddings);
    ck_assert(json.rope_theta == gguf.rope_theta);
    ck_assert_double_eq_tol(json.rms_eps, gguf.rms_eps, 1e-12);
    ck_assert_uint_eq(json.eos_count, gguf.eos_count);
    ck_assert_int_eq(json.eos_tokens[0], gguf.eos_tokens[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model config from GGUF");
    TCase *tests = tcase_create("configs");
    tcase_add_test(tests, reads_qwen3_30b_a3b);
    tcase_add_test(tests, gguf_defaults);
    tcase_add_test(tests, gguf_refusals);
    tcase_add_test(tests, gguf_bad_numbers);
    tcase_add_test(tests, dense_gguf);
    tcase_add_test(tests, from_base_round_trip);
    tcase_add_test(tests, the_trained_model_agrees_with_itself);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
