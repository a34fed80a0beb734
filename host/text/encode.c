/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>
#include <utf8proc.h>

#include "host/text/tokenizer_internal.h"
#include "host/text/utf8.h"

#define KNOWN_FLAGS ((ferrum_encode_flags_t)(FERRUM_ENCODE_PARSE_SPECIAL | FERRUM_ENCODE_ADD_BOS))

/* One call of encode. */
typedef struct encoder {
    const ferrum_tokenizer_t *tokenizer;
    ferrum_encode_flags_t flags;
    ferrum_token_list_t *list;
    ferrum_bpe_scratch_t scratch;
    ferrum_error_t *err;
} encoder_t;

/* Encodes what lies between two added tokens. */
typedef ferrum_status_t (*plain_fn_t)(encoder_t *e, ferrum_string_view_t text);

void ferrum_token_list_free(ferrum_token_list_t *list)
{
    free(list->ids);
    memset(list, 0, sizeof *list);
}

static ferrum_status_t reserve(encoder_t *e, size_t more)
{
    ferrum_token_list_t *list = e->list;
    if (more <= list->capacity - list->count)
        return FERRUM_OK;
    size_t capacity = list->count + more;
    if (capacity < 2 * list->capacity)
        capacity = 2 * list->capacity;
    int32_t *grown = realloc(list->ids, capacity * sizeof *grown);
    if (!grown)
        return ferrum_fail(e->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory for %zu tokens", capacity);
    list->ids = grown;
    list->capacity = capacity;
    return FERRUM_OK;
}

static ferrum_status_t append(encoder_t *e, int32_t id)
{
    FERRUM_TRY(reserve(e, 1));
    e->list->ids[e->list->count++] = id;
    return FERRUM_OK;
}

static ferrum_status_t encode_word(void *context, const char *word, size_t bytes,
                                   ferrum_error_t *err)
{
    encoder_t *e = context;
    const ferrum_tokenizer_t *t = e->tokenizer;
    if (t->whole_words_first) {
        ferrum_string_view_t view = {word, bytes};
        uint32_t id = ferrum_name_index_find(&t->normal_index, view);
        if (id != FERRUM_NAME_NONE)
            return append(e, (int32_t)id);
    }
    FERRUM_TRY(reserve(e, bytes));
    int32_t *ids = e->list->ids + e->list->count;
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        ids[i] = t->byte_ids[(uint8_t)word[i]];
    FERRUM_TRY(ferrum_bpe_merge(&t->bpe, &e->scratch, ids, bytes, &count, err));
    e->list->count += count;
    return FERRUM_OK;
}

/* The longest added token of the wanted class that `text` begins with; FERRUM_NAME_NONE if none. */
static uint32_t match_added(const encoder_t *e, ferrum_string_view_t text, bool normalized)
{
    const ferrum_tokenizer_t *t = e->tokenizer;
    uint8_t first = (uint8_t)text.data[0];
    for (uint32_t i = t->added_first[first]; i < t->added_first[first + 1]; i++) {
        const ferrum_token_t *token = &t->tokens[t->added[i]];
        if ((token->normalized != 0) != normalized || token->length > text.length)
            continue;
        if (token->kind == FERRUM_TOKEN_CONTROL && !(e->flags & FERRUM_ENCODE_PARSE_SPECIAL))
            continue;
        if (memcmp(t->arena + token->offset, text.data, token->length) == 0)
            return t->added[i];
    }
    return FERRUM_NAME_NONE;
}

/* Cut at added tokens of one class; the rest goes to `plain`. */
static ferrum_status_t split_added(encoder_t *e, ferrum_string_view_t text, bool normalized,
                                   plain_fn_t plain)
{
    size_t begin = 0;
    size_t at = 0;
    while (at < text.length) {
        ferrum_string_view_t rest = {text.data + at, text.length - at};
        uint32_t id = match_added(e, rest, normalized);
        if (id == FERRUM_NAME_NONE) {
            at++;
            continue;
        }
        ferrum_string_view_t before = {text.data + begin, at - begin};
        FERRUM_TRY(plain(e, before));
        FERRUM_TRY(append(e, (int32_t)id));
        at += e->tokenizer->tokens[id].length;
        begin = at;
    }
    ferrum_string_view_t last = {text.data + begin, text.length - begin};
    return plain(e, last);
}

static ferrum_status_t encode_normal(encoder_t *e, ferrum_string_view_t text)
{
    return ferrum_pretokenizer_cut(&e->tokenizer->pretokenizer, text.data, text.length, encode_word,
                                   e, e->err);
}

ferrum_status_t ferrum_text_to_nfc(ferrum_string_view_t text, ferrum_string_view_t *out_text,
                                   void **out_copy, ferrum_error_t *err)
{
    size_t ascii = 0;
    *out_copy = NULL;
    *out_text = text;
    while (ascii < text.length && (uint8_t)text.data[ascii] < 0x80)
        ascii++;
    if (ascii == text.length)
        return FERRUM_OK;
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t bytes =
        utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.length, &normal,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (bytes < 0) {
        bool memory = bytes == UTF8PROC_ERROR_NOMEM;
        return ferrum_fail(err, memory ? FERRUM_OUT_OF_MEMORY : FERRUM_INVALID_INPUT,
                           FERRUM_REASON_OTHER, "cannot normalise the text: %s",
                           utf8proc_errmsg(bytes));
    }
    *out_copy = normal;
    out_text->data = (const char *)normal;
    out_text->length = (size_t)bytes;
    return FERRUM_OK;
}

static ferrum_status_t encode_plain(encoder_t *e, ferrum_string_view_t text)
{
    void *copy = NULL;
    if (text.length == 0)
        return FERRUM_OK;
    if (e->tokenizer->nfc)
        FERRUM_TRY(ferrum_text_to_nfc(text, &text, &copy, e->err));
    ferrum_status_t status = e->tokenizer->any_normalized
                                 ? split_added(e, text, true, encode_normal)
                                 : encode_normal(e, text);
    free(copy);
    return status;
}

static ferrum_status_t check_text(const char *text, size_t bytes, ferrum_encode_flags_t flags,
                                  ferrum_error_t *err)
{
    if (flags & ~KNOWN_FLAGS)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "tokenizer: unknown encode flags 0x%" PRIx32, flags);
    if (bytes > FERRUM_TOKENIZER_MAX_TEXT_BYTES)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "tokenizer: %zu bytes of text are more than %u", bytes,
                           FERRUM_TOKENIZER_MAX_TEXT_BYTES);
    size_t valid = ferrum_utf8_valid_prefix(text, bytes);
    if (valid != bytes)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_FORMAT,
                           "tokenizer: the text is not UTF-8 at byte %zu (0x%02x)", valid,
                           (unsigned)(uint8_t)text[valid]);
    return FERRUM_OK;
}

ferrum_status_t ferrum_tokenizer_encode(const ferrum_tokenizer_t *tokenizer, const char *text,
                                        size_t bytes, ferrum_encode_flags_t flags,
                                        ferrum_token_list_t *list, ferrum_error_t *err)
{
    FERRUM_TRY(check_text(text, bytes, flags, err));
    encoder_t e = {tokenizer, flags, list, {0}, err};
    size_t before = list->count;
    ferrum_string_view_t view = {text, bytes};
    ferrum_status_t status = FERRUM_OK;
    if ((flags & FERRUM_ENCODE_ADD_BOS) && tokenizer->add_bos && tokenizer->bos >= 0)
        status = append(&e, tokenizer->bos);
    if (status == FERRUM_OK)
        status = split_added(&e, view, false, encode_plain);
    if (status != FERRUM_OK)
        list->count = before;
    ferrum_bpe_scratch_clear(&e.scratch);
    return status;
}
