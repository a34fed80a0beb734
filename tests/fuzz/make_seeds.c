/* SPDX-License-Identifier: MIT */
/*
 * Writes the hand-made part of the corpora: one small valid input per form that a reader knows.
 * Usage: make_seeds CORPUS_DIRECTORY. What `make fuzz` finds is added to the same folders.
 */
#include "tests/support/byte_buffer.h"
#include "tests/support/files.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/text/tiny_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *corpus;

static void save(const char *name, const void *data, size_t bytes)
{
    ferrum_test_path_t path;
    ferrum_test_join(corpus, name, path);
    ferrum_test_write_file(path, data, bytes);
}

/* ---- GGUF ---- */

static void save_gguf(ferrum_gguf_writer_t *w, const char *name, const char *tail,
                      size_t tail_bytes)
{
    uint8_t *data;
    size_t bytes;
    ferrum_byte_buffer_t file = {0};
    ferrum_gguf_writer_bytes(w, &data, &bytes);
    ferrum_byte_buffer_append(&file, data, bytes);
    ferrum_byte_buffer_append(&file, tail, tail_bytes);
    save(name, file.data, bytes + tail_bytes);
    free(data);
    free(file.data);
    ferrum_gguf_writer_free(w);
}

static void add_architecture(ferrum_gguf_writer_t *w, const char *architecture)
{
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"block_count", 2},           {"embedding_length", 64},
                   {"attention.head_count", 4},  {"attention.head_count_kv", 2},
                   {"attention.key_length", 16}, {"context_length", 512},
                   {"feed_forward_length", 96},  {"expert_count", 8},
                   {"expert_used_count", 2},     {"expert_feed_forward_length", 32}};
    char key[128];
    ferrum_gguf_writer_string(w, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strncmp(numbers[i].key, "expert", 6) == 0 && !strstr(architecture, "moe"))
            continue;
        (void)snprintf(key, sizeof key, "%s.%s", architecture, numbers[i].key);
        ferrum_gguf_writer_u32(w, key, numbers[i].value);
    }
    (void)snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    ferrum_gguf_writer_f32(w, key, 1e6f);
    (void)snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    ferrum_gguf_writer_f32(w, key, 1e-6f);
    ferrum_gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 3);
}

static void make_gguf(void)
{
    static const uint8_t zeros[4 * 64 * 4];
    static const struct {
        uint32_t type;
        uint64_t dims[4];
        size_t bytes;
    } tensors[] = {{FERRUM_FORMAT_F32, {64, 4, 1, 1}, 1024},
                   {FERRUM_FORMAT_Q4_0, {32, 2, 1, 1}, 36},
                   {FERRUM_FORMAT_Q4_K, {256, 1, 1, 1}, 144},
                   {FERRUM_FORMAT_Q8_0, {32, 1, 2, 1}, 68},
                   {29, {16, 1, 1, 1}, 32}};
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    char name[32];
    add_architecture(w, "qwen3moe");
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        (void)snprintf(name, sizeof name, i ? "blk.%zu.weight" : "token_embd.weight", i);
        ferrum_gguf_writer_tensor(w, name, tensors[i].type, i == 3 ? 3 : 2, tensors[i].dims, zeros,
                                  tensors[i].bytes);
    }
    save_gguf(w, "gguf/moe", NULL, 0);

    w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_set_version(w, 2);
    ferrum_gguf_writer_set_alignment(w, 8);
    add_architecture(w, "llama");
    ferrum_gguf_writer_tensor(w, "token_embd.weight", FERRUM_FORMAT_F16, 2, (uint64_t[]){8, 4},
                              zeros, 64);
    save_gguf(w, "gguf/dense-v2", NULL, 0);

    w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_u64(w, "u64", UINT64_MAX);
    ferrum_gguf_writer_i32(w, "i32", -1);
    ferrum_gguf_writer_bool(w, "bool", true);
    ferrum_gguf_writer_string(w, "empty", "");
    ferrum_gguf_writer_strings(w, "strings", (const char *const[]){"a", "", "bc"}, 3);
    ferrum_gguf_writer_i32s(w, "numbers", (const int32_t[]){1, -2, 3}, 3);
    for (uint32_t type = 0; type <= 12; type++)
        if (type != 8 && type != 9) {
            (void)snprintf(name, sizeof name, "raw%u", type);
            ferrum_gguf_writer_raw(w, name, type, "\1\2\3\4\5\6\7\x88",
                                   type <= 1 || type == 7 ? 1
                                   : type <= 3            ? 2
                                   : type <= 6            ? 4
                                                          : 8);
        }
    save_gguf(w, "gguf/values", NULL, 0);
}

/* ---- tokenizers ---- */

static void make_tokenizers(void)
{
    static const char text[] = "abc <|end|>\xc3\xa9 a<t>";
    static const char *const patterns[] = {
        NULL,
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"\\\\p{L}+|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"Split\","
        "\"pattern\":{\"Regex\":\"b(?=c)|(?<=a)b\"},\"behavior\":\"Isolated\"},{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"};
    static const char *const merges[] = {NULL, "[[\"a\",\"b\"],[\"ab\",\"c\"]]"};
    for (size_t i = 0; i < 2; i++) {
        tiny_json_t parts = {.pre_tokenizer = patterns[i], .merges = merges[i]};
        if (i == 1) {
            parts.normalizer = "null";
            parts.model_options = "\"type\":\"BPE\",\"ignore_merges\":true,\"dropout\":null,";
            parts.added_tokens = "[{\"id\":259,\"content\":\"<|end|>\",\"special\":true,"
                                 "\"normalized\":false,\"lstrip\":false},{\"id\":260,\"content\":"
                                 "\"<t>\",\"normalized\":true}]";
        }
        char *json = tiny_vocab_json(&parts);
        ferrum_byte_buffer_t input = {0};
        ferrum_byte_buffer_append(&input, json, strlen(json) + 1);
        ferrum_byte_buffer_append(&input, text, sizeof text - 1);
        save(i ? "tokenizer_json/split" : "tokenizer_json/byte-level", input.data,
             strlen(json) + sizeof text);
        free(input.data);
        free(json);
    }
    save("tokenizer_json/text", "caf\xc3\xa9 \xe1\xa0\x8e ab<|end|> 12  \r\n\xf0\x9f\x98\x80 don't",
         42);

    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    tiny_vocab_gguf(w, "gpt2", "qwen2", tiny_merges, TINY_MERGES);
    ferrum_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    ferrum_gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", TINY_END);
    ferrum_gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", TINY_END);
    char tail[sizeof text];
    memcpy(tail, text, sizeof text - 1);
    tail[sizeof text - 1] = (char)(sizeof text - 1);
    save_gguf(w, "tokenizer_gguf/tiny", tail, sizeof tail);
}

/* ---- safetensors ---- */

static void make_layer(const char *name, uint32_t bits, uint32_t group_size, const char *scales,
                       bool g_idx)
{
    enum {
        K = 32,
        N = 16
    };
    static uint8_t zeros[4 * K * N];
    int32_t groups_of[K];
    uint64_t groups = K / group_size, codes = 32 / bits;
    ferrum_safetensors_writer_t *w = ferrum_safetensors_writer_new();
    for (int32_t r = 0; r < K; r++)
        groups_of[r] = r / (int32_t)group_size;
    ferrum_safetensors_writer_add(w, "l.qweight", "I32", 2, (uint64_t[]){K / codes, N}, zeros,
                                  4 * K / codes * N);
    ferrum_safetensors_writer_add(w, "l.qzeros", "I32", 2, (uint64_t[]){groups, N / codes}, zeros,
                                  4 * groups * N / codes);
    ferrum_safetensors_writer_add(w, "l.scales", scales, 2, (uint64_t[]){groups, N}, zeros,
                                  (strcmp(scales, "F32") == 0 ? 4 : 2) * groups * N);
    if (g_idx)
        ferrum_safetensors_writer_add(w, "l.g_idx", "I32", 1, (uint64_t[]){K}, groups_of,
                                      sizeof groups_of);
    ferrum_safetensors_writer_add(w, "l.bias", "F16", 1, (uint64_t[]){N}, zeros, 2 * N);
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_writer_bytes(w, &data, &bytes);
    save(name, data, bytes);
    free(data);
    ferrum_safetensors_writer_free(w);
}

static void save_header(const char *name, const char *header, size_t data_bytes)
{
    static const uint8_t zeros[64];
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_assemble(header, zeros, data_bytes, &data, &bytes);
    save(name, data, bytes);
    free(data);
}

static void save_text(const char *name, const char *text)
{
    save(name, text, strlen(text));
}

static void make_safetensors(void)
{
    make_layer("safetensors/gptq4", 4, 8, "F16", false);
    make_layer("safetensors/gptq4-act-order", 4, 32, "BF16", true);
    make_layer("safetensors/gptq8", 8, 16, "F32", true);
    save_header("safetensors/odd",
                "{\"__metadata__\":{\"format\":\"pt\"},\"s\":{\"dtype\":\"F64\",\"shape\":[],"
                "\"data_offsets\":[0,8]},\"e\":{\"dtype\":\"BOOL\",\"shape\":[0,3],"
                "\"data_offsets\":[8,8]},\"f\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,1,1,1,1,1,1,2],"
                "\"data_offsets\":[8,12]}}",
                16);
    save_text("safetensors/index",
              "{\"metadata\":{\"total_size\":4},\"weight_map\":{\"a\":\"s\"}}");
    save_text("safetensors/index-elsewhere", "{\"weight_map\":{\"a\":\"../s\",\"b\":\"t\"}}");
}

/* ---- configs and routing ---- */

static void make_configs(void)
{
    static const char config[] =
        "{\"model_type\":\"qwen3_moe\",\"num_experts\":8,\"num_experts_per_tok\":2,"
        "\"moe_intermediate_size\":32,\"hidden_size\":64,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":16,\"vocab_size\":300,"
        "\"intermediate_size\":96,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
        "\"max_position_embeddings\":512,\"tie_word_embeddings\":true,\"norm_topk_prob\":false,"
        "\"eos_token_id\":[1,2],\"bos_token_id\":0,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]"
        ","
        "\"hidden_act\":\"silu\",\"attention_bias\":false,\"rope_scaling\":null,"
        "\"sliding_window\":null,\"use_sliding_window\":false}";
    static const char with_gptq[] =
        "{\"model_type\":\"qwen3_moe\",\"num_local_experts\":8,\"moe_intermediate_size\":32,"
        "\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":300,"
        "\"eos_token_id\":1,\"rope_parameters\":{\"rope_theta\":10000,\"rope_type\":\"default\"},"
        "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1,"
        "\"desc_act\":true,\"sym\":false,\"checkpoint_format\":\"gptq_v2\"}}";
    static const char quantize[] = "{\"bits\":4,\"group_size\":32,\"desc_act\":false,\"sym\":true,"
                                   "\"checkpoint_format\":\"gptq\"}";
    char both[2048];
    save_text("config/plain", config);
    save_text("config/gptq", with_gptq);
    memcpy(both, config, sizeof config);
    memcpy(both + sizeof config, quantize, sizeof quantize - 1);
    save("config/two-files", both, sizeof config + sizeof quantize - 1);
}

static void make_routing(void)
{
    uint8_t input[600];
    uint32_t state = 1;
    char name[32];
    for (int i = 0; i < 8; i++) {
        for (size_t at = 0; at < sizeof input; at++) {
            state = state * 1664525u + 1013904223u;
            input[at] = (uint8_t)(state >> 24);
            if (i < 4 && at > 12 && at % 4 == 3) /* exponents of ordinary numbers */
                input[at] = (uint8_t)(0x3f | (input[at] & 0x80));
        }
        input[0] = (uint8_t)(i < 4); /* routing, or grouping */
        (void)snprintf(name, sizeof name, "routing/%s-%d", i < 4 ? "logits" : "ids", i % 4);
        save(name, input, sizeof input);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_seeds CORPUS_DIRECTORY\n");
        return 2;
    }
    corpus = argv[1];
    make_gguf();
    make_tokenizers();
    make_safetensors();
    make_configs();
    make_routing();
    return 0;
}
