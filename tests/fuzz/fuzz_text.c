/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/fuzz_text.h"
#include "host/text/tokenizer_internal.h"
#include "host/text/utf8.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static bool is_ascii(const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] >= 0x80)
            return false;
    return true;
}

/* Ids to text; broken UTF-8 never comes out, whatever the ids. */
static size_t decode(const ferrum_tokenizer_t *tokenizer, const ferrum_token_list_t *list,
                     uint8_t **out_text)
{
    ferrum_decoder_t *decoder = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint8_t *text = NULL;
    size_t size = 0;
    FUZZ_REQUIRE(ferrum_decoder_new(tokenizer, 0, &decoder, &err) == FERRUM_OK);
    for (size_t i = 0; i <= list->count; i++) {
        ferrum_string_view_t piece = {"", 0};
        if (i == list->count)
            piece = ferrum_decoder_finish(decoder);
        else
            FUZZ_REQUIRE(ferrum_decoder_push(decoder, list->ids[i], &piece, &err) == FERRUM_OK);
        FUZZ_REQUIRE(ferrum_utf8_valid_prefix(piece.data, piece.length) == piece.length);
        uint8_t *grown = realloc(text, size + piece.length + 1);
        if (!grown)
            abort();
        text = grown;
        memcpy(text + size, piece.data, piece.length);
        size += piece.length;
    }
    ferrum_decoder_free(decoder);
    *out_text = text;
    return size;
}

static void round_trip(const ferrum_tokenizer_t *tokenizer, const uint8_t *text, size_t size,
                       ferrum_encode_flags_t flags)
{
    ferrum_token_list_t list = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status =
        ferrum_tokenizer_encode(tokenizer, (const char *)text, size, flags, &list, &err);
    if (status != FERRUM_OK) {
        fuzz_require_refusal(status, &err);
        FUZZ_REQUIRE(list.count == 0);
    } else {
        uint8_t *back = NULL;
        for (size_t i = 0; i < list.count; i++)
            FUZZ_REQUIRE(list.ids[i] >= 0 &&
                         (uint32_t)list.ids[i] < ferrum_tokenizer_vocab_size(tokenizer));
        size_t back_size = decode(tokenizer, &list, &back);
        if (!(flags & FERRUM_ENCODE_ADD_BOS) && (!tokenizer->nfc || is_ascii(text, size)))
            FUZZ_REQUIRE(back_size == size && memcmp(back, text, size) == 0);
        free(back);
    }
    ferrum_token_list_free(&list);
}

void fuzz_text_round_trip(const ferrum_tokenizer_t *tokenizer, const uint8_t *text, size_t size)
{
    uint8_t *copy = fuzz_copy(text, size);
    for (ferrum_encode_flags_t flags = 0; flags < 4; flags++)
        round_trip(tokenizer, copy, size, flags);
    free(copy);
}
