/* SPDX-License-Identifier: MIT */
/* The name map, and the hash of names. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/gguf.h"
#include "host/formats/name_index.h"
#include "host/formats/name_map.h"
#include "host/formats/safetensors.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

static const struct {
    const char *hf;
    const char *gguf;
    int64_t expert;
} pairs[] = {
    {"model.embed_tokens.weight", "token_embd.weight", -1},
    {"model.norm.weight", "output_norm.weight", -1},
    {"lm_head.weight", "output.weight", -1},
    {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", -1},
    {"model.layers.47.post_attention_layernorm.weight", "blk.47.ffn_norm.weight", -1},
    {"model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight", -1},
    {"model.layers.3.self_attn.k_proj.bias", "blk.3.attn_k.bias", -1},
    {"model.layers.3.self_attn.v_proj.weight", "blk.3.attn_v.weight", -1},
    {"model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight", -1},
    {"model.layers.12.self_attn.q_norm.weight", "blk.12.attn_q_norm.weight", -1},
    {"model.layers.12.self_attn.k_norm.weight", "blk.12.attn_k_norm.weight", -1},
    {"model.layers.5.mlp.gate.weight", "blk.5.ffn_gate_inp.weight", -1},
    {"model.layers.5.mlp.gate_proj.weight", "blk.5.ffn_gate.weight", -1},
    {"model.layers.5.mlp.up_proj.weight", "blk.5.ffn_up.weight", -1},
    {"model.layers.5.mlp.down_proj.weight", "blk.5.ffn_down.weight", -1},
    {"model.layers.5.mlp.experts.0.gate_proj.weight", "blk.5.ffn_gate_exps.weight", 0},
    {"model.layers.5.mlp.experts.127.up_proj.weight", "blk.5.ffn_up_exps.weight", 127},
    {"model.layers.999999999.mlp.experts.999999999.down_proj.weight",
     "blk.999999999.ffn_down_exps.weight", 999999999},
};

START_TEST(maps_both_ways)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        ferrum_tensor_name_t name;
        int64_t expert = 99;
        EXPECT_OK(ferrum_name_to_gguf(pairs[i].hf, name, &expert, &err));
        ck_assert_str_eq(name, pairs[i].gguf);
        ck_assert_int_eq(expert, pairs[i].expert);
        EXPECT_OK(ferrum_name_to_hf(pairs[i].gguf, pairs[i].expert, name, &err));
        ck_assert_str_eq(name, pairs[i].hf);
    }
    ferrum_tensor_name_t name;
    int64_t expert;
    EXPECT_OK(ferrum_name_to_gguf("model.layers.5.mlp.router.weight", name, &expert, &err));
    ck_assert_str_eq(name, "blk.5.ffn_gate_inp.weight");
}
END_TEST

START_TEST(refuses_unknown_names)
{
    static const char *const hf[] = {"",
                                     ".weight",
                                     "weight",
                                     "model.norm",
                                     "model.norm.scale",
                                     "model.layers..input_layernorm.weight",
                                     "model.layers.x.input_layernorm.weight",
                                     "model.layers.01.input_layernorm.weight",
                                     "model.layers.-1.input_layernorm.weight",
                                     "model.layers.1234567890.input_layernorm.weight",
                                     "model.layers.1.weight",
                                     "model.layers.1.self_attn.weight",
                                     "model.layers.1.self_attn.qkv_proj.weight",
                                     "model.layers.1.mlp.experts.gate_proj.weight",
                                     "model.layers.1.mlp.experts.2.weight",
                                     "model.layers.1.mlp.experts.2.gate.weight",
                                     "model.layers.1.mlp.gate_proj.qweight",
                                     "model.layers.1.gate_proj.weight",
                                     "blk.1.attn_q.weight"};
    static const char *const gguf[] = {"",
                                       "output",
                                       "blk.1.attn_qkv.weight",
                                       "blk.x.attn_q.weight",
                                       "blk.1.token_embd.weight",
                                       "attn_q.weight",
                                       "model.norm.weight"};
    ferrum_tensor_name_t name;
    int64_t expert;
    for (size_t i = 0; i < sizeof hf / sizeof hf[0]; i++)
        EXPECT_FAILS(ferrum_name_to_gguf(hf[i], name, &expert, &err), FERRUM_NOT_FOUND, hf[i]);
    for (size_t i = 0; i < sizeof gguf / sizeof gguf[0]; i++)
        EXPECT_FAILS(ferrum_name_to_hf(gguf[i], FERRUM_NO_EXPERT, name, &err), FERRUM_NOT_FOUND,
                     gguf[i]);
    EXPECT_FAILS(ferrum_name_to_hf("blk.1.ffn_up_exps.weight", FERRUM_NO_EXPERT, name, &err),
                 FERRUM_INVALID_ARGUMENT, "stacks experts");
    EXPECT_FAILS(ferrum_name_to_hf("blk.1.ffn_up_exps.weight", INT64_MAX, name, &err),
                 FERRUM_INVALID_ARGUMENT, "stacks experts");
    EXPECT_FAILS(ferrum_name_to_hf("blk.1.attn_q.weight", 0, name, &err), FERRUM_INVALID_ARGUMENT,
                 "stacks no experts");
}
END_TEST

START_TEST(names_the_parts_of_fused_tensors)
{
    static const struct {
        const char *fused;
        uint32_t count;
        const char *parts[3];
    } cases[] = {
        {"model.layers.2.self_attn.qkv_proj.weight",
         3,
         {"model.layers.2.self_attn.q_proj.weight", "model.layers.2.self_attn.k_proj.weight",
          "model.layers.2.self_attn.v_proj.weight"}},
        {"model.layers.2.mlp.gate_up_proj.bias",
         2,
         {"model.layers.2.mlp.gate_proj.bias", "model.layers.2.mlp.up_proj.bias", NULL}},
        {"model.layers.2.mlp.experts.7.gate_up_proj.weight",
         2,
         {"model.layers.2.mlp.experts.7.gate_proj.weight",
          "model.layers.2.mlp.experts.7.up_proj.weight", NULL}},
        {"model.layers.2.self_attn.q_proj.weight", 0, {NULL}},
        {"model.layers.2.self_attn.gate_up_proj.weight", 0, {NULL}},
        {"model.layers.2.mlp.qkv_proj.weight", 0, {NULL}},
        {"qkv_proj.weight", 0, {NULL}},
        {"qkv_proj", 0, {NULL}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_tensor_name_t parts[FERRUM_FUSED_MAX_PARTS];
        uint32_t count = 99;
        ferrum_name_fused_parts(cases[i].fused, parts, &count);
        ck_assert_uint_eq(count, cases[i].count);
        for (uint32_t p = 0; p < count; p++)
            ck_assert_str_eq(parts[p], cases[i].parts[p]);
    }
}
END_TEST

/* Every tensor of the trained model's GGUF has a name whose HF twin, quantised or not, exists. */
START_TEST(covers_the_trained_model)
{
    ferrum_test_path_t path;
    ferrum_gguf_t *gguf;
    ferrum_safetensors_t *st;
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", path);
    EXPECT_OK(ferrum_gguf_open(path, &gguf, &err));
    ferrum_test_source_path("models/tiny-qwen3moe-gptq", path);
    EXPECT_OK(ferrum_safetensors_open(path, &st, &err));
    ck_assert_uint_gt(ferrum_gguf_tensor_count(gguf), 0);
    for (uint32_t i = 0; i < ferrum_gguf_tensor_count(gguf); i++) {
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_tensor_at(gguf, i);
        ferrum_tensor_name_t gguf_name, hf_name;
        (void)snprintf(gguf_name, sizeof gguf_name, "%.*s", FERRUM_VIEW_ARGS(tensor->name));
        int64_t expert = strstr(gguf_name, "_exps") ? 0 : FERRUM_NO_EXPERT;
        EXPECT_OK(ferrum_name_to_hf(gguf_name, expert, hf_name, &err));
        if (ferrum_safetensors_find(st, hf_name))
            continue;
        char *suffix = strrchr(hf_name, '.');
        ck_assert_ptr_nonnull(suffix);
        (void)snprintf(suffix, 16, ".qweight");
        ck_assert_msg(ferrum_safetensors_find(st, hf_name) != NULL, "no %s for %s", hf_name,
                      gguf_name);
    }
    ferrum_safetensors_close(st);
    ferrum_gguf_close(gguf);
}
END_TEST

START_TEST(the_index_finds_every_name)
{
    enum {
        NAMES = 20000
    };
    static char names[NAMES][24];
    ferrum_name_index_t index = {0};
    uint32_t existing;
    ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view("x")), FERRUM_NAME_NONE);
    for (uint32_t i = 0; i < NAMES; i++) {
        (void)snprintf(names[i], sizeof names[i], "name.%u", i);
        EXPECT_OK(ferrum_name_index_add(&index, ferrum_view(names[i]), i, &existing, &err));
        ck_assert_uint_eq(existing, FERRUM_NAME_NONE);
    }
    ck_assert_uint_eq(index.count, NAMES);
    for (uint32_t i = 0; i < NAMES; i++) {
        ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view(names[i])), i);
        EXPECT_OK(ferrum_name_index_add(&index, ferrum_view(names[i]), 7, &existing, &err));
        ck_assert_uint_eq(existing, i);
    }
    ck_assert_uint_eq(index.count, NAMES);
    ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view("name.")), FERRUM_NAME_NONE);
    ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view("")), FERRUM_NAME_NONE);
    EXPECT_OK(ferrum_name_index_add(&index, (ferrum_string_view_t){NULL, 0}, 3, &existing, &err));
    ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view("")), 3);
    EXPECT_FAILS(ferrum_name_index_reserve(&index, SIZE_MAX / 2, &err), FERRUM_OUT_OF_MEMORY,
                 "names");
    ferrum_name_index_clear(&index);
    ck_assert_uint_eq(ferrum_name_index_find(&index, ferrum_view("name.1")), FERRUM_NAME_NONE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("names");
    TCase *tests = tcase_create("names");
    tcase_add_test(tests, maps_both_ways);
    tcase_add_test(tests, refuses_unknown_names);
    tcase_add_test(tests, names_the_parts_of_fused_tensors);
    tcase_add_test(tests, covers_the_trained_model);
    tcase_add_test(tests, the_index_finds_every_name);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
