/* SPDX-License-Identifier: MIT */
/*
 * The trained model's tokenizer, from tokenizer.json and from the GGUF, against ids and texts that
 * the Hugging Face tokenizers package made (tests/golden/tokenizer_cases.json).
 */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>

#include "host/text/tokenizer.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

static json_t *cases;
static ferrum_tokenizer_t *tokenizers[2]; /* from JSON, from GGUF */
static const char *const sources[2] = {"tokenizer.json", "GGUF"};

static void set_up(void)
{
    ferrum_test_path_t path;
    json_error_t error;
    ferrum_gguf_t *gguf;
    ferrum_test_source_path("tests/golden/tokenizer_cases.json", path);
    cases = json_load_file(path, 0, &error);
    ck_assert_msg(cases != NULL, "%s: %s", path, error.text);
    ferrum_test_source_path("models/tiny-qwen3moe-gptq/tokenizer.json", path);
    EXPECT_OK(ferrum_tokenizer_from_json_file(path, &tokenizers[0], &err));
    ferrum_test_source_path("models/tiny-qwen3moe-q4_k.gguf", path);
    EXPECT_OK(ferrum_gguf_open(path, &gguf, &err));
    EXPECT_OK(ferrum_tokenizer_from_gguf(gguf, &tokenizers[1], &err));
    ferrum_gguf_close(gguf);
}

static void tear_down(void)
{
    json_decref(cases);
    for (int i = 0; i < 2; i++)
        ferrum_tokenizer_free(tokenizers[i]);
}

static char *id_text(const int32_t *ids, size_t count)
{
    char *text = malloc(12 * count + 1);
    size_t at = 0;
    ck_assert_ptr_nonnull(text);
    text[0] = 0;
    for (size_t i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, "%d ", (int)ids[i]);
    return text;
}

/* Ids of a case as text. */
static char *golden_ids(const json_t *list)
{
    size_t count = json_array_size(list);
    int32_t *ids = calloc(count + 1, sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    char *text = id_text(ids, count);
    free(ids);
    return text;
}

START_TEST(encodes_like_the_reference)
{
    const json_t *list = json_object_get(cases, "cases");
    ck_assert_uint_gt(json_array_size(list), 200);
    for (int source = 0; source < 2; source++) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *item = json_array_get(list, i);
            const json_t *text = json_object_get(item, "text");
            ferrum_token_list_t ids = {0};
            EXPECT_OK(ferrum_tokenizer_encode(tokenizers[source], json_string_value(text),
                                              json_string_length(text), FERRUM_ENCODE_PARSE_SPECIAL,
                                              &ids, &err));
            char *got = id_text(ids.ids, ids.count);
            char *wanted = golden_ids(json_object_get(item, "ids"));
            ck_assert_msg(strcmp(got, wanted) == 0, "%s, case %zu, \"%s\": got %s, wanted %s",
                          sources[source], i, json_string_value(text), got, wanted);
            free(got);
            free(wanted);
            ferrum_token_list_free(&ids);
        }
    }
}
END_TEST

/* Decode ids in one stream and compare with the text of the case. */
static void check_decoded(int source, const json_t *ids, const char *wanted)
{
    ferrum_decoder_t *decoder;
    char text[8192];
    size_t length = 0;
    EXPECT_OK(ferrum_decoder_new(tokenizers[source], 0, &decoder, &err));
    for (size_t i = 0; i <= json_array_size(ids); i++) {
        ferrum_string_view_t piece;
        if (i < json_array_size(ids))
            EXPECT_OK(ferrum_decoder_push(
                decoder, (int32_t)json_integer_value(json_array_get(ids, i)), &piece, &err));
        else
            piece = ferrum_decoder_finish(decoder);
        ck_assert_uint_lt(length + piece.length, sizeof text);
        memcpy(text + length, piece.data, piece.length);
        length += piece.length;
    }
    text[length] = 0;
    ck_assert_str_eq(text, wanted);
    ferrum_decoder_free(decoder);
}

START_TEST(decodes_like_the_reference)
{
    static const char *const lists[] = {"cases", "decode_cases"};
    for (int source = 0; source < 2; source++) {
        for (size_t l = 0; l < 2; l++) {
            const json_t *list = json_object_get(cases, lists[l]);
            ck_assert_uint_gt(json_array_size(list), 0);
            for (size_t i = 0; i < json_array_size(list); i++) {
                const json_t *item = json_array_get(list, i);
                const char *wanted = json_string_value(json_object_get(item, "decoded"));
                if (!wanted)
                    wanted = json_string_value(json_object_get(item, "text"));
                check_decoded(source, json_object_get(item, "ids"), wanted);
            }
        }
    }
}
END_TEST

START_TEST(both_sources_hold_the_same_tokens)
{
    uint32_t vocab = ferrum_tokenizer_vocab_size(tokenizers[0]);
    ck_assert_uint_eq(vocab, 4096);
    ck_assert_uint_eq(ferrum_tokenizer_vocab_size(tokenizers[1]), vocab);
    for (int32_t id = 0; id < (int32_t)vocab; id++) {
        ck_assert(ferrum_view_equal(ferrum_tokenizer_bytes(tokenizers[0], id),
                                    ferrum_tokenizer_bytes(tokenizers[1], id)));
        ck_assert_int_eq(ferrum_tokenizer_kind(tokenizers[0], id),
                         ferrum_tokenizer_kind(tokenizers[1], id));
        ferrum_string_view_t bytes = ferrum_tokenizer_bytes(tokenizers[0], id);
        ck_assert_int_eq(ferrum_tokenizer_find(tokenizers[0], bytes.data, bytes.length), id);
    }
    ck_assert_int_eq(ferrum_tokenizer_find(tokenizers[0], "<|im_end|>", 10), 4093);
    ck_assert_int_eq(ferrum_tokenizer_kind(tokenizers[0], 4093), FERRUM_TOKEN_CONTROL);
    ck_assert_int_eq(ferrum_tokenizer_kind(tokenizers[0], 4094), FERRUM_TOKEN_USER);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer goldens");
    TCase *tests = tcase_create("trained model");
    tcase_add_unchecked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, encodes_like_the_reference);
    tcase_add_test(tests, decodes_like_the_reference);
    tcase_add_test(tests, both_sources_hold_the_same_tokens);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
