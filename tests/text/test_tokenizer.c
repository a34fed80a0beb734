/* SPDX-License-Identifier: MIT */
/* The tokenizer on a hand-made vocabulary: every option, every refusal, broken text. */
#include <stdlib.h>

#include "tests/support/expect.h"
#include "tests/text/tiny_vocab.h"

static ferrum_status_t load(const tiny_json_t *parts, ferrum_tokenizer_t **out_tokenizer,
                            ferrum_error_t *err)
{
    char *json = tiny_vocab_json(parts);
    ferrum_status_t status =
        ferrum_tokenizer_from_json(json, strlen(json), "tiny.json", out_tokenizer, err);
    free(json);
    return status;
}

static ferrum_tokenizer_t *load_usual(void)
{
    ferrum_tokenizer_t *tokenizer = NULL;
    EXPECT_OK(load(&(tiny_json_t){0}, &tokenizer, &err));
    return tokenizer;
}

/* Encode and compare; the ids end with -1. */
static void check_ids(const ferrum_tokenizer_t *tokenizer, const char *text,
                      ferrum_encode_flags_t flags, const int32_t *wanted)
{
    ferrum_token_list_t list = {0};
    size_t count = 0;
    EXPECT_OK(ferrum_tokenizer_encode(tokenizer, text, strlen(text), flags, &list, &err));
    while (wanted[count] >= 0)
        count++;
    ck_assert_msg(list.count == count, "\"%s\": %zu ids, not %zu", text, list.count, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(list.ids[i] == wanted[i], "\"%s\": id %zu is %d, not %d", text, i,
                      list.ids[i], wanted[i]);
    ferrum_token_list_free(&list);
}
#define CHECK_IDS(tokenizer, text, flags, ...)                                                     \
    check_ids(tokenizer, text, flags, (const int32_t[]){__VA_ARGS__})

START_TEST(merges_by_rank)
{
    ferrum_tokenizer_t *t = load_usual();
    CHECK_IDS(t, "", 0, -1);
    CHECK_IDS(t, "abcab", 0, TINY_ABC, TINY_AB, -1);
    CHECK_IDS(t, "aabb", 0, 'a', TINY_AB, 'b', -1);
    /* " a" has the higher rank, so that a b goes first. */
    CHECK_IDS(t, " ab", 0, ' ', TINY_AB, -1);
    CHECK_IDS(t, " a", 0, TINY_SPACE_A, -1);
    /* Words keep merges apart: the space goes with what follows it. */
    CHECK_IDS(t, "b a", 0, 'b', TINY_SPACE_A, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(accepts_both_forms_of_merges)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(&(tiny_json_t){.merges = "[[\"a\",\"b\"],[\"ab\",\"c\"]]"}, &t, &err));
    CHECK_IDS(t, "abc", 0, TINY_ABC, -1);
    ferrum_tokenizer_free(t);
    EXPECT_OK(load(&(tiny_json_t){.merges = "[]"}, &t, &err));
    CHECK_IDS(t, "abc", 0, 'a', 'b', 'c', -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(normalises_only_when_asked)
{
    ferrum_tokenizer_t *t = load_usual();
    CHECK_IDS(t, "e\xcc\x81", 0, TINY_E_ACUTE, -1);
    CHECK_IDS(t, "\xc3\xa9", 0, TINY_E_ACUTE, -1);
    /* Not over the border of an added token. */
    CHECK_IDS(t, "e<t>\xcc\x81", 0, 'e', TINY_T, 0xcc, 0x81, -1);
    ferrum_tokenizer_free(t);
    EXPECT_OK(load(&(tiny_json_t){.normalizer = "null"}, &t, &err));
    CHECK_IDS(t, "e\xcc\x81", 0, 'e', 0xcc, 0x81, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(control_tokens_need_the_flag)
{
    ferrum_tokenizer_t *t = load_usual();
    CHECK_IDS(t, "<|end|>", FERRUM_ENCODE_PARSE_SPECIAL, TINY_END, -1);
    CHECK_IDS(t, "<|end|>", 0, '<', '|', 'e', 'n', 'd', '|', '>', -1);
    CHECK_IDS(t, "x<t>ab", 0, 'x', TINY_T, TINY_AB, -1);
    CHECK_IDS(t, "<t<t>", 0, '<', 't', TINY_T, -1);
    CHECK_IDS(t, "<t><|end|><t>", FERRUM_ENCODE_PARSE_SPECIAL, TINY_T, TINY_END, TINY_T, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(the_longest_added_token_wins)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(&(tiny_json_t){.added_tokens = "[{\"id\":259,\"content\":\"<x\"},"
                                                  "{\"id\":260,\"content\":\"<x>>\"},"
                                                  "{\"id\":262,\"content\":\"<x>\"}]"},
                   &t, &err));
    CHECK_IDS(t, "<x>><x><x", 0, 260, 262, 259, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(normalized_added_tokens_match_after_nfc)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(&(tiny_json_t){.added_tokens = "[{\"id\":259,\"content\":\"\xc3\xa9\xc3\xa9\","
                                                  "\"normalized\":true},{\"id\":260,\"content\":"
                                                  "\"<t>\"}]"},
                   &t, &err));
    CHECK_IDS(t, "e\xcc\x81\xc3\xa9<t>", 0, 259, 260, -1);
    ferrum_tokenizer_free(t);
    EXPECT_FAILS(load(&(tiny_json_t){.added_tokens = "[{\"id\":259,\"content\":\"e\xcc\x81\","
                                                     "\"normalized\":true}]"},
                      &t, &err),
                 FERRUM_UNSUPPORTED, "NFC");
}
END_TEST

START_TEST(ignore_merges_takes_whole_words)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(&(tiny_json_t){.model_options = "\"type\":\"BPE\",\"ignore_merges\":true,",
                                  .merges = "[\"b c\"]",
                                  .more_vocab = ",\"bc\":263"},
                   &t, &err));
    CHECK_IDS(t, "abc", 0, TINY_ABC, -1);
    CHECK_IDS(t, "xbc", 0, 'x', 263, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(several_patterns_cut_in_turn)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(
        &(tiny_json_t){
            .pre_tokenizer =
                "{\"type\":\"Sequence\",\"pretokenizers\":["
                "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x+\"},\"behavior\":\"Isolated\"},"
                "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?<=a)b\"},\"behavior\":"
                "\"Isolated\"},"
                "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"},
        &t, &err));
    CHECK_IDS(t, "abcx", 0, 'a', 'b', 'c', 'x', -1);
    CHECK_IDS(t, "x a", 0, 'x', TINY_SPACE_A, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

/* U+180E is no white space: with punctuation behind it, it stays in one word. */
START_TEST(vowel_separator_is_not_space)
{
    ferrum_tokenizer_t *t = NULL;
    EXPECT_OK(load(&(tiny_json_t){.merges = "[\"\xc4\xb0 !\"]", .more_vocab = ",\"\xc4\xb0!\":262"},
                   &t, &err));
    /* Bytes E1 A0 8E; 8E is U+0130 in the alphabet. */
    CHECK_IDS(t, "\xe1\xa0\x8e!", 0, 0xe1, 0xa0, 262, -1);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(refuses_broken_text)
{
    static const struct {
        const char *text;
        size_t bytes;
        const char *offset;
    } cases[] = {
        {"\xff", 1, "byte 0"},
        {"ab\x80", 3, "byte 2"},
        {"ab\xc3", 3, "byte 2"},
        {"\xc0\x80", 2, "byte 0"},
        {"\xe0\x9f\xbf", 3, "byte 0"},
        {"\xed\xa0\x80", 3, "byte 0"},
        {"\xf4\x90\x80\x80", 4, "byte 0"},
        {"\xf0\x8f\xbf\xbf", 4, "byte 0"},
        {"\xf0\x9f\x98", 3, "byte 0"},
        {"\xf5\x80\x80\x80", 4, "byte 0"},
    };
    ferrum_tokenizer_t *t = load_usual();
    ferrum_token_list_t list = {0};
    EXPECT_OK(ferrum_tokenizer_encode(t, "ab", 2, 0, &list, &err));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        EXPECT_FAILS(ferrum_tokenizer_encode(t, cases[i].text, cases[i].bytes, 0, &list, &err),
                     FERRUM_INVALID_INPUT, cases[i].offset);
        ck_assert_uint_eq(list.count, 1);
    }
    EXPECT_FAILS(ferrum_tokenizer_encode(t, "ab", 2, 0x80, &list, &err), FERRUM_INVALID_ARGUMENT,
                 "0x80");
    /* NUL is a character like others. */
    EXPECT_OK(ferrum_tokenizer_encode(t, "a\0b", 3, 0, &list, &err));
    ck_assert_uint_eq(list.count, 4);
    ck_assert_int_eq(list.ids[2], 0);
    ferrum_token_list_free(&list);
    ferrum_tokenizer_free(t);
}
END_TEST

/* A pattern that would take exponential time is given up, and what was encoded is taken back. */
START_TEST(an_endless_pattern_is_an_error)
{
    static const char text[] = "<t>xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxzy";
    ferrum_tokenizer_t *t = NULL;
    ferrum_token_list_t list = {0};
    EXPECT_OK(
        load(&(tiny_json_t){.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                                             "\"Split\",\"pattern\":{\"Regex\":\"(x+x+)+y\"},"
                                             "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
                                             "\"use_regex\":false}]}"},
             &t, &err));
    EXPECT_FAILS(ferrum_tokenizer_encode(t, text, strlen(text), 0, &list, &err), FERRUM_UNSUPPORTED,
                 "gives up");
    ck_assert_uint_eq(list.count, 0);
    ferrum_token_list_free(&list);
    ferrum_tokenizer_free(t);
}
END_TEST

/* Push byte tokens and collect the pieces, each of which ends with a bar. */
static void check_stream(const char *bytes, const char *wanted)
{
    ferrum_tokenizer_t *t = load_usual();
    ferrum_decoder_t *decoder;
    char got[256] = "";
    EXPECT_OK(ferrum_decoder_new(t, FERRUM_DECODE_SKIP_SPECIAL, &decoder, &err));
    for (size_t i = 0; bytes[i]; i++) {
        ferrum_string_view_t piece;
        int32_t id = bytes[i] == '$' ? TINY_END : (int32_t)(uint8_t)bytes[i];
        EXPECT_OK(ferrum_decoder_push(decoder, id, &piece, &err));
        strncat(got, piece.data, piece.length);
        strcat(got, "|");
    }
    ferrum_string_view_t rest = ferrum_decoder_finish(decoder);
    strncat(got, rest.data, rest.length);
    ck_assert_str_eq(got, wanted);
    ck_assert_uint_eq(ferrum_decoder_finish(decoder).length, 0);
    ferrum_decoder_free(decoder);
    ferrum_tokenizer_free(t);
}

START_TEST(decoder_holds_back_unfinished_characters)
{
    check_stream("ab", "a|b|");
    check_stream("\xc3\xa9", "|\xc3\xa9|");
    check_stream("\xf0\x9f\x98\x80!", "|||\xf0\x9f\x98\x80|!|");
    check_stream("\xf0\x9f\x98", "|||\xef\xbf\xbd");
    check_stream("\xe2\x82"
                 "a",
                 "||\xef\xbf\xbd"
                 "a|");
    check_stream("\xff\xfe", "\xef\xbf\xbd|\xef\xbf\xbd|");
    check_stream("\xed\xa0", "|\xef\xbf\xbd\xef\xbf\xbd|");
    check_stream("\xe2\xe2\x82\xac", "|\xef\xbf\xbd||\xe2\x82\xac|");
    /* A hidden control token does not end a character. */
    check_stream("a$\xc3$\xa9", "a||||\xc3\xa9|");
}
END_TEST

START_TEST(decoder_refuses_unknown_ids)
{
    ferrum_tokenizer_t *t = load_usual();
    ferrum_decoder_t *decoder;
    ferrum_string_view_t piece;
    EXPECT_OK(ferrum_decoder_new(t, 0, &decoder, &err));
    EXPECT_FAILS(ferrum_decoder_push(decoder, -1, &piece, &err), FERRUM_INVALID_ARGUMENT, "-1");
    EXPECT_FAILS(ferrum_decoder_push(decoder, 4000, &piece, &err), FERRUM_INVALID_ARGUMENT, "4000");
    EXPECT_OK(ferrum_decoder_push(decoder, TINY_END, &piece, &err));
    ck_assert(ferrum_view_equal(piece, ferrum_view("<|end|>")));
    ferrum_decoder_free(decoder);
    EXPECT_FAILS(ferrum_decoder_new(t, 8, &decoder, &err), FERRUM_INVALID_ARGUMENT, "0x8");
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(json_refusals)
{
    static const struct {
        tiny_json_t parts;
        ferrum_status_t status;
        const char *text;
    } cases[] = {
        {{.model_options = "\"type\":\"WordPiece\","}, FERRUM_UNSUPPORTED, "WordPiece"},
        {{.model_options = ""}, FERRUM_UNSUPPORTED, "tokenizer model"},
        {{.model_options = "\"type\":\"BPE\",\"unk_token\":\"<unk>\","},
         FERRUM_UNSUPPORTED,
         "unk_token"},
        {{.model_options = "\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\","},
         FERRUM_UNSUPPORTED,
         "</w>"},
        {{.model_options = "\"type\":\"BPE\",\"byte_fallback\":true,"},
         FERRUM_UNSUPPORTED,
         "byte_fallback"},
        {{.model_options = "\"type\":\"BPE\",\"dropout\":0.1,"}, FERRUM_UNSUPPORTED, "dropout"},
        {{.normalizer = "{\"type\":\"NFKC\"}"}, FERRUM_UNSUPPORTED, "NFKC"},
        {{.pre_tokenizer = "{\"type\":\"Whitespace\"}"}, FERRUM_UNSUPPORTED, "Whitespace"},
        {{.pre_tokenizer = "null"}, FERRUM_UNSUPPORTED, "pre-tokenizer"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"},
         FERRUM_UNSUPPORTED,
         "add_prefix_space"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                           "\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Removed\"}]}"},
         FERRUM_UNSUPPORTED,
         "Removed"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                           "\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}]}"},
         FERRUM_CORRUPT,
         "bad pattern"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[]}"},
         FERRUM_UNSUPPORTED,
         "ByteLevel"},
        {{.post_processor = "{\"type\":\"TemplateProcessing\"}"},
         FERRUM_UNSUPPORTED,
         "TemplateProcessing"},
        {{.added_tokens = "[{\"id\":259,\"content\":\"<m>\",\"lstrip\":true}]"},
         FERRUM_UNSUPPORTED,
         "lstrip"},
        {{.added_tokens = "[{\"id\":65,\"content\":\"<m>\"}]"}, FERRUM_CORRUPT, "id 65"},
        {{.added_tokens = "[{\"id\":16777216,\"content\":\"<m>\"}]"}, FERRUM_CORRUPT, "range"},
        {{.added_tokens = "[{\"id\":1000000,\"content\":\"<m>\"}]"}, FERRUM_CORRUPT, "range"},
        {{.added_tokens = "[{\"id\":-5,\"content\":\"<m>\"}]"}, FERRUM_CORRUPT, "-5"},
        {{.added_tokens = "[{\"id\":259,\"content\":\"\"}]"}, FERRUM_CORRUPT, "0 bytes"},
        {{.added_tokens = "[{\"id\":259,\"content\":\"x\"},{\"id\":260,\"content\":\"x\"}]"},
         FERRUM_CORRUPT,
         "same text"},
        {{.more_vocab = ",\"a b\":262"}, FERRUM_CORRUPT, "byte alphabet"},
        {{.more_vocab = ",\"\xe4\xb8\xad\":262"}, FERRUM_CORRUPT, "byte alphabet"},
        {{.more_vocab = ",\"zz\":\"x\""}, FERRUM_CORRUPT, "integer"},
        {{.more_vocab = ",\"ab\":262"}, FERRUM_CORRUPT, "duplicate"},
        {{.merges = "[\"a q\"]"}, FERRUM_CORRUPT, "merge 0"},
        {{.merges = "[\"a b\",\"a b\"]"}, FERRUM_CORRUPT, "merge 1 is there twice"},
        {{.merges = "[\"ab\"]"}, FERRUM_CORRUPT, "space"},
        {{.merges = "[\"\"]"}, FERRUM_CORRUPT, "space"},
        {{.merges = "[\" b\"]"}, FERRUM_CORRUPT, "merge 0"},
        {{.merges = "[[\"a\"]]"}, FERRUM_CORRUPT, "merge"},
        {{.merges = "[7]"}, FERRUM_CORRUPT, "merge"},
        {{.merges = "7"}, FERRUM_CORRUPT, "merges"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_tokenizer_t *t = NULL;
        EXPECT_FAILS(load(&cases[i].parts, &t, &err), cases[i].status, cases[i].text);
        ck_assert_ptr_null(t);
    }
}
END_TEST

/* Every prefix of the document is an error, and so is a vocabulary without some byte. */
START_TEST(truncated_json_is_an_error)
{
    char *json = tiny_vocab_json(&(tiny_json_t){0});
    ferrum_tokenizer_t *t;
    for (size_t bytes = 0; bytes < strlen(json); bytes += 7)
        EXPECT_FAILS(ferrum_tokenizer_from_json(json, bytes, "cut.json", &t, &err), FERRUM_CORRUPT,
                     "cut.json");
    char *entry = strstr(json, "\"Z\":90");
    memcpy(entry, "\"YZ\":9", 6);
    EXPECT_FAILS(ferrum_tokenizer_from_json(json, strlen(json), "hole", &t, &err), FERRUM_CORRUPT,
                 "hole");
    free(json);
    EXPECT_FAILS(ferrum_tokenizer_from_json_file("/nonexistent/tokenizer.json", &t, &err),
                 FERRUM_NOT_FOUND, "/nonexistent/tokenizer.json");
}
END_TEST

static ferrum_status_t load_gguf(ferrum_gguf_writer_t *writer, ferrum_tokenizer_t **out_tokenizer,
                                 ferrum_error_t *err)
{
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_t *gguf;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    ferrum_status_t status = ferrum_gguf_open_memory(data, bytes, "tiny.gguf", &gguf, err);
    if (status == FERRUM_OK) {
        status = ferrum_tokenizer_from_gguf(gguf, out_tokenizer, err);
        ferrum_gguf_close(gguf);
    }
    free(data);
    return status;
}

static ferrum_gguf_writer_t *gguf_with(const char *model, const char *pre)
{
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    tiny_vocab_gguf(writer, model, pre, tiny_merges, TINY_MERGES);
    return writer;
}

START_TEST(reads_gguf)
{
    ferrum_tokenizer_t *t = NULL;
    ferrum_gguf_writer_t *writer = gguf_with("gpt2", "qwen2");
    ferrum_gguf_writer_bool(writer, "tokenizer.ggml.add_bos_token", true);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.bos_token_id", TINY_END);
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.eos_token_id", TINY_T);
    EXPECT_OK(load_gguf(writer, &t, &err));
    CHECK_IDS(t, "abc<t>e\xcc\x81", 0, TINY_ABC, TINY_T, TINY_E_ACUTE, -1);
    CHECK_IDS(t, "ab", FERRUM_ENCODE_ADD_BOS, TINY_END, TINY_AB, -1);
    ck_assert_int_eq(ferrum_tokenizer_bos(t), TINY_END);
    ck_assert_int_eq(ferrum_tokenizer_eos(t), TINY_T);
    ck_assert_int_eq(ferrum_tokenizer_kind(t, TINY_UNUSED), FERRUM_TOKEN_UNUSED);
    ck_assert_uint_eq(ferrum_tokenizer_bytes(t, TINY_UNUSED).length, 0);
    ck_assert_int_eq(ferrum_tokenizer_find(t, "unused", 6), -1);
    ck_assert_int_eq(ferrum_tokenizer_find(t, " a", 2), TINY_SPACE_A);
    ferrum_tokenizer_free(t);
}
END_TEST

START_TEST(gguf_refusals)
{
    static const char *const bad_merges[] = {"a q"};
    ferrum_tokenizer_t *t = NULL;
    EXPECT_FAILS(load_gguf(gguf_with("llama", "qwen2"), &t, &err), FERRUM_UNSUPPORTED, "llama");
    EXPECT_FAILS(load_gguf(gguf_with("gpt2", "tekken"), &t, &err), FERRUM_UNSUPPORTED, "tekken");
    EXPECT_FAILS(load_gguf(gguf_with("gpt2", NULL), &t, &err), FERRUM_NOT_FOUND,
                 "tokenizer.ggml.pre");
    EXPECT_FAILS(load_gguf(gguf_with(NULL, "qwen2"), &t, &err), FERRUM_NOT_FOUND,
                 "tokenizer.ggml.model");
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    tiny_vocab_gguf(writer, "gpt2", "qwen2", bad_merges, 1);
    EXPECT_FAILS(load_gguf(writer, &t, &err), FERRUM_CORRUPT, "merge 0");
    writer = gguf_with("gpt2", "qwen2");
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.eos_token_id", TINY_VOCAB);
    EXPECT_FAILS(load_gguf(writer, &t, &err), FERRUM_CORRUPT, "EOS");
    writer = gguf_with("gpt2", "qwen2");
    ferrum_gguf_writer_u32(writer, "tokenizer.ggml.bos_token_id", 0xffffffff);
    EXPECT_FAILS(load_gguf(writer, &t, &err), FERRUM_CORRUPT, "bos_token_id");
    writer = gguf_with("gpt2", "qwen2");
    ferrum_gguf_writer_bool(writer, "tokenizer.ggml.add_bos_token", true);
    EXPECT_FAILS(load_gguf(writer, &t, &err), FERRUM_CORRUPT, "bos_token_id");
}
END_TEST

/* A long word and long white space must not take quadratic time: minutes here if they did. */
START_TEST(long_words)
{
    enum {
        BYTES = 2000000
    };
    char *text = malloc(BYTES);
    ferrum_tokenizer_t *t = load_usual();
    ferrum_token_list_t list = {0};
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < BYTES; i++)
        text[i] = (char)('a' + i % 2);
    EXPECT_OK(ferrum_tokenizer_encode(t, text, BYTES, 0, &list, &err));
    ck_assert_uint_eq(list.count, BYTES / 2);
    memset(text, ' ', BYTES);
    list.count = 0;
    EXPECT_OK(ferrum_tokenizer_encode(t, text, BYTES, 0, &list, &err));
    ck_assert_uint_eq(list.count, BYTES);
    free(text);
    ferrum_token_list_free(&list);
    ferrum_tokenizer_free(t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("hand-made vocabulary");
    tcase_add_test(tests, merges_by_rank);
    tcase_add_test(tests, accepts_both_forms_of_merges);
    tcase_add_test(tests, normalises_only_when_asked);
    tcase_add_test(tests, control_tokens_need_the_flag);
    tcase_add_test(tests, the_longest_added_token_wins);
    tcase_add_test(tests, normalized_added_tokens_match_after_nfc);
    tcase_add_test(tests, ignore_merges_takes_whole_words);
    tcase_add_test(tests, several_patterns_cut_in_turn);
    tcase_add_test(tests, vowel_separator_is_not_space);
    tcase_add_test(tests, refuses_broken_text);
    tcase_add_test(tests, an_endless_pattern_is_an_error);
    tcase_add_test(tests, decoder_holds_back_unfinished_characters);
    tcase_add_test(tests, decoder_refuses_unknown_ids);
    tcase_add_test(tests, json_refusals);
    tcase_add_test(tests, truncated_json_is_an_error);
    tcase_add_test(tests, reads_gguf);
    tcase_add_test(tests, gguf_refusals);
    tcase_add_test(tests, long_words);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
