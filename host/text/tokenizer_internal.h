/* SPDX-License-Identifier: MIT */
/**
 * @file tokenizer_internal.h
 * @brief What the tokenizer's parts share: the object, and how the file readers fill it.
 *
 * Order of filling: begin, set tokens, index, add merges, finish.
 */
#ifndef FERRUM_HOST_TOKENIZER_INTERNAL_H
#define FERRUM_HOST_TOKENIZER_INTERNAL_H

#include "host/formats/name_index.h"
#include "host/text/bpe.h"
#include "host/text/pretokenizer.h"
#include "host/text/tokenizer.h"

/** Largest vocabulary. */
#define FERRUM_TOKENIZER_MAX_VOCAB (1u << 24)

/** One id. */
typedef struct ferrum_token {
    size_t offset; /**< into the arena */
    uint32_t length;
    uint8_t kind;       /**< ferrum_token_kind_t */
    uint8_t normalized; /**< added token: matched after normalisation, not before */
} ferrum_token_t;

struct ferrum_tokenizer {
    char *label; /**< the file, for messages */
    ferrum_token_t *tokens;
    uint32_t vocab;
    char *arena; /**< the bytes of all tokens */
    size_t arena_bytes;
    size_t arena_capacity;
    size_t longest_token;
    ferrum_name_index_t normal_index; /**< NORMAL tokens by bytes */
    ferrum_name_index_t added_index;  /**< CONTROL and USER tokens by bytes */
    uint32_t *added;                  /**< their ids, by first byte, then longest first */
    uint32_t added_count;
    uint32_t added_first[257]; /**< where each first byte's begin in `added` */
    bool any_normalized;
    int32_t byte_ids[256]; /**< the token of each single byte */
    ferrum_bpe_t bpe;
    ferrum_pretokenizer_t pretokenizer;
    bool nfc;
    bool whole_words_first; /**< a word that is a token is not merged (`ignore_merges`) */
    bool add_bos;
    int32_t bos;
    int32_t eos;
};

/** An empty tokenizer of @p vocab unused ids. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_tokenizer_begin(const char *label, uint32_t vocab,
                                       ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err);

/**
 * Give @p id its text: for NORMAL in the byte alphabet, literal for the others.
 * Errors: CORRUPT (the id has a text already, or is out of range; not of the alphabet).
 */
ferrum_status_t ferrum_tokenizer_set(ferrum_tokenizer_t *tokenizer, int64_t id,
                                     ferrum_token_kind_t kind, ferrum_string_view_t text,
                                     ferrum_error_t *err);

/** After the last token and before the first merge; @p merges is how many will come. */
ferrum_status_t ferrum_tokenizer_index(ferrum_tokenizer_t *tokenizer, size_t merges,
                                       ferrum_error_t *err);

/** Merge number @p rank of two tokens spelled in the byte alphabet. Errors: CORRUPT. */
ferrum_status_t ferrum_tokenizer_add_merge(ferrum_tokenizer_t *tokenizer, uint32_t rank,
                                           ferrum_string_view_t left, ferrum_string_view_t right,
                                           ferrum_error_t *err);
/** The same from "left right". */
ferrum_status_t ferrum_tokenizer_add_merge_line(ferrum_tokenizer_t *tokenizer, uint32_t rank,
                                                ferrum_string_view_t line, ferrum_error_t *err);

/** Last checks: a token for every byte, BOS and EOS inside the vocabulary. */
ferrum_status_t ferrum_tokenizer_finish(ferrum_tokenizer_t *tokenizer, ferrum_error_t *err);

/**
 * NFC of @p text (valid UTF-8). *out_copy is what to free, NULL when the text is normal as it is
 * (certainly for ASCII) and out_text is @p text. Errors: OUT_OF_MEMORY, INVALID_INPUT.
 */
ferrum_status_t ferrum_text_to_nfc(ferrum_string_view_t text, ferrum_string_view_t *out_text,
                                   void **out_copy, ferrum_error_t *err);

#endif /* FERRUM_HOST_TOKENIZER_INTERNAL_H */
