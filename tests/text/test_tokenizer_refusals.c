/* SPDX-License-Identifier: MIT */
/* Every way in which a tokenizer file can ask for what Ferrum does not do, or contradict itself. */
#include "tests/support/expect.h"
#include "tests/text/tiny_vocab.h"

#include <stdlib.h>

#define SPLIT(inside)                                                                              \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"," inside "},"                   \
    "{\"type\":\"ByteLevel\",\"use_regex\":false}]}"
#define REGEX "\"pattern\":{\"Regex\":\"x+\"}"
#define ADDED(fields)                                                                              \
    "[{\"id\":259,\"content\":\"<|end|>\"" fields "},{\"id\":260,\"content\":\"<t>\"}]"

static const struct {
    tiny_json_t parts;
    ferrum_status_t status; /* OK: it is accepted */
    const char *text;
} cases[] = {
    {{.model_options = "\"type\":\"WordPiece\","}, FERRUM_UNSUPPORTED, "tokenizer model"},
    {{.model_options = "\"type\":5,"}, FERRUM_UNSUPPORTED, "tokenizer model"},
    {{.model_options = "\"type\":\"BPE\",\"unk_token\":\"<unk>\","}, FERRUM_UNSUPPORTED, "<unk>"},
    {{.model_options = "\"type\":\"BPE\",\"unk_token\":5,"}, FERRUM_UNSUPPORTED, "(not a string)"},
    {{.model_options = "\"type\":\"BPE\",\"unk_token\":\"\","}, FERRUM_OK, NULL},
    {{.model_options = "\"type\":\"BPE\",\"end_of_word_suffix\":null,"}, FERRUM_OK, NULL},
    {{.model_options = "\"type\":\"BPE\",\"dropout\":0.5,"}, FERRUM_UNSUPPORTED, "dropout"},
    {{.model_options = "\"type\":\"BPE\",\"dropout\":\"x\","}, FERRUM_UNSUPPORTED, "dropout"},
    {{.model_options = "\"type\":\"BPE\",\"dropout\":0,"}, FERRUM_OK, NULL},
    {{.model_options = "\"type\":\"BPE\",\"dropout\":0.0,"}, FERRUM_OK, NULL},
    {{.model_options = "\"type\":\"BPE\",\"byte_fallback\":true,"}, FERRUM_UNSUPPORTED, "fallback"},
    {{.model_options = "\"type\":\"BPE\",\"byte_fallback\":1,"}, FERRUM_CORRUPT, "true or false"},
    {{.model_options = "\"type\":\"BPE\",\"ignore_merges\":1,"}, FERRUM_CORRUPT, "true or false"},
    {{.post_processor = "{\"type\":\"TemplateProcessing\"}"}, FERRUM_UNSUPPORTED, "Template"},
    {{.post_processor = "{\"type\":\"ByteLevel\"}"}, FERRUM_OK, NULL},
    {{.normalizer = "{\"type\":\"NFKC\"}"}, FERRUM_UNSUPPORTED, "NFKC"},
    {{.normalizer = "5"}, FERRUM_UNSUPPORTED, "normalizer"},
    {{.pre_tokenizer = "null"}, FERRUM_UNSUPPORTED, "pre-tokenizer"},
    {{.pre_tokenizer = "{\"type\":\"Metaspace\"}"}, FERRUM_UNSUPPORTED, "Metaspace"},
    {{.pre_tokenizer = SPLIT("\"behavior\":\"Isolated\"")}, FERRUM_UNSUPPORTED, "Regex"},
    {{.pre_tokenizer = SPLIT(REGEX)}, FERRUM_UNSUPPORTED, "behavior"},
    {{.pre_tokenizer = SPLIT(REGEX ",\"behavior\":5")}, FERRUM_CORRUPT, "not a string"},
    {{.pre_tokenizer = SPLIT(REGEX ",\"behavior\":\"Removed\"")}, FERRUM_UNSUPPORTED, "Removed"},
    {{.pre_tokenizer = SPLIT(REGEX ",\"behavior\":\"Isolated\",\"invert\":true")},
     FERRUM_UNSUPPORTED,
     "inverted"},
    {{.pre_tokenizer = SPLIT(REGEX ",\"behavior\":\"Isolated\",\"invert\":1")},
     FERRUM_CORRUPT,
     "true or false"},
    {{.pre_tokenizer = SPLIT("\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"")},
     FERRUM_CORRUPT,
     "bad pattern"},
    {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"},
     FERRUM_UNSUPPORTED,
     "add_prefix_space"},
    {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":1}"},
     FERRUM_CORRUPT,
     "true or false"},
    {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"use_regex\":1}"},
     FERRUM_CORRUPT,
     "true or false"},
    {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},"
                       "{\"type\":\"ByteLevel\"}]}"},
     FERRUM_UNSUPPORTED,
     "ByteLevel"},
    {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[]}"},
     FERRUM_UNSUPPORTED,
     "ByteLevel"},
    {{.added_tokens = "[{\"content\":\"<t>\"}]"}, FERRUM_CORRUPT, "integer id"},
    {{.added_tokens = "[{\"id\":\"x\",\"content\":\"<t>\"}]"}, FERRUM_CORRUPT, "integer id"},
    {{.added_tokens = "[{\"id\":16777216,\"content\":\"<t>\"}]"}, FERRUM_CORRUPT, "out of range"},
    {{.added_tokens = "[{\"id\":900000,\"content\":\"<t>\"}]"}, FERRUM_CORRUPT, "out of range"},
    {{.added_tokens = "[{\"id\":259}]"}, FERRUM_NOT_FOUND, "content"},
    {{.added_tokens = "[{\"id\":-5,\"content\":\"<t>\"}]"}, FERRUM_CORRUPT, "outside"},
    {{.added_tokens = "[{\"id\":259,\"content\":\"\"}]"}, FERRUM_CORRUPT, "has 0 bytes"},
    {{.added_tokens = ADDED(",\"special\":1")}, FERRUM_CORRUPT, "true or false"},
    {{.added_tokens = ADDED(",\"normalized\":1")}, FERRUM_CORRUPT, "true or false"},
    {{.added_tokens = ADDED(",\"lstrip\":true")}, FERRUM_UNSUPPORTED, "lstrip"},
    {{.added_tokens = ADDED(",\"lstrip\":1")}, FERRUM_CORRUPT, "true or false"},
    {{.added_tokens = "[{\"id\":259,\"content\":\"e\xcc\x81\",\"normalized\":true}]"},
     FERRUM_UNSUPPORTED,
     "not in NFC"},
    {{.more_vocab = ",\"zz\":\"x\""}, FERRUM_CORRUPT, "not an integer"},
    {{.more_vocab = ",\"zz\":-7"}, FERRUM_CORRUPT, "outside"},
    {{.more_vocab = ",\"zz\":261"}, FERRUM_CORRUPT, "same text"},
    {{.more_vocab = ",\"\":262"}, FERRUM_CORRUPT, "0 bytes"},
    {{.more_vocab = ",\"<|end|>\":259"}, FERRUM_OK, NULL},
    {{.more_vocab = ",\"<|other|>\":259"}, FERRUM_CORRUPT, "have the id"},
    {{.merges = "{}"}, FERRUM_CORRUPT, "array"},
    {{.merges = "[1]"}, FERRUM_CORRUPT, "neither"},
    {{.merges = "[[\"a\"]]"}, FERRUM_CORRUPT, "neither"},
    {{.merges = "[[\"a\",\"b\",\"c\"]]"}, FERRUM_CORRUPT, "neither"},
    {{.merges = "[[\"a\",1]]"}, FERRUM_CORRUPT, "neither"},
    {{.merges = "[[1,\"b\"]]"}, FERRUM_CORRUPT, "neither"},
    {{.merges = "[\"ab\"]"}, FERRUM_CORRUPT, "space between"},
    {{.merges = "[\"a z\"]"}, FERRUM_CORRUPT, "not in the vocabulary"},
    {{.merges = "[\"a b\",\"a b\"]"}, FERRUM_CORRUPT, "is there twice"},
};

START_TEST(json)
{
    char *text = tiny_vocab_json(&cases[_i].parts);
    ferrum_tokenizer_t *t = NULL;
    if (cases[_i].status == FERRUM_OK) {
        EXPECT_OK(ferrum_tokenizer_from_json(text, strlen(text), "t.json", &t, &err));
    } else {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_status_t status = ferrum_tokenizer_from_json(text, strlen(text), "t.json", &t, &err);
        ck_assert_msg(status != FERRUM_OK, "case %d is accepted", _i);
        ck_assert_msg(strstr(err.message, cases[_i].text) || status == cases[_i].status,
                      "case %d: %d %s", _i, status, err.message);
        ck_assert_ptr_null(t);
    }
    ferrum_tokenizer_free(t);
    free(text);
}
END_TEST

START_TEST(json_without_parts)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "{\"model\":{\"type\":\"BPE\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
        "{\"type\":\"ByteLevel\"}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ferrum_tokenizer_t *t = NULL;
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ck_assert_int_ne(ferrum_tokenizer_from_json(texts[i], strlen(texts[i]), "t", &t, &err),
                         FERRUM_OK);
        ck_assert(err.message[0] != '\0');
    }
}
END_TEST

START_TEST(ids_out_of_range)
{
    char *text = tiny_vocab_json(&(tiny_json_t){0});
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(ferrum_tokenizer_from_json(text, strlen(text), "t.json", &t, &err));
    ck_assert_int_eq(ferrum_tokenizer_kind(t, -1), FERRUM_TOKEN_UNUSED);
    ck_assert_int_eq(ferrum_tokenizer_kind(t, 100000), FERRUM_TOKEN_UNUSED);
    ck_assert_uint_eq(ferrum_tokenizer_bytes(t, -1).length, 0);
    ck_assert_uint_eq(ferrum_tokenizer_bytes(t, 100000).length, 0);
    ck_assert_int_eq(ferrum_tokenizer_find(t, "no such token", 13), -1);
    ferrum_tokenizer_free(t);
    ferrum_tokenizer_free(NULL);
    free(text);
}
END_TEST

/* ---- GGUF: arrays that do not belong together ---- */

static void expect_gguf(const char *const *tokens, uint64_t count, uint64_t types, const char *text)
{
    static const int32_t kinds[4] = {1, 1, 1, 1};
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_t *gguf = NULL;
    ferrum_tokenizer_t *t = NULL;
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    ferrum_gguf_writer_string(w, "tokenizer.ggml.pre", "qwen2");
    ferrum_gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, count);
    ferrum_gguf_writer_i32s(w, "tokenizer.ggml.token_type", kinds, types);
    ferrum_gguf_writer_strings(w, "tokenizer.ggml.merges", NULL, 0);
    ferrum_gguf_writer_bytes(w, &data, &bytes);
    ferrum_gguf_writer_free(w);
    EXPECT_OK(ferrum_gguf_open_memory(data, bytes, "t.gguf", &gguf, &err));
    EXPECT_FAILS(ferrum_tokenizer_from_gguf(gguf, &t, &err), FERRUM_CORRUPT, text);
    ferrum_gguf_close(gguf);
    free(data);
}

START_TEST(gguf_arrays)
{
    static const char *const tokens[] = {"a", "b", "", "d"};
    expect_gguf(tokens, 0, 0, "t.gguf");
    expect_gguf(tokens, 2, 3, "t.gguf");
    expect_gguf(tokens, 3, 3, "has 0 bytes");
    expect_gguf(tokens, 2, 2, "no token for byte");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer refusals");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, json, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, json_without_parts);
    tcase_add_test(tests, ids_out_of_range);
    tcase_add_test(tests, gguf_arrays);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
