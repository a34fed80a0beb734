/* SPDX-License-Identifier: MIT */
/**
 * @file tokenizer.h
 * @brief Byte-level BPE: text to token ids and back.
 *
 * Encoding: split the text at added tokens (leftmost, longest); normalise what lies between (NFC
 * where the model asks for it); cut that into words with the model's pattern (PCRE2, Unicode);
 * merge the bytes of each word by rank, lowest first, leftmost among equals. Merging takes
 * O(n log n) for a word of n bytes.
 *
 * A tokenizer is immutable after it was made: encoding and decoders are [any-thread].
 *
 * Text must be UTF-8; invalid bytes are refused with INVALID_INPUT and their offset, never replaced
 * on the way in. On the way out ids may well spell broken UTF-8: see ferrum_decoder_t.
 */
#ifndef FERRUM_HOST_TOKENIZER_H
#define FERRUM_HOST_TOKENIZER_H

#include <ferrum/types.h>
#include <stdbool.h>

#include "host/formats/gguf.h"
#include "host/formats/string_view.h"

typedef struct ferrum_tokenizer ferrum_tokenizer_t;

/** Longest text that one call encodes. */
#define FERRUM_TOKENIZER_MAX_TEXT_BYTES (1u << 30)

/** What kind of entry a token is. */
typedef enum ferrum_token_kind {
    FERRUM_TOKEN_UNUSED = 0,  /**< the id exists but has no text */
    FERRUM_TOKEN_NORMAL = 1,  /**< made by merging bytes */
    FERRUM_TOKEN_CONTROL = 2, /**< added, special ("<|im_end|>"): usually hidden from the reader */
    FERRUM_TOKEN_USER = 3,    /**< added, ordinary text ("<think>") */
} ferrum_token_kind_t;

/** Flags of ferrum_tokenizer_encode. */
typedef uint32_t ferrum_encode_flags_t;
enum {
    /** Match control tokens in the text too. Without it "<|im_end|>" from a user is plain text;
     *  tokens of kind USER are matched always. */
    FERRUM_ENCODE_PARSE_SPECIAL = 1u << 0,
    /** Begin with the BOS token if the model asks for one. */
    FERRUM_ENCODE_ADD_BOS = 1u << 1,
};

/** A growing list of token ids; zeroed is empty. Release with ferrum_token_list_free. */
typedef struct ferrum_token_list {
    int32_t *ids;
    size_t count;
    size_t capacity;
} ferrum_token_list_t;

/** Release and zero. [any-thread] */
void ferrum_token_list_free(ferrum_token_list_t *list);

/**
 * From GGUF metadata: `tokenizer.ggml.model` "gpt2", `tokenizer.ggml.pre` "qwen2" (with NFC),
 * tokens, merges, token_type, add_bos_token, bos/eos_token_id. Nothing of the file is referenced
 * afterwards. [init]
 *
 * Errors: NOT_FOUND (a key), UNSUPPORTED (another model or pre-tokenizer, named), CORRUPT (a merge
 * of unknown tokens, no token for some byte, an id out of range), OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_tokenizer_from_gguf(const ferrum_gguf_t *gguf,
                                           ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err);

/**
 * From a Hugging Face `tokenizer.json`: a BPE model, normalizer absent or NFC, pre-tokenizer made
 * of Split (regex, isolated) and ByteLevel. Anything else is UNSUPPORTED with its name. [init]
 */
ferrum_status_t ferrum_tokenizer_from_json_file(const char *path,
                                                ferrum_tokenizer_t **out_tokenizer,
                                                ferrum_error_t *err);
/** The same from text; @p label stands for the path in messages. [init] */
ferrum_status_t ferrum_tokenizer_from_json(const char *json, size_t bytes, const char *label,
                                           ferrum_tokenizer_t **out_tokenizer, ferrum_error_t *err);

/** Release; NULL is fine. [init] */
void ferrum_tokenizer_free(ferrum_tokenizer_t *tokenizer);

/** Highest token id + 1. */
uint32_t ferrum_tokenizer_vocab_size(const ferrum_tokenizer_t *tokenizer);
/** BOS and EOS as the file states them; -1 where it does not (tokenizer.json never does). */
int32_t ferrum_tokenizer_bos(const ferrum_tokenizer_t *tokenizer);
int32_t ferrum_tokenizer_eos(const ferrum_tokenizer_t *tokenizer);

/** Kind of @p id; UNUSED for one out of range. */
ferrum_token_kind_t ferrum_tokenizer_kind(const ferrum_tokenizer_t *tokenizer, int32_t id);
/** The bytes that @p id stands for (not always whole characters); empty for an unused id. */
ferrum_string_view_t ferrum_tokenizer_bytes(const ferrum_tokenizer_t *tokenizer, int32_t id);
/** Id of the token with exactly these bytes, added tokens first; -1 when there is none. */
int32_t ferrum_tokenizer_find(const ferrum_tokenizer_t *tokenizer, const char *text, size_t bytes);

/**
 * Append the tokens of @p text to @p list. On an error the list is as before.
 * Errors: INVALID_INPUT (not UTF-8), INVALID_ARGUMENT (text too long, unknown flag),
 * OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_tokenizer_encode(const ferrum_tokenizer_t *tokenizer, const char *text,
                                        size_t bytes, ferrum_encode_flags_t flags,
                                        ferrum_token_list_t *list, ferrum_error_t *err);

/**
 * Ids to text, one token at a time. Bytes are held back until they make whole characters, so every
 * piece handed out is valid UTF-8; each maximal broken sequence becomes one U+FFFD. The pieces of a
 * stream joined are what decoding it at once gives.
 */
typedef struct ferrum_decoder ferrum_decoder_t;

/** Flags of a decoder. */
typedef uint32_t ferrum_decode_flags_t;
enum {
    FERRUM_DECODE_SKIP_SPECIAL = 1u << 0, /**< tokens of kind CONTROL yield nothing */
};

/** The tokenizer must outlive the decoder. [init] */
ferrum_status_t ferrum_decoder_new(const ferrum_tokenizer_t *tokenizer, ferrum_decode_flags_t flags,
                                   ferrum_decoder_t **out_decoder, ferrum_error_t *err);
void ferrum_decoder_free(ferrum_decoder_t *decoder);

/**
 * Next token. *out_text (perhaps empty) is valid until the next call on this decoder. Allocates
 * nothing. INVALID_ARGUMENT for an id out of range.
 */
ferrum_status_t ferrum_decoder_push(ferrum_decoder_t *decoder, int32_t id,
                                    ferrum_string_view_t *out_text, ferrum_error_t *err);
/** End of the stream: a held-back, incomplete character becomes U+FFFD. Ready for a new one. */
ferrum_string_view_t ferrum_decoder_finish(ferrum_decoder_t *decoder);

#endif /* FERRUM_HOST_TOKENIZER_H */
