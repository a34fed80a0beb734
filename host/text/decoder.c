/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/text/tokenizer_internal.h"
#include "host/text/utf8.h"

/* U+FFFD in UTF-8. */
static const char replacement[] = "\xef\xbf\xbd";
#define REPLACEMENT_BYTES (sizeof replacement - 1)

struct ferrum_decoder {
    const ferrum_tokenizer_t *tokenizer;
    ferrum_decode_flags_t flags;
    ferrum_utf8_state_t state;
    size_t count;
    char *text; /* room for the longest token, every byte replaced, and a held-back character */
};

ferrum_status_t ferrum_decoder_new(const ferrum_tokenizer_t *tokenizer, ferrum_decode_flags_t flags,
                                   ferrum_decoder_t **out_decoder, ferrum_error_t *err)
{
    if (flags & ~(ferrum_decode_flags_t)FERRUM_DECODE_SKIP_SPECIAL)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "tokenizer: unknown decode flags 0x%" PRIx32, flags);
    ferrum_decoder_t *d = calloc(1, sizeof *d);
    size_t capacity = (tokenizer->longest_token + 1) * REPLACEMENT_BYTES;
    if (d)
        d->text = malloc(capacity);
    if (!d || !d->text) {
        free(d);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory for a decoder");
    }
    d->tokenizer = tokenizer;
    d->flags = flags;
    *out_decoder = d;
    return FERRUM_OK;
}

void ferrum_decoder_free(ferrum_decoder_t *d)
{
    if (!d)
        return;
    free(d->text);
    free(d);
}

static void put(ferrum_decoder_t *d, const void *bytes, size_t count)
{
    memcpy(d->text + d->count, bytes, count);
    d->count += count;
}

static void put_byte(ferrum_decoder_t *d, uint8_t byte)
{
    ferrum_utf8_step_t step = ferrum_utf8_feed(&d->state, byte);
    if (step == FERRUM_UTF8_RESTART) {
        put(d, replacement, REPLACEMENT_BYTES);
        step = ferrum_utf8_feed(&d->state, byte);
    }
    if (step == FERRUM_UTF8_BROKEN) {
        put(d, replacement, REPLACEMENT_BYTES);
    } else if (step == FERRUM_UTF8_COMPLETE) {
        put(d, d->state.bytes, d->state.count);
        d->state.count = 0;
    }
}

ferrum_status_t ferrum_decoder_push(ferrum_decoder_t *d, int32_t id, ferrum_string_view_t *out_text,
                                    ferrum_error_t *err)
{
    const ferrum_tokenizer_t *t = d->tokenizer;
    if (id < 0 || (uint32_t)id >= t->vocab)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "tokenizer: token %" PRId32 " is outside the vocabulary of %" PRIu32, id,
                           t->vocab);
    d->count = 0;
    bool hidden =
        t->tokens[id].kind == FERRUM_TOKEN_CONTROL && (d->flags & FERRUM_DECODE_SKIP_SPECIAL);
    if (!hidden) {
        ferrum_string_view_t bytes = ferrum_tokenizer_bytes(t, id);
        for (size_t i = 0; i < bytes.length; i++)
            put_byte(d, (uint8_t)bytes.data[i]);
    }
    out_text->data = d->text;
    out_text->length = d->count;
    return FERRUM_OK;
}

ferrum_string_view_t ferrum_decoder_finish(ferrum_decoder_t *d)
{
    d->count = 0;
    if (d->state.count)
        put(d, replacement, REPLACEMENT_BYTES);
    d->state.count = 0;
    ferrum_string_view_t text = {d->text, d->count};
    return text;
}
