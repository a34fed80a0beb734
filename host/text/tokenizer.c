/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/text/byte_alphabet.h"
#include "host/text/tokenizer_internal.h"

static ferrum_status_t fail_memory(const char *label, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                       "%.160s: no memory for the tokenizer", label);
}

ferrum_status_t ferrum_tokenizer_begin(const char *label, uint32_t vocab,
                                       ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err)
{
    if (vocab == 0 || vocab > FERRUM_TOKENIZER_MAX_VOCAB)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.140s: a vocabulary of %" PRIu32 " tokens is not from 1 to %u", label,
                           vocab, FERRUM_TOKENIZER_MAX_VOCAB);
    size_t label_bytes = strlen(label) + 1;
    ferrum_tokenizer_t *t = calloc(1, sizeof *t);
    if (!t)
        return fail_memory(label, err);
    t->label = malloc(label_bytes);
    t->tokens = calloc(vocab, sizeof *t->tokens);
    if (!t->label || !t->tokens) {
        ferrum_tokenizer_free(t);
        return fail_memory(label, err);
    }
    memcpy(t->label, label, label_bytes);
    t->vocab = vocab;
    t->bos = -1;
    t->eos = -1;
    *out_tokenizer = t;
    return FERRUM_OK;
}

void ferrum_tokenizer_free(ferrum_tokenizer_t *t)
{
    if (!t)
        return;
    ferrum_name_index_clear(&t->normal_index);
    ferrum_name_index_clear(&t->added_index);
    ferrum_bpe_clear(&t->bpe);
    ferrum_pretokenizer_clear(&t->pretokenizer);
    free(t->added);
    free(t->arena);
    free(t->tokens);
    free(t->label);
    free(t);
}

/* Room for `bytes` more at the arena's end. */
static ferrum_status_t reserve_arena(ferrum_tokenizer_t *t, size_t bytes, ferrum_error_t *err)
{
    if (bytes <= t->arena_capacity - t->arena_bytes)
        return FERRUM_OK;
    size_t capacity = 2 * t->arena_capacity + bytes + 4096;
    char *grown = realloc(t->arena, capacity);
    if (!grown)
        return fail_memory(t->label, err);
    t->arena = grown;
    t->arena_capacity = capacity;
    return FERRUM_OK;
}

static ferrum_string_view_t bytes_of(const ferrum_tokenizer_t *t, uint32_t id)
{
    const ferrum_token_t *token = &t->tokens[id];
    ferrum_string_view_t view = {token->length ? t->arena + token->offset : "", token->length};
    return view;
}

ferrum_status_t ferrum_tokenizer_set(ferrum_tokenizer_t *t, int64_t id, ferrum_token_kind_t kind,
                                     ferrum_string_view_t text, ferrum_error_t *err)
{
    if (id < 0 || id >= (int64_t)t->vocab)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.100s: token %.*s has the id %" PRId64 " outside 0 to %" PRIu32,
                           t->label, FERRUM_VIEW_ARGS(text), id, t->vocab - 1);
    ferrum_token_t *token = &t->tokens[id];
    if (token->kind != FERRUM_TOKEN_UNUSED)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.100s: two tokens have the id %" PRId64, t->label, id);
    if (text.length == 0 || text.length > UINT32_MAX)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.100s: the text of token %" PRId64 " has %zu bytes", t->label, id,
                           text.length);
    FERRUM_TRY(reserve_arena(t, text.length, err));
    size_t length = text.length;
    char *target = t->arena + t->arena_bytes;
    if (kind != FERRUM_TOKEN_NORMAL)
        memcpy(target, text.data, text.length);
    else if (!ferrum_byte_alphabet_decode(text, target, &length))
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "%.80s: token %" PRId64 " (%.*s) is not spelled in the byte alphabet",
                           t->label, id, FERRUM_VIEW_ARGS(text));
    token->offset = t->arena_bytes;
    token->length = (uint32_t)length;
    token->kind = (uint8_t)kind;
    t->arena_bytes += length;
    if (length > t->longest_token)
        t->longest_token = length;
    return FERRUM_OK;
}

/* Sort key of added tokens: first byte, then longest, then id, so that the order is total. */
static int compare_added(const ferrum_tokenizer_t *t, uint32_t a, uint32_t b)
{
    ferrum_string_view_t x = bytes_of(t, a);
    ferrum_string_view_t y = bytes_of(t, b);
    if (x.data[0] != y.data[0])
        return (uint8_t)x.data[0] < (uint8_t)y.data[0] ? -1 : 1;
    if (x.length != y.length)
        return x.length > y.length ? -1 : 1;
    return (a > b) - (a < b);
}

/* Heapsort: qsort has no context argument in C11. */
static void sort_added(const ferrum_tokenizer_t *t, uint32_t *ids, uint32_t count)
{
    for (uint32_t start = count / 2, end = count; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            end--;
            uint32_t last = ids[end];
            ids[end] = ids[0];
            ids[0] = last;
        }
        uint32_t i = start;
        for (;;) {
            uint32_t child = 2 * i + 1;
            if (child >= end)
                break;
            if (child + 1 < end && compare_added(t, ids[child + 1], ids[child]) > 0)
                child++;
            if (compare_added(t, ids[child], ids[i]) <= 0)
                break;
            uint32_t lower = ids[i];
            ids[i] = ids[child];
            ids[child] = lower;
            i = child;
        }
    }
}

static ferrum_status_t index_added(ferrum_tokenizer_t *t, ferrum_error_t *err)
{
    t->added = malloc((t->added_index.count + 1) * sizeof *t->added);
    if (!t->added)
        return fail_memory(t->label, err);
    for (uint32_t id = 0; id < t->vocab; id++) {
        uint8_t kind = t->tokens[id].kind;
        if (kind == FERRUM_TOKEN_CONTROL || kind == FERRUM_TOKEN_USER)
            t->added[t->added_count++] = id;
    }
    sort_added(t, t->added, t->added_count);
    uint32_t at = 0;
    for (uint32_t byte = 0; byte <= 256; byte++) {
        while (at < t->added_count && (uint8_t)bytes_of(t, t->added[at]).data[0] < byte)
            at++;
        t->added_first[byte] = at;
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_tokenizer_index(ferrum_tokenizer_t *t, size_t merges, ferrum_error_t *err)
{
    for (uint32_t id = 0; id < t->vocab; id++) {
        uint8_t kind = t->tokens[id].kind;
        if (kind == FERRUM_TOKEN_UNUSED)
            continue;
        uint32_t existing;
        ferrum_name_index_t *index =
            kind == FERRUM_TOKEN_NORMAL ? &t->normal_index : &t->added_index;
        FERRUM_TRY(ferrum_name_index_add(index, bytes_of(t, id), id, &existing, err));
        if (existing != FERRUM_NAME_NONE)
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                               "%.100s: tokens %" PRIu32 " and %" PRIu32 " have the same text",
                               t->label, existing, id);
        t->any_normalized = t->any_normalized || t->tokens[id].normalized;
    }
    FERRUM_TRY(index_added(t, err));
    return ferrum_bpe_reserve(&t->bpe, merges, err);
}

static ferrum_status_t fail_merge(const ferrum_tokenizer_t *t, uint32_t rank, const char *what,
                                  ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT, "%.120s: merge %" PRIu32 " %s",
                       t->label, rank, what);
}

ferrum_status_t ferrum_tokenizer_add_merge(ferrum_tokenizer_t *t, uint32_t rank,
                                           ferrum_string_view_t left, ferrum_string_view_t right,
                                           ferrum_error_t *err)
{
    size_t left_bytes;
    size_t right_bytes;
    char *joined = malloc(left.length + right.length + 1);
    if (!joined)
        return fail_memory(t->label, err);
    bool spelled = ferrum_byte_alphabet_decode(left, joined, &left_bytes) &&
                   ferrum_byte_alphabet_decode(right, joined + left_bytes, &right_bytes);
    uint32_t ids[3] = {FERRUM_NAME_NONE, FERRUM_NAME_NONE, FERRUM_NAME_NONE};
    if (spelled) {
        const ferrum_string_view_t parts[3] = {{joined, left_bytes},
                                               {joined + left_bytes, right_bytes},
                                               {joined, left_bytes + right_bytes}};
        for (int i = 0; i < 3; i++)
            ids[i] = ferrum_name_index_find(&t->normal_index, parts[i]);
    }
    free(joined);
    if (ids[0] == FERRUM_NAME_NONE || ids[1] == FERRUM_NAME_NONE || ids[2] == FERRUM_NAME_NONE)
        return fail_merge(t, rank, "names a token that is not in the vocabulary", err);
    if (!ferrum_bpe_add(&t->bpe, (int32_t)ids[0], (int32_t)ids[1], rank, (int32_t)ids[2]))
        return fail_merge(t, rank, "is there twice", err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_tokenizer_add_merge_line(ferrum_tokenizer_t *t, uint32_t rank,
                                                ferrum_string_view_t line, ferrum_error_t *err)
{
    const char *space = line.length ? memchr(line.data, ' ', line.length) : NULL;
    if (!space)
        return fail_merge(t, rank, "is not two tokens with a space between them", err);
    ferrum_string_view_t left = {line.data, (size_t)(space - line.data)};
    ferrum_string_view_t right = {space + 1, line.length - left.length - 1};
    return ferrum_tokenizer_add_merge(t, rank, left, right, err);
}

ferrum_status_t ferrum_tokenizer_finish(ferrum_tokenizer_t *t, ferrum_error_t *err)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        ferrum_string_view_t view = {&text, 1};
        uint32_t id = ferrum_name_index_find(&t->normal_index, view);
        if (id == FERRUM_NAME_NONE)
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                               "%.120s: the vocabulary has no token for byte 0x%02x", t->label,
                               (unsigned)byte);
        t->byte_ids[byte] = (int32_t)id;
    }
    if (t->bos >= (int32_t)t->vocab || t->eos >= (int32_t)t->vocab)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.100s: BOS %" PRId32 " or EOS %" PRId32
                           " is outside the vocabulary of %" PRIu32,
                           t->label, t->bos, t->eos, t->vocab);
    return FERRUM_OK;
}

uint32_t ferrum_tokenizer_vocab_size(const ferrum_tokenizer_t *t)
{
    return t->vocab;
}

int32_t ferrum_tokenizer_bos(const ferrum_tokenizer_t *t)
{
    return t->bos;
}

int32_t ferrum_tokenizer_eos(const ferrum_tokenizer_t *t)
{
    return t->eos;
}

ferrum_token_kind_t ferrum_tokenizer_kind(const ferrum_tokenizer_t *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->vocab)
        return FERRUM_TOKEN_UNUSED;
    return (ferrum_token_kind_t)t->tokens[id].kind;
}

ferrum_string_view_t ferrum_tokenizer_bytes(const ferrum_tokenizer_t *t, int32_t id)
{
    ferrum_string_view_t none = {"", 0};
    return id < 0 || (uint32_t)id >= t->vocab ? none : bytes_of(t, (uint32_t)id);
}

int32_t ferrum_tokenizer_find(const ferrum_tokenizer_t *t, const char *text, size_t bytes)
{
    ferrum_string_view_t view = {text, bytes};
    uint32_t id = ferrum_name_index_find(&t->added_index, view);
    if (id == FERRUM_NAME_NONE)
        id = ferrum_name_index_find(&t->normal_index, view);
    return id == FERRUM_NAME_NONE ? -1 : (int32_t)id;
}
