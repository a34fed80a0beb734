/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/text/tokenizer_internal.h"

/* Pre-tokenizers by the names that GGUF has for them. All of these normalise to NFC. */
static const struct {
    const char *name;
    const char *pattern;
} patterns[] = {
    {"qwen2", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
              " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
};

static const char *pattern_find(ferrum_string_view_t name)
{
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (ferrum_view_equal(name, ferrum_view(patterns[i].name)))
            return patterns[i].pattern;
    return NULL;
}

/* `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
static ferrum_token_kind_t kind_of(int64_t type)
{
    switch (type) {
    case 1:
        return FERRUM_TOKEN_NORMAL;
    case 3:
        return FERRUM_TOKEN_CONTROL;
    case 4:
        return FERRUM_TOKEN_USER;
    default:
        return FERRUM_TOKEN_UNUSED;
    }
}

/* The two names that say which algorithm it is. */
static ferrum_status_t check_model(const ferrum_gguf_t *gguf, const char **out_pattern,
                                   ferrum_error_t *err)
{
    ferrum_string_view_t model;
    ferrum_string_view_t pre;
    FERRUM_TRY(ferrum_gguf_get_string(gguf, "tokenizer.ggml.model", &model, err));
    if (!ferrum_view_equal(model, ferrum_view("gpt2")))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%.80s: tokenizer.ggml.model \"%.*s\" is not supported; \"gpt2\" "
                           "(byte-level BPE) is",
                           ferrum_gguf_path(gguf), FERRUM_VIEW_ARGS(model));
    FERRUM_TRY(ferrum_gguf_get_string(gguf, "tokenizer.ggml.pre", &pre, err));
    *out_pattern = pattern_find(pre);
    if (!*out_pattern)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%.80s: tokenizer.ggml.pre \"%.*s\" is not supported; \"%s\" is",
                           ferrum_gguf_path(gguf), FERRUM_VIEW_ARGS(pre), patterns[0].name);
    return FERRUM_OK;
}

static ferrum_status_t read_tokens(ferrum_tokenizer_t *t, const ferrum_gguf_key_t *types,
                                   const ferrum_string_view_t *texts, ferrum_error_t *err)
{
    for (uint32_t id = 0; id < t->vocab; id++) {
        ferrum_token_kind_t kind = kind_of(ferrum_gguf_item_i64(types, id));
        if (kind != FERRUM_TOKEN_UNUSED)
            FERRUM_TRY(ferrum_tokenizer_set(t, id, kind, texts[id], err));
    }
    return FERRUM_OK;
}

static ferrum_status_t read_merges(ferrum_tokenizer_t *t, const ferrum_string_view_t *lines,
                                   uint64_t count, ferrum_error_t *err)
{
    for (uint32_t rank = 0; rank < count; rank++)
        FERRUM_TRY(ferrum_tokenizer_add_merge_line(t, rank, lines[rank], err));
    return FERRUM_OK;
}

static ferrum_status_t read_id(const ferrum_gguf_t *gguf, const char *key, int32_t *out_id,
                               ferrum_error_t *err)
{
    uint32_t id;
    *out_id = -1;
    if (!ferrum_gguf_find_key(gguf, key))
        return FERRUM_OK;
    FERRUM_TRY(ferrum_gguf_get_u32(gguf, key, &id, err));
    if (id >= FERRUM_TOKENIZER_MAX_VOCAB)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.120s: %s is %u, too large for a token", ferrum_gguf_path(gguf), key,
                           id);
    *out_id = (int32_t)id;
    return FERRUM_OK;
}

static ferrum_status_t read_options(const ferrum_gguf_t *gguf, ferrum_tokenizer_t *t,
                                    ferrum_error_t *err)
{
    static const char add_bos[] = "tokenizer.ggml.add_bos_token";
    FERRUM_TRY(read_id(gguf, "tokenizer.ggml.bos_token_id", &t->bos, err));
    FERRUM_TRY(read_id(gguf, "tokenizer.ggml.eos_token_id", &t->eos, err));
    if (ferrum_gguf_find_key(gguf, add_bos))
        FERRUM_TRY(ferrum_gguf_get_bool(gguf, add_bos, &t->add_bos, err));
    if (t->add_bos && t->bos < 0)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                           "%.140s: add_bos_token without a bos_token_id", ferrum_gguf_path(gguf));
    return FERRUM_OK;
}

/* The arrays that the vocabulary is made of, and room for their strings. */
typedef struct source {
    const ferrum_gguf_key_t *tokens;
    const ferrum_gguf_key_t *types;
    const ferrum_gguf_key_t *merges;
    ferrum_string_view_t *views; /* tokens, later merges */
} source_t;

static ferrum_status_t open_source(const ferrum_gguf_t *gguf, source_t *source, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_gguf_get_array(gguf, "tokenizer.ggml.tokens", FERRUM_GGUF_STRING,
                                     &source->tokens, err));
    FERRUM_TRY(ferrum_gguf_get_array(gguf, "tokenizer.ggml.token_type", FERRUM_GGUF_I32,
                                     &source->types, err));
    FERRUM_TRY(ferrum_gguf_get_array(gguf, "tokenizer.ggml.merges", FERRUM_GGUF_STRING,
                                     &source->merges, err));
    uint64_t tokens = source->tokens->count;
    uint64_t merges = source->merges->count;
    if (tokens == 0 || tokens > FERRUM_TOKENIZER_MAX_VOCAB || merges > FERRUM_TOKENIZER_MAX_VOCAB ||
        source->types->count != tokens)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.80s: %llu tokens, %llu token types and %llu merges do not make a "
                           "vocabulary",
                           ferrum_gguf_path(gguf), (unsigned long long)tokens,
                           (unsigned long long)source->types->count, (unsigned long long)merges);
    size_t views = (size_t)(tokens > merges ? tokens : merges);
    source->views = malloc(views * sizeof *source->views);
    if (!source->views)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.140s: no memory for the vocabulary", ferrum_gguf_path(gguf));
    return FERRUM_OK;
}

static ferrum_status_t fill(const ferrum_gguf_t *gguf, const source_t *source, const char *pattern,
                            ferrum_tokenizer_t *t, ferrum_error_t *err)
{
    ferrum_gguf_array_strings(source->tokens, source->views);
    FERRUM_TRY(read_tokens(t, source->types, source->views, err));
    FERRUM_TRY(ferrum_tokenizer_index(t, (size_t)source->merges->count, err));
    ferrum_gguf_array_strings(source->merges, source->views);
    FERRUM_TRY(read_merges(t, source->views, source->merges->count, err));
    FERRUM_TRY(read_options(gguf, t, err));
    FERRUM_TRY(ferrum_pretokenizer_add(&t->pretokenizer, pattern, err));
    t->nfc = true;
    return ferrum_tokenizer_finish(t, err);
}

ferrum_status_t ferrum_tokenizer_from_gguf(const ferrum_gguf_t *gguf,
                                           ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err)
{
    const char *pattern;
    source_t source = {0};
    ferrum_tokenizer_t *t = NULL;
    FERRUM_TRY(check_model(gguf, &pattern, err));
    FERRUM_TRY(open_source(gguf, &source, err));
    ferrum_status_t status =
        ferrum_tokenizer_begin(ferrum_gguf_path(gguf), (uint32_t)source.tokens->count, &t, err);
    if (status == FERRUM_OK)
        status = fill(gguf, &source, pattern, t, err);
    free(source.views);
    if (status != FERRUM_OK) {
        ferrum_tokenizer_free(t);
        return status;
    }
    *out_tokenizer = t;
    return FERRUM_OK;
}
