/* SPDX-License-Identifier: MIT */
/* Fields of the wrong type or size in every place where a reader looks for one. */
#include "config.h"

#include "host/formats/gptq_checkpoint.h"
#include "host/formats/json_text.h"
#include "host/formats/mapped_file.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- configs in GGUF ---- */

static const struct {
    const char *key;
    enum {
        AS_STRING,
        AS_U32,
        AS_NONE
    } as;
    ferrum_status_t status;
} config_keys[] = {
    {"tokenizer.ggml.bos_token_id", AS_STRING, FERRUM_CORRUPT},
    {"tokenizer.ggml.eos_token_id", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.rope.scaling.type", AS_U32, FERRUM_CORRUPT},
    {"qwen3moe.rope.scaling.type", AS_STRING, FERRUM_UNSUPPORTED},
    {"qwen3moe.rope.scaling.type", AS_NONE, FERRUM_OK},
    {"qwen3moe.expert_gating_func", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.expert_gating_func", AS_U32, FERRUM_UNSUPPORTED},
    {"qwen3moe.attention.layer_norm_rms_epsilon", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.rope.freq_base", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.context_length", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.feed_forward_length", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.attention.head_count_kv", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.attention.sliding_window", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.attention.key_length", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.attention.value_length", AS_STRING, FERRUM_CORRUPT},
    {"qwen3moe.attention.value_length", AS_U32, FERRUM_UNSUPPORTED},
    {"qwen3moe.expert_weights_norm", AS_U32, FERRUM_CORRUPT},
    {"qwen3moe.expert_norm_topk_prob", AS_U32, FERRUM_CORRUPT},
    {"qwen3moe.vocab_size", AS_STRING, FERRUM_CORRUPT},
};

START_TEST(gguf_config_keys)
{
    static const char *const needed[] = {"block_count",          "embedding_length",
                                         "attention.head_count", "expert_count",
                                         "expert_used_count",    "expert_feed_forward_length"};
    static const uint8_t zeros[8 * 4 * 4];
    uint8_t *data;
    size_t bytes;
    char key[64];
    ferrum_gguf_t *gguf = NULL;
    ferrum_model_config_t config;
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_string(w, "general.architecture", "qwen3moe");
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        (void)snprintf(key, sizeof key, "qwen3moe.%s", needed[i]);
        ferrum_gguf_writer_u32(w, key, i == 1 || i == 5 ? 8 : 2);
    }
    if (config_keys[_i].as == AS_U32)
        ferrum_gguf_writer_u32(w, config_keys[_i].key, 77);
    else
        ferrum_gguf_writer_string(w, config_keys[_i].key,
                                  config_keys[_i].as == AS_NONE ? "none" : "yarn");
    ferrum_gguf_writer_tensor(w, "token_embd.weight", FERRUM_FORMAT_F32, 2, (uint64_t[]){8, 4},
                              zeros, sizeof zeros);
    ferrum_gguf_writer_bytes(w, &data, &bytes);
    ferrum_gguf_writer_free(w);
    EXPECT_OK(ferrum_gguf_open_memory(data, bytes, "m.gguf", &gguf, &err));
    ferrum_status_t status = ferrum_model_config_from_gguf(gguf, &config, &why);
    ck_assert_msg(status == config_keys[_i].status, "%s: %d %s", config_keys[_i].key, status,
                  why.message);
    ferrum_gguf_close(gguf);
    free(data);
}
END_TEST

START_TEST(gguf_values_of_other_types)
{
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_t *gguf = NULL;
    ferrum_string_view_t text, view = {"untouched", 9};
    bool truth;
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_bool(w, "b", true);
    ferrum_gguf_writer_f32(w, "f", 1.5f);
    ferrum_gguf_writer_i32s(w, "a", (const int32_t[]){1}, 1);
    ferrum_gguf_writer_bytes(w, &data, &bytes);
    ferrum_gguf_writer_free(w);
    EXPECT_OK(ferrum_gguf_open_memory(data, bytes, "m.gguf", &gguf, &err));
    EXPECT_FAILS(ferrum_gguf_get_bool(gguf, "none", &truth, &err), FERRUM_NOT_FOUND, "none");
    EXPECT_FAILS(ferrum_gguf_get_string(gguf, "none", &text, &err), FERRUM_NOT_FOUND, "none");
    EXPECT_FAILS(ferrum_gguf_get_string(gguf, "a", &text, &err), FERRUM_CORRUPT, "an array of i32");
    ck_assert_str_eq(ferrum_gguf_type_name(99), "?");
    ck_assert_int_eq(ferrum_gguf_item_i64(ferrum_gguf_find_key(gguf, "f"), 0), 0);
    ferrum_gguf_key_t unknown = *ferrum_gguf_find_key(gguf, "b");
    unknown.item_type = 99;
    ck_assert_int_eq(ferrum_gguf_item_i64(&unknown, 0), 0);
    ferrum_gguf_array_strings(ferrum_gguf_find_key(gguf, "a"), &view);
    ck_assert_str_eq(view.data, "untouched");
    ferrum_gguf_close(gguf);
    free(data);
}
END_TEST

/* ---- GPTQ layers ---- */

typedef struct part {
    const char *name, *dtype;
    uint32_t dims_count;
    uint64_t dims[2];
    size_t bytes;
} part_t;

static const struct {
    part_t part; /* instead of the right one of this name, or besides */
    ferrum_status_t status;
} layers[] = {
    {{"l.bias", "F16", 1, {16, 1}, 32}, FERRUM_OK},
    {{"l.qweight", "F32", 2, {4, 16}, 256}, FERRUM_CORRUPT},
    {{"l.qweight", "I32", 1, {64, 1}, 256}, FERRUM_CORRUPT},
    {{"l.qweight", "I32", 2, {0, 16}, 0}, FERRUM_CORRUPT},
    {{"l.qweight", "I32", 2, {4, 15}, 240}, FERRUM_CORRUPT},
    {{"l.qzeros", "F32", 2, {1, 2}, 8}, FERRUM_CORRUPT},
    {{"l.qzeros", "I32", 1, {2, 1}, 8}, FERRUM_CORRUPT},
    {{"l.qzeros", "I32", 2, {2, 2}, 16}, FERRUM_CORRUPT},
    {{"l.qzeros", "I32", 2, {1, 3}, 12}, FERRUM_CORRUPT},
    {{"l.scales", "I32", 2, {1, 16}, 64}, FERRUM_CORRUPT},
    {{"l.scales", "BOOL", 2, {1, 16}, 16}, FERRUM_CORRUPT},
    {{"l.scales", "F16", 1, {16, 1}, 32}, FERRUM_CORRUPT},
    {{"l.scales", "F16", 2, {2, 16}, 64}, FERRUM_CORRUPT},
    {{"l.scales", "F16", 2, {1, 15}, 30}, FERRUM_CORRUPT},
    {{"l.g_idx", "I32", 1, {31, 1}, 124}, FERRUM_CORRUPT},
    {{"l.g_idx", "F32", 1, {32, 1}, 128}, FERRUM_CORRUPT},
    {{"l.bias", "I32", 1, {16, 1}, 64}, FERRUM_CORRUPT},
    {{"l.bias", "BOOL", 1, {16, 1}, 16}, FERRUM_CORRUPT},
    {{"l.bias", "F16", 2, {16, 1}, 32}, FERRUM_CORRUPT},
    {{"l.bias", "F16", 1, {15, 1}, 30}, FERRUM_CORRUPT},
};

static const ferrum_gptq_config_t gptq = {.present = true, .bits = 4, .group_size = 0, .sym = true};

START_TEST(gptq_parts)
{
    static const part_t right[] = {{"l.qweight", "I32", 2, {4, 16}, 256},
                                   {"l.qzeros", "I32", 2, {1, 2}, 8},
                                   {"l.scales", "F16", 2, {1, 16}, 32}};
    static const uint8_t zeros[512];
    const part_t *odd = &layers[_i].part;
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_gptq_tensors_t layer;
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_safetensors_writer_t *w = ferrum_safetensors_writer_new();
    ferrum_safetensors_writer_add(w, odd->name, odd->dtype, odd->dims_count, odd->dims, zeros,
                                  odd->bytes);
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        if (strcmp(right[i].name, odd->name) != 0)
            ferrum_safetensors_writer_add(w, right[i].name, right[i].dtype, right[i].dims_count,
                                          right[i].dims, zeros, right[i].bytes);
    ferrum_safetensors_writer_bytes(w, &data, &bytes);
    ferrum_safetensors_writer_free(w);
    EXPECT_OK(ferrum_safetensors_open_memory(data, bytes, "c", &checkpoint, &err));
    ferrum_status_t status =
        ferrum_gptq_checkpoint_load(checkpoint, &gptq, "l", 0, 0, &layer, &why);
    ck_assert_msg(status == layers[_i].status, "%s, case %d: %d %s", odd->name, _i, status,
                  why.message);
    ferrum_safetensors_close(checkpoint);
    free(data);
}
END_TEST

/* The format does not promise alignment. */
START_TEST(gptq_parts_at_odd_offsets)
{
    static const char header[] =
        "{\"l.qweight\":{\"dtype\":\"I32\",\"shape\":[4,16],\"data_offsets\":[%d,%d]},"
        "\"l.qzeros\":{\"dtype\":\"I32\",\"shape\":[1,2],\"data_offsets\":[%d,%d]},"
        "\"l.scales\":{\"dtype\":\"F16\",\"shape\":[1,16],\"data_offsets\":[%d,%d]},"
        "\"l.bias\":{\"dtype\":\"F16\",\"shape\":[16],\"data_offsets\":[%d,%d]}}";
    static const uint8_t zeros[400];
    static const int starts[4] = {0, 264, 280, 320};
    for (int part = 0; part < 4; part++) {
        char text[512];
        uint8_t *data;
        size_t bytes;
        ferrum_safetensors_t *checkpoint = NULL;
        ferrum_gptq_tensors_t layer;
        int at[4];
        for (int i = 0; i < 4; i++)
            at[i] = starts[i] + (i == part);
        (void)snprintf(text, sizeof text, header, at[0], at[0] + 256, at[1], at[1] + 8, at[2],
                       at[2] + 32, at[3], at[3] + 32);
        ferrum_safetensors_assemble(text, zeros, sizeof zeros, &data, &bytes);
        EXPECT_OK(ferrum_safetensors_open_memory(data, bytes, "c", &checkpoint, &err));
        EXPECT_FAILS(ferrum_gptq_checkpoint_load(checkpoint, &gptq, "l", 0, 0, &layer, &err),
                     FERRUM_UNSUPPORTED, "align");
        ferrum_safetensors_close(checkpoint);
        free(data);
    }
}
END_TEST

START_TEST(gptq_names_and_settings)
{
    char prefix[300];
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_gptq_tensors_t layer;
    ferrum_gptq_config_t none = {0}, odd = {.present = true, .bits = 3};
    ferrum_safetensors_assemble("{}", NULL, 0, &data, &bytes);
    EXPECT_OK(ferrum_safetensors_open_memory(data, bytes, "c", &checkpoint, &err));
    memset(prefix, 'p', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    ck_assert(!ferrum_gptq_checkpoint_has(checkpoint, prefix));
    ck_assert(!ferrum_gptq_checkpoint_has(checkpoint, "l"));
    EXPECT_FAILS(ferrum_gptq_checkpoint_load(checkpoint, &gptq, prefix, 0, 0, &layer, &err),
                 FERRUM_NOT_FOUND, "ppp");
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ck_assert_int_ne(ferrum_gptq_checkpoint_load(checkpoint, &none, "l", 0, 0, &layer, &why),
                     FERRUM_OK);
    ck_assert_int_ne(ferrum_gptq_checkpoint_load(checkpoint, &odd, "l", 0, 0, &layer, &why),
                     FERRUM_OK);
    ferrum_safetensors_close(checkpoint);
    free(data);
}
END_TEST

/* ---- safetensors ---- */

static const struct {
    const char *header;
    ferrum_status_t status;
} headers[] = {
    {"{\"a\":5}", FERRUM_CORRUPT},
    {"{\"a\":{}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":5}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"F7\"}}", FERRUM_UNSUPPORTED},
    {"{\"a\":{\"dtype\":\"U8\"}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1]}}", FERRUM_UNSUPPORTED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0.5,1]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.5]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9]}}", FERRUM_CORRUPT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,2]}}", FERRUM_CORRUPT},
    {"[]", FERRUM_CORRUPT},
    {"5", FERRUM_CORRUPT},
};

START_TEST(safetensors_headers)
{
    static const uint8_t zeros[8];
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_safetensors_assemble(headers[_i].header, zeros, sizeof zeros, &data, &bytes);
    EXPECT_FAILS(ferrum_safetensors_open_memory(data, bytes, "c", &checkpoint, &err),
                 headers[_i].status, "c");
    free(data);
}
END_TEST

START_TEST(safetensors_dtypes)
{
    const ferrum_safetensors_dtype_t unknown = FERRUM_SAFETENSORS_DTYPES;
    ferrum_dtype_t dtype;
    ck_assert_uint_eq(ferrum_safetensors_dtype_bytes(unknown), 0);
    ck_assert_str_eq(ferrum_safetensors_dtype_name(unknown), "?");
    ck_assert(!ferrum_safetensors_dtype_to_abi(unknown, &dtype));
    ck_assert(!ferrum_safetensors_dtype_to_abi(FERRUM_SAFETENSORS_F64, &dtype));
}
END_TEST

/* A header that claims more than the format allows, in a sparse file. */
START_TEST(enormous_headers)
{
    static const uint8_t length[8] = {0, 0, 0, 8}; /* 128 MiB */
    ferrum_test_path_t dir, path;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "m.safetensors", path);
    ferrum_test_write_file(path, length, sizeof length);
    ck_assert_int_eq(truncate(path, 200 << 20), 0);
    EXPECT_FAILS(ferrum_safetensors_open(path, &checkpoint, &err), FERRUM_CORRUPT, "header length");
    ferrum_test_remove_directory(dir);
}
END_TEST

/* ---- indices and JSON files ---- */

START_TEST(index_in_the_working_directory)
{
    ferrum_test_path_t dir, path;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_test_make_directory(dir);
    ferrum_safetensors_writer_t *w = ferrum_safetensors_writer_new();
    ferrum_safetensors_writer_add(w, "a", "U8", 1, (uint64_t[]){1}, "x", 1);
    ferrum_test_join(dir, "s", path);
    ferrum_safetensors_writer_save(w, path);
    ferrum_safetensors_writer_free(w);
    ferrum_test_join(dir, "i.json", path);
    static const char index[] = "{\"weight_map\":{\"a\":\"s\"}}";
    ferrum_test_write_file(path, index, sizeof index - 1);
    ck_assert_int_eq(chdir(dir), 0);
    EXPECT_OK(ferrum_safetensors_open("i.json", &checkpoint, &err));
    ck_assert_uint_eq(ferrum_safetensors_shard_count(checkpoint), 1);
    ck_assert_ptr_null(ferrum_safetensors_shard_path(checkpoint, 1));
    ck_assert_uint_gt(ferrum_safetensors_bytes(checkpoint), 0);
    ferrum_safetensors_close(checkpoint);
    ferrum_safetensors_close(NULL);
    ck_assert_int_eq(rename("s", "x"), 0); /* shorter than ".json", and no directory */
    EXPECT_OK(ferrum_safetensors_open("x", &checkpoint, &err));
    ferrum_safetensors_close(checkpoint);
    ck_assert_int_eq(chdir("/"), 0);
    ferrum_test_remove_directory(dir);
}
END_TEST

START_TEST(index_with_too_many_shards)
{
    ferrum_test_path_t dir, path;
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    char name[16];
    for (unsigned i = 0; i <= FERRUM_SAFETENSORS_MAX_SHARDS; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        ferrum_safetensors_index_add(index, name, name);
    }
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "i.json", path);
    ferrum_safetensors_index_save(index, path);
    ferrum_safetensors_index_free(index);
    EXPECT_FAILS(ferrum_safetensors_open(path, &checkpoint, &err), FERRUM_CORRUPT,
                 "more than 4096 shards");
    ferrum_test_remove_directory(dir);
}
END_TEST

START_TEST(json_files)
{
    ferrum_test_path_t dir, path;
    json_t *root = NULL;
    ferrum_mapped_file_t file = {NULL, 0};
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "t.json", path);
    ferrum_test_write_file(path, "", 0);
    EXPECT_FAILS(ferrum_json_load(path, &root, &err), FERRUM_CORRUPT, "bad JSON");
    ferrum_test_write_file(path, "5", 1);
    EXPECT_FAILS(ferrum_json_load(path, &root, &err), FERRUM_CORRUPT, "bad JSON");
    ferrum_test_write_file(path, "[]", 2);
    EXPECT_FAILS(ferrum_json_load(path, &root, &err), FERRUM_CORRUPT, "not an object");
    ck_assert_int_eq(truncate(path, (off_t)FERRUM_JSON_MAX_FILE_BYTES + 1), 0);
    EXPECT_FAILS(ferrum_json_load(path, &root, &err), FERRUM_CORRUPT, "too many for a JSON file");
    ferrum_test_join(path, "below", dir); /* a file is no directory */
    EXPECT_FAILS(ferrum_json_load(dir, &root, &err), FERRUM_NOT_FOUND, "cannot open");
    ferrum_mapped_file_close(&file);
    ck_assert_int_eq(unlink(path), 0);
    *strrchr(path, '/') = '\0';
    ferrum_test_remove_directory(path);
}
END_TEST

START_TEST(json_fields)
{
    static const char text[] = "{\"null\":null,\"text\":\"t\",\"real\":1.5,\"int\":5,\"no\":false,"
                               "\"minus\":-1,\"large\":4294967296}";
    json_t *root = NULL;
    uint32_t u32 = 1;
    int64_t i64 = 1;
    double f64 = 1.0;
    bool truth = true;
    const char *string = NULL;
    EXPECT_OK(ferrum_json_parse(text, sizeof text - 1, "t", &root, &err));
    EXPECT_OK(ferrum_json_i64(root, "t", "null", false, &i64, &err));
    EXPECT_FAILS(ferrum_json_i64(root, "t", "null", true, &i64, &err), FERRUM_NOT_FOUND, "null");
    EXPECT_FAILS(ferrum_json_i64(root, "t", "none", true, &i64, &err), FERRUM_NOT_FOUND, "none");
    EXPECT_FAILS(ferrum_json_i64(root, "t", "text", true, &i64, &err), FERRUM_CORRUPT, "integer");
    EXPECT_FAILS(ferrum_json_u32(root, "t", "minus", true, &u32, &err), FERRUM_CORRUPT, "range");
    EXPECT_FAILS(ferrum_json_u32(root, "t", "large", true, &u32, &err), FERRUM_CORRUPT, "range");
    EXPECT_FAILS(ferrum_json_f64(root, "t", "text", true, &f64, &err), FERRUM_CORRUPT, "number");
    EXPECT_OK(ferrum_json_f64(root, "t", "int", true, &f64, &err));
    EXPECT_OK(ferrum_json_f64(root, "t", "real", true, &f64, &err));
    EXPECT_FAILS(ferrum_json_bool(root, "t", "int", true, &truth, &err), FERRUM_CORRUPT, "true or");
    EXPECT_OK(ferrum_json_bool(root, "t", "no", true, &truth, &err));
    ck_assert(!truth);
    EXPECT_FAILS(ferrum_json_string(root, "t", "int", true, &string, &err), FERRUM_CORRUPT,
                 "string");
    EXPECT_OK(ferrum_json_string(root, "t", "none", false, &string, &err));
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refusals");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, gguf_config_keys, 0, sizeof config_keys / sizeof config_keys[0]);
    tcase_add_test(tests, gguf_values_of_other_types);
    tcase_add_loop_test(tests, gptq_parts, 0, sizeof layers / sizeof layers[0]);
    tcase_add_test(tests, gptq_parts_at_odd_offsets);
    tcase_add_test(tests, gptq_names_and_settings);
    tcase_add_loop_test(tests, safetensors_headers, 0, sizeof headers / sizeof headers[0]);
    tcase_add_test(tests, safetensors_dtypes);
    tcase_add_test(tests, enormous_headers);
    tcase_add_test(tests, index_in_the_working_directory);
    tcase_add_test(tests, index_with_too_many_shards);
    tcase_add_test(tests, json_files);
    tcase_add_test(tests, json_fields);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
