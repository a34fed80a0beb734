/* SPDX-License-Identifier: MIT */
/* Configs from Hugging Face JSON: values, defaults, refusals. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/model_config.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

#define LEAST_JSON                                                                                 \
    "\"model_type\":\"qwen3_moe\",\"num_experts\":16,\"moe_intermediate_size\":768,"               \
    "\"hidden_size\":2048,\"num_hidden_layers\":48,\"num_attention_heads\":32,"                    \
    "\"vocab_size\":151936"

START_TEST(reads_json)
{
    ferrum_model_config_t c;
    EXPECT_OK(ferrum_model_config_from_json("{" LEAST_JSON "}", NULL, &c, &err));
    ck_assert_str_eq(c.architecture, "qwen3moe");
    ck_assert_uint_eq(c.experts, 16);
    ck_assert_uint_eq(c.experts_used, 8);
    ck_assert_uint_eq(c.expert_intermediate, 768);
    ck_assert(c.norm_topk_prob);
    ck_assert_uint_eq(c.kv_heads, 32);
    ck_assert_uint_eq(c.head_dim, 64);
    ck_assert_uint_eq(c.context_length, 32768);
    ck_assert(c.rope_theta == 1e6);
    ck_assert(c.rms_eps == 1e-6);
    ck_assert(!c.tie_word_embeddings);
    ck_assert(c.qk_norm);
    ck_assert_int_eq(c.bos_token, -1);
    ck_assert_uint_eq(c.eos_count, 0);
    ck_assert_uint_eq(c.sliding_window, 0);
    ck_assert(!c.gptq.present);
    EXPECT_OK(ferrum_model_config_from_json(
        "{" LEAST_JSON ",\"num_experts_per_tok\":2,\"norm_topk_prob\":false,\"head_dim\":128,"
        "\"num_key_value_heads\":4,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"
        "\"max_position_embeddings\":1024,\"tie_word_embeddings\":true,\"bos_token_id\":7,"
        "\"eos_token_id\":[1,2,1],\"sliding_window\":99,\"rope_scaling\":null,"
        "\"use_sliding_window\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]}",
        NULL, &c, &err));
    ck_assert_uint_eq(c.experts_used, 2);
    ck_assert(!c.norm_topk_prob);
    ck_assert_uint_eq(c.head_dim, 128);
    ck_assert_uint_eq(c.kv_heads, 4);
    ck_assert(c.rope_theta == 10000.0);
    ck_assert(c.rms_eps == 1e-5);
    ck_assert_uint_eq(c.context_length, 1024);
    ck_assert(c.tie_word_embeddings);
    ck_assert_int_eq(c.bos_token, 7);
    ck_assert_uint_eq(c.eos_count, 2);
    ck_assert(ferrum_model_config_is_eos(&c, 2));
    ck_assert_uint_eq(c.sliding_window, 99);
    /* Newer files. */
    EXPECT_OK(ferrum_model_config_from_json(
        "{\"model_type\":\"qwen3_moe\",\"num_local_experts\":16,\"moe_intermediate_size\":768,"
        "\"hidden_size\":2048,\"num_hidden_layers\":48,\"num_attention_heads\":32,"
        "\"vocab_size\":151936,\"rope_parameters\":{\"rope_type\":\"default\","
        "\"rope_theta\":5000.0}}",
        NULL, &c, &err));
    ck_assert_uint_eq(c.experts, 16);
    ck_assert(c.rope_theta == 5000.0);
}
END_TEST

START_TEST(json_refusals)
{
    static const struct {
        const char *more;
        ferrum_status_t status;
        const char *text;
    } cases[] = {
        {",\"hidden_act\":\"gelu\"", FERRUM_UNSUPPORTED, "gelu"},
        {",\"attention_bias\":true", FERRUM_UNSUPPORTED, "attention_bias"},
        {",\"mlp_only_layers\":[0]", FERRUM_UNSUPPORTED, "mlp_only_layers"},
        {",\"decoder_sparse_step\":2", FERRUM_UNSUPPORTED, "decoder_sparse_step"},
        {",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}", FERRUM_UNSUPPORTED, "yarn"},
        {",\"rope_scaling\":{\"type\":\"linear\"}", FERRUM_UNSUPPORTED, "linear"},
        {",\"rope_scaling\":7", FERRUM_CORRUPT, "rope_scaling"},
        {",\"num_experts_per_tok\":17", FERRUM_INVALID_INPUT, "is 17, above 16"},
        {",\"num_experts_per_tok\":-1", FERRUM_CORRUPT, "out of range"},
        {",\"num_experts_per_tok\":4294967296", FERRUM_CORRUPT, "out of range"},
        {",\"num_experts_per_tok\":2.5", FERRUM_CORRUPT, "not an integer"},
        {",\"rms_norm_eps\":\"x\"", FERRUM_CORRUPT, "rms_norm_eps"},
        {",\"norm_topk_prob\":1", FERRUM_CORRUPT, "norm_topk_prob"},
        {",\"eos_token_id\":\"x\"", FERRUM_CORRUPT, "eos_token_id"},
        {",\"eos_token_id\":[1,null]", FERRUM_CORRUPT, "eos_token_id"},
        {",\"eos_token_id\":151936", FERRUM_INVALID_INPUT, "eos token 151936"},
        {",\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", FERRUM_UNSUPPORTED,
         "eos tokens"},
        {",\"bos_token_id\":-2", FERRUM_INVALID_INPUT, "bos token -2"},
        {",\"use_sliding_window\":true", FERRUM_NOT_FOUND, "sliding_window"},
        {",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}", FERRUM_UNSUPPORTED,
         "awq"},
        {",\"quantization_config\":{\"bits\":3}", FERRUM_UNSUPPORTED, "3 bits"},
        {",\"quantization_config\":{\"group_size\":64}", FERRUM_NOT_FOUND, "bits"},
        {",\"quantization_config\":{\"bits\":4,\"group_size\":0}", FERRUM_INVALID_INPUT,
         "group_size is 0"},
        {",\"quantization_config\":{\"bits\":4,\"group_size\":9999999999}", FERRUM_INVALID_INPUT,
         "group_size"},
        {",\"quantization_config\":{\"bits\":4,\"checkpoint_format\":\"marlin\"}",
         FERRUM_UNSUPPORTED, "marlin"},
        {",\"quantization_config\":{\"bits\":4,\"pack_dtype\":\"int8\"}", FERRUM_UNSUPPORTED,
         "int8"},
        {",\"quantization_config\":{\"bits\":4,\"dynamic\":{\"+:.*gate.*\":{\"bits\":8}}}",
         FERRUM_UNSUPPORTED, "+:.*gate"},
    };
    ferrum_model_config_t c;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        (void)snprintf(text, sizeof text, "{" LEAST_JSON "%s}", cases[i].more);
        EXPECT_FAILS(ferrum_model_config_from_json(text, NULL, &c, &err), cases[i].status,
                     cases[i].text);
    }
    static const char *const required[] = {"num_experts",         "moe_intermediate_size",
                                           "hidden_size",         "num_hidden_layers",
                                           "num_attention_heads", "vocab_size",
                                           "model_type"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        char text[] = "{" LEAST_JSON "}";
        char *field = strstr(text, required[i]);
        field[0] = '_';
        EXPECT_FAILS(ferrum_model_config_from_json(text, NULL, &c, &err), FERRUM_NOT_FOUND,
                     required[i]);
    }
    EXPECT_FAILS(ferrum_model_config_from_json("{\"model_type\":\"llama\"}", NULL, &c, &err),
                 FERRUM_UNSUPPORTED, "\"llama\" is not supported");
    EXPECT_FAILS(ferrum_model_config_from_json("{", NULL, &c, &err), FERRUM_CORRUPT, "bad JSON");
    EXPECT_FAILS(ferrum_model_config_from_json("{" LEAST_JSON "}", "[]", &c, &err), FERRUM_CORRUPT,
                 "quantize_config.json");
}
END_TEST

START_TEST(gptq_settings)
{
    static const struct {
        const char *text;
        ferrum_gptq_config_t wanted;
    } cases[] = {
        {"{\"bits\":4}", {true, 4, 128, false, true, FERRUM_ZERO_STORED_MINUS_ONE}},
        {"{\"bits\":8,\"group_size\":-1,\"sym\":false,\"desc_act\":true,\"quant_method\":\"gptq\"}",
         {true, 8, 0, true, false, FERRUM_ZERO_STORED_MINUS_ONE}},
        {"{\"bits\":4,\"group_size\":32,\"checkpoint_format\":\"gptq_v2\"}",
         {true, 4, 32, false, true, FERRUM_ZERO_STORED}},
        {"{\"bits\":4,\"group_size\":64,\"checkpoint_format\":\"gptq\","
         "\"dynamic\":{\"-:.*mlp.gate$\":{}},\"meta\":{}}",
         {true, 4, 64, false, true, FERRUM_ZERO_STORED_MINUS_ONE}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_model_config_t separate, embedded;
        char text[1024];
        (void)snprintf(text, sizeof text, "{" LEAST_JSON ",\"quantization_config\":%s}",
                       cases[i].text);
        EXPECT_OK(
            ferrum_model_config_from_json("{" LEAST_JSON "}", cases[i].text, &separate, &err));
        EXPECT_OK(ferrum_model_config_from_json(text, NULL, &embedded, &err));
        const ferrum_gptq_config_t *both[] = {&separate.gptq, &embedded.gptq};
        for (int b = 0; b < 2; b++) {
            ck_assert(both[b]->present);
            ck_assert_uint_eq(both[b]->bits, cases[i].wanted.bits);
            ck_assert_uint_eq(both[b]->group_size, cases[i].wanted.group_size);
            ck_assert_int_eq(both[b]->desc_act, cases[i].wanted.desc_act);
            ck_assert_int_eq(both[b]->sym, cases[i].wanted.sym);
            ck_assert_uint_eq(both[b]->zero_convention, cases[i].wanted.zero_convention);
        }
        /* The separate file wins. */
        EXPECT_OK(
            ferrum_model_config_from_json(text, "{\"bits\":4,\"group_size\":16}", &separate, &err));
        ck_assert_uint_eq(separate.gptq.group_size, 16);
    }
}
END_TEST

START_TEST(reads_directories)
{
    static const char config[] = "{" LEAST_JSON ",\"eos_token_id\":5}";
    static const char generation[] = "{\"eos_token_id\":[5,9]}";
    static const char quantize[] = "{\"bits\":8}";
    ferrum_test_path_t directory, path;
    ferrum_model_config_t c;
    ferrum_test_make_directory(directory);
    EXPECT_FAILS(ferrum_model_config_from_directory(directory, &c, &err), FERRUM_NOT_FOUND,
                 "config.json");
    ferrum_test_join(directory, "config.json", path);
    ferrum_test_write_file(path, config, strlen(config));
    EXPECT_OK(ferrum_model_config_from_directory(directory, &c, &err));
    ck_assert_uint_eq(c.eos_count, 1);
    ferrum_test_join(directory, "generation_config.json", path);
    ferrum_test_write_file(path, generation, strlen(generation));
    ferrum_test_join(directory, "quantize_config.json", path);
    ferrum_test_write_file(path, quantize, strlen(quantize));
    EXPECT_OK(ferrum_model_config_from_directory(directory, &c, &err));
    ck_assert_uint_eq(c.eos_count, 2);
    ck_assert(ferrum_model_config_is_eos(&c, 9));
    ck_assert_uint_eq(c.gptq.bits, 8);
    ferrum_test_write_file(path, quantize, 5);
    EXPECT_FAILS(ferrum_model_config_from_directory(directory, &c, &err), FERRUM_CORRUPT,
                 "quantize_config.json");
    ferrum_test_remove_directory(directory);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model config from JSON");
    TCase *tests = tcase_create("configs");
    tcase_add_test(tests, reads_json);
    tcase_add_test(tests, json_refusals);
    tcase_add_test(tests, gptq_settings);
    tcase_add_test(tests, reads_directories);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
