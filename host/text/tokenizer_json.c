/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/formats/json_text.h"
#include "host/text/tokenizer_internal.h"

/* The pattern that a ByteLevel pre-tokenizer with `use_regex` stands for. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Ids may leave gaps, but not so many that a small file asks for a large table. */
#define ALLOWED_GAPS 65536

/* What every step needs. */
typedef struct source {
    const json_t *root;
    const json_t *model;
    const json_t *vocab;
    const json_t *merges;
    const json_t *added; /* NULL when there are none */
    const char *label;
    ferrum_error_t *err;
} source_t;

static ferrum_status_t refuse(const source_t *s, const char *what, const char *value)
{
    return ferrum_fail(s->err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                       "%.100s: %s \"%.60s\" is not supported", s->label, what, value);
}

static ferrum_status_t fail_shape(const source_t *s, const char *what)
{
    return ferrum_fail(s->err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT, "%.120s: %s", s->label, what);
}

static bool is_present(const json_t *value)
{
    return value && !json_is_null(value);
}

/* `type` of an object; "" when there is none. */
static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

/* Options of the BPE model that change its results. */
static ferrum_status_t check_model(const source_t *s)
{
    static const char *const must_be_empty[] = {"unk_token", "continuing_subword_prefix",
                                                "end_of_word_suffix"};
    if (strcmp(type_of(s->model), "BPE") != 0)
        return refuse(s, "tokenizer model", type_of(s->model));
    for (size_t i = 0; i < sizeof must_be_empty / sizeof must_be_empty[0]; i++) {
        const json_t *value = json_object_get(s->model, must_be_empty[i]);
        const char *text = json_string_value(value);
        if (is_present(value) && !(text && *text == 0))
            return refuse(s, must_be_empty[i], text ? text : "(not a string)");
    }
    const json_t *dropout = json_object_get(s->model, "dropout");
    if (is_present(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0.0))
        return refuse(s, "dropout", "above 0");
    bool byte_fallback = false;
    FERRUM_TRY(
        ferrum_json_bool(s->model, s->label, "byte_fallback", false, &byte_fallback, s->err));
    return byte_fallback ? refuse(s, "byte_fallback", "true") : FERRUM_OK;
}

/* Steps after encoding: only those that add nothing. */
static ferrum_status_t check_post_processor(const source_t *s)
{
    const json_t *post = json_object_get(s->root, "post_processor");
    if (!is_present(post) || strcmp(type_of(post), "ByteLevel") == 0)
        return FERRUM_OK;
    return refuse(s, "post_processor", type_of(post));
}

static ferrum_status_t read_normalizer(const source_t *s, ferrum_tokenizer_t *t)
{
    const json_t *normalizer = json_object_get(s->root, "normalizer");
    if (!is_present(normalizer))
        return FERRUM_OK;
    if (strcmp(type_of(normalizer), "NFC") != 0)
        return refuse(s, "normalizer", type_of(normalizer));
    t->nfc = true;
    return FERRUM_OK;
}

static ferrum_status_t add_split(const source_t *s, const json_t *step, ferrum_tokenizer_t *t)
{
    const char *pattern =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    const char *behavior = "";
    bool invert = false;
    FERRUM_TRY(ferrum_json_string(step, s->label, "behavior", false, &behavior, s->err));
    FERRUM_TRY(ferrum_json_bool(step, s->label, "invert", false, &invert, s->err));
    if (!pattern)
        return refuse(s, "a Split without the pattern", "Regex");
    if (strcmp(behavior, "Isolated") != 0 || invert)
        return refuse(s, "Split behavior", invert ? "inverted" : behavior);
    return ferrum_pretokenizer_add(&t->pretokenizer, pattern, s->err);
}

static ferrum_status_t add_byte_level(const source_t *s, const json_t *step, ferrum_tokenizer_t *t)
{
    bool prefix_space = false;
    bool use_regex = true;
    FERRUM_TRY(ferrum_json_bool(step, s->label, "add_prefix_space", false, &prefix_space, s->err));
    FERRUM_TRY(ferrum_json_bool(step, s->label, "use_regex", false, &use_regex, s->err));
    if (prefix_space)
        return refuse(s, "add_prefix_space", "true");
    return use_regex ? ferrum_pretokenizer_add(&t->pretokenizer, gpt2_pattern, s->err) : FERRUM_OK;
}

/* A list of Splits that ends with the ByteLevel, or the ByteLevel alone. */
static ferrum_status_t read_pretokenizer(const source_t *s, ferrum_tokenizer_t *t)
{
    const json_t *root = json_object_get(s->root, "pre_tokenizer");
    bool sequence = strcmp(type_of(root), "Sequence") == 0;
    const json_t *steps = json_object_get(root, "pretokenizers");
    size_t count = sequence ? json_array_size(steps) : 1;
    bool byte_level = false;
    for (size_t i = 0; i < count; i++) {
        const json_t *step = sequence ? json_array_get(steps, i) : root;
        if (byte_level)
            return refuse(s, "a pre-tokenizer after ByteLevel:", type_of(step));
        if (strcmp(type_of(step), "Split") == 0) {
            FERRUM_TRY(add_split(s, step, t));
        } else if (strcmp(type_of(step), "ByteLevel") == 0) {
            FERRUM_TRY(add_byte_level(s, step, t));
            byte_level = true;
        } else {
            return refuse(s, "pre-tokenizer", type_of(step));
        }
    }
    return byte_level ? FERRUM_OK : refuse(s, "a pre-tokenizer without", "ByteLevel");
}

/* Highest id + 1 over vocabulary and added tokens. */
static ferrum_status_t measure(const source_t *s, uint32_t *out_vocab)
{
    const char *text;
    json_t *value;
    json_int_t highest = -1;
    size_t entries = json_object_size(s->vocab) + json_array_size(s->added);
    json_object_foreach((json_t *)(uintptr_t)s->vocab, text, value)
    {
        if (!json_is_integer(value))
            return fail_shape(s, "an id in the vocabulary is not an integer");
        if (json_integer_value(value) > highest)
            highest = json_integer_value(value);
    }
    for (size_t i = 0; i < json_array_size(s->added); i++) {
        const json_t *id = json_object_get(json_array_get(s->added, i), "id");
        if (!json_is_integer(id))
            return fail_shape(s, "an added token has no integer id");
        if (json_integer_value(id) > highest)
            highest = json_integer_value(id);
    }
    if (highest < 0 || highest >= (json_int_t)FERRUM_TOKENIZER_MAX_VOCAB ||
        (size_t)highest > entries + ALLOWED_GAPS)
        return fail_shape(s, "the ids of the vocabulary are out of range");
    *out_vocab = (uint32_t)highest + 1;
    return FERRUM_OK;
}

static ferrum_status_t check_added_flags(const source_t *s, const json_t *token)
{
    static const char *const unsupported[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        bool set = false;
        FERRUM_TRY(ferrum_json_bool(token, s->label, unsupported[i], false, &set, s->err));
        if (set)
            return refuse(s, "an added token with", unsupported[i]);
    }
    return FERRUM_OK;
}

/* A token that is matched after normalisation must itself be normal. */
static ferrum_status_t check_normal(const source_t *s, const char *content)
{
    void *copy;
    ferrum_string_view_t normal;
    FERRUM_TRY(ferrum_text_to_nfc(ferrum_view(content), &normal, &copy, s->err));
    bool same = ferrum_view_equal(normal, ferrum_view(content));
    free(copy);
    return same ? FERRUM_OK : refuse(s, "the added token, which is not in NFC,", content);
}

static ferrum_status_t read_added(const source_t *s, ferrum_tokenizer_t *t)
{
    for (size_t i = 0; i < json_array_size(s->added); i++) {
        const json_t *token = json_array_get(s->added, i);
        const char *content = NULL;
        bool special = false;
        bool normalized = false;
        int64_t id = -1;
        FERRUM_TRY(ferrum_json_i64(token, s->label, "id", true, &id, s->err));
        FERRUM_TRY(ferrum_json_string(token, s->label, "content", true, &content, s->err));
        FERRUM_TRY(ferrum_json_bool(token, s->label, "special", false, &special, s->err));
        FERRUM_TRY(ferrum_json_bool(token, s->label, "normalized", false, &normalized, s->err));
        FERRUM_TRY(check_added_flags(s, token));
        FERRUM_TRY(ferrum_tokenizer_set(t, id, special ? FERRUM_TOKEN_CONTROL : FERRUM_TOKEN_USER,
                                        ferrum_view(content), s->err));
        normalized = normalized && t->nfc;
        if (normalized)
            FERRUM_TRY(check_normal(s, content));
        t->tokens[id].normalized = normalized;
    }
    return FERRUM_OK;
}

static ferrum_status_t read_vocab(const source_t *s, ferrum_tokenizer_t *t)
{
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)s->vocab, text, value)
    {
        json_int_t id = json_integer_value(value);
        ferrum_string_view_t view = ferrum_view(text);
        /* Some files list added tokens in the vocabulary too. */
        if (id >= 0 && id < (json_int_t)t->vocab && t->tokens[id].kind != FERRUM_TOKEN_UNUSED &&
            t->tokens[id].kind != FERRUM_TOKEN_NORMAL &&
            ferrum_view_equal(view, ferrum_tokenizer_bytes(t, (int32_t)id)))
            continue;
        FERRUM_TRY(ferrum_tokenizer_set(t, id, FERRUM_TOKEN_NORMAL, view, s->err));
    }
    return FERRUM_OK;
}

/* Merges are "left right" in older files and ["left", "right"] in newer ones. */
static ferrum_status_t read_merges(const source_t *s, ferrum_tokenizer_t *t)
{
    for (uint32_t rank = 0; rank < json_array_size(s->merges); rank++) {
        const json_t *merge = json_array_get(s->merges, rank);
        const char *line = json_string_value(merge);
        if (line) {
            FERRUM_TRY(ferrum_tokenizer_add_merge_line(t, rank, ferrum_view(line), s->err));
            continue;
        }
        const char *left = json_string_value(json_array_get(merge, 0));
        const char *right = json_string_value(json_array_get(merge, 1));
        if (json_array_size(merge) != 2 || !left || !right)
            return fail_shape(s, "a merge is neither \"a b\" nor [\"a\", \"b\"]");
        FERRUM_TRY(
            ferrum_tokenizer_add_merge(t, rank, ferrum_view(left), ferrum_view(right), s->err));
    }
    return FERRUM_OK;
}

static ferrum_status_t fill(const source_t *s, ferrum_tokenizer_t *t)
{
    FERRUM_TRY(read_normalizer(s, t));
    FERRUM_TRY(read_pretokenizer(s, t));
    FERRUM_TRY(ferrum_json_bool(s->model, s->label, "ignore_merges", false, &t->whole_words_first,
                                s->err));
    FERRUM_TRY(read_added(s, t));
    FERRUM_TRY(read_vocab(s, t));
    FERRUM_TRY(ferrum_tokenizer_index(t, json_array_size(s->merges), s->err));
    FERRUM_TRY(read_merges(s, t));
    return ferrum_tokenizer_finish(t, s->err);
}

static ferrum_status_t read_root(const json_t *root, const char *label,
                                 ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err)
{
    source_t s = {root, json_object_get(root, "model"), NULL, NULL, NULL, label, err};
    uint32_t vocab = 0;
    s.vocab = json_object_get(s.model, "vocab");
    s.merges = json_object_get(s.model, "merges");
    s.added = json_object_get(root, "added_tokens");
    FERRUM_TRY(check_model(&s));
    FERRUM_TRY(check_post_processor(&s));
    if (!json_is_object(s.vocab) || !json_is_array(s.merges) ||
        json_array_size(s.merges) > FERRUM_TOKENIZER_MAX_VOCAB)
        return fail_shape(&s, "the model has no \"vocab\" object and \"merges\" array");
    FERRUM_TRY(measure(&s, &vocab));
    ferrum_tokenizer_t *t = NULL;
    FERRUM_TRY(ferrum_tokenizer_begin(label, vocab, &t, err));
    ferrum_status_t status = fill(&s, t);
    if (status != FERRUM_OK) {
        ferrum_tokenizer_free(t);
        return status;
    }
    *out_tokenizer = t;
    return FERRUM_OK;
}

ferrum_status_t ferrum_tokenizer_from_json(const char *json, size_t bytes, const char *label,
                                           ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err)
{
    json_t *root;
    FERRUM_TRY(ferrum_json_parse(json, bytes, label, &root, err));
    ferrum_status_t status = read_root(root, label, out_tokenizer, err);
    json_decref(root);
    return status;
}

ferrum_status_t ferrum_tokenizer_from_json_file(const char *path,
                                                ferrum_tokenizer_t **out_tokenizer,
                                                ferrum_error_t *err)
{
    json_t *root;
    FERRUM_TRY(ferrum_json_load(path, &root, err));
    ferrum_status_t status = read_root(root, path, out_tokenizer, err);
    json_decref(root);
    return status;
}
