/* SPDX-License-Identifier: MIT */
/* Faults while model files and tokenizers are read. */
#include "config.h"

#include "host/formats/gptq_checkpoint.h"
#include "host/formats/model_config.h"
#include "host/formats/safetensors.h"
#include "host/text/sampler.h"
#include "tests/support/expect.h"
#include "tests/support/faults.h"
#include "tests/support/files.h"
#include "tests/support/safetensors_writer.h"
#include "tests/text/tiny_vocab.h"

#include <stdlib.h>
#include <unistd.h>

static ferrum_test_path_t dir, gguf_path, json_path, shards_dir, gptq_dir;

/* ---- operations ---- */

static ferrum_status_t read_gguf(ferrum_error_t *err)
{
    ferrum_gguf_t *gguf = NULL;
    ferrum_model_config_t config;
    FERRUM_TRY(ferrum_gguf_open(gguf_path, &gguf, err));
    ferrum_status_t status = ferrum_model_config_from_gguf(gguf, &config, err);
    ferrum_gguf_close(gguf);
    return status;
}

static ferrum_status_t read_shards(ferrum_error_t *err)
{
    ferrum_safetensors_t *checkpoint = NULL;
    FERRUM_TRY(ferrum_safetensors_open(shards_dir, &checkpoint, err));
    ferrum_safetensors_close(checkpoint);
    return FERRUM_OK;
}

static ferrum_status_t read_gptq(ferrum_error_t *err)
{
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_model_config_t config;
    ferrum_gptq_tensors_t layer;
    FERRUM_TRY(ferrum_model_config_from_directory(gptq_dir, &config, err));
    FERRUM_TRY(ferrum_safetensors_open(gptq_dir, &checkpoint, err));
    ferrum_status_t status = ferrum_gptq_checkpoint_load(
        checkpoint, &config.gptq, "model.layers.0.mlp.experts.0.down_proj", 0, 0, &layer, err);
    ferrum_safetensors_close(checkpoint);
    return status;
}

/* Normalisation, patterns, merges and added tokens all take part. */
static ferrum_status_t use_tokenizer(ferrum_tokenizer_t *tokenizer, ferrum_error_t *err)
{
    static const char text[] = "abc cafe\xcc\x81 \xe1\xa0\x8e ab<|end|> <t>a";
    ferrum_token_list_t list = {0};
    ferrum_decoder_t *decoder = NULL;
    ferrum_string_view_t piece;
    ferrum_status_t status = ferrum_tokenizer_encode(tokenizer, text, sizeof text - 1,
                                                     FERRUM_ENCODE_PARSE_SPECIAL, &list, err);
    if (status == FERRUM_OK)
        status = ferrum_decoder_new(tokenizer, 0, &decoder, err);
    for (size_t i = 0; status == FERRUM_OK && i < list.count; i++)
        status = ferrum_decoder_push(decoder, list.ids[i], &piece, err);
    ferrum_decoder_free(decoder);
    ferrum_token_list_free(&list);
    ferrum_tokenizer_free(tokenizer);
    return status;
}

static ferrum_status_t tokenize_gguf(ferrum_error_t *err)
{
    ferrum_gguf_t *gguf = NULL;
    ferrum_tokenizer_t *tokenizer = NULL;
    FERRUM_TRY(ferrum_gguf_open(gguf_path, &gguf, err));
    ferrum_status_t status = ferrum_tokenizer_from_gguf(gguf, &tokenizer, err);
    ferrum_gguf_close(gguf);
    return status == FERRUM_OK ? use_tokenizer(tokenizer, err) : status;
}

static ferrum_status_t tokenize_json(ferrum_error_t *err)
{
    ferrum_tokenizer_t *tokenizer = NULL;
    FERRUM_TRY(ferrum_tokenizer_from_json_file(json_path, &tokenizer, err));
    return use_tokenizer(tokenizer, err);
}

static ferrum_status_t make_sampler(ferrum_error_t *err)
{
    const ferrum_sampler_params_t params = FERRUM_SAMPLER_PARAMS_DEFAULT;
    ferrum_sampler_t *sampler = NULL;
    FERRUM_TRY(ferrum_sampler_new(&params, 100, &sampler, err));
    ferrum_sampler_free(sampler);
    return FERRUM_OK;
}

static ferrum_status_t read_memory(ferrum_error_t *err)
{
    static const uint64_t empty[] = {2, 0x7d7b};
    ferrum_safetensors_t *checkpoint = NULL;
    FERRUM_TRY(ferrum_safetensors_open_memory(empty, 10, "memory", &checkpoint, err));
    ferrum_safetensors_close(checkpoint);
    return FERRUM_OK;
}

/* A directory is asked for one file after the other; opening that file has the last word. */
static const char *const asks_stat[] = {"stat", NULL};

static const faults_operation_t operations[] = {
    {"gguf", read_gguf, NULL, 0, NULL},
    {"sampler", make_sampler, NULL, 0, NULL},
    {"safetensors in memory", read_memory, NULL, 0, NULL},
    {"shards", read_shards, asks_stat, 0, NULL},
    {"gptq", read_gptq, asks_stat, 0, NULL},
    {"tokenizer from gguf", tokenize_gguf, NULL, 0, NULL},
    {"tokenizer from json", tokenize_json, NULL, 0, NULL},
};

/* ---- the files ---- */

static void write_gguf(void)
{
    static const uint8_t zeros[4 * 8 * TINY_VOCAB];
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"block_count", 1},  {"embedding_length", 8},  {"attention.head_count", 2},
                {"expert_count", 4}, {"expert_used_count", 2}, {"expert_feed_forward_length", 8}};
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    char key[64];
    ferrum_gguf_writer_string(w, "general.architecture", "qwen3moe");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        (void)snprintf(key, sizeof key, "qwen3moe.%s", keys[i].key);
        ferrum_gguf_writer_u32(w, key, keys[i].value);
    }
    tiny_vocab_gguf(w, "gpt2", "qwen2", tiny_merges, TINY_MERGES);
    ferrum_gguf_writer_tensor(w, "token_embd.weight", FERRUM_FORMAT_F32, 2,
                              (uint64_t[]){8, TINY_VOCAB}, zeros, sizeof zeros);
    ferrum_test_join(dir, "model.gguf", gguf_path);
    ferrum_gguf_writer_save(w, gguf_path);
    ferrum_gguf_writer_free(w);
}

static void write_shards(void)
{
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    ferrum_test_path_t path;
    for (char name[] = "a"; name[0] < 'd'; name[0]++) {
        ferrum_safetensors_writer_t *w = ferrum_safetensors_writer_new();
        ferrum_safetensors_writer_add(w, name, "U8", 1, (uint64_t[]){4}, "1234", 4);
        char second[] = {name[0], '2', '\0'};
        ferrum_safetensors_writer_add(w, second, "U8", 1, (uint64_t[]){4}, "1234", 4);
        ferrum_test_join(shards_dir, name, path);
        ferrum_safetensors_writer_save(w, path);
        ferrum_safetensors_writer_free(w);
        ferrum_safetensors_index_add(index, name, name);
    }
    ferrum_test_join(shards_dir, "model.safetensors.index.json", path);
    ferrum_safetensors_index_save(index, path);
    ferrum_safetensors_index_free(index);
}

static void setup(void)
{
    static const tiny_json_t parts = {0};
    char *json = tiny_vocab_json(&parts);
    ferrum_test_make_directory(dir);
    ferrum_test_make_directory(shards_dir);
    ferrum_test_join(dir, "tokenizer.json", json_path);
    ferrum_test_write_file(json_path, json, strlen(json));
    free(json);
    ferrum_test_source_path("tests/golden/rand_gptq", gptq_dir);
    write_gguf();
    write_shards();
}

static void teardown(void)
{
    ferrum_test_remove_directory(dir);
    ferrum_test_remove_directory(shards_dir);
}

START_TEST(every_call_fails_once)
{
    long failures = faults_exhaust(&operations[_i]);
    printf("%s: %ld calls failed once\n", operations[_i].name, failures);
    ck_assert_int_ge(failures, 5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults/files");
    TCase *tests = tcase_create("files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, every_call_fails_once, 0, sizeof operations / sizeof operations[0]);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
